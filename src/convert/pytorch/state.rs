//! An opened PyTorch file: its dictionaries, and its tensors as ranges of the file.

use super::value::{Id, Node, Values};
use crate::convert::tensors::{Tensor, TensorFile};
use std::collections::HashMap;
use std::sync::Arc;

/// A PyTorch file.
#[derive(Debug)]
pub struct PyTorchFile {
    file: Arc<TensorFile>,
    values: Values,
    /// Where each storage begins, by key.
    offsets: HashMap<String, u64>,
}

/// A value of a file.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    file: &'a PyTorchFile,
    id: Id,
}

impl PyTorchFile {
    /// What was read of `file`.
    pub(super) fn new(
        file: &Arc<TensorFile>,
        values: Values,
        offsets: HashMap<String, u64>,
    ) -> PyTorchFile {
        PyTorchFile {
            file: file.clone(),
            values,
            offsets,
        }
    }

    /// What was saved.
    pub fn root(&self) -> Entry<'_> {
        Entry {
            file: self,
            id: self.values.root,
        }
    }
}

impl<'a> Entry<'a> {
    fn at(self, id: Id) -> Entry<'a> {
        Entry {
            file: self.file,
            id,
        }
    }

    fn node(self) -> &'a Node {
        self.file.values.get(self.id)
    }

    /// The value under `key` of a dictionary or namespace.
    pub fn field(self, key: &str) -> Option<Entry<'a>> {
        Some(self.at(self.file.values.field(self.id, key)?))
    }

    /// The entries with text keys of a dictionary or namespace, in order.
    pub fn entries(self) -> Option<Vec<(&'a str, Entry<'a>)>> {
        let entries = self.file.values.entries(self.id)?;
        Some(entries.into_iter().map(|(k, v)| (k, self.at(v))).collect())
    }

    /// The entries with whole-number keys of a dictionary.
    pub fn numbered(self) -> Option<HashMap<usize, Entry<'a>>> {
        let Node::Dict(pairs) = self.node() else {
            return None;
        };
        let entries = pairs.iter();
        Some(
            entries
                .filter_map(|(k, v)| Some((self.file.values.index(*k)?, self.at(*v))))
                .collect(),
        )
    }

    /// The items of a list or tuple.
    pub fn items(self) -> Option<Vec<Entry<'a>>> {
        match self.node() {
            Node::List(items) | Node::Tuple(items) => {
                Some(items.iter().map(|i| self.at(*i)).collect())
            }
            _ => None,
        }
    }

    /// A text.
    pub fn text(self) -> Option<&'a str> {
        self.file.values.text(self.id)
    }

    /// A whole number, not negative.
    pub fn index(self) -> Option<usize> {
        self.file.values.index(self.id)
    }

    /// A truth value.
    pub fn truth(self) -> Option<bool> {
        match self.node() {
            Node::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// A number.
    pub fn number(self) -> Option<f64> {
        match self.node() {
            Node::Float(x) => Some(*x),
            Node::Int(n) => Some(*n as f64),
            _ => None,
        }
    }

    /// A tensor.
    pub fn tensor(self) -> Option<Tensor> {
        let Node::Tensor(view) = self.node() else {
            return None;
        };
        let Node::Storage(storage) = self.file.values.get(view.storage) else {
            return None;
        };
        let start = self.file.offsets.get(&storage.key)?;
        let mut expected = 1;
        let mut contiguous = true;
        for (&dim, &stride) in view.shape.iter().zip(&view.strides).rev() {
            contiguous &= dim == 1 || stride == expected;
            expected *= dim.max(1);
        }
        Some(Tensor {
            file: self.file.file.clone(),
            offset: start + (view.offset * storage.element.size()) as u64,
            element: storage.element,
            shape: view.shape.clone(),
            strides: (!contiguous).then(|| view.strides.clone()),
        })
    }
}
