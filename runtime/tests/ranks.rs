//! Ranks in processes of their own: this test program, several times. By MPI's launcher, and by a stub of RCCL that
//! stands for AMD's GPUs; on NVIDIA's, `RANKS_KIND=nccl RANK=0 WORLD_SIZE=2 RANKS_FOLDER=/tmp/ranks` before
//! this program with `--exact rank_that_computes --ignored`, once for each rank, is the same test.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mpnet_runtime::collective::{
    self, Collective, Kind, Opening, Reduction, Rendezvous, Summing, Whole, mpi,
};
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

/// What the test or a launcher says that this rank is.
fn told() -> (usize, usize) {
    let number = |names: [&str; 3]| {
        let found = names.iter().find_map(|name| std::env::var(name).ok());
        found.and_then(|text| text.parse().ok())
    };
    let rank = number(["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"]).unwrap_or(0);
    let size = number(["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]).unwrap_or(1);
    (rank, size)
}

/// Joins the other ranks as the variables say.
fn join(world_size: Option<usize>, timeout: u64) -> collective::Result<Arc<dyn Collective>> {
    let (rank, size) = told();
    let variable = |name| std::env::var(name).ok();
    let folder = variable("RANKS_FOLDER").map(PathBuf::from);
    let kind = match variable("RANKS_KIND").as_deref() {
        None => Kind::Mpi,
        Some("nccl") => Kind::Nccl,
        Some("rccl") => Kind::Rccl,
        Some(other) => panic!("RANKS_KIND={other}"),
    };
    let rendezvous = match (variable("RANKS_ADDRESS"), &folder) {
        (Some(address), _) => Rendezvous::Address(address),
        (None, Some(folder)) => Rendezvous::Folder {
            path: folder.clone(),
            key: variable("RANKS_KEY").unwrap_or_default(),
        },
        (None, None) => Rendezvous::Mpi,
    };
    let device = variable("RANKS_DEVICE").and_then(|text| text.parse().ok());
    collective::open(Opening {
        kind,
        rank,
        world_size: world_size.unwrap_or(size),
        device: device.unwrap_or(0),
        rendezvous,
        deterministic: false,
        presence: folder,
        timeout: Duration::from_secs(timeout),
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
    let ranks = join(None, 60).unwrap();
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

    // The same sums, begun and waited for.
    for summing in [Summing::Whole, Summing::OwnPart] {
        let mut values: Vec<f32> = (0..3 * size).map(|i| (i * (rank + 1)) as f32).collect();
        let buffer = collective::Buffer::of(&mut values);
        // SAFETY: nothing else uses the vector until the sum is over.
        unsafe { ranks.begin(buffer, summing, std::ptr::null_mut()) }.unwrap();
        ranks.wait().unwrap();
        let part = match summing {
            Summing::Whole => 0..3 * size,
            Summing::OwnPart => 3 * rank..3 * rank + 3,
        };
        assert_eq!(values[part.clone()], all[part]);
    }

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
    let error = join(Some(4), 60).unwrap_err();
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

/// Sums what two or more GPUs have in their own memory, and says how long that takes.
#[test]
#[ignore = "for GPUs, by hand"]
fn rank_on_gpus() {
    use cudarc::driver::{CudaContext, result, sys};
    const LEN: usize = 109_600_000 / 256 * 256;
    let ranks = join(None, 60).unwrap();
    let (rank, size) = (ranks.rank(), ranks.world_size());
    let device = std::env::var("RANKS_DEVICE").unwrap().parse().unwrap();
    CudaContext::new(device).unwrap().bind_to_thread().unwrap();
    // SAFETY: the memory is this test's own, and as long as what is copied.
    let memory = unsafe { result::malloc_sync(4 * LEN) }.unwrap();
    let fill = |address: sys::CUdeviceptr| {
        let values: Vec<f32> = (0..LEN).map(|i| (i % 1000 + rank) as f32).collect();
        // SAFETY: as above.
        unsafe { result::memcpy_htod_sync(address, &values) }.unwrap();
    };
    let read = || {
        let mut values = vec![0.0_f32; LEN];
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_sync(&mut values, memory) }.unwrap();
        values
    };
    let sum = |i: usize| (size * (i % 1000) + size * (size - 1) / 2) as f32;
    let whole = collective::Buffer {
        pointer: memory as *mut _,
        len: LEN,
        element: collective::Element::F32,
        memory: collective::Memory::Device,
    };
    // Segments as a model has them.
    let segments: Vec<_> = (0..8)
        .map(|i| whole.part(i * (LEN / 8), LEN / 8).unwrap())
        .collect();
    // SAFETY: nothing else uses the memory, here and below.
    let all_reduce = |buffers: &[_]| unsafe { ranks.all_reduce(buffers, Reduction::Sum) }.unwrap();
    // SAFETY: as above.
    let reduce_scatter = || unsafe { ranks.reduce_scatter(&[whole]) }.unwrap();
    // SAFETY: as above.
    let all_gather = || unsafe { ranks.all_gather(&[whole]) }.unwrap();
    fill(memory);
    all_reduce(&segments);
    assert!(read().iter().enumerate().all(|(i, &value)| value == sum(i)));
    fill(memory);
    reduce_scatter();
    let part = LEN / size;
    let found = read();
    assert!((rank * part..(rank + 1) * part).all(|i| found[i] == sum(i)));
    all_gather();
    assert!(read().iter().enumerate().all(|(i, &value)| value == sum(i)));

    fill(memory);
    let begin = |summing| {
        for segment in &segments {
            // SAFETY: as above.
            unsafe { ranks.begin(*segment, summing, std::ptr::null_mut()) }.unwrap();
        }
        ranks.wait().unwrap();
    };
    begin(Summing::Whole);
    assert!(read().iter().enumerate().all(|(i, &value)| value == sum(i)));

    let time = |what: &str, run: &dyn Fn()| {
        let mut times: Vec<f64> = (0..20)
            .map(|_| {
                ranks.barrier().unwrap();
                let start = std::time::Instant::now();
                run();
                1000.0 * start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        if rank == 0 {
            println!("{what}: median {:.3} ms, least {:.3}", times[10], times[0]);
        }
    };
    time("all_reduce of 8 segments", &|| all_reduce(&segments));
    time("8 segments begun one by one", &|| begin(Summing::Whole));
    time("8 segments begun one by one, own parts", &|| {
        begin(Summing::OwnPart)
    });
    time("all_reduce of one buffer", &|| all_reduce(&[whole]));
    time("reduce_scatter", &reduce_scatter);
    time("all_gather", &all_gather);
    time("sum of 4 doubles of the host", &|| {
        ranks.sum(&mut [1.0_f64; 4]).unwrap()
    });
    ranks.finish().unwrap();
    println!("done: {} rank {rank} of {size}", ranks.description());
}

// SAFETY: the C library's function of that name.
unsafe extern "C" {
    fn raise(signal: i32) -> i32;
}
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// Makes updates until the other rank is missed.
#[test]
#[ignore = "a rank of the tests of trouble"]
fn rank_in_trouble() {
    let timeout = std::env::var("RANKS_TIMEOUT").ok();
    let timeout = timeout.and_then(|text| text.parse().ok());
    let ranks = join(None, timeout.unwrap_or(3)).unwrap();
    let trouble = std::env::var("TROUBLE").unwrap();
    for update in 0..1_000_000 {
        ranks.set_update(update);
        if update == 40 && trouble == "waits" {
            ranks.finish().unwrap();
            return;
        }
        if update == 20 && ranks.rank() == 1 {
            match trouble.as_str() {
                // SAFETY: these end or stop this process.
                "killed" => drop(unsafe { raise(SIGKILL) }),
                // SAFETY: as above.
                "stopped" => drop(unsafe { raise(SIGSTOP) }),
                "fails" => {
                    ranks.abort("there is no more text");
                    std::thread::sleep(Duration::from_secs(60));
                }
                "waits" => {
                    ranks.waits_for(Some("its text"));
                    std::thread::sleep(Duration::from_secs(8));
                    ranks.waits_for(None);
                }
                other => panic!("TROUBLE={other}"),
            }
        }
        ranks.sum(&mut [1.0_f32; 1000]).unwrap();
    }
}

#[test]
fn a_rank_that_dies_ends_the_others() {
    let output = start(2, "rank_in_trouble", &[("TROUBLE", "killed")]);
    assert!(!output.status.success(), "{}", text(&output));
}

#[test]
fn a_rank_that_stops_or_fails_is_named() {
    for (trouble, said) in [
        (
            "stopped",
            "all_reduce of update 20 has waited for 3 s; rank 1 on ",
        ),
        ("fails", "failed: there is no more text"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let variables = [
            ("TROUBLE", trouble),
            ("RANKS_FOLDER", folder.path().to_str().unwrap()),
        ];
        let output = start(2, "rank_in_trouble", &variables);
        let text = text(&output);
        assert!(!output.status.success(), "{text}");
        assert!(
            text.contains("rank 0 of 2 on ") && text.contains(said),
            "{text}"
        );
    }
}

#[test]
fn a_rank_whose_text_stalls_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let presence = folder.path().join("ranks");
    let variables = [
        ("TROUBLE", "waits"),
        ("RANKS_FOLDER", presence.to_str().unwrap()),
    ];
    let output = start(2, "rank_in_trouble", &variables);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("rank 0 of 2 goes on waiting: rank 1 on ")
            && text.contains(" has waited for its text for "),
        "{text}"
    );
    // Nothing is left of the ranks.
    assert!(!presence.exists());
}

/// The stub's folder, with the libraries in it under their own names.
fn stub() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("librccl.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rccl_stub.rs");
    let compiled = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "cdylib",
            "-Cpanic=abort",
            source,
            "-o",
        ])
        .arg(&library)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", text(&compiled));
    std::fs::copy(&library, folder.path().join("libamdhip64.so.6")).unwrap();
    folder
}

/// Runs the test `name` in two ranks that find the stub, and not each other's launcher.
fn start_on_stub(name: &str, device: &str, trouble: &str) -> [Output; 2] {
    let stub = stub();
    let children = ["0", "1"].map(|rank| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env("LD_LIBRARY_PATH", stub.path())
            .env("STUB_FOLDER", stub.path())
            .env("RANKS_FOLDER", stub.path().join("ranks"))
            .envs([
                ("RANKS_KIND", "rccl"),
                ("RANKS_KEY", "job/7.0"),
                ("RANK", rank),
            ])
            .envs([
                ("WORLD_SIZE", "2"),
                ("RANKS_DEVICE", device),
                ("TROUBLE", trouble),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    children.map(|child| child.wait_with_output().unwrap())
}

#[test]
fn rccl_is_called_as_its_header_says() {
    for output in start_on_stub("rank_that_computes", "0", "none") {
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("done: RCCL 2.21.5"), "{text}");
    }
}

#[test]
fn a_rank_that_is_gone_is_named_where_no_launcher_looks() {
    let [zero, one] = start_on_stub("rank_in_trouble", "0", "killed");
    assert!(!one.status.success());
    let text = text(&zero);
    assert_eq!(zero.status.code(), Some(collective::EXIT_CODE), "{text}");
    assert!(
        text.contains("rank 1 on ") && text.contains(" is gone"),
        "{text}"
    );
}

#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    for output in start_on_stub("rank_that_computes", "3", "none") {
        let text = text(&output);
        assert!(
            !output.status.success() && text.contains("hipSetDevice"),
            "{text}"
        );
    }
}
