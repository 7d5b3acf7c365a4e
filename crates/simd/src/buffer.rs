//! Memory aligned to cache lines.

/// Cache line: buffers begin at one, so that no vector straddles two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; LINE]);

const LINE: usize = 16;

/// Floats that begin at a cache line.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<CacheLine>,
    len: usize,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} floats)", self.len)
    }
}

impl Buffer {
    /// A buffer of `len` zeros; pages are touched when they are first written.
    pub fn new(len: usize) -> Buffer {
        Buffer { lines: vec![CacheLine([0.0; LINE]); len.div_ceil(LINE)], len }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are at least `len` floats one after the other, and are borrowed for as long.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
