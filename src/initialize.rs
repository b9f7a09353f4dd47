//! A fresh model's parameters.

use mpnet_graphs::model::Task;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::{Init, Parameter, parameters};
use mpnet_runtime::engine::NamedArray;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

/// Standard deviation of every fresh matrix and embedding.
const STANDARD_DEVIATION: f32 = 0.02;

/// Initial values for every parameter of `config`'s model; each has its own generator, so that
/// none depends on the sizes of those before it.
pub fn initial_parameters(config: &ModelConfig, seed: u64) -> Vec<NamedArray> {
    drawn(parameters(config), 0, seed)
}

/// Initial values of those of `task`'s parameters that `config`'s model does not have.
pub fn initial_head(config: &ModelConfig, task: &dyn Task, seed: u64) -> Vec<NamedArray> {
    let own = parameters(config);
    let mut head = task.parameters();
    head.retain(|parameter| !own.iter().any(|known| known.name == parameter.name));
    drawn(head, own.len() as u64, seed)
}

/// Initial values of `list`, whose generators are those from number `first` on.
fn drawn(list: Vec<Parameter>, first: u64, seed: u64) -> Vec<NamedArray> {
    list.into_par_iter()
        .enumerate()
        .map(|(index, parameter)| {
            let len = parameter.len();
            let values = match parameter.init {
                Init::Zeros => vec![0.0; len],
                Init::Ones => vec![1.0; len],
                Init::Normal { zero_row } => {
                    // Drawing from xoshiro takes half the time: seconds, for a large model.
                    let mut seeds = ChaCha8Rng::seed_from_u64(seed);
                    seeds.set_stream(first + index as u64);
                    let mut rng = Xoshiro256PlusPlus::from_rng(&mut seeds);
                    let mut values = normal(&mut rng, len);
                    let width = len / parameter.shape[0].max(1);
                    if let Some(row) = zero_row
                        && let Some(row) = values.get_mut(row * width..(row + 1) * width)
                    {
                        row.fill(0.0);
                    }
                    values
                }
            };
            NamedArray {
                name: parameter.name,
                shape: parameter.shape,
                values,
            }
        })
        .collect()
}

/// This many elements of a fresh matrix.
pub fn normal(rng: &mut Xoshiro256PlusPlus, len: usize) -> Vec<f32> {
    match Normal::new(0.0, STANDARD_DEVIATION) {
        Ok(normal) => normal.sample_iter(rng).take(len).collect(),
        Err(_) => unreachable!("the standard deviation is a positive constant"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpnet_graphs::model::config::Activation;

    #[test]
    fn matrices_are_normal_padding_is_zero_and_the_seed_decides() {
        let config = ModelConfig {
            encoder_layers: 1,
            encoder_embed_dim: 32,
            encoder_ffn_dim: 64,
            encoder_attention_heads: 4,
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
            objective: mpnet_graphs::model::Objective::Mpnet,
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
        };
        let a = initial_parameters(&config, 1);
        assert_eq!(a, initial_parameters(&config, 1));
        assert_ne!(a, initial_parameters(&config, 2));
        let tokens = &a[0].values;
        assert!(tokens[32..64].iter().all(|&x| x == 0.0));
        let n = tokens.len() as f64;
        let mean = tokens.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = tokens.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 1e-3, "{mean}");
        assert!((square.sqrt() - 0.02).abs() < 1e-3, "{square}");
    }
}
