//! Operators of this project, registered with ONNX Runtime: what no build brings.
//!
//! Each has a form in ordinary operators too, for providers without a kernel here.

mod attention;
mod cpu;
mod cuda;

use std::ffi::c_void;
use std::sync::Arc;

use crate::collective::Overlap;
use mpnet_plan::{KernelId, OWN_DOMAIN, Precision, Provider};
use ort::operator::{Operator, OperatorDomain};
use ort::session::builder::SessionBuilder;
use ort::value::TensorElementType;

/// Where kernels are registered.
trait Registry: Sized {
    /// Adds one.
    ///
    /// # Errors
    /// ONNX Runtime refuses it.
    fn add(self, operator: impl Operator + 'static) -> ort::Result<Self>;
}

impl Registry for OperatorDomain {
    fn add(self, operator: impl Operator + 'static) -> ort::Result<Self> {
        Self::add(self, operator)
    }
}

/// Adds the operators that have kernels for `provider` to a session's options. Those that write gradients tell
/// `overlap`.
///
/// # Errors
/// ONNX Runtime refuses them.
pub(crate) fn register(
    builder: SessionBuilder,
    provider: Provider,
    device_id: i32,
    overlap: Option<&Arc<Overlap>>,
) -> ort::Result<SessionBuilder> {
    if provider.info().kernels.is_empty() {
        return Ok(builder);
    }
    let domain = OperatorDomain::new(OWN_DOMAIN)?;
    let domain = add_all(domain, provider, device_id, overlap)?;
    Ok(builder.with_operators(domain)?)
}

/// What is told of gradients, where there are several ranks.
#[derive(Clone)]
struct Told(Option<Arc<Overlap>>);

impl Told {
    /// A parameter's gradient in `segment` is there once `stream` has done what it was given.
    ///
    /// # Errors
    /// The ranks cannot sum gradients.
    fn wrote(&self, segment: i64, stream: *mut c_void) -> ort::Result<()> {
        let (Some(overlap), Ok(segment)) = (&self.0, usize::try_from(segment)) else {
            return Ok(());
        };
        let told = overlap.wrote(segment, stream);
        told.map_err(|error| ort::Error::new(describe(&error)))
    }
}

/// An error with all its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// Adds every kernel that the table of providers promises.
fn add_all<R: Registry>(
    registry: R,
    provider: Provider,
    device_id: i32,
    overlap: Option<&Arc<Overlap>>,
) -> ort::Result<R> {
    let told = Told(overlap.cloned());
    let device = cuda::Device::new(device_id, told.clone());
    let mut kernels = provider.registrations().into_iter();
    kernels.try_fold(registry, |registry, (kernel, precision)| {
        let element = element(precision);
        // The others have none: a test goes through all that the table promises.
        if provider == Provider::Cpu {
            cpu::add(registry, kernel, element, &told)
        } else if provider == Provider::Cuda {
            cuda::add(registry, kernel, element, &device)
        } else {
            Err(missing(kernel, element))
        }
    })
}

/// The element type of that precision's floats.
fn element(precision: Precision) -> TensorElementType {
    match precision {
        Precision::F32 => TensorElementType::Float32,
        Precision::BF16 => TensorElementType::Bfloat16,
        Precision::F16 => TensorElementType::Float16,
    }
}

/// The error of a kernel that the table of providers promises and nobody has written.
fn missing(kernel: KernelId, element: TensorElementType) -> ort::Error {
    ort::Error::new(format!("there is no kernel of {kernel} for {element}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes the names of what is added.
    struct Names(Vec<String>);

    impl Registry for Names {
        fn add(mut self, operator: impl Operator + 'static) -> ort::Result<Self> {
            self.0.push(operator.name().to_owned());
            Ok(self)
        }
    }

    #[test]
    fn what_the_table_of_providers_promises_is_registered_under_its_name() {
        for &provider in Provider::ALL {
            let names = add_all(Names(Vec::new()), provider, 0, None).unwrap().0;
            let promised = provider.registrations();
            let promised: Vec<&str> = promised.iter().map(|(id, _)| id.op_type()).collect();
            assert_eq!(names, promised, "{provider}");
        }
    }
}
