//! Where the time of a program goes.

use std::collections::BTreeMap;
use std::time::Duration;

use esvit_graph::NodeTime;
use serde::{Serialize, Serializer};

use crate::plan::gflop;

/// Time and arithmetic of one operator in one part of the step.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ProfileRow {
    /// Part of the step.
    pub phase: &'static str,
    /// Operator.
    pub operator: &'static str,
    /// Applications.
    pub calls: u32,
    /// Wall time of all of them; in milliseconds where it is serialized.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    #[cfg_attr(feature = "typescript", ts(rename = "ms", type = "number"))]
    pub time: Duration,
    /// Matrix-product arithmetic; in 10⁹ operations where it is serialized.
    #[serde(rename = "gflop", serialize_with = "gflop")]
    #[cfg_attr(feature = "typescript", ts(rename = "gflop", type = "number"))]
    pub flops: u64,
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

/// The times of nodes by part and operator, the longest first.
pub(crate) fn rows(times: &[NodeTime]) -> Vec<ProfileRow> {
    let mut rows: BTreeMap<(&str, &str), ProfileRow> = BTreeMap::new();
    for t in times {
        let row = rows.entry((t.phase, t.op));
        let row = row.or_insert(ProfileRow { phase: t.phase, operator: t.op, calls: 0, time: Duration::ZERO, flops: 0 });
        row.calls += 1;
        row.time += t.time;
        row.flops += t.flops;
    }
    let mut rows: Vec<ProfileRow> = rows.into_values().collect();
    rows.sort_by_key(|r| std::cmp::Reverse(r.time));
    rows
}
