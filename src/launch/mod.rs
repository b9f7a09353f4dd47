//! Which rank of how many this process is, as whatever started it says, and the start of ranks by this program
//! itself.

pub mod children;
pub mod output;

use std::fmt;

/// The variable that tells a child of `--devices` who started it: a folder of its parent's.
pub const STARTED_BY: &str = "MPNET_STARTED_BY";
/// The variable that tells it to go on from the last checkpoint.
pub const RESTART: &str = "MPNET_RESTART";

/// In a run's saved configuration: how many ranks there were; one where absent.
pub const WORLD_SIZE: &str = "world_size";

/// Variables of Open MPI: rank, number of ranks, and both on this machine.
pub const OPEN_MPI: [&str; 4] = [
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
];
/// The same of the launcher of MPICH and Intel MPI.
pub const HYDRA: [&str; 4] = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"];

/// Steps of Slurm from here on are no steps: the shells of `salloc` and `sbatch`, for instance.
const SLURM_NO_STEP: u64 = 0xffff_fff0;

/// What said which rank this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// Nothing: one process trains.
    None,
    /// `--rank` and `--world-size`.
    Flags,
    /// `--devices` of this program.
    Devices,
    /// torchrun, or what sets its variables.
    Torchrun,
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// The `mpiexec` of MPICH or Intel MPI.
    Hydra,
    /// `srun`.
    Slurm,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::None => "no launcher",
            Launcher::Flags => "--rank and --world-size",
            Launcher::Devices => "--devices",
            Launcher::Torchrun => "torchrun's variables",
            Launcher::OpenMpi => "Open MPI's variables",
            Launcher::Hydra => "the variables of MPICH's or Intel's mpiexec",
            Launcher::Slurm => "srun's variables",
        })
    }
}

/// Who this process is among those that train together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// From 0.
    pub rank: usize,
    /// How many ranks there are.
    pub world: usize,
    /// Among those of this machine, from 0.
    pub local_rank: usize,
    /// How many ranks this machine has.
    pub local_world: usize,
    pub by: Launcher,
}

impl Default for Launch {
    /// One process alone.
    fn default() -> Launch {
        Launch {
            rank: 0,
            world: 1,
            local_rank: 0,
            local_world: 1,
            by: Launcher::None,
        }
    }
}

impl Launch {
    /// What of several things is this rank's.
    pub fn share(&self) -> Share {
        Share {
            rank: self.rank,
            world: self.world,
        }
    }

    /// Whether this rank writes what all ranks write together: checkpoints, figures, the terminal.
    pub fn writes(&self) -> bool {
        self.rank == 0
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Launch {
            rank,
            world,
            local_rank,
            local_world,
            by,
        } = self;
        write!(
            f,
            "rank {rank} of {world}, {local_rank} of {local_world} on this machine, by {by}"
        )
    }
}

/// Which of several things, numbered from 0, are one rank's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub rank: usize,
    /// How many ranks there are.
    pub world: usize,
}

impl Share {
    /// Those of a process alone.
    pub const ALL: Share = Share { rank: 0, world: 1 };

    /// Whether number `index` is the rank's.
    pub fn has(self, index: usize) -> bool {
        index % self.world == self.rank
    }
}

/// `--rank`, `--world-size` and `--local-rank`, where they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    pub rank: Option<usize>,
    pub world_size: Option<usize>,
    pub local_rank: Option<usize>,
}

/// Where a value was looked for and what was found: a variable's name or a flag's, and a number.
struct Found<'a> {
    names: [&'a str; 4],
    values: [Option<usize>; 4],
}

impl Launch {
    /// What `flags` and the variables that `variable` looks up say, the first of: flags, torchrun, Open MPI, MPICH or
    /// Intel MPI, a step of Slurm.
    ///
    /// # Errors
    /// Where the first that says something says it in part or contradicts itself.
    pub fn detect(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Launch, String> {
        let given = Found {
            names: ["--rank", "--world-size", "--local-rank", "--world-size"],
            values: [flags.rank, flags.world_size, flags.local_rank, None],
        };
        if given.values.iter().any(Option::is_some) {
            return given.launch(Launcher::Flags);
        }
        let torchrun = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];
        let by = match variable(STARTED_BY) {
            Some(_) => Launcher::Devices,
            None => Launcher::Torchrun,
        };
        for (by, names) in [
            (by, torchrun),
            (Launcher::OpenMpi, OPEN_MPI),
            (Launcher::Hydra, HYDRA),
        ] {
            // What a machine knows of itself says nothing of a start.
            if variable(names[0]).is_some() || variable(names[1]).is_some() {
                return Found::read(names, &variable)?.launch(by);
            }
        }
        slurm(&variable)
    }
}

/// A step of Slurm with several tasks; one process otherwise.
fn slurm(variable: &impl Fn(&str) -> Option<String>) -> Result<Launch, String> {
    let step = variable("SLURM_STEP_ID").and_then(|step| step.parse::<u64>().ok());
    if step.is_none_or(|step| step >= SLURM_NO_STEP) {
        return Ok(Launch::default());
    }
    let tasks = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"];
    let tasks = tasks.into_iter().find(|name| variable(name).is_some());
    let Some(tasks) = tasks else {
        return Ok(Launch::default());
    };
    let names = [
        "SLURM_PROCID",
        tasks,
        "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE",
    ];
    let mut found = Found::read([names[0], names[1], names[2], ""], variable)?;
    if found.values[1] == Some(1) {
        return Ok(Launch::default());
    }
    found.names = names;
    let node = variable("SLURM_NODEID").and_then(|node| node.parse().ok());
    found.values[3] = variable(names[3])
        .zip(node)
        .and_then(|(counts, node)| tasks_of(&counts, node));
    found.launch(Launcher::Slurm)
}

/// The tasks of node number `node`, from 0, in Slurm's list of counts such as `4(x2),3`.
fn tasks_of(counts: &str, node: usize) -> Option<usize> {
    let mut before = 0;
    for part in counts.split(',') {
        let (count, nodes) = match part.split_once("(x") {
            Some((count, nodes)) => (count, nodes.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        before += nodes;
        if node < before {
            return count.parse().ok();
        }
    }
    None
}

impl<'a> Found<'a> {
    fn read(
        names: [&'a str; 4],
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<Found<'a>, String> {
        let mut values = [None; 4];
        for (value, name) in values.iter_mut().zip(names) {
            let Some(text) = variable(name) else { continue };
            let number = text.parse().map_err(|_| {
                format!("the variable {name} is '{text}', which is no rank or number of ranks")
            })?;
            *value = Some(number);
        }
        Ok(Found { names, values })
    }

    fn launch(&self, by: Launcher) -> Result<Launch, String> {
        let [rank_name, world_name, local_rank_name, local_world_name] = self.names;
        let [rank, world, local_rank, local_world] = self.values;
        let (Some(rank), Some(world)) = (rank, world) else {
            let (there, missing) = match (rank, world) {
                (Some(_), _) => (rank_name, world_name),
                (None, Some(_)) => (world_name, rank_name),
                (None, None) => (local_rank_name, rank_name),
            };
            return Err(format!(
                "{there} is given and {missing} is not: a rank of several needs both, one process neither"
            ));
        };
        if rank >= world {
            return Err(format!(
                "{rank_name} is {rank} and {world_name} {world}: ranks count from 0 and end below their number"
            ));
        }
        // Without a word of machines, there is one.
        let local_rank = local_rank.unwrap_or(rank);
        let local_world = local_world.unwrap_or(world);
        if local_world > world || local_rank >= local_world || local_rank > rank {
            return Err(format!(
                "{local_rank_name} is {local_rank} ({local_world} on this machine by {local_world_name}), which is \
                 not possible for rank {rank} of {world}"
            ));
        }
        Ok(Launch {
            rank,
            world,
            local_rank,
            local_world,
            by,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(flags: Flags, variables: &str) -> Result<Launch, String> {
        let pairs: Vec<(&str, &str)> = variables
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .collect();
        Launch::detect(&flags, |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn launch(numbers: [usize; 4], by: Launcher) -> Launch {
        let [rank, world, local_rank, local_world] = numbers;
        Launch {
            rank,
            world,
            local_rank,
            local_world,
            by,
        }
    }

    const TORCHRUN: &str = "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4";
    const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 \
        OMPI_COMM_WORLD_LOCAL_SIZE=2";
    const HYDRA: &str = "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2";
    const SLURM: &str = "SLURM_PROCID=6 SLURM_NTASKS=7 SLURM_STEP_NUM_TASKS=7 SLURM_LOCALID=2 SLURM_STEP_ID=0 \
        SLURM_STEP_TASKS_PER_NODE=2(x2),3 SLURM_NODEID=2";

    #[test]
    fn every_launcher_is_known_by_its_variables() {
        for (variables, expected) in [
            ("", Launch::default()),
            (TORCHRUN, launch([5, 8, 1, 4], Launcher::Torchrun)),
            (
                "RANK=1 WORLD_SIZE=2",
                launch([1, 2, 1, 2], Launcher::Torchrun),
            ),
            (OPEN_MPI, launch([2, 4, 0, 2], Launcher::OpenMpi)),
            (HYDRA, launch([1, 2, 1, 2], Launcher::Hydra)),
            (SLURM, launch([6, 7, 2, 3], Launcher::Slurm)),
        ] {
            assert_eq!(detect(Flags::default(), variables), Ok(expected));
        }
        let own = format!("{TORCHRUN} {STARTED_BY}=1");
        assert_eq!(
            detect(Flags::default(), &own).unwrap().by,
            Launcher::Devices
        );
    }

    #[test]
    fn the_first_of_several_is_taken() {
        let flags = Flags {
            rank: Some(3),
            world_size: Some(4),
            local_rank: None,
        };
        let all = [TORCHRUN, OPEN_MPI, HYDRA, SLURM];
        let by = |flags, variables: &[&str]| detect(flags, &variables.join(" ")).unwrap().by;
        assert_eq!(by(flags, &all), Launcher::Flags);
        let order = [
            Launcher::Torchrun,
            Launcher::OpenMpi,
            Launcher::Hydra,
            Launcher::Slurm,
        ];
        for (first, expected) in order.into_iter().enumerate() {
            assert_eq!(by(Flags::default(), &all[first..]), expected);
        }
    }

    #[test]
    fn slurm_counts_in_steps_of_several_tasks_alone() {
        for shell in [
            // In the script of sbatch, in the shell of salloc, in a step of one task.
            "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0",
            "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_ID=4294967290",
            "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=1 SLURM_STEP_ID=0",
            "SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_STEP_ID=0",
        ] {
            assert_eq!(detect(Flags::default(), shell), Ok(Launch::default()));
        }
        assert_eq!(tasks_of("4", 0), Some(4));
        assert_eq!(tasks_of("2(x2),3", 1), Some(2));
        assert_eq!(tasks_of("2(x2),3", 2), Some(3));
        assert_eq!(tasks_of("2(x2),3", 3), None);
        assert_eq!(tasks_of("2(y2)", 0), None);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        let flags = |rank, world_size, local_rank| Flags {
            rank,
            world_size,
            local_rank,
        };
        for (flags, variables, said) in [
            (flags(Some(0), None, None), "", "--world-size is not"),
            (flags(None, Some(2), None), "", "--rank is not"),
            (flags(None, None, Some(1)), "", "--rank is not"),
            (flags(Some(2), Some(2), None), "", "--rank is 2"),
            (flags(Some(0), Some(2), Some(1)), "", "--local-rank is 1"),
            (Flags::default(), "RANK=1", "WORLD_SIZE is not"),
            (Flags::default(), "RANK=4 WORLD_SIZE=4", "RANK is 4"),
            (Flags::default(), "RANK=x WORLD_SIZE=4", "RANK is 'x'"),
            (
                Flags::default(),
                "RANK=3 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2",
                "LOCAL_RANK is 2",
            ),
            (Flags::default(), "PMI_SIZE=2", "PMI_RANK is not"),
            (
                Flags::default(),
                "SLURM_STEP_ID=3 SLURM_NTASKS=2",
                "SLURM_PROCID is not",
            ),
        ] {
            let error = detect(flags, variables).unwrap_err();
            assert!(error.contains(said), "{variables}: {error}");
        }
    }
}
