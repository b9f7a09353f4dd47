//! The model card: what the model is, what it was trained with and how to use it.

use super::hf_folder::WeightType;
use super::source::Source;
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

/// The card of the model of `source` with a table of `vocabulary` embeddings.
pub fn model_card(source: &Source, vocabulary: usize, dtype: WeightType) -> String {
    let model = &source.model;
    let parameters: usize = source
        .parameters
        .iter()
        .map(|p| p.shape.iter().product::<usize>())
        .sum();
    let removed = (model.padded_vocab_size - vocabulary) * (model.encoder_embed_dim + 1);
    let mut card = format!(
        "---\nlibrary_name: transformers\npipeline_tag: fill-mask\ntags:\n- mpnet\n- fill-mask\n---\n\
         {MARK}\n\n# MPNet\n\nAn MPNet model (masked and permuted language modelling) for \
         `MPNetForMaskedLM` of transformers.\n\n| | |\n|---|---|\n"
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
    row("longest row, tokens", model.max_positions.to_string());
    row("vocabulary", vocabulary.to_string());
    row(
        "parameters",
        format!(
            "{:.1} M, {}",
            (parameters - removed) as f64 / 1e6,
            dtype.name()
        ),
    );
    if source.step > 0 {
        row("updates made", source.step.to_string());
    }
    if let Some(loss) = source.best_loss {
        row(
            "validation loss, bits per predicted token",
            format!("{loss:.4}"),
        );
    }
    for (place, name) in SETTINGS {
        if let Some(value) = source.run.pointer(place).filter(|v| v.is_number()) {
            row(name, value.to_string());
        }
    }
    card.push_str(
        "\n```python\nfrom transformers import pipeline\n\nfill = pipeline(\"fill-mask\", model=\"this \
         folder\")\nprint(fill(\"The capital of France is <mask>.\"))\n```\n",
    );
    card
}
