//! Which fields of a row are its text.

use serde::{Deserialize, Serialize};

/// The field of the text where none is named.
pub const DEFAULT_FIELD: &str = "text";

/// Fields or columns whose texts are joined, by line feeds, into a row's text; at least one. A dot goes
/// into an object, and into every object of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Fields {
    names: Vec<String>,
    apart: bool,
}

/// One field stands alone, as in checkpoints from before there could be several.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl From<Written> for Fields {
    fn from(written: Written) -> Self {
        match written {
            Written::One(field) => field.as_str().into(),
            Written::Several(fields) => fields.into(),
        }
    }
}

impl From<Fields> for Written {
    fn from(fields: Fields) -> Self {
        match <[String; 1]>::try_from(fields.names) {
            Ok([field]) => Written::One(field),
            Err(several) => Written::Several(several),
        }
    }
}

impl From<&str> for Fields {
    fn from(field: &str) -> Self {
        Fields {
            names: vec![field.to_owned()],
            apart: false,
        }
    }
}

impl From<Vec<String>> for Fields {
    /// The usual field where there are no `names`.
    fn from(names: Vec<String>) -> Self {
        if names.is_empty() {
            return Fields::default();
        }
        Fields {
            names,
            apart: false,
        }
    }
}

impl Default for Fields {
    fn default() -> Self {
        DEFAULT_FIELD.into()
    }
}

impl Fields {
    /// Fields whose texts stay apart: each row's text is a JSON array with one of each, and a row that lacks one is
    /// passed over.
    pub fn apart(names: Vec<String>) -> Fields {
        Fields { names, apart: true }
    }

    /// Whether texts stay apart.
    pub fn are_apart(&self) -> bool {
        self.apart
    }

    /// The flag that names them.
    pub fn flag(&self) -> &'static str {
        match self.apart {
            true => "--columns",
            false => "--text-field",
        }
    }

    /// Whether a file with so many of them has texts.
    pub fn suffice(&self, found: usize) -> bool {
        match self.apart {
            true => found == self.names.len(),
            false => found > 0,
        }
    }

    /// Their names, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What tells them apart from others.
    pub fn key(&self) -> String {
        let separator = if self.apart { "\0\0" } else { "\0" };
        self.names.join(separator)
    }

    /// `field "text"`, for messages.
    pub fn quoted(&self) -> String {
        let quoted: Vec<String> = (self.names.iter())
            .map(|name| format!("\"{name}\""))
            .collect();
        quoted.join(if self.apart { " and " } else { " or " })
    }

    /// The texts of one row, one for each field that has any, as its text; `None` where all are blank or, of fields that
    /// stay apart, any.
    pub fn join(&self, parts: Vec<String>) -> Option<String> {
        if self.apart {
            let whole =
                parts.len() == self.names.len() && !parts.iter().any(|p| super::is_blank(p));
            return whole.then(|| serde_json::Value::from(parts).to_string());
        }
        lines(parts)
    }

    /// The texts of one field of a row as they go into [`join`](Self::join).
    pub fn of_one(&self, texts: Vec<String>, into: &mut Vec<String>) {
        match self.apart {
            true => into.extend(lines(texts)),
            false => into.extend(texts),
        }
    }
}

/// Names of fields or columns for a message, each quoted. Without a line of names they are a row's texts, of any length.
pub fn listed(names: &[String]) -> String {
    const NAMES: usize = 20;
    const LETTERS: usize = 40;
    let short = names.iter().take(NAMES).map(|name| {
        let mut letters = name.chars();
        let mut short: String = letters.by_ref().take(LETTERS).collect();
        if letters.next().is_some() {
            short.push('…');
        }
        format!("\"{short}\"")
    });
    let mut short: Vec<String> = short.collect();
    if names.len() > NAMES {
        short.push(format!("and {} more", names.len() - NAMES));
    }
    short.join(", ")
}

/// Texts that are not blank, joined by line feeds.
fn lines(parts: Vec<String>) -> Option<String> {
    let mut parts = parts.into_iter().filter(|part| !super::is_blank(part));
    let mut text = parts.next()?;
    for part in parts {
        text.push('\n');
        text.push_str(&part);
    }
    Some(text)
}
