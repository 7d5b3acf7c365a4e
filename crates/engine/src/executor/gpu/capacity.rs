//! Capacity check: whether a step fits into a GPU's buffers.

use esvit_gpu::Adapter;

use crate::network::{self, CompiledStep};
use crate::spec::{CropSpec, TrainerSpec};
use crate::{DeviceKind, Error, Result};

/// Checks that every value of the step fits into a buffer, before anything is allocated. No interface tells how much
/// memory a GPU has in all: that shows when it is allocated.
pub fn check_capacity(spec: &TrainerSpec, step: &CompiledStep, adapter: &Adapter) -> Result<()> {
    let needs = |batch: usize| -> Result<u64> {
        let spec = TrainerSpec { crops: CropSpec { batch, ..spec.crops.clone() }, ..spec.clone() };
        Ok(network::build(&spec, spec.pixel_type(), DeviceKind::Gpu)?.program.largest_bytes() as u64)
    };
    let (bytes, limit) = (step.program.largest_bytes() as u64, adapter.max_buffer);
    if bytes <= limit {
        return Ok(());
    }
    // Sizes grow with the batch: the largest that fits lies between one that does and one that does not.
    let (mut fits, mut too_large) = (0, spec.crops.batch);
    while fits + 1 < too_large {
        let middle = fits.midpoint(too_large);
        if needs(middle)? <= limit { fits = middle } else { too_large = middle }
    }
    let advice = if fits > 0 { format!("a batch of {fits} fits") } else { "no batch fits".into() };
    Err(Error::Memory(format!(
        "a batch of {} needs {} MiB of GPU memory in one piece, and {} gives {} MiB at most; {advice}",
        spec.crops.batch,
        bytes >> 20,
        adapter.name,
        limit >> 20
    )))
}

#[cfg(test)]
mod tests {
    use esvit_gpu::AdapterKind;
    use esvit_nn::spec::{BackboneSpec, HeadSpec, SwinSpec};

    use super::*;
    use crate::spec::{LossSpec, OptimizerKind, PrecisionSpec};

    #[test]
    fn a_batch_that_no_buffer_holds_is_refused_with_one_that_fits() -> Result<()> {
        let swin = SwinSpec {
            image_size: 32,
            patch_size: 4,
            dim: 16,
            depths: vec![1, 1],
            heads: vec![1, 2],
            window: 4,
            mlp_ratio: 2.0,
            qkv_bias: true,
            absolute_position: false,
            patch_norm: true,
            drop_path: 0.0,
        };
        let spec = TrainerSpec {
            backbone: BackboneSpec::Swin(swin),
            head: HeadSpec { out_dim: 96, hidden_dim: 24, bottleneck_dim: 16, layers: 3, batch_norm: false, norm_last_layer: false },
            crops: CropSpec { batch: 16, global_size: 32, local_size: 16, local_count: 1 },
            loss: LossSpec { region: true, student_temperature: 0.1, center_momentum: 0.9, mixup: false },
            optimizer: OptimizerKind::Adamw,
            clip_grad: 0.0,
            accumulate: 1,
            checkpointing: false,
            precision: PrecisionSpec::F32,
            seed: 0,
            threads: 1,
        };
        let step = network::build(&spec, spec.pixel_type(), DeviceKind::Gpu)?;
        let mut adapter = Adapter {
            name: "card".into(),
            kind: AdapterKind::Discrete,
            backend: "Vulkan".into(),
            driver: String::new(),
            max_buffer: step.program.largest_bytes() as u64,
            max_binding: 1 << 27,
            workgroup_memory: 1 << 15,
            half_precision: false,
            cooperative_matrix: false,
            timestamps: false,
        };
        check_capacity(&spec, &step, &adapter)?;
        adapter.max_buffer /= 2;
        let refused = check_capacity(&spec, &step, &adapter).expect_err("a value is larger than the largest buffer").to_string();
        assert!(refused.contains("a batch of 16 needs") && refused.ends_with("; a batch of 8 fits"), "{refused}");
        adapter.max_buffer = 16;
        let refused = check_capacity(&spec, &step, &adapter).expect_err("nothing fits").to_string();
        assert!(refused.ends_with("; no batch fits"), "{refused}");
        Ok(())
    }
}
