//! Values that products alone read, kept as those take them: half of the memory, and half of the way there and back.

use std::collections::HashMap;

use esvit_simd::cpu;

use crate::plan::{NO_CHUNKS, place};
use crate::program::Place;
use crate::{Precision, Program, Value};

impl Program {
    /// The same program for a CPU: in [mixed](Precision::Mixed) precision, where the CPU multiplies bf16, results that are read by operators alone which
    /// would round them are kept as words of two bf16, if their operators [give](crate::Op::writes_bf16x2) them so. It is a program for
    /// [`Variant::Fast`](crate::Variant::Fast) only.
    #[must_use]
    pub fn with_bf16x2(mut self) -> Program {
        if self.precision != Precision::Mixed || !cpu::bf16() {
            return self;
        }
        // What is given in pairs, and whether there are readers and all of them take it so.
        let mut read: HashMap<Value, Option<bool>> = HashMap::new();
        for node in &self.nodes {
            let shapes = self.operand_shapes(node);
            for (i, value) in node.inputs.iter().enumerate() {
                if let Some(taken) = read.get_mut(value) {
                    *taken = Some(*taken != Some(false) && node.op.reads_bf16x2(i, &shapes));
                }
            }
            if node.op.writes_bf16x2(&shapes) && !self.wanted.contains(&node.outputs[0]) {
                read.insert(node.outputs[0], None);
            }
        }
        let mut kept = Vec::new();
        for (value, life) in &mut self.residents {
            let pairs = read.get(value) == Some(&Some(true));
            life.bytes /= if pairs { 2 } else { 1 };
            kept.push(pairs);
        }
        let lifetimes: Vec<_> = self.residents.iter().map(|(_, life)| *life).collect();
        let (offsets, arena_bytes) = place(&lifetimes, NO_CHUNKS);
        for (((value, _), offset), pairs) in self.residents.iter().zip(offsets).zip(kept) {
            let place = &mut self.places[value.index()];
            *place = match *place {
                Place::Arena { len, .. } if pairs => Place::Bf16x2 { offset, words: len / 2 },
                Place::Arena { len, dtype, .. } => Place::Arena { offset, len, dtype },
                other => other,
            };
        }
        self.arena_bytes = arena_bytes;
        self
    }
}
