//! 16 bits against f32 on the same device: the loss and every gradient of one synthetic batch.

use super::{Report, exposed_gradients};
use crate::data::MaskKey;
use crate::data::synthetic::synthetic_batch;
use crate::train::engine::start;
use crate::train::execution::EngineKind;
use crate::train::micro_batch::{MicroBatch, Outputs};
use crate::train::placement::Placement;
use anyhow::{Context, Result};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::task::LOSS_SUM;
use mpnet_graphs::optimizer::adamw::AdamW;
use mpnet_plan::Precision;
use mpnet_runtime::engine::NamedArray;
use mpnet_runtime::library::Loaded;

/// Relative difference of the loss that passes.
const LOSS: f64 = 1e-2;
/// Relative L2 distance of a gradient that passes.
const GRADIENT: f64 = 3e-2;

/// Runs one step of `config` without dropout from `parameters`, on `rows` × `length` random tokens, in f32
/// and as `placement` says, and compares the loss, every gradient and all gradients as one vector.
///
/// # Errors
/// Where the build or the provider can't run either.
pub fn against_f32(
    loaded: &Loaded,
    config: &ModelConfig,
    parameters: &[NamedArray],
    (rows, length): (usize, usize),
    placement: &Placement,
) -> Result<Report> {
    let config = ModelConfig {
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
        ..config.clone()
    };
    let step = |precision| -> Result<(f64, Outputs)> {
        let placement = Placement {
            engine: EngineKind::Session,
            precision,
            ..*placement
        };
        let options = Options {
            optimizer: AdamW::default(),
            gradient_checkpointing: placement.gradient_checkpointing,
            expose: true,
        };
        let context = || format!("one step in {}", precision.name());
        let mut running =
            start(loaded, &config, &options, parameters, &placement).with_context(context)?;
        let batch = synthetic_batch(&config, &vec![length; rows], 0);
        // Without dropout nothing is drawn.
        let outputs = running
            .train_step(&batch, batch.items(), MaskKey::default())
            .with_context(context)?;
        Ok((outputs.figure(LOSS_SUM)?, outputs))
    };
    let precision = placement.precision;
    let (expected_loss, expected) = step(Precision::F32)?;
    let (loss, found) = step(precision)?;
    let mut report = Report::new(&format!(
        "{} against fp32 on {}, {rows} × {length} tokens",
        precision.name(),
        placement.provider
    ));
    report.relative("loss_sum", &[loss], &[expected_loss], LOSS);
    let found = exposed_gradients(&found, parameters)?;
    let expected = exposed_gradients(&expected, parameters)?;
    let (mut all_found, mut all_expected) = (Vec::new(), Vec::new());
    for (name, expected) in &expected {
        let mut found = found.get(name).cloned().unwrap_or_default();
        let mut expected: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
        if name.ends_with("in_proj_bias") && found.len() == expected.len() {
            // Softmax ignores a shift of its keys: their bias has no gradient but rounding noise.
            let third = expected.len() / 3;
            found.drain(third..2 * third);
            expected.drain(third..2 * third);
        }
        report.distance(name, &found, &expected, GRADIENT);
        all_found.extend(found);
        all_expected.extend(expected);
    }
    report.distance("all gradients", &all_found, &all_expected, GRADIENT);
    Ok(report)
}
