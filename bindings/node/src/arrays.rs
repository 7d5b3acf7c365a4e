//! Typed arrays of JavaScript: copied while JavaScript waits, or lent for the time of a call.
//!
//! JavaScript can transfer, shrink or write an array's memory as soon as a call returns, and the arguments of a call can have getters
//! that do so before it begins. So no task holds an array: it gets a [`Copied`], made when the argument is read. A function that ends
//! before JavaScript goes on may use a [`Lent`]. A view of a `SharedArrayBuffer` is refused, for other threads write it at any time.

use std::marker::PhantomData;
use std::{ptr, slice};

use napi::bindgen_prelude::{FromNapiValue, ToNapiValue, TypeName, TypedArrayType, Uint8Array, ValidateNapiValue};
use napi::{Result, ValueType, check_status, sys};

use crate::failure::{ENGINE, failure};

/// ArrayElement type of a typed array. Every pattern of bits is a value of it.
pub trait ArrayElement: Copy + 'static {
    /// Name of the array's class.
    const CLASS: &'static str;
    /// Type of the array.
    const TYPE: TypedArrayType;
}

impl ArrayElement for u8 {
    const CLASS: &'static str = "Uint8Array";
    const TYPE: TypedArrayType = TypedArrayType::Uint8;
}

impl ArrayElement for u32 {
    const CLASS: &'static str = "Uint32Array";
    const TYPE: TypedArrayType = TypedArrayType::Uint32;
}

impl ArrayElement for f32 {
    const CLASS: &'static str = "Float32Array";
    const TYPE: TypedArrayType = TypedArrayType::Float32;
}

/// Address and length of an array, as they are now: valid until JavaScript runs again.
///
/// # Safety
/// `env` and `value` must be live handles of the running call.
unsafe fn view<T: ArrayElement>(env: sys::napi_env, value: sys::napi_value) -> Result<(*mut T, usize)> {
    let (mut is_array, mut kind, mut length, mut data) = (false, 0, 0, ptr::null_mut());
    let (mut buffer, mut offset, mut is_plain, mut is_detached) = (ptr::null_mut(), 0, false, false);
    // SAFETY: the handles are live, the out parameters are locals.
    unsafe {
        check_status!(sys::napi_is_typedarray(env, value, &mut is_array))?;
        if is_array {
            check_status!(sys::napi_get_typedarray_info(env, value, &mut kind, &mut length, &mut data, &mut buffer, &mut offset))?;
            // False for a `SharedArrayBuffer`.
            check_status!(sys::napi_is_arraybuffer(env, buffer, &mut is_plain))?;
            check_status!(sys::napi_is_detached_arraybuffer(env, buffer, &mut is_detached))?;
        }
    }
    if !is_array || TypedArrayType::from(kind) != T::TYPE {
        return Err(failure(ENGINE, format_args!("the argument is no {}", T::CLASS)));
    }
    if !is_plain {
        return Err(failure(
            ENGINE,
            format_args!("a {} of shared memory, which other threads can write, is not read: pass a copy", T::CLASS),
        ));
    }
    if is_detached {
        return Err(failure(ENGINE, format_args!("the memory of the {} was transferred to somebody else", T::CLASS)));
    }
    Ok((data.cast(), length))
}

/// Elements of an array from an address and a length.
///
/// # Safety
/// As [`view`], and JavaScript must not run while the slice is used.
unsafe fn elements<'a, T: ArrayElement>((data, length): (*mut T, usize)) -> &'a [T] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; typed arrays are aligned to their elements.
    unsafe { slice::from_raw_parts(data, length) }
}

/// Copy of a typed array, made when the argument was read.
pub struct Copied<T>(pub Vec<T>);

impl<T: ArrayElement> TypeName for Copied<T> {
    fn type_name() -> &'static str {
        T::CLASS
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl<T: ArrayElement> ValidateNapiValue for Copied<T> {}

impl<T: ArrayElement> FromNapiValue for Copied<T> {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        // SAFETY: handles of the running call; JavaScript does not run before the copy is made.
        Ok(Copied(unsafe { elements(view(env, value)?) }.to_vec()))
    }
}

/// Bytes on their way to JavaScript, which owns them from then on.
impl ToNapiValue for Copied<u8> {
    unsafe fn to_napi_value(env: sys::napi_env, Copied(bytes): Self) -> Result<sys::napi_value> {
        // SAFETY: the caller's environment, handed on.
        unsafe { Uint8Array::to_napi_value(env, bytes.into()) }
    }
}

/// Typed array of JavaScript, for the time of a call. It cannot leave the thread, so no task can hold it.
pub struct Lent<T> {
    env: sys::napi_env,
    value: sys::napi_value,
    element: PhantomData<T>,
}

impl<T: ArrayElement> Lent<T> {
    /// The elements, where they are now.
    ///
    /// # Errors
    /// When the memory is shared, or was transferred after the argument was read.
    pub fn get(&self) -> Result<&[T]> {
        // SAFETY: the handles live as long as the call, which ends after this value. The callers, functions of this crate, do not run
        // JavaScript while they hold the slice, and nobody else can write memory that is not shared.
        Ok(unsafe { elements(view(self.env, self.value)?) })
    }

    /// The elements, to write.
    ///
    /// # Errors
    /// As [`Lent::get`].
    pub fn get_mut(&mut self) -> Result<&mut [T]> {
        // SAFETY: as in `get`; and this is the only reference to the elements, for the array is borrowed mutably and no other argument
        // of a function with a written array is an array.
        let (data, length) = unsafe { view::<T>(self.env, self.value)? };
        if length == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as above.
        Ok(unsafe { slice::from_raw_parts_mut(data, length) })
    }
}

impl<T: ArrayElement> TypeName for Lent<T> {
    fn type_name() -> &'static str {
        T::CLASS
    }

    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl<T: ArrayElement> ValidateNapiValue for Lent<T> {}

impl<T: ArrayElement> FromNapiValue for Lent<T> {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        Ok(Lent { env, value, element: PhantomData })
    }
}
