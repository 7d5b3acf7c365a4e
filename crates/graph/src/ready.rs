//! Gradient-ready points: where during a run gradients are complete and can be consumed.

use std::collections::HashMap;

use crate::{Node, Value};

/// A result that is consumed during the run, and the leaves that change when it is.
#[derive(Clone, Debug)]
pub struct Consumed {
    /// A gradient.
    pub value: Value,
    /// Leaves of its parameter, the student's and the teacher's.
    pub leaves: Vec<Value>,
}

/// A point between two nodes at which some gradients are complete, and the leaves that belong to them are read no more.
#[derive(Clone, Debug)]
pub struct ReadyPoint {
    /// Number of nodes that run before it.
    pub node: usize,
    /// Positions of the ready gradients among the consumed results.
    pub ready: Vec<usize>,
}

/// Ready points of a program. A result is ready behind the node that writes it, behind the last node that reads its leaves, and behind those
/// that write `first`.
pub(crate) fn ready_points(nodes: &[Node], consumed: &[Consumed], first: &[Value]) -> Vec<ReadyPoint> {
    let (mut written, mut read) = (HashMap::new(), HashMap::new());
    for (time, node) in nodes.iter().enumerate() {
        written.extend(node.outputs.iter().map(|v| (*v, time)));
        read.extend(node.inputs.iter().map(|v| (*v, time)));
    }
    let behind = |times: &HashMap<Value, usize>, value: &Value| times.get(value).map_or(0, |t| t + 1);
    let earliest = first.iter().map(|v| behind(&written, v)).max().unwrap_or(0);
    let ready = |c: &Consumed| c.leaves.iter().map(|leaf| behind(&read, leaf)).fold(earliest.max(behind(&written, &c.value)), usize::max);
    let mut order: Vec<(usize, usize)> = consumed.iter().enumerate().map(|(i, c)| (ready(c), i)).collect();
    order.sort_unstable();
    let mut points: Vec<ReadyPoint> = Vec::new();
    for (node, i) in order {
        match points.last_mut() {
            Some(point) if point.node == node => point.ready.push(i),
            _ => points.push(ReadyPoint { node, ready: vec![i] }),
        }
    }
    points
}
