//! Which fields of a row are its text.

use serde::{Deserialize, Serialize};

/// The field of the text where none is named.
pub const DEFAULT_FIELD: &str = "text";

/// Fields or columns whose texts are joined, by line feeds, into a row's text; at least one. A dot goes
/// into an object, and into every object of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Fields(Vec<String>);

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
            Written::One(field) => Fields(vec![field]),
            Written::Several(fields) => fields.into(),
        }
    }
}

impl From<Fields> for Written {
    fn from(fields: Fields) -> Self {
        match <[String; 1]>::try_from(fields.0) {
            Ok([field]) => Written::One(field),
            Err(several) => Written::Several(several),
        }
    }
}

impl From<&str> for Fields {
    fn from(field: &str) -> Self {
        Fields(vec![field.to_owned()])
    }
}

impl From<Vec<String>> for Fields {
    /// The usual field where `fields` is empty.
    fn from(fields: Vec<String>) -> Self {
        if fields.is_empty() {
            return Fields::default();
        }
        Fields(fields)
    }
}

impl Default for Fields {
    fn default() -> Self {
        DEFAULT_FIELD.into()
    }
}

impl Fields {
    /// Their names, in order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// What tells them apart from others.
    pub fn key(&self) -> String {
        self.0.join("\0")
    }

    /// `field "text"`, for messages.
    pub fn quoted(&self) -> String {
        let quoted: Vec<String> = self.0.iter().map(|name| format!("\"{name}\"")).collect();
        quoted.join(" or ")
    }

    /// The texts of one row, one for each field that has any, as its text; `None` where all are blank.
    pub fn join(parts: Vec<String>) -> Option<String> {
        let mut parts = parts.into_iter().filter(|part| !super::is_blank(part));
        let mut text = parts.next()?;
        for part in parts {
            text.push('\n');
            text.push_str(&part);
        }
        Some(text)
    }
}
