//! Storage as bf16x2 for values that matrix products alone read: half of the memory and half of the traffic.

use std::collections::HashMap;

use esvit_simd::cpu;

use crate::plan::{ONE_BUFFER, assign_offsets};
use crate::program::Storage;
use crate::{Precision, Program, Value};

impl Program {
    /// Stores results as bf16x2 in [mixed](Precision::Mixed) precision, where the CPU multiplies bf16: those that are read only by operators
    /// that would round them, if their operators can [write](crate::Op::writes_bf16x2) them so. The program is for
    /// [`Variant::Fast`](crate::Variant::Fast) only.
    #[must_use]
    pub fn with_bf16x2(mut self) -> Program {
        if self.precision != Precision::Mixed || !cpu::bf16() {
            return self;
        }
        // Results that can be written as bf16x2, and whether there are readers and all of them can read that.
        let mut readers: HashMap<Value, Option<bool>> = HashMap::new();
        for node in &self.nodes {
            let shapes = self.operand_shapes(node);
            for (i, value) in node.inputs.iter().enumerate() {
                if let Some(all) = readers.get_mut(value) {
                    *all = Some(*all != Some(false) && node.op.reads_bf16x2(i, &shapes));
                }
            }
            if node.op.writes_bf16x2(&shapes) && !self.outputs.contains(&node.outputs[0]) {
                readers.insert(node.outputs[0], None);
            }
        }
        let mut halved = Vec::new();
        for (value, life) in &mut self.lifetimes {
            let half = readers.get(value) == Some(&Some(true));
            life.bytes /= if half { 2 } else { 1 };
            halved.push(half);
        }
        let (offsets, arena_bytes) = assign_offsets(self.lifetimes.iter().map(|(_, life)| *life), ONE_BUFFER);
        for (((value, _), offset), half) in self.lifetimes.iter().zip(offsets).zip(halved) {
            let storage = &mut self.storage[value.index()];
            *storage = match *storage {
                Storage::Arena { len, .. } if half => Storage::Bf16x2 { offset, words: len / 2 },
                Storage::Arena { len, dtype, .. } => Storage::Arena { offset, len, dtype },
                other => other,
            };
        }
        self.arena_bytes = arena_bytes;
        self
    }
}
