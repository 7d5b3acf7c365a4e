//! The state of a training run: everything that a step changes.

use esvit_graph::Leaf;

use crate::network::CompiledStep;
use crate::optimizer::{Optimizer, OptimizerState};
use crate::spec::TrainerSpec;
use crate::tensor::{Tensor, TensorValues, TensorView};
use crate::{DeviceKind, Error, LossScaler, Result, Store};

/// A list of tensors in a [`TrainerState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum StatePart {
    /// The student's state dict.
    Student,
    /// The teacher's state dict.
    Teacher,
    /// The centers.
    Loss,
    /// The optimizer's moments.
    Slots,
}

/// Everything a run needs to continue bit for bit, as plain data: the content of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// The student's state dict.
    pub student: Vec<Tensor>,
    /// The teacher's state dict.
    pub teacher: Vec<Tensor>,
    /// `center` and, with the region loss, `center_grid`, each `[1, K]`.
    pub loss: Vec<Tensor>,
    /// Moments and counters.
    pub optimizer: OptimizerState,
    /// Loss scale of `mixed` on a GPU.
    pub scaler: Option<LossScaler>,
}

/// Name and values of a center.
pub(crate) type Center = (&'static str, Vec<f32>);

/// The running state. An executor whose device has memory of its own holds the current values; here are those last loaded or downloaded.
#[derive(Debug)]
pub(crate) struct TrainingState {
    pub student: Store,
    pub teacher: Store,
    pub optimizer: Optimizer,
    /// `center` and, with the region loss, `center_grid`, `[K]` each.
    pub centers: Vec<Center>,
    /// Loss scale, where the device scales the loss.
    pub scaler: Option<LossScaler>,
}

impl TrainingState {
    /// State at the start of a run: the teacher is the student, centers are zero.
    pub fn new(spec: &TrainerSpec, step: &CompiledStep, device: DeviceKind) -> TrainingState {
        let student = Store::new(&step.student, spec.seed);
        let mut teacher = Store::new(&step.teacher, spec.seed);
        for i in 0..teacher.entries().len() {
            *teacher.values_mut(i) = student.values(i).to_vec();
        }
        let optimizer = Optimizer::new(spec.optimizer, &student);
        let zeros = || vec![0.0; spec.head.out_dim];
        let mut centers = vec![("center", zeros())];
        if spec.loss.region {
            centers.push(("center_grid", zeros()));
        }
        let scaler = device.scales_loss(spec.precision).then(LossScaler::default);
        TrainingState { student, teacher, optimizer, centers, scaler }
    }

    /// Values of all leaves that belong to the state.
    pub fn slices<'a>(&'a self, step: &'a CompiledStep) -> impl Iterator<Item = (Leaf, &'a [f32])> {
        let entries = |store: &'a Store, leaves: &'a [Option<Leaf>]| {
            leaves.iter().enumerate().filter_map(move |(i, leaf)| Some(((*leaf)?, store.values(i))))
        };
        let centers = step.leaves.centers.iter().zip(&self.centers).filter_map(|(leaf, (_, center))| Some(((*leaf)?, center.as_slice())));
        entries(&self.student, &step.leaves.student).chain(entries(&self.teacher, &step.leaves.teacher)).chain(centers)
    }

    /// The state as plain data, with values that `values` makes of the current ones.
    pub fn to_data(&self, values: impl Fn(TensorView) -> TensorValues) -> TrainerState {
        let center = |(name, center): &Center| Tensor {
            name: (*name).to_string(),
            shape: vec![1, center.len()],
            values: values(TensorView::F32(center)),
        };
        TrainerState {
            student: self.student.tensors_with(&values),
            teacher: self.teacher.tensors_with(&values),
            loss: self.centers.iter().map(center).collect(),
            optimizer: self.optimizer.state(&self.student, &values),
            scaler: self.scaler,
        }
    }

    /// Values of a tensor by its position in [`TrainingState::to_data`].
    pub fn read(&self, part: StatePart, index: usize) -> Option<TensorView<'_>> {
        let has = |store: &'_ Store| index < store.entries().len();
        match part {
            StatePart::Student if has(&self.student) => Some(self.student.view(index)),
            StatePart::Teacher if has(&self.teacher) => Some(self.teacher.view(index)),
            StatePart::Student | StatePart::Teacher => None,
            StatePart::Loss => self.centers.get(index).map(|(_, values)| TensorView::F32(values)),
            StatePart::Slots => self.optimizer.slots(&self.student).nth(index).map(|(_, _, moment)| TensorView::F32(moment)),
        }
    }

    /// Replaces everything. A loss scaler is taken over where this run has one, and starts anew where the data has none.
    ///
    /// # Errors
    /// When a name, a shape or a moment does not fit; then nothing is changed.
    pub fn load(&mut self, spec: &TrainerSpec, data: TrainerState) -> Result<()> {
        self.student.check(&data.student, false)?;
        self.teacher.check(&data.teacher, false)?;
        let optimizer = Optimizer::from_state(spec.optimizer, &self.student, data.optimizer)?;
        let mut centers = self.centers.clone();
        for (name, values) in &mut centers {
            match data.loss.iter().find(|t| t.name == *name).map(|t| &t.values) {
                Some(TensorValues::F32(v)) if v.len() == values.len() => values.clone_from(v),
                Some(_) => return Err(Error::State(format!("`{name}` must hold {} floats", values.len()))),
                None => return Err(Error::State(format!("the state has no `{name}`"))),
            }
        }
        if let Some(extra) = data.loss.iter().find(|t| centers.iter().all(|(name, _)| *name != t.name)) {
            return Err(Error::State(format!("the state has `{}`, which this run's loss does not use", extra.name)));
        }
        let scaler = data.scaler.unwrap_or_default();
        if self.scaler.is_some() {
            scaler.check()?;
        }
        self.scaler = self.scaler.map(|_| scaler);
        self.student.load(data.student, false)?;
        self.teacher.load(data.teacher, false)?;
        (self.optimizer, self.centers) = (optimizer, centers);
        Ok(())
    }
}
