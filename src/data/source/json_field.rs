//! One field of a JSON object, the others passed over unread.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a row's field holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Field {
    Text(String),
    /// `null`.
    Nothing,
    /// The row has no such field, but these.
    Missing(Vec<String>),
    /// Something that is no text.
    Other(&'static str),
}

impl Field {
    /// Reads `field` of the object in `json`; a bare string is a text itself.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn of(json: &str, field: &str) -> serde_json::Result<Field> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let found = Row(field).deserialize(&mut reader)?;
        reader.end()?;
        Ok(found)
    }

    /// The text, `None` for `null`, or what is wrong.
    pub fn text(self, field: &str) -> Result<Option<String>, String> {
        match self {
            Field::Text(text) => Ok(Some(text)),
            Field::Nothing => Ok(None),
            Field::Missing(found) => Err(format!(
                "it has no field \"{field}\" but {}; name the one of the text with --text-field",
                match found.is_empty() {
                    true => "none at all".into(),
                    false => found.join(", "),
                }
            )),
            Field::Other(kind) => Err(format!(
                "its field \"{field}\" is {kind}, not a text; name the one of the text with --text-field"
            )),
        }
    }
}

/// A whole row.
struct Row<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Field, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object or a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let (mut found, mut others) = (None, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = Some(map.next_value_seed(Value)?);
            } else {
                map.next_value::<IgnoredAny>()?;
                others.push(key);
            }
        }
        Ok(found.unwrap_or(Field::Missing(others)))
    }
}

/// The field's value.
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Field, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Field, E> {
        Ok(Field::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other("true or false"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_field_and_says_what_it_is_otherwise() {
        let of = |json: &str| Field::of(json, "text").unwrap();
        let text = Field::Text("a\"b".into());
        assert_eq!(of(r#"{"x": {"text": 1}, "text": "a\"b", "y": []}"#), text);
        assert_eq!(of(r#""a\"b""#), text);
        assert_eq!(of(r#"{"text": null}"#), Field::Nothing);
        assert_eq!(
            of(r#"{"a": 1, "b": 2}"#),
            Field::Missing(vec!["a".into(), "b".into()])
        );
        for (value, kind) in [
            ("1", "a number"),
            ("-1.5", "a number"),
            ("[{}]", "a list"),
            ("{\"a\":1}", "an object"),
            ("true", "true or false"),
        ] {
            assert_eq!(of(&format!("{{\"text\": {value}}}")), Field::Other(kind));
        }
        for (broken, word) in [
            ("{", "EOF"),
            ("{} {}", "trailing"),
            ("12", "invalid type"),
            ("[1]", "invalid type"),
            ("nul", "EOF"),
        ] {
            let said = Field::of(broken, "text").unwrap_err().to_string();
            assert!(said.contains(word), "{broken}: {said}");
        }
    }
}
