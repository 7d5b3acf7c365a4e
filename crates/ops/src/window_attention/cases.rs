//! Cases of attention inside windows.

use super::{AttentionMap, WindowAttention};
use crate::Input::Wave;
use crate::{Case, Layout, Segment};

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, segments: &[(usize, usize, usize)], c: usize, heads: usize, window: usize, shift: usize, bias: bool| {
        let layout = Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>());
        let span = 2 * window - 1;
        let mut inputs = vec![Wave(vec![layout.tokens(), 3 * c]), Wave(vec![span * span, heads])];
        if bias {
            inputs.push(Wave(vec![3 * c]));
        }
        Case::new(why, WindowAttention::new(&layout, heads, window, shift), inputs)
    };
    vec![
        case("whole windows, no shift", &[(2, 4, 4)], 8, 2, 2, 0, true),
        case("shifted: four regions in the last window", &[(1, 4, 4)], 6, 2, 2, 1, true),
        case("padding with a bias: padding tokens are keys and send gradient to the bias", &[(2, 3, 5)], 8, 1, 4, 0, true),
        case("padding, shift and two grids at once", &[(1, 5, 4), (2, 3, 3)], 12, 3, 4, 2, true),
        case("no qkv bias: padding is zero", &[(2, 3, 3)], 8, 2, 2, 1, false),
        case("one window larger than the grid, shifted: the original masks inside it", &[(2, 3, 3)], 8, 2, 7, 3, true),
        case("Swin's head width and window", &[(1, 14, 14)], 64, 2, 7, 3, true),
        case("a row of scores of two wide registers, channels of one and a half", &[(1, 6, 5)], 24, 1, 5, 2, true),
        case("more tokens in a window than threads in a workgroup, padding in both blocks of rows", &[(1, 8, 9)], 8, 1, 9, 0, true),
        case("heads wider than a workgroup's channels, shifted and padded", &[(1, 3, 3)], 76, 2, 2, 1, true),
        case("a bias table that does not fit into workgroup memory", &[(1, 4, 3)], 4, 1, 15, 7, true),
        {
            let layout = Layout::new(vec![Segment { images: 2, height: 4, width: 5 }]);
            let inputs = vec![Wave(vec![layout.tokens(), 24]), Wave(vec![49, 2]), Wave(vec![24])];
            Case::new(
                "CvT's: masked without a shift, its own factor, a table of larger windows",
                WindowAttention::in_place(&layout, 2, 2, 1, 4, 0.35),
                inputs,
            )
        },
        {
            let layout = Layout::new(vec![Segment { images: 2, height: 3, width: 5 }]);
            let inputs = vec![Wave(vec![layout.tokens(), 18]), Wave(vec![9, 3]), Wave(vec![18])];
            Case::new("the maps themselves", AttentionMap(WindowAttention::new(&layout, 3, 2, 1)), inputs).differentiate(&[])
        },
    ]
}
