//! Golden cases: a small model trained for a few updates by the reference implementation, run again
//! here and compared quantity by quantity.

mod case;
mod precision;
mod report;

pub use case::{Case, CaseError};
pub use precision::against_f32;
pub use report::{Report, Row};

use crate::data::MaskKey;
use crate::data::collator::Batch;
use crate::train::engine::{Running, start};
use crate::train::micro_batch::{MicroBatch, Outputs};
use crate::train::placement::Placement;
use anyhow::Result;
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::task::{CORRECT, LOGITS, LOSS_SUM};
use mpnet_plan::{Precision, names};
use mpnet_runtime::engine::NamedArray;
use mpnet_runtime::library::Loaded;
use std::collections::BTreeMap;

/// Largest differences that pass.
struct Tolerances {
    /// Of the largest logit.
    logits: f64,
    /// Relative.
    loss_sum: f64,
    /// Relative, in L2.
    gradient: f64,
    /// Relative.
    losses: f64,
    /// Relative.
    norms: f64,
    /// Absolute.
    accuracies: f64,
    /// Absolute.
    rates: f64,
    /// Of the length of the parameter's own change, in L2.
    changes: f64,
}

impl Tolerances {
    fn of(precision: Precision) -> Tolerances {
        match precision {
            Precision::F32 => Tolerances {
                logits: 1e-4,
                loss_sum: 1e-5,
                gradient: 1e-4,
                losses: 1e-4,
                norms: 1e-4,
                accuracies: 1e-6,
                rates: 1e-6,
                changes: 1e-2,
            },
            // A nearly even choice between two tokens may fall the other way, and Adam makes the
            // noise of tiny gradients as long as its step.
            Precision::BF16 | Precision::F16 => Tolerances {
                logits: 3e-2,
                loss_sum: 1e-2,
                gradient: 3e-2,
                losses: 1e-2,
                norms: 3e-2,
                accuracies: 5e-2,
                rates: 1e-6,
                changes: 2e-1,
            },
        }
    }
}

/// Runs `case` on `loaded` as `placement` says and compares every quantity of it.
///
/// # Errors
/// Where the case cannot be run at all; differences are rows of the report.
pub fn verify(loaded: &Loaded, case: &Case, placement: &Placement) -> Result<Report> {
    let options = Options {
        optimizer: case.train.adamw(),
        gradient_checkpointing: placement.gradient_checkpointing,
        expose: true,
    };
    let mut running = start(loaded, &case.model, &options, &case.weights, placement)?;
    let tolerance = Tolerances::of(placement.precision);
    let mut report = Report::new(&case.name);

    let first = case.batch(0)?;
    let eval = running.eval_step(&first)?;
    report.largest(
        "logits",
        eval.floats(LOGITS)?,
        &case.expected("logits")?,
        tolerance.logits,
    );
    let loss = [eval.figure(LOSS_SUM)?];
    report.relative(
        "loss_sum",
        &loss,
        &case.expected("loss_sum")?,
        tolerance.loss_sum,
    );

    let mut series = Series::default();
    for update in 0..case.train.updates {
        let gradients = run_update(&mut running, case, update, &mut series)?;
        if update == 0 {
            for parameter in &case.weights {
                let name = names::exposed_gradient(&parameter.name);
                let expected = case.expected(&name)?;
                report.distance(&name, &gradients[&name], &expected, tolerance.gradient);
            }
        }
    }
    for (name, values, tolerance) in [
        ("losses", &series.losses, tolerance.losses),
        ("gnorms", &series.gnorms, tolerance.norms),
    ] {
        report.relative(name, values, &case.expected(name)?, tolerance);
    }
    for (name, values, tolerance) in [
        ("accuracies", &series.accuracies, tolerance.accuracies),
        ("lrs", &series.lrs, tolerance.rates),
    ] {
        report.absolute(name, values, &case.expected(name)?, tolerance);
    }
    for start in &case.weights {
        let name = format!("final.{}", start.name);
        let expected = case.expected(&name)?;
        let found = running.engine.parameter(&start.name)?;
        // Softmax ignores a shift of its keys: their bias has no gradient but rounding noise, which
        // Adam amplifies.
        let ignored = if start.name.ends_with("in_proj_bias") {
            let third = start.values.len() / 3;
            third..2 * third
        } else {
            0..0
        };
        report.change(
            &name,
            &start.values,
            &found.values,
            &expected,
            ignored,
            tolerance.changes,
        );
    }
    let eval = running.eval_step(&first)?;
    let loss = [eval.figure(LOSS_SUM)?];
    report.relative(
        "eval_loss_sum",
        &loss,
        &case.expected("eval_loss_sum")?,
        tolerance.losses,
    );
    Ok(report)
}

/// What is compared once for every update.
#[derive(Default)]
struct Series {
    losses: Vec<f64>,
    accuracies: Vec<f64>,
    gnorms: Vec<f64>,
    lrs: Vec<f64>,
}

/// One update; returns its gradients before clipping.
fn run_update(
    running: &mut Running,
    case: &Case,
    update: usize,
    series: &mut Series,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let freq = case.train.update_freq;
    let batches = (update * freq..(update + 1) * freq)
        .map(|i| case.batch(i))
        .collect::<Result<Vec<Batch>>>()?;
    let predicted: usize = batches.iter().map(MicroBatch::items).sum();
    let (mut loss, mut correct, mut gradients) = (0.0, 0.0, BTreeMap::new());
    for batch in &batches {
        // Cases have no dropout: nothing is drawn.
        let outputs = running.train_step(batch, predicted, MaskKey::default())?;
        loss += outputs.figure(LOSS_SUM)?;
        correct += outputs.figure(CORRECT)?;
        // Each holds the sum over the micro-batches so far: the last one's is the update's.
        gradients = exposed_gradients(&outputs, &case.weights)?;
    }
    let lr = case.train.schedule().lr(update as u64 + 1);
    let norm = running.engine.optimizer_step(lr as f32)?;
    let predicted = predicted as f64;
    series
        .losses
        .push(loss / predicted / std::f64::consts::LN_2);
    series.accuracies.push(correct / predicted);
    series.gnorms.push(f64::from(norm));
    series.lrs.push(lr);
    Ok(gradients)
}

/// The gradients among a step's outputs, under the outputs' names.
fn exposed_gradients(
    outputs: &Outputs,
    parameters: &[NamedArray],
) -> Result<BTreeMap<String, Vec<f32>>> {
    let names = parameters.iter().map(|p| names::exposed_gradient(&p.name));
    names
        .map(|name| {
            let gradient = outputs.floats(&name)?.to_vec();
            Ok((name, gradient))
        })
        .collect()
}
