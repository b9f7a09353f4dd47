//! A JSON file that is one object of columns, as `json.dump` of pandas' or `datasets`' `to_dict()` and pandas' own
//! `to_json` write it: `{"text": ["a", "b"], "id": [1, 2]}` or `{"text": {"0": "a", "1": "b"}}`.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::json_field::{behind, repaired};

/// The columns of a file that have a part of its text, row by row.
#[derive(Debug, PartialEq)]
pub struct Columns {
    columns: Vec<(String, Vec<Value>)>,
    /// Halves of surrogate pairs that were replaced.
    pub replaced: u64,
}

impl Columns {
    /// The columns in `json`, the only value of its file; `None` where it is something else: all fields of it must be
    /// lists of one length, or objects with the same whole numbers for keys. Lists of objects under one of `fields` are
    /// a conversation, not a column.
    pub fn of(json: &str, fields: &Fields) -> Option<Columns> {
        let (object, replaced) = match serde_json::from_str::<Map<String, Value>>(json) {
            Ok(object) => (object, 0),
            Err(_) => {
                let (json, replaced) = repaired(json)?;
                (serde_json::from_str(&json).ok()?, replaced)
            }
        };
        let mut keys: Option<Vec<String>> = None;
        let mut length = None;
        let mut columns = Vec::new();
        for (name, value) in object {
            let values: Vec<Value> = match value {
                Value::Array(values) => values,
                Value::Object(values) => {
                    let own: Vec<String> = values.keys().cloned().collect();
                    let numbers = own.iter().all(|key| key.parse::<u64>().is_ok());
                    if !numbers || keys.get_or_insert_with(|| own.clone()) != &own {
                        return None;
                    }
                    in_order(values)
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
            if *length.get_or_insert(values.len()) != values.len() {
                return None;
            }
            if fields
                .names()
                .iter()
                .any(|field| behind(field, &name).is_some())
            {
                if values.iter().any(Value::is_object) {
                    return None;
                }
                columns.push((name, values));
            }
        }
        (!columns.is_empty()).then_some(Columns { columns, replaced })
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.columns
            .first()
            .map_or(0, |(_, values)| values.len() as u64)
    }

    /// Row `index`, which must be one, as an object.
    pub fn row(&self, index: u64) -> String {
        let fields = self.columns.iter();
        let fields = fields.map(|(name, values)| (name.clone(), values[index as usize].clone()));
        Value::Object(fields.collect()).to_string()
    }
}

/// The values in the order of their keys, which are numbers.
fn in_order(values: Map<String, Value>) -> Vec<Value> {
    let mut values: Vec<(u64, Value)> = values
        .into_iter()
        .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
        .collect();
    values.sort_by_key(|(key, _)| *key);
    values.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str, field: &str) -> Option<Vec<String>> {
        let columns = Columns::of(json, &field.into())?;
        Some(
            (0..columns.rows())
                .map(|index| columns.row(index))
                .collect(),
        )
    }

    #[test]
    fn lists_and_numbered_objects_are_columns() {
        for json in [
            r#"{"text": ["a", null], "id": [1, NaN]}"#,
            r#"{"text": {"0": "a", "1": null}, "id": {"0": 1, "1": 2}}"#,
            // Keys as pandas has them after a filter, and in the order of text.
            r#"{"text": {"10": null, "9": "a"}}"#,
        ] {
            let found = rows(json, "text").unwrap();
            assert_eq!(found, [r#"{"text":"a"}"#, r#"{"text":null}"#], "{json}");
        }
        let talks = r#"{"messages": [[{"content": "a"}], [{"content": "b"}]]}"#;
        assert_eq!(rows(talks, "messages").unwrap().len(), 2);
        assert_eq!(
            Columns::of(r#"{"text": ["\ud83d"]}"#, &"text".into())
                .unwrap()
                .replaced,
            1
        );
    }

    #[test]
    fn a_row_is_no_column() {
        for json in [
            r#"{"text": "a"}"#,
            r#"{"text": ["a", "b"], "id": 1}"#,
            r#"{"text": ["a", "b"], "id": [1]}"#,
            r#"{"text": [{"content": "a"}, {"content": "b"}]}"#,
            r#"{"text": {"en": "a"}}"#,
            r#"{"text": {"0": "a"}, "id": {"1": 1}}"#,
            r#"{"other": ["a", "b"]}"#,
            r#"["a"]"#,
        ] {
            assert_eq!(rows(json, "text"), None, "{json}");
        }
    }
}
