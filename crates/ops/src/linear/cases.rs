use super::Linear;
use crate::Case;
use crate::Input::Wave;

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, n: usize, i: usize, o: usize| Case::new(why, Linear, vec![Wave(vec![n, i]), Wave(vec![o, i]), Wave(vec![o])]);
    vec![
        case("smallest that is not square", 3, 2, 4),
        case("one row: a matrix-vector product", 1, 24, 72),
        case("odd sizes: the tail of every block", 37, 19, 23),
        case("more rows than one piece of the bias gradient", 700, 8, 12),
        Case::new("no bias", Linear, vec![Wave(vec![9, 16]), Wave(vec![8, 16])]),
        case("large enough for the threads", 512, 48, 144),
        case("one column: its rows are not packed, so the bias gradient is summed apart", 300, 6, 1),
        case("several groups of columns in the weight's gradient, of which one sums", 40, 900, 530),
        Case::new("weight frozen: the bias gradient alone", Linear, vec![Wave(vec![9, 16]), Wave(vec![8, 16]), Wave(vec![8])])
            .differentiate(&[0, 2]),
        Case::new("bias frozen", Linear, vec![Wave(vec![9, 16]), Wave(vec![8, 16]), Wave(vec![8])]).differentiate(&[0, 1]),
    ]
}
