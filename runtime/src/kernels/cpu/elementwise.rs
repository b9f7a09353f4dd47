//! What lies between the matrix products, as operators of ONNX Runtime, each in one pass.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{chunks, input, output, shape};
use super::vector::{exp, gaussian, widest};

/// Which operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dropout,
    GeluGrad,
    FastGeluGrad,
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
        }
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Uint8};
        let types = match self.0 {
            Kind::Dropout => vec![Float32, Uint8],
            Kind::GeluGrad | Kind::FastGeluGrad => vec![Float32; 2],
        };
        types.into_iter().map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let ratio = match self.0 {
            Kind::Dropout => node
                .get("ratio")
                .ok_or_else(|| ort::Error::new("the node has no attribute 'ratio'"))?,
            Kind::GeluGrad | Kind::FastGeluGrad => 0.0,
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
        }
    }
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
}
