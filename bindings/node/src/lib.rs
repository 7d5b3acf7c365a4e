//! The Node binding: copy the arrays, hand them to the engine off the JavaScript thread, hand the numbers back. No arithmetic lives here.
//!
//! Plain data is declared in the crates and passes through serde ([`json`]); functions, classes and objects that hold arrays are
//! declared here. `npm run build` writes their types to `ts/src/native/generated/addon.ts`, with the doc comments of this crate.

// The macros of napi generate items without documentation.
#![allow(missing_docs)]
// In test builds napi registers nothing, so nothing seems to be called.
#![cfg_attr(test, allow(dead_code))]

mod arrays;
mod batch;
mod bench;
mod encoder;
mod failure;
mod image;
mod json;
mod knn;
mod machine;
mod render;
mod state;
mod tensors;
mod trainer;
mod worker;
