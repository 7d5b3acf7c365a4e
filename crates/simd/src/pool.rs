//! The thread pool of an engine and the scratch memory its operators reuse.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::affinity;
use crate::buffer::Buffer;

/// Threads and scratch buffers of one engine. Results do not depend on the number of threads, because work is always divided by size, never
/// by thread.
pub struct Pool {
    threads: rayon::ThreadPool,
    free: Mutex<Vec<Buffer>>,
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

/// Error of a pool whose threads the operating system refused to start.
#[derive(Debug)]
pub struct PoolError(rayon::ThreadPoolBuildError);

impl std::fmt::Display for PoolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot start the compute threads: {}", self.0)
    }
}

impl std::error::Error for PoolError {}

impl Pool {
    /// A pool of `threads` threads; 0 means one for each core.
    pub fn new(threads: usize) -> Result<Pool, PoolError> {
        let threads = Pool::threads_for(threads);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("esvit-{i}"));
        let threads = builder.start_handler(move |i| affinity::pin(i, threads)).build().map_err(PoolError)?;
        Ok(Pool { threads, free: Mutex::new(Vec::new()), held: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// Number of threads that [`Pool::new`] makes of this argument.
    pub fn threads_for(threads: usize) -> usize {
        if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, |n| n.get()) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` inside the pool, so that parallel loops in it use these threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }

    /// Runs `work` once on each thread and returns the results by the threads' numbers.
    #[cfg(test)]
    pub(crate) fn broadcast<R: Send>(&self, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
        self.threads.broadcast(|context| work(context.index()))
    }

    /// Takes a scratch buffer of `len` floats with unspecified contents, given back when dropped.
    pub fn scratch(&self, len: usize) -> Scratch<'_> {
        if len == 0 {
            // Otherwise it would take a buffer that another request needs.
            return Scratch { pool: self, buffer: Buffer::default(), len };
        }
        let mut free = self.free.lock().unwrap_or_else(|e| e.into_inner());
        // The smallest buffer that is large enough, so that small requests do not use up large buffers.
        let best = free.iter().enumerate().filter(|(_, b)| b.len() >= len).min_by_key(|(_, b)| b.len()).map(|(i, _)| i);
        let buffer = match best {
            Some(i) => free.swap_remove(i),
            None => {
                // A new buffer takes the place of the largest that was too small: what is held stays near what one operator needs at a
                // time, instead of growing with every new size.
                let largest = free.iter().enumerate().max_by_key(|(_, b)| b.len()).map(|(i, _)| i);
                if let Some(i) = largest {
                    self.held.fetch_sub(free.swap_remove(i).len() * 4, Ordering::Relaxed);
                }
                drop(free);
                let held = self.held.fetch_add(len * 4, Ordering::Relaxed) + len * 4;
                self.peak.fetch_max(held, Ordering::Relaxed);
                Buffer::new(len)
            }
        };
        Scratch { pool: self, buffer, len }
    }

    /// Bytes of scratch memory ever held at once.
    pub fn scratch_peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Calls `f(piece, rows, out)` for pieces of `out`, each of `rows_per_piece` rows of `width` (the last may be shorter); `rows` is the
    /// first row. Pieces run in parallel.
    pub fn for_rows(&self, out: &mut [f32], width: usize, rows_per_piece: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
        if out.len() <= 4096 {
            // Not worth waking the threads.
            for (i, piece) in out.chunks_mut((rows_per_piece * width).max(1)).enumerate() {
                f(i * rows_per_piece, piece);
            }
            return;
        }
        out.par_chunks_mut((rows_per_piece * width).max(1)).enumerate().for_each(|(i, piece)| f(i * rows_per_piece, piece));
    }
}

/// Scratch buffer borrowed from a pool, given back when dropped.
pub struct Scratch<'p> {
    pool: &'p Pool,
    buffer: Buffer,
    len: usize,
}

impl Deref for Scratch<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            return;
        }
        self.pool.free.lock().unwrap_or_else(|e| e.into_inner()).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn as_many_threads_as_processors_have_one_each() {
        use std::collections::HashSet;

        use rustix::thread::{sched_getaffinity, sched_getcpu};
        let here = sched_getaffinity(None).unwrap();
        let threads = here.count() as usize;
        let pool = Pool::new(threads).unwrap();
        let processors = pool.broadcast(|_| (sched_getcpu(), sched_getaffinity(None).unwrap().count()));
        assert_eq!(processors.iter().map(|(cpu, _)| cpu).collect::<HashSet<_>>().len(), threads);
        assert!(processors.iter().all(|(_, allowed)| *allowed == 1), "{processors:?}");
        // No other thread is pinned: neither the caller nor a pool of another size.
        assert_eq!(sched_getaffinity(None).unwrap().count(), here.count());
        let more = Pool::new(threads + 1).unwrap();
        assert!(more.broadcast(|_| sched_getaffinity(None).unwrap().count()).iter().all(|allowed| *allowed == here.count()));
    }

    #[test]
    fn scratch_is_reused() {
        let pool = Pool::new(1).unwrap();
        drop(pool.scratch(100));
        drop(pool.scratch(50));
        let none = pool.scratch(0);
        assert_eq!(pool.scratch_peak(), 400, "the second request should have taken the first buffer");
        let (a, b) = (pool.scratch(100), pool.scratch(100));
        assert_eq!(pool.scratch_peak(), 800);
        drop((a, b, none));
        drop(pool.scratch(150));
        assert_eq!(pool.scratch_peak(), 1000, "the larger buffer should have replaced a smaller one");
    }
}
