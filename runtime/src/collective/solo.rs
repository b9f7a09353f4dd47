//! A world of one.

use std::ffi::c_void;
use std::time::Duration;

use super::{Buffer, Collective, Kind, Memory, Reduction, Result, Spent, Summing};

/// The only rank: its values are everybody's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Collective for Solo {
    fn kind(&self) -> Kind {
        Kind::Solo
    }

    fn description(&self) -> String {
        Kind::Solo.to_string()
    }

    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn memory(&self) -> Memory {
        Memory::Host
    }

    unsafe fn all_reduce(&self, _: &[Buffer], _: Reduction) -> Result<()> {
        Ok(())
    }

    unsafe fn reduce_scatter(&self, _: &[Buffer]) -> Result<()> {
        Ok(())
    }

    unsafe fn begin(&self, _: Buffer, _: Summing, _: *mut c_void) -> Result<()> {
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    unsafe fn all_gather(&self, _: &[Buffer]) -> Result<()> {
        Ok(())
    }

    unsafe fn broadcast(&self, _: Buffer, _: usize) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn time_all_reduce(&self, _: usize) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, _: &str) {}

    fn set_update(&self, _: u64) {}

    fn spent(&self) -> Spent {
        Spent::default()
    }
}
