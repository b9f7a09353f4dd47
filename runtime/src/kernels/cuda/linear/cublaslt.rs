//! The functions of cuBLASLt that are used, from the library that ONNX Runtime's CUDA provider has loaded.
//!
//! Numbers and signatures are those of `cublasLt.h` and `library_types.h`, the same in CUDA 11.8, 12 and 13.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;
use ort::value::TensorElementType;

use crate::kernels::cuda::WITHOUT_KERNELS;

/// `CUBLAS_STATUS_SUCCESS`.
const SUCCESS: c_int = 0;
/// `CUBLAS_COMPUTE_32F`: sums in f32.
const COMPUTE_32F: c_int = 68;
/// `CUBLASLT_EPILOGUE_BIAS`.
const EPILOGUE_BIAS: c_int = 4;
/// Bytes of the GPU's memory that a product may take for partial sums.
pub(super) const WORKSPACE: usize = 64 << 20;

/// `cublasLtMatmulDescAttributes_t`.
#[derive(Debug, Clone, Copy)]
enum OfProduct {
    TransposedLeft = 3,
    TransposedRight = 4,
    Epilogue = 7,
    BiasPointer = 8,
}

/// `cublasLtMatmulPreferenceAttributes_t`.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    MostWorkspace = 1,
    AlignmentLeft = 5,
    AlignmentRight = 6,
    AlignmentAdded = 7,
    AlignmentResult = 8,
}

/// `CUBLASLT_ALGO_CONFIG_SPLITK_NUM`: parts into which the sum's terms are divided.
const SPLIT: c_int = 2;

/// `cublasLtMatmulAlgo_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Proposal {
    pub algorithm: Algorithm,
    pub workspace: usize,
    status: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

const NO_PROPOSAL: Proposal = Proposal {
    algorithm: Algorithm([0; 8]),
    workspace: 0,
    status: SUCCESS,
    waves: 0.0,
    reserved: [0; 4],
};

/// `cudaDataType_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Number {
    F32 = 0,
    F16 = 2,
    BF16 = 14,
}

impl Number {
    /// # Errors
    /// It is none of these three.
    pub(super) fn of(element: TensorElementType) -> ort::Result<Self> {
        match element {
            TensorElementType::Float32 => Ok(Self::F32),
            TensorElementType::Float16 => Ok(Self::F16),
            TensorElementType::Bfloat16 => Ok(Self::BF16),
            other => Err(ort::Error::new(format!("no product is made of {other}"))),
        }
    }
}

/// How an operand is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    AsStored,
    Transposed,
}

impl Side {
    /// `cublasOperation_t`.
    fn operation(self) -> c_int {
        match self {
            Self::AsStored => 0,
            Self::Transposed => 1,
        }
    }
}

/// result `[rows, columns]` ← left `[rows, depth]` · right `[depth, columns]`, + bias `[rows]`, + what is added; all
/// stored by columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub left: Side,
    pub right: Side,
    pub element: Number,
    pub result: Number,
    pub bias: bool,
    pub adds: bool,
}

/// An opaque object of the library.
type Handle = *mut c_void;
type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type Destroy = unsafe extern "C" fn(Handle) -> c_int;
type SetAttribute = unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> c_int;

/// What was looked up.
struct Functions {
    create: Create,
    product_create: unsafe extern "C" fn(*mut Handle, c_int, c_int) -> c_int,
    product_set: SetAttribute,
    product_destroy: Destroy,
    layout_create: unsafe extern "C" fn(*mut Handle, c_int, u64, u64, i64) -> c_int,
    layout_destroy: Destroy,
    preference_create: Create,
    preference_set: SetAttribute,
    preference_destroy: Destroy,
    propose: unsafe extern "C" fn(
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        c_int,
        *mut Proposal,
        *mut c_int,
    ) -> c_int,
    check: unsafe extern "C" fn(
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        Handle,
        *const Algorithm,
        *mut Proposal,
    ) -> c_int,
    configuration:
        unsafe extern "C" fn(*const Algorithm, c_int, *mut c_void, usize, *mut usize) -> c_int,
    #[allow(clippy::type_complexity)]
    multiply: unsafe extern "C" fn(
        Handle,
        Handle,
        *const c_void,
        *const c_void,
        Handle,
        *const c_void,
        Handle,
        *const c_void,
        *const c_void,
        Handle,
        *mut c_void,
        Handle,
        *const Algorithm,
        *mut c_void,
        usize,
        *mut c_void,
    ) -> c_int,
    _library: ManuallyDrop<Library>,
}

impl Functions {
    fn load() -> Result<Self, String> {
        // ONNX Runtime's provider has loaded the one it works with, which is found by its name.
        let names = if cfg!(windows) {
            [
                "cublasLt64_13.dll",
                "cublasLt64_12.dll",
                "cublasLt64_11.dll",
            ]
        } else {
            [
                "libcublasLt.so.13",
                "libcublasLt.so.12",
                "libcublasLt.so.11",
            ]
        };
        // SAFETY: NVIDIA's library does no more than set itself up when loaded.
        let loaded = names
            .iter()
            .find_map(|name| unsafe { Library::new(*name) }.ok());
        let library = loaded.ok_or_else(|| {
            format!(
                "none of {} is found: install CUDA's cuBLAS, or use {WITHOUT_KERNELS}",
                names.join(", ")
            )
        })?;
        let failed = |error: libloading::Error| error.to_string();
        // SAFETY: the signatures are those of the header.
        unsafe {
            Ok(Self {
                create: *library.get("cublasLtCreate").map_err(failed)?,
                product_create: *library.get("cublasLtMatmulDescCreate").map_err(failed)?,
                product_set: *library
                    .get("cublasLtMatmulDescSetAttribute")
                    .map_err(failed)?,
                product_destroy: *library.get("cublasLtMatmulDescDestroy").map_err(failed)?,
                layout_create: *library.get("cublasLtMatrixLayoutCreate").map_err(failed)?,
                layout_destroy: *library.get("cublasLtMatrixLayoutDestroy").map_err(failed)?,
                preference_create: *library
                    .get("cublasLtMatmulPreferenceCreate")
                    .map_err(failed)?,
                preference_set: *library
                    .get("cublasLtMatmulPreferenceSetAttribute")
                    .map_err(failed)?,
                preference_destroy: *library
                    .get("cublasLtMatmulPreferenceDestroy")
                    .map_err(failed)?,
                propose: *library
                    .get("cublasLtMatmulAlgoGetHeuristic")
                    .map_err(failed)?,
                check: *library.get("cublasLtMatmulAlgoCheck").map_err(failed)?,
                configuration: *library
                    .get("cublasLtMatmulAlgoConfigGetAttribute")
                    .map_err(failed)?,
                multiply: *library.get("cublasLtMatmul").map_err(failed)?,
                _library: ManuallyDrop::new(library),
            })
        }
    }
}

/// The library at work in a GPU's context.
pub(super) struct CublasLt {
    functions: &'static Functions,
    handle: Handle,
}

// SAFETY: the library may be called from any thread with one handle, as its manual says.
unsafe impl Send for CublasLt {}

impl CublasLt {
    /// For the GPU whose context is current.
    ///
    /// # Errors
    /// The library is not found, lacks a function or refuses.
    pub(super) fn new() -> Result<Self, String> {
        static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
        let functions = LOADED.get_or_init(Functions::load);
        let functions = functions.as_ref().map_err(Clone::clone)?;
        let mut handle = ptr::null_mut();
        // SAFETY: a live variable; the handle is kept until the process ends.
        succeeded("start", unsafe { (functions.create)(&mut handle) })?;
        Ok(Self { functions, handle })
    }

    /// What the library needs to know of a product.
    ///
    /// # Errors
    /// The library refuses.
    pub(super) fn describe(&self, product: &Product) -> Result<Description, String> {
        let mut made = Description {
            functions: self.functions,
            product: ptr::null_mut(),
            left: ptr::null_mut(),
            right: ptr::null_mut(),
            result: ptr::null_mut(),
        };
        let functions = self.functions;
        // SAFETY: live variables; what is made is freed when the description is dropped.
        unsafe {
            let product_made =
                (functions.product_create)(&mut made.product, COMPUTE_32F, Number::F32 as c_int);
            succeeded("describe a product", product_made)?;
        }
        made.set(OfProduct::TransposedLeft, product.left.operation())?;
        made.set(OfProduct::TransposedRight, product.right.operation())?;
        if product.bias {
            made.set(OfProduct::Epilogue, EPILOGUE_BIAS)?;
        }
        let element = product.element;
        let stored = |side, rows, columns| match side {
            Side::AsStored => (rows, columns),
            Side::Transposed => (columns, rows),
        };
        let (rows, columns, depth) = (product.rows, product.columns, product.depth);
        let layouts = [
            (&mut made.left, element, stored(product.left, rows, depth)),
            (
                &mut made.right,
                element,
                stored(product.right, depth, columns),
            ),
            (&mut made.result, product.result, (rows, columns)),
        ];
        for (layout, number, (rows, columns)) in layouts {
            // SAFETY: as above.
            let created = unsafe {
                (functions.layout_create)(
                    layout,
                    number as c_int,
                    rows as u64,
                    columns as u64,
                    rows as i64,
                )
            };
            succeeded("describe a matrix", created)?;
        }
        Ok(made)
    }

    /// Algorithms for a product whose operands lie at multiples of so many bytes, those first that should be fastest.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn propose(
        &self,
        description: &Description,
        alignment: Alignment,
        most: usize,
    ) -> Result<Vec<Proposal>, String> {
        let functions = self.functions;
        let mut proposals = vec![NO_PROPOSAL; most];
        let mut found = 0;
        let mut preference = ptr::null_mut();
        // SAFETY: live variables, and values of the attributes' types; the preference is freed behind its use.
        unsafe {
            let made = (functions.preference_create)(&mut preference);
            succeeded("say what is wanted", made)?;
            let set = |what: Wanted, value: *const c_void, bytes: usize| {
                (functions.preference_set)(preference, what as c_int, value, bytes)
            };
            let workspace = WORKSPACE;
            let mut status = set(Wanted::MostWorkspace, ptr::from_ref(&workspace).cast(), 8);
            let operands = [
                (Wanted::AlignmentLeft, alignment.left),
                (Wanted::AlignmentRight, alignment.right),
                (Wanted::AlignmentAdded, alignment.result),
                (Wanted::AlignmentResult, alignment.result),
            ];
            for (what, bytes) in &operands {
                status = status.max(set(*what, ptr::from_ref(bytes).cast(), 4));
            }
            if status == SUCCESS {
                status = (functions.propose)(
                    self.handle,
                    description.product,
                    description.left,
                    description.right,
                    description.result,
                    description.result,
                    preference,
                    proposals.len() as c_int,
                    proposals.as_mut_ptr(),
                    &mut found,
                );
            }
            (functions.preference_destroy)(preference);
            succeeded("choose an algorithm", status)?;
        }
        proposals.truncate(usize::try_from(found).unwrap_or(0));
        proposals.retain(|proposal| proposal.status == SUCCESS);
        match proposals.is_empty() {
            true => Err("cuBLASLt has no algorithm for a product".to_owned()),
            false => Ok(proposals),
        }
    }

    /// Whether an algorithm that was proposed for another product serves this one too.
    pub(super) fn serves(&self, description: &Description, algorithm: &Algorithm) -> bool {
        let mut proposal = NO_PROPOSAL;
        // SAFETY: live variables.
        let status = unsafe {
            (self.functions.check)(
                self.handle,
                description.product,
                description.left,
                description.right,
                description.result,
                description.result,
                algorithm,
                &mut proposal,
            )
        };
        status == SUCCESS && proposal.status == SUCCESS && proposal.workspace <= WORKSPACE
    }

    /// Parts into which an algorithm divides the terms of a sum: algorithms that divide them alike give the same bits.
    pub(super) fn parts(&self, algorithm: &Algorithm) -> c_int {
        let mut parts: c_int = 0;
        let mut written = 0;
        // SAFETY: a live variable of the attribute's size.
        let status = unsafe {
            (self.functions.configuration)(
                algorithm,
                SPLIT,
                ptr::from_mut(&mut parts).cast(),
                size_of::<c_int>(),
                &mut written,
            )
        };
        if status == SUCCESS { parts } else { 0 }
    }

    /// Starts a product on a stream.
    ///
    /// # Safety
    /// Operands, result and workspace lie in the GPU's memory and are as large as the description and [`WORKSPACE`]
    /// say.
    ///
    /// # Errors
    /// The library refuses.
    pub(super) unsafe fn multiply(
        &self,
        description: &Description,
        algorithm: &Algorithm,
        operands: &super::Operands,
        adds: bool,
        workspace: *const c_void,
        stream: *mut c_void,
    ) -> Result<(), String> {
        let (one, added): (f32, f32) = (1.0, if adds { 1.0 } else { 0.0 });
        if !operands.bias.is_null() {
            description.set(OfProduct::BiasPointer, operands.bias)?;
        }
        // SAFETY: the caller's promise.
        let status = unsafe {
            (self.functions.multiply)(
                self.handle,
                description.product,
                ptr::from_ref(&one).cast(),
                operands.left,
                description.left,
                operands.right,
                description.right,
                ptr::from_ref(&added).cast(),
                operands.added,
                description.result,
                operands.result.cast_mut(),
                description.result,
                algorithm,
                workspace.cast_mut(),
                WORKSPACE,
                stream,
            )
        };
        succeeded("multiply", status)
    }
}

/// A product and its matrices as the library knows them.
pub(super) struct Description {
    functions: &'static Functions,
    product: Handle,
    left: Handle,
    right: Handle,
    result: Handle,
}

// SAFETY: descriptions are plain memory of the library's.
unsafe impl Send for Description {}

impl Description {
    fn set<T>(&self, attribute: OfProduct, value: T) -> Result<(), String> {
        // SAFETY: the attribute's type is a number of 32 bits or a pointer, which the callers give.
        let status = unsafe {
            (self.functions.product_set)(
                self.product,
                attribute as c_int,
                ptr::from_ref(&value).cast(),
                size_of::<T>(),
            )
        };
        succeeded("describe a product", status)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let layouts = [self.left, self.right, self.result];
        // SAFETY: each was made by the library, and is freed once.
        unsafe {
            for layout in layouts.into_iter().filter(|layout| !layout.is_null()) {
                (self.functions.layout_destroy)(layout);
            }
            if !self.product.is_null() {
                (self.functions.product_destroy)(self.product);
            }
        }
    }
}

/// Multiples of how many bytes the operands lie at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Alignment {
    pub left: u32,
    pub right: u32,
    /// Of what is added, too.
    pub result: u32,
}

fn succeeded(doing: &str, status: c_int) -> Result<(), String> {
    match status {
        SUCCESS => Ok(()),
        code => Err(format!("cuBLASLt cannot {doing}: status {code}")),
    }
}
