//! The weight-mapping table: native names and HuggingFace's, with the packed projection's thirds.

use super::ConvertError;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::parameters;
use mpnet_runtime::engine::NamedArray;
use std::collections::HashMap;

/// Which rows of a native tensor a HuggingFace tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// Rows `i·D..(i+1)·D` of a packed projection: query, key, value.
    Third(usize),
}

/// One line of the table; `{}` stands for the layer.
struct Entry {
    native: &'static str,
    hf: &'static str,
    part: Part,
}

const fn whole(native: &'static str, hf: &'static str) -> Entry {
    Entry {
        native,
        hf,
        part: Part::Whole,
    }
}

const fn third(native: &'static str, hf: &'static str, index: usize) -> Entry {
    Entry {
        native,
        hf,
        part: Part::Third(index),
    }
}

/// Every tensor of a HuggingFace `MPNetForMaskedLM`, whose decoder is tied to the word embeddings
/// and not stored.
const TABLE: &[Entry] = &[
    whole(
        "sentence_encoder.embed_tokens.weight",
        "mpnet.embeddings.word_embeddings.weight",
    ),
    whole(
        "sentence_encoder.embed_positions.weight",
        "mpnet.embeddings.position_embeddings.weight",
    ),
    whole(
        "sentence_encoder.emb_layer_norm.weight",
        "mpnet.embeddings.LayerNorm.weight",
    ),
    whole(
        "sentence_encoder.emb_layer_norm.bias",
        "mpnet.embeddings.LayerNorm.bias",
    ),
    whole(
        "sentence_encoder.relative_attention_bias.weight",
        "mpnet.encoder.relative_attention_bias.weight",
    ),
    third(
        "sentence_encoder.layers.{}.self_attn.in_proj_weight",
        "mpnet.encoder.layer.{}.attention.attn.q.weight",
        0,
    ),
    third(
        "sentence_encoder.layers.{}.self_attn.in_proj_weight",
        "mpnet.encoder.layer.{}.attention.attn.k.weight",
        1,
    ),
    third(
        "sentence_encoder.layers.{}.self_attn.in_proj_weight",
        "mpnet.encoder.layer.{}.attention.attn.v.weight",
        2,
    ),
    third(
        "sentence_encoder.layers.{}.self_attn.in_proj_bias",
        "mpnet.encoder.layer.{}.attention.attn.q.bias",
        0,
    ),
    third(
        "sentence_encoder.layers.{}.self_attn.in_proj_bias",
        "mpnet.encoder.layer.{}.attention.attn.k.bias",
        1,
    ),
    third(
        "sentence_encoder.layers.{}.self_attn.in_proj_bias",
        "mpnet.encoder.layer.{}.attention.attn.v.bias",
        2,
    ),
    whole(
        "sentence_encoder.layers.{}.self_attn.out_proj.weight",
        "mpnet.encoder.layer.{}.attention.attn.o.weight",
    ),
    whole(
        "sentence_encoder.layers.{}.self_attn.out_proj.bias",
        "mpnet.encoder.layer.{}.attention.attn.o.bias",
    ),
    whole(
        "sentence_encoder.layers.{}.self_attn_layer_norm.weight",
        "mpnet.encoder.layer.{}.attention.LayerNorm.weight",
    ),
    whole(
        "sentence_encoder.layers.{}.self_attn_layer_norm.bias",
        "mpnet.encoder.layer.{}.attention.LayerNorm.bias",
    ),
    whole(
        "sentence_encoder.layers.{}.fc1.weight",
        "mpnet.encoder.layer.{}.intermediate.dense.weight",
    ),
    whole(
        "sentence_encoder.layers.{}.fc1.bias",
        "mpnet.encoder.layer.{}.intermediate.dense.bias",
    ),
    whole(
        "sentence_encoder.layers.{}.fc2.weight",
        "mpnet.encoder.layer.{}.output.dense.weight",
    ),
    whole(
        "sentence_encoder.layers.{}.fc2.bias",
        "mpnet.encoder.layer.{}.output.dense.bias",
    ),
    whole(
        "sentence_encoder.layers.{}.final_layer_norm.weight",
        "mpnet.encoder.layer.{}.output.LayerNorm.weight",
    ),
    whole(
        "sentence_encoder.layers.{}.final_layer_norm.bias",
        "mpnet.encoder.layer.{}.output.LayerNorm.bias",
    ),
    whole("lm_head.dense.weight", "lm_head.dense.weight"),
    whole("lm_head.dense.bias", "lm_head.dense.bias"),
    whole("lm_head.layer_norm.weight", "lm_head.layer_norm.weight"),
    whole("lm_head.layer_norm.bias", "lm_head.layer_norm.bias"),
    whole("lm_head.bias", "lm_head.bias"),
];

/// A line of the table for one layer.
struct Mapped {
    native: String,
    hf: String,
    part: Part,
}

fn mapped(layers: usize) -> impl Iterator<Item = Mapped> {
    TABLE.iter().flat_map(move |entry| {
        let copies = if entry.native.contains("{}") {
            layers
        } else {
            1
        };
        (0..copies).map(|layer| {
            let name = |template: &str| template.replace("{}", &layer.to_string());
            Mapped {
                native: name(entry.native),
                hf: name(entry.hf),
                part: entry.part,
            }
        })
    })
}

/// Native parameters as HuggingFace tensors. What HuggingFace has no place for is left out.
///
/// # Errors
/// Where a parameter is missing or has a wrong shape.
pub fn to_hf(
    weights: &[NamedArray],
    config: &ModelConfig,
) -> Result<Vec<NamedArray>, ConvertError> {
    let native: HashMap<&str, &NamedArray> = weights.iter().map(|w| (w.name.as_str(), w)).collect();
    mapped(config.encoder_layers)
        .map(|entry| {
            let source =
                native
                    .get(entry.native.as_str())
                    .ok_or_else(|| ConvertError::Missing {
                        name: entry.native.clone(),
                    })?;
            let (shape, values) = match entry.part {
                Part::Whole => (source.shape.clone(), source.values.clone()),
                Part::Third(index) => {
                    let (mut shape, third) = (source.shape.clone(), source.values.len() / 3);
                    shape[0] /= 3;
                    let range = index * third..(index + 1) * third;
                    (shape, source.values[range].to_vec())
                }
            };
            Ok(NamedArray {
                name: entry.hf,
                shape,
                values,
            })
        })
        .collect()
}

/// HuggingFace tensors as native parameters, in the order of the model's.
///
/// # Errors
/// Where a tensor is missing or has a wrong shape.
pub fn from_hf(
    weights: &[NamedArray],
    config: &ModelConfig,
) -> Result<Vec<NamedArray>, ConvertError> {
    let hf: HashMap<&str, &NamedArray> = weights.iter().map(|w| (w.name.as_str(), w)).collect();
    let mut sources: HashMap<String, Vec<Mapped>> = HashMap::new();
    for entry in mapped(config.encoder_layers) {
        sources.entry(entry.native.clone()).or_default().push(entry);
    }
    parameters(config)
        .into_iter()
        .map(|parameter| {
            let missing = |name: &str| ConvertError::Missing {
                name: name.to_owned(),
            };
            let parts = sources
                .get(&parameter.name)
                .ok_or_else(|| missing(&parameter.name))?;
            let mut expected = parameter.shape.clone();
            expected[0] /= parts.len();
            let mut values = Vec::with_capacity(parameter.len());
            // The table lists the thirds in order.
            for part in parts {
                let source = hf.get(part.hf.as_str()).ok_or_else(|| missing(&part.hf))?;
                if source.shape != expected {
                    return Err(ConvertError::Shape {
                        name: part.hf.clone(),
                        found: source.shape.clone(),
                        expected,
                    });
                }
                values.extend_from_slice(&source.values);
            }
            Ok(NamedArray {
                name: parameter.name,
                shape: parameter.shape,
                values,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::initialize::initial_parameters;
    use mpnet_graphs::model::Objective;
    use mpnet_graphs::model::config::Activation;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn config(layers: usize, heads: usize, width: usize, vocab: usize) -> ModelConfig {
        ModelConfig {
            encoder_layers: layers,
            encoder_embed_dim: heads * width,
            encoder_ffn_dim: 2 * heads * width + 1,
            encoder_attention_heads: heads,
            activation_fn: Activation::Gelu,
            normalize_before: false,
            max_positions: 16,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            vocab_size: vocab,
            padded_vocab_size: vocab + 3,
            pad_token_id: 1,
            bos_token_id: 0,
            eos_token_id: 2,
            unk_token_id: 3,
            mask_token_id: 4,
            objective: Objective::default(),
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_table_is_complete_and_one_to_one(
            layers in 1usize..30, prenorm: bool, relu: bool, buckets in 1usize..9,
        ) {
            let mut config = config(layers, 2, 4, 8);
            config.normalize_before = prenorm;
            config.relative_attention_num_buckets = 4 * buckets;
            if relu {
                config.activation_fn = Activation::Relu;
            }
            // The one thing that HuggingFace has no place for, and why pre-LN is refused.
            let unmapped = |name: &str| name.starts_with("sentence_encoder.final_layer_norm.");
            let native = parameters(&config).into_iter().map(|p| p.name);
            let native: HashSet<String> = native.filter(|name| !unmapped(name)).collect();
            let mut hf = HashSet::new();
            let mut parts: HashMap<String, Vec<Part>> = HashMap::new();
            for entry in mapped(config.encoder_layers) {
                prop_assert!(hf.insert(entry.hf.clone()), "{} twice", entry.hf);
                parts.entry(entry.native).or_default().push(entry.part);
            }
            prop_assert_eq!(parts.keys().cloned().collect::<HashSet<_>>(), native);
            for (name, parts) in parts {
                let thirds = vec![Part::Third(0), Part::Third(1), Part::Third(2)];
                prop_assert!(parts == [Part::Whole] || parts == thirds, "{name}: {parts:?}");
            }
        }

        #[test]
        fn every_number_arrives_once_and_comes_back(
            layers in 1usize..4, heads in 1usize..4, width in 1usize..6, vocab in 5usize..40,
        ) {
            let config = config(layers, heads, width, vocab);
            // Every element of the model is another number.
            let mut next = 0.0;
            let native: Vec<NamedArray> = parameters(&config)
                .into_iter()
                .map(|parameter| NamedArray {
                    values: (0..parameter.len())
                        .map(|_| {
                            next += 1.0;
                            next
                        })
                        .collect(),
                    name: parameter.name,
                    shape: parameter.shape,
                })
                .collect();
            let hf = to_hf(&native, &config).unwrap();
            let mut all: Vec<f32> = hf.iter().flat_map(|t| t.values.iter().copied()).collect();
            all.sort_by(f32::total_cmp);
            prop_assert!(all.iter().enumerate().all(|(i, &x)| x == i as f32 + 1.0));
            prop_assert_eq!(all.len() as f32, next);
            for tensor in &hf {
                prop_assert_eq!(tensor.shape.iter().product::<usize>(), tensor.values.len());
            }
            prop_assert_eq!(from_hf(&hf, &config).unwrap(), native);
        }
    }

    #[test]
    fn missing_and_misshapen_tensors_are_named() {
        let config = config(1, 2, 4, 8);
        let native = initial_parameters(&config, 1);
        let mut hf = to_hf(&native, &config).unwrap();
        hf[2].shape = vec![1];
        let error = from_hf(&hf, &config).unwrap_err().to_string();
        assert!(
            error.contains("mpnet.embeddings.LayerNorm.weight"),
            "{error}"
        );
        let error = to_hf(&native[1..], &config).unwrap_err().to_string();
        assert!(error.contains("embed_tokens"), "{error}");
    }
}
