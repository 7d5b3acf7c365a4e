//! Outputs of an encoder, for a small ViT.

use esvit_engine::spec::{EncoderSpec, FeatureOutput, PrecisionSpec};
use esvit_engine::{Device, Encoder};
use esvit_nn::spec::{BackboneSpec, VitSpec};

const C: usize = 12;

fn encode(output: FeatureOutput) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let backbone = BackboneSpec::Vit(VitSpec {
        image_size: 32,
        patch_size: 8,
        dim: C,
        depth: 3,
        heads: 2,
        mlp_ratio: 2.0,
        qkv_bias: true,
        drop_path: 0.1,
    });
    // Other than the nominal size: the positions are resampled.
    let spec = EncoderSpec { backbone, image_size: 24, batch: 2, precision: PrecisionSpec::F32, threads: 1, output };
    let pixels: Vec<u8> = (0..2 * 3 * 24 * 24).map(|i| (i * 31 % 256) as u8).collect();
    Ok(Encoder::new(spec, Device::Cpu)?.encode(&pixels, 2)?)
}

#[test]
fn class_tokens_of_blocks_and_the_mean_of_patches_stand_side_by_side() -> Result<(), Box<dyn std::error::Error>> {
    let (view, blocks) = (encode(FeatureOutput::View)?, encode(FeatureOutput::LastBlocks(2))?);
    let all = encode(FeatureOutput::LastBlocksAndRegions(2))?;
    assert_eq!((view.len(), blocks.len(), all.len()), (2 * C, 2 * 2 * C, 2 * 3 * C));
    for image in 0..2 {
        let (view, blocks, all) = (&view[image * C..][..C], &blocks[image * 2 * C..][..2 * C], &all[image * 3 * C..][..3 * C]);
        assert_eq!(&blocks[C..], view, "the last block's class token is the view");
        assert_eq!(&all[..2 * C], blocks);
        assert_ne!(&all[2 * C..], view, "the mean of the patches is no class token");
    }
    Ok(())
}

#[test]
fn more_blocks_than_there_are_is_one_sentence() {
    let error = encode(FeatureOutput::LastBlocksAndRegions(4)).err().map(|e| e.to_string());
    assert_eq!(error.as_deref().map(|e| e.contains("between 1 and 3, got 4")), Some(true), "{error:?}");
}
