//! What the ranks of a run do together: they sum their gradients, once an update, before anything looks at them.
//!
//! Where they share the optimizer (ZeRO, stage 1: Rajbhandari et al. 2020, arXiv 1910.02054), each rank
//! gets the sum of its part of the gradients alone, updates that part of the parameters, whose moments it
//! alone has, and gets the other parts of the parameters from the other ranks.

use std::ops::Range;

use mpnet_plan::{NamedArray, Plan, Segment, names};

use super::{DeviceVector, Kind, SessionEngine, copy_out, download, upload};
use crate::collective::{Buffer, Collective, Element, Memory, Reduction};
use crate::engine::Result;
use crate::engine::error::EngineError;

/// Checks that the plan was made for so many ranks.
pub(super) fn check(plan: &Plan, ranks: &dyn Collective) -> Result<()> {
    let world_size = ranks.world_size();
    match plan.shards == 1 || plan.shards == world_size {
        true => Ok(()),
        false => Err(EngineError::Shards {
            shards: plan.shards,
            world_size,
        }),
    }
}

impl SessionEngine {
    /// The elements of a segment that this rank updates.
    pub(super) fn own_part(&self, segment: &Segment) -> Range<usize> {
        let len = segment.len / self.plan.shards;
        let start = match self.plan.shards {
            1 => 0,
            _ => self.collective.rank() * len,
        };
        start..start + len
    }

    /// Where this engine's vectors lie.
    fn memory(&self) -> Memory {
        match self.plan.provider.info().memory {
            None => Memory::Host,
            Some(_) => Memory::Device,
        }
    }

    /// Whether collectives reach this engine's vectors themselves.
    fn in_reach(&self) -> bool {
        self.memory() == Memory::Host || self.memory() == self.collective.memory()
    }

    /// Gives this rank the sum of all ranks' gradients; where they share the optimizer, of its own part. Returns the sum
    /// of squares of all of them, to the bit the same on all ranks; none where there is one rank.
    ///
    /// # Errors
    /// The collective or a copy fails.
    pub(super) fn sum_gradients(&mut self) -> Result<Option<f32>> {
        let shared = self.plan.shards > 1;
        if self.collective.world_size() > 1 {
            let ranks = std::sync::Arc::clone(&self.collective);
            let sum = |gradients: &[Buffer]| {
                // SAFETY: the vectors live, and the last step that wrote them is over: the host has its outputs.
                unsafe {
                    match shared {
                        true => ranks.reduce_scatter(gradients),
                        false => ranks.all_reduce(gradients, Reduction::Sum),
                    }
                }
            };
            if self.in_reach() {
                let gradients = self.segments.iter().map(|s| &s.gradients.current);
                let gradients: Vec<Buffer> = gradients.map(|v| v.buffer(self.memory())).collect();
                sum(&gradients)?;
            } else {
                for index in 0..self.segments.len() {
                    let mut values = self.fetch_gradients(index)?;
                    sum(&[Buffer::of(&mut values)])?;
                    let vector = &self.segments[index].gradients.current;
                    upload(&mut self.copy, vector, 0, &values)
                        .map_err(EngineError::runtime("write the gradients"))?;
                }
            }
        }
        let Some(squares) = &mut self.squares else {
            return Ok(None);
        };
        let outputs = squares.run();
        let outputs = outputs.map_err(EngineError::runtime("compute the gradients' norm"))?;
        let own = outputs
            .first()
            .map(|output| copy_out(names::SQUARES, output));
        let own = own.transpose()?.and_then(|tensor| tensor.scalar());
        let mut sum = [own.ok_or_else(|| EngineError::NotScalar {
            name: names::SQUARES.to_owned(),
            shape: Vec::new(),
        })?];
        // Without shards each has summed up all of them, and a GPU does so in another order each time.
        if !shared && self.collective.rank() > 0 {
            sum = [0.0];
        }
        self.collective.sum(&mut sum)?;
        Ok(Some(sum[0]))
    }

    fn fetch_gradients(&mut self, segment: usize) -> Result<Vec<f32>> {
        let name = &self.plan.segments[segment].gradients.input;
        let vector = &self.segments[segment].gradients.current;
        download(&mut self.copy, vector, 0, vector.len(), name)
    }

    /// Where ranks share the optimizer: gives each the parameters that the others have just updated.
    ///
    /// # Errors
    /// The collective or a copy fails.
    pub(super) fn gather_parameters(&mut self) -> Result<()> {
        if self.plan.shards == 1 {
            return Ok(());
        }
        if self.in_reach() {
            let parameters = self.segments.iter().map(|s| s.parameters.next());
            let parameters: Vec<Buffer> = parameters.map(|v| v.buffer(self.memory())).collect();
            // SAFETY: the vectors live, and the optimizer, which has written them, is over: the host has the norm.
            unsafe { self.collective.all_gather(&parameters)? };
            return Ok(());
        }
        for (segment, memory) in self.plan.segments.iter().zip(&self.segments) {
            let own = self.own_part(segment);
            let vector = memory.parameters.next();
            let name = &segment.parameters.output;
            let part = download(&mut self.copy, vector, own.start, own.len(), name)?;
            let all = self.collective.gather(&part)?;
            upload(&mut self.copy, vector, 0, &all)
                .map_err(EngineError::runtime(format!("write '{name}'")))?;
        }
        Ok(())
    }

    /// The moments of every parameter. Where ranks share the optimizer all of them have to ask.
    ///
    /// # Errors
    /// The collective or a copy fails.
    pub(super) fn moments(&mut self, kind: Kind) -> Result<Vec<NamedArray>> {
        if self.plan.shards == 1 {
            return self.arrays(kind);
        }
        let mut segments = Vec::with_capacity(self.segments.len());
        for memory in &self.segments {
            let vector = memory.current(kind);
            let own = download(&mut self.copy, vector, 0, vector.len(), "moments")?;
            segments.push(self.collective.gather(&own)?);
        }
        let slots = self.plan.slots.iter();
        Ok(slots
            .map(|slot| NamedArray {
                name: slot.name.clone(),
                shape: slot.shape.clone(),
                values: segments[slot.segment][slot.offset..][..slot.shape.iter().product()]
                    .to_vec(),
            })
            .collect())
    }

    /// Replaces the moments of every parameter, of which this rank keeps its part.
    ///
    /// # Errors
    /// A name is not the model's, or a copy fails.
    pub(super) fn write_moments(&mut self, kind: Kind, arrays: &[NamedArray]) -> Result<()> {
        if self.plan.shards == 1 {
            return self.write(kind, arrays);
        }
        let segments = self.plan.segments.iter();
        let mut whole: Vec<Vec<f32>> = segments.map(|segment| vec![0.0; segment.len]).collect();
        for array in arrays {
            let slot = &self.plan.slots[self.slot(&array.name)?];
            whole[slot.segment][slot.offset..][..array.values.len()].copy_from_slice(&array.values);
        }
        for (index, values) in whole.iter().enumerate() {
            let own = self.own_part(&self.plan.segments[index]);
            let vector = self.segments[index].current(kind);
            upload(&mut self.copy, vector, 0, &values[own])
                .map_err(EngineError::runtime("write the moments"))?;
        }
        Ok(())
    }
}

impl DeviceVector {
    /// All of it, as collectives take it.
    fn buffer(&self, memory: Memory) -> Buffer {
        Buffer {
            pointer: self.pointer(),
            len: self.len(),
            element: Element::F32,
            memory,
        }
    }
}
