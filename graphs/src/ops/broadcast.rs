//! Broadcasting, shared by the elementwise operators.

use crate::ir::{Array, DType, Dim, Type};
use ndarray::{IxDyn, Zip};

/// The shape of two operands broadcast against each other (ONNX's multidirectional rule).
pub(super) fn shape(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let one = Dim::from(1);
    let at = |s: &[Dim], i: usize| {
        (i + s.len())
            .checked_sub(rank)
            .map_or_else(|| one.clone(), |i| s[i].clone())
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (x, y) if x.is(1) => Ok(y),
            (x, y) if y.is(1) => Ok(x),
            (x, y) => Err(format!("dimension {i} is {x} in one and {y} in the other")),
        })
        .collect()
}

/// The type of an elementwise operator with operands of one element type among `allowed`.
pub(super) fn elementwise(inputs: &[&Type], allowed: &[DType]) -> Result<Vec<Type>, String> {
    let [a, b] = inputs else {
        return Err(format!("takes 2 inputs, not {}", inputs.len()));
    };
    if a.dtype != b.dtype {
        return Err("operands of different element types".to_owned());
    }
    if !allowed.contains(&a.dtype) {
        let allowed: Vec<String> = allowed.iter().map(DType::to_string).collect();
        return Err(format!("takes {}, not {}", allowed.join(" or "), a.dtype));
    }
    Ok(vec![Type::new(a.dtype, shape(&a.shape, &b.shape)?)])
}

/// Evaluates `f` over two broadcast operands.
pub(super) fn evaluate(
    inputs: &[&Array],
    f: impl Fn(f64, f64) -> f64,
) -> Result<Vec<Array>, String> {
    let (a, b) = (inputs[0], inputs[1]);
    let rank = a.ndim().max(b.ndim());
    let at = |x: &Array, i: usize| (i + x.ndim()).checked_sub(rank).map_or(1, |i| x.shape()[i]);
    let dims: Vec<usize> = (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (1, y) => y,
            (x, _) => x,
        })
        .collect();
    let shape = IxDyn(&dims);
    let (a, b) = (
        a.broadcast(shape.clone())
            .ok_or("shapes do not broadcast")?,
        b.broadcast(shape.clone())
            .ok_or("shapes do not broadcast")?,
    );
    let mut out = Array::zeros(shape);
    Zip::from(&mut out)
        .and(&a)
        .and(&b)
        .for_each(|o, &x, &y| *o = f(x, y));
    Ok(vec![out])
}

/// The only input of a unary operator on floats.
pub(super) fn unary(inputs: &[&Type]) -> Result<Vec<Type>, String> {
    match inputs {
        [x] if x.dtype.is_float() => Ok(vec![(*x).clone()]),
        [x] => Err(format!("takes floats, not {}", x.dtype)),
        _ => Err(format!("takes 1 input, not {}", inputs.len())),
    }
}

/// [`unary`] over the last dimension.
pub(super) fn unary_rows(inputs: &[&Type]) -> Result<Vec<Type>, String> {
    with_dimensions(unary(inputs)?)
}

/// [`same_floats`] over the last dimension.
pub(super) fn same_rows(inputs: &[&Type]) -> Result<Vec<Type>, String> {
    with_dimensions(same_floats(inputs)?)
}

fn with_dimensions(types: Vec<Type>) -> Result<Vec<Type>, String> {
    if types.iter().any(|ty| ty.rank() == 0) {
        return Err("takes tensors with dimensions".to_owned());
    }
    Ok(types)
}

/// The type of an operator on two floats of one shape: a gradient and what it refers to.
pub(super) fn same_floats(inputs: &[&Type]) -> Result<Vec<Type>, String> {
    match inputs {
        [a, b] if a == b && a.dtype.is_float() => Ok(vec![(*a).clone()]),
        [_, _] => Err("takes two floats of one shape".to_owned()),
        _ => Err(format!("takes 2 inputs, not {}", inputs.len())),
    }
}
