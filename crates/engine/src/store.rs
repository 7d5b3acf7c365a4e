//! The values of one network's state dict.

use std::collections::HashMap;

use esvit_nn::{Init, ParameterEntry, Parameters, Role};

use crate::random::Stream;
use crate::tensor::{Tensor, TensorValues, TensorView};
use crate::{Error, Result};

/// Entries with their values.
#[derive(Clone, Debug)]
pub struct Store {
    entries: Vec<ParameterEntry>,
    values: Vec<Vec<f32>>,
    index: HashMap<String, usize>,
}

/// Outcome of loading a set of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LoadReport {
    /// Entries that were replaced.
    pub loaded: usize,
    /// Entries that were not given.
    pub missing: Vec<String>,
    /// Tensors that no entry has.
    pub unexpected: Vec<String>,
}

/// Name under which microsoft/esvit counts a batch norm's batches, as an integer.
const COUNTER: &str = "num_batches_tracked";

impl Store {
    /// Entries with random initial values; those of an entry depend on the seed and its name alone.
    pub fn new(parameters: &Parameters, seed: u64) -> Store {
        let mut store = Store::without_values(parameters);
        store.values = store.entries.iter().map(|e| if e.role.has_values() { draw(e, seed) } else { Vec::new() }).collect();
        store
    }

    /// Entries whose values are still to be loaded.
    pub(crate) fn without_values(parameters: &Parameters) -> Store {
        let entries = parameters.entries.clone();
        let values = vec![Vec::new(); entries.len()];
        let index = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        Store { entries, values, index }
    }

    /// The entries, in the order of microsoft/esvit.
    pub fn entries(&self) -> &[ParameterEntry] {
        &self.entries
    }

    /// Values of entry `i`.
    pub fn values(&self, i: usize) -> &[f32] {
        &self.values[i]
    }

    /// Number of values of entry `i`, whether or not they are here.
    pub(crate) fn floats(&self, i: usize) -> usize {
        if self.entries[i].role.has_values() { self.entries[i].volume() } else { 0 }
    }

    /// Values of entry `i`, to change.
    pub fn values_mut(&mut self, i: usize) -> &mut Vec<f32> {
        &mut self.values[i]
    }

    /// Number of the entry with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(|v| v.len() * 4).sum()
    }

    /// The state dict.
    pub fn tensors(&self) -> Vec<Tensor> {
        self.tensors_with(|view| view.to_values())
    }

    /// The state dict with the values that `values` makes of its own.
    pub fn tensors_with(&self, values: impl Fn(TensorView) -> TensorValues) -> Vec<Tensor> {
        let tensor = |(i, entry): (usize, &ParameterEntry)| Tensor {
            name: entry.name.clone(),
            shape: entry.shape.clone(),
            values: values(self.view(i)),
        };
        self.entries.iter().enumerate().map(tensor).collect()
    }

    /// Values of entry `i` as the state dict has them.
    pub fn view(&self, i: usize) -> TensorView<'_> {
        let (entry, values) = (&self.entries[i], &self.values[i]);
        match &entry.role {
            Role::Constant(integers) => TensorView::I64(integers.into()),
            Role::Alias(of) => TensorView::F32(self.position(of).map_or(&[], |i| &self.values[i])),
            Role::Buffer if entry.name.ends_with(COUNTER) => TensorView::I64(values.iter().map(|&v| v as i64).collect()),
            _ => TensorView::F32(values),
        }
    }

    /// Reports what loading these tensors would do. Unless `partial`, every entry must be given and every tensor used.
    pub fn check(&self, tensors: &[Tensor], partial: bool) -> Result<LoadReport> {
        let mut report = LoadReport::default();
        let mut given = vec![false; self.entries.len()];
        for tensor in tensors {
            let Some(&i) = self.index.get(&tensor.name) else {
                report.unexpected.push(tensor.name.clone());
                continue;
            };
            let entry = &self.entries[i];
            if tensor.shape != entry.shape || tensor.values.len() != entry.volume() {
                return Err(Error::State(format!("`{}` must have shape {:?}, got {:?}", tensor.name, entry.shape, tensor.shape)));
            }
            match (&entry.role, &tensor.values) {
                (Role::Constant(want), TensorValues::I64(got)) if want == got => {}
                (Role::Constant(_), _) => {
                    return Err(Error::State(format!("`{}` holds other values than this architecture's", tensor.name)));
                }
                (_, TensorValues::F32(_)) | (Role::Buffer, TensorValues::I64(_)) => {}
                _ => return Err(Error::State(format!("`{}` must hold floats", tensor.name))),
            }
            given[i] = true;
        }
        for entry in &self.entries {
            // One value under two names: given twice, it must be the same.
            let Role::Alias(of) = &entry.role else { continue };
            let given = |name: &str| tensors.iter().find(|t| t.name == name).map(|t| &t.values);
            if let (Some(one), Some(other)) = (given(&entry.name), given(of))
                && one != other
            {
                return Err(Error::State(format!("`{}` differs from `{of}`, with which it is shared", entry.name)));
            }
        }
        let missing = self.entries.iter().zip(&given).filter(|(e, given)| !**given && e.role.has_values());
        report.missing = missing.map(|(e, _)| e.name.clone()).collect();
        report.loaded = given.into_iter().filter(|given| *given).count();
        let fits = report.missing.is_empty() && report.unexpected.is_empty();
        if !partial && !fits {
            return Err(Error::State(mismatch(&report)));
        }
        Ok(report)
    }

    /// Replaces values by tensors of the same names, one after the other: nothing is in memory twice.
    ///
    /// # Errors
    /// As [`Store::check`]; then nothing is changed.
    pub fn load(&mut self, tensors: Vec<Tensor>, partial: bool) -> Result<LoadReport> {
        let report = self.check(&tensors, partial)?;
        for tensor in tensors {
            let Some(&i) = self.index.get(&tensor.name) else { continue };
            if self.entries[i].role.has_values() {
                self.values[i] = match tensor.values {
                    TensorValues::F32(values) => values,
                    TensorValues::I64(counters) => counters.into_iter().map(|n| n as f32).collect(),
                };
            }
        }
        Ok(report)
    }
}

/// One sentence naming what does not fit, a few names of each kind.
fn mismatch(report: &LoadReport) -> String {
    let list = |what: &str, names: &[String]| {
        let shown: Vec<&str> = names.iter().take(4).map(String::as_str).collect();
        let more = if names.len() > 4 { format!(" and {} more", names.len() - 4) } else { String::new() };
        (!names.is_empty()).then(|| format!("{what} {}{more}", shown.join(", ")))
    };
    let parts: Vec<String> = [list("missing", &report.missing), list("unexpected", &report.unexpected)].into_iter().flatten().collect();
    format!("the weights are those of another architecture: {}", parts.join("; "))
}

fn draw(entry: &ParameterEntry, seed: u64) -> Vec<f32> {
    let n = entry.volume();
    let mut stream = Stream::new(seed, &entry.name, &[]);
    match entry.init {
        Init::Constant(value) => vec![value; n],
        Init::Uniform(bound) => (0..n).map(|_| (2.0 * stream.uniform() - 1.0) * bound).collect(),
        Init::Normal(deviation) => {
            let mut values = Vec::with_capacity(n.next_multiple_of(2));
            (0..n.div_ceil(2)).for_each(|_| values.extend(stream.normal_pair().map(|v| v * deviation)));
            values.truncate(n);
            values
        }
    }
}
