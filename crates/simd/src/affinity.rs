//! Pinning of a pool's threads to cores: docs/decisions/0059-pinned-threads.md.

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps the calling thread, number `i` of a pool of `threads`, to the `i`th processor of those the process may use, if there are just as many.
/// Where processors are left over the scheduler finds an idle one by itself, and where there are too few it has to share.
/// Linux only: other systems were not seen to need it.
pub(crate) fn keep(i: usize, threads: usize) {
    #[cfg(target_os = "linux")]
    if threads > 1
        && let Ok(all) = sched_getaffinity(None)
        && all.count() as usize == threads
        && let Some(processor) = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).nth(i)
    {
        let mut own = CpuSet::new();
        own.set(processor);
        // A refusal costs time, nothing else.
        _ = sched_setaffinity(None, &own);
    }
    _ = (i, threads);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::HashSet;

    use rustix::thread::{sched_getaffinity, sched_getcpu};

    use crate::Pool;

    #[test]
    fn as_many_threads_as_processors_have_one_each() {
        let here = sched_getaffinity(None).unwrap();
        let threads = here.count() as usize;
        let pool = Pool::new(threads).unwrap();
        let processors = pool.broadcast(|_| (sched_getcpu(), sched_getaffinity(None).unwrap().count()));
        assert_eq!(processors.iter().map(|(cpu, _)| cpu).collect::<HashSet<_>>().len(), threads);
        assert!(processors.iter().all(|(_, allowed)| *allowed == 1), "{processors:?}");
        // Nobody else is kept: neither the caller nor a pool of another size.
        assert_eq!(sched_getaffinity(None).unwrap().count(), here.count());
        let more = Pool::new(threads + 1).unwrap();
        assert!(more.broadcast(|_| sched_getaffinity(None).unwrap().count()).iter().all(|allowed| *allowed == here.count()));
    }
}
