//! Neighbors that one operator can do at once, for graphs that are complete.

use std::collections::HashMap;

use crate::{Graph, Next, Node, Value};

impl Graph {
    /// Joins every node whose first result is read by one other node alone, and other results by nobody, with that, where its operator
    /// [absorbs](crate::Op::absorb) it. It changes no more than the rounding of results; gradients can be taken no more, so it comes behind them. `outputs`
    /// are values that are wanted as they are. Where weights are `constant`, operators that are faster with [prepacked](crate::Op::prepack) ones alone are joined too.
    pub fn fuse(&mut self, outputs: &[Value], constant: bool) {
        self.segments.clear();
        let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers.entry(*v).or_default().push(index));
        }
        let mut gone = vec![false; self.nodes.len()];
        for index in 0..self.nodes.len() {
            let results = &self.nodes[index].outputs;
            let Some((&result, rest)) = results.split_first() else { continue };
            let Some(&[reader]) = readers.get(&result).map(Vec::as_slice) else { continue };
            if results.iter().any(|v| outputs.contains(v)) || rest.iter().any(|v| readers.contains_key(v)) {
                continue;
            }
            let (node, next) = (&self.nodes[index], &self.nodes[reader]);
            let Some(operand) = next.inputs.iter().position(|v| *v == result) else { continue };
            let Some(op) = node.op.absorb(node.inputs.len(), &Next { op: &*next.op, operands: next.inputs.len(), operand }, constant)
            else {
                continue;
            };
            let others = next.inputs.iter().filter(|v| **v != result);
            let inputs = node.inputs.iter().chain(others).copied().collect();
            self.nodes[reader] = Node { op, inputs, outputs: next.outputs.clone(), phase: next.phase };
            gone[index] = true;
            // What this one read is read by the other now.
            for v in self.nodes[index].inputs.clone() {
                readers.entry(v).or_default().iter_mut().filter(|r| **r == index).for_each(|r| *r = reader);
            }
        }
        let mut gone = gone.into_iter();
        self.nodes.retain(|_| gone.next() == Some(false));
    }
}
