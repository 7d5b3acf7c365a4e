//! The loss alone: from unit rows, weights of the prototypes and backbone features to the loss and its gradients.

use esvit_engine::Result;
use esvit_engine::spec::TrainerSpec;
use esvit_graph::{DType, Graph, Value};
use esvit_nn::loss::{self, Pairs, Projection};
use esvit_nn::{Mode, Parameters, Scope, backbones};
use esvit_ops::patchify::Patchify;
use esvit_ops::region_match::{GLOBAL_CROPS, RegionMatch};
use esvit_ops::{Input, Layout, Segment};

use crate::measurement::Begun;
use crate::workload::{Data, Workload};
use crate::{BenchCase, Machine, Measurement, Pace};

/// The view term and, where the specification has it, the region term; gradients of rows and prototypes.
pub(crate) fn measure(spec: &TrainerSpec, machine: &Machine, pace: &mut Pace) -> Result<Measurement> {
    let begun = Begun::new();
    let (workload, gflop) = workload(spec, spec.logit_bytes(machine.target()))?;
    let planned = workload.planned_bytes(machine.pool().threads());
    let mut ready = workload.on(machine)?;
    let times = pace.drive(|| ready.run(1))?;
    Ok(begun.end(BenchCase::Loss, spec, machine, times, gflop, planned))
}

/// The loss with `logit_bytes` of logits stored in each term, and its arithmetic in 10⁹ operations.
fn workload(spec: &TrainerSpec, logit_bytes: [usize; 2]) -> Result<(Workload, f64)> {
    let batch = spec.crops.batch;
    let (crop_tokens, width) = regions(spec)?;
    let (k, d) = (spec.head.out_dim, spec.head.bottleneck_dim);
    let mut g = Graph::new();
    let mut trained = Vec::new();
    let (mut losses, mut flops) = (Vec::new(), 0);
    let view = loss::view_pairs(batch, crop_tokens.len(), if spec.loss.region { 0.5 } else { 1.0 });
    let mut known: Vec<(&str, Pairs)> = Vec::new();

    let mut add =
        |g: &mut Graph, name: &'static str, rows: [usize; 2], pairs: Pairs, found: Option<Value>, logit_bytes: usize| -> Result<()> {
            let [student, teacher] = ["student", "teacher"].map(|network| format!("{name} {network}"));
            let projection = |g: &mut Graph, network: &str, rows: usize| -> Result<(Projection, [Value; 2])> {
                let z = g.leaf(&format!("{network} z"), &[rows, d], DType::F32)?;
                let v = g.leaf(&format!("{network} v"), &[k, d], DType::F32)?;
                let magnitude = g.leaf(&format!("{network} magnitude"), &[k, 1], DType::F32)?;
                Ok((Projection { z, direction: v, magnitude }, [z, v]))
            };
            let (student, leaves) = projection(g, &student, rows[0])?;
            let (teacher, _) = projection(g, &teacher, rows[1])?;
            trained.extend(leaves);
            let center = g.leaf(&format!("{name} center"), &[k], DType::F32)?;
            let temperature = g.leaf("temperature", &[1], DType::F32)?;
            let (leaf, weight) = loss::pair_leaves(g, name, &pairs)?;
            let Some(pair_teacher) = found.or(leaf) else { unreachable!("pairs are known, or were matched") };
            let tau = spec.loss.student_temperature;
            let term = loss::term(g, student, teacher, tau, center, temperature, &pairs.offsets, pair_teacher, weight, logit_bytes)?;
            losses.push(term.loss);
            flops += (6 * rows[0] + 2 * rows[1]) * d * k;
            known.push((name, pairs));
            Ok(())
        };
    add(&mut g, "view", [crop_tokens.len() * batch, GLOBAL_CROPS * batch], view, None, logit_bytes[0])?;
    let mut match_flops = 0;
    if spec.loss.region {
        let rows = [crop_tokens.iter().sum::<usize>() * batch, crop_tokens[..GLOBAL_CROPS].iter().sum::<usize>() * batch];
        let matching = RegionMatch { batch, crop_tokens: crop_tokens.clone() };
        let pairs = loss::region_pairs(&matching, 0.5);
        match_flops = 2 * matching.pairs() * crop_tokens[0] * width;
        let features = |g: &mut Graph, name, rows| g.leaf(name, &[rows, width], DType::F32);
        let operands = [features(&mut g, "student features", rows[0])?, features(&mut g, "teacher features", rows[1])?];
        let found = g.apply1(matching, &operands)?;
        add(&mut g, "region", rows, pairs, Some(found), logit_bytes[1])?;
    }
    let one = g.leaf("one", &[1], DType::F32)?;
    let seeds: Vec<(Value, Value)> = losses.iter().map(|&loss| (loss, one)).collect();
    let gradients = g.gradients(&seeds, &trained)?;
    let outputs: Vec<Value> = losses.iter().copied().chain(gradients.into_iter().flatten()).collect();

    let workload = Workload::new(&g, &outputs, spec.precision.into(), |name, number, shape, dtype| {
        let pairs = |name: &str| known.iter().find_map(|(n, pairs)| (name.strip_prefix(n)?.starts_with('.')).then_some(pairs));
        match (name, pairs(name)) {
            ("one", _) => Data::F32(vec![1.0]),
            ("temperature", _) => Data::F32(vec![0.04]),
            (_, Some(pairs)) if name.ends_with(".weight") => Data::F32(pairs.weight.clone()),
            (_, Some(pairs)) => Data::U32(pairs.teacher.clone()),
            _ if name.ends_with(" magnitude") => Data::F32(vec![1.0; k]),
            _ if name.ends_with(" center") => Data::F32(vec![0.0; k]),
            _ if name.ends_with(" z") => Data::F32(Input::UnitRows(shape.to_vec()).floats(number)),
            _ => Data::plain(number, shape, dtype),
        }
    });
    Ok((workload, (flops + match_flops) as f64 / 1e9))
}

/// Tokens an image in each crop, and their channels: the backbone's to say.
fn regions(spec: &TrainerSpec) -> Result<(Vec<usize>, usize)> {
    let crops = &spec.crops;
    let square = |images, side| Segment { images, height: side, width: side };
    let mut segments = vec![square(GLOBAL_CROPS, crops.global_size)];
    if crops.local_count > 0 {
        segments.push(square(crops.local_count, crops.local_size));
    }
    let layout = Layout::new(segments);
    let mut g = Graph::new();
    let mut parameters = Parameters::default();
    let backbone = backbones::build(&spec.backbone, &mut g, &mut Scope::root(&mut parameters, "student"))?;
    let pixels = g.leaf("pixels", &[3 * layout.tokens()], DType::U8)?;
    let crops = Patchify { pixels: layout, patch: backbone.patch_size() };
    let features = backbone.forward(
        &mut g,
        &backbones::BackboneInput { pixels, crops: &crops, drop_path: Vec::new(), neighbors: Vec::new(), mode: Mode::Eval },
    )?;
    let tokens = features.regions.layout.segments().iter().flat_map(|s| std::iter::repeat_n(s.tokens_per_image(), s.images));
    Ok((tokens.collect(), backbone.width()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_logits_recomputed_the_loss_takes_64_mb_beside_its_gradients() -> Result<()> {
        let mut spec = crate::models::training("swin_tiny", 7).expect("a known model");
        spec.crops.batch = 2;
        // Gradients of unit rows and prototypes, of views and of regions.
        let (crop_tokens, _) = regions(&spec)?;
        let rows = (crop_tokens.len() + crop_tokens.iter().sum::<usize>()) * spec.crops.batch;
        let gradients = 4 * (rows + 2 * spec.head.out_dim) * spec.head.bottleneck_dim;
        let beside = |logit_bytes| -> Result<usize> { Ok(workload(&spec, logit_bytes)?.0.planned_bytes(2) as usize - gradients) };
        let (recomputed, stored) = (beside([0, 0])?, beside(spec.logit_bytes(esvit_engine::DeviceKind::Cpu))?);
        assert!(recomputed <= 64_000_000, "{recomputed} bytes");
        assert!(stored > recomputed, "{stored} bytes with stored logits");
        Ok(())
    }
}
