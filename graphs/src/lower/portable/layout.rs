//! Where each parameter lies in the few long buffers that the optimizer updates.
//!
//! The update is elementwise, so it sees parameters, gradients and moments as vectors: a handful of
//! long ones instead of hundreds of small ones, a kernel launch each. The step sees views of them.

use super::{gradient, replaced};
use crate::model::parameters::Parameter;
use mpnet_plan::{Segment, Slot, names};
use std::collections::HashMap;

/// Every parameter starts at a multiple of so many elements (256 bytes), as allocators align.
const ALIGNMENT: usize = 64;
/// Longest segment that holds more than one parameter, in elements: it bounds what the optimizer
/// needs beside the buffers themselves.
const MAX_ELEMENTS: usize = 1 << 24;

/// All parameters, in their order, in segments.
pub(super) struct Layout {
    pub segments: Vec<Segment>,
    pub slots: Vec<Slot>,
}

impl Layout {
    /// Lays out `parameters`, those that decay apart from those that don't; with `shared` segments
    /// several to one buffer, else each in its own. With `expose` the step shows every gradient. Each segment has
    /// `shards` equal parts, all of them aligned.
    pub fn new(parameters: &[Parameter], shared: bool, expose: bool, shards: usize) -> Layout {
        let mut segments: Vec<Segment> = Vec::new();
        let mut open: [Option<usize>; 2] = [None, None];
        let slots = parameters
            .iter()
            .map(|parameter| {
                let size = parameter.len().next_multiple_of(ALIGNMENT);
                let open = &mut open[usize::from(parameter.decays())];
                let index = match *open {
                    Some(index) if shared && segments[index].len + size <= MAX_ELEMENTS => index,
                    Some(_) | None => {
                        segments.push(segment(segments.len(), 0, parameter.decays()));
                        segments.len() - 1
                    }
                };
                *open = Some(index);
                let offset = segments[index].len;
                segments[index].len += size;
                Slot {
                    name: parameter.name.clone(),
                    shape: parameter.shape.clone(),
                    segment: index,
                    offset,
                    gradient: gradient(&parameter.name),
                    exposed: expose.then(|| names::exposed_gradient(&parameter.name)),
                }
            })
            .collect();
        for segment in &mut segments {
            segment.len = segment.len.next_multiple_of(ALIGNMENT * shards);
        }
        Layout { segments, slots }
    }

    /// The segment of each parameter, by its name.
    pub fn segment_of_each(&self) -> HashMap<String, usize> {
        let slots = self.slots.iter();
        slots
            .map(|slot| (slot.name.clone(), slot.segment))
            .collect()
    }
}

/// Segment `index` of so many elements.
pub(super) fn segment(index: usize, len: usize, decays: bool) -> Segment {
    let vector = |kind: &str| replaced(format!("segment.{index}.{kind}"));
    Segment {
        len,
        decays,
        parameters: vector("parameter"),
        gradients: vector("gradient"),
        first_moments: vector("first_moment"),
        second_moments: vector("second_moment"),
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, Layout, MAX_ELEMENTS};
    use crate::model::parameters::{Init, Parameter};

    fn parameter(name: &str, shape: &[usize]) -> Parameter {
        Parameter {
            name: name.into(),
            shape: shape.to_vec(),
            init: Init::Zeros,
        }
    }

    #[test]
    fn slots_do_not_overlap_and_share_a_segment_only_with_their_kind() {
        let list = [
            parameter("a.weight", &[3, 5]),
            parameter("a.bias", &[3]),
            parameter("b.weight", &[MAX_ELEMENTS / 8, 8]),
            parameter("c.weight", &[2, 2]),
            parameter("b.bias", &[200]),
        ];
        let alone = Layout::new(&list, false, false, 1);
        for (index, slot) in alone.slots.iter().enumerate() {
            assert_eq!((slot.segment, slot.offset), (index, 0));
            assert_eq!(alone.segments[index].decays, list[index].decays());
        }
        let layout = Layout::new(&list, true, false, 1);
        for (slot, parameter) in layout.slots.iter().zip(&list) {
            let segment = &layout.segments[slot.segment];
            assert_eq!(segment.decays, parameter.decays());
            assert_eq!(slot.offset % ALIGNMENT, 0);
            assert!(slot.offset + parameter.len() <= segment.len);
        }
        let mut places: Vec<_> = layout
            .slots
            .iter()
            .map(|s| (s.segment, s.offset, s.shape.iter().product::<usize>()))
            .collect();
        places.sort();
        for pair in places.windows(2) {
            assert!(pair[0].0 != pair[1].0 || pair[0].1 + pair[0].2 <= pair[1].1);
        }
        let parts = Layout::new(&list, true, false, 3);
        assert_eq!(parts.slots, layout.slots);
        for (whole, segment) in layout.segments.iter().zip(&parts.segments) {
            assert_eq!(segment.len % (3 * ALIGNMENT), 0);
            assert!((whole.len..whole.len + 3 * ALIGNMENT).contains(&segment.len));
        }
        // The large one does not fit behind `a.weight`.
        assert_eq!(
            layout.slots.iter().map(|s| s.segment).collect::<Vec<_>>(),
            [0, 1, 2, 3, 1]
        );
    }
}
