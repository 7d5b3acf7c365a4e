//! From a graph to a program: nodes that nobody needs are dropped, and every other value gets its place.

use crate::plan::{Lifetime, ONE_BUFFER, assign_offsets};
use crate::program::{ProgramLeaf, Storage};
use crate::ready::{Consumed, ready_points};
use crate::{Graph, Node, Precision, Program, Value, volume};

impl Program {
    /// Keeps the nodes that lead to `outputs`, and plans the arena. Outputs stay valid after a run.
    pub fn compile(graph: &Graph, outputs: &[Value]) -> Program {
        Program::compile_with_ready_points(graph, outputs, &[], &[])
    }

    /// Compiles a program whose results in `consumed` are valid at their [ready point](Program::ready_points) only, which lies behind the
    /// nodes that write `first`: their memory is free from there on.
    pub fn compile_with_ready_points(graph: &Graph, outputs: &[Value], consumed: &[Consumed], first: &[Value]) -> Program {
        let mut needed = vec![false; graph.values.len()];
        for output in outputs.iter().chain(consumed.iter().map(|c| &c.value)).chain(first) {
            needed[output.index()] = true;
        }
        let mut keep = vec![false; graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|v| needed[v.index()]) {
                keep[index] = true;
                for input in &node.inputs {
                    needed[input.index()] = true;
                }
            }
        }
        let nodes: Vec<Node> = graph.nodes.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(node, _)| node.clone()).collect();

        // Lifetimes of everything the nodes write (also results nobody reads: they are written to).
        let mut lifetimes: Vec<(Value, Lifetime)> = Vec::new();
        let mut slot_of = vec![usize::MAX; graph.values.len()];
        for (time, node) in nodes.iter().enumerate() {
            for output in &node.outputs {
                let info = &graph.values[output.index()];
                slot_of[output.index()] = lifetimes.len();
                lifetimes.push((*output, Lifetime { first: time, last: time, bytes: volume(&info.shape) * info.dtype.size() }));
            }
            for input in &node.inputs {
                if let Some((_, life)) = lifetimes.get_mut(slot_of[input.index()]) {
                    life.last = time;
                }
            }
        }
        for output in outputs {
            if let Some((_, life)) = lifetimes.get_mut(slot_of[output.index()]) {
                life.last = nodes.len();
            }
        }
        let ready_points = ready_points(&nodes, consumed, first);
        for point in &ready_points {
            for &ready in &point.ready {
                if let Some((_, life)) = lifetimes.get_mut(slot_of[consumed[ready].value.index()]) {
                    life.last = life.last.max(point.node - 1);
                }
            }
        }
        let (offsets, arena_bytes) = assign_offsets(lifetimes.iter().map(|(_, life)| *life), ONE_BUFFER);

        let mut storage = vec![Storage::Nowhere; graph.values.len()];
        for ((value, _), offset) in lifetimes.iter().zip(offsets) {
            let info = &graph.values[value.index()];
            storage[value.index()] = Storage::Arena { offset, len: volume(&info.shape), dtype: info.dtype };
        }
        let mut leaves = Vec::with_capacity(graph.leaves.len());
        for named in &graph.leaves {
            let (info, is_read) = (&graph.values[named.value.index()], needed[named.value.index()]);
            if let (true, Some(leaf)) = (is_read, graph.find_leaf(&named.name)) {
                storage[named.value.index()] = Storage::Leaf(leaf);
            }
            leaves.push(ProgramLeaf { name: named.name.clone(), len: volume(&info.shape), dtype: info.dtype, is_read });
        }
        let leaf_index = graph.leaves.iter().filter_map(|named| Some((named.name.clone(), graph.find_leaf(&named.name)?))).collect();
        Program {
            nodes,
            storage,
            shapes: graph.values.iter().map(|info| info.shape.clone()).collect(),
            leaves,
            leaf_index,
            ready_points,
            arena_bytes,
            lifetimes,
            outputs: outputs.iter().chain(consumed.iter().map(|c| &c.value)).copied().collect(),
            precision: Precision::F32,
        }
    }
}
