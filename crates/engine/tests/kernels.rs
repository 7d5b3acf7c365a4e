//! Every kernel, its files one behind the other: valid without a GPU, and in agreement with the Rust beside it.

use esvit_engine::kernels;
use esvit_gpu::Needs;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

#[test]
fn every_kernel_is_valid_and_its_params_match() {
    for kernel in kernels() {
        let source = kernel.source();
        let module =
            naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(&source, kernel.name)));
        let capabilities = match kernel.needs {
            Needs::Nothing => Capabilities::empty(),
            Needs::HalfPrecision => Capabilities::SHADER_FLOAT16,
            Needs::CooperativeMatrix => Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP,
        };
        let mut validator = Validator::new(ValidationFlags::all(), capabilities);
        validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
        let info = validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string_with_path(&source, kernel.name)));
        let options = naga::back::spv::Options { lang_version: (1, 4), ..Default::default() };
        naga::back::spv::write_vec(&module, &info, &options, None).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        let (_, params) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")).expect("a struct Params");
        let naga::TypeInner::Struct { span, .. } = params.inner else { panic!("{}: Params is no struct", kernel.name) };
        assert_eq!(span as usize, kernel.params, "{}: Params differ from the struct in Rust", kernel.name);
        let storages = module.global_variables.iter().filter(|(_, v)| matches!(v.space, naga::AddressSpace::Storage { .. })).count();
        assert_eq!(storages, kernel.storages as usize, "{}: storage buffers", kernel.name);
        assert!(module.entry_points.iter().any(|e| e.name == kernel.entry), "{}: no entry point {}", kernel.name, kernel.entry);
    }
}

#[test]
fn files_can_stand_one_behind_the_other() {
    for kernel in kernels() {
        for (n, file) in kernel.files.iter().enumerate() {
            assert!(file.ends_with('\n'), "{}: file {n} has no line feed at its end", kernel.name);
            let directive = file.lines().find(|line| ["enable ", "requires ", "diagnostic("].iter().any(|word| line.starts_with(word)));
            assert!(n == 0 || directive.is_none(), "{}: a shared file has a directive: {}", kernel.name, directive.unwrap_or_default());
        }
    }
}
