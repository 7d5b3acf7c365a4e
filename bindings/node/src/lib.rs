//! The Node binding: borrow the arrays, hand them to the engine off the JavaScript thread, hand the numbers back.
//! No arithmetic lives here. The typed face is `ts/src/native`.

// The macros of napi generate items without documentation.
#![allow(missing_docs)]
// In test builds napi registers nothing, so nothing seems to be called.
#![cfg_attr(test, allow(dead_code))]

mod bench;
mod encoder;
mod failure;
mod functions;
mod tensors;
mod trainer;
mod worker;
