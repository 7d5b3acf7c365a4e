//! Memory of this process, where the system tells it without a library: Linux.

/// Resident bytes now.
pub(crate) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most resident bytes since [`forget_peak`], or since the process began where that cannot be forgotten.
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Resets the peak to what is resident now.
pub(crate) fn forget_peak() {
    // Refused in some sandboxes: then the peak is the process's own.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}
