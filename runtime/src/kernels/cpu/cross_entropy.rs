//! Summed cross entropy and its derivative as operators of ONNX Runtime, each in one pass over the logits.

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{Shared, input, output};
use super::vector::{exp, widest};
use crate::kernels::attention::Pass;

/// The operator or its derivative.
pub(super) struct CrossEntropy(pub Pass);

impl Operator for CrossEntropy {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        match self.0 {
            Pass::Forward => "CrossEntropy",
            Pass::Backward => "CrossEntropyGrad",
        }
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int64};
        let types = match self.0 {
            // Logits and targets.
            Pass::Forward => vec![Float32, Int64],
            // The loss's gradient, log probabilities and targets.
            Pass::Backward => vec![Float32, Float32, Int64],
        };
        types.into_iter().map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let count = match self.0 {
            // The loss and log probabilities.
            Pass::Forward => 2,
            Pass::Backward => 1,
        };
        std::iter::repeat_n(TensorElementType::Float32, count).map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let missing = || ort::Error::new("the node has no attribute 'ignore_index'");
        Ok(Node {
            pass: self.0,
            ignored: node.get("ignore_index").ok_or_else(missing)?,
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    pass: Pass,
    /// Rows with this target count nothing.
    ignored: i64,
}

/// The columns of a matrix with a row for every target, and of every row the column of its target; none where it is
/// ignored.
fn columns(
    context: &ComputeContext,
    matrix: usize,
    ignored: i64,
) -> ort::Result<(usize, Vec<Option<usize>>)> {
    let value = context.input(matrix)?;
    let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
    let targets = input::<i64>(context, matrix + 1)?;
    let &[rows, width] = &value.shape()[..] else {
        return Err(ort::Error::new("the logits are no matrix"));
    };
    if usize::try_from(rows) != Ok(targets.len()) {
        return Err(ort::Error::new("there is not one target for every row"));
    }
    let column = |&target: &i64| match target {
        target if target == ignored => Ok(None),
        target if (0..width).contains(&target) => Ok(usize::try_from(target).ok()),
        target => Err(ort::Error::new(format!(
            "target {target} is not below {width}"
        ))),
    };
    let targets = targets.iter().map(column).collect::<ort::Result<_>>()?;
    Ok((usize::try_from(width).unwrap_or(0), targets))
}

impl Kernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        match self.pass {
            Pass::Forward => forward(context, self.ignored),
            Pass::Backward => backward(context, self.ignored),
        }
    }
}

fn forward(context: &ComputeContext, ignored: i64) -> ort::Result<()> {
    let (width, targets) = columns(context, 0, ignored)?;
    let logits = input::<f32>(context, 0)?;
    let loss = output(context, 0, Vec::new())?;
    let shape = [targets.len() as i64, width as i64];
    let log_probabilities = output(context, 1, shape.to_vec())?;
    let mut losses = vec![0.0f32; targets.len()];
    let of_rows = Shared(losses.as_mut_ptr());
    context.par_for(targets.len(), 0, |row| {
        let range = row * width..(row + 1) * width;
        // SAFETY: both have a part for every row, which is written once.
        let (results, loss) = unsafe {
            (
                log_probabilities.part(range.clone()),
                of_rows.part(row..row + 1),
            )
        };
        let logits = &logits[range];
        let shift = largest(logits);
        let log_sum = shift + log_sum_exp(logits, shift);
        shifted(results, logits, log_sum);
        if let Some(target) = targets[row] {
            loss[0] = -results[target];
        }
    })?;
    let sum: f64 = losses.into_iter().map(f64::from).sum();
    // SAFETY: the output has one element, and the threads are done.
    unsafe { loss.part(0..1)[0] = sum as f32 };
    Ok(())
}

fn backward(context: &ComputeContext, ignored: i64) -> ort::Result<()> {
    let (width, targets) = columns(context, 1, ignored)?;
    let d_loss = input::<f32>(context, 0)?.first().copied();
    let d_loss = d_loss.ok_or_else(|| ort::Error::new("the loss's gradient is empty"))?;
    let log_probabilities = input::<f32>(context, 1)?;
    let shape = [targets.len() as i64, width as i64];
    let gradients = output(context, 0, shape.to_vec())?;
    context.par_for(targets.len(), 0, |row| {
        let range = row * width..(row + 1) * width;
        // SAFETY: the output has a part for every row, which is written once.
        let gradient = unsafe { gradients.part(range.clone()) };
        match targets[row] {
            None => gradient.fill(0.0),
            Some(target) => {
                scaled_exp(gradient, &log_probabilities[range], d_loss);
                gradient[target] -= d_loss;
            }
        }
    })
}

widest! {
    fn largest(x: &[f32]) -> f32 {
        const LANES: usize = 16;
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut lines = x.chunks_exact(LANES);
        for line in &mut lines {
            for (largest, &x) in largest.iter_mut().zip(line) {
                *largest = if x > *largest { x } else { *largest };
            }
        }
        largest.iter().chain(lines.remainder()).copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

widest! {
    /// The logarithm of the sum of e^(x − shift).
    fn log_sum_exp(x: &[f32], shift: f32) -> f32 {
        const LANES: usize = 16;
        const BLOCK: usize = 64 * LANES;
        let mut sum = 0.0f64;
        for block in x.chunks(BLOCK) {
            let mut sums = [0.0f32; LANES];
            let mut lines = block.chunks_exact(LANES);
            for line in &mut lines {
                for (sum, x) in sums.iter_mut().zip(line) {
                    *sum += exp(x - shift);
                }
            }
            let rest: f32 = lines.remainder().iter().map(|x| exp(x - shift)).sum();
            sum += f64::from(sums.iter().sum::<f32>() + rest);
        }
        sum.ln() as f32
    }
}

widest! {
    fn shifted(y: &mut [f32], x: &[f32], shift: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - shift;
        }
    }
}

widest! {
    /// y = e^x · scale
    fn scaled_exp(y: &mut [f32], x: &[f32], scale: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = exp(x) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_exponentials_of_many_logits_are_exact_to_six_places() {
        for count in [1, 15, 16, 1025, 30_000] {
            let x: Vec<f32> = (0..count)
                .map(|i| (i * 37 % 101) as f32 / 10.0 - 20.0)
                .collect();
            let found = f64::from(log_sum_exp(&x, 2.0));
            let expected = x
                .iter()
                .map(|&x| (f64::from(x) - 2.0).exp())
                .sum::<f64>()
                .ln();
            assert!(
                (found - expected).abs() < 1e-6 * expected.abs(),
                "{count}: {found}"
            );
        }
    }
}
