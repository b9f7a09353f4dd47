//! What the machine says of itself: memory, also as a container may have it, and the arithmetic that its device can
//! do.

use std::path::Path;

use mpnet_plan::{Precision, Provider};
use mpnet_runtime::device::{nvidia_name, processor_threads};
use mpnet_runtime::processor::Capability;
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// This machine's name, as the system has it.
pub fn host_name() -> String {
    System::host_name().unwrap_or_else(|| "a machine without a name".to_owned())
}

/// Memory of this process, in bytes, where the system says.
pub fn memory() -> Option<u64> {
    let process = Pid::from_u32(std::process::id());
    let mut system = System::new();
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[process]),
        false,
        ProcessRefreshKind::nothing().with_memory(),
    );
    system.process(process).map(sysinfo::Process::memory)
}

/// Memory that programs can have in all, in bytes: the machine's, or what its control group may have where that is
/// less.
pub fn total_memory() -> Option<u64> {
    let limits = control_groups().into_iter().map(|group| group.limit);
    limits.chain(known(system().total_memory())).min()
}

/// Memory that programs can still have, in bytes, with what a control group leaves.
pub fn available_memory() -> Option<u64> {
    let free = control_groups().into_iter().map(|group| group.free());
    free.chain(known(system().available_memory())).min()
}

fn system() -> System {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system
}

/// sysinfo says 0 of what it does not know.
fn known(bytes: u64) -> Option<u64> {
    (bytes > 0).then_some(bytes)
}

/// A limit of memory on this process and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ControlGroup {
    /// Bytes that it may have.
    limit: u64,
    /// Bytes that it has, without the files in memory that it can drop.
    used: u64,
}

impl ControlGroup {
    fn free(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// The limits of Linux's control groups on this process; none elsewhere. sysinfo knows those of a container, not of
/// groups below, as batch systems and systemd make them.
fn control_groups() -> Vec<ControlGroup> {
    match std::fs::read_to_string("/proc/self/cgroup") {
        Ok(membership) => control_groups_in(&membership, Path::new("/sys/fs/cgroup")),
        Err(_) => Vec::new(),
    }
}

/// The limits of the groups that `membership` names, and of those that they are in, below `root`.
fn control_groups_in(membership: &str, root: &Path) -> Vec<ControlGroup> {
    let mut found = Vec::new();
    for line in membership.lines() {
        // A number, the controllers, the group: version 2 has one line, with the number 0 and no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, [limit, used]) = if controllers.is_empty() {
            (root.to_owned(), ["memory.max", "memory.current"])
        } else if controllers.split(',').any(|name| name == "memory") {
            let files = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
            (root.join("memory"), files)
        } else {
            continue;
        };
        // In a container the group's own folder may be the root, whatever its name outside.
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            let folder = root.join(ancestor);
            let number = |name: &str| -> Option<u64> {
                let text = std::fs::read_to_string(folder.join(name)).ok()?;
                text.trim().parse().ok()
            };
            // "max" of version 2 is no number, and no limit.
            if let Some(limit) = number(limit) {
                let statistics = std::fs::read_to_string(folder.join("memory.stat"));
                let statistics = statistics.unwrap_or_default();
                let mut lines = statistics.lines();
                let files = lines.find_map(|line| line.strip_prefix("inactive_file "));
                let files = files.and_then(|text| text.trim().parse().ok());
                let used = number(used).unwrap_or(0);
                let used = used.saturating_sub(files.unwrap_or(0));
                found.push(ControlGroup { limit, used });
            }
        }
    }
    found
}

/// Words in a device's name; its dense peak in TFLOP/s in 16-bit floats and in f32, TF32 where it has
/// that. From the makers' data sheets; the longer names first.
const PEAKS: &[(&str, f64, f64)] = &[
    ("GB200", 2500.0, 1250.0),
    ("B200", 2250.0, 1100.0),
    ("GH200", 989.0, 494.0),
    ("H200 NVL", 835.0, 417.0),
    ("H200", 989.0, 494.0),
    ("H100 PCIe", 756.0, 378.0),
    ("H100 NVL", 835.0, 417.0),
    ("H100", 989.0, 494.0),
    ("H800", 989.0, 494.0),
    ("A100", 312.0, 156.0),
    ("A800", 312.0, 156.0),
    ("A40", 149.7, 74.8),
    ("A30", 165.0, 82.0),
    ("A10", 125.0, 62.5),
    ("A10G", 70.0, 35.0),
    ("L40S", 362.0, 183.0),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 60.0),
    ("V100", 125.0, 15.7),
    ("T4", 65.0, 8.1),
    ("RTX 4090", 165.0, 82.6),
    ("RTX 3090", 71.0, 35.6),
];

/// Arithmetic operations a second that the device can do at most, where that is known; a processor with `threads` of
/// its cores, all where that is left open.
pub fn peak(
    provider: Provider,
    device_id: i32,
    precision: Precision,
    threads: Option<usize>,
) -> Option<f64> {
    match provider {
        Provider::Cuda => peak_of(&nvidia_name(device_id)?, precision),
        Provider::Cpu => {
            let cores = processor_threads();
            let used = threads.map_or(cores, |threads| threads.min(cores));
            Capability::here().peak(precision, used)
        }
        Provider::Rocm
        | Provider::MigraphX
        | Provider::DirectMl
        | Provider::OpenVino
        | Provider::WebGpu
        | Provider::OpenVinoPlugin
        | Provider::WebGpuPlugin
        | Provider::TensorRtRtxPlugin
        | Provider::MlxPlugin
        | Provider::Plugin => None,
    }
}

fn peak_of(name: &str, precision: Precision) -> Option<f64> {
    // Whole words: an L40 is no L4.
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let name = words(name);
    // Slower than those for desks, under the same name.
    if name.iter().any(|word| word == "Laptop") {
        return None;
    }
    let (_, half, full) = PEAKS.iter().find(|(known, _, _)| {
        let known = words(known);
        name.windows(known.len()).any(|part| part == known)
    })?;
    let tera = match precision {
        Precision::F16 | Precision::BF16 => half,
        Precision::F32 => full,
    };
    Some(tera * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        let peak = |name| peak_of(name, Precision::BF16);
        assert_eq!(peak("NVIDIA H200"), Some(989e12));
        assert_eq!(peak("NVIDIA H100 PCIe\n"), Some(756e12));
        assert_eq!(peak("NVIDIA L4"), Some(121e12));
        assert_eq!(peak("NVIDIA L40S"), Some(362e12));
        assert_eq!(peak("NVIDIA L40"), Some(181e12));
        assert_eq!(peak("NVIDIA H100 80GB HBM3"), Some(989e12));
        assert_eq!(peak("NVIDIA A100-SXM4-80GB"), Some(312e12));
        assert_eq!(peak("NVIDIA T400 4GB"), None);
        assert_eq!(peak("NVIDIA GeForce RTX 4090 Laptop GPU"), None);
        assert_eq!(
            peak_of("NVIDIA H100 80GB HBM3", Precision::F32),
            Some(494e12)
        );
        assert_eq!(peak("some other card"), None);
    }

    #[test]
    fn a_process_has_memory() {
        let (used, total) = (memory().unwrap(), total_memory().unwrap());
        assert!(used > 1 << 16 && used < total, "{used} of {total}");
        assert!(available_memory().unwrap() <= total);
    }

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_limits_of_control_groups_count() {
        let second = tempfile::tempdir().unwrap();
        let files = [
            ("job/memory.max", "8000\n"),
            ("job/memory.current", "3000\n"),
            ("job/memory.stat", "anon 1\ninactive_file 1000\n"),
            ("job/step/memory.max", "max\n"),
        ];
        write(second.path(), &files);
        let found = control_groups_in("0::/job/step\n", second.path());
        let job = ControlGroup {
            limit: 8000,
            used: 2000,
        };
        assert_eq!(found, [job]);
        assert_eq!(job.free(), 6000);

        let first = tempfile::tempdir().unwrap();
        let files = [
            ("memory/memory.limit_in_bytes", "9000\n"),
            ("memory/memory.usage_in_bytes", "500\n"),
        ];
        write(first.path(), &files);
        // A container sees its own group as the root, under the name that it has outside.
        let membership = "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n";
        let found = control_groups_in(membership, first.path());
        assert_eq!(
            found,
            [ControlGroup {
                limit: 9000,
                used: 500
            }]
        );
        assert_eq!(control_groups_in("nonsense", first.path()), []);
    }
}
