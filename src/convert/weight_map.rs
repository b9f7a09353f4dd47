//! The weight-mapping table: one line for each native parameter, with its names elsewhere, splits,
//! ties and folds. Every conversion is driven by it.

use mpnet_graphs::model::config::ModelConfig;
use std::collections::HashMap;

/// The word embeddings, a row for each entry of the padded vocabulary.
pub const WORDS: &str = "sentence_encoder.embed_tokens.weight";
/// The position embeddings.
pub const POSITIONS: &str = "sentence_encoder.embed_positions.weight";
/// The table of relative positions, a row for each bucket.
pub const BUCKETS: &str = "sentence_encoder.relative_attention_bias.weight";
/// The parameters with a row for each entry of the padded vocabulary.
pub const BY_VOCABULARY: [&str; 2] = [WORDS, "lm_head.bias"];

/// What the names of the language model head's parameters begin with, here and in HuggingFace.
pub const LM_HEAD: &str = "lm_head.";

/// Below this transformers' `MPNetForMaskedLM` has the `MPNetModel`, which lacks it when saved alone.
const HF_ENCODER: &str = "mpnet.";
/// Below this microsoft/MPNet has the whole model.
const FAIRSEQ_MODEL: &str = "decoder.";

/// One line of the table; `{}` stands for the layer.
struct Entry {
    native: &'static str,
    /// HuggingFace's tensors; several hold the rows of the native one in turn, in equal shares. None
    /// where HuggingFace has no place for it.
    hf: &'static [&'static str],
}

/// A tensor that repeats a native parameter.
struct Tie {
    layout: Layout,
    name: &'static str,
    native: &'static str,
}

/// A tensor whose first row is added to every row of a native parameter.
struct Fold {
    layout: Layout,
    name: &'static str,
    native: &'static str,
}

const TABLE: &[Entry] = &[
    Entry {
        native: WORDS,
        hf: &["mpnet.embeddings.word_embeddings.weight"],
    },
    Entry {
        native: POSITIONS,
        hf: &["mpnet.embeddings.position_embeddings.weight"],
    },
    Entry {
        native: "sentence_encoder.emb_layer_norm.weight",
        hf: &["mpnet.embeddings.LayerNorm.weight"],
    },
    Entry {
        native: "sentence_encoder.emb_layer_norm.bias",
        hf: &["mpnet.embeddings.LayerNorm.bias"],
    },
    Entry {
        native: BUCKETS,
        hf: &["mpnet.encoder.relative_attention_bias.weight"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.self_attn.in_proj_weight",
        hf: &[
            "mpnet.encoder.layer.{}.attention.attn.q.weight",
            "mpnet.encoder.layer.{}.attention.attn.k.weight",
            "mpnet.encoder.layer.{}.attention.attn.v.weight",
        ],
    },
    Entry {
        native: "sentence_encoder.layers.{}.self_attn.in_proj_bias",
        hf: &[
            "mpnet.encoder.layer.{}.attention.attn.q.bias",
            "mpnet.encoder.layer.{}.attention.attn.k.bias",
            "mpnet.encoder.layer.{}.attention.attn.v.bias",
        ],
    },
    Entry {
        native: "sentence_encoder.layers.{}.self_attn.out_proj.weight",
        hf: &["mpnet.encoder.layer.{}.attention.attn.o.weight"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.self_attn.out_proj.bias",
        hf: &["mpnet.encoder.layer.{}.attention.attn.o.bias"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.self_attn_layer_norm.weight",
        hf: &["mpnet.encoder.layer.{}.attention.LayerNorm.weight"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.self_attn_layer_norm.bias",
        hf: &["mpnet.encoder.layer.{}.attention.LayerNorm.bias"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.fc1.weight",
        hf: &["mpnet.encoder.layer.{}.intermediate.dense.weight"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.fc1.bias",
        hf: &["mpnet.encoder.layer.{}.intermediate.dense.bias"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.fc2.weight",
        hf: &["mpnet.encoder.layer.{}.output.dense.weight"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.fc2.bias",
        hf: &["mpnet.encoder.layer.{}.output.dense.bias"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.final_layer_norm.weight",
        hf: &["mpnet.encoder.layer.{}.output.LayerNorm.weight"],
    },
    Entry {
        native: "sentence_encoder.layers.{}.final_layer_norm.bias",
        hf: &["mpnet.encoder.layer.{}.output.LayerNorm.bias"],
    },
    // Of pre-LN models alone, which HuggingFace cannot represent.
    Entry {
        native: "sentence_encoder.final_layer_norm.weight",
        hf: &[],
    },
    Entry {
        native: "sentence_encoder.final_layer_norm.bias",
        hf: &[],
    },
    Entry {
        native: "lm_head.dense.weight",
        hf: &["lm_head.dense.weight"],
    },
    Entry {
        native: "lm_head.dense.bias",
        hf: &["lm_head.dense.bias"],
    },
    Entry {
        native: "lm_head.layer_norm.weight",
        hf: &["lm_head.layer_norm.weight"],
    },
    Entry {
        native: "lm_head.layer_norm.bias",
        hf: &["lm_head.layer_norm.bias"],
    },
    Entry {
        native: "lm_head.bias",
        hf: &["lm_head.bias"],
    },
];

impl Entry {
    /// The tensors that hold the rows of the native parameter of layer `layer` in turn.
    fn parts(&self, layout: Layout, layer: usize) -> Vec<String> {
        match layout {
            Layout::Native | Layout::Annotated => vec![in_layer(self.native, layer)],
            Layout::Fairseq => vec![format!("{FAIRSEQ_MODEL}{}", in_layer(self.native, layer))],
            Layout::HuggingFace => self.hf.iter().map(|hf| in_layer(hf, layer)).collect(),
        }
    }
}

fn in_layer(template: &str, layer: usize) -> String {
    template.replace("{}", &layer.to_string())
}

/// Older files store what is tied; where the parameter itself is there, the copy is only compared with it.
const TIES: &[Tie] = &[
    Tie {
        layout: Layout::HuggingFace,
        name: "lm_head.decoder.weight",
        native: WORDS,
    },
    Tie {
        layout: Layout::HuggingFace,
        name: "lm_head.decoder.bias",
        native: "lm_head.bias",
    },
    Tie {
        layout: Layout::Annotated,
        name: "lm_head.weight",
        native: WORDS,
    },
    Tie {
        layout: Layout::Fairseq,
        name: "decoder.lm_head.weight",
        native: WORDS,
    },
];

/// transformers 4 and later have no token types in MPNet; older files store one row of them.
const FOLDS: &[Fold] = &[
    Fold {
        layout: Layout::HuggingFace,
        name: "mpnet.embeddings.token_type_embeddings.weight",
        native: WORDS,
    },
    Fold {
        layout: Layout::Fairseq,
        name: "decoder.sentence_encoder.segment_embeddings.weight",
        native: WORDS,
    },
    Fold {
        layout: Layout::Annotated,
        name: "sentence_encoder.segment_embeddings.weight",
        native: WORDS,
    },
];

/// The pooler of HuggingFace's `MPNetModel`: `[D, D]` and `[D]`. Pretraining knows nothing of it.
pub const POOLER: [&str; 2] = ["mpnet.pooler.dense.weight", "mpnet.pooler.dense.bias"];

/// Tensors that are no part of a model.
const IGNORED: &[(Layout, &str)] = &[
    (Layout::HuggingFace, "mpnet.embeddings.position_ids"),
    (Layout::Fairseq, "decoder.sentence_encoder.version"),
    (
        Layout::Fairseq,
        "decoder.sentence_encoder.embed_positions._float_tensor",
    ),
];

/// Who named the tensors of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// This program.
    Native,
    /// transformers' `MPNetForMaskedLM`.
    HuggingFace,
    /// annotated-mpnet: the native names.
    Annotated,
    /// microsoft/MPNet's fairseq: the native names below `decoder.`.
    Fairseq,
}

/// How one native parameter is stored in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    pub native: String,
    /// Tensors that hold its rows in turn, in equal shares; none where the layout has no place for it.
    pub parts: Vec<String>,
    /// A tensor that repeats it.
    pub tied: Option<String>,
    /// A tensor whose first row is added to every row, where it is stored.
    pub folded: Option<String>,
}

/// The table's lines for `config`'s model in `layout`.
pub fn mapped(layout: Layout, config: &ModelConfig) -> Vec<Mapped> {
    let mut lines = Vec::new();
    for entry in TABLE {
        let final_norm = entry
            .native
            .starts_with("sentence_encoder.final_layer_norm.");
        if final_norm && !config.normalize_before {
            continue;
        }
        let copies = match entry.native.contains("{}") {
            true => config.encoder_layers,
            false => 1,
        };
        for layer in 0..copies {
            let native = in_layer(entry.native, layer);
            let further = |name: &'static str| Some(name.to_owned());
            lines.push(Mapped {
                parts: entry.parts(layout, layer),
                tied: TIES
                    .iter()
                    .find(|tie| tie.layout == layout && tie.native == native)
                    .and_then(|tie| further(tie.name)),
                folded: FOLDS
                    .iter()
                    .find(|fold| fold.layout == layout && fold.native == native)
                    .and_then(|fold| further(fold.name)),
                native,
            });
        }
    }
    lines
}

/// What wrappers of modules put into the names of tensors: torch.compile, and FSDP.
const WRAPPERS: [&str; 3] = [
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
];

/// `names` without what wrappers have put into them, in the same order: torch.compile, FSDP, data
/// parallelism (`module.`), and other programs' modules around the one of `layout` (`0.auto_model.`).
pub fn unwrapped(layout: Layout, names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    for name in &mut names {
        for wrapper in WRAPPERS {
            *name = name.replace(wrapper, "");
        }
    }
    let words = stored_name(layout, WORDS).unwrap_or_default();
    // An encoder saved alone has no name before its embeddings'.
    let shortest = match layout {
        Layout::HuggingFace => in_encoder(&words).unwrap_or(&words),
        Layout::Native | Layout::Annotated | Layout::Fairseq => &words,
    };
    let mut outer = names.iter().filter_map(|name| {
        let outer = name.strip_suffix(&words);
        let outer = outer.or_else(|| name.strip_suffix(shortest))?;
        (outer.is_empty() || outer.ends_with('.')).then(|| outer.to_owned())
    });
    // Two embeddings would be two models: what is around them is left.
    if let (Some(outer), None) = (outer.next(), outer.next()) {
        for name in &mut names {
            if let Some(inner) = name.strip_prefix(&outer) {
                *name = inner.to_owned();
            }
        }
    }
    names
}

/// The tensor of `layout` that holds the whole of `native`, a parameter of no layer.
pub fn stored_name(layout: Layout, native: &str) -> Option<String> {
    let entry = TABLE.iter().find(|entry| entry.native == native)?;
    let [name] = <[String; 1]>::try_from(entry.parts(layout, 0)).ok()?;
    Some(name)
}

/// The tensors of `layout` that may hold the whole of `native`, a parameter of no layer: itself, and one
/// that repeats it.
pub fn stored_names(layout: Layout, native: &str) -> Vec<String> {
    let ties = TIES
        .iter()
        .filter(|t| t.layout == layout && t.native == native);
    let ties = ties.map(|tie| tie.name.to_owned());
    stored_name(layout, native)
        .into_iter()
        .chain(ties)
        .collect()
}

/// The name that a tensor of an `MPNetForMaskedLM` has in an `MPNetModel`; none for the LM head's.
pub fn in_encoder(name: &str) -> Option<&str> {
    name.strip_prefix(HF_ENCODER)
}

/// The name that a tensor of an `MPNetModel` has in an `MPNetForMaskedLM`.
pub fn of_encoder(name: &str) -> String {
    format!("{HF_ENCODER}{name}")
}

/// Whether a file of `layout` may hold `name` although no parameter is made of it.
pub fn ignored(layout: Layout, name: &str) -> bool {
    IGNORED.contains(&(layout, name))
}

/// The table's lines in `layout` by native name.
pub fn by_native(layout: Layout, config: &ModelConfig) -> HashMap<String, Mapped> {
    let lines = mapped(layout, config).into_iter();
    lines.map(|line| (line.native.clone(), line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::config;
    use mpnet_graphs::model::parameters::parameters;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const LAYOUTS: [Layout; 4] = [
        Layout::Native,
        Layout::HuggingFace,
        Layout::Annotated,
        Layout::Fairseq,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_table_is_complete_and_one_to_one(
            layers in 1usize..30, prenorm: bool, buckets in 1usize..9,
        ) {
            let mut config = config(layers, 2, 4, 8);
            config.normalize_before = prenorm;
            config.relative_attention_num_buckets = 4 * buckets;
            let parameters: HashSet<String> =
                parameters(&config).into_iter().map(|p| p.name).collect();
            for layout in LAYOUTS {
                let lines = mapped(layout, &config);
                let natives: Vec<String> = lines.iter().map(|l| l.native.clone()).collect();
                prop_assert_eq!(natives.len(), parameters.len());
                prop_assert_eq!(natives.into_iter().collect::<HashSet<_>>(), parameters.clone());
                let mut names = HashSet::new();
                for line in &lines {
                    // The one thing that HuggingFace has no place for, and why pre-LN is refused.
                    let nowhere = layout == Layout::HuggingFace
                        && line.native.starts_with("sentence_encoder.final_layer_norm.");
                    prop_assert_eq!(line.parts.is_empty(), nowhere);
                    for name in line.parts.iter().chain(&line.tied).chain(&line.folded) {
                        prop_assert!(names.insert(name.clone()), "{name} twice in {layout:?}");
                        prop_assert!(!ignored(layout, name));
                    }
                }
            }
        }
    }

    #[test]
    fn every_tie_and_fold_is_of_a_parameter() {
        let config = config(2, 2, 4, 8);
        for layout in LAYOUTS {
            let lines = mapped(layout, &config);
            let ties = lines.iter().filter(|l| l.tied.is_some()).count();
            let folds = lines.iter().filter(|l| l.folded.is_some()).count();
            assert_eq!(ties, TIES.iter().filter(|t| t.layout == layout).count());
            assert_eq!(folds, FOLDS.iter().filter(|f| f.layout == layout).count());
        }
    }
}
