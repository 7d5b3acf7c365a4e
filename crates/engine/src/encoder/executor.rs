//! The interface of what runs a forward pass on a device.

use std::borrow::Cow;
use std::fmt::Debug;

use esvit_graph::NodeTime;

use crate::forward::CompiledForward;
use crate::{Result, Store};

/// Runs a compiled forward pass.
pub(super) trait ForwardExecutor: Debug + Send {
    /// Takes the weights; the store gives up those that are not read from it any more.
    fn take_weights(&mut self, forward: &CompiledForward, store: &mut Store);

    /// Frees the weights it has taken, where their memory is not used again.
    fn release_weights(&mut self);

    /// Bytes of the weights it has taken.
    fn weight_bytes(&self) -> usize;

    /// One pass over a batch; the outputs, each `[batch, width]`.
    fn run(
        &mut self,
        forward: &CompiledForward,
        store: &Store,
        pixels: &[u8],
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<Vec<Cow<'_, [f32]>>>;
}
