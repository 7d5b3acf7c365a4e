//! Kernels: an entry point of some WGSL files.
//!
//! A kernel is a list of files that are one valid WGSL module when they stand one behind the other: no preprocessor, no templates. What
//! several kernels share stands in one file, and each of them lists it. Three rules:
//!
//! - The kernel's own file comes first, then the shared ones, from the nearest to the most general. WGSL lets a declaration be used before
//!   it stands, so the order means nothing to a compiler, with one exception: directives (`enable f16;`) must precede every declaration of
//!   a module, as browsers demand. They stand at the top of the first file, and a shared file has none.
//! - A shared file declares what it uses, or says in its first lines what the kernel declares for it: a binding such as `p`, fields of
//!   `Params`, or an `alias` for a type it is written over.
//! - The uniform `p` is declared by the file that binds the last storage buffer before it.

use std::mem::size_of;

/// Features a kernel needs besides those that all adapters have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// No other features.
    Nothing,
    /// Arithmetic in half precision.
    HalfPrecision,
    /// Matrix units that take half and give single precision, for subgroups of 32 threads.
    CooperativeMatrix,
}

/// One entry point of a WGSL module. Bindings of group 0: storage buffers first, in the order a dispatch gives them, then the uniform
/// `Params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Name for messages and profiles.
    pub name: &'static str,
    /// Texts of the module's files, the kernel's own first.
    pub files: &'static [&'static str],
    /// Name of the entry point.
    pub entry: &'static str,
    /// Number of storage buffers. At most 8: all adapters have that many.
    pub storages: u32,
    /// Bytes of `Params`, a multiple of 16.
    pub params: usize,
    /// Features of the adapter: whoever records it has made sure that it has them.
    pub needs: Needs,
}

impl Kernel {
    /// A kernel whose `Params` mirror `P`, field for field.
    pub const fn new<P>(name: &'static str, files: &'static [&'static str], entry: &'static str, storages: u32) -> Kernel {
        assert!(storages <= 8, "adapters have 8 storage buffers for a kernel");
        assert!(size_of::<P>().is_multiple_of(16), "pad Params to 16 bytes");
        Kernel { name, files, entry, storages, params: size_of::<P>(), needs: Needs::Nothing }
    }

    /// A kernel like this one for adapters with these features.
    #[must_use]
    pub const fn needing(self, needs: Needs) -> Kernel {
        Kernel { needs, ..self }
    }

    /// The module: its files, one behind the other.
    pub fn source(&self) -> String {
        self.files.concat()
    }
}
