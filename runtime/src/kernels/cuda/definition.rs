//! What the operators between the matrix products have in common: a definition becomes an operator of ONNX
//! Runtime, whose nodes compile their kernels when first run.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ort::operator::{
    ComputeContext, Kernel as OrtKernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::Told;
use super::memory::{self, Pool};
use super::module::{self, Kernel, Launch, compiled};

/// Addresses of a kernel's arguments.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => {
        [$(std::ptr::from_ref(&$value).cast_mut().cast::<std::ffi::c_void>()),*]
    };
}
pub(super) use arguments;

/// An operator: what it takes and gives, and which kernels it starts.
pub(super) trait Definition: Clone + Send + Sync + 'static {
    /// In models, in the domain of this project.
    fn name(&self) -> &'static str;

    fn inputs(&self) -> Vec<OperatorInput>;

    /// Types of the outputs.
    fn outputs(&self) -> Vec<TensorElementType>;

    /// Reads the node's attributes.
    ///
    /// # Errors
    /// One is missing.
    fn read(&mut self, node: &KernelContext<'_>) -> ort::Result<()>;

    /// Starts the kernels of one call.
    ///
    /// # Errors
    /// An input is missing or does not fit, or the GPU refuses.
    fn compute(&self, call: &mut Call<'_>) -> ort::Result<()>;
}

/// Where the nodes of a session run.
#[derive(Clone)]
pub(in crate::kernels) struct Device {
    id: i32,
    pool: Arc<Pool>,
    told: Told,
}

impl Device {
    pub fn new(id: i32, told: Told) -> Device {
        Device {
            id,
            pool: Arc::default(),
            told,
        }
    }
}

/// A definition as ONNX Runtime takes it.
pub(super) struct Defined<D> {
    pub definition: D,
    pub device: Device,
}

impl<D: Definition> Operator for Defined<D> {
    type Kernel<'attr> = Node<D>;

    fn name(&self) -> &str {
        self.definition.name()
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some(super::PROVIDER)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.definition.inputs()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let types = self.definition.outputs();
        // The models leave out what nobody reads; a kernel that needs an output says so when it runs.
        types.into_iter().map(OperatorOutput::optional)
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Node<D>> {
        let mut definition = self.definition.clone();
        definition.read(node)?;
        Ok(Node {
            definition,
            device: self.device.clone(),
            kernels: Vec::new(),
        })
    }
}

/// A node of a graph.
pub(super) struct Node<D> {
    definition: D,
    device: Device,
    kernels: Vec<Started>,
}

impl<D: Definition> OrtKernel for Node<D> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let stream = context.stream()?.map_or(ptr::null_mut(), |s| s.as_ptr());
        self.definition.compute(&mut Call {
            context,
            stream,
            device: &self.device,
            blocks: 0,
            kernels: &mut self.kernels,
        })
    }
}

/// A kernel that the node has started before.
struct Started {
    name: &'static str,
    definitions: Vec<(&'static str, usize)>,
    /// Bytes of shared memory that it may be given.
    shared: usize,
    kernel: Kernel,
}

/// Which kernel of which source.
pub(super) struct Source<'a> {
    /// `common.cuh` and what follows it.
    pub text: &'static str,
    pub definitions: &'a [(&'static str, usize)],
    pub kernel: &'static str,
}

/// One call of a node.
pub(super) struct Call<'a> {
    context: &'a ComputeContext,
    stream: *mut c_void,
    device: &'a Device,
    /// How many it has of the memory that all nodes share.
    blocks: usize,
    kernels: &'a mut Vec<Started>,
}

impl<'a> Call<'a> {
    /// What ONNX Runtime gives the node.
    pub fn context(&self) -> &'a ComputeContext {
        self.context
    }

    /// `cudaStream_t`.
    pub fn stream(&self) -> *mut c_void {
        self.stream
    }

    pub fn device_id(&self) -> i32 {
        self.device.id
    }

    /// The sizes of an input.
    pub fn shape(&self, index: usize) -> ort::Result<Vec<i64>> {
        let value = self.context.input(index)?;
        let value = value.ok_or_else(|| ort::Error::new("an input is missing"))?;
        Ok(value.shape().to_vec())
    }

    pub fn input(&self, index: usize) -> ort::Result<*const c_void> {
        memory::input(self.context, index)
    }

    /// Null where it is not given.
    pub fn optional(&self, index: usize) -> ort::Result<*const c_void> {
        memory::optional(self.context, index)
    }

    pub fn output(&self, index: usize, shape: &[i64]) -> ort::Result<*const c_void> {
        match self.optional_output(index, shape)? {
            absent if absent.is_null() => Err(ort::Error::new("an output is missing")),
            output => Ok(output),
        }
    }

    /// Null where the model does not name it.
    pub fn optional_output(&self, index: usize, shape: &[i64]) -> ort::Result<*const c_void> {
        memory::optional_output(self.context, index, shape.to_vec())
    }

    /// Room for that many floats until the call is over.
    ///
    /// # Errors
    /// The GPU has no room.
    pub fn scratch(&mut self, floats: usize) -> ort::Result<*const c_void> {
        let place = self.blocks;
        self.blocks += 1;
        self.device
            .pool
            .block(self.context, self.device.id, place, floats)
    }

    /// Writes zeros to that many words of 32 bits of the node's scratch, on its stream.
    ///
    /// # Errors
    /// The GPU refuses.
    pub fn clear(&self, words: *const c_void, count: usize) -> ort::Result<()> {
        module::clear(words, count, self.stream).map_err(ort::Error::new)
    }

    /// Starts a kernel on the node's stream.
    ///
    /// # Safety
    /// `arguments` point to values of the kernel's parameter types, in their order; pointers among them lead to
    /// memory of the GPU that is as large as the kernel expects.
    ///
    /// # Errors
    /// The kernel cannot be compiled or started.
    pub unsafe fn launch(
        &mut self,
        source: &Source<'_>,
        launch: Launch,
        arguments: &mut [*mut c_void],
    ) -> ort::Result<()> {
        let known = self.kernels.iter().find(|s| {
            s.name == source.kernel
                && s.definitions == source.definitions
                && s.shared >= launch.shared
        });
        let kernel = match known {
            Some(started) => started.kernel,
            None => {
                let definitions = source.definitions.to_vec();
                let module = compiled(source.text, definitions.clone(), self.device.id)
                    .map_err(ort::Error::new)?;
                let kernel = module
                    .kernel(source.kernel, launch.shared)
                    .map_err(ort::Error::new)?;
                self.kernels.push(Started {
                    name: source.kernel,
                    definitions,
                    shared: launch.shared,
                    kernel,
                });
                kernel
            }
        };
        // SAFETY: the caller's promise.
        unsafe { kernel.launch(launch, self.stream, arguments) }.map_err(ort::Error::new)
    }

    /// Tells that a parameter's gradient in `segment` is there, once the node's stream has done what it was given.
    ///
    /// # Errors
    /// The ranks cannot sum gradients.
    pub fn wrote_gradient(&self, segment: i64) -> ort::Result<()> {
        self.device.told.wrote(segment, self.stream)
    }

    /// Sums the `count` parts f32 `[count, outputs · width]` into vectors of `width`, at most three.
    ///
    /// # Safety
    /// The memory is as large as these numbers say.
    ///
    /// # Errors
    /// The kernel cannot be compiled or started.
    pub unsafe fn sum_parts(
        &mut self,
        source: &Source<'_>,
        outputs: &[*const c_void],
        parts: *const c_void,
        count: usize,
        width: usize,
    ) -> ort::Result<()> {
        let at = |index: usize| outputs.get(index).copied().unwrap_or(ptr::null());
        let (a, b, c) = (at(0), at(1), at(2));
        let columns = whole(width * outputs.len())?;
        let (count, width) = (whole(count)?, whole(width)?);
        let source = Source {
            kernel: "sum_parts",
            ..*source
        };
        let blocks = (columns as usize).div_ceil(32);
        let mut arguments = arguments![a, b, c, parts, count, columns, width];
        // SAFETY: the parameters of `sum_parts`; the caller's promise about the memory.
        unsafe { self.launch(&source, grid([blocks, 1], 256), &mut arguments) }
    }
}

/// Blocks and threads, without further shared memory.
pub(super) fn grid([x, y]: [usize; 2], threads: usize) -> Launch {
    Launch {
        grid: [x, y, 1],
        threads,
        shared: 0,
    }
}

/// A number as kernels take it.
pub(super) fn whole(n: usize) -> ort::Result<i32> {
    i32::try_from(n).map_err(|_| ort::Error::new("a tensor is too large for the kernels"))
}

/// `ELEMENT` of the sources.
pub(super) fn element_number(element: TensorElementType) -> usize {
    match element {
        TensorElementType::Bfloat16 => 1,
        TensorElementType::Float16 => 2,
        _ => 0,
    }
}

/// How many numbers of rows of `width` a thread loads at once: 16 bytes where that divides the row.
pub(super) fn piece(element: TensorElementType, width: usize) -> usize {
    let most = if element_number(element) == 0 { 4 } else { 8 };
    let fits = |n: &usize| *n <= most && width.is_multiple_of(*n);
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// Rows and columns of a tensor, its last dimension being the columns.
pub(super) fn rows_and_width(shape: &[i64]) -> ort::Result<(usize, usize)> {
    let sizes: Option<Vec<usize>> = shape.iter().map(|n| usize::try_from(*n).ok()).collect();
    match sizes.as_deref().and_then(<[usize]>::split_last) {
        Some((width, rows)) => Ok((rows.iter().product(), *width)),
        None => Err(ort::Error::new("an input has no dimensions")),
    }
}

/// Dropout by factors of rows and columns, as an attribute says it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowDropout {
    ratio: f32,
}

impl RowDropout {
    pub fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(Self {
            ratio: attribute(node, "ratio")?,
        })
    }

    /// A product of factors below drops.
    pub fn limit(self) -> u32 {
        (f64::from(self.ratio) * 2f64.powi(32)).round() as u32
    }

    /// What kept elements are multiplied with.
    pub fn keep(self) -> f32 {
        (1.0 / (1.0 - f64::from(self.ratio))) as f32
    }

    /// The factors of rows and columns, inputs from `first` on; null without dropout.
    pub fn factors(self, call: &Call<'_>, first: usize) -> ort::Result<[*const c_void; 2]> {
        let factors = [call.optional(first)?, call.optional(first + 1)?];
        if self.limit() > 0 && factors.iter().any(|f| f.is_null()) {
            return Err(ort::Error::new(
                "dropout on the GPU needs its factors as inputs",
            ));
        }
        Ok(factors)
    }
}

/// An attribute that the node must have.
pub(super) fn attribute<'a, T: ort::operator::FromKernelContext<'a>>(
    node: &KernelContext<'a>,
    name: &str,
) -> ort::Result<T> {
    node.get(name)
        .ok_or_else(|| ort::Error::new(format!("the node has no attribute '{name}'")))
}
