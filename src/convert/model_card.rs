//! The model card: what the model is, what it was trained with and how to use it.

use super::hf_config::decimal;
use super::options::{HfOptions, OutputHead};
use super::source::Source;
use serde_json::Value;
use std::fmt::Write;

/// By this a card that this program wrote is known, and replaced by the next one.
pub const MARK: &str =
    "<!-- Written by convert-to-hf: edit it, without this line, and it stays. -->";

/// The settings of a run that its card names: where in the configuration, and in words.
const SETTINGS: [(&str, &str); 8] = [
    ("/batch_size", "rows of a micro-batch"),
    ("/update_freq", "micro-batches of an update"),
    ("/schedule/peak", "peak learning rate"),
    ("/schedule/warmup_updates", "warm-up updates"),
    ("/schedule/total_updates", "updates planned"),
    ("/optimizer/beta2", "AdamW's β2"),
    ("/optimizer/weight_decay", "weight decay"),
    ("/seed", "seed"),
];

/// What the card says of a head.
struct Use {
    library: &'static str,
    pipeline: &'static str,
    class: String,
    example: String,
}

fn uses(head: &OutputHead) -> Use {
    match head {
        OutputHead::MaskedLm => Use {
            library: "transformers",
            pipeline: "fill-mask",
            class: "`MPNetForMaskedLM` of transformers".to_owned(),
            example:
                "from transformers import pipeline\n\nfill = pipeline(\"fill-mask\", model=\"this \
                      folder\")\nprint(fill(\"The capital of France is <mask>.\"))"
                    .to_owned(),
        },
        OutputHead::None => Use {
            library: "transformers",
            pipeline: "feature-extraction",
            class: "`MPNetModel` of transformers".to_owned(),
            example: "from transformers import AutoModel, AutoTokenizer\n\ntokenizer = \
                      AutoTokenizer.from_pretrained(\"this folder\")\nmodel = \
                      AutoModel.from_pretrained(\"this folder\")\nrows = tokenizer([\"a text\"], \
                      return_tensors=\"pt\")\nprint(model(**rows).last_hidden_state)"
                .to_owned(),
        },
        OutputHead::Sentence(_) => Use {
            library: "sentence-transformers",
            pipeline: "sentence-similarity",
            class: "sentence-transformers".to_owned(),
            example: "from sentence_transformers import SentenceTransformer\n\nmodel = \
                      SentenceTransformer(\"this folder\")\nprint(model.encode([\"a text\"]))"
                .to_owned(),
        },
        OutputHead::Task(head) => Use {
            library: "transformers",
            pipeline: head.pipeline,
            class: format!("`{}` of transformers", head.class),
            example: format!(
                "from transformers import pipeline\n\nmodel = pipeline(\"{}\", model=\"this \
                 folder\")\nprint(model(\"a text\"))",
                head.pipeline
            ),
        },
    }
}

/// The card of the model of `source` with a table of `vocabulary` embeddings and this many `parameters`
/// in all.
pub fn model_card(
    source: &Source,
    vocabulary: usize,
    parameters: usize,
    options: &HfOptions,
) -> String {
    let Use {
        library,
        pipeline,
        class,
        example,
    } = uses(&options.head);
    let model = &source.model;
    let mut card = format!(
        "---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n- mpnet\n- {pipeline}\n---\n\
         {MARK}\n\n# MPNet\n\nAn MPNet model (masked and permuted language modelling) for \
         {class}.\n\n| | |\n|---|---|\n"
    );
    let mut row = |name: &str, value: String| {
        // A String takes everything.
        let _ = writeln!(card, "| {name} | {value} |");
    };
    row("layers", model.encoder_layers.to_string());
    row("hidden width", model.encoder_embed_dim.to_string());
    row("feed-forward width", model.encoder_ffn_dim.to_string());
    row("attention heads", model.encoder_attention_heads.to_string());
    row("activation", model.activation_fn.name().to_owned());
    row(
        "longest row, tokens",
        options.head.length(model).to_string(),
    );
    match &options.head {
        OutputHead::MaskedLm => {}
        OutputHead::None if source.pooler.is_some() => {}
        OutputHead::None => row("pooler", "untrained".to_owned()),
        OutputHead::Sentence(sentence) => row("embeddings", sentence.describe()),
        OutputHead::Task(_) => {}
    }
    row("vocabulary", vocabulary.to_string());
    row(
        "parameters",
        format!("{:.1} M, {}", parameters as f64 / 1e6, options.dtype.name()),
    );
    if source.step > 0 {
        row("updates made", source.step.to_string());
    }
    if let Some(loss) = source.best_loss {
        row(
            match source.run.get("task") {
                // The tasks beside pretraining say which they are.
                Some(_) => "validation loss",
                None => "validation loss, bits per predicted token",
            },
            format!("{loss:.4}"),
        );
    }
    for (place, name) in SETTINGS {
        if let Some(value) = source.run.pointer(place).filter(|v| v.is_number()) {
            row(name, shortest(value));
        }
    }
    let _ = write!(card, "\n```python\n{example}\n```\n");
    card
}

/// A number as it was given: what is exactly an f32 has the decimals of one, 0.98 and not 0.9800000190734863.
fn shortest(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && f64::from(x as f32) == x => decimal(x as f32).to_string(),
        Some(_) | None => value.to_string(),
    }
}
