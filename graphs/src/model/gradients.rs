//! The gradient of whole models against central differences of their loss, in f64: the compiled
//! training graph, every pass included, against the model as it is defined.

use super::AttentionForm;
use super::config::{Activation, ModelConfig};
use super::encoder::{Head, TextSizes, encoder};
use super::objective::Objective;
use super::pooling::Pooling;
use super::pretraining::ATTENTION_MASK;
use super::ranking::{CANDIDATES, Ranking};
use super::scored::{SCORES, Scored};
use super::sentences::{SentenceLoss, Sentences};
use super::task::Task;
use super::testing::{SIZES, batch, tiny};
use super::triplets::Triplets;
use crate::autodiff;
use crate::ir::testing::random_feeds;
use crate::ir::{Array, GraphError, interpret};
use crate::lower::ort_training::training_graph;
use crate::ops::Graph;
use crate::ops::Op;
use crate::passes;
use mpnet_plan::{Provider, Randomness, names};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

const STEP: f64 = 1e-5;
/// Largest difference, relative to the largest derivative of the same parameter.
const TOLERANCE: f64 = 1e-6;
/// Coordinates of each parameter that are tried.
const COORDINATES: usize = 4;

type Values = HashMap<String, Array>;

/// The outputs of `graph` by name.
fn outputs(graph: &Graph, feeds: &Values) -> Values {
    let values = interpret(graph, &SIZES, feeds).expect("outputs");
    let names = graph.outputs().iter().map(|(name, _)| name.clone());
    names.zip(values).collect()
}

/// The outputs `grad.<parameter>` by parameter.
fn gradient(outputs: &Values) -> Values {
    let named =
        |(name, g): (&String, &Array)| Some((name.strip_prefix("grad.")?.to_owned(), g.clone()));
    outputs.iter().filter_map(named).collect()
}

/// Compares `gradient`, by parameter, with central differences of `loss`.
fn compare(graph: &Graph, feeds: &Values, loss: impl Fn(&Values) -> f64, gradient: &Values) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for parameter in graph.parameters() {
        let name = graph.label(*parameter);
        let grad = &gradient[&name];
        assert_eq!(grad.shape(), feeds[&name].shape(), "{name}");
        let scale = grad.fold(0f64, |m, g| m.max(g.abs()));
        assert!(scale > 0.0, "{name} changes nothing");
        let count = COORDINATES.min(grad.len());
        for coordinate in sample(&mut rng, grad.len(), count) {
            let moved = |by: f64| {
                let mut feeds = feeds.clone();
                if let Some(x) = feeds
                    .get_mut(&name)
                    .and_then(|p| p.iter_mut().nth(coordinate))
                {
                    *x += by;
                }
                loss(&feeds)
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let found = grad.iter().nth(coordinate).copied().unwrap_or(f64::NAN);
            // The floor is the rounding of a loss of order 10.
            let close = (found - expected).abs() <= TOLERANCE * scale + 1e-8;
            assert!(
                close,
                "{name}[{coordinate}]: {found}, by differences {expected}"
            );
        }
    }
}

/// Checks the compiled gradient of the scaled loss of a batch.
fn check(config: &ModelConfig) {
    check_task(config, |graph| batch(graph, config.objective, 0));
}

/// Checks the compiled gradient of the scaled loss of the batch of `task` that `feeds` makes for a graph.
fn check_task(task: &dyn Task, feeds: impl Fn(&Graph) -> Values) {
    let mut model = task.loss(true, AttentionForm::Expanded).expect("a model");
    model.graph.output("loss", model.loss_sum);
    let (training, _, dropout) =
        training_graph(task, true, Provider::Cpu).expect("a training graph");
    assert!(
        matches!(dropout, Randomness::Masks(sites) if !sites.is_empty()),
        "no dropout is tested"
    );
    let mut feeds = feeds(&training);
    let scale = 0.3;
    feeds.insert(
        names::LOSS_SCALE.to_owned(),
        ndarray::arr1(&[scale]).into_dyn(),
    );
    feeds.insert(
        "lazy_reset_grad".to_owned(),
        ndarray::arr1(&[1.0]).into_dyn(),
    );
    let found = outputs(&training, &feeds);
    let loss = |feeds: &Values| outputs(&model.graph, feeds)["loss"].sum() * scale;
    let difference = (found[names::LOSS].sum() - loss(&feeds)).abs();
    assert!(
        difference <= 1e-12,
        "the compiled loss differs by {difference}"
    );
    let gradient = gradient(&found);
    compare(&model.graph, &feeds, loss, &gradient);

    let squares: f64 = gradient.values().map(|g| g.mapv(|x| x * x).sum()).sum();
    let difference = (found[names::GRADIENT_NORM].sum() - squares.sqrt()).abs();
    assert!(
        difference <= 1e-12,
        "the gradient's norm differs by {difference}"
    );
}

/// Pairs and rows with negatives, by either pooling, with a text that does not count and padding.
#[test]
fn ranking_of_texts() {
    for (columns, pooling) in [(2, Pooling::Mean), (3, Pooling::Cls)] {
        let task = Sentences {
            model: tiny(),
            pooling: vec![pooling],
            columns,
            loss: SentenceLoss::Ranking(Ranking {
                scale: 3.0,
                symmetric: columns == 2,
            }),
            matryoshka: if columns == 2 { Vec::new() } else { vec![8, 3] },
            gathered: false,
        };
        check_task(&task, |graph| {
            let mut feeds = texts_of(graph, columns);
            let texts = 2 * columns;
            let mut candidates = Array::ones(&[2, texts - 2][..]);
            candidates[[0, texts - 3]] = 0.0;
            feeds.insert(CANDIDATES.to_owned(), candidates);
            feeds
        });
    }
}

/// Random texts in two rows, all but the first with padding.
fn texts_of(graph: &Graph, columns: usize) -> Values {
    let mut feeds = random_feeds(graph, &SIZES, 14, 5);
    let kept = |(text, at): (usize, usize)| f64::from(text == 0 || at < 4);
    let mask = ndarray::Array2::from_shape_fn((2 * columns, 6), kept);
    feeds.insert(ATTENTION_MASK.to_owned(), mask.into_dyn());
    feeds
}

#[test]
fn scored_pairs_and_triplets() {
    let sentences = |columns, loss| Sentences {
        model: tiny(),
        pooling: vec![Pooling::Mean],
        columns,
        loss,
        matryoshka: Vec::new(),
        gathered: false,
    };
    for loss in [Scored::CoSent { scale: 3.0 }, Scored::Cosine] {
        check_task(&sentences(2, SentenceLoss::Scored(loss)), |graph| {
            let mut feeds = texts_of(graph, 2);
            feeds.insert(SCORES.to_owned(), ndarray::arr1(&[0.9, 0.2]).into_dyn());
            feeds
        });
    }
    for normalized in [false, true] {
        let triplets = Triplets {
            margin: 5.0,
            normalized,
        };
        check_task(&sentences(3, SentenceLoss::Triplets(triplets)), |graph| {
            texts_of(graph, 3)
        });
    }
}

#[test]
fn post_ln_gelu() {
    check(&tiny());
}

#[test]
fn pre_ln_relu() {
    check(&ModelConfig {
        normalize_before: true,
        activation_fn: Activation::Relu,
        ..tiny()
    });
}

#[test]
fn every_other_objective() {
    for objective in Objective::ALL {
        for normalize_before in [false, true] {
            match objective {
                Objective::Mpnet => {}
                Objective::MpnetMlm | Objective::Plm | Objective::Mlm => check(&ModelConfig {
                    objective,
                    normalize_before,
                    ..tiny()
                }),
            }
        }
    }
}

#[test]
fn every_other_activation() {
    for activation_fn in Activation::ALL {
        match activation_fn {
            Activation::Gelu | Activation::Relu => {}
            Activation::GeluAccurate
            | Activation::Silu
            | Activation::Relu2
            | Activation::Tanh
            | Activation::Linear => check(&ModelConfig {
                activation_fn,
                encoder_layers: 1,
                ..tiny()
            }),
        }
    }
}

#[test]
fn other_buckets_and_three_layers() {
    check(&ModelConfig {
        encoder_layers: 3,
        relative_attention_num_buckets: 24,
        relative_attention_max_distance: 64,
        ..tiny()
    });
}

#[test]
fn the_tied_embeddings_two_gradients_are_one_scatter() {
    // Beyond the one-hot gradient, with zeros that are folded and with zeros that are not.
    for padded_vocab_size in [144, 520] {
        let config = ModelConfig {
            padded_vocab_size,
            ..tiny()
        };
        check(&config);
        let (training, ..) =
            training_graph(&config, false, Provider::Cpu).expect("a training graph");
        let scatters = training
            .nodes()
            .iter()
            .filter(|n| matches!(n.op, Op::ScatterElements(_)));
        assert_eq!(scatters.count(), 1);
    }
}

#[test]
fn gradients_accumulate_unless_reset() {
    let (training, ..) = training_graph(&tiny(), true, Provider::Cpu).expect("a training graph");
    let mut feeds = batch(&training, Objective::Mpnet, 0);
    let mut with_reset = |reset: f64| {
        let flag = ndarray::arr1(&[reset]).into_dyn();
        feeds.insert("lazy_reset_grad".to_owned(), flag);
        (outputs(&training, &feeds), feeds.clone())
    };
    let (fresh, _) = with_reset(1.0);
    let (summed, feeds) = with_reset(0.0);
    for parameter in crate::model::parameters::parameters(&tiny()) {
        let name = parameter.name;
        let buffer = &feeds[&format!("{name}_grad.accumulation.buffer")];
        let output = format!("grad.{name}");
        assert_eq!(summed[&output], buffer + &fresh[&output], "{name}");
        assert_eq!(summed[&format!("{name}_grad.accumulation.out")].sum(), 1.0);
    }
}

#[test]
fn the_single_stream_encoder() -> Result<(), GraphError> {
    for normalize_before in [false, true] {
        let config = ModelConfig {
            normalize_before,
            ..tiny()
        };
        let mut graph = encoder(&config, &Head::MaskedLm, &TextSizes::default())?;
        // A loss that reads every element.
        let mut loss = graph.scalar(0.0)?;
        for (name, value) in graph.outputs().to_vec() {
            let ty = graph.ty(value).clone();
            let weight = graph.input(format!("weight.{name}"), ty);
            let product = graph.mul(value, weight)?;
            let sum = graph.reduce_sum(product, &[0, 1, 2], false)?;
            loss = graph.add(loss, sum)?;
        }
        graph.output("loss", loss);
        let defined = graph.clone();
        let grads = autodiff::gradients(&mut graph, loss)?;
        for (parameter, grad) in defined.parameters().iter().zip(grads) {
            let name = format!("grad.{}", defined.label(*parameter));
            let grad = grad.unwrap_or_else(|| panic!("{name} is missing"));
            graph.output(name, grad);
        }
        passes::Pipeline::of("tidy", passes::tidy()).run(&mut graph)?;
        let mut feeds = random_feeds(&graph, &SIZES, 14, 0);
        // The second row is padded.
        let mask = ndarray::arr2(&[[1.0; 6], [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]);
        feeds.insert(ATTENTION_MASK.to_owned(), mask.into_dyn());
        let found = gradient(&outputs(&graph, &feeds));
        let loss = |feeds: &Values| outputs(&defined, feeds)["loss"].sum();
        compare(&defined, &feeds, loss, &found);
    }
    Ok(())
}
