//! A session with its values bound, and memory on its device: what `ort` has no wrapper for that lets an output
//! lie where an input lies.

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::sys::{OrtStatusPtr, OrtValue};
use ort::value::{DynTensor, Shape, Tensor, TensorRefMut};

/// A vector of floats on a device, uninitialised when made.
pub(super) struct DeviceVector {
    pointer: *mut std::ffi::c_void,
    len: usize,
    allocator: Rc<Allocator>,
}

impl DeviceVector {
    /// Room for `len` floats.
    pub(super) fn new(allocator: &Rc<Allocator>, len: usize) -> ort::Result<Self> {
        Ok(Self {
            pointer: allocator.alloc::<f32>(len)?.into_raw(),
            len,
            allocator: Rc::clone(allocator),
        })
    }

    /// Where it begins, in the memory of the allocator.
    pub(super) fn pointer(&self) -> *mut std::ffi::c_void {
        self.pointer
    }

    /// Number of floats.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Floats from `offset` on, as a tensor of that shape.
    ///
    /// # Safety
    /// Neither the view nor a binding that was made from it is used after the vector is gone: ONNX Runtime keeps the
    /// address, and no lifetime follows it there.
    ///
    /// # Errors
    /// They are beyond the vector's end.
    pub(super) unsafe fn view(
        &self,
        offset: usize,
        shape: &[usize],
    ) -> ort::Result<TensorRefMut<'static, f32>> {
        let count = shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let end = count.and_then(|count| count.checked_add(offset));
        if end.is_none_or(|end| end > self.len) {
            return Err(ort::Error::new(format!(
                "{shape:?} floats from {offset} on are beyond the {} of their buffer",
                self.len
            )));
        }
        let shape = Shape::new(shape.iter().map(|&size| size as i64));
        // SAFETY: the range was just seen to lie in this allocation, which is of the allocator's memory.
        unsafe {
            let start = self.pointer.cast::<f32>().wrapping_add(offset);
            TensorRefMut::from_raw(self.allocator.memory_info().to_owned(), start.cast(), shape)
        }
    }
}

impl Drop for DeviceVector {
    fn drop(&mut self) {
        // SAFETY: the memory came from this allocator and is freed once.
        unsafe { self.allocator.free(self.pointer) }
    }
}

/// A session and the values it reads and writes.
pub(super) struct BoundSession {
    // Before the session: it refers to it.
    binding: IoBinding,
    session: Session,
    /// Outputs that come to the host, in the order in which they were bound.
    host_outputs: Vec<String>,
    scalars: HashMap<String, Tensor<f32>>,
    host: MemoryInfo<'static>,
    allocator: Allocator,
}

impl BoundSession {
    /// Loads a model.
    pub(super) fn new(mut options: SessionBuilder, model: &[u8]) -> ort::Result<Self> {
        let session = options.commit_from_memory(model)?;
        Ok(Self {
            binding: session.create_binding()?,
            session,
            host_outputs: Vec::new(),
            scalars: HashMap::new(),
            host: MemoryInfo::default(),
            allocator: Allocator::default(),
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Names of the model's inputs.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &str> {
        self.session.inputs().iter().map(|input| input.name())
    }

    /// Names of the model's outputs.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        self.session.outputs().iter().map(|output| output.name())
    }

    /// Binds an input. Memory on another device is copied now, other memory has to live until the run is over.
    pub(super) fn bind_input(
        &mut self,
        name: &str,
        value: &impl AsPointer<Sys = OrtValue>,
    ) -> ort::Result<()> {
        let name = c_string(name)?;
        // SAFETY: binding, name and value are live; the binding keeps its own reference to the value.
        check(unsafe {
            (ort::api().BindInput)(self.binding.ptr().cast_mut(), name.as_ptr(), value.ptr())
        })
    }

    /// Binds a float without dimensions, which lives until it is bound anew.
    pub(super) fn bind_scalar(&mut self, name: &str, value: f32) -> ort::Result<()> {
        let tensor = Tensor::from_array(([0usize; 0], vec![value]))?;
        self.bind_input(name, &tensor)?;
        self.scalars.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// Binds an output to memory that may be an input's too, where the model allows that.
    pub(super) fn bind_output(
        &mut self,
        name: &str,
        value: &impl AsPointer<Sys = OrtValue>,
    ) -> ort::Result<()> {
        let name = c_string(name)?;
        // SAFETY: as for inputs.
        check(unsafe {
            (ort::api().BindOutput)(self.binding.ptr().cast_mut(), name.as_ptr(), value.ptr())
        })
    }

    /// Asks for these outputs on the host, of whatever shape they will have. Before any output is bound to memory.
    pub(super) fn fetch(&mut self, names: impl IntoIterator<Item = String>) -> ort::Result<()> {
        self.host_outputs = names.into_iter().collect();
        self.host_outputs
            .iter()
            .try_for_each(|name| self.bind_to_host(name))
    }

    fn bind_to_host(&self, name: &str) -> ort::Result<()> {
        let name = c_string(name)?;
        // SAFETY: all three are live.
        check(unsafe {
            (ort::api().BindOutputToDevice)(
                self.binding.ptr().cast_mut(),
                name.as_ptr(),
                self.host.ptr(),
            )
        })
    }

    /// Runs, and returns the outputs asked for on the host, in their order.
    pub(super) fn run(&mut self) -> ort::Result<Vec<DynTensor>> {
        // Binding anew forgets the last run's value, whose shape may not fit.
        self.host_outputs
            .iter()
            .try_for_each(|name| self.bind_to_host(name))?;
        // SAFETY: session and binding are live; null stands for default run options.
        check(unsafe {
            (ort::api().RunWithBinding)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                self.binding.ptr(),
            )
        })?;
        if self.host_outputs.is_empty() {
            self.binding.synchronize_outputs()?;
            return Ok(Vec::new());
        }
        self.bound_values()
    }

    fn bound_values(&self) -> ort::Result<Vec<DynTensor>> {
        let mut values: *mut *mut OrtValue = ptr::null_mut();
        let mut count = 0;
        // SAFETY: all pointers are live; the array is the allocator's, its values are the caller's.
        let found: Vec<Option<NonNull<OrtValue>>> = unsafe {
            check((ort::api().GetBoundOutputValues)(
                self.binding.ptr(),
                self.allocator.ptr().cast_mut(),
                &mut values,
                &mut count,
            ))?;
            if values.is_null() {
                return Err(ort::Error::new("no outputs were returned"));
            }
            let found = std::slice::from_raw_parts(values, count)
                .iter()
                .map(|&value| NonNull::new(value))
                .collect();
            self.allocator.free(values);
            found
        };
        let mut tensors = Vec::with_capacity(self.host_outputs.len());
        for value in found {
            let value = value.ok_or_else(|| ort::Error::new("an output was not computed"))?;
            // SAFETY: the value was just handed over.
            tensors.push(unsafe { DynTensor::from_ptr(value, Some(&self.allocator)) });
        }
        // Values come in the order in which their outputs were first bound: `fetch`'s first.
        tensors.truncate(self.host_outputs.len());
        Ok(tensors)
    }
}

fn c_string(name: &str) -> ort::Result<CString> {
    CString::new(name).map_err(|_| ort::Error::new(format!("the name '{name}' has a NUL in it")))
}

/// What a call of ONNX Runtime says.
pub(super) fn check(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: `status` was just returned by ONNX Runtime, and its ownership passes on.
    unsafe { ort::Error::result_from_status(status) }
}
