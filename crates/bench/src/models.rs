//! Published specifications, for machines without the configuration files.

use esvit_engine::spec::{CropSpec, LossSpec, OptimizerKind, PrecisionSpec, TrainerSpec};
use esvit_nn::spec::{BackboneSpec, HeadSpec, SwinSpec};

/// Names and sizes of the published Swin Transformers: channels, blocks and heads of the stages.
const SWINS: [(&str, usize, [usize; 4], [usize; 4]); 4] = [
    ("swin_tiny", 96, [2, 2, 6, 2], [3, 6, 12, 24]),
    ("swin_small", 96, [2, 2, 18, 2], [3, 6, 12, 24]),
    ("swin_base", 128, [2, 2, 18, 2], [4, 8, 16, 32]),
    ("swin_large", 192, [2, 2, 18, 2], [6, 12, 24, 48]),
];

/// Names that [`training`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    SWINS.iter().map(|(name, ..)| *name)
}

/// The published training of a backbone with windows of so many tokens a side: two crops of 224 px and eight of 96, K = 65,536, view and region
/// loss, AdamW, one image a step.
pub fn training(name: &str, window: usize) -> Option<TrainerSpec> {
    let (_, dim, depths, heads) = SWINS.iter().find(|(known, ..)| *known == name)?;
    Some(TrainerSpec {
        backbone: BackboneSpec::Swin(SwinSpec {
            image_size: 224,
            patch_size: 4,
            dim: *dim,
            depths: depths.to_vec(),
            heads: heads.to_vec(),
            window,
            mlp_ratio: 4.0,
            qkv_bias: true,
            absolute_position: false,
            patch_norm: true,
            drop_path: 0.1,
        }),
        head: HeadSpec { out_dim: 65536, hidden_dim: 2048, bottleneck_dim: 256, layers: 3, batch_norm: false, norm_last_layer: true },
        crops: CropSpec { batch: 1, global_size: 224, local_size: 96, local_count: 8 },
        accumulate: 1,
        loss: LossSpec { region: true, student_temperature: 0.1, center_momentum: 0.9, mixup: false },
        optimizer: OptimizerKind::Adamw,
        clip_grad: 3.0,
        precision: PrecisionSpec::F32,
        checkpointing: false,
        seed: 0,
        threads: 0,
    })
}

/// The Swin of a specification, if that is what it is.
pub fn swin(backbone: &BackboneSpec) -> Option<&SwinSpec> {
    match backbone {
        BackboneSpec::Swin(swin) => Some(swin),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use esvit_engine::{DeviceKind, TrainerPlan};

    use super::*;

    #[test]
    fn a_step_of_swin_t_with_checkpointing_needs_an_eighth_more_than_its_parameters() {
        // PyTorch needs three times as much for the same step (docs/benchmarks.md).
        let spec = training("swin_tiny", 7).unwrap();
        let spec = TrainerSpec { checkpointing: true, crops: CropSpec { batch: 2, ..spec.crops }, ..spec };
        let memory = TrainerPlan::new(&spec, DeviceKind::Cpu).unwrap().memory;
        assert!(8 * (memory.arena + memory.workspace) < memory.parameters, "{memory:?}");
    }
}
