//! The flags of several ranks: how many processes train together, and which of them this one is.

use crate::cli::values::count;
use crate::launch::{Flags, Launch};
use crate::train::flags::Effect;
use clap::Args;
use std::str::FromStr;
use std::time::Duration;

/// Several devices and machines.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Several devices")]
pub struct RankArgs {
    /// Train on this many devices of this machine, each with a process of its own that this one starts and looks
    /// after: a number, or all NVIDIA GPUs that are visible
    #[arg(long, value_name = "N|all", conflicts_with_all = ["rank", "world_size", "local_rank"], add = Effect::Start)]
    pub devices: Option<Devices>,
    /// With --devices, start again from the last checkpoint up to this many times when a rank fails
    #[arg(long, value_name = "N", default_value_t = 0, add = Effect::Start)]
    pub restarts: u32,
    /// This process is rank N, from 0 [default: as torchrun, mpirun, mpiexec or srun say]
    #[arg(long, value_name = "N", add = Effect::Start)]
    pub rank: Option<usize>,
    /// Of so many ranks [default: as the launcher says]
    #[arg(long, value_name = "N", value_parser = count::<usize>, add = Effect::Start)]
    pub world_size: Option<usize>,
    /// Its number among those of this machine, which is its device's [default: as the launcher says, else --rank]
    #[arg(long, value_name = "N", add = Effect::Start)]
    pub local_rank: Option<usize>,
    /// End the run when ranks have waited this many seconds for one of them
    #[arg(long, value_name = "SECONDS", default_value_t = 100, value_parser = count::<u64>,
        add = Effect::Surroundings(&[]))]
    pub collective_timeout: u64,
    /// Keep and compute on each rank only its part of the optimizer: the same updates, and the moments in as much less
    /// memory as there are ranks
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub shard_optimizer: bool,
    /// Sum gradients over as many GPUs in the same order in every run
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub deterministic: bool,
}

/// How many devices of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    All,
    Count(usize),
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Devices, String> {
        match text {
            "all" => Ok(Devices::All),
            number => count(number).map(Devices::Count),
        }
    }
}

impl RankArgs {
    /// Which rank this process is by these flags and the variables that `variable` looks up.
    ///
    /// # Errors
    /// Where they say it in part or contradict themselves.
    pub fn launch(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Launch, String> {
        let flags = Flags {
            rank: self.rank,
            world_size: self.world_size,
            local_rank: self.local_rank,
        };
        Launch::detect(&flags, variable)
    }

    /// How long ranks wait for each other.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.collective_timeout)
    }
}
