//! What lies between the matrix products, as operators of ONNX Runtime, each in one pass.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{Shared, chunks, input, output};
use super::vector::{exp, gaussian, widest};

/// Rows whose sums for scale and bias are gathered together: the order of additions is the same on any number of
/// threads.
const NORM_ROWS: usize = 64;

/// Which operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dropout,
    GeluGrad,
    FastGeluGrad,
    LayerNormGrad,
}

/// The operator, in f32.
pub(super) struct Elementwise(pub Kind);

impl Operator for Elementwise {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        match self.0 {
            Kind::Dropout => "MaskDropout",
            Kind::GeluGrad => "GeluGrad",
            Kind::FastGeluGrad => "FastGeluGrad",
            Kind::LayerNormGrad => "LayerNormalizationGrad",
        }
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Uint8};
        let types = match self.0 {
            Kind::Dropout => vec![Float32, Uint8],
            Kind::GeluGrad | Kind::FastGeluGrad => vec![Float32; 2],
            Kind::LayerNormGrad => vec![Float32; 5],
        };
        types.into_iter().map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let count = match self.0 {
            Kind::Dropout | Kind::GeluGrad | Kind::FastGeluGrad => 1,
            Kind::LayerNormGrad => 3,
        };
        std::iter::repeat_n(TensorElementType::Float32, count).map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let ratio = match self.0 {
            Kind::Dropout => node
                .get("ratio")
                .ok_or_else(|| ort::Error::new("the node has no attribute 'ratio'"))?,
            Kind::GeluGrad | Kind::FastGeluGrad | Kind::LayerNormGrad => 0.0,
        };
        Ok(Node {
            kind: self.0,
            ratio,
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    kind: Kind,
    ratio: f32,
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        match self.kind {
            Kind::Dropout => dropout(context, self.ratio),
            Kind::GeluGrad => by_elements(context, gelu_grad),
            Kind::FastGeluGrad => by_elements(context, fast_gelu_grad),
            Kind::LayerNormGrad => layer_norm_grad(context),
        }
    }
}

/// The shape of an input.
fn shape(context: &ComputeContext, index: usize) -> ort::Result<Vec<i64>> {
    let value = context.input(index)?;
    let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
    Ok(value.shape().to_vec())
}

fn dropout(context: &ComputeContext, ratio: f32) -> ort::Result<()> {
    let (x, keep) = (input::<f32>(context, 0)?, input::<u8>(context, 1)?);
    let y = output(context, 0, shape(context, 0)?)?;
    if x.len() != keep.len() {
        return Err(ort::Error::new("input and mask have different sizes"));
    }
    let scale = 1.0 / (1.0 - ratio);
    chunks(context, x.len(), |range| {
        // SAFETY: the output has as many elements, and every chunk is written once.
        let y = unsafe { y.part(range.clone()) };
        mask(y, &x[range.clone()], &keep[range], scale);
    })
}

widest! {
    /// y = x · scale where the mask is 1, 0 where it is 0.
    fn mask(y: &mut [f32], x: &[f32], keep: &[u8], scale: f32) {
        for ((y, x), &kept) in y.iter_mut().zip(x).zip(keep) {
            *y = x * (f32::from(kept) * scale);
        }
    }
}

/// Runs `slope` on (dx, dy, x), a chunk at a time.
fn by_elements(context: &ComputeContext, slope: fn(&mut [f32], &[f32], &[f32])) -> ort::Result<()> {
    let (dy, x) = (input::<f32>(context, 0)?, input::<f32>(context, 1)?);
    let dx = output(context, 0, shape(context, 1)?)?;
    if dy.len() != x.len() {
        return Err(ort::Error::new("gradient and input have different sizes"));
    }
    chunks(context, x.len(), |range| {
        // SAFETY: the output has as many elements, and every chunk is written once.
        let dx = unsafe { dx.part(range.clone()) };
        slope(dx, &dy[range.clone()], &x[range]);
    })
}

widest! {
    /// dx = dy · (Φ(x) + x·φ(x))
    fn gelu_grad(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        // 1 / √(2π)
        const DENSITY: f32 = 0.398_942_3;
        for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            let (e, erfc) = gaussian(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
            let tail = 0.5 * erfc;
            let below = if x < 0.0 { tail } else { 1.0 - tail };
            *dx = dy * (below + x * DENSITY * e);
        }
    }
}

widest! {
    /// The same for the approximation by a hyperbolic tangent.
    fn fast_gelu_grad(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        // √(2/π)
        const SCALE: f32 = 0.797_884_6;
        const CUBIC: f32 = 0.044_715;
        for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(x) {
            // Farther out the slope is 0 or 1, and the cube may overflow.
            let x = x.clamp(-20.0, 20.0);
            let square = x * x;
            let argument = SCALE * x * (1.0 + CUBIC * square);
            // (1 + tanh a) / 2 = 1 / (1 + e^(−2a)), and (1 − tanh² a) / 2 = 2 · that · (1 − that).
            let e = exp((-2.0 * argument).min(87.0));
            let below = 1.0 / (1.0 + e);
            let above = e * below;
            let inner = SCALE * (1.0 + 3.0 * CUBIC * square);
            *dx = dy * (below + 2.0 * x * below * above * inner);
        }
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
    let blocks = rows.div_ceil(NORM_ROWS);
    let mut parts = vec![0.0f32; blocks * 2 * width];
    let shared = Shared(parts.as_mut_ptr());
    context.par_for(blocks, 0, |block| {
        // SAFETY: every block has its own part of the sums, which nothing else refers to meanwhile.
        let sums = unsafe { shared.part(block * 2 * width..(block + 1) * 2 * width) };
        let (d_scale, d_bias) = sums.split_at_mut(width);
        for row in block * NORM_ROWS..((block + 1) * NORM_ROWS).min(rows) {
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
        const LANES: usize = 16;
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

    /// Φ(x) + x·φ(x) and the derivative of the approximation, in f64.
    fn slopes(x: f64) -> [f64; 2] {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let exact = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2) + x * density;
        let scale = (2.0 / std::f64::consts::PI).sqrt();
        let t = (scale * (x + 0.044715 * x * x * x)).tanh();
        let inner = scale * (1.0 + 3.0 * 0.044715 * x * x);
        [exact, 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner]
    }

    #[test]
    fn slopes_of_gelu_are_exact_to_six_places() {
        let mut x = floats(1, 1000);
        x.extend([-1e30, -40.0, -9.0, -0.0, 0.0, 1e-20, 9.0, 40.0, 1e30]);
        let dy = floats(2, x.len());
        for which in [0, 1] {
            let mut dx = vec![f32::NAN; x.len()];
            match which {
                0 => gelu_grad(&mut dx, &dy, &x),
                _ => fast_gelu_grad(&mut dx, &dy, &x),
            }
            for ((dx, dy), x) in dx.iter().zip(&dy).zip(&x) {
                // Far out the slope is 0 or 1; there its formula has ∞ · 0.
                let [exact, fast] = slopes(f64::from(x.clamp(-100.0, 100.0)));
                let expected = f64::from(*dy) * [exact, fast][which];
                let off = (f64::from(*dx) - expected).abs();
                assert!(off < 1e-6, "{which}: {dx} at {x}, not {expected}");
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
