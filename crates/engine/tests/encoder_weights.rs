//! Weights of an encoder: drawn, loaded, loaded again, refused; and once in memory.

use esvit_engine::spec::{CropSpec, EncoderSpec, FeatureOutput, LossSpec, OptimizerKind, PrecisionSpec, TrainerSpec};
use esvit_engine::{Device, Encoder, Tensor, Trainer};
use esvit_nn::spec::{BackboneSpec, HeadSpec, SwinSpec};
use esvit_testkit::Outcome;

fn backbone() -> BackboneSpec {
    BackboneSpec::Swin(SwinSpec {
        image_size: 32,
        patch_size: 4,
        dim: 64,
        depths: vec![1, 1],
        heads: vec![2, 4],
        window: 4,
        mlp_ratio: 4.0,
        qkv_bias: true,
        absolute_position: false,
        patch_norm: true,
        drop_path: 0.0,
    })
}

fn encoder() -> esvit_engine::Result<Encoder> {
    let output = FeatureOutput::LastBlocks(1);
    Encoder::new(
        EncoderSpec { backbone: backbone(), image_size: 32, batch: 1, precision: PrecisionSpec::F32, threads: 2, output },
        Device::Cpu,
    )
}

/// A state dict as runs with this seed begin with.
fn weights(seed: u64) -> Result<Vec<Tensor>, Box<dyn std::error::Error>> {
    let mut trainer = Trainer::new(
        TrainerSpec {
            backbone: backbone(),
            head: HeadSpec { out_dim: 16, hidden_dim: 16, bottleneck_dim: 8, layers: 3, batch_norm: false, norm_last_layer: true },
            crops: CropSpec { batch: 1, global_size: 32, local_size: 16, local_count: 0 },
            accumulate: 1,
            loss: LossSpec { region: false, student_temperature: 0.1, center_momentum: 0.9, mixup: false },
            optimizer: OptimizerKind::Adamw,
            clip_grad: 3.0,
            precision: PrecisionSpec::F32,
            checkpointing: false,
            seed,
            threads: 2,
        },
        Device::Cpu,
    )?;
    Ok(trainer.state()?.teacher)
}

#[test]
fn the_weights_are_the_last_ones_that_fitted() -> Outcome {
    let pixels: Vec<u8> = (0..3 * 32 * 32).map(|i| (i * 31 % 256) as u8).collect();
    let mut drawn = encoder()?;
    let zero = drawn.encode(&pixels, 1)?;
    drawn.initialize(5);
    let five = drawn.encode(&pixels, 1)?;
    assert_ne!(zero, five);

    let mut loaded = encoder()?;
    loaded.load(weights(5)?)?;
    assert_eq!(loaded.encode(&pixels, 1)?, five, "loaded before the first pass");
    loaded.load(weights(0)?)?;
    assert_eq!(loaded.encode(&pixels, 1)?, zero, "loaded after it");

    let mut broken = weights(5)?;
    broken.retain(|t| t.name != "norm.weight");
    assert!(loaded.load(broken).is_err(), "a tensor is missing");
    assert_eq!(loaded.encode(&pixels, 1)?, zero, "a refused set changes nothing");
    Ok(())
}

#[test]
fn weights_are_in_memory_once() -> Outcome {
    let mut encoder = encoder()?;
    let activations = encoder.memory();
    encoder.encode(&vec![7; 3 * 32 * 32], 1)?;
    let floats: usize = weights(0)?.iter().filter(|t| !t.name.starts_with("head")).map(|t| t.values.len()).sum();
    let weights = encoder.memory() - activations;
    // Packed columns are rounded up to whole vectors.
    assert!(weights < 4 * floats * 11 / 10, "{weights} bytes for {floats} floats");
    assert!(weights > 4 * floats * 8 / 10, "{weights} bytes for {floats} floats");
    Ok(())
}
