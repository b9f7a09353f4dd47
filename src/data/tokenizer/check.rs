//! What a tokenizer has of what MPNet needs, and what to do about the rest.

use super::CONFIG_FILE;
use super::definition::{CONTINUATION, Definition, FEWEST_CONTINUATIONS, ROLES, Role};
use super::files::{locate, read_json};
use super::written::completed;
use crate::data::error::Result;
use std::path::PathBuf;

/// The padding id that transformers' MPNet assumes.
const TRANSFORMERS_PAD: u32 = 1;
const SAMPLE: &str = "Masked and permuted, whole words!";

/// How well a part serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// It can be trained with, but at a cost.
    Poor,
    /// It can't be trained with.
    Lacking,
}

impl Verdict {
    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Poor => "poor",
            Verdict::Lacking => "LACKS",
        }
    }
}

/// One part of a tokenizer.
#[derive(Debug, Clone)]
pub struct Finding {
    pub part: &'static str,
    pub verdict: Verdict,
    /// What is there; where it does not serve, what that means and how to mend it.
    pub said: String,
}

/// What was found of a tokenizer.
#[derive(Debug)]
pub struct Check {
    /// The definition that was read.
    pub path: PathBuf,
    /// Tokens of its vocabulary.
    pub entries: usize,
    pub findings: Vec<Finding>,
}

impl Check {
    /// Whether it can be trained with.
    pub fn usable(&self) -> bool {
        let lacking = |finding: &Finding| finding.verdict == Verdict::Lacking;
        !self.findings.iter().any(lacking)
    }

    fn add(&mut self, part: &'static str, verdict: Verdict, said: impl Into<String>) {
        self.findings.push(Finding {
            part,
            verdict,
            said: said.into(),
        });
    }
}

/// Checks the tokenizer called `name`, as [`Tokenizer::load`](super::Tokenizer::load) finds it.
///
/// # Errors
/// When nothing is there, or it is no definition of a tokenizer at all.
pub fn check(name: &str) -> Result<Check> {
    let definition = Definition::read(locate(name)?)?;
    let mut check = Check {
        path: definition.path.clone(),
        entries: definition.inner.get_vocab_size(true),
        findings: Vec::new(),
    };
    let ids = roles(&definition, &mut check);
    distinct(&definition, &ids, &mut check);
    vocabulary(&definition, &mut check);
    let id = |name: &str| ids.iter().find(|(role, _)| role.name == name);
    let id = |name: &str| id(name).map(|&(_, id)| id);
    if let Some(pad) = id("pad").filter(|&pad| pad != TRANSFORMERS_PAD) {
        check.add(
            "padding id",
            Verdict::Poor,
            format!(
                "{pad}: transformers' MPNet takes {TRANSFORMERS_PAD} for padding whatever the tokenizer \
                 says, and counts positions wrongly; put the padding token at id {TRANSFORMERS_PAD}"
            ),
        );
    }
    samples(&definition, id("bos"), id("eos"), id("mask"), &mut check);
    configuration(&definition, &mut check)?;
    limits(&definition, &mut check);
    Ok(check)
}

/// A finding for each role; the ids of those that are there.
fn roles<'r>(definition: &Definition, check: &mut Check) -> Vec<(&'r Role, u32)> {
    let mut ids = Vec::new();
    for role in ROLES {
        if let Some(id) = definition.role(role) {
            let token = definition.inner.id_to_token(id).unwrap_or_default();
            check.add(role.part, Verdict::Good, format!("{token}, id {id}"));
            ids.push((role, id));
            continue;
        }
        let mend = format!(
            "name one as \"{}_token\" in tokenizer_config.json beside the definition and add it to the \
             vocabulary (usual: {})",
            role.name, role.usual_text
        );
        let (verdict, means) = match role.required {
            true => (Verdict::Lacking, ""),
            false => (
                Verdict::Poor,
                "text with characters outside of the vocabulary is an error; ",
            ),
        };
        check.add(role.part, verdict, format!("none: {means}{mend}"));
    }
    ids
}

/// Roles that share a token and must not.
fn distinct(definition: &Definition, ids: &[(&Role, u32)], check: &mut Check) {
    for (i, (a, id)) in ids.iter().enumerate() {
        for (b, other) in &ids[i + 1..] {
            // One token may start and end rows.
            let apart = ["pad", "mask"].iter().any(|n| [a.name, b.name].contains(n));
            if id != other || !apart {
                continue;
            }
            let token = definition.inner.id_to_token(*id).unwrap_or_default();
            check.add(
                "separate tokens",
                Verdict::Lacking,
                format!(
                    "{token} is the {} and the {}: give each its own in tokenizer_config.json",
                    a.part, b.part
                ),
            );
        }
    }
}

fn vocabulary(definition: &Definition, check: &mut Check) {
    let vocabulary = definition.inner.get_vocab(true);
    let continuations = vocabulary.keys().filter(|t| t.starts_with(CONTINUATION));
    let count = continuations.count();
    match count >= FEWEST_CONTINUATIONS {
        true => check.add(
            "whole words",
            Verdict::Good,
            format!("{count} tokens go on a word ({CONTINUATION})"),
        ),
        false => check.add(
            "whole words",
            Verdict::Poor,
            format!(
                "{count} tokens with {CONTINUATION}, fewer than {FEWEST_CONTINUATIONS}: single tokens are \
                 masked, not words; a WordPiece tokenizer has them (`mpnet tokenizer train`)"
            ),
        ),
    }
    let special = definition.special();
    let plain = vocabulary.values().any(|id| !special.contains(id));
    if !plain {
        check.add(
            "plain tokens",
            Verdict::Lacking,
            "none: every token is special, so that nothing can be predicted",
        );
    }
    let largest = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
    let holes = largest.saturating_sub(vocabulary.len());
    if holes > 0 {
        check.add(
            "ids",
            Verdict::Poor,
            format!("{holes} ids below {largest} have no token: their embeddings are never used"),
        );
    }
}

/// Whether transformers makes the same tokens with the configuration beside the definition.
fn configuration(definition: &Definition, check: &mut Check) -> Result<()> {
    let given = read_json(&definition.path.with_file_name(CONFIG_FILE))?;
    let (_, wrong) = completed(definition, given.as_ref());
    let mended = "convert-to-hf and mpnet export write one that is right";
    if given.is_none() {
        check.add(
            "configuration",
            Verdict::Poor,
            format!(
                "there is no {CONFIG_FILE}: transformers' AutoTokenizer guesses, and makes other tokens; {mended}"
            ),
        );
    } else if wrong.is_empty() {
        check.add(
            "configuration",
            Verdict::Good,
            "transformers makes the same tokens",
        );
    } else {
        check.add(
            "configuration",
            Verdict::Poor,
            format!(
                "in {CONFIG_FILE} {}: transformers' AutoTokenizer makes other tokens; {mended}",
                wrong.join(", ")
            ),
        );
    }
    Ok(())
}

/// Cutting and padding in the definition.
fn limits(definition: &Definition, check: &mut Check) {
    let block = |name: &str| definition.json.get(name).filter(|block| !block.is_null());
    let mut said = Vec::new();
    if let Some(length) = block("truncation").map(|t| &t["max_length"]) {
        said.push(format!("cuts texts after {length} tokens"));
    }
    if let Some(strategy) = block("padding").map(|p| &p["strategy"]) {
        said.push(format!("pads texts ({strategy})"));
    }
    if !said.is_empty() {
        check.add(
            "cut and padded",
            Verdict::Poor,
            format!(
                "the definition {}: not in training, but where the tokenizers library reads it alone; \
                 convert-to-hf and mpnet export write the model's length",
                said.join(" and ")
            ),
        );
    }
}

/// What the tokenizer makes of texts.
fn samples(
    definition: &Definition,
    bos: Option<u32>,
    eos: Option<u32>,
    mask: Option<u32>,
    check: &mut Check,
) {
    match definition.inner.encode(SAMPLE, true) {
        Err(e) => check.add(
            "a text",
            Verdict::Lacking,
            format!("{SAMPLE:?} can't be tokenized: {e}"),
        ),
        Ok(encoding) => {
            let ids = encoding.get_ids();
            let text = encoding.get_tokens().join(" ");
            check.add("a text", Verdict::Good, text);
            let around = ids.first().copied() == bos && ids.last().copied() == eos;
            if !around && bos.is_some() && eos.is_some() {
                check.add(
                    "start and end",
                    Verdict::Poor,
                    "its post-processor does not put them around a text: training does, but transformers \
                     will not when the model is used",
                );
            }
        }
    }
    let Some(mask) = mask else { return };
    let token = definition.inner.id_to_token(mask).unwrap_or_default();
    let read = definition.inner.encode(token.as_str(), false);
    if read.map_or(true, |encoding| encoding.get_ids() != [mask]) {
        check.add(
            "mask in a text",
            Verdict::Poor,
            format!(
                "{token} in a text is not read as the mask token: add it to the definition's added_tokens as \
                 a special one"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fixture;
    use serde_json::{Value, json};

    /// The findings on the fixture after `change` that are not good: part and text.
    fn complaints(change: impl FnOnce(&mut Value), config: Option<Value>) -> (bool, Vec<String>) {
        let mut definition = fixture::definition();
        change(&mut definition);
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &definition);
        if let Some(config) = config {
            let path = folder.path().join("tokenizer_config.json");
            std::fs::write(path, config.to_string()).unwrap();
        }
        let check = check(folder.path().to_str().unwrap()).unwrap();
        // What stands beside the definition has a test of its own.
        let bad = check
            .findings
            .iter()
            .filter(|f| f.verdict != Verdict::Good && f.part != "configuration")
            .map(|f| format!("{} {}: {}", f.verdict.word(), f.part, f.said))
            .collect();
        (check.usable(), bad)
    }

    fn remove(definition: &mut Value, tokens: &[&str]) {
        let vocabulary = definition["model"]["vocab"].as_object_mut().unwrap();
        for (i, token) in tokens.iter().enumerate() {
            let id = vocabulary.remove(*token).unwrap();
            vocabulary.insert(format!("nothing{i}"), id);
        }
        let added = definition["added_tokens"].as_array_mut().unwrap();
        added.retain(|t| !tokens.contains(&t["content"].as_str().unwrap()));
        definition["post_processor"] = Value::Null;
    }

    #[test]
    fn mpnets_own_layout_has_everything() {
        assert_eq!(complaints(|_| {}, None), (true, vec![]));
    }

    #[test]
    fn what_other_programs_would_make_of_it_is_said() {
        let said = |change: fn(&mut Value), config: Option<Value>| {
            let mut definition = fixture::definition();
            change(&mut definition);
            let folder = tempfile::tempdir().unwrap();
            fixture::write(folder.path(), &definition);
            if let Some(config) = config {
                let path = folder.path().join(CONFIG_FILE);
                std::fs::write(path, config.to_string()).unwrap();
            }
            let check = check(folder.path().to_str().unwrap()).unwrap();
            assert!(check.usable());
            let found = check.findings.into_iter();
            let found = found.filter(|f| f.verdict != Verdict::Good);
            found.map(|f| f.said).collect::<Vec<_>>().join("\n")
        };
        assert!(said(|_| {}, None).contains("there is no tokenizer_config.json"));
        let right = json!({
            "tokenizer_class": "MPNetTokenizer", "unk_token": "[UNK]", "mask_token": "<mask>",
            "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
            "pad_token": "<pad>",
        });
        assert_eq!(said(|_| {}, Some(right.clone())), "");
        let cased = |d: &mut Value| d["normalizer"]["lowercase"] = false.into();
        assert!(said(cased, Some(right.clone())).contains("do_lower_case (false) is not there"));
        let other = |d: &mut Value| d["normalizer"] = json!({"type": "NFKC"});
        let class = said(other, Some(right.clone()));
        assert!(
            class.contains("\"MPNetTokenizer\" and not \"PreTrainedTokenizerFast\""),
            "{class}"
        );
        let cut = |d: &mut Value| {
            d["truncation"] = json!({
                "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0
            });
        };
        assert!(said(cut, Some(right)).contains("cuts texts after 8 tokens"));
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let (usable, bad) = complaints(|d| remove(d, &["<mask>", "<pad>"]), None);
        assert!(!usable);
        let starts: Vec<&str> = bad.iter().map(|c| c.split(':').next().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "LACKS padding token",
                "LACKS mask token",
                "poor start and end"
            ],
            "{bad:?}"
        );
        assert!(bad[0].contains("\"pad_token\"") && bad[0].contains("usual: <pad>"));
        let (usable, bad) = complaints(|d| remove(d, &["<unk>", "[UNK]"]), None);
        assert!(
            bad.iter().any(|c| c.starts_with("poor unknown token")),
            "{bad:?}"
        );
        // The sample has no letter that it lacks, but an exclamation mark.
        assert!(
            !usable && bad.iter().any(|c| c.contains("can't be tokenized")),
            "{bad:?}"
        );
    }

    #[test]
    fn a_token_in_two_roles_is_lacking_one() {
        let config = json!({"pad_token": "</s>", "bos_token": "</s>"});
        let (usable, bad) = complaints(|_| {}, Some(config));
        assert!(!usable);
        let shared: Vec<_> = bad
            .iter()
            .filter(|c| c.contains("separate tokens"))
            .collect();
        assert_eq!(shared.len(), 2, "start and end may be one: {bad:?}");
        assert!(shared[0].contains("</s> is the start token and the padding token"));
        assert!(
            bad.iter().any(|c| c.starts_with("poor padding id: 2")),
            "{bad:?}"
        );
    }

    #[test]
    fn what_costs_something_is_no_obstacle() {
        let (usable, bad) = complaints(
            |d| {
                let vocabulary = d["model"]["vocab"].as_object_mut().unwrap();
                vocabulary.retain(|token, _| !token.starts_with("##") || token.len() == 3);
                let added = d["added_tokens"].as_array_mut().unwrap();
                added.retain(|t| t["content"] != "<mask>");
                d["post_processor"] = Value::Null;
            },
            None,
        );
        assert!(usable);
        let parts: Vec<&str> = bad.iter().map(|c| c.split(':').next().unwrap()).collect();
        let expected = ["whole words", "ids", "start and end", "mask in a text"];
        assert_eq!(
            parts,
            expected.map(|part| format!("poor {part}")),
            "{bad:?}"
        );
    }

    #[test]
    fn a_vocabulary_of_special_tokens_is_lacking() {
        let (usable, bad) = complaints(
            |d| {
                let vocabulary = d["model"]["vocab"].as_object_mut().unwrap();
                vocabulary.retain(|token, _| token.starts_with(['<', '[']) && token != "<unk>");
            },
            None,
        );
        assert!(!usable);
        assert!(
            bad.iter().any(|c| c.starts_with("LACKS plain tokens")),
            "{bad:?}"
        );
    }
}
