//! The program as a process: what it prints, at the smallest sizes it takes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

/// One image, two crops of 32 px and one of 16, K = 64.
const TINY: &str = "--threads 2 --batch-size 1 --prototypes 64 --global-size 32 --local-size 16 --local-count 1 --runs 2";

fn program(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esvit-bench"));
    command.args(line.split_whitespace()).args(TINY.split_whitespace());
    command
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)))
}

#[test]
fn everything_is_measured_in_one_report() {
    let output = program("all --json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!((report["tool"].as_str(), report["device"].as_str()), (Some("esvit"), Some("cpu")));
    assert!(report["peaks"][0]["gflops"].as_f64().unwrap() > 0.1);
    let cases = report["cases"].as_array().unwrap();
    let names: Vec<&str> = cases.iter().map(|case| case["case"].as_str().unwrap()).collect();
    let attention = ["window_attention", "window_attention_forward", "window_attention_core", "window_attention_core_forward"];
    assert_eq!(names, [&["step", "inference", "loss"], &attention[..]].concat());
    for case in cases {
        let of = |key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{key} of {case}"));
        assert_eq!(case["runMs"].as_array().unwrap().len(), 2);
        assert!(0.0 < of("minMs") && of("minMs") <= of("medianMs") && of("medianMs") <= of("maxMs"), "{case}");
        assert!((of("gflops") * of("medianMs") / 1e3 - of("gflop")).abs() < 1e-9, "{case}");
        assert_eq!((of("threads"), of("batch")), (2.0, 1.0));
        assert!(of("plannedBytes") > 0.0);
    }
    // With the projections more than without, both ways more than one way.
    let gflop = |name: &str| cases.iter().find(|case| case["case"] == name).unwrap()["gflop"].as_f64().unwrap();
    assert_eq!(gflop("window_attention"), 3.0 * gflop("window_attention_forward"));
    assert!(gflop("window_attention_core_forward") < gflop("window_attention_forward"));

    // The operators are the step's: as many applications and as much arithmetic.
    let sum = |list: &str, of: &dyn Fn(&Value) -> f64| -> f64 { report[list].as_array().unwrap().iter().map(of).sum() };
    let total = sum("operators", &|row| row["calls"].as_f64().unwrap() * row["gflop"].as_f64().unwrap());
    let rows = sum("rows", &|row| row["gflop"].as_f64().unwrap());
    assert!((total / rows - 1.0).abs() < 1e-9, "{total} in operators, {rows} in the step");
    let updates = |row: &Value| if row["phase"] == "update" { 0.0 } else { row["calls"].as_f64().unwrap() };
    assert_eq!(sum("operators", &|row| row["calls"].as_f64().unwrap()), sum("rows", &updates));
}

#[test]
fn somebody_else_can_set_the_pace() {
    let mut child = program("window_attention --paced --json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || json(lines.next().unwrap().unwrap().as_bytes());
    assert_eq!(next()["ready"], true);
    let mut times = Vec::new();
    for _ in 0..3 {
        writeln!(stdin, "run").unwrap();
        times.push(next()["ms"].clone());
    }
    drop(stdin);
    let report = next();
    assert_eq!(report["cases"][0]["runMs"].as_array().unwrap(), &times);
    assert_eq!(report["peaks"].as_array().unwrap().len(), 0);
    assert!(child.wait().unwrap().success());
}

#[test]
fn tables_are_for_people_and_a_wrong_word_is_one_sentence() {
    let output = program("attention").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("peak: "), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("window_attention")).count(), 4, "{text}");
    let wrong = program("atention").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
    let sentence = "esvit-bench: atention is not known; measure ops, step, inference, loss, attention or all\n";
    assert_eq!(String::from_utf8(wrong.stderr).unwrap(), sentence);
}
