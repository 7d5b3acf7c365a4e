//! Loss scaling for gradients in half precision: the loss is multiplied so that they do not vanish, and by less once they overflow.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The scale and the rule that changes it, as PyTorch's `GradScaler`. Only `mixed` on a GPU has one; it lives there, in `executor/gpu/scaler.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LossScaler {
    /// Factor that multiplies the loss.
    pub scale: f32,
    /// Factor after `growth_interval` good steps in a row.
    pub growth_factor: f32,
    /// Factor after a step whose gradients overflow.
    pub backoff_factor: f32,
    /// Good steps before the scale grows.
    pub growth_interval: u32,
    /// Good steps in a row so far.
    pub growth_tracker: u32,
}

/// Largest count of steps: the GPU counts in a float, which tells so many apart.
const COUNTED: u32 = 1 << 24;

impl Default for LossScaler {
    fn default() -> Self {
        LossScaler { scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000, growth_tracker: 0 }
    }
}

impl LossScaler {
    /// The values in the order in which `scaler.wgsl` reads them.
    pub(crate) fn values(&self) -> [f32; 5] {
        [self.scale, self.growth_tracker as f32, self.growth_factor, self.backoff_factor, self.growth_interval as f32]
    }

    /// Checks the values of a loaded state.
    ///
    /// # Errors
    /// When it scales by nothing, or changes in the wrong direction.
    pub(crate) fn check(&self) -> Result<()> {
        let fail = |what: &str| Err(Error::State(format!("the loss scaler's {what}")));
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return fail("scale must be above 0");
        }
        if !(self.growth_factor.is_finite() && self.growth_factor > 1.0) {
            return fail("growth_factor must be above 1");
        }
        if !(self.backoff_factor > 0.0 && self.backoff_factor < 1.0) {
            return fail("backoff_factor must be between 0 and 1");
        }
        if !(1..=COUNTED).contains(&self.growth_interval) || self.growth_tracker > COUNTED {
            return fail("growth_interval must be at least 1, and neither it nor the steps counted so far above 2^24");
        }
        Ok(())
    }
}
