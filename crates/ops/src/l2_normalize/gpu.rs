use esvit_gpu::Kernel;

pub(crate) static KERNELS: &[&Kernel] = &[];
