//! What lies between the matrix products on NVIDIA GPUs: `elementwise.cu` as operators of ONNX Runtime.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ort::operator::{
    ComputeContext, Kernel as OrtKernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::memory::{device_allocator, input, output};
use super::module::{Kernel, Launch, Module, compiled};

const SOURCE: &str = include_str!("elementwise.cu");
const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;
/// Blocks at most: some for each multiprocessor of a large GPU; each goes on where it ends.
const BLOCKS: usize = 2048;
/// The same for layer normalization, whose blocks each leave sums behind.
const NORM_BLOCKS: usize = 396;

/// Which operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dropout,
    GeluGrad,
    FastGeluGrad,
    LayerNormGrad,
}

/// The operator for one type of floats.
pub(super) struct Elementwise {
    kind: Kind,
    element: TensorElementType,
    device_id: i32,
}

impl Elementwise {
    pub(super) fn new(kind: Kind, element: TensorElementType, device_id: i32) -> Self {
        Self {
            kind,
            element,
            device_id,
        }
    }
}

impl Operator for Elementwise {
    type Kernel<'attr> = Node;

    fn name(&self) -> &str {
        match self.kind {
            Kind::Dropout => "FactorDropout",
            Kind::GeluGrad => "GeluGrad",
            Kind::FastGeluGrad => "FastGeluGrad",
            Kind::LayerNormGrad => "LayerNormalizationGrad",
        }
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some(super::PROVIDER)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::Uint32;
        let types = match self.kind {
            Kind::Dropout => vec![self.element, Uint32, Uint32],
            Kind::GeluGrad | Kind::FastGeluGrad => vec![self.element; 2],
            Kind::LayerNormGrad => vec![self.element; 5],
        };
        types.into_iter().map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let count = match self.kind {
            Kind::Dropout | Kind::GeluGrad | Kind::FastGeluGrad => 1,
            Kind::LayerNormGrad => 3,
        };
        std::iter::repeat_n(self.element, count).map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node> {
        let ratio = match self.kind {
            Kind::Dropout => node
                .get("ratio")
                .ok_or_else(|| ort::Error::new("the node has no attribute 'ratio'"))?,
            Kind::GeluGrad | Kind::FastGeluGrad | Kind::LayerNormGrad => 0.0,
        };
        let element = match self.element {
            TensorElementType::Bfloat16 => 1,
            TensorElementType::Float16 => 2,
            _ => 0,
        };
        Ok(Node {
            kind: self.kind,
            element,
            ratio,
            device_id: self.device_id,
            modules: HashMap::new(),
        })
    }
}

/// A node of a graph.
pub(super) struct Node {
    kind: Kind,
    /// `ELEMENT` of the source.
    element: usize,
    ratio: f32,
    device_id: i32,
    /// By the width of rows.
    modules: HashMap<usize, Arc<Module>>,
}

impl Node {
    /// A kernel compiled for rows of that width; 0 where it knows none.
    fn kernel(&mut self, name: &'static str, width: usize) -> ort::Result<Kernel> {
        if !self.modules.contains_key(&width) {
            let mut definitions = vec![("ELEMENT", self.element)];
            if width > 0 {
                definitions.push(("WIDTH", width));
            }
            let module = compiled(SOURCE, definitions, self.device_id).map_err(ort::Error::new)?;
            self.modules.insert(width, module);
        }
        let module = &self.modules[&width];
        module.kernel(name, 0).map_err(ort::Error::new)
    }
}

/// A kernel's argument: the address of its value.
fn argument<T>(value: &T) -> *mut c_void {
    ptr::from_ref(value).cast_mut().cast()
}

fn grid(blocks: usize, most: usize) -> Launch {
    Launch {
        grid: [blocks.min(most), 1, 1],
        threads: THREADS,
        shared: 0,
    }
}

impl OrtKernel for Node {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let stream = context.stream()?.map_or(ptr::null_mut(), |s| s.as_ptr());
        let missing = || ort::Error::new("an input is missing");
        let shape = context.input(0)?.ok_or_else(missing)?.shape().to_vec();
        let count: i64 = shape.iter().product();
        let width = shape.last().copied().unwrap_or(1);
        let elements = usize::try_from(count).unwrap_or(0);
        let vector = if self.element == 0 { 4 } else { 8 };
        let launch = grid(elements.div_ceil(THREADS * vector), BLOCKS);
        let started = match self.kind {
            Kind::Dropout => {
                let (x, rows, columns) =
                    (input(context, 0)?, input(context, 1)?, input(context, 2)?);
                let y = output(context, 0, shape)?;
                let width = i32::try_from(width).map_err(ort::Error::wrap)?;
                let limit = (f64::from(self.ratio) * 2f64.powi(32)).round() as u32;
                let scale = (1.0 / (1.0 - f64::from(self.ratio))) as f32;
                let kernel = self.kernel("factor_dropout", 0)?;
                let mut arguments = [
                    argument(&y),
                    argument(&x),
                    argument(&rows),
                    argument(&columns),
                    argument(&count),
                    argument(&width),
                    argument(&limit),
                    argument(&scale),
                ];
                // SAFETY: the parameters of `factor_dropout`; input and output have `count` elements.
                unsafe { kernel.launch(launch, stream, &mut arguments) }
            }
            Kind::GeluGrad | Kind::FastGeluGrad => {
                let (dy, x) = (input(context, 0)?, input(context, 1)?);
                let dx = output(context, 0, shape)?;
                let approximate = i32::from(self.kind == Kind::FastGeluGrad);
                let kernel = self.kernel("gelu_grad", 0)?;
                let mut arguments = [
                    argument(&dx),
                    argument(&dy),
                    argument(&x),
                    argument(&count),
                    argument(&approximate),
                ];
                // SAFETY: the parameters of `gelu_grad`; inputs and output have `count` elements.
                unsafe { kernel.launch(launch, stream, &mut arguments) }
            }
            Kind::LayerNormGrad => {
                let [dy, x, scale, mean, inverse] = [0, 1, 2, 3, 4].map(|i| input(context, i));
                let (dy, x, scale, mean, inverse) = (dy?, x?, scale?, mean?, inverse?);
                let columns = usize::try_from(width).unwrap_or(0).max(1);
                let rows = count / width.max(1);
                let blocks = (elements / columns).div_ceil(WARPS).min(NORM_BLOCKS);
                let dx = output(context, 0, shape)?;
                let d_scale = output(context, 1, vec![width])?;
                let d_bias = output(context, 2, vec![width])?;
                let allocator = device_allocator(context, self.device_id)?;
                let parts = allocator.alloc::<f32>(blocks.max(1) * 2 * columns)?;
                let parts = parts.as_ptr();
                let kernel = self.kernel("layer_norm_grad", columns)?;
                let mut arguments = [
                    argument(&dx),
                    argument(&parts),
                    argument(&dy),
                    argument(&x),
                    argument(&scale),
                    argument(&mean),
                    argument(&inverse),
                    argument(&rows),
                ];
                let launch = grid(blocks, NORM_BLOCKS);
                // SAFETY: the parameters of `layer_norm_grad`; the scratch has room for each block's sums.
                unsafe { kernel.launch(launch, stream, &mut arguments) }
                    .map_err(ort::Error::new)?;
                let kernel = self.kernel("sum_layer_norm", columns)?;
                let blocks = i32::try_from(blocks).map_err(ort::Error::wrap)?;
                let mut arguments = [
                    argument(&d_scale),
                    argument(&d_bias),
                    argument(&parts),
                    argument(&blocks),
                ];
                let launch = grid((2 * columns).div_ceil(32), usize::MAX);
                // SAFETY: the parameters of `sum_layer_norm`.
                unsafe { kernel.launch(launch, stream, &mut arguments) }
            }
        };
        started.map_err(ort::Error::new)
    }
}
