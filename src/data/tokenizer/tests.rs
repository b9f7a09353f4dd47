//! Rows, roles and files of a tokenizer, against transformers' where it matters.

use serde_json::Value;

use super::*;
use crate::data::fixture;

fn load(folder: &Path) -> Result<Tokenizer> {
    Tokenizer::load(folder.to_str().unwrap())
}

#[test]
fn knows_its_special_tokens_and_words() {
    let tokenizer = fixture::tokenizer();
    assert_eq!(tokenizer.vocab_size(), fixture::MASK as usize + 1);
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.pad_id(), tokenizer.eos_id()),
        (0, 1, 2)
    );
    assert_eq!(tokenizer.unk_id(), Some(fixture::UNK));
    assert_eq!(tokenizer.mask_id(), fixture::MASK);
    assert_eq!(
        tokenizer.special_ids(),
        [0, 1, 2, fixture::UNK, fixture::MASK],
        "<unk> is not in use, so it is a token like any other"
    );
    assert!(tokenizer.has_whole_words());
    assert!(tokenizer.starts_word(fixture::FIRST_LETTER));
    assert!(!tokenizer.starts_word(fixture::FIRST_CONTINUATION));
}

#[test]
fn rows_have_start_and_end_and_are_cut() {
    let tokenizer = fixture::tokenizer();
    let a = fixture::FIRST_LETTER;
    let continued = fixture::FIRST_CONTINUATION;
    let row = tokenizer.encode("AB c ä!", 512).unwrap();
    assert_eq!(row, [0, a, continued + 1, a + 2, a, fixture::UNK, 2]);
    assert_eq!(
        tokenizer.encode("ab c", 4).unwrap(),
        [0, a, continued + 1, 2]
    );
    assert_eq!(tokenizer.encode("", 8).unwrap(), [0, 2]);
    assert_eq!(
        tokenizer.encode("a<mask>b", 8).unwrap(),
        [0, a, fixture::MASK, a + 1, 2]
    );
}

#[test]
fn long_texts_come_out_as_if_tokenized_whole() {
    let tokenizer = fixture::tokenizer();
    assert!(tokenizer.words.is_some());
    let words = [
        "zebra",
        "a",
        "<mask>",
        "Ünïcode",
        "x\u{a0}y",
        "end.",
        "\t",
        "  ",
    ];
    let text: String = (0..400)
        .map(|i| words[i * 7 % 8].to_owned() + " ")
        .collect();
    let whole = tokenizer.inner.encode(text.as_str(), false).unwrap();
    for max_tokens in [3, 8, 50, 300, 2000, usize::MAX / 8] {
        let mut expected = vec![0];
        expected.extend(whole.get_ids().iter().take(max_tokens - 2));
        expected.push(2);
        assert_eq!(
            tokenizer.encode(&text, max_tokens).unwrap(),
            expected,
            "{max_tokens}"
        );
    }
}

#[test]
fn batches_equal_single_texts() {
    let tokenizer = fixture::tokenizer();
    let texts = ["one", "two words", "", "and three words"];
    let rows = tokenizer.encode_batch(&texts, 6).unwrap();
    for (text, row) in texts.iter().zip(rows) {
        assert_eq!(row, tokenizer.encode(text, 6).unwrap());
    }
}

#[test]
fn a_missing_role_is_named() {
    for (token, role) in [
        ("<mask>", "mask"),
        ("<pad>", "pad"),
        ("<s>", "bos"),
        ("</s>", "eos"),
    ] {
        let mut definition = fixture::definition();
        let vocabulary = definition["model"]["vocab"].as_object_mut().unwrap();
        let id = vocabulary.remove(token).unwrap();
        vocabulary.insert("nothing".into(), id);
        let added = definition["added_tokens"].as_array_mut().unwrap();
        added.retain(|t| t["content"] != token);
        definition["post_processor"] = Value::Null;
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &definition);
        let error = load(folder.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, DataError::MissingToken { role: named, .. } if named == role),
            "{text}"
        );
        assert!(
            text.contains(token) && text.contains("tokenizer.json"),
            "{text}"
        );
    }
}

#[test]
fn configuration_beside_the_definition_decides_the_roles() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::definition());
    let config = r#"{"mask_token": {"content": "z"}, "additional_special_tokens": ["y"]}"#;
    std::fs::write(folder.path().join(CONFIG_FILE), config).unwrap();
    let tokenizer = load(folder.path()).unwrap();
    assert_eq!(tokenizer.token(tokenizer.mask_id()), Some("z"));
    assert!(tokenizer.is_special(fixture::FIRST_LETTER + 24));
    assert_eq!(
        tokenizer.bos_id(),
        0,
        "roles that it leaves out keep their usual tokens"
    );
}

#[test]
fn few_continuations_mean_token_by_token() {
    let mut definition = fixture::definition();
    let vocabulary = definition["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.retain(|token, _| !token.starts_with("##") || token.len() == 3);
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &definition);
    let tokenizer = load(folder.path()).unwrap();
    assert!(!tokenizer.has_whole_words());
    assert!(tokenizer.starts_word(fixture::FIRST_CONTINUATION));
    assert!(
        !tokenizer.has_token(fixture::MASK - 1),
        "a hole in the vocabulary"
    );
}

#[test]
fn what_is_no_tokenizer_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(
        text.contains("tokenizer.json") && text.contains("save_pretrained"),
        "{text}"
    );
    // Of three parts it is no name on the Hub, which is not asked.
    let text = Tokenizer::load("no/such/folder").unwrap_err().to_string();
    assert!(
        text.contains("no/such/folder") && text.contains("mpnet tokenizer train"),
        "{text}"
    );
    for content in ["", "{}", "[1]", r#"{"model": {"type": "WordPiece"}}"#] {
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, content).unwrap();
        let text = load(folder.path()).unwrap_err().to_string();
        assert!(text.contains(&file.display().to_string()), "{text}");
    }
    let mut definition = fixture::definition();
    definition["model"]["vocab"]["far"] = 4_000_000_000u32.into();
    fixture::write(folder.path(), &definition);
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(text.contains("ids up to 4000000000"), "{text}");
}

#[test]
fn saves_what_it_loaded() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fixture::write(from.path(), &fixture::definition());
    std::fs::write(from.path().join(CONFIG_FILE), r#"{"mask_token": "z"}"#).unwrap();
    let tokenizer = load(from.path()).unwrap();
    copy_tokenizer(tokenizer.path(), to.path()).unwrap();
    let again = load(to.path()).unwrap();
    assert_eq!(again.mask_id(), tokenizer.mask_id());
    assert_eq!(again.tokens, tokenizer.tokens);
}

#[test]
fn another_vocabulary_or_role_is_another_tokenizer() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [a, b] = folders.each_ref().map(|f| f.path().join(TOKENIZER_FILE));
    let definition = fixture::definition();
    fixture::write(folders[0].path(), &definition);
    // The same definition in other words.
    std::fs::write(&b, format!("{definition:#}")).unwrap();
    assert!(same_tokenizer(&a, &b).unwrap());
    let config = b.with_file_name(CONFIG_FILE);
    std::fs::write(&config, r#"{"pad_token": "<pad>", "added": 1}"#).unwrap();
    assert!(same_tokenizer(&a, &b).unwrap());
    for other in [
        r#"{"mask_token": "z"}"#,
        r#"{"extra_special_tokens": ["z"]}"#,
    ] {
        std::fs::write(&config, other).unwrap();
        assert!(!same_tokenizer(&a, &b).unwrap(), "{other}");
    }
    std::fs::remove_file(&config).unwrap();
    // As transformers 5 saves again what it has read.
    let mut saved = definition.clone();
    saved["decoder"] = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
    saved["post_processor"] = serde_json::json!({
        "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true
    });
    fixture::write(folders[0].path(), &saved);
    saved["post_processor"]["add_prefix_space"] = false.into();
    saved["decoder"] = serde_json::Value::Null;
    fixture::write(folders[1].path(), &saved);
    assert!(same_tokenizer(&a, &b).unwrap());
    saved["post_processor"]["sep"] = serde_json::json!(["<s>", 0]);
    fixture::write(folders[1].path(), &saved);
    assert!(!same_tokenizer(&a, &b).unwrap());
    fixture::write(folders[0].path(), &definition);
    let mut swapped = definition.clone();
    let vocabulary = swapped["model"]["vocab"].as_object_mut().unwrap();
    for (token, other) in [("a", "b"), ("b", "a")] {
        vocabulary.insert(token.into(), definition["model"]["vocab"][other].clone());
    }
    fixture::write(folders[1].path(), &swapped);
    assert!(!same_tokenizer(&a, &b).unwrap());
    std::fs::remove_file(&b).unwrap();
    let said = same_tokenizer(&a, &b).unwrap_err().to_string();
    assert!(said.contains(b.to_str().unwrap()), "{said}");
}

#[test]
fn rows_equal_transformers() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tokenizer");
    let tokenizer = Tokenizer::load(example).unwrap();
    // AutoTokenizer.from_pretrained("examples/tokenizer")(text, truncation=True, max_length=40)
    // of transformers 5.23.
    let long_word = format!("nebuchadnezzar's {} end", "a".repeat(101));
    let golden: [(&str, &[u32]); 3] = [
        (
            "In the beginning God created the heaven and the earth.",
            &[0, 98, 78, 1682, 159, 3485, 78, 477, 80, 78, 380, 11, 2],
        ),
        (
            "Thou SHALT not <mask>,thyself;  “naïve” Ωmega 12\t34\u{a0}x</s>y 中文ab",
            &[
                0, 142, 312, 141, 4095, 9, 1061, 13, 4, 3369, 992, 4, 4, 4, 4, 38, 2, 39, 4, 4,
                225, 2,
            ],
        ),
        (&long_word, &[0, 2177, 6, 33, 4, 581, 2]),
    ];
    for (text, ids) in golden {
        for _ in 0..2 {
            // The second time from the cache.
            assert_eq!(tokenizer.encode(text, 40).unwrap(), ids, "{text}");
        }
    }
}

#[test]
fn special_tokens_in_a_text_may_be_words_of_it() {
    let text = "a <s> b<pad>c </s> <mask> d";
    let tokens = fixture::tokenizer();
    let as_words = fixture::tokenizer().with_special_as_text();
    let special = |tokenizer: &Tokenizer| {
        let row = tokenizer.encode(text, 64).unwrap();
        row[1..row.len() - 1]
            .iter()
            .filter(|&&id| tokenizer.is_special(id) && Some(id) != tokenizer.unk_id())
            .count()
    };
    assert_eq!(special(&tokens), 4);
    assert_eq!(special(&as_words), 0);
    assert_eq!(
        tokens.encode("plain words", 64).unwrap(),
        as_words.encode("plain words", 64).unwrap()
    );
}
