//! Memory for packed panels, kept for the next product: pages that are new have to be cleared by the system first.

use std::sync::{Mutex, PoisonError};

/// 64 bytes, as the instructions read them.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u32; 16]);

/// What nobody uses now.
static FREE: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// Room that goes back when it is dropped.
pub(super) struct Scratch(Vec<Line>);

impl Scratch {
    /// Room for so many pairs, with anything in it.
    pub(super) fn take(len: usize) -> Self {
        let lines = len.div_ceil(16);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough, else the largest, which grows.
        let fits = |lines: &[Line], wanted: usize| lines.len() >= wanted;
        let best = (0..free.len()).min_by_key(|&i| {
            let (found, enough) = (free[i].len(), fits(&free[i], lines));
            (!enough, if enough { found } else { usize::MAX - found })
        });
        let mut room = best.map(|i| free.swap_remove(i)).unwrap_or_default();
        drop(free);
        if room.len() < lines {
            // Not grown in place, which would copy what is in it.
            room = Vec::new();
            room.resize(lines, Line([0; 16]));
        }
        Self(room)
    }

    /// Its first pair.
    pub(super) fn start(&mut self) -> *mut u32 {
        self.0.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.0);
        FREE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(room);
    }
}
