//! The text of a JSON object: of one field or several, the others passed over unread.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fields::Fields;

/// Where a message of a conversation has its words, in the order in which they are looked for.
pub const SPOKEN: [&str; 3] = ["content", "value", "text"];
/// Keys of messages and of their parts, whether or not they hold text.
const MESSAGE: [&str; 3] = ["role", "from", "type"];

/// What a row's fields hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Field {
    /// Texts, to be joined.
    Texts(Vec<String>),
    /// `null`.
    Nothing,
    /// The row has no such field, but these.
    Missing(Vec<String>),
    /// Something that is no text: the field, and what it is.
    Other(String, &'static str),
}

impl Field {
    /// Reads `fields` of the object in `json`, and says how many halves of surrogate pairs were replaced in
    /// it; a bare string is a text itself. Python's NaN and Infinity count as null.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn read(json: &str, fields: &Fields) -> serde_json::Result<(Field, u64)> {
        match Field::of(json, fields) {
            Ok(found) => Ok((found, 0)),
            Err(error) => match repaired(json) {
                Some((json, replaced)) => Ok((Field::of(&json, fields)?, replaced)),
                None => Err(error),
            },
        }
    }

    fn of(json: &str, fields: &Fields) -> serde_json::Result<Field> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let found = Row(fields).deserialize(&mut reader)?;
        reader.end()?;
        Ok(found)
    }
}

/// `json` with what Python writes and JSON lacks replaced, and how many halves of surrogate pairs were
/// among it; `None` where there is nothing of the kind.
pub fn repaired(json: &str) -> Option<(String, u64)> {
    let (mut out, mut replaced, mut changed) = (String::with_capacity(json.len()), 0, false);
    let (mut rest, mut in_string) = (json, false);
    while let Some(first) = rest.chars().next() {
        let mut take = first.len_utf8();
        match (in_string, first) {
            (_, '"') => in_string = !in_string,
            (true, '\\') => {
                let unit = surrogate(rest);
                match unit {
                    Some(high @ 0xd800..=0xdbff) => match surrogate(&rest[6..]) {
                        Some(0xdc00..=0xdfff) => take = 12,
                        _ => {
                            debug_assert!(high < 0xdc00);
                            (out, rest, replaced, changed) =
                                (out + "\u{fffd}", &rest[6..], replaced + 1, true);
                            continue;
                        }
                    },
                    Some(_) => {
                        (out, rest, replaced, changed) =
                            (out + "\u{fffd}", &rest[6..], replaced + 1, true);
                        continue;
                    }
                    // The next character is escaped, whatever it is.
                    None => take += rest[1..].chars().next().map_or(0, char::len_utf8),
                }
            }
            (false, 'N' | 'I' | '-') => {
                let bare = ["NaN", "Infinity", "-Infinity"];
                if let Some(name) = bare.into_iter().find(|name| rest.starts_with(name)) {
                    (out, rest, changed) = (out + "null", &rest[name.len()..], true);
                    continue;
                }
            }
            (true | false, _) => {}
        }
        out.push_str(&rest[..take]);
        rest = &rest[take..];
    }
    changed.then_some((out, replaced))
}

/// The surrogate that `text` starts with as an escape.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let unit = u32::from_str_radix(digits, 16).ok()?;
    (0xd800..=0xdfff).contains(&unit).then_some(unit)
}

/// A whole row.
struct Row<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Field, D::Error> {
        reader.deserialize_any(self)
    }
}

/// The part of `field` behind `key`, where it starts there: empty where it is the whole of it.
pub fn behind<'f>(field: &'f str, key: &str) -> Option<&'f str> {
    match field.strip_prefix(key)? {
        "" => Some(""),
        rest => rest.strip_prefix('.'),
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object or a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Texts(vec![text.to_owned()]))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        let names = self.0.names();
        let (mut found, mut others) = (vec![None; names.len()], Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let wanted: Vec<(usize, &str)> = names
                .iter()
                .enumerate()
                .filter_map(|(index, name)| Some((index, behind(name, &key)?)))
                .collect();
            match wanted.as_slice() {
                [] => {
                    map.next_value::<IgnoredAny>()?;
                    others.push(key);
                }
                [(index, "")] => {
                    found[*index] = Some(map.next_value_seed(Whole {
                        numbers: self.0.are_apart(),
                    })?)
                }
                several => {
                    let value: Value = map.next_value()?;
                    for &(index, rest) in several {
                        if let Some(inside) = follow(&value, rest) {
                            found[index] = Some(inside);
                        } else {
                            others.extend(names_in(&value, &key));
                        }
                    }
                }
            }
        }
        let (mut texts, mut any) = (Vec::new(), false);
        for (name, found) in names.iter().zip(found) {
            let Some(found) = found else {
                if self.0.are_apart() {
                    return Ok(Field::Missing(others));
                }
                continue;
            };
            any = true;
            match found {
                Inside::Texts(more) => self.0.of_one(more, &mut texts),
                Inside::Other(kind) => return Ok(Field::Other(name.clone(), kind)),
            }
        }
        Ok(match (any, texts.is_empty()) {
            (false, _) => Field::Missing(others),
            (true, true) => Field::Nothing,
            (true, false) => Field::Texts(texts),
        })
    }
}

/// The names of the fields in `value`, which is the field `key`.
fn names_in(value: &Value, key: &str) -> Vec<String> {
    match value.as_object() {
        Some(object) => object.keys().map(|name| format!("{key}.{name}")).collect(),
        None => vec![key.to_owned()],
    }
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Inside {
    /// Texts; none where it is null or an empty list.
    Texts(Vec<String>),
    /// Something that is no text.
    Other(&'static str),
}

/// What is at `path` in `value`; `None` where nothing is.
fn follow(value: &Value, path: &str) -> Option<Inside> {
    if path.is_empty() {
        return Some(spoken(value, false));
    }
    match value {
        Value::Object(object) => object
            .iter()
            .find_map(|(key, value)| follow(value, behind(path, key)?)),
        Value::Array(items) => {
            let (mut texts, mut any) = (Vec::new(), items.is_empty());
            for item in items {
                match follow(item, path) {
                    Some(Inside::Texts(more)) => texts.extend(more),
                    Some(other @ Inside::Other(_)) => return Some(other),
                    None => continue,
                }
                any = true;
            }
            any.then_some(Inside::Texts(texts))
        }
        Value::Null => Some(Inside::Texts(Vec::new())),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The texts of a value: a string's, those of a list, and in a list those of messages.
fn spoken(value: &Value, in_list: bool) -> Inside {
    match value {
        Value::Null => Inside::Texts(Vec::new()),
        Value::String(text) => Inside::Texts(vec![text.clone()]),
        Value::Bool(_) => Inside::Other("true or false"),
        Value::Number(_) => Inside::Other("a number"),
        Value::Object(object) if in_list => {
            match SPOKEN.iter().find_map(|name| object.get(*name)) {
                Some(inside) => spoken(inside, true),
                // A message that calls tools, a picture in a message: no text, but no fault.
                None if MESSAGE.iter().any(|name| object.contains_key(*name)) => {
                    Inside::Texts(Vec::new())
                }
                None => Inside::Other("a list of objects without content, value or text"),
            }
        }
        Value::Object(_) => Inside::Other("an object (name a field in it, as in a.b)"),
        Value::Array(items) => {
            let mut texts = Vec::new();
            for item in items {
                match spoken(item, true) {
                    Inside::Texts(more) => texts.extend(more),
                    Inside::Other(kind) if kind.starts_with("a list") => {
                        return Inside::Other(kind);
                    }
                    Inside::Other(_) => return Inside::Other("a list of what is no text"),
                }
            }
            Inside::Texts(texts)
        }
    }
}

/// The whole value of a field; texts and scalars without a detour.
struct Whole {
    /// Whether a number is the text that it is written as: ids and scores may be columns, too.
    numbers: bool,
}

impl Whole {
    fn number(&self, number: impl fmt::Display) -> Inside {
        match self.numbers {
            true => Inside::Texts(vec![number.to_string()]),
            false => Inside::Other("a number"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Whole {
    type Value = Inside;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Inside, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole {
    type Value = Inside;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Inside, E> {
        Ok(Inside::Texts(vec![text.to_owned()]))
    }

    fn visit_unit<E: Error>(self) -> Result<Inside, E> {
        Ok(Inside::Texts(Vec::new()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Inside, E> {
        Ok(Inside::Other("true or false"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Inside, E> {
        Ok(self.number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Inside, E> {
        Ok(self.number(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Inside, E> {
        Ok(self.number(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Inside, A::Error> {
        let value = Value::deserialize(SeqAccessDeserializer::new(items))?;
        Ok(spoken(&value, false))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Inside, A::Error> {
        let value = Value::deserialize(MapAccessDeserializer::new(map))?;
        Ok(spoken(&value, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, fields: &[&str]) -> (Field, u64) {
        let fields: Vec<String> = fields.iter().map(|&f| f.to_owned()).collect();
        Field::read(json, &fields.into()).unwrap()
    }

    fn texts(json: &str, fields: &[&str]) -> Vec<String> {
        match of(json, fields).0 {
            Field::Texts(texts) => texts,
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn finds_the_field_and_says_what_it_is_otherwise() {
        let found = |json: &str| of(json, &["text"]).0;
        let text = Field::Texts(vec!["a\"b".into()]);
        assert_eq!(
            found(r#"{"x": {"text": 1}, "text": "a\"b", "y": []}"#),
            text
        );
        assert_eq!(found(r#""a\"b""#), text);
        assert_eq!(found(r#"{"text": null}"#), Field::Nothing);
        assert_eq!(
            found(r#"{"a": 1, "b": 2}"#),
            Field::Missing(vec!["a".into(), "b".into()])
        );
        for (value, kind) in [
            ("1", "a number"),
            ("-1.5", "a number"),
            ("[{}]", "a list of objects without content, value or text"),
            ("[1]", "a list of what is no text"),
            ("{\"a\":1}", "an object (name a field in it, as in a.b)"),
            ("true", "true or false"),
        ] {
            assert_eq!(
                found(&format!("{{\"text\": {value}}}")),
                Field::Other("text".into(), kind)
            );
        }
        for (broken, word) in [
            ("{", "EOF"),
            ("{} {}", "trailing"),
            ("12", "invalid type"),
            ("[1]", "invalid type"),
            ("nul", "EOF"),
            ("{\"a\": NaNa}", "expected"),
        ] {
            let said = Field::read(broken, &"text".into()).unwrap_err().to_string();
            assert!(said.contains(word), "{broken}: {said}");
        }
    }

    #[test]
    fn fields_may_be_nested_listed_and_several() {
        let row = r#"{"title": "T", "a": {"b": "x", "c": {"d": "y"}}, "a.e": "z", "l": ["1", null, "2"],
            "messages": [{"role": "user", "content": "hi"}, {"role": "bot", "content": [{"type": "text", "text": "ho"}]}],
            "conversations": [{"from": "human", "value": "v"}], "none": []}"#;
        for (fields, expected) in [
            (&["a.b"][..], &["x"][..]),
            (&["a.c.d"], &["y"]),
            (&["a.e"], &["z"]),
            (&["l"], &["1", "2"]),
            (&["messages"], &["hi", "ho"]),
            (&["messages.content"], &["hi", "ho"]),
            (&["messages.role"], &["user", "bot"]),
            (&["conversations"], &["v"]),
            (&["title", "a.b", "a.c.d", "no"], &["T", "x", "y"]),
        ] {
            assert_eq!(texts(row, fields), expected, "{fields:?}");
        }
        assert_eq!(of(row, &["none"]).0, Field::Nothing);
        let Field::Missing(names) = of(row, &["a.no"]).0 else {
            panic!("there is no a.no");
        };
        assert!(names.contains(&"a.b".to_owned()), "{names:?}");
    }

    #[test]
    fn what_python_writes_beside_json_is_read() {
        assert_eq!(
            texts(
                r#"{"n": NaN, "i": [-Infinity, Infinity], "text": "NaN \\\" -Infinity"}"#,
                &["text"]
            ),
            ["NaN \\\" -Infinity"]
        );
        assert_eq!(of(r#"{"text": NaN}"#, &["text"]).0, Field::Nothing);
        let half = of(
            r#"{"text": "a\ud83dz\udc00 \ud83d\ude00 \\ud83d"}"#,
            &["text"],
        );
        let expected = "a\u{fffd}z\u{fffd} \u{1f600} \\ud83d".to_owned();
        assert_eq!(half, (Field::Texts(vec![expected]), 2));
    }
}
