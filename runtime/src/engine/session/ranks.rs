//! What the ranks of a run do together: they sum their gradients, once an update, before anything looks at them.
//!
//! Where they share the optimizer (ZeRO, stage 1: Rajbhandari et al. 2020, arXiv 1910.02054), each rank
//! gets the sum of its part of the gradients alone, updates that part of the parameters, whose moments it
//! alone has, and gets the other parts of the parameters from the other ranks.

use std::ops::Range;
use std::sync::Arc;

use mpnet_plan::{NamedArray, Plan, Segment, names};

use super::{DeviceVector, Kind, SessionEngine, copy_out, download, upload};
use crate::collective::{Buffer, Collective, Element, Memory, Overlap, Summing};
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

/// Where the vectors of a plan's engine lie.
fn memory(plan: &Plan) -> Memory {
    match plan.provider.info().memory {
        None => Memory::Host,
        Some(_) => Memory::Device,
    }
}

/// Whether collectives reach the vectors of a plan's engine themselves.
fn reach(plan: &Plan, ranks: &dyn Collective) -> bool {
    memory(plan) == Memory::Host || memory(plan) == ranks.memory()
}

/// How gradients are summed where they lie.
pub(super) fn overlap(plan: &Plan, ranks: &Arc<dyn Collective>) -> Option<Arc<Overlap>> {
    let summing = match plan.shards {
        1 => Summing::Whole,
        _ => Summing::OwnPart,
    };
    let possible =
        ranks.world_size() > 1 && reach(plan, &**ranks) && plan.provider.info().updates_in_place;
    possible.then(|| Arc::new(Overlap::new(Arc::clone(ranks), summing)))
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
        memory(&self.plan)
    }

    /// Whether collectives reach this engine's vectors themselves.
    fn in_reach(&self) -> bool {
        reach(&self.plan, &*self.collective)
    }

    /// Shows the sums where the gradients lie.
    pub(super) fn show_gradients(&self) {
        let Some(overlap) = &self.overlap else {
            return;
        };
        let slots = |index| {
            let slots = self.plan.slots.iter();
            slots.filter(move |slot| slot.segment == index).count()
        };
        let segments = self.segments.iter().enumerate();
        let segments = segments.map(|(index, segment)| {
            let gradients = segment.gradients.current.buffer(self.memory());
            (gradients, slots(index))
        });
        // SAFETY: where ranks reach the gradients no other vector takes their place, and they live as long as the
        // sessions; sums are waited for before gradients are cleared, and a rank that ends otherwise ends its process.
        unsafe { overlap.set_segments(segments) };
    }

    /// Whether gradients are being summed.
    pub(super) fn is_summing(&self) -> bool {
        self.overlap.as_ref().is_some_and(|o| o.is_under_way())
    }

    /// Waits until nothing is being summed.
    ///
    /// # Errors
    /// The collective fails.
    pub(super) fn wait_for_sums(&self) -> Result<()> {
        match &self.overlap {
            Some(overlap) if overlap.is_under_way() => Ok(overlap.wait()?),
            Some(_) | None => Ok(()),
        }
    }

    /// Gives this rank the sum of all ranks' gradients; where they share the optimizer, of its own part.
    ///
    /// # Errors
    /// The collective or a copy fails.
    pub(super) fn complete_sums(&mut self) -> Result<()> {
        if let Some(overlap) = &self.overlap {
            if !overlap.is_under_way() {
                overlap.begin_rest()?;
            }
            return Ok(overlap.wait()?);
        }
        if self.collective.world_size() == 1 {
            return Ok(());
        }
        for index in 0..self.segments.len() {
            let name = &self.plan.segments[index].gradients.input;
            let vector = &self.segments[index].gradients.current;
            let mut values = download(&mut self.copy, vector, 0, vector.len(), name)?;
            self.collective.sum(&mut values)?;
            upload(&mut self.copy, vector, 0, &values)
                .map_err(EngineError::runtime("write the gradients"))?;
        }
        Ok(())
    }

    /// The sum of squares of all gradients, to the bit the same on all ranks; none where the optimizer adds them up
    /// itself.
    ///
    /// # Errors
    /// The collective or a copy fails.
    pub(super) fn sum_squares(&mut self) -> Result<Option<f32>> {
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
        // Without shards each has summed up all of them, and maybe in another order than the others.
        if self.plan.shards == 1 && self.collective.rank() > 0 {
            sum = [0.0];
        }
        self.collective.sum(&mut sum)?;
        Ok(Some(sum[0]))
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
