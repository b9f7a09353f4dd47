//! What a pickle describes: nodes in one list that refer to each other by index, so that sharing,
//! cycles and depth cost nothing to hold and nothing to drop.

use super::class::Class;
use crate::convert::tensors::Element;
use std::collections::HashMap;

/// Longest name of a class or storage.
pub const MAX_NAME: usize = 256;

/// Why a pickle is refused.
pub type Refusal = String;

/// A node's index.
pub type Id = u32;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Its content is never needed.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Something importable, by its meaning here.
    Class(Class),
    /// Bytes elsewhere in the file.
    Storage(Storage),
    Tensor(View),
    /// `argparse.Namespace`, with the dictionary of its fields once that is set.
    Namespace(Option<Id>),
    /// A number too large, or an object of a harmless class whose content is not needed.
    Opaque,
}

/// A storage as the pickle declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    pub key: String,
    pub element: Element,
    /// Number of elements.
    pub len: usize,
}

/// A tensor as the pickle declares it, checked to lie within its storage.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub storage: Id,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// All nodes of a pickle, and the one that it is about.
#[derive(Debug)]
pub struct Values {
    pub nodes: Vec<Node>,
    pub root: Id,
}

impl Values {
    /// A node.
    pub fn get(&self, id: Id) -> &Node {
        static NONE: Node = Node::None;
        self.nodes.get(id as usize).unwrap_or(&NONE)
    }

    /// The text of a node that is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of a namespace's, with text keys; in order, the last of equal
    /// keys.
    pub fn entries(&self, id: Id) -> Option<Vec<(&str, Id)>> {
        let pairs = match self.get(id) {
            Node::Dict(pairs) => pairs,
            Node::Namespace(Some(fields)) => match self.get(*fields) {
                Node::Dict(pairs) => pairs,
                _ => return None,
            },
            _ => return None,
        };
        let mut places = HashMap::new();
        let mut entries: Vec<(&str, Id)> = Vec::new();
        for (key, value) in pairs {
            let Some(key) = self.text(*key) else { continue };
            match places.get(key) {
                Some(&place) => entries[place] = (key, *value),
                None => {
                    places.insert(key, entries.len());
                    entries.push((key, *value));
                }
            }
        }
        Some(entries)
    }

    /// The value under `key` of a dictionary or namespace.
    pub fn field(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?;
        entries
            .into_iter()
            .find_map(|(k, v)| (k == key).then_some(v))
    }

    /// A whole number that fits.
    pub fn index(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Node::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }
}
