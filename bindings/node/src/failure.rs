//! Errors for JavaScript: `[CODE] sentence`. `ts/src/native` splits them into `code` and `message`.

use napi::{Error, Status};

/// A specification that cannot be built.
pub const CONFIG: &str = "CONFIG";
/// A state or weights that do not fit.
pub const STATE: &str = "STATE";
/// An image that cannot be decoded, or a crop outside it.
pub const IMAGE: &str = "IMAGE";
/// A GPU that is not there, has too little memory, or was lost.
pub const DEVICE: &str = "DEVICE";
/// Anything else, a stopped engine among it.
pub const ENGINE: &str = "ENGINE";

/// An error with its code.
pub fn failure(code: &str, sentence: impl std::fmt::Display) -> Error {
    Error::new(Status::GenericFailure, format!("[{code}] {sentence}"))
}

/// The engine's error with the code its kind has.
pub fn from_engine(error: esvit_engine::Error) -> Error {
    use esvit_engine::Error as E;
    let code = match error {
        E::Memory(_) | E::Gpu(_) | E::Graph(esvit_engine::GraphError::Gpu(_)) => DEVICE,
        E::Spec(_) | E::Graph(_) => CONFIG,
        E::State(_) => STATE,
        E::Input { .. } | E::Batch(_) | E::Threads(_) => ENGINE,
    };
    failure(code, error)
}
