//! Window attention alone: Swin's first stage, where it has the most tokens.

use esvit_engine::spec::TrainerSpec;
use esvit_engine::{Error, Result};
use esvit_graph::{DType, Graph};
use esvit_ops::linear::Linear;
use esvit_ops::window_attention::WindowAttention;
use esvit_ops::{Layout, Segment};

use crate::measurement::Begun;
use crate::models::swin;
use crate::workload::{Data, Workload};
use crate::{BenchCase, Machine, Measurement, Pace};

/// `batch` images of the global size, in shifted windows.
pub(crate) fn measure(spec: &TrainerSpec, machine: &Machine, pace: &mut Pace, projections: bool, backward: bool) -> Result<Measurement> {
    let begun = Begun::new();
    let Some(swin) = swin(&spec.backbone) else {
        return Err(Error::Spec("window attention is measured on the first stage of a Swin, and this backbone is none".into()));
    };
    let (side, c, heads, window) = (spec.crops.global_size / swin.patch_size, swin.dim, swin.heads[0], swin.window);
    let layout = Layout::new(vec![Segment { images: spec.crops.batch, height: side, width: side }]);
    let n = layout.tokens();
    let span = 2 * window - 1;

    let mut g = Graph::new();
    let leaf = |g: &mut Graph, name: &str, shape: &[usize]| g.leaf(name, shape, DType::F32);
    let table = leaf(&mut g, "table", &[span * span, heads])?;
    let bias = leaf(&mut g, "qkv.bias", &[3 * c])?;
    let mut trained = vec![table, bias];
    let qkv = match projections {
        true => {
            let (x, weight) = (leaf(&mut g, "x", &[n, c])?, leaf(&mut g, "qkv.weight", &[3 * c, c])?);
            trained.extend([x, weight]);
            g.apply1(Linear, &[x, weight, bias])?
        }
        false => {
            let qkv = leaf(&mut g, "qkv", &[n, 3 * c])?;
            trained.push(qkv);
            qkv
        }
    };
    let mut y = g.apply1(WindowAttention::new(&layout, heads, window, window / 2), &[qkv, table, bias])?;
    if projections {
        let (weight, bias) = (leaf(&mut g, "proj.weight", &[c, c])?, leaf(&mut g, "proj.bias", &[c])?);
        trained.extend([weight, bias]);
        y = g.apply1(Linear, &[y, weight, bias])?;
    }
    let mut outputs = vec![y];
    if backward {
        let dy = leaf(&mut g, "dy", &[n, c])?;
        outputs.extend(g.gradients(&[(y, dy)], &trained)?.into_iter().flatten());
    }
    let workload =
        Workload::new(&g, &outputs, spec.precision.into(), |_, i, shape, dtype| Data::plain(i, shape, dtype)).with_bf16x2_on(machine);
    let planned = workload.planned_bytes(machine.pool().threads());
    let mut ready = workload.on(machine)?;
    let times = pace.drive(|| ready.run(1))?;

    // Scores and their product with v; 4·C² products a token in front and behind. A backward pass is two of each.
    let forward = 4 * n * window * window * c + if projections { 8 * n * c * c } else { 0 };
    let flops = if backward { 3 * forward } else { forward };
    Ok(begun.end(BenchCase::Attention { projections, backward }, spec, machine, times, flops as f64 / 1e9, planned))
}
