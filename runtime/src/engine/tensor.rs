//! Tensors of the host as ONNX Runtime takes and gives them, and checks of their names and sizes.

use std::collections::HashMap;

use ort::value::{DynTensor, DynValueRef, TensorElementType, TensorRef};

use super::{EngineError, Result, Tensor, TensorData};

/// The tensor as ONNX Runtime's value, over its own memory.
///
/// # Errors
/// ONNX Runtime refuses the shape.
pub(super) fn borrow(tensor: &Tensor) -> ort::Result<DynValueRef<'_>> {
    let shape = tensor.shape.as_slice();
    Ok(match &tensor.data {
        TensorData::F32(values) => {
            TensorRef::from_array_view((shape, values.as_slice()))?.into_dyn()
        }
        TensorData::I64(values) => {
            TensorRef::from_array_view((shape, values.as_slice()))?.into_dyn()
        }
        TensorData::U8(values) => {
            TensorRef::from_array_view((shape, values.as_slice()))?.into_dyn()
        }
        TensorData::U32(values) => {
            TensorRef::from_array_view((shape, values.as_slice()))?.into_dyn()
        }
        TensorData::Bool(values) => {
            TensorRef::from_array_view((shape, values.as_slice()))?.into_dyn()
        }
    })
}

/// An output copied to the host.
///
/// # Errors
/// Its type is none of [`TensorData`].
pub(super) fn copy_out(name: &str, output: &DynTensor) -> Result<Tensor> {
    let shape = output
        .shape()
        .iter()
        .map(|&dimension| usize::try_from(dimension).unwrap_or(0))
        .collect();
    let read = EngineError::runtime(format!("read the output '{name}'"));
    let data = match output.data_type() {
        TensorElementType::Float32 => output
            .try_extract_tensor()
            .map(|(_, values)| TensorData::F32(values.to_vec())),
        TensorElementType::Int64 => output
            .try_extract_tensor()
            .map(|(_, values)| TensorData::I64(values.to_vec())),
        TensorElementType::Uint8 => output
            .try_extract_tensor()
            .map(|(_, values)| TensorData::U8(values.to_vec())),
        TensorElementType::Bool => output
            .try_extract_tensor()
            .map(|(_, values)| TensorData::Bool(values.to_vec())),
        other => {
            return Err(EngineError::OutputType {
                name: name.to_owned(),
                found: other.to_string(),
            });
        }
    };
    Ok(Tensor {
        name: name.to_owned(),
        shape,
        data: data.map_err(read)?,
    })
}

/// Checks that there are as many elements as the shape says.
///
/// # Errors
/// There are more or fewer.
pub(super) fn check_length(name: &str, shape: &[usize], length: usize) -> Result<()> {
    let expected = shape
        .iter()
        .try_fold(1usize, |product, &dimension| product.checked_mul(dimension));
    if expected == Some(length) {
        return Ok(());
    }
    Err(EngineError::Length {
        name: name.to_owned(),
        shape: shape.to_vec(),
        length,
    })
}

/// The items by their names.
///
/// # Errors
/// Two have the same.
pub(super) fn by_name<'a, T>(
    items: &'a [T],
    name: impl Fn(&'a T) -> &'a String,
) -> Result<HashMap<&'a str, &'a T>> {
    let mut found = HashMap::with_capacity(items.len());
    for item in items {
        if found.insert(name(item).as_str(), item).is_some() {
            return Err(EngineError::Duplicate {
                name: name(item).clone(),
            });
        }
    }
    Ok(found)
}
