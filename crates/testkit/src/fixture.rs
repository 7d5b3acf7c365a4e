//! A golden fixture: `X.json` (configuration, scalars, catalog) and `X.safetensors` (arrays).

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::fill::{FillKind, fill_named, kind_of};
use crate::folder::golden_folder;
use crate::golden::{GoldenTensor, GroupRow, Noise, SAMPLES, Values};

/// A fixture that is absent, unreadable or not as its catalog says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The JSON file does not parse.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Error of the parser.
        source: serde_json::Error,
    },
    /// The safetensors file does not parse.
    #[error("{fixture}.safetensors: {source}")]
    SafeTensors {
        /// The fixture.
        fixture: String,
        /// Error of the parser.
        source: safetensors::SafeTensorError,
    },
    /// An entry is missing or has the wrong form.
    #[error("{fixture}: {entry} {problem}")]
    Entry {
        /// The fixture.
        fixture: String,
        /// The tensor, group, array or field.
        entry: String,
        /// Description of the problem.
        problem: &'static str,
    },
}

/// A fixture in memory.
pub struct Fixture {
    /// Path below the golden folder, without extension: `backbones/micro_swin_w7`.
    pub name: String,
    /// The JSON file.
    pub json: Value,
    /// The bytes of the safetensors file, empty where there is none.
    arrays: Vec<u8>,
}

/// Every fixture `sub/prefix*.json` of the golden folder, sorted by name. Empty if there is no golden folder, and, after
/// saying so, if it has no such sub-folder: a set of fixtures may be a part of the whole.
///
/// # Errors
/// If the sub-folder or a fixture in it cannot be read.
pub fn fixtures(sub: &str, prefix: &str) -> Result<Vec<Fixture>, Error> {
    let Some(folder) = golden_folder() else {
        return Ok(Vec::new());
    };
    let path = folder.join(sub);
    if !path.is_dir() {
        say_skipped(&path);
        return Ok(Vec::new());
    }
    let io = |source| Error::Io { path: path.clone(), source };
    let mut stems = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let file = entry.map_err(io)?.file_name();
        if let Some(stem) = file.to_str().and_then(|file| file.strip_suffix(".json"))
            && stem.starts_with(prefix)
        {
            stems.push(stem.to_owned());
        }
    }
    stems.sort();
    stems.iter().map(|stem| Fixture::load(&folder, &format!("{sub}/{stem}"))).collect()
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen in the test's output")]
fn say_skipped(path: &Path) {
    eprintln!("skipped: no fixtures in {}", path.display());
}

impl Fixture {
    /// Prefix of every name when its values are computed; empty in most sets.
    pub fn prefix(&self) -> &str {
        self.json["prefix"].as_str().unwrap_or_default()
    }

    /// Values of the parameter or buffer `name`, row-major, its kind taken from the name.
    ///
    /// # Panics
    /// If no rule covers the name: it is then data, and [`Fixture::fill_kind`] says which kind.
    pub fn fill(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let kind = kind_of(name, shape).unwrap_or_else(|| panic!("{}: no rule for the name {name} with shape {shape:?}", self.name));
        self.fill_kind(name, shape, kind)
    }

    /// Values of `name` with the given kind, row-major.
    pub fn fill_kind(&self, name: &str, shape: &[usize], kind: FillKind) -> Vec<f32> {
        fill_named(&format!("{}{name}", self.prefix()), shape, kind)
    }

    /// Reads `folder/name.json` and, where it exists, `folder/name.safetensors`.
    ///
    /// # Errors
    /// If a file cannot be read or parsed.
    pub fn load(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join(format!("{name}.json"));
        let text = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let json = serde_json::from_slice(&text).map_err(|source| Error::Json { path, source })?;
        let path = folder.join(format!("{name}.safetensors"));
        let arrays = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let fixture = Self { name: name.to_owned(), json, arrays };
        if !fixture.arrays.is_empty() {
            fixture.parsed()?;
        }
        Ok(fixture)
    }

    /// True if the catalog lists the tensor.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.json["tensors"].get(name).is_some()
    }

    /// True if the catalog lists the group.
    pub fn has_group(&self, name: &str) -> bool {
        self.json["groups"].get(name).is_some()
    }

    /// A float tensor of the catalog.
    ///
    /// # Errors
    /// If it is not listed, not of floats or not stored as listed.
    pub fn tensor(&self, name: &str) -> Result<GoldenTensor, Error> {
        let entry = self.json["tensors"].get(name).ok_or_else(|| self.bad(name, "is not in the catalog"))?;
        let shape = shape_of(&entry["shape"]).ok_or_else(|| self.bad(name, "has no shape"))?;
        let number = |key: &str| entry[key].as_f64().ok_or_else(|| self.bad(name, "has no sum, l2 or absmax"));
        let n: usize = shape.iter().product();
        let (values, expected) = match entry["stored"].as_str() {
            Some("full") => (Values::Full(self.floats(name)?.1), n),
            Some("digest") => (Values::Samples(self.floats(&format!("{name}#samples"))?.1), SAMPLES),
            _ => return Err(self.bad(name, "is stored neither full nor as a digest")),
        };
        let (Values::Full(stored) | Values::Samples(stored)) = &values;
        if stored.len() != expected {
            return Err(self.bad(name, "is stored with another length than its catalog entry says"));
        }
        Ok(GoldenTensor {
            label: format!("{}: {name}", self.name),
            shape,
            values,
            sum: number("sum")?,
            l2: number("l2")?,
            absmax: number("absmax")?,
            noise: Noise { max_abs: entry["noise"]["max_abs"].as_f64(), rel_l2: entry["noise"]["rel_l2"].as_f64() },
        })
    }

    /// The float tensors of the catalog whose names start with `prefix`, as a group; the prefix is dropped.
    ///
    /// # Errors
    /// If one of them is not stored as listed.
    pub fn tensors(&self, prefix: &str) -> Result<Vec<GroupRow>, Error> {
        let names = self.json["tensors"].as_object().into_iter().flat_map(|tensors| tensors.keys());
        names
            .filter_map(|name| Some((name, name.strip_prefix(prefix)?)))
            .map(|(name, rest)| Ok(GroupRow { name: rest.to_owned(), golden: Some(self.tensor(name)?) }))
            .collect()
    }

    /// A group of the catalog, in its order.
    ///
    /// # Errors
    /// If it is not listed or its arrays do not fit its list.
    pub fn group(&self, name: &str) -> Result<Vec<GroupRow>, Error> {
        let list = self.json["groups"][name].as_array().ok_or_else(|| self.bad(name, "is not a group of the catalog"))?;
        let (_, stats) = self.doubles(&format!("{name}#stats"))?;
        let (_, samples) = self.floats(&format!("{name}#samples"))?;
        let noise_name = format!("{name}#noise");
        let noise = if self.has_array(&noise_name) { Some(self.doubles(&noise_name)?.1) } else { None };
        let rows = list.len();
        if stats.len() != 3 * rows || samples.len() != SAMPLES * rows || noise.as_ref().is_some_and(|noise| noise.len() != rows) {
            return Err(self.bad(name, "has arrays that do not fit its list"));
        }
        let mut group = Vec::with_capacity(rows);
        for (i, row) in list.iter().enumerate() {
            let row_name = row[0].as_str().ok_or_else(|| self.bad(name, "has a row without a name"))?;
            let golden = if row[1].is_null() {
                None
            } else {
                let shape = shape_of(&row[1]).ok_or_else(|| self.bad(name, "has a row without a shape"))?;
                let is_empty = shape.contains(&0);
                let samples = if is_empty { &[] } else { &samples[SAMPLES * i..SAMPLES * (i + 1)] };
                Some(GoldenTensor {
                    label: format!("{}: {name}: {row_name}", self.name),
                    shape,
                    values: Values::Samples(samples.to_vec()),
                    sum: stats[3 * i],
                    l2: stats[3 * i + 1],
                    absmax: stats[3 * i + 2],
                    noise: Noise { max_abs: None, rel_l2: noise.as_ref().map(|noise| noise[i]) },
                })
            };
            group.push(GroupRow { name: row_name.to_owned(), golden });
        }
        Ok(group)
    }

    /// True if the safetensors file holds the array (under this very name, `#samples` and the like included).
    pub fn has_array(&self, name: &str) -> bool {
        self.parsed().is_ok_and(|arrays| arrays.tensor(name).is_ok())
    }

    /// An F32 array of the safetensors file: shape and values.
    ///
    /// # Errors
    /// If it is absent or of another type.
    pub fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), Error> {
        self.array(name, Dtype::F32, f32::from_le_bytes)
    }

    /// An F64 array of the safetensors file: shape and values.
    ///
    /// # Errors
    /// If it is absent or of another type.
    pub fn doubles(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>), Error> {
        self.array(name, Dtype::F64, f64::from_le_bytes)
    }

    /// An I32 array of the safetensors file (indices, labels): shape and values.
    ///
    /// # Errors
    /// If it is absent or of another type.
    pub fn integers(&self, name: &str) -> Result<(Vec<usize>, Vec<i32>), Error> {
        self.array(name, Dtype::I32, i32::from_le_bytes)
    }

    /// A list `[name, shape, …]` of the JSON file (`parameters`, `state_dict`): names and shapes in order.
    ///
    /// # Errors
    /// If the field is absent or not such a list.
    pub fn shapes(&self, field: &str) -> Result<Vec<(String, Vec<usize>)>, Error> {
        let list = self.json[field].as_array().ok_or_else(|| self.bad(field, "is not a list"))?;
        list.iter()
            .map(|row| Some((row[0].as_str()?.to_owned(), shape_of(&row[1])?)))
            .collect::<Option<_>>()
            .ok_or_else(|| self.bad(field, "has a row that is not a name and a shape"))
    }

    fn array<T, const N: usize>(&self, name: &str, dtype: Dtype, read: fn([u8; N]) -> T) -> Result<(Vec<usize>, Vec<T>), Error> {
        let arrays = self.parsed()?;
        let view = arrays.tensor(name).map_err(|_| self.bad(name, "is not in the safetensors file"))?;
        if view.dtype() != dtype {
            return Err(self.bad(name, "has another element type than asked for"));
        }
        let (chunks, _) = view.data().as_chunks::<N>();
        Ok((view.shape().to_vec(), chunks.iter().map(|&bytes| read(bytes)).collect()))
    }

    fn parsed(&self) -> Result<SafeTensors<'_>, Error> {
        SafeTensors::deserialize(&self.arrays).map_err(|source| Error::SafeTensors { fixture: self.name.clone(), source })
    }

    fn bad(&self, entry: &str, problem: &'static str) -> Error {
        Error::Entry { fixture: self.name.clone(), entry: entry.to_owned(), problem }
    }
}

fn shape_of(json: &Value) -> Option<Vec<usize>> {
    json.as_array()?.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_the_prefix_when_they_are_filled() {
        let fixture = |prefix: &str| Fixture { name: "made".into(), json: serde_json::json!({ "prefix": prefix }), arrays: Vec::new() };
        // The last of the vectors in the fixtures' README.
        let pixels = fixture("heldout/").fill_kind("input.0", &[1, 3, 96, 96], FillKind::Input);
        assert_eq!(pixels[..3], [-1.612_413_9, 0.854_460_84, -1.294_719_5]);
        assert_eq!(fixture("").fill_kind("heldout/input.0", &[3, 96, 96], FillKind::Input), pixels);
        assert_ne!(fixture("").fill_kind("input.0", &[3, 96, 96], FillKind::Input), pixels);
        assert_eq!(fixture("heldout/").fill("bn.running_var", &[2]), fixture("").fill_kind("heldout/bn.running_var", &[2], FillKind::Var));
    }

    /// Every entry of every fixture is readable, and its sums belong to its elements where all are stored.
    #[test]
    fn every_catalog_is_true() -> Result<(), Error> {
        let Some(folder) = crate::golden_or_skip("every_catalog_is_true") else {
            return Ok(());
        };
        let mut subs = Vec::new();
        let io = |source| Error::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.is_dir() {
                subs.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
            }
        }
        let (mut tensors, mut rows) = (0, 0);
        for sub in subs {
            for fixture in fixtures(&sub, "")? {
                for (name, entry) in fixture.json["tensors"].as_object().into_iter().flatten() {
                    match entry["dtype"].as_str() {
                        Some("F32") => {
                            let golden = fixture.tensor(name)?;
                            if let Values::Full(values) = &golden.values {
                                let l2 = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                                assert!((l2 - golden.l2).abs() <= 1e-9 * l2, "{}: l2 {l2}", golden.label);
                            }
                        }
                        _ => assert!(!fixture.integers(name)?.1.is_empty(), "{}: {name}", fixture.name),
                    }
                    tensors += 1;
                }
                for name in fixture.json["groups"].as_object().into_iter().flat_map(|groups| groups.keys()) {
                    for row in fixture.group(name)? {
                        let Some(golden) = row.golden else { continue };
                        let largest = golden.points().map(|(_, v)| f64::from(v.abs())).fold(0.0, f64::max);
                        assert!(largest <= golden.absmax, "{}: {largest}", golden.label);
                        rows += 1;
                    }
                }
            }
        }
        assert!(tensors > 0 && rows > 0, "{}: no tensors or no groups", folder.display());
        Ok(())
    }
}
