//! What a pickle says about storages and tensors, checked before it is believed.

use super::class::Class;
use super::value::{Id, MAX_NAME, Node, Refusal, Storage, Values, View};

/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

fn node(nodes: &[Node], id: Id) -> &Node {
    nodes.get(id as usize).unwrap_or(&Node::None)
}

fn number(nodes: &[Node], id: Id) -> Option<usize> {
    match node(nodes, id) {
        Node::Int(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

fn numbers(nodes: &[Node], id: Id) -> Option<Vec<usize>> {
    match node(nodes, id) {
        Node::Tuple(items) | Node::List(items) if items.len() <= MAX_DIMENSIONS => {
            items.iter().map(|i| number(nodes, *i)).collect()
        }
        _ => None,
    }
}

/// The storage of a persistent id: ('storage', type, key, device, number of elements, …).
pub fn declared_storage(nodes: &[Node], id: Id) -> Result<Storage, Refusal> {
    let strange = || "its pickle refers to something that is no storage".to_owned();
    let Node::Tuple(parts) = node(nodes, id) else {
        return Err(strange());
    };
    let [what, class, key, _device, len, rest @ ..] = parts.as_slice() else {
        return Err(strange());
    };
    let (Node::Text(what), Node::Class(Class::Storage(element)), Node::Text(key), Some(len)) = (
        node(nodes, *what),
        node(nodes, *class),
        node(nodes, *key),
        number(nodes, *len),
    ) else {
        return Err(strange());
    };
    // Legacy files could say that a storage is a part of another one.
    let whole = rest.iter().all(|v| *node(nodes, *v) == Node::None);
    if what != "storage" || !whole || key.len() > MAX_NAME {
        return Err(strange());
    }
    Ok(Storage {
        key: key.clone(),
        element: *element,
        len,
    })
}

/// The tensor of (storage, offset, shape, strides, …): it must lie within its storage, and may not
/// have more elements than that.
pub fn declared_view(nodes: &[Node], arguments: &[Id]) -> Result<View, Refusal> {
    let [storage, offset, shape, strides, ..] = arguments else {
        return Err("its pickle has a tensor without storage and shape".into());
    };
    let (Node::Storage(store), Some(offset), Some(shape), Some(strides)) = (
        node(nodes, *storage),
        number(nodes, *offset),
        numbers(nodes, *shape),
        numbers(nodes, *strides),
    ) else {
        return Err("its pickle has a tensor of no storage or shape".into());
    };
    let count = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let last = shape
        .iter()
        .zip(&strides)
        .try_fold(offset, |at, (&dim, &stride)| {
            at.checked_add(dim.saturating_sub(1).checked_mul(stride)?)
        });
    let fits = match (count, last) {
        (Some(0), Some(_)) => offset <= store.len,
        (Some(count), Some(last)) => count <= store.len && last < store.len,
        (None, _) | (_, None) => false,
    };
    if !fits || shape.len() != strides.len() {
        return Err(format!(
            "its pickle has a tensor of shape {shape:?} and strides {strides:?} at {offset}, outside its \
             storage of {} elements",
            store.len
        ));
    }
    Ok(View {
        storage: *storage,
        offset,
        shape,
        strides,
    })
}

/// The storages that the tensors of a pickle lie in, by key; one key must always mean the same.
pub fn storages(values: &Values) -> Result<Vec<Storage>, Refusal> {
    let mut found: std::collections::BTreeMap<&str, &Storage> = std::collections::BTreeMap::new();
    for node in &values.nodes {
        if let Node::Storage(storage) = node {
            let known = found.entry(&storage.key).or_insert(storage);
            if *known != storage {
                return Err(format!(
                    "its storage '{}' is declared in two ways",
                    storage.key
                ));
            }
        }
    }
    Ok(found.into_values().cloned().collect())
}
