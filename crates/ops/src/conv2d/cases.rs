use super::Conv2d;
use crate::Input::Wave;
use crate::{Case, Filter, Layout, Segment};

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, segments: &[(usize, usize, usize)], [i, o]: [usize; 2], [kernel, stride, padding]: [usize; 3], bias: bool| {
        let layout = Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>());
        let mut inputs = vec![Wave(vec![layout.tokens(), i]), Wave(vec![o, i * kernel * kernel])];
        if bias {
            inputs.push(Wave(vec![o]));
        }
        Case::new(why, Conv2d { layout, filter: Filter { kernel, stride, padding } }, inputs)
    };
    vec![
        case("3x3 with padding: every border", &[(2, 4, 5)], [3, 4], [3, 1, 1], false),
        case("stride 2 over odd sides, two grids, a bias", &[(2, 5, 7), (3, 3, 4)], [5, 6], [3, 2, 1], true),
        case("CvT's embedding: stride 4, padding 2, columns of the grid that no tap reaches", &[(2, 9, 10)], [3, 8], [7, 4, 2], true),
        case("1x1 with stride 2: tokens without a gradient", &[(3, 4, 3)], [4, 5], [1, 2, 0], false),
        case("a kernel larger than the grid", &[(2, 2, 3)], [2, 3], [5, 1, 2], false),
        case("more rows than one piece of a GPU", &[(5, 6, 6)], [16, 20], [3, 1, 1], true),
        case("kernel and stride that leave gaps", &[(2, 8, 7)], [3, 2], [2, 3, 0], false),
    ]
}
