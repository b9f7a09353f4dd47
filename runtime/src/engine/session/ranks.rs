//! What the ranks of a run do together: they sum their gradients, once an update, before anything looks at them.

use super::{SessionEngine, download, upload};
use crate::collective::{Buffer, Memory, Reduction};
use crate::engine::Result;
use crate::engine::error::EngineError;

impl SessionEngine {
    /// Gives each rank the sum of all ranks' gradients.
    ///
    /// # Errors
    /// The collective or a copy fails.
    pub(super) fn sum_gradients(&mut self) -> Result<()> {
        if self.collective.world_size() == 1 {
            return Ok(());
        }
        let own = match self.plan.provider.info().memory {
            None => Memory::Host,
            Some(_) => Memory::Device,
        };
        if own == Memory::Host || own == self.collective.memory() {
            let segments = self.segments.iter();
            let gradients: Vec<Buffer> = segments
                .map(|segment| segment.gradients.current.buffer(own))
                .collect();
            // SAFETY: the vectors live, and the last step that wrote them is over: the host has its outputs.
            unsafe { self.collective.all_reduce(&gradients, Reduction::Sum)? };
            return Ok(());
        }
        for (segment, memory) in self.plan.segments.iter().zip(&self.segments) {
            let gradients = &memory.gradients.current;
            let name = &segment.gradients.input;
            let mut values = download(&mut self.copy, gradients, 0, segment.len, name)?;
            self.collective.sum(&mut values)?;
            upload(&mut self.copy, gradients, 0, &values)
                .map_err(EngineError::runtime(format!("write '{name}'")))?;
        }
        Ok(())
    }
}

impl crate::engine::binding::DeviceVector {
    /// All of it, as collectives take it.
    fn buffer(&self, memory: Memory) -> Buffer {
        Buffer {
            pointer: self.pointer(),
            len: self.len(),
            element: crate::collective::Element::F32,
            memory,
        }
    }
}
