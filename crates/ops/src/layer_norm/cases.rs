use super::LayerNorm;
use crate::Case;
use crate::Input::Wave;

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, rows: usize, cols: usize| {
        Case::new(why, LayerNorm { eps: 1e-5 }, vec![Wave(vec![rows, cols]), Wave(vec![cols]), Wave(vec![cols])])
    };
    vec![
        case("smallest that is not square", 3, 8),
        case("odd width: the tail of every vector loop", 5, 97),
        case("rows beyond one piece of the parameter gradient", 300, 24),
        case("Swin-T's last stage", 49, 768),
    ]
}
