//! Compiled models are, byte for byte, those that `data/digests.txt` has the SHA-256 of: what changes the
//! compiler without meaning to change models must not change them.
//!
//! `MPNET_DIGESTS=write cargo test -p mpnet-graphs --test digests` writes the file anew, where a change of
//! the models is meant.

use mpnet_graphs::ir::GraphError;
use mpnet_graphs::lower::portable;
use mpnet_graphs::lower::{export, ort_training};
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::encoder::{Head, TextSizes, encoder};
use mpnet_graphs::model::pooling::{Pooling, PoolingStep, SentenceHead};
use mpnet_graphs::model::{AttentionForm, Objective};
use mpnet_graphs::onnx::export::ExportOptions;
use mpnet_plan::{AdamW, Precision, Provider};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/digests.txt");

const OPTIMIZER: AdamW = AdamW {
    beta1: 0.9,
    beta2: 0.98,
    epsilon: 1e-6,
    weight_decay: 0.01,
    clip_grad_norm: 1.0,
};

/// Two layers that every kernel takes.
fn config() -> ModelConfig {
    ModelConfig {
        encoder_layers: 2,
        encoder_embed_dim: 64,
        encoder_ffn_dim: 96,
        encoder_attention_heads: 2,
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: 16,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        vocab_size: 500,
        padded_vocab_size: 512,
        pad_token_id: 1,
        bos_token_id: 0,
        eos_token_id: 2,
        unk_token_id: 3,
        mask_token_id: 499,
        objective: Objective::Mpnet,
        dropout: 0.1,
        attention_dropout: 0.2,
        activation_dropout: 0.3,
    }
}

/// Every objective, every activation, and normalization before a layer.
fn models() -> Vec<(String, ModelConfig)> {
    let mut models = Vec::new();
    for objective in Objective::ALL {
        let model = ModelConfig {
            objective,
            ..config()
        };
        models.push((format!("{objective:?}").to_lowercase(), model));
    }
    for activation_fn in Activation::ALL {
        let model = ModelConfig {
            activation_fn,
            normalize_before: true,
            ..config()
        };
        models.push((format!("pre-{activation_fn:?}").to_lowercase(), model));
    }
    let no_dropout = ModelConfig {
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
        ..config()
    };
    models.push(("no-dropout".to_owned(), no_dropout));
    models
}

#[derive(Default)]
struct Digests(String);

impl Digests {
    fn add(&mut self, label: &str, files: &[&[u8]]) {
        let mut hash = Sha256::new();
        for bytes in files {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let digest = hash.finalize();
        let short: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        writeln!(self.0, "{short} {label}").expect("a string takes it");
    }

    fn session(
        &mut self,
        name: &str,
        config: &ModelConfig,
        (target, precision): (Provider, Precision),
        [fused_attention, own_kernels, expose]: [bool; 3],
    ) -> Result<(), GraphError> {
        let options = portable::Options {
            optimizer: OPTIMIZER,
            provider: target,
            precision,
            fused_attention,
            own_kernels,
            gradient_checkpointing: false,
            ranks: 1,
            shards: 1,
            expose,
        };
        let made = portable::compile(config, &options)?;
        let flag = |on, text| if on { text } else { "" };
        let label = format!(
            "{name} session {target} {}{}{}{}",
            precision.name(),
            flag(fused_attention, " fused"),
            flag(own_kernels, " own"),
            flag(expose, " exposed"),
        );
        let models = &made.plan.models;
        let sizes = [&made.plan.step_sizes, &made.plan.evaluation_sizes];
        let sizes: Vec<String> = sizes
            .into_iter()
            .flatten()
            .flat_map(|size| size.dims.iter().map(ToString::to_string))
            .collect();
        self.add(
            &label,
            &[
                &models.step,
                &models.evaluation,
                &models.optimizer,
                &models.clear,
                &models.copy,
                sizes.join(",").as_bytes(),
            ],
        );
        Ok(())
    }

    fn training(
        &mut self,
        name: &str,
        config: &ModelConfig,
        target: Provider,
        [fused_attention, expose]: [bool; 2],
    ) -> Result<(), GraphError> {
        let options = ort_training::Options {
            optimizer: OPTIMIZER,
            gradient_checkpointing: false,
            expose,
        };
        let (attention, form) = if fused_attention {
            (AttentionForm::Fused, " fused")
        } else {
            (AttentionForm::Expanded, "")
        };
        let made = ort_training::compile(config, &options, target, attention)?;
        let exposed = if expose { " exposed" } else { "" };
        self.add(
            &format!("{name} training {target}{form}{exposed}"),
            &[&made.training, &made.eval, &made.optimizer],
        );
        Ok(())
    }
}

fn digests() -> Result<String, GraphError> {
    let mut all = Digests::default();
    for (name, config) in models() {
        for place in [
            (Provider::Cpu, Precision::F32),
            (Provider::Cuda, Precision::BF16),
            (Provider::WebGpu, Precision::F16),
        ] {
            all.session(&name, &config, place, [true, true, false])?;
        }
        all.training(&name, &config, Provider::Cpu, [false, false])?;
    }
    all.training("mpnet", &config(), Provider::Cpu, [true, true])?;
    all.training("mpnet", &config(), Provider::Cuda, [false, false])?;
    for &target in Provider::ALL {
        for precision in [Precision::F32, Precision::BF16, Precision::F16] {
            all.session("mpnet", &config(), (target, precision), [true, true, false])?;
        }
    }
    // Without kernels of ours, and with further outputs.
    for target in [Provider::Cpu, Provider::Cuda] {
        for precision in [Precision::F32, Precision::BF16, Precision::F16] {
            for flags in [
                [false, false, false],
                [true, false, false],
                [false, true, false],
                [true, true, true],
            ] {
                all.session("mpnet", &config(), (target, precision), flags)?;
            }
        }
    }
    for head in [
        Head::None,
        Head::MaskedLm,
        Head::Sentence(SentenceHead {
            pooling: vec![Pooling::Mean],
            steps: vec![PoolingStep::Normalize],
        }),
    ] {
        for weights in [
            export::Weights::F32,
            export::Weights::F16,
            export::Weights::Int8,
            export::Weights::Int8Dynamic,
        ] {
            let options = ExportOptions {
                opset: 18,
                dims: ["batch", "sequence"],
                metadata: Vec::new(),
                outside: None,
                int32_inputs: false,
            };
            let sizes: Vec<(String, usize)> =
                mpnet_graphs::model::parameters::parameters(&config())
                    .into_iter()
                    .map(|p| (p.name.clone(), p.len()))
                    .collect();
            let mut values = |name: &str| {
                let found = sizes.iter().find(|(known, _)| known == name);
                let (_, len) = found.ok_or_else(|| format!("no parameter '{name}'"))?;
                Ok((0..*len).map(|i| (i % 7) as f32 - 3.0).collect())
            };
            let (mut model, mut outside) = (Vec::new(), Vec::new());
            export::lower(
                encoder(&config(), &head, &TextSizes::default())?,
                "encoder",
                weights,
                &options,
                &mut values,
                &mut model,
                &mut outside,
            )?;
            all.add(&format!("export {head:?} {weights:?}"), &[&model]);
        }
    }
    Ok(all.0)
}

#[test]
fn compiled_models_are_what_they_were() {
    let found = digests().expect("every model compiles");
    if std::env::var_os("MPNET_DIGESTS").is_some_and(|v| v == "write") {
        std::fs::write(FILE, &found).expect("the file can be written");
        return;
    }
    let expected = std::fs::read_to_string(FILE).expect("the file is there");
    let changed: Vec<&str> = found
        .lines()
        .filter(|line| !expected.lines().any(|known| known == *line))
        .collect();
    assert!(
        changed.is_empty(),
        "{} models changed: {changed:#?}",
        changed.len()
    );
    assert_eq!(
        found.lines().count(),
        expected.lines().count(),
        "models are missing"
    );
}
