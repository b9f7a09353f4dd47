//! Every target's step computes what the graph means: the same figures and gradients as the training
//! API's graph in the reference interpreter, whatever was expanded, fused or moved to the device.

use super::*;
use crate::ir::memory::peak;
use crate::ir::{Array, Bindings, Dim, Symbol, interpret};
use crate::lower::ort_training;
use crate::model::Objective;
use crate::model::config::{Activation, ModelConfig};
use ndarray::IxDyn;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

fn config(activation_fn: Activation, normalize_before: bool) -> ModelConfig {
    ModelConfig {
        encoder_layers: 2,
        encoder_embed_dim: 64,
        encoder_ffn_dim: 64,
        encoder_attention_heads: 2,
        activation_fn,
        normalize_before,
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
        attention_dropout: 0.1,
        activation_dropout: 0.1,
    }
}

/// Operators of every model for `provider` that its list of kernels lacks.
fn uncovered(provider: Provider, precision: Precision) -> Vec<OperatorUse> {
    let mut found = Vec::new();
    let variants = Activation::ALL
        .map(|a| [(a, false, Objective::Mpnet), (a, true, Objective::Mpnet)])
        .concat();
    let objectives = Objective::ALL.map(|o| (Activation::Gelu, false, o));
    for (activation, normalize_before, objective) in [&variants[..], &objectives].concat() {
        let options = Options {
            optimizer: AdamW {
                beta1: 0.9,
                beta2: 0.98,
                epsilon: 1e-6,
                weight_decay: 0.01,
                clip_grad_norm: 1.0,
            },
            provider,
            precision,
            fused_attention: true,
            own_kernels: true,
            gradient_checkpointing: false,
            ranks: 1,
            shards: 1,
            expose: true,
        };
        let config = ModelConfig {
            objective,
            ..config(activation, normalize_before)
        };
        let artifacts = compile(&config, &options).unwrap();
        let uses = artifacts.operators.into_keys();
        found.extend(uses.filter(|used| !coverage::covers(provider, used)));
    }
    found
}

#[test]
fn directml_has_a_kernel_for_every_node() {
    for precision in [Precision::F32, Precision::F16] {
        assert_eq!(uncovered(Provider::DirectMl, precision), []);
    }
}

#[test]
fn cuda_has_a_kernel_for_every_node_in_every_precision() {
    for precision in [Precision::F32, Precision::BF16, Precision::F16] {
        assert_eq!(uncovered(Provider::Cuda, precision), []);
    }
}

#[test]
fn cpu_and_openvino_have_a_kernel_for_every_node() {
    for provider in [Provider::Cpu, Provider::OpenVino] {
        assert_eq!(uncovered(provider, Precision::F32), []);
    }
}

#[test]
fn webgpu_lacks_64_bit_integers_moves_of_other_types_and_one_loss() {
    let found = uncovered(Provider::WebGpu, Precision::F32);
    assert!(found.iter().any(|used| used.op_type == "LogSoftmax"));
    for used in found {
        let moves = matches!(used.op_type.as_str(), "Reshape" | "Slice" | "Transpose");
        let loss = used.op_type == "LogSoftmax" && used.dtype == DType::F32;
        let explained = match used.dtype {
            DType::I64 => true,
            DType::U32 | DType::Bool => moves,
            DType::F32 | DType::F16 | DType::BF16 | DType::U8 => loss,
        };
        assert!(explained, "{used:?}");
    }
}

#[test]
fn migraphx_lacks_only_sizes_that_are_not_constant() {
    for precision in [Precision::F32, Precision::BF16, Precision::F16] {
        let found = uncovered(Provider::MigraphX, precision);
        assert!(!found.is_empty());
        assert!(found.iter().all(|used| used.open_sizes), "{found:?}");
    }
}

/// Tokens of a row.
const LENGTH: usize = 9;
const SIZES: Bindings = Bindings::new([
    (Symbol::BATCH, 2),
    (Symbol::LENGTH, LENGTH),
    (Symbol::PREDICTED, 2),
]);

fn adamw() -> AdamW {
    AdamW {
        beta1: 0.9,
        beta2: 0.98,
        epsilon: 1e-6,
        weight_decay: 0.01,
        clip_grad_norm: 1.0,
    }
}

fn options(provider: Provider, precision: Precision) -> Options {
    Options {
        optimizer: adamw(),
        provider,
        precision,
        fused_attention: true,
        own_kernels: true,
        gradient_checkpointing: false,
        ranks: 1,
        shards: 1,
        expose: true,
    }
}

fn sizes(shape: &[Dim]) -> Vec<usize> {
    mpnet_plan::shape(shape, &SIZES).unwrap()
}

/// Values for every input and parameter of `graph`, the same for the same name.
fn feeds(graph: &Graph) -> HashMap<String, Array> {
    let all = graph.inputs().iter().chain(graph.parameters());
    all.map(|&value| {
        let name = graph.label(value);
        let seed = name
            .bytes()
            .fold(7u64, |h, b| h.wrapping_mul(31) + u64::from(b));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ty = graph.ty(value);
        let shape = sizes(&ty.shape);
        let len: usize = shape.iter().product();
        let width = shape.get(1).copied().unwrap_or(1); // of the batch's inputs
        let values: Vec<f64> = (0..len)
            .map(|i| match (name.as_str(), ty.dtype) {
                (n, _) if n.starts_with("gradient.") || n.ends_with(".buffer") => 0.0,
                ("lazy_reset_grad", _) => 1.0,
                ("loss_scale", _) => 0.25,
                // The second row ends in padding.
                ("attention_mask", _) => f64::from(i / width == 0 || i % width != 6),
                ("positions", _) => (i % width % LENGTH) as f64,
                ("input_ids" | "targets", _) => f64::from(rng.random_range(5..500)),
                (_, DType::U32) => f64::from(rng.random::<u32>() | 1),
                (_, DType::U8) => f64::from(rng.random_range(0..10) != 0),
                (_, DType::I64 | DType::Bool) => 0.0,
                (_, DType::F32 | DType::BF16 | DType::F16) => rng.random_range(-0.3..0.3),
            })
            .collect();
        let array = Array::from_shape_vec(IxDyn(&shape), values);
        (name, array.expect("as many values as the shape has"))
    })
    .collect()
}

fn run(graph: &Graph, feeds: &HashMap<String, Array>) -> HashMap<String, Array> {
    let values = interpret(graph, &SIZES, feeds).unwrap();
    let names = graph.outputs().iter().map(|(name, _)| name.clone());
    names.zip(values).collect()
}

/// Compares the figures and the gradients of two steps.
fn assert_same(found: &HashMap<String, Array>, expected: &HashMap<String, Array>, what: &str) {
    let mut compared = 0;
    for (name, expected) in expected {
        if !(name.starts_with("grad.") || ["loss", "loss_sum", "correct"].contains(&&name[..])) {
            continue;
        }
        let largest = expected.fold(1e-12_f64, |m, x| m.max(x.abs()));
        let difference = (&found[name] - expected).fold(0.0_f64, |m, x| m.max(x.abs()));
        assert!(
            difference <= 1e-6 * largest,
            "{what}: {name} is off by {difference}"
        );
        compared += 1;
    }
    assert!(compared > 30, "{what}: only {compared} outputs");
}

/// Whether attention is one operator.
fn is_fused(graph: &Graph) -> bool {
    let fused = |n: &crate::ops::Node| matches!(n.op, Op::TwoStreamAttention(_));
    graph.nodes().iter().any(fused)
}

#[test]
fn every_target_and_precision_computes_the_same_gradients() {
    for (activation, pre, objective) in [
        (Activation::Gelu, false, Objective::Mpnet),
        (Activation::Relu, true, Objective::Mpnet),
        (Activation::GeluAccurate, false, Objective::Mpnet),
        (Activation::Gelu, false, Objective::Plm),
        (Activation::Gelu, false, Objective::Mlm),
        (Activation::Gelu, true, Objective::MpnetMlm),
    ] {
        let mut config = ModelConfig {
            objective,
            ..config(activation, pre)
        };
        (
            config.dropout,
            config.attention_dropout,
            config.activation_dropout,
        ) = (0.0, 0.0, 0.0);
        let (reference, _, _) = ort_training::training_graph(&config, true, Provider::Cpu).unwrap();
        let expected = run(&reference, &feeds(&reference));
        for &provider in Provider::ALL {
            for precision in [Precision::F32, Precision::BF16, Precision::F16] {
                let options = Options {
                    ranks: 1 + usize::from(pre),
                    ..options(provider, precision)
                };
                let step = step_graph(&config, &options).unwrap();
                let found = run(&step.graph, &feeds(&step.graph));
                assert_eq!(is_fused(&step.graph), attends(provider, &config, precision));
                let what = format!(
                    "{objective:?} on {provider} in {} with {activation:?}",
                    precision.name()
                );
                assert_same(&found, &expected, &what);
            }
        }
    }
}

/// The masks that the device computes are those of the formula, and dropout with them is the
/// training API's dropout with the same masks.
#[test]
fn dropout_on_the_device_is_dropout_with_the_masks_of_its_factors() {
    for objective in Objective::ALL {
        let config = ModelConfig {
            objective,
            ..config(Activation::Gelu, false)
        };
        // With attention in ordinary operators, and as one.
        for precision in [Precision::F32, Precision::BF16] {
            check_device_dropout(&config, precision);
        }
    }
}

fn check_device_dropout(config: &ModelConfig, precision: Precision) {
    let step = step_graph(config, &options(Provider::Cuda, precision)).unwrap();
    let fused = attends(Provider::Cuda, config, precision);
    assert_eq!(is_fused(&step.graph), fused);
    let device = feeds(&step.graph);
    let (reference, _, dropout) =
        ort_training::training_graph(config, true, Provider::Cpu).unwrap();
    let Randomness::Masks(sites) = dropout else {
        panic!("the CPU takes masks");
    };
    let mut masked = feeds(&reference);
    let limit = (f64::from(config.dropout) * 2f64.powi(32)).round() as u32;
    let (mut kept, mut all) = (0.0, 0.0);
    for (index, site) in sites.iter().enumerate() {
        let shape = sizes(&site.shape);
        let factor = |name: &str, at: &[usize]| device[name][IxDyn(at)] as u32;
        let mask = Array::from_shape_fn(IxDyn(&shape), |at| {
            let own = factor("dropout.sites", &[index]);
            let hash = match ndarray::Dimension::slice(&at) {
                &[row, batch, column] => own
                    .wrapping_mul(factor("dropout.rows", &[row, batch, 0]))
                    .wrapping_mul(factor("dropout.columns", &[column])),
                &[batch, head, query, key] => own
                    .wrapping_mul(factor("dropout.heads", &[batch, head, 0, 0]))
                    .wrapping_mul(factor("dropout.queries", &[query, 0]))
                    .wrapping_mul(factor("dropout.keys", &[key])),
                other => panic!("a site with {} dimensions", other.len()),
            };
            f64::from(hash >= limit)
        });
        kept += mask.sum();
        all += mask.len() as f64;
        masked.insert(site.name.clone(), mask);
    }
    assert!((kept / all - 0.9).abs() < 0.02, "{}", kept / all);
    let found = run(&step.graph, &device);
    assert_same(&found, &run(&reference, &masked), "dropout on the device");
}

/// Over many draws: every element is dropped as often as it should be, and any two of them, in one
/// row, in one column or in two sites, as often together as independent ones.
#[test]
fn masks_of_factors_are_uniform_and_pairwise_independent() {
    let (ratio, draws) = (0.1, 200_000);
    let limit = (ratio * 2f64.powi(32)) as u32;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut odd = || rng.random::<u32>() | 1;
    let mut counts = [[0u32; 6]; 6];
    for _ in 0..draws {
        let (rows, columns, sites) = ([odd(), odd()], [odd(), odd()], [odd(), odd()]);
        let dropped = |s: usize, r: usize, c: usize| {
            sites[s].wrapping_mul(rows[r]).wrapping_mul(columns[c]) < limit
        };
        let elements = [
            dropped(0, 0, 0),
            dropped(0, 0, 1),
            dropped(0, 1, 0),
            dropped(0, 1, 1),
            dropped(1, 0, 0),
            dropped(1, 1, 1),
        ];
        for (i, a) in elements.iter().enumerate() {
            for (j, b) in elements.iter().enumerate() {
                counts[i][j] += u32::from(*a && *b);
            }
        }
    }
    for (i, row) in counts.iter().enumerate() {
        for (j, &count) in row.iter().enumerate() {
            let p: f64 = if i == j { ratio } else { ratio * ratio };
            let n = f64::from(draws);
            let deviations = (f64::from(count) - n * p) / (n * p * (1.0 - p)).sqrt();
            assert!(
                deviations.abs() < 4.5,
                "elements {i} and {j}: {deviations} standard deviations"
            );
        }
    }
}

/// One update of the segments against AdamW spelled out for single numbers.
#[test]
fn the_optimizer_clips_decays_and_corrects_as_pytorch_does() {
    let segments = [layout::segment(0, 3, true), layout::segment(1, 3, false)];
    let (lr, update, a) = (0.01_f64, 3, adamw());
    let (b1, b2) = (f64::from(a.beta1), f64::from(a.beta2));
    let corrections = (1.0 - b1.powi(update), 1.0 - b2.powi(update));
    for overflow in [0.0, f64::INFINITY, f64::NAN] {
        let graph = optimizer::optimizer_graph(&a, &segments, 1, false).unwrap();
        let mut feeds: HashMap<String, Array> = [
            (names::STEP_SIZE, lr / corrections.0),
            (names::DECAY, 1.0 - lr * f64::from(a.weight_decay)),
            (names::SECOND_CORRECTION, 1.0 / corrections.1.sqrt()),
            (names::GRADIENT_SCALE, 0.5),
        ]
        .map(|(name, value)| (name.to_owned(), ndarray::arr0(value).into_dyn()))
        .into();
        let vector = |values: [f64; 3]| ndarray::arr1(&values).into_dyn();
        for segment in &segments {
            for (link, values) in [
                (&segment.parameters, [1.0, -2.0, 0.5]),
                (&segment.gradients, [3.0, -4.0, overflow]),
                (&segment.first_moments, [0.1, 0.2, 0.0]),
                (&segment.second_moments, [0.01, 0.02, 0.0]),
            ] {
                feeds.insert(link.input.clone(), vector(values));
            }
        }
        let found = run(&graph, &feeds);
        if overflow != 0.0 {
            for s in &segments {
                for link in [&s.parameters, &s.first_moments, &s.second_moments] {
                    let (new, old) = (&found[&link.output], &feeds[&link.input]);
                    assert_eq!(new, old, "an overflow is skipped");
                }
            }
            continue;
        }
        let norm = 0.5 * (2.0 * 25.0_f64).sqrt();
        assert!((found[names::GRADIENT_NORM].sum() - norm).abs() < 1e-9);
        let clip = 0.5 * (1.0 / (norm + 1e-6)).min(1.0);
        for segment in &segments {
            let value = |link: &Link, i: usize| feeds[&link.input][[i]];
            for i in 0..3 {
                let g = value(&segment.gradients, i) * clip;
                let m = b1 * value(&segment.first_moments, i) + (1.0 - b1) * g;
                let v = b2 * value(&segment.second_moments, i) + (1.0 - b2) * g * g;
                let decay = if segment.decays {
                    lr * f64::from(a.weight_decay)
                } else {
                    0.0
                };
                let p = value(&segment.parameters, i) * (1.0 - decay)
                    - lr * (m / corrections.0)
                        / (v.sqrt() / corrections.1.sqrt() + f64::from(a.epsilon));
                let new = |link: &Link| found[&link.output][[i]];
                assert!((new(&segment.parameters) - p).abs() < 1e-9);
                assert!((new(&segment.first_moments) - m).abs() < 1e-9);
                assert!((new(&segment.second_moments) - v).abs() < 1e-9);
            }
        }
    }
}

/// Two ranks with a half each do what one does with the whole.
#[test]
fn a_shared_optimizer_makes_the_same_update() {
    let segments = [layout::segment(0, 4, true), layout::segment(1, 2, false)];
    let mut value = 0.0_f64;
    let mut next = || {
        value += 1.0;
        (value * 0.7).sin()
    };
    let mut feeds: HashMap<String, Array> = [
        (names::STEP_SIZE, 0.02),
        (names::DECAY, 0.999),
        (names::SECOND_CORRECTION, 1.5),
        (names::GRADIENT_SCALE, 0.5),
    ]
    .map(|(name, value)| (name.to_owned(), ndarray::arr0(value).into_dyn()))
    .into();
    for s in &segments {
        for link in [
            &s.parameters,
            &s.gradients,
            &s.first_moments,
            &s.second_moments,
        ] {
            let values: Vec<f64> = (0..s.len).map(|_| next()).collect();
            feeds.insert(link.input.clone(), ndarray::arr1(&values).into_dyn());
        }
        let squares = feeds.get_mut(&s.second_moments.input).unwrap();
        squares.mapv_inplace(f64::abs);
    }
    let whole = run(
        &optimizer::optimizer_graph(&adamw(), &segments, 1, false).unwrap(),
        &feeds,
    );
    let parts = [0, 1].map(|rank| -> HashMap<String, Array> {
        let part = |array: &Array| {
            let half = array.len() / 2;
            let range = ndarray::Slice::from(rank * half..(rank + 1) * half);
            array.slice_axis(ndarray::Axis(0), range).to_owned()
        };
        let parts = feeds.iter().map(|(name, array)| match array.ndim() {
            0 => (name.clone(), array.clone()),
            _ => (name.clone(), part(array)),
        });
        parts.collect()
    });
    let squares = optimizer::squares_graph(&segments, 2).unwrap();
    let sum: f64 = parts
        .iter()
        .map(|part| run(&squares, part)[names::SQUARES].sum())
        .sum();
    let shared = optimizer::optimizer_graph(&adamw(), &segments, 2, true).unwrap();
    let updated = parts.map(|mut part| {
        part.insert(names::SQUARES.to_owned(), ndarray::arr0(sum).into_dyn());
        run(&shared, &part)
    });
    for (name, expected) in &whole {
        let found: Vec<f64> = match expected.ndim() {
            0 => vec![updated[1][name].sum()],
            _ => updated
                .iter()
                .flat_map(|u| u[name].iter().copied())
                .collect(),
        };
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-12,
                "{name}: {found} {expected}"
            );
        }
    }
}

/// Recomputed layers give the same numbers, dropout and all.
#[test]
fn checkpointing_changes_no_gradient() {
    for (pre, objective) in [
        (false, Objective::Mpnet),
        (true, Objective::Mpnet),
        (false, Objective::Plm),
    ] {
        let config = ModelConfig {
            objective,
            encoder_layers: 3,
            ..config(Activation::Gelu, pre)
        };
        for (target, precision) in [
            (Provider::Cpu, Precision::F32),
            (Provider::Cuda, Precision::BF16),
            (Provider::WebGpu, Precision::F32),
        ] {
            let kept = options(target, precision);
            let again = Options {
                gradient_checkpointing: true,
                ..kept
            };
            let kept = step_graph(&config, &kept).unwrap().graph;
            let again = step_graph(&config, &again).unwrap().graph;
            assert!(again.nodes().len() > kept.nodes().len());
            let feeds = feeds(&kept);
            let (found, expected) = (run(&again, &feeds), run(&kept, &feeds));
            assert_eq!(found, expected, "{objective:?} on {target}");
        }
    }
}

/// MPNet-base at 64 × 512: the layers' activations are gone, one layer's and the loss's are left.
#[test]
fn checkpointing_keeps_less() {
    let config = ModelConfig {
        encoder_layers: 12,
        encoder_embed_dim: 768,
        encoder_ffn_dim: 3072,
        encoder_attention_heads: 12,
        max_positions: 512,
        vocab_size: 30_527,
        padded_vocab_size: 30_528,
        mask_token_id: 30_526,
        ..config(Activation::Gelu, false)
    };
    let large = Bindings::new([
        (Symbol::BATCH, 64),
        (Symbol::LENGTH, 512),
        (Symbol::PREDICTED, 77),
    ]);
    for (target, precision) in [
        (Provider::Cuda, Precision::BF16),
        (Provider::Cuda, Precision::F32),
        (Provider::Cpu, Precision::F32),
    ] {
        let peak = |gradient_checkpointing| {
            let options = Options {
                gradient_checkpointing,
                ..options(target, precision)
            };
            let graph = step_graph(&config, &options).unwrap().graph;
            peak(&graph, &large) as f64
        };
        let (again, kept) = (peak(true), peak(false));
        assert!(again < 0.4 * kept, "{again} of {kept} on {target}");
    }
}

/// ONNX Runtime would hold a result that no node reads until the run is over.
#[test]
fn no_large_result_of_a_kernel_of_ours_is_left_unread() {
    use crate::onnx::conformance::graph_of;
    use std::collections::HashSet;
    let config = config(Activation::Gelu, false);
    for gradient_checkpointing in [false, true] {
        let options = Options {
            gradient_checkpointing,
            ..options(Provider::Cuda, Precision::BF16)
        };
        let plan = compile(&config, &options).unwrap().plan;
        for bytes in [plan.models.step, plan.models.evaluation] {
            let graph = graph_of(&bytes);
            let read = graph.node.iter().flat_map(|node| &node.input);
            let read = read.chain(graph.output.iter().map(|output| &output.name));
            let read: HashSet<&String> = read.collect();
            let kernels = ["ResidualNorm", "BiasGeluGrad"];
            let ours = graph
                .node
                .iter()
                .filter(|n| kernels.contains(&n.op_type.as_str()));
            let mut outputs = ours.flat_map(|node| &node.output);
            let unread = outputs.find(|name| !name.is_empty() && !read.contains(name));
            assert_eq!(unread, None, "checkpointing: {gradient_checkpointing}");
        }
    }
}

/// What a provider's table promises is what models are made of: a row that is lost would leave its operator to be
/// expanded, and every other test would pass.
#[test]
fn every_kernel_of_the_tables_is_in_a_model() {
    for (provider, count) in [(Provider::Cpu, 13), (Provider::Cuda, 22)] {
        let mut used = std::collections::BTreeSet::new();
        for activation in [Activation::Gelu, Activation::GeluAccurate] {
            for (own_kernels, fused_attention) in [(true, true), (false, true)] {
                for (pre, &precision) in Precision::ALL.iter().enumerate() {
                    let config = config(activation, pre == 0);
                    let options = Options {
                        own_kernels,
                        fused_attention,
                        ranks: 2,
                        ..options(provider, precision)
                    };
                    let operators = compile(&config, &options).unwrap().operators;
                    let ours = operators
                        .into_keys()
                        .filter(|used| used.domain == mpnet_plan::OWN_DOMAIN);
                    used.extend(ours.map(|used| used.op_type));
                }
            }
        }
        let promised = provider.registrations().into_iter();
        let promised = promised
            .map(|(kernel, _)| kernel.op_type().to_owned())
            .collect();
        assert_eq!(used, promised, "{provider}");
        assert_eq!(used.len(), count, "{provider}");
    }
}

/// Passes are told apart by their names, on every provider and in every precision.
#[test]
fn no_pass_of_a_pipeline_has_the_name_of_another() {
    for &provider in Provider::ALL {
        for &precision in Precision::ALL {
            let options = options(provider, precision);
            let config = config(Activation::Gelu, false);
            let step = step_passes(&config, &options).unwrap();
            for pipeline in [step, eval_passes(options)] {
                let names: Vec<&str> = pipeline.names().collect();
                let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
                assert_eq!(unique.len(), names.len(), "{names:?}");
            }
        }
    }
}

#[test]
fn conditions_decide_which_passes_are_in_a_step() {
    let config = config(Activation::Gelu, false);
    let passes = |provider, precision| {
        let step = step_passes(&config, &options(provider, precision)).unwrap();
        step.names().map(String::from).collect::<Vec<_>>()
    };
    let cuda = passes(Provider::Cuda, Precision::BF16);
    let cpu = passes(Provider::Cpu, Precision::F32);
    for name in ["fuse/residual_norm", "device_dropout", "lower_precision"] {
        let name = &name.to_owned();
        assert!(cuda.contains(name) && !cpu.contains(name), "{name}");
    }
    assert_eq!(cpu[0], "differentiate");
}
