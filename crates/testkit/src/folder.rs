//! Where the golden fixtures lie. They are not part of the repository, so a test that needs them
//! is skipped, with a printed reason, where they are absent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Names the folder of the fixtures; a relative path starts at the root of the workspace.
const VARIABLE: &str = "ESVIT_GOLDEN";

/// Where the fixtures are looked for when the variable is not set, from the root of the workspace.
const DEFAULT: &str = "../shared/golden";

/// The folder of the golden fixtures, or `None` where it does not exist.
pub fn golden_folder() -> Option<PathBuf> {
    let folder = candidate(std::env::var_os(VARIABLE));
    folder.is_dir().then_some(folder)
}

/// [`golden_folder`]; where there is none, says on standard error that `test` is skipped and why.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen in the test's output")]
pub fn golden_or_skip(test: &str) -> Option<PathBuf> {
    let folder = golden_folder();
    if folder.is_none() {
        eprintln!("skipped {test}: no folder {} (set {VARIABLE})", candidate(std::env::var_os(VARIABLE)).display());
    }
    folder
}

fn candidate(variable: Option<OsString>) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(variable.filter(|folder| !folder.is_empty()).unwrap_or_else(|| DEFAULT.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_before_the_default() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert!(root.join("Cargo.toml").is_file(), "{} is not the workspace", root.display());
        assert_eq!(candidate(Some("/somewhere/golden".into())), Path::new("/somewhere/golden"));
        assert_eq!(candidate(Some("near".into())), root.join("near"));
        assert_eq!(candidate(None), root.join(DEFAULT));
        assert_eq!(candidate(Some("".into())), candidate(None));
    }
}
