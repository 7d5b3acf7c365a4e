use esvit_engine::spec::{Device, Precision};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut spec = esvit_bench::models::training("swin_tiny", 7).unwrap();
    spec.crops.batch = 2;
    spec.checkpointing = args[1] == "true";
    if args.get(3).is_some_and(|p| p == "mixed") {
        spec.precision = Precision::Mixed;
    }
    let plan = esvit_engine::Plan::new(&spec, Device::Cpu).unwrap();
    let mb = |b: usize| b as f64 / 1048576.0;
    eprintln!("arena {:.1} parameters {:.1} workspace {:.1}", mb(plan.memory.arena), mb(plan.memory.parameters), mb(plan.memory.workspace));
    esvit_engine::step_program(&spec, Device::Cpu).unwrap().dump(args[2].parse().unwrap());
}
