//! Layer normalization and its derivative as operators of ONNX Runtime.
//!
//! ONNX Runtime's own takes the variance as the mean of squares less the square of the mean, up to 1.26: with a mean
//! of 1,000, as the residual stream of a pre-LN model may have, nothing is left of it. Here it is the mean of squared
//! differences from the mean.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{Shared, input, output, shape};
use super::vector::widest;
use crate::kernels::attention::Pass;

/// Rows that one thread takes at a time; the derivative's sums for scale and bias are gathered over them, so that
/// the order of additions is the same on any number of threads.
const ROWS: usize = 64;

/// The operator, in f32.
pub(super) struct LayerNorm(pub Pass);

impl Operator for LayerNorm {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        match self.0 {
            Pass::Forward => "LayerNormalization",
            Pass::Backward => "LayerNormalizationGrad",
        }
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let count = match self.0 {
            Pass::Forward => 3,
            Pass::Backward => 5,
        };
        std::iter::repeat_n(TensorElementType::Float32, count).map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let one = TensorElementType::Float32;
        match self.0 {
            // The statistics serve the derivative alone.
            Pass::Forward => vec![
                OperatorOutput::required(one),
                OperatorOutput::optional(one),
                OperatorOutput::optional(one),
            ],
            Pass::Backward => (0..3).map(|_| OperatorOutput::required(one)).collect(),
        }
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        Ok(match self.0 {
            Pass::Forward => Node::Forward {
                epsilon: node
                    .get("epsilon")
                    .ok_or_else(|| ort::Error::new("the node has no attribute 'epsilon'"))?,
            },
            Pass::Backward => Node::Backward,
        })
    }
}

/// A node of a graph.
pub(super) enum Node {
    Forward { epsilon: f32 },
    Backward,
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        match *self {
            Node::Forward { epsilon } => layer_norm(context, epsilon),
            Node::Backward => layer_norm_grad(context),
        }
    }
}

fn layer_norm(context: &ComputeContext, epsilon: f32) -> ort::Result<()> {
    let [x, scale, bias] = [0, 1, 2].map(|i| input::<f32>(context, i));
    let (x, scale, bias) = (x?, scale?, bias?);
    let width = scale.len();
    if width == 0 || bias.len() != width || !x.len().is_multiple_of(width) {
        return Err(ort::Error::new("input, scale and bias do not fit"));
    }
    let rows = x.len() / width;
    let whole = shape(context, 0)?;
    let mut statistics = whole.clone();
    if let Some(last) = statistics.last_mut() {
        *last = 1;
    }
    let y = output(context, 0, whole)?;
    let kept = match context.num_outputs()? {
        3.. => Some((
            output(context, 1, statistics.clone())?,
            output(context, 2, statistics)?,
        )),
        _ => None,
    };
    context.par_for(rows.div_ceil(ROWS), 0, |block| {
        for row in block * ROWS..((block + 1) * ROWS).min(rows) {
            let range = row * width..(row + 1) * width;
            // SAFETY: the output has as many elements as the input, and every row is written once.
            let y = unsafe { y.part(range.clone()) };
            let found = normalized(y, &x[range], scale, bias, epsilon);
            if let Some((mean, inverse)) = kept {
                // SAFETY: both have an element for every row, which is written once.
                unsafe {
                    mean.part(row..row + 1)[0] = found[0];
                    inverse.part(row..row + 1)[0] = found[1];
                }
            }
        }
    })
}

/// Partial sums of a row, so that a vector holds them.
const LANES: usize = 16;

/// The sum over a row of what `term` makes of its elements.
#[inline(always)]
fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let mut whole = x.chunks_exact(LANES);
    for part in &mut whole {
        sums.iter_mut().zip(part).for_each(|(s, &x)| *s += term(x));
    }
    for (s, &x) in sums.iter_mut().zip(whole.remainder()) {
        *s += term(x);
    }
    sums.iter().sum()
}

widest! {
    /// One row: y = (x − mean) / √(variance + epsilon) · scale + bias. Returns the mean and the factor of x − mean.
    fn normalized(y: &mut [f32], x: &[f32], scale: &[f32], bias: &[f32], epsilon: f32) -> [f32; 2] {
        let width = x.len() as f32;
        let near = sum(x, |x| x) / width;
        // What rounding has left of a large mean.
        let rest = sum(x, |x| x - near) / width;
        let mean = near + rest;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / width;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for (((y, x), scale), bias) in y.iter_mut().zip(x).zip(scale).zip(bias) {
            *y = (x - mean) * inverse * scale + bias;
        }
        [mean, inverse]
    }
}

fn layer_norm_grad(context: &ComputeContext) -> ort::Result<()> {
    let [dy, x, scale, mean, inverse] = [0, 1, 2, 3, 4].map(|i| input::<f32>(context, i));
    let (dy, x, scale, mean, inverse) = (dy?, x?, scale?, mean?, inverse?);
    let width = scale.len();
    let rows = mean.len();
    if dy.len() != x.len() || x.len() != rows * width || inverse.len() != rows {
        return Err(ort::Error::new("gradient, input and statistics do not fit"));
    }
    let dx = output(context, 0, shape(context, 1)?)?;
    let d_scale = output(context, 1, vec![width as i64])?;
    let d_bias = output(context, 2, vec![width as i64])?;
    let blocks = rows.div_ceil(ROWS);
    let mut parts = vec![0.0f32; blocks * 2 * width];
    let shared = Shared(parts.as_mut_ptr());
    context.par_for(blocks, 0, |block| {
        // SAFETY: every block has its own part of the sums, which nothing else refers to meanwhile.
        let sums = unsafe { shared.part(block * 2 * width..(block + 1) * 2 * width) };
        let (d_scale, d_bias) = sums.split_at_mut(width);
        for row in block * ROWS..((block + 1) * ROWS).min(rows) {
            let range = row * width..(row + 1) * width;
            // SAFETY: the output has as many elements as the input, and every row is written once.
            let dx = unsafe { dx.part(range.clone()) };
            let (dy, x) = (&dy[range.clone()], &x[range]);
            norm_row(dx, d_scale, d_bias, dy, x, scale, [mean[row], inverse[row]]);
        }
    })?;
    // SAFETY: both outputs have a row's width, and the threads are done.
    let (d_scale, d_bias) = unsafe { (d_scale.part(0..width), d_bias.part(0..width)) };
    d_scale.fill(0.0);
    d_bias.fill(0.0);
    for part in parts.chunks_exact((2 * width).max(1)) {
        let (of_scale, of_bias) = part.split_at(width);
        d_scale.iter_mut().zip(of_scale).for_each(|(s, x)| *s += x);
        d_bias.iter_mut().zip(of_bias).for_each(|(s, x)| *s += x);
    }
    Ok(())
}

widest! {
    /// One row: its gradient, and what it adds to those of scale and bias.
    fn norm_row(
        dx: &mut [f32],
        d_scale: &mut [f32],
        d_bias: &mut [f32],
        dy: &[f32],
        x: &[f32],
        scale: &[f32],
        statistics: [f32; 2],
    ) {
        let [mean, inverse] = statistics;
        let width = dx.len();
        let (dy, x, scale) = (&dy[..width], &x[..width], &scale[..width]);
        let (d_scale, d_bias) = (&mut d_scale[..width], &mut d_bias[..width]);
        let (mut sums, mut products) = ([0.0f32; LANES], [0.0f32; LANES]);
        let whole = width - width % LANES;
        for start in (0..whole).step_by(LANES) {
            for lane in 0..LANES {
                let i = start + lane;
                let normal = (x[i] - mean) * inverse;
                let g = dy[i] * scale[i];
                d_scale[i] += dy[i] * normal;
                d_bias[i] += dy[i];
                sums[lane] += g;
                products[lane] += g * normal;
                dx[i] = g;
            }
        }
        for i in whole..width {
            let normal = (x[i] - mean) * inverse;
            let g = dy[i] * scale[i];
            d_scale[i] += dy[i] * normal;
            d_bias[i] += dy[i];
            sums[0] += g;
            products[0] += g * normal;
            dx[i] = g;
        }
        let a = sums.iter().sum::<f32>() / width as f32;
        let b = products.iter().sum::<f32>() / width as f32;
        for (dx, x) in dx.iter_mut().zip(x) {
            let normal = (x - mean) * inverse;
            *dx = (*dx - a - normal * b) * inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn floats(seed: u64, count: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
    }

    #[test]
    fn rows_are_normalized_as_in_f64_whatever_their_mean() {
        for (width, mean, bound) in [
            (1, 0.0, 1e-6),
            (37, 0.0, 2e-6),
            (256, 100.0, 2e-5),
            (768, 1000.0, 2e-4),
            (768, -1e5, 2e-2),
        ] {
            let (scale, bias) = (floats(1, width), floats(2, width));
            let x: Vec<f32> = floats(3, width).iter().map(|x| x + mean).collect();
            let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let exact = wide.iter().sum::<f64>() / width as f64;
            let squares = wide.iter().map(|x| (x - exact).powi(2)).sum::<f64>();
            let inverse = 1.0 / (squares / width as f64 + 1e-5).sqrt();
            let mut y = vec![f32::NAN; width];
            let found = normalized(&mut y, &x, &scale, &bias, 1e-5);
            assert!((f64::from(found[0]) - exact).abs() <= 1e-6 * exact.abs().max(1.0));
            assert!(
                (f64::from(found[1]) / inverse - 1.0).abs() < bound,
                "{width}, {mean}"
            );
            for i in 0..width {
                let normal = (wide[i] - exact) * inverse;
                let expected = normal * f64::from(scale[i]) + f64::from(bias[i]);
                let off = (f64::from(y[i]) - expected).abs();
                assert!(off < bound, "{width}, {mean}: {off}");
            }
        }
    }

    #[test]
    fn a_row_of_layer_normalization_has_the_derivative_of_its_formula() {
        for width in [1, 2, 16, 37, 256] {
            let (dy, x, scale) = (floats(3, width), floats(4, width), floats(5, width));
            let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let n = width as f64;
            let mean = wide.iter().sum::<f64>() / n;
            let variance = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let inverse = 1.0 / (variance + 1e-5).sqrt();
            let normal: Vec<f64> = wide.iter().map(|v| (v - mean) * inverse).collect();
            let g: Vec<f64> = dy
                .iter()
                .zip(&scale)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .collect();
            let a = g.iter().sum::<f64>() / n;
            let b = g.iter().zip(&normal).map(|(g, x)| g * x).sum::<f64>() / n;
            let mut dx = vec![f32::NAN; width];
            let (mut d_scale, mut d_bias) = (vec![1.0; width], vec![2.0; width]);
            let statistics = [mean as f32, inverse as f32];
            norm_row(
                &mut dx,
                &mut d_scale,
                &mut d_bias,
                &dy,
                &x,
                &scale,
                statistics,
            );
            for i in 0..width {
                let dy = f64::from(dy[i]);
                for (found, expected) in [
                    (dx[i], (g[i] - a - normal[i] * b) * inverse),
                    (d_scale[i], 1.0 + dy * normal[i]),
                    (d_bias[i], 2.0 + dy),
                ] {
                    let off = (f64::from(found) - expected).abs();
                    // One element alone is normalised to nothing, times the root of 1 / 1e-5.
                    assert!(
                        off < 2e-5 * (1.0 + expected.abs()),
                        "{found}, not {expected}"
                    );
                }
            }
        }
    }
}
