//! Plain data through serde: what a crate declares is read from JavaScript and handed to it, without a twin here.

use napi::bindgen_prelude::{ToNapiValue, TypeName};
use napi::{Env, JsValue, Result, ValueType, sys};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{ENGINE, failure};

/// Reads plain data; `what` names it in the error.
pub fn read<T: DeserializeOwned>(value: Value, code: &str, what: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|e| failure(code, format_args!("{what}: {e}")))
}

/// Plain data as a field of an object.
pub fn plain(data: impl Serialize) -> Result<Value> {
    serde_json::to_value(data).map_err(|e| failure(ENGINE, e))
}

/// Plain data on its way to JavaScript, integers up to 2^53 as numbers. There is no not-a-number in JSON: see [`Floats`].
pub struct Json(Value);

impl Json {
    /// The data as JavaScript will see it.
    pub fn of(data: impl Serialize) -> Result<Json> {
        plain(data).map(Json)
    }
}

/// Plain data with numbers that may be infinite or not-a-number; its integers are below 2^32.
pub struct Floats<T>(pub T);

impl TypeName for Json {
    fn type_name() -> &'static str {
        "Object"
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ToNapiValue for Json {
    unsafe fn to_napi_value(env: sys::napi_env, Json(data): Json) -> Result<sys::napi_value> {
        // SAFETY: the caller's environment, handed on.
        unsafe { Value::to_napi_value(env, data) }
    }
}

impl<T: Serialize> ToNapiValue for Floats<T> {
    unsafe fn to_napi_value(env: sys::napi_env, Floats(data): Floats<T>) -> Result<sys::napi_value> {
        Env::from_raw(env).to_js_value(&data).map(|value| value.raw())
    }
}
