//! Micro-batches as the named tensors that an engine takes, and what comes out of a step.

use crate::data::collator::Batch;
use crate::data::dropout::{MaskKey, fill_keep_mask};
use crate::data::rng::{Purpose, keyed};
use anyhow::{Result, bail};
use mpnet_graphs::model::pretraining::{ATTENTION_MASK, INPUT_IDS, POSITIONS, TARGETS};
use mpnet_plan::{Bindings, DropoutSite, Factor, Randomness, Symbol, Unbound, names};
use mpnet_runtime::engine::{Tensor, TensorData};
use rand::Rng;
use std::collections::BTreeMap;

/// One micro-batch of whatever a model is trained to do: the host's side of
/// [`Task`](mpnet_graphs::model::Task).
pub trait MicroBatch: Send {
    /// A size for each of the task's symbols.
    fn sizes(&self) -> Bindings;

    /// What training and evaluation both take.
    fn inputs(&self) -> Vec<Tensor>;

    /// How many the loss is a sum over: predicted tokens, for instance.
    fn items(&self) -> usize;

    /// Tokens that are not padding.
    fn tokens(&self) -> usize;

    /// Items that there would be if each row had its own share of them; 0 where rows don't share any.
    fn own_shares(&self) -> usize;

    /// What it takes from the other micro-batches of its update, and gives to them, if anything.
    fn gathers(&self) -> Option<Gathers> {
        None
    }
}

/// Rows of floats, such as embeddings, that every micro-batch of an update gives, and that each takes of all of them.
pub struct Gathers {
    /// What gives the same rows without those of the others.
    pub alone: Box<dyn MicroBatch>,
    /// The output that gives this micro-batch's rows.
    pub output: &'static str,
    /// The input that takes those of all.
    pub input: &'static str,
    /// Rows of all, and floats of a row.
    pub shape: [usize; 2],
    /// Where this micro-batch's rows stand among all.
    pub places: Vec<usize>,
}

impl MicroBatch for Batch {
    fn sizes(&self) -> Bindings {
        Bindings::new([
            (Symbol::BATCH, self.rows),
            (Symbol::LENGTH, self.length),
            (Symbol::PREDICTED, self.predicted),
        ])
    }

    fn inputs(&self) -> Vec<Tensor> {
        let indices = |name: &str, columns: usize, values: &[i64]| Tensor {
            name: name.to_owned(),
            shape: vec![self.rows, columns],
            data: TensorData::I64(values.to_vec()),
        };
        vec![
            indices(INPUT_IDS, self.width(), &self.input_ids),
            indices(POSITIONS, self.width(), &self.positions),
            indices(TARGETS, self.predicted, &self.targets),
            indices(ATTENTION_MASK, self.width(), &self.attention_mask),
        ]
    }

    fn items(&self) -> usize {
        self.predicted_tokens
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn own_shares(&self) -> usize {
        self.own_shares
    }
}

/// What a step or an evaluation gave, by name.
pub struct Outputs(BTreeMap<String, Tensor>);

impl From<Vec<Tensor>> for Outputs {
    fn from(tensors: Vec<Tensor>) -> Outputs {
        Outputs(tensors.into_iter().map(|t| (t.name.clone(), t)).collect())
    }
}

impl Outputs {
    /// The elements of an output of floats.
    ///
    /// # Errors
    /// Where there is no such output.
    pub fn floats(&self, name: &str) -> Result<&[f32]> {
        match self.0.get(name).map(|tensor| &tensor.data) {
            Some(TensorData::F32(values)) => Ok(values),
            Some(
                TensorData::I64(_) | TensorData::U8(_) | TensorData::U32(_) | TensorData::Bool(_),
            ) => bail!("output '{name}' is not float"),
            None => bail!("the graph has no output '{name}'"),
        }
    }

    /// A figure: the one element of an output of floats.
    ///
    /// # Errors
    /// Where there is no such output.
    pub fn figure(&self, name: &str) -> Result<f64> {
        match self.floats(name)? {
            [value] => Ok(f64::from(*value)),
            values => bail!(
                "output '{name}' has {} elements instead of one",
                values.len()
            ),
        }
    }
}

/// Everything but parameters, gradients and computed sizes that a training step takes. The loss is multiplied by
/// `scale`; `key` names the update and the micro-batch.
pub(super) fn training_inputs(
    batch: &dyn MicroBatch,
    scale: f32,
    randomness: &Randomness,
    key: MaskKey,
) -> Result<Vec<Tensor>, Unbound> {
    let sizes = batch.sizes();
    let mut inputs = batch.inputs();
    inputs.push(Tensor {
        name: names::LOSS_SCALE.to_owned(),
        shape: vec![1],
        data: TensorData::F32(vec![scale]),
    });
    inputs.extend(match randomness {
        Randomness::Masks(sites) => dropout_masks(sites, &sizes, key)?,
        Randomness::Factors(factors) => dropout_factors(factors, &sizes, key)?,
    });
    Ok(inputs)
}

/// Random odd factors, from which the device computes its masks.
fn dropout_factors(
    factors: &[Factor],
    sizes: &Bindings,
    key: MaskKey,
) -> Result<Vec<Tensor>, Unbound> {
    let mut rng = keyed(
        key.seed,
        Purpose::Dropout,
        key.update,
        key.micro_batch.into(),
    );
    factors
        .iter()
        .map(|factor| {
            let shape = mpnet_plan::shape(&factor.shape, sizes)?;
            let count = shape.iter().product();
            Ok(Tensor {
                name: factor.name.clone(),
                shape,
                data: TensorData::U32((0..count).map(|_| rng.next_u32() | 1).collect()),
            })
        })
        .collect()
}

/// The dropout masks of one micro-batch; `key` names the update and micro-batch, each site gets
/// its own stream.
fn dropout_masks(
    sites: &[DropoutSite],
    sizes: &Bindings,
    key: MaskKey,
) -> Result<Vec<Tensor>, Unbound> {
    sites
        .iter()
        .enumerate()
        .map(|(index, site)| {
            let shape = mpnet_plan::shape(&site.shape, sizes)?;
            let mut keep = vec![0; shape.iter().product()];
            let site_key = MaskKey {
                site: index as u32,
                ..key
            };
            fill_keep_mask(&mut keep, site.ratio, site_key);
            Ok(Tensor {
                name: site.name.clone(),
                shape,
                data: TensorData::U8(keep),
            })
        })
        .collect()
}
