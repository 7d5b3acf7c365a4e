//! A shift of the hue, through Pillow's 8-bit HSV and back.
//!
//! The round trip alone moves colors by some levels: hue has 256 steps, and RGB to HSV cuts off
//! where HSV to RGB rounds. Both directions repeat Pillow's order of f32 and f64 operations,
//! because where a hue or a sample meets a step exactly the last bit decides.
//!
//! Source: Pillow, `Convert.c` (`rgb2hsv_row`, `hsv2rgb`), after Python's `colorsys`; torchvision,
//! `_functional_pil.adjust_hue`.

use crate::color::block::{BlockOperation, ChannelBlock, LANES, for_each_block};
use crate::raster::CHANNELS;

/// Shifts the hue by `turns` of the circle, cut to 255ths: `uint8(turns · 255)`, wrapping.
pub fn shift_hue(pixels: &mut [u8], turns: f64) {
    for_each_block(pixels, &ShiftHue { steps: (turns * 255.0) as i32 as u8 });
}

/// A shift by a number of the 256 hues.
struct ShiftHue {
    steps: u8,
}

impl BlockOperation for ShiftHue {
    #[inline(always)]
    fn apply(&self, rgb: &mut [ChannelBlock; CHANNELS]) {
        let [mut hue, saturation, value] = to_hsv(rgb);
        for lane in 0..LANES {
            hue[lane] = hue[lane].wrapping_add(self.steps);
        }
        *rgb = to_rgb(&[hue, saturation, value]);
    }
}

/// Truncates what is known to lie between -1 and 256.
#[inline(always)]
fn cut(value: f64) -> u8 {
    // SAFETY: every caller passes a finite product of a level (0 to 255) and a share of at most 1, plus a half.
    unsafe { value.to_int_unchecked::<i32>() as u8 }
}

/// Hue, saturation and value; hue counts 255ths of a turn, cut off.
#[inline(always)]
fn to_hsv([r, g, b]: &[ChannelBlock; CHANNELS]) -> [ChannelBlock; CHANNELS] {
    let (mut hue, mut saturation, mut value) = ([0; LANES], [0; LANES], [0; LANES]);
    for i in 0..LANES {
        let (r, g, b) = (i32::from(r[i]), i32::from(g[i]), i32::from(b[i]));
        let max = r.max(g).max(b);
        let range = max - r.min(g).min(b);
        // At least 1: a gray pixel then gets hue and saturation 0 without a branch.
        let divisor = range.max(1) as f32;
        let (rc, gc, bc) = ((max - r) as f32 / divisor, (max - g) as f32 / divisor, (max - b) as f32 / divisor);
        let sector = if r == max {
            0.0
        } else if g == max {
            2.0
        } else {
            4.0
        };
        let plus = if r == max {
            bc
        } else if g == max {
            rc
        } else {
            gc
        };
        let minus = if r == max {
            gc
        } else if g == max {
            bc
        } else {
            rc
        };
        let sixths = (sector + f64::from(plus) - f64::from(minus)) as f32;
        let turns = f64::from(sixths) / 6.0 + 1.0;
        let turns = if turns >= 1.0 { turns - 1.0 } else { turns } as f32;
        hue[i] = cut(f64::from(turns) * 255.0);
        saturation[i] = cut(f64::from(range as f32 / max.max(1) as f32) * 255.0);
        value[i] = max as u8;
    }
    [hue, saturation, value]
}

/// Red, green and blue, rounded.
#[inline(always)]
fn to_rgb([h, s, v]: &[ChannelBlock; CHANNELS]) -> [ChannelBlock; CHANNELS] {
    let (mut red, mut green, mut blue) = ([0; LANES], [0; LANES], [0; LANES]);
    for i in 0..LANES {
        let sixths = i32::from(h[i]) * 6;
        let sector = sixths / 255;
        let rest = (f64::from(sixths) / 255.0 - f64::from(sector)) as f32;
        let saturation = f32::from(s[i]) / 255.0;
        let value = f64::from(v[i]);
        // All are at least 0, so adding a half and cutting off rounds half away from zero.
        let p = cut(value * (1.0 - f64::from(saturation)) + 0.5);
        let q = cut(value * (1.0 - f64::from(saturation * rest)) + 0.5);
        let t = cut(value * (1.0 - f64::from(saturation) * (1.0 - f64::from(rest))) + 0.5);
        let v = v[i];
        // Sector 6 is only h = 255, where the circle closes.
        red[i] = pick(sector, [v, q, p, p, t, v]);
        green[i] = pick(sector, [t, v, v, q, p, p]);
        blue[i] = pick(sector, [p, p, t, v, v, q]);
    }
    [red, green, blue]
}

/// The level of a sector, 0 to 5; 6 is 0 again. Selections, not a jump.
#[inline(always)]
fn pick(sector: i32, levels: [u8; 6]) -> u8 {
    let mut picked = levels[0];
    for place in 1..6 {
        picked = if sector == place as i32 { levels[place] } else { picked };
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::block::for_each_block_body;

    #[test]
    fn primary_colors_walk_round_the_circle() {
        // A third of a turn is 85 steps, a divisor of the circle: exact on pure colors.
        let mut pixels = vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 90, 90, 90];
        shift_hue(&mut pixels, 1.0 / 3.0);
        assert_eq!(pixels, [0, 255, 0, 0, 0, 255, 255, 0, 0, 90, 90, 90]);
    }

    #[test]
    fn negative_shifts_are_cut_towards_zero_and_wrap() {
        // −0.1 · 255 = −25.5 is cut to −25, which is 231 of 256.
        let start: Vec<u8> = (0..=255).flat_map(|i: u8| [i, 200, 255 - i]).collect();
        let (mut by_turns, mut by_steps) = (start.clone(), start);
        shift_hue(&mut by_turns, -0.1);
        for_each_block(&mut by_steps, &ShiftHue { steps: 231 });
        assert_eq!(by_turns, by_steps);
    }

    #[test]
    fn the_plain_build_gives_the_same_bytes() {
        let start: Vec<u8> = (0..3 * 4099_u32).map(|i| (i * i * 31 % 251 + i % 5) as u8).collect();
        let (mut fast, mut plain) = (start.clone(), start);
        for_each_block(&mut fast, &ShiftHue { steps: 17 });
        for_each_block_body(&mut plain, &ShiftHue { steps: 17 });
        assert_eq!(fast, plain);
    }
}
