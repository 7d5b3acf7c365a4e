//! Golden fixtures for the tests of the other crates: where they lie, what they hold, and how near
//! a result must come.
//!
//! A fixture is a JSON file (configuration, scalars, catalog) with a safetensors file of the same
//! name (arrays). No weights are stored: [`Fixture::fill`] computes every weight and input from its name.
//! Large arrays are kept as digests: 64 samples and three sums.
//!
//! ```no_run
//! use esvit_testkit::{compare_forward, fixtures, golden_or_skip, FillKind};
//!
//! fn every_backbone_agrees() -> Result<(), Box<dyn std::error::Error>> {
//!     if golden_or_skip("every_backbone_agrees").is_none() {
//!         return Ok(());
//!     }
//!     for fixture in fixtures("backbones", "micro_swin")? {
//!         let input = fixture.fill_kind("input.0", &[1, 3, 224, 224], FillKind::Input);
//!         # let forward = |input: &[f32]| input.to_vec();
//!         let view = forward(&input);
//!         compare_forward(&fixture.tensor("eval.view")?, &view)?;
//!     }
//!     Ok(())
//! }
//! ```

mod compare;
mod fill;
mod fixture;
mod folder;
mod golden;
mod scalars;
mod tolerance;

pub use compare::{compare_forward, compare_gradient, compare_gradient_group, compare_parameters, median_l2};
pub use fill::{FillKind, kind_of, seed};
pub use fixture::{Error, Fixture, fixtures};
pub use folder::{golden_folder, golden_or_skip};
pub use golden::{GoldenTensor, GroupRow, Noise, SAMPLES, Values, sample_index};
pub use scalars::{compare_integers, compare_loss, compare_trajectory};
pub use tolerance::{LOSS_END, LOSS_STEP};

/// Result of a test that can fail with any error.
pub type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;
