//! Which of cuBLASLt's algorithms makes a product: the fastest of those that give the same bits.
//!
//! cuBLASLt guesses well but not best: on an H200 its first proposal for the derivative of MPNet-base's second
//! feed-forward layer takes 0.34 ms, its sixth 0.27. Algorithms that divide the terms of a sum into as many parts add
//! them up alike (seen by comparing results), so that a choice by the clock changes no bit of a run.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use super::cublaslt::{
    Algorithm, Alignment, CublasLt, Description, Number, Product, Side, WORKSPACE,
};
use crate::kernels::cuda::definition::Call;
use crate::kernels::cuda::module::timed;

/// Proposals that are tried.
const TRIED: usize = 8;
/// Products behind one another by which one is timed.
const TIMED: usize = 4;
/// A later proposal has to be faster than the first by this factor: what is less is chance.
const WORTHWHILE: f64 = 0.97;
/// Products that are remembered: rows of many lengths make many.
const REMEMBERED: usize = 4096;

/// Where a product's operands lie; nothing, or null, where it has none.
pub(super) struct Operands {
    pub left: *const c_void,
    pub right: *const c_void,
    pub bias: *const c_void,
    /// The result itself where nothing is added.
    pub added: *const c_void,
    pub result: *const c_void,
}

/// A product with a place for its operands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Placed {
    product: Product,
    alignment: Alignment,
}

/// Products that differ in the number of rows alone, by its size to a half of the power of two below: the fastest
/// algorithm of one serves all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Class {
    fixed: [usize; 2],
    rows: usize,
    sides: [Side; 2],
    element: Number,
    result: Number,
    bias: bool,
    alignment: Alignment,
}

/// The library in one GPU, and what was chosen there.
struct Device {
    library: CublasLt,
    prepared: HashMap<Placed, (Description, Algorithm)>,
    fastest: HashMap<Class, Algorithm>,
}

/// Makes the product on the stream of the call.
///
/// # Safety
/// The operands lie in the GPU's memory and have the product's sizes; the result is nobody else's until the stream has
/// passed it, but may be what is added.
///
/// # Errors
/// cuBLASLt is not found or refuses.
pub(super) unsafe fn multiply(
    call: &mut Call<'_>,
    product: &Product,
    operands: &Operands,
) -> ort::Result<()> {
    if product.rows == 0 || product.columns == 0 {
        return Ok(());
    }
    let workspace = call.scratch(WORKSPACE / size_of::<f32>())?;
    let stream = call.stream();
    static DEVICES: Mutex<Option<HashMap<i32, Device>>> = Mutex::new(None);
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let devices = devices.get_or_insert_default();
    let mut work = || -> Result<(), String> {
        let device = match devices.entry(call.device_id()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(Device {
                library: CublasLt::new()?,
                prepared: HashMap::new(),
                fastest: HashMap::new(),
            }),
        };
        // SAFETY: the caller's promise.
        unsafe { device.multiply(product, operands, workspace, stream) }
    };
    work().map_err(ort::Error::new)
}

impl Device {
    unsafe fn multiply(
        &mut self,
        product: &Product,
        operands: &Operands,
        workspace: *const c_void,
        stream: *mut c_void,
    ) -> Result<(), String> {
        let placed = Placed {
            product: product.clone(),
            alignment: operands.alignment(),
        };
        if !self.prepared.contains_key(&placed) {
            if self.prepared.len() == REMEMBERED {
                self.prepared.clear();
            }
            let description = self.library.describe(product)?;
            // SAFETY: the caller's promise.
            let algorithm =
                unsafe { self.choose(&placed, &description, operands, workspace, stream)? };
            self.prepared
                .insert(placed.clone(), (description, algorithm));
        }
        let (description, algorithm) = &self.prepared[&placed];
        let adds = product.adds;
        // SAFETY: the caller's promise.
        unsafe {
            self.library
                .multiply(description, algorithm, operands, adds, workspace, stream)
        }
    }

    /// The algorithm for a product that was not made before.
    unsafe fn choose(
        &mut self,
        placed: &Placed,
        description: &Description,
        operands: &Operands,
        workspace: *const c_void,
        stream: *mut c_void,
    ) -> Result<Algorithm, String> {
        let library = &self.library;
        let mut proposals = library.propose(description, placed.alignment, TRIED)?;
        let first = proposals[0].algorithm;
        // What adds to its own result cannot be tried, and what divides its sums is left as it is proposed.
        if placed.product.adds || library.parts(&first) != 1 {
            return Ok(first);
        }
        let class = Class::of(placed);
        if let Some(known) = self.fastest.get(&class) {
            let serves = library.serves(description, known);
            return Ok(if serves { *known } else { first });
        }
        proposals.retain(|proposal| library.parts(&proposal.algorithm) == 1);
        let mut best = (first, f64::INFINITY);
        for proposal in &proposals {
            let run = || {
                // SAFETY: the caller's promise; the result is written as often as it is tried.
                unsafe {
                    library.multiply(
                        description,
                        &proposal.algorithm,
                        operands,
                        false,
                        workspace,
                        stream,
                    )
                }
            };
            run()?;
            let taken = timed(stream, || (0..TIMED).try_for_each(|_| run()))?;
            let bar = match best.1.is_finite() && best.0 == first {
                true => best.1 * WORTHWHILE,
                false => best.1,
            };
            if taken < bar {
                best = (proposal.algorithm, taken);
            }
        }
        tracing::debug!(
            product = ?placed.product,
            milliseconds = 1e3 * best.1 / TIMED as f64,
            changed = best.0 != first,
            "chose an algorithm"
        );
        self.fastest.insert(class, best.0);
        Ok(best.0)
    }
}

impl Class {
    fn of(placed: &Placed) -> Self {
        let product = &placed.product;
        // The rows of the tensors are the columns of what cuBLASLt sees.
        let step = (product.columns.next_power_of_two() / 4).max(1);
        Self {
            fixed: [product.rows, product.depth],
            rows: product.columns.div_ceil(step) * step,
            sides: [product.left, product.right],
            element: product.element,
            result: product.result,
            bias: product.bias,
            alignment: placed.alignment,
        }
    }
}

impl Operands {
    fn alignment(&self) -> Alignment {
        let of = |pointer: *const c_void| {
            // Nothing is gained beyond 256 bytes.
            1 << pointer.addr().trailing_zeros().min(8)
        };
        Alignment {
            left: of(self.left),
            right: of(self.right),
            result: of(self.result).min(of(self.added)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(columns: usize) -> Placed {
        Placed {
            product: Product {
                rows: 3072,
                columns,
                depth: 768,
                left: Side::Transposed,
                right: Side::AsStored,
                element: Number::BF16,
                result: Number::BF16,
                bias: false,
                adds: false,
            },
            alignment: Alignment {
                left: 256,
                right: 256,
                result: 256,
            },
        }
    }

    #[test]
    fn numbers_of_rows_that_are_close_share_an_algorithm() {
        let class = |columns| Class::of(&placed(columns));
        assert_eq!(class(42_000), class(42_624));
        assert_ne!(class(10_656), class(42_624));
        assert_eq!(class(1), class(1));
    }

    #[test]
    fn alignment_is_what_all_operands_of_a_place_have() {
        let at = |address: usize| std::ptr::without_provenance(address);
        let operands = Operands {
            left: at(4096),
            right: at(48),
            bias: at(0),
            added: at(32),
            result: at(8),
        };
        let expected = Alignment {
            left: 256,
            right: 16,
            result: 8,
        };
        assert_eq!(operands.alignment(), expected);
    }
}
