//! A small WordPiece tokenizer in MPNet's layout, for the tests of the data path.

use std::path::Path;

use serde_json::{Value, json};

use super::tokenizer::Tokenizer;

pub const UNK: u32 = 4;
/// Ids of the letters that start a word; the same letters as continuations follow, five times over.
pub const FIRST_LETTER: u32 = 5;
const LETTERS: u32 = 26;
/// More continuations than the 100 that make a vocabulary WordPiece: `##a` … `##z`, then `##aa` ….
pub const FIRST_CONTINUATION: u32 = FIRST_LETTER + LETTERS;
const CONTINUATIONS: u32 = 5 * LETTERS;
pub const MASK: u32 = FIRST_CONTINUATION + CONTINUATIONS;

/// `tokenizer.json` with every token that MPNet needs.
pub fn definition() -> Value {
    let mut vocabulary = serde_json::Map::new();
    for token in ["<s>", "<pad>", "</s>", "<unk>", "[UNK]"] {
        vocabulary.insert(token.into(), vocabulary.len().into());
    }
    let letters = || 'a'..='z';
    let pieces = letters().map(|c| c.to_string()).chain(
        ["", "a", "e", "i", "o"]
            .iter()
            .flat_map(|v| letters().map(move |c| format!("##{v}{c}"))),
    );
    for piece in pieces.chain(["<mask>".to_owned()]) {
        vocabulary.insert(piece, vocabulary.len().into());
    }
    let special = [
        ("<s>", 0),
        ("<pad>", 1),
        ("</s>", 2),
        ("[UNK]", UNK),
        ("<mask>", MASK),
    ];
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special.map(|(content, id)| json!({
            "id": id, "content": content, "single_word": false, "lstrip": content == "<mask>",
            "rstrip": false, "normalized": false, "special": true,
        })),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
            "trim_offsets": true, "add_prefix_space": false},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    })
}

/// Writes `definition` as the tokenizer of `folder`.
pub fn write(folder: &Path, definition: &Value) {
    std::fs::write(folder.join("tokenizer.json"), definition.to_string()).unwrap();
}

/// The tokenizer of [`definition`].
pub fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &definition());
    Tokenizer::load(folder.path().to_str().unwrap()).unwrap()
}
