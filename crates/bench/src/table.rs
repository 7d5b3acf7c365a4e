//! A report as tables.

use esvit_bench::{Measurement, OperatorRow, Report};
use esvit_engine::ProfileRow;

/// Tables of everything in a report.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for esvit_bench::Peak { threads, gflops } in &report.peaks {
        let place = if report.device == "cpu" { format!("{threads} threads, {}", report.instructions) } else { report.device.clone() };
        text += &format!("peak: {gflops:.0} GFLOP/s in a large matrix product ({place})\n");
    }
    if !report.cases.is_empty() {
        let headings =
            ["case", "precision", "threads", "images", "ms", "min", "max", "images/s", "GFLOP/s", "% of peak", "MiB planned", "MiB peak"];
        let row = |m: &Measurement| {
            let share = report.peak(m.threads).map_or(String::new(), |peak| format!("{:.1}", 100.0 * m.gflops / peak));
            let precision = format!("{:?}", m.precision).to_lowercase();
            let numbers = [m.median_ms, m.min_ms, m.max_ms, m.images_per_second, m.gflops].map(|v| format!("{v:.1}"));
            let head = [m.case.to_string(), precision, m.threads.to_string(), m.batch.to_string()];
            head.into_iter()
                .chain(numbers)
                .chain([share, (m.planned_bytes >> 20).to_string(), m.peak_bytes.map_or(String::new(), |bytes| (bytes >> 20).to_string())])
                .collect()
        };
        text += &table(&headings, 2, report.cases.iter().map(row).collect());
    }
    for rows in [&report.rows, &report.encoding].into_iter().filter(|rows| !rows.is_empty()) {
        let ms = |r: &ProfileRow| r.time.as_secs_f64() * 1e3;
        let total: f64 = rows.iter().map(ms).sum();
        let row = |r: &ProfileRow| {
            let (ms, gflop) = (ms(r), r.flops as f64 / 1e9);
            let cells = [ms, 100.0 * ms / total, gflop, gflop / ms * 1e3].map(|v| format!("{v:.2}"));
            [r.phase.to_string(), r.operator.to_string(), r.calls.to_string()].into_iter().chain(cells).collect()
        };
        text += &table(&["part", "operator", "calls", "ms", "% of time", "GFLOP", "GFLOP/s"], 2, rows.iter().map(row).collect());
    }
    if !report.operators.is_empty() {
        let peak = report.peaks.first().map(|peak| peak.gflops);
        let row = |r: &OperatorRow| {
            let shape = |s: &Vec<usize>| s.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            let shapes: Vec<String> = r.operands.iter().take(2).map(shape).collect();
            let share = peak.filter(|_| r.gflop > 0.0).map_or(String::new(), |peak| format!("{:.1}", 100.0 * r.gflops / peak));
            let rate = if r.gflop > 0.0 { format!("{:.1}", r.gflops) } else { String::new() };
            let numbers = [format!("{:.3}", r.ms), format!("{:.2}", r.ms * r.calls as f64), rate, share];
            [r.operator.to_string(), shapes.join(" "), r.calls.to_string()]
                .into_iter()
                .chain(numbers)
                .chain([format!("{:.1}", r.gigabytes_per_second)])
                .collect()
        };
        let headings = ["operator", "operands", "calls", "ms", "ms a step", "GFLOP/s", "% of peak", "GB/s"];
        text += &table(&headings, 2, report.operators.iter().map(row).collect());
    }
    text
}

/// Cells under headings: the first `words` columns to the left, the others to the right.
fn table(headings: &[&str], words: usize, rows: Vec<Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![headings.iter().map(|h| h.to_string()).collect()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let cell = |(column, text): (usize, &String)| match column < words {
        true => format!("{text:<width$}", width = widths[column]),
        false => format!("{text:>width$}", width = widths[column]),
    };
    let line = |line: &Vec<String>| line.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n";
    "\n".to_string() + &lines.iter().map(line).collect::<String>()
}
