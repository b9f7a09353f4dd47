//! What the machine says of itself: memory in use, and the arithmetic that its device can do.

use mpnet_graphs::lower::portable::Precision;
use mpnet_runtime::provider::Provider;
use std::process::Command;

/// Memory of this process, in bytes, where the system says.
pub fn memory() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// Memory of the machine, in bytes, where the system says.
pub fn total_memory() -> Option<u64> {
    field("/proc/meminfo", "MemTotal:")
}

/// Memory that programs can still have, in bytes, where the system says.
pub fn available_memory() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// A number of kilobytes in one of Linux's files, in bytes.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
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

/// Arithmetic operations a second that the device can do at most, where that is known.
pub fn peak(provider: Provider, device_id: i32, precision: Precision) -> Option<f64> {
    match provider {
        Provider::Cuda => {}
        Provider::Cpu
        | Provider::Rocm
        | Provider::MigraphX
        | Provider::DirectMl
        | Provider::OpenVino
        | Provider::WebGpu => return None,
    }
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=name", "--format=csv,noheader", "--id"])
        .arg(device_id.to_string())
        .output()
        .ok()?;
    peak_of(&String::from_utf8_lossy(&output.stdout), precision)
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
    #[cfg(target_os = "linux")]
    fn a_process_has_memory() {
        assert!(memory().unwrap() > 1 << 16);
    }
}
