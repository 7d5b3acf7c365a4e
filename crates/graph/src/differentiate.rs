//! Reverse-mode differentiation as a graph rewrite: the backward pass is more nodes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use esvit_gpu::Recorder;

use crate::{DType, Error, GpuIo, Graph, Io, Op, Result, Shape, Value};

impl Graph {
    /// Adds the nodes that compute `Σ seed·∂value/∂w` for every `w` in `wrt`, given pairs (value, seed) with seeds shaped like their values.
    /// `None` where no path leads.
    ///
    /// # Errors
    /// When a gradient flows into an operator that has no rule for it.
    pub fn gradients(&mut self, seeds: &[(Value, Value)], wrt: &[Value]) -> Result<Vec<Option<Value>>> {
        let forward_nodes = self.nodes.len();
        // Values downstream of `wrt`: only those need a gradient.
        let mut needs = vec![false; self.values.len()];
        for w in wrt {
            needs[w.index()] = true;
        }
        for node in &self.nodes {
            if node.inputs.iter().any(|v| needs[v.index()]) {
                for output in &node.outputs {
                    needs[output.index()] = true;
                }
            }
        }
        let mut grads: Vec<Vec<Value>> = vec![Vec::new(); self.values.len()];
        for &(value, seed) in seeds {
            if self.shape(value) != self.shape(seed) {
                return Err(Error::Shape {
                    op: "gradient",
                    operand: "seed",
                    want: format!("{:?}", self.shape(value)),
                    got: self.shape(seed).clone(),
                });
            }
            grads[value.index()].push(seed);
        }
        // Results that are recomputed for the gradients that read them, and the nodes that write them.
        let recomputed = self.recomputed_results();
        // Recomputed values by the value they stand for, and the segments that the current node is part of, the outermost first.
        let (mut copies, mut open) = (HashMap::new(), Vec::<Range<usize>>::new());
        for index in (0..forward_nodes).rev() {
            let mut node = self.nodes[index].clone();
            if !node.inputs.iter().any(|v| needs[v.index()]) {
                continue;
            }
            let mut dys = Vec::with_capacity(node.outputs.len());
            for output in &node.outputs {
                dys.push(self.total(std::mem::take(&mut grads[output.index()]))?);
            }
            if dys.iter().all(Option::is_none) {
                continue;
            }
            open.retain(|segment| segment.contains(&index));
            while let Some(segment) = self.segments.iter().find(|s| s.contains(&index) && !open.contains(s)).cloned() {
                // The gradients of a segment read what is recomputed right before them. A result that its readers recompute anyway waits
                // for them.
                self.recompute_segment(segment.clone(), !open.is_empty(), &recomputed, &mut copies)?;
                open.push(segment);
            }
            let operands = node.inputs.clone();
            for value in &operands {
                self.recompute(*value, &recomputed, &mut copies)?;
            }
            for value in node.inputs.iter_mut().chain(&mut node.outputs) {
                *value = *copies.get(value).unwrap_or(value);
            }
            let wants: Vec<bool> = operands.iter().map(|v| needs[v.index()]).collect();
            let contributions = node.op.gradient(self, &node, &dys, &wants)?;
            assert_eq!(contributions.len(), node.inputs.len(), "{}: one gradient for each operand", node.op.name());
            for ((input, want), contribution) in operands.iter().zip(wants).zip(contributions) {
                if let (true, Some(gradient)) = (want, contribution) {
                    assert_eq!(self.shape(gradient), self.shape(*input), "{}: gradient has its operand's shape", node.op.name());
                    grads[input.index()].push(gradient);
                }
            }
        }
        wrt.iter().map(|w| self.total(std::mem::take(&mut grads[w.index()]))).collect()
    }

    /// First results of the nodes whose operators are [recomputed](Op::recompute_in_backward), and the position of the node.
    fn recomputed_results(&self) -> HashMap<Value, usize> {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.op.recompute_in_backward());
        nodes.map(|(i, node)| (node.outputs[0], i)).collect()
    }

    /// Adds the nodes of a segment once more. What the outermost segment reads is still there; what an inner one reads is recomputed where
    /// its operator says so.
    fn recompute_segment(
        &mut self,
        segment: Range<usize>,
        inner: bool,
        recomputed: &HashMap<Value, usize>,
        copies: &mut HashMap<Value, Value>,
    ) -> Result<()> {
        let given: HashSet<Value> = self.nodes[segment.clone()].iter().flat_map(|node| node.outputs.clone()).collect();
        let mut operands: Vec<Value> = self.nodes[segment.clone()].iter().flat_map(|node| node.inputs.clone()).collect();
        operands.retain(|value| !given.contains(value));
        for value in operands {
            match inner {
                true => self.recompute(value, recomputed, copies)?,
                false => _ = copies.entry(value).or_insert(value),
            }
        }
        let results = self.copy_nodes(segment, copies)?;
        for (value, result) in results {
            match recomputed.contains_key(&value) {
                true => copies.remove(&value),
                false => copies.insert(value, result),
            };
        }
        Ok(())
    }

    /// Adds the node of a recomputed result once more, and before it those of its own recomputed operands, unless that was done.
    fn recompute(&mut self, value: Value, recomputed: &HashMap<Value, usize>, copies: &mut HashMap<Value, Value>) -> Result<()> {
        let Some(&index) = recomputed.get(&value).filter(|_| !copies.contains_key(&value)) else { return Ok(()) };
        for operand in self.nodes[index].inputs.clone() {
            self.recompute(operand, recomputed, copies)?;
        }
        let results = self.copy_nodes(index..index + 1, copies)?;
        copies.extend(results);
        Ok(())
    }

    /// Adds the nodes of a range once more, on the same operands or their copies in `known`. Maps old results to new ones.
    fn copy_nodes(&mut self, range: Range<usize>, known: &HashMap<Value, Value>) -> Result<HashMap<Value, Value>> {
        let mut copies = HashMap::new();
        for index in range {
            let node = self.nodes[index].clone();
            let inputs: Vec<Value> = node.inputs.iter().map(|v| *copies.get(v).or(known.get(v)).unwrap_or(v)).collect();
            let outputs = self.apply_shared(node.op, &inputs)?;
            copies.extend(node.outputs.into_iter().zip(outputs));
        }
        Ok(copies)
    }

    /// Sum of the contributions to one gradient, in the order they arose.
    fn total(&mut self, contributions: Vec<Value>) -> Result<Option<Value>> {
        match contributions.len() {
            0 => Ok(None),
            1 => Ok(Some(contributions[0])),
            _ => Ok(Some(self.apply1(Sum, &contributions)?)),
        }
    }
}

/// `y = x₁ + x₂ + …`: joins the gradients of a value that is used more than once.
#[derive(Debug)]
struct Sum;

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if let Some(other) = inputs.iter().find(|s| **s != inputs[0]) {
            return Err(Error::Shape { op: "sum", operand: "term", want: format!("{:?}", inputs[0]), got: (*other).clone() });
        }
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let inputs = io.inputs.clone();
        let y = io.out();
        for (i, y) in y.iter_mut().enumerate() {
            *y = inputs.iter().map(|x| x.f32()[i]).sum();
        }
    }

    fn fast(&self, io: &mut Io) {
        let inputs = io.inputs.clone();
        let pool = io.pool;
        pool.for_rows(io.out(), 1, 16384, |first, y| {
            let range = first..first + y.len();
            esvit_simd::lanes::add_scaled(&inputs[0].f32()[range.clone()], 1.0, &inputs[1].f32()[range.clone()], y);
            for x in &inputs[2..] {
                esvit_simd::lanes::accumulate(&x.f32()[range.clone()], y);
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        crate::sum(rec, &io.inputs, &io.outputs[0])
    }
}
