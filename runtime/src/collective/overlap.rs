//! Gradients that are summed over the ranks while the training step that makes them still runs.
//!
//! The step's operator `AddGradient` tells of each gradient that it has written. Once all of a segment are there, its
//! sum is begun: between GPUs beside what the step still computes, on a stream of its own. Every rank begins
//! the same sums in the same order, whatever order its own step has: that in which the first rank's first one did.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Buffer, Collective, Reduction, Result};

/// What each rank is to have of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summing {
    /// All of it.
    Whole,
    /// Its part, in place, as [`Collective::reduce_scatter`] leaves it.
    OwnPart,
}

impl Summing {
    /// What messages call it.
    pub(super) fn operation(self) -> &'static str {
        match self {
            Self::Whole => "all_reduce",
            Self::OwnPart => "reduce_scatter",
        }
    }

    /// Sums, and returns when it is over.
    ///
    /// # Safety
    /// As for [`Collective::all_reduce`].
    ///
    /// # Errors
    /// As for [`Collective::all_reduce`] and [`Collective::reduce_scatter`].
    pub(super) unsafe fn run(self, ranks: &dyn Collective, buffer: Buffer) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Whole => ranks.all_reduce(&[buffer], Reduction::Sum),
                Self::OwnPart => ranks.reduce_scatter(&[buffer]),
            }
        }
    }
}

/// The sums of one update's gradients.
#[derive(Debug)]
pub(crate) struct Overlap {
    ranks: Arc<dyn Collective>,
    summing: Summing,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    gradients: Vec<Buffer>,
    turns: Turns,
    /// Whether all ranks have the first one's turns.
    agreed: bool,
}

// SAFETY: the buffers' memory is that of vectors which the engine keeps, and which any thread may read and write.
unsafe impl Send for State {}

impl State {
    /// Begins the sums of these turns.
    fn begin(
        &self,
        turns: Range<usize>,
        (ranks, summing): (&dyn Collective, Summing),
        after: *mut c_void,
    ) -> Result<()> {
        for &segment in &self.turns.order[turns] {
            // SAFETY: the step writes this segment no more, and `set_segments`' caller vouches for the memory.
            unsafe { ranks.begin(self.gradients[segment], summing, after)? };
        }
        Ok(())
    }
}

impl Overlap {
    /// Sums among `ranks`; of nothing, until it [has](Self::set_segments) something.
    pub(crate) fn new(ranks: Arc<dyn Collective>, summing: Summing) -> Self {
        Self {
            ranks,
            summing,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn how(&self) -> (&dyn Collective, Summing) {
        (&*self.ranks, self.summing)
    }

    /// The segments of gradients, and how many parameters lie in each.
    ///
    /// # Safety
    /// The buffers stay live and where they are for as long as steps run or sums are begun.
    pub(crate) unsafe fn set_segments(&self, segments: impl Iterator<Item = (Buffer, usize)>) {
        let (gradients, parameters) = segments.unzip();
        *self.state() = State {
            gradients,
            turns: Turns::new(parameters),
            agreed: false,
        };
    }

    /// The next training step is the last before the update.
    pub(crate) fn last_step(&self) {
        self.state().turns.last_step();
    }

    /// A parameter's gradient in `segment` is there, once the GPU's `stream` has done what it was given; begins the sums
    /// whose turn it is.
    ///
    /// # Errors
    /// The collective fails.
    pub(crate) fn wrote(&self, segment: usize, stream: *mut c_void) -> Result<()> {
        let mut state = self.state();
        let turns = state.turns.wrote(segment);
        state.begin(turns, self.how(), stream)
    }

    /// Begins the sums that are not begun yet. No step runs any more; all ranks come here, whether they made steps or
    /// not.
    ///
    /// # Errors
    /// The collective fails.
    pub(crate) fn begin_rest(&self) -> Result<()> {
        let mut state = self.state();
        if !state.agreed {
            let mut order = state.turns.seen();
            if self.ranks.rank() > 0 {
                order.fill(0);
            }
            self.ranks.sum(&mut order)?;
            tracing::debug!("gradients are summed by segments in the order {order:?}");
            state.turns.order = order.into_iter().map(|segment| segment as usize).collect();
            state.agreed = true;
        }
        let (begun, all) = (state.turns.begun, state.turns.order.len());
        tracing::debug!("{begun} of {all} sums of gradients began while the step ran");
        let turns = state.turns.rest();
        state.begin(turns, self.how(), ptr::null_mut())
    }

    /// Whether sums are begun of which nobody has [waited](Self::wait) for the end.
    pub(crate) fn is_under_way(&self) -> bool {
        self.state().turns.begun > 0
    }

    /// Waits for the sums. The next ones are another update's.
    ///
    /// # Errors
    /// The collective fails.
    pub(crate) fn wait(&self) -> Result<()> {
        self.ranks.wait()?;
        self.state().turns.begun = 0;
        Ok(())
    }
}

/// Whose turn it is.
#[derive(Debug, Default, PartialEq)]
struct Turns {
    /// Of each segment.
    parameters: Vec<usize>,
    /// Of which the gradients are there.
    there: Vec<usize>,
    /// The segments in the order in which they are begun; empty in the first update, whose order it becomes.
    order: Vec<usize>,
    /// In which this rank's step wrote them all.
    written: Vec<usize>,
    /// How many of `order` have begun.
    begun: usize,
    /// Whether the step that runs is the last before the update.
    is_last: bool,
}

impl Turns {
    fn new(parameters: Vec<usize>) -> Self {
        Self {
            there: vec![0; parameters.len()],
            parameters,
            ..Self::default()
        }
    }

    fn last_step(&mut self) {
        self.is_last = true;
        self.written.clear();
        self.there.fill(0);
    }

    /// Notes a gradient; returns which of `order` begin now.
    fn wrote(&mut self, segment: usize) -> Range<usize> {
        let first = self.begun;
        if self.is_last && segment < self.parameters.len() {
            self.there[segment] += 1;
            if self.there[segment] == self.parameters[segment] {
                self.written.push(segment);
            }
            let ready = |&&next: &&usize| self.there[next] >= self.parameters[next];
            self.begun += self.order[first..].iter().take_while(ready).count();
        }
        first..self.begun
    }

    /// Which of `order` begin once the steps are over.
    fn rest(&mut self) -> Range<usize> {
        self.is_last = false;
        let first = std::mem::replace(&mut self.begun, self.order.len());
        first..self.begun
    }

    /// The segments as this rank wrote them, the others behind.
    fn seen(&self) -> Vec<u64> {
        let others = (0..self.parameters.len()).filter(|segment| !self.written.contains(segment));
        let all = self.written.iter().copied().chain(others);
        all.map(|segment| segment as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_begin_in_the_order_of_the_first_update_as_soon_as_their_turn_comes() {
        let mut turns = Turns::new(vec![1, 2, 1]);
        // No step but the last begins any, nor does the first update's.
        for segment in [2, 1, 1, 0] {
            assert!(turns.wrote(segment).is_empty());
        }
        turns.last_step();
        for segment in [2, 1, 0] {
            assert!(turns.wrote(segment).is_empty());
        }
        assert_eq!(turns.seen(), [2, 0, 1]);
        turns.order = vec![2, 0, 1];
        assert_eq!(turns.rest(), 0..3);

        turns.begun = 0;
        turns.last_step();
        assert_eq!(turns.wrote(1), 0..0);
        assert_eq!(turns.wrote(0), 0..0);
        assert_eq!(turns.wrote(2), 0..2);
        assert_eq!(turns.wrote(1), 2..3);
        assert_eq!(turns.rest(), 3..3);

        // A rank without a step of its own begins them all the same.
        turns.begun = 0;
        assert_eq!(turns.rest(), 0..3);
    }
}
