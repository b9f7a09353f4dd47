//! The trainable parameters of a model: native names, shapes, initial values, weight decay.

use super::config::{ModelConfig, POSITION_OFFSET};

/// How a fresh parameter is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// normal(0, 0.02); the row of that index, if any, is 0 (padding).
    Normal {
        zero_row: Option<usize>,
    },
    Zeros,
    Ones,
}

/// One trainable tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Native name (facts: annotated-mpnet's state dict without the tied decoder).
    pub name: String,
    /// Weights are stored `[out, in]`.
    pub shape: Vec<usize>,
    pub init: Init,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether AdamW decays it: two or more dimensions and not a bias.
    pub fn decays(&self) -> bool {
        self.shape.len() >= 2 && !self.name.ends_with(".bias")
    }
}

/// The parameters of `config`'s model, in the order in which every artifact lists them.
pub fn parameters(config: &ModelConfig) -> Vec<Parameter> {
    let (d, f, v) = (
        config.encoder_embed_dim,
        config.encoder_ffn_dim,
        config.padded_vocab_size,
    );
    let mut list = Vec::new();
    let mut add = |name: String, shape: &[usize], init: Init| {
        list.push(Parameter {
            name,
            shape: shape.to_vec(),
            init,
        });
    };
    let normal = Init::Normal { zero_row: None };
    let padding = usize::try_from(config.pad_token_id).ok();
    let encoder = |name: &str| format!("sentence_encoder.{name}");

    add(
        encoder("embed_tokens.weight"),
        &[v, d],
        Init::Normal { zero_row: padding },
    );
    add(
        encoder("embed_positions.weight"),
        &[config.max_positions + POSITION_OFFSET, d],
        Init::Normal { zero_row: padding },
    );
    add(
        encoder("relative_attention_bias.weight"),
        &[
            config.relative_attention_num_buckets,
            config.encoder_attention_heads,
        ],
        normal,
    );
    add(encoder("emb_layer_norm.weight"), &[d], Init::Ones);
    add(encoder("emb_layer_norm.bias"), &[d], Init::Zeros);
    for layer in 0..config.encoder_layers {
        let name = |suffix: &str| encoder(&format!("layers.{layer}.{suffix}"));
        add(name("self_attn.in_proj_weight"), &[3 * d, d], normal);
        add(name("self_attn.in_proj_bias"), &[3 * d], Init::Zeros);
        add(name("self_attn.out_proj.weight"), &[d, d], normal);
        add(name("self_attn.out_proj.bias"), &[d], Init::Zeros);
        add(name("self_attn_layer_norm.weight"), &[d], Init::Ones);
        add(name("self_attn_layer_norm.bias"), &[d], Init::Zeros);
        add(name("fc1.weight"), &[f, d], normal);
        add(name("fc1.bias"), &[f], Init::Zeros);
        add(name("fc2.weight"), &[d, f], normal);
        add(name("fc2.bias"), &[d], Init::Zeros);
        add(name("final_layer_norm.weight"), &[d], Init::Ones);
        add(name("final_layer_norm.bias"), &[d], Init::Zeros);
    }
    if config.normalize_before {
        add(encoder("final_layer_norm.weight"), &[d], Init::Ones);
        add(encoder("final_layer_norm.bias"), &[d], Init::Zeros);
    }
    add("lm_head.dense.weight".into(), &[d, d], normal);
    add("lm_head.dense.bias".into(), &[d], Init::Zeros);
    add("lm_head.layer_norm.weight".into(), &[d], Init::Ones);
    add("lm_head.layer_norm.bias".into(), &[d], Init::Zeros);
    add("lm_head.bias".into(), &[v], Init::Zeros);
    list
}

/// Those of the encoder alone, without the language model head.
pub fn encoder_parameters(config: &ModelConfig) -> Vec<Parameter> {
    let mut list = parameters(config);
    list.retain(|parameter| parameter.name.starts_with("sentence_encoder."));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::tiny;
    use std::fmt::Write;

    /// Names, shapes, initial values and decay of every parameter.
    fn table(config: &ModelConfig) -> String {
        parameters(config)
            .iter()
            .fold(String::new(), |mut text, p| {
                let decay = if p.decays() { " decays" } else { "" };
                writeln!(text, "{} {:?} {:?}{decay}", p.name, p.shape, p.init).expect("a string");
                text
            })
    }

    #[test]
    fn a_post_ln_model_has_these_parameters() {
        insta::assert_snapshot!(table(&tiny()));
    }

    #[test]
    fn a_pre_ln_model_normalizes_its_output_too() {
        let config = ModelConfig {
            normalize_before: true,
            ..tiny()
        };
        let post = table(&tiny());
        let pre = table(&config);
        let added: Vec<&str> = pre.lines().filter(|l| !post.contains(l)).collect();
        let expected = [
            "sentence_encoder.final_layer_norm.weight [8] Ones",
            "sentence_encoder.final_layer_norm.bias [8] Zeros",
        ];
        assert_eq!(added, expected);
        assert_eq!(pre.lines().count(), post.lines().count() + 2);
    }

    #[test]
    fn matrices_decay_and_biases_do_not_whatever_their_shape() {
        let decays = |name: &str, shape: &[usize]| {
            let parameter = Parameter {
                name: name.to_owned(),
                shape: shape.to_vec(),
                init: Init::Zeros,
            };
            parameter.decays()
        };
        assert!(decays("fc1.weight", &[3, 2]));
        assert!(decays("relative_attention_bias.weight", &[8, 2]));
        assert!(!decays("layer_norm.weight", &[3]));
        assert!(!decays("table.bias", &[3, 2]));
    }

    #[test]
    fn sizes_add_up_to_microsofts_base_model() {
        let base = ModelConfig {
            encoder_layers: 12,
            encoder_embed_dim: 768,
            encoder_ffn_dim: 3072,
            encoder_attention_heads: 12,
            max_positions: 512,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            vocab_size: 30527,
            padded_vocab_size: 30527,
            ..tiny()
        };
        let encoder = |p: &&Parameter| p.name.starts_with("sentence_encoder.");
        let list = parameters(&base);
        let count: usize = list.iter().filter(encoder).map(Parameter::len).sum();
        // As many as transformers counts in an MPNetModel of 514 positions without its pooler.
        assert_eq!(count, 108_895_872);
        assert!(list.iter().all(|p| !p.is_empty()));
    }
}
