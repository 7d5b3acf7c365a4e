//! Pinning of a pool's threads to cores: docs/decisions/0059-pinned-threads.md.

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins the calling thread, number `i` of a pool of `threads`, to the `i`th processor of those the process may use, if there are just as
/// many. Where processors are left over the scheduler finds an idle one by itself, and where there are too few it has to share. Linux only:
/// other systems were not seen to need it.
pub(crate) fn pin(i: usize, threads: usize) {
    #[cfg(target_os = "linux")]
    if threads > 1
        && let Ok(all) = sched_getaffinity(None)
        && all.count() as usize == threads
        && let Some(processor) = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).nth(i)
    {
        let mut one = CpuSet::new();
        one.set(processor);
        // A refusal costs time, nothing else.
        _ = sched_setaffinity(None, &one);
    }
    _ = (i, threads);
}
