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

/// The type of an elementwise operator with operands of one element type.
pub(super) fn infer(inputs: &[&Type], result: Option<DType>) -> Result<Vec<Type>, String> {
    let [a, b] = inputs else {
        return Err(format!("takes 2 inputs, not {}", inputs.len()));
    };
    if a.dtype != b.dtype {
        return Err("operands of different element types".to_owned());
    }
    Ok(vec![Type::new(
        result.unwrap_or(a.dtype),
        shape(&a.shape, &b.shape)?,
    )])
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

/// The type of an operator on two floats of one shape: a gradient and what it refers to.
pub(super) fn same_floats(inputs: &[&Type]) -> Result<Vec<Type>, String> {
    match inputs {
        [a, b] if a == b && a.dtype.is_float() => Ok(vec![(*a).clone()]),
        [_, _] => Err("takes two floats of one shape".to_owned()),
        _ => Err(format!("takes 2 inputs, not {}", inputs.len())),
    }
}
