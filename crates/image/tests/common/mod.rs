//! Where fixtures lie, and what to do when they are absent.

use std::path::{Path, PathBuf};

/// The sub-folder `part` of the folder named by the variable, else of `default`, both relative to the repository's root; none,
/// with the reason printed, when it is absent.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub fn folder(variable: &str, default: &str, part: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(std::env::var(variable).unwrap_or_else(|_| default.to_owned())).join(part);
    if !path.is_dir() {
        eprintln!("skipped: no folder {} (set {variable})", path.display());
        return None;
    }
    Some(path)
}
