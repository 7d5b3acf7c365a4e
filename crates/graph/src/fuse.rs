//! Fusion: a producer and its only consumer become one node, where a table of patterns says so.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Graph, Node, Op, Value};

/// One side of a [`Pattern`]: an operator and the number of its operands.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Operator of the node.
    pub op: &'a dyn Op,
    /// Number of the node's operands.
    pub operands: usize,
}

/// A producer and a consumer that one operator can compute together.
///
/// The operands of the fused operator are the producer's, then the consumer's without the producer's result, both in order. Its results are
/// the consumer's. It needs neither a gradient nor kernels for a GPU.
#[derive(Debug)]
pub struct Pattern {
    /// Whether a node can be the producer.
    pub producer: fn(&Candidate) -> bool,
    /// Whether a node can be the consumer.
    pub consumer: fn(&Candidate) -> bool,
    /// Number of the consumer's operand that is the producer's first result.
    pub operand: usize,
    /// Whether the fused operator pays off only with [prepacked](Op::prepack) weights, which do not change.
    pub constant_weights: bool,
    /// Builds the fused operator from the producer and the consumer, both of which match.
    pub build: fn(&Candidate, &Candidate) -> Arc<dyn Op>,
}

impl Graph {
    /// Fuses every producer with its consumer where one of `patterns` matches both. The consumer is the only reader of the producer's first
    /// result; nobody reads the other results. A fused node can be the producer of the next fusion.
    ///
    /// Fused operators have no gradient, so this is the last change of a graph. They change no more than the rounding of results. Values in
    /// `outputs` stay values of the graph. `constant_weights` admits the patterns that need those.
    pub fn fuse(&mut self, patterns: &[Pattern], outputs: &[Value], constant_weights: bool) {
        self.segments.clear();
        let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers.entry(*v).or_default().push(index));
        }
        let mut fused = vec![false; self.nodes.len()];
        for index in 0..self.nodes.len() {
            let results = &self.nodes[index].outputs;
            let Some((&result, rest)) = results.split_first() else { continue };
            let Some(&[reader]) = readers.get(&result).map(Vec::as_slice) else { continue };
            if results.iter().any(|v| outputs.contains(v)) || rest.iter().any(|v| readers.contains_key(v)) {
                continue;
            }
            let (producer, consumer) = (&self.nodes[index], &self.nodes[reader]);
            let candidates = [producer, consumer].map(|node| Candidate { op: &*node.op, operands: node.inputs.len() });
            let matches = |pattern: &&Pattern| {
                (constant_weights || !pattern.constant_weights)
                    && consumer.inputs.get(pattern.operand) == Some(&result)
                    && (pattern.producer)(&candidates[0])
                    && (pattern.consumer)(&candidates[1])
            };
            let Some(pattern) = patterns.iter().find(matches) else { continue };
            let op = (pattern.build)(&candidates[0], &candidates[1]);
            let others = consumer.inputs.iter().filter(|v| **v != result);
            let inputs = producer.inputs.iter().chain(others).copied().collect();
            self.nodes[reader] = Node { op, inputs, outputs: consumer.outputs.clone(), phase: consumer.phase };
            fused[index] = true;
            // The fused node is the reader of the producer's operands now.
            for v in self.nodes[index].inputs.clone() {
                readers.entry(v).or_default().iter_mut().filter(|r| **r == index).for_each(|r| *r = reader);
            }
        }
        let mut fused = fused.into_iter();
        self.nodes.retain(|_| fused.next() == Some(false));
    }
}
