use super::PrototypeLoss;
use crate::Case;
use crate::Input::{Index, Positive, UnitRows, Wave};

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, ns: usize, nt: usize, k: usize, d: usize, pairs_of: &dyn Fn(usize) -> u32| {
        let mut offsets = vec![0u32];
        for i in 0..ns {
            offsets.push(offsets[i] + pairs_of(i));
        }
        let pairs = offsets[ns] as usize;
        let inputs = vec![
            UnitRows(vec![ns, d]),
            Wave(vec![k, d]),
            Positive(vec![k, 1]),
            UnitRows(vec![nt, d]),
            Wave(vec![k, d]),
            Positive(vec![k, 1]),
            Wave(vec![k]),
            Positive(vec![1]),
            Index(vec![pairs], nt as u32),
            Positive(vec![pairs]),
        ];
        Case::new(why, PrototypeLoss { student_temperature: 0.1, offsets: offsets.into(), keep: 0 }, inputs).differentiate(&[0, 1, 2])
    };
    vec![
        case("one or two pairs a row", 7, 4, 24, 6, &|i| 1 + (i % 2) as u32),
        case("rows without a pair, and with many (soft targets)", 5, 3, 17, 5, &|i| [0, 6, 2, 0, 3][i]),
        case("several tiles of K with a tail, several ranges", 9, 6, 2500, 16, &|_| 2),
        case("more student rows than one block", 300, 8, 300, 8, &|_| 1),
    ]
}
