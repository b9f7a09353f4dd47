//! The builds that this program fetches: which wheel of which package, and what its bytes must be.

use std::ffi::OsStr;

use super::pinned_elsewhere::ELSEWHERE;
use super::pinned_libraries::LIBRARIES;
use super::pinned_plugins::PLUGINS;
use super::pinned_wheel::{PinnedFile, PinnedWheel};

/// The builds for Linux on x86-64. The first is the default.
const LINUX_X86_64: &[PinnedWheel] = &[
    PinnedWheel {
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
    },
    PinnedWheel {
        package: "onnxruntime-training",
        version: "1.19.2",
        python: "3.11",
        abi: "cp311",
        pip_platforms: &["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_training-1.19.2-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            bytes: 299_339_819,
            sha256: "6bfa1c02e6986947b18c502669beb9f1246bb52239394f7a5a3b99c10967eacf",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so",
            bytes: 25_535_648,
            sha256: "c9045c5802d994f18a428ae0480d77add59818090c82d2861cf129532c5d6d01",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 14_632,
                sha256: "950dbbe7c7a6f73b7f574c0e2308417e1e90e1f73b6472d799e25b47c6fdee82",
            },
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_cuda.so",
                bytes: 810_805_528,
                sha256: "6db1583612e6c409241d84adc369463dd64f06bc7a4f6d50fee8002352e5bacd",
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
    },
    PinnedWheel {
        package: "onnxruntime",
        version: "1.32.0",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime-1.32.0-cp312-cp312-manylinux_2_28_x86_64.whl",
            bytes: 27_780_211,
            sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.32.0",
            bytes: 34_824_680,
            sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 14_632,
                sha256: "8ef51f6bf2c621fc129f625b22241fa6f9a5870bc08eaf2fdd279169ec40d09a",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 334_795,
                sha256: "d8696258afcf9df7827a5e01d6b6d55ee9b461b4e82020f5f48242deb9cc2270",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-gpu",
        version: "1.31.1",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
            bytes: 255_569_273,
            sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.31.1",
            bytes: 29_421_832,
            sha256: "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 14_632,
                sha256: "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
            },
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_cuda.so",
                bytes: 284_014_752,
                sha256: "8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 338_088,
                sha256: "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-openvino",
        version: "1.24.1",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_openvino-1.24.1-cp312-cp312-manylinux_2_28_x86_64.whl",
            bytes: 84_433_207,
            sha256: "d617fac2f59a6ab5ea59a788c3e1592240a129642519aaeaa774761dfe35150e",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.24.1",
            bytes: 31_260_360,
            sha256: "c7b0590c7825f7029ba17e20a5dea27f7f570d8241d60584caacd363648aa8e2",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 15_776,
                sha256: "5e02c1ff90e7d71365264dbb6767c00f04a8b57a96cddbc0085c61fa1393250d",
            },
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_openvino.so",
                bytes: 2_000_856,
                sha256: "b19cae6eb713f35427a8427f141ffc8fc2471ae0532f57e52d84fa9a66799c30",
            },
            PinnedFile {
                path: "onnxruntime/capi/libopenvino.so.2541",
                bytes: 25_284_089,
                sha256: "ac9634b715a242a61644c77bc38f17508fe73f517e418027e2410f4bee004943",
            },
            PinnedFile {
                path: "onnxruntime/capi/libopenvino_onnx_frontend.so.2541",
                bytes: 7_006_249,
                sha256: "f426710881d8c1a01d5ed6d7eaa076d923b19983d3ab3a18bb19d25dba7d8923",
            },
            PinnedFile {
                path: "onnxruntime/capi/libopenvino_intel_cpu_plugin.so",
                bytes: 67_008_289,
                sha256: "034df890550ae9199fe5f8608c0df8fd0fe355f303bad56bea10bae14c14c3cb",
            },
            PinnedFile {
                path: "onnxruntime/capi/libopenvino_intel_gpu_plugin.so",
                bytes: 18_158_505,
                sha256: "5575d03f4a168b257461b83089bc2d0ae7a41ebc1b5ab6b591d26f09c4a3635e",
            },
            PinnedFile {
                path: "onnxruntime/capi/libtbb.so.12",
                bytes: 367_649,
                sha256: "6781dc6aa8b2ca237d0164258e70266a44667756c02a9a039782ec1d1a67b653",
            },
            PinnedFile {
                path: "onnxruntime/capi/libtbbmalloc.so",
                bytes: 158_129,
                sha256: "d7166b1e54c17d8f25be63e22fc2366bbe7b1b8cc3a7ea629dea59caeba9c020",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 325_054,
                sha256: "0e07b95f3a8d6230037707c5c4a2b554d12c4cb67369669ac255635528ffcee2",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-migraphx",
        version: "1.27.1",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_34_x86_64"],
        uv_platform: "x86_64-manylinux_2_34",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_migraphx-1.27.1-cp312-cp312-manylinux_2_34_x86_64.whl",
            bytes: 21_474_043,
            sha256: "089c992442b6bff9f7786173ce6a31db111b104ae66be34d5467593951d905a4",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.27.1",
            bytes: 30_421_904,
            sha256: "9364e82a085a7ade66ebe46dd5d21700cdafa0da856ff23744dc4049bf157d59",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 15_408,
                sha256: "98cc35d20a8701b425d3b51ebbbd9186744c9abcec5d2270879f6c165a735228",
            },
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_migraphx.so",
                bytes: 554_440,
                sha256: "f3675ea398cf58f4926e25b42871682e0b0fc4948c046047bbd362842de15c4e",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 325_054,
                sha256: "0e07b95f3a8d6230037707c5c4a2b554d12c4cb67369669ac255635528ffcee2",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-rocm",
        version: "1.22.2.post3",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_34_x86_64"],
        uv_platform: "x86_64-manylinux_2_34",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_rocm-1.22.2.post3-cp312-cp312-manylinux_2_34_x86_64.whl",
            bytes: 56_871_179,
            sha256: "ccd3b2dba26fe73687f3a29d10fcc154c73b23d5b9ecc938b8c045471743fe52",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.22.2",
            bytes: 26_422_248,
            sha256: "406e676e115eee92e382c105705bf00aa27c742844b3798d202642a04bf72dc2",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 15_408,
                sha256: "98cc35d20a8701b425d3b51ebbbd9186744c9abcec5d2270879f6c165a735228",
            },
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_rocm.so",
                bytes: 513_394_976,
                sha256: "48d8ecef148d07e3d08f3babd7f2b2e17ed6545ebcb6a034ee660e192dc37d21",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 326_866,
                sha256: "e9e90971a8e75a9a8ac0c6412e29c1202d079998389915aa485f46c816c3b4cc",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-webgpu",
        version: "1.27.0",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_webgpu-1.27.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            bytes: 25_163_729,
            sha256: "fe5e49e00ad71bc667316d57670bfbf525438783d4a3468e0d337314ec985cbe",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.27.0",
            bytes: 32_018_832,
            sha256: "882f54a76dde1b6c7e66ed353f29bf167c2a2d4e77875b093205074b31d2c7f4",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 14_632,
                sha256: "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 325_054,
                sha256: "0e07b95f3a8d6230037707c5c4a2b554d12c4cb67369669ac255635528ffcee2",
            },
        ],
    },
];

/// Every build that can be fetched. For each machine, the first that fits is the default.
fn builds() -> impl Iterator<Item = &'static PinnedWheel> {
    LINUX_X86_64.iter().chain(ELSEWHERE)
}

/// The build that is fetched on this machine if nothing else is asked for.
pub fn default_wheel() -> Option<&'static PinnedWheel> {
    wheels_here().next()
}

/// The pinned build of that package for this machine.
pub fn wheel_of(package: &str) -> Option<&'static PinnedWheel> {
    wheels_here().find(|wheel| wheel.package == package)
}

/// The builds that run on this machine.
pub fn wheels_here() -> impl Iterator<Item = &'static PinnedWheel> {
    builds().filter(|wheel| wheel.runs_here())
}

/// The pinned library that joins ranks of that package for this machine.
pub fn library_of(package: &str) -> Option<&'static PinnedWheel> {
    libraries_here().find(|wheel| wheel.package == package)
}

/// The libraries that join ranks on this machine.
pub fn libraries_here() -> impl Iterator<Item = &'static PinnedWheel> {
    LIBRARIES.iter().filter(|wheel| wheel.runs_here())
}

/// The pinned plug-in of that package for this machine.
pub fn plugin_of(package: &str) -> Option<&'static PinnedWheel> {
    plugins_here().find(|wheel| wheel.package == package)
}

/// The plug-ins that run on this machine.
pub fn plugins_here() -> impl Iterator<Item = &'static PinnedWheel> {
    PLUGINS.iter().filter(|wheel| wheel.runs_here())
}

/// What is pinned under the name of a cache folder.
pub(super) fn pinned_as(key: &OsStr) -> Option<&'static PinnedWheel> {
    let mut all = builds().chain(LIBRARIES).chain(PLUGINS);
    all.find(|wheel| *wheel.key() == *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hashes_are_well_formed() {
        let all = || builds().chain(LIBRARIES).chain(PLUGINS);
        let mut keys: Vec<_> = all().map(PinnedWheel::key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all().count(), "two wheels share a cache folder");
        for wheel in all() {
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
