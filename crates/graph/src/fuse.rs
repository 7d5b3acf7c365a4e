//! Neighbours that one operator can do at once, for graphs that are complete.

use std::collections::HashMap;

use crate::{Graph, Node, Value};

impl Graph {
    /// Joins every node whose only result is read by one other node alone with that, where its operator [absorbs](crate::Op::absorb) it. It changes
    /// no more than the rounding of results; gradients can be taken no more, so it comes behind them. `outputs` are values that are wanted as they are.
    pub fn fuse(&mut self, outputs: &[Value]) {
        self.segments.clear();
        let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers.entry(*v).or_default().push(index));
        }
        let mut gone = vec![false; self.nodes.len()];
        for index in 0..self.nodes.len() {
            let [result] = self.nodes[index].outputs[..] else { continue };
            let Some(&[reader]) = readers.get(&result).map(Vec::as_slice) else { continue };
            if outputs.contains(&result) {
                continue;
            }
            let (node, next) = (&self.nodes[index], &self.nodes[reader]);
            let Some(operand) = next.inputs.iter().position(|v| *v == result) else { continue };
            let Some(op) = node.op.absorb(node.inputs.len(), &*next.op, next.inputs.len(), operand) else { continue };
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
