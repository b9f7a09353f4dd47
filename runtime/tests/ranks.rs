//! Ranks that a launcher of MPI starts: this test program, several times.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use mpnet_runtime::collective::{self, Collective, Kind, Opening, Whole, mpi};
use mpnet_runtime::library::{self, InstallOptions};

/// The launcher of whichever MPI is here; this project's own choice is fetched where none is.
fn launcher() -> PathBuf {
    mpi::launcher().unwrap_or_else(|_| {
        let wheel = library::library_of(mpi::PACKAGE).unwrap();
        library::install(Some(wheel), &InstallOptions::for_libraries().unwrap()).unwrap();
        mpi::launcher().unwrap()
    })
}

/// Runs the test `name` of this program, which is ignored otherwise, in so many ranks.
fn start(ranks: usize, name: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(launcher());
    command
        .args(["-n", &ranks.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        // As Open MPI wants it where tests run as root, and with more ranks than cores.
        .envs([
            ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
            ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
        ])
        .envs(variables.iter().copied());
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What a launcher says that this rank is.
fn told() -> (usize, usize) {
    let number = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| std::env::var(name).ok());
        found.and_then(|text| text.parse().ok())
    };
    let rank = number(["OMPI_COMM_WORLD_RANK", "PMI_RANK"]).unwrap_or(0);
    let size = number(["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]).unwrap_or(1);
    (rank, size)
}

fn join(world_size: Option<usize>) -> collective::Result<Arc<dyn Collective>> {
    let (rank, size) = told();
    collective::open(Opening {
        kind: Kind::Mpi,
        rank,
        world_size: world_size.unwrap_or(size),
        presence: std::env::var_os("PRESENCE").map(Into::into),
        timeout: Duration::from_secs(60),
        on_trouble: None,
    })
}

/// Sums and largest values of ranks that hold rank + 1 and more.
fn whole_numbers<T: Whole + From<u8> + PartialEq + std::fmt::Debug>(ranks: &dyn Collective)
where
    [T]: PartialEq,
{
    let size = ranks.world_size() as u8;
    let own = ranks.rank() as u8 + 1;
    let together = size * (size + 1) / 2;
    let mut values = [T::from(own), T::from(2 * own)];
    ranks.sum(&mut values).unwrap();
    assert_eq!(values, [T::from(together), T::from(2 * together)]);
    let mut values = [T::from(own)];
    ranks.max(&mut values).unwrap();
    assert_eq!(values, [T::from(size)]);
    let all: Vec<T> = (1..=size).map(T::from).collect();
    assert_eq!(ranks.gather(&[T::from(own)]).unwrap(), all);
}

#[test]
#[ignore = "a rank of `ranks_compute_together`"]
fn rank_that_computes() {
    let ranks = join(None).unwrap();
    let (rank, size) = (ranks.rank(), ranks.world_size());
    assert_eq!((rank, size), told());
    let together = size * (size + 1) / 2;

    whole_numbers::<u8>(&*ranks);
    whole_numbers::<i32>(&*ranks);
    whole_numbers::<u32>(&*ranks);
    whole_numbers::<i64>(&*ranks);
    whole_numbers::<u64>(&*ranks);
    let mut singles = vec![(rank + 1) as f32; 100_003];
    ranks.sum(&mut singles).unwrap();
    assert!(singles.iter().all(|&value| value == together as f32));
    // A NaN of any rank reaches all of them in a sum.
    let nan = if rank + 1 == size { f64::NAN } else { 1.0 };
    let mut doubles = [nan, (rank + 1) as f64 / 4.0];
    ranks.sum(&mut doubles).unwrap();
    assert!(doubles[0].is_nan() && doubles[1] == together as f64 / 4.0);

    // Each rank's part of the sum, and the parts put together again.
    let mut values: Vec<f32> = (0..3 * size).map(|i| (i * (rank + 1)) as f32).collect();
    let buffers = [collective::Buffer::of(&mut values)];
    // SAFETY: nothing else uses the vector.
    unsafe { ranks.reduce_scatter(&buffers) }.unwrap();
    let own: Vec<f32> = (3 * rank..3 * rank + 3)
        .map(|i| (i * together) as f32)
        .collect();
    assert_eq!(values[3 * rank..3 * rank + 3], own);
    let buffers = [collective::Buffer::of(&mut values)];
    // SAFETY: nothing else uses the vector.
    unsafe { ranks.all_gather(&buffers) }.unwrap();
    let all: Vec<f32> = (0..3 * size).map(|i| (i * together) as f32).collect();
    assert_eq!(values, all);
    let buffers = [collective::Buffer::of(&mut values[..3 * size - 1])];
    // SAFETY: nothing else uses the vector.
    let error = unsafe { ranks.all_gather(&buffers) }.unwrap_err();
    assert!(
        format!("{error}").contains(&format!("rank {rank} of {size}")),
        "{error}"
    );

    let mut bytes = if rank == size - 1 {
        b"the last rank's".to_vec()
    } else {
        Vec::new()
    };
    ranks.broadcast_bytes(&mut bytes, size - 1).unwrap();
    assert_eq!(bytes, b"the last rank's");
    let names: Vec<String> = (0..size).map(|rank| "x".repeat(rank)).collect();
    assert_eq!(ranks.gather_strings(&names[rank]).unwrap(), names);
    let differs = if rank == 1 { "other" } else { "same" };
    assert_eq!(ranks.differing(differs.as_bytes()).unwrap(), [1]);
    let spent = ranks.spent();
    assert!(spent.calls > 20 && spent.bytes > 400_000);
    ranks.finish().unwrap();
    println!("done: {}", ranks.description());
}

#[test]
fn ranks_compute_together() {
    for ranks in [2, 3] {
        let output = start(ranks, "rank_that_computes", &[]);
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.matches("done: ").count(), ranks, "{text}");
    }
}

#[test]
#[ignore = "a rank of `another_world_is_refused`"]
fn rank_of_another_world() {
    let error = join(Some(4)).unwrap_err();
    println!("refused: {:#}", std::error::Error::source(&error).unwrap());
    std::process::exit(3);
}

#[test]
fn another_world_is_refused() {
    let output = start(2, "rank_of_another_world", &[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let text = text(&output);
    assert!(text.contains("of 2, but it was started as rank"), "{text}");

    // Without a launcher there is one rank.
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "rank_of_another_world",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text = self::text(&output);
    assert!(
        text.contains("rank 0 of 1, but") && text.contains("mpiexec"),
        "{text}"
    );
}

#[test]
#[ignore = "a rank of `a_rank_that_dies_ends_the_others`"]
fn rank_that_dies() {
    let ranks = join(None).unwrap();
    for update in 0..1_000_000 {
        ranks.set_update(update);
        if update == 20 && ranks.rank() == 1 {
            // SAFETY: the C library's function of that name.
            unsafe extern "C" {
                fn raise(signal: i32) -> i32;
            }
            // SAFETY: it ends this process.
            unsafe { raise(9) };
        }
        ranks.sum(&mut [1.0_f32; 1000]).unwrap();
    }
}

#[test]
fn a_rank_that_dies_ends_the_others() {
    let output = start(2, "rank_that_dies", &[]);
    assert!(!output.status.success(), "{}", text(&output));
}
