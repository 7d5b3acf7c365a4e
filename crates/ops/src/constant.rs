//! Tables of an operator's geometry in the memory of a GPU.

use esvit_gpu::{Recorder, View};
use esvit_graph::Result;

/// Uploads a table of words; it lives as long as the recording.
pub(crate) fn constant(rec: &Recorder, what: &str, words: &[u32]) -> Result<View> {
    let view = rec.gpu().allocate(what, 4 * words.len() as u64)?;
    rec.gpu().upload(&view, bytemuck::cast_slice(words));
    Ok(view)
}
