use super::GroupedConv;
use crate::Input::Wave;
use crate::{Case, Filter, Layout, Segment};

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, segments: &[(usize, usize, usize)], [i, o, groups]: [usize; 3], [kernel, stride, padding]: [usize; 3]| {
        let layout = Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>());
        let inputs = vec![Wave(vec![layout.tokens(), i]), Wave(vec![o, i / groups * kernel * kernel])];
        Case::new(why, GroupedConv { layout, filter: Filter { kernel, stride, padding }, groups }, inputs)
    };
    vec![
        case("two groups that share a product, two grids", &[(2, 4, 5), (3, 2, 3)], [4, 6, 2], [3, 1, 1]),
        case("stride 2 over odd sides, groups wider after than before", &[(2, 5, 7)], [6, 12, 3], [3, 2, 1]),
        case("one group: an ordinary convolution", &[(2, 4, 4)], [3, 5, 1], [3, 1, 1]),
        case("a group for each channel: depthwise", &[(2, 5, 4)], [7, 7, 7], [3, 1, 1]),
        case("products of some of the groups each: 40 groups of one channel", &[(1, 3, 4)], [40, 40, 40], [3, 1, 1]),
        case("each group a product of its own", &[(1, 4, 3)], [6, 48, 2], [3, 1, 1]),
        case("1x1 with stride 2: tokens without a gradient", &[(3, 4, 3)], [4, 4, 2], [1, 2, 0]),
        case("a kernel larger than the grid", &[(2, 2, 3)], [4, 2, 2], [5, 1, 2]),
        case("more rows than one piece of a GPU", &[(5, 8, 9)], [8, 8, 4], [3, 1, 1]),
    ]
}
