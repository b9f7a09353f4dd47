//! How the ranks of a run meet: by which library, and where they learn of each other.

use super::config::TrainConfig;
use super::execution::EngineKind;
use super::placement::Placement;
use super::ranks::Ranks;
use crate::launch::{Launch, Launcher, STARTED_BY};
use crate::output::complain;
use anyhow::{Context, Result, bail};
use mpnet_plan::Provider;
use mpnet_runtime::collective::{self, Kind, Opening, Rendezvous};
use mpnet_runtime::device::{nvidia_count, processor_threads};
use std::path::PathBuf;

/// Where ranks say who they are, among a run's checkpoints.
const PRESENCE: &str = ".ranks";

/// Meets the other ranks of `config`, and adapts `placement` to there being several: each has a device and its share of
/// the processor's threads, on the engine that hands out its gradients.
///
/// # Errors
/// Where they cannot be found, or the engine that was asked for trains alone.
pub fn meet(config: &TrainConfig, placement: &mut Placement) -> Result<Ranks> {
    let launch = config.launch;
    if launch.world == 1 {
        // There is nobody to share with.
        placement.shard_optimizer = false;
        return Ok(Ranks::alone());
    }
    placement.engine = match placement.engine {
        EngineKind::Auto | EngineKind::Session => EngineKind::Session,
        EngineKind::TrainingApi => bail!(
            "--engine training-api keeps its gradients to itself, so that {} ranks cannot add theirs up: use --engine \
             session",
            launch.world
        ),
    };
    if placement.provider.info().memory.is_some() {
        placement.device_id = device(&launch, placement.provider, placement.device_id)?;
    }
    placement.threads = Some(placement.threads.unwrap_or_else(|| threads(&launch)));
    let kind = Kind::choose(placement.provider, launch.world);
    let presence = match std::env::var_os(STARTED_BY) {
        Some(folder) => PathBuf::from(folder),
        None => config.checkpoint_dir.join(PRESENCE),
    };
    let opening = Opening {
        kind,
        rank: launch.rank,
        world_size: launch.world,
        device: placement.device_id,
        rendezvous: rendezvous(config, kind)?,
        deterministic: config.operation.deterministic,
        presence: (!config.operation.dry_run).then_some(presence),
        timeout: config.operation.collective_timeout,
        // The group says on standard error why it ends.
        on_trouble: None,
    };
    let group = collective::open(opening)
        .with_context(|| format!("meeting the other ranks as {launch}"))?;
    let ranks = Ranks::new(launch, group)?;
    if launch.writes() {
        complain(&format!(
            "{} ranks by {}, which meet by {}",
            launch.world,
            launch.by,
            ranks.group().description()
        ));
    }
    Ok(ranks)
}

/// The device of a rank: `first` and those behind it, by the rank's number on its machine. A rank that sees a single
/// one has it to itself, as batch systems arrange it.
fn device(launch: &Launch, provider: Provider, first: i32) -> Result<i32> {
    let seen = match provider {
        Provider::Cuda => nvidia_count(),
        _ => None,
    };
    let shared = std::env::var_os("NCCL_MULTI_RANK_GPU_ENABLE").is_some_and(|v| v == "1");
    match seen {
        Some(1) if first == 0 => Ok(0),
        Some(count) => {
            let wanted = first as usize + launch.local_rank;
            if wanted < count {
                return Ok(wanted as i32);
            }
            if shared {
                return Ok((wanted % count) as i32);
            }
            bail!(
                "{launch} would have GPU {wanted}, and there are {count} (CUDA_VISIBLE_DEVICES counts): start as many \
                 ranks on this machine as it has GPUs"
            )
        }
        None => Ok(first + launch.local_rank as i32),
    }
}

/// A rank's share of the processor's threads, unless what started it has given it cores of its own.
fn threads(launch: &Launch) -> usize {
    let allowed = processor_threads();
    let all = sysinfo_cores().unwrap_or(allowed);
    match allowed * launch.local_world <= all {
        true => allowed,
        false => (allowed / launch.local_world).max(1),
    }
}

fn sysinfo_cores() -> Option<usize> {
    sysinfo::System::physical_core_count().filter(|&cores| cores > 0)
}

/// Where ranks learn what they need to know of each other to begin.
fn rendezvous(config: &TrainConfig, kind: Kind) -> Result<Rendezvous> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(match (kind, config.launch.by) {
        (Kind::Solo | Kind::Mpi, _)
        | (Kind::Nccl | Kind::Rccl, Launcher::OpenMpi | Launcher::Hydra | Launcher::None) => {
            Rendezvous::Mpi
        }
        (Kind::Nccl | Kind::Rccl, Launcher::Devices) => Rendezvous::Folder {
            path: variable(STARTED_BY).unwrap_or_default().into(),
            key: "start".to_owned(),
        },
        (Kind::Nccl | Kind::Rccl, Launcher::Torchrun | Launcher::Flags) => {
            let port = variable("MASTER_PORT").and_then(|port| port.parse::<u16>().ok());
            let (Some(host), Some(port)) = (variable("MASTER_ADDR"), port) else {
                bail!(
                    "{} give no MASTER_ADDR and MASTER_PORT, where the first rank is found: set them to its machine \
                     and a free port of it",
                    config.launch.by
                );
            };
            // At MASTER_PORT itself torchrun listens.
            Rendezvous::Address(format!("{host}:{}", port.wrapping_add(1)))
        }
        (Kind::Nccl | Kind::Rccl, Launcher::Slurm) => {
            let number = |name| variable(name).unwrap_or_default();
            let [job, step, restart] =
                ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"].map(number);
            Rendezvous::Folder {
                path: config.checkpoint_dir.join(PRESENCE),
                key: format!("{job}-{step}-{restart}"),
            }
        }
    })
}
