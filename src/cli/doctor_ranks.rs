//! What `mpnet doctor` says of training on several devices: the GPUs and their links, NCCL and MPI, each tried out by
//! ranks that sum something.

use crate::launch::{HYDRA, OPEN_MPI};
use crate::output::{OutputError, say};
use anyhow::{Context, Result, bail};
use mpnet_runtime::collective::{Kind, Opening, Rendezvous, mpi, nccl, try_out};
use mpnet_runtime::device::{Link, nvidia_count, nvidia_link, nvidia_name};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Floats of the sum that is timed: as many as lie in one buffer of a model.
const FLOATS: usize = 1 << 24;
/// Ranks that MPI is tried out with.
const PROCESSES: usize = 2;
/// How long a rank waits for the others.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Prints what there is for several ranks.
pub fn print() -> Result<(), OutputError> {
    let gpus = nvidia_count().unwrap_or(0);
    print_gpus(gpus)?;
    match nccl::find(nccl::Vendor::Nvidia) {
        Ok(found) => {
            say!("nccl       {} {}", found.version, found.path.display())?;
            match gpus {
                0 => say!("           not tried out: there is no NVIDIA GPU")?,
                _ => print_trial(gpus, gpus_sum(gpus))?,
            }
        }
        // Nobody misses it who has no second GPU.
        Err(_) if gpus < 2 => say!("nccl       none; several NVIDIA GPUs need it")?,
        Err(error) => say!("nccl       none: {error}")?,
    }
    match mpi::find() {
        Ok(found) => {
            say!("mpi        {}", found.path.display())?;
            match found.launcher {
                Some(launcher) => {
                    say!("           started by {}", launcher.display())?;
                    print_trial(PROCESSES, processes_sum(&launcher))
                }
                None => say!("           not tried out: no mpiexec is beside it"),
            }
        }
        Err(error) => say!("mpi        none: {error}"),
    }
}

fn print_gpus(gpus: usize) -> Result<(), OutputError> {
    for index in 0..gpus {
        let name = nvidia_name(index as i32);
        let heading = if index == 0 { "GPUs" } else { "" };
        say!("{heading:<10} {index}: {}", name.unwrap_or_default())?;
    }
    for one in 0..gpus {
        for (link, how) in [
            (Link::NvLink, "by NVLink"),
            (Link::Peer, "directly, by PCIe"),
            (Link::Host, "by way of the host"),
        ] {
            let linked = |other: &usize| nvidia_link(one as i32, *other as i32) == Some(link);
            let others = (one + 1..gpus).filter(linked);
            let others: Vec<String> = others.map(|other| other.to_string()).collect();
            if !others.is_empty() {
                say!("           {one} to {}: {how}", others.join(", "))?;
            }
        }
    }
    Ok(())
}

/// Prints by which library so many ranks have summed, and how long that took.
fn print_trial(ranks: usize, tried: Result<(String, Duration)>) -> Result<(), OutputError> {
    match tried {
        Ok((library, time)) => say!(
            "           works: {library} sums {} MB over {ranks} rank{} in {:.1} ms",
            4 * FLOATS / 1_000_000,
            if ranks == 1 { "" } else { "s" },
            1000.0 * time.as_secs_f64()
        ),
        Err(error) => say!("           fails: {error:#}"),
    }
}

/// A doctor that is a rank.
fn rank(rank: usize, size: usize, folder: &Path) -> Result<Command> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command
        .args(["doctor", "--rank-of"])
        .arg(format!("{rank}/{size}/{}", folder.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// All GPUs, each with a process of its own.
fn gpus_sum(gpus: usize) -> Result<(String, Duration)> {
    let folder = tempfile::tempdir().context("making a folder for ranks to meet")?;
    let ranks = (0..gpus).map(|index| Ok(rank(index, gpus, folder.path())?.spawn()?));
    let ranks: Vec<Child> = ranks.collect::<Result<_>>().context("starting ranks")?;
    let outputs = ranks.into_iter().map(Child::wait_with_output);
    let outputs: Vec<Output> = outputs
        .collect::<std::io::Result<_>>()
        .context("waiting for ranks")?;
    heard(&outputs)
}

/// Two processes by MPI's launcher.
fn processes_sum(launcher: &Path) -> Result<(String, Duration)> {
    let rank = rank(0, PROCESSES, Path::new(""))?;
    let output = Command::new(launcher)
        .args(["-n", &PROCESSES.to_string()])
        .arg(rank.get_program())
        .args(rank.get_args())
        // Open MPI wants to be told that ranks may be more than cores, and the user root.
        .envs([
            ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
            ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", launcher.display()))?;
    heard(&[output])
}

/// What ranks have printed: one of them the library and the time.
fn heard(outputs: &[Output]) -> Result<(String, Duration)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(failed) = outputs.iter().find(|output| !output.status.success()) {
        let said = text(&failed.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty());
        bail!("{}", said.unwrap_or("a rank ended without a word"));
    }
    let printed: String = outputs.iter().map(|output| text(&output.stdout)).collect();
    let line = printed.lines().find_map(|line| {
        let (library, time) = line.split_once('\t')?;
        Some((library.to_owned(), Duration::from_nanos(time.parse().ok()?)))
    });
    line.context("the ranks said nothing")
}

/// Is one of those ranks.
///
/// # Errors
/// They do not meet, or their sum is wrong.
pub fn be_rank(which: &str) -> Result<()> {
    let mut parts = which.splitn(3, '/');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (Some(given), Some(world_size)) = (number(), number()) else {
        bail!("--rank-of {which}: RANK/SIZE/FOLDER is expected");
    };
    let folder = Path::new(parts.next().unwrap_or_default());
    let by_mpi = folder.as_os_str().is_empty();
    let rank = match by_mpi {
        // Its launcher gives all of them the same arguments.
        true => [OPEN_MPI, HYDRA]
            .iter()
            .find_map(|[rank, ..]| std::env::var(rank).ok()?.parse().ok())
            .unwrap_or(given),
        false => given,
    };
    let opening = Opening {
        kind: if by_mpi { Kind::Mpi } else { Kind::Nccl },
        rank,
        world_size,
        device: rank as i32,
        rendezvous: Rendezvous::Folder {
            path: folder.to_owned(),
            key: "doctor".to_owned(),
        },
        deterministic: false,
        presence: (!by_mpi).then(|| folder.to_owned()),
        timeout: TIMEOUT,
        on_trouble: None,
    };
    let (library, time) = try_out(opening, FLOATS)?;
    if rank == 0 {
        say!("{library}\t{}", time.as_nanos())?;
    }
    Ok(())
}
