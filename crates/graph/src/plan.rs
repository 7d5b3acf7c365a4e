//! Memory plan: every value gets an offset in one arena, so that values alive at the same time never overlap.

/// Lifetime of a buffer: from the node that writes it to the last node that reads it, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub first: usize,
    pub last: usize,
    pub bytes: usize,
}

/// Alignment of offsets: four cache lines, and where any GPU can begin a binding.
pub(crate) const ALIGN: usize = 256;
/// Chunk size of an arena that is one buffer: larger than any arena, small enough that offsets beyond it do not overflow.
pub(crate) const ONE_BUFFER: usize = usize::MAX / 8;

/// Offsets of the buffers and the size of the arena. No buffer straddles a multiple of `chunk`, which none may be larger than: an arena can
/// be several pieces of memory.
///
/// Largest first, each at the lowest gap that is free during its whole life: within a few per cent of the lower bound on transformer
/// programs, and simple enough to trust.
pub(crate) fn assign_offsets(lifetimes: impl IntoIterator<Item = Lifetime>, chunk: usize) -> (Vec<usize>, usize) {
    let lifetimes: Vec<Lifetime> = lifetimes.into_iter().collect();
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), lifetimes[i].first, i));
    let mut offsets = vec![0usize; lifetimes.len()];
    // Placed buffers, kept sorted by offset.
    let mut placed: Vec<usize> = Vec::with_capacity(lifetimes.len());
    let mut size = 0;
    for i in order {
        let life = lifetimes[i];
        let inside = |offset: usize| match offset % chunk + life.bytes <= chunk {
            true => offset,
            false => offset.next_multiple_of(chunk),
        };
        let mut offset = 0;
        for &j in &placed {
            let other = lifetimes[j];
            if other.last < life.first || life.last < other.first {
                continue;
            }
            if inside(offset) + life.bytes <= offsets[j] {
                break;
            }
            offset = offset.max((offsets[j] + other.bytes).next_multiple_of(ALIGN));
        }
        offset = inside(offset);
        offsets[i] = offset;
        size = size.max(offset + life.bytes);
        let at = placed.partition_point(|&j| offsets[j] < offset);
        placed.insert(at, i);
    }
    (offsets, size.next_multiple_of(ALIGN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_dead_ones_are_reused() {
        // A chain of 200 buffers, each alive for two steps, with some long-lived ones in between.
        let lifetimes: Vec<Lifetime> = (0..200)
            .map(|i| Lifetime { first: i, last: if i % 17 == 0 { i + 60 } else { i + 1 }, bytes: 100 + (i * 7919) % 5000 })
            .collect();
        for chunk in [ONE_BUFFER, 8192] {
            check(&lifetimes, chunk);
        }
    }

    fn check(lifetimes: &[Lifetime], chunk: usize) {
        let (offsets, size) = assign_offsets(lifetimes.iter().copied(), chunk);
        for i in 0..lifetimes.len() {
            assert!(offsets[i] % chunk + lifetimes[i].bytes <= chunk, "{i} straddles two chunks");
            for j in 0..i {
                let (a, b) = (lifetimes[i], lifetimes[j]);
                if a.last < b.first || b.last < a.first {
                    continue;
                }
                assert!(offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i], "{i} overlaps {j}");
            }
            assert!(offsets[i] + lifetimes[i].bytes <= size);
        }
        let total: usize = lifetimes.iter().map(|l| l.bytes).sum();
        assert!(size * 5 < total, "no reuse: {size} of {total}");
    }
}
