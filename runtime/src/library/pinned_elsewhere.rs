//! The builds for other systems than Linux on x86-64, as this program fetches them.

use super::pinned_wheel::{PinnedFile, PinnedWheel};

/// In the order of preference for each system. For macOS on x86-64 nothing was published after 1.23.2.
pub const ELSEWHERE: &[PinnedWheel] = &[
    PinnedWheel {
        package: "onnxruntime",
        version: "1.32.0",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["win_amd64"],
        uv_platform: "x86_64-pc-windows-msvc",
        os: "windows",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime-1.32.0-cp312-cp312-win_amd64.whl",
            bytes: 16_698_767,
            sha256: "efe7456952c243a05a53d5b8732953625144642c2f3989094277f6217f0c0c40",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/onnxruntime.dll",
            bytes: 22_668_640,
            sha256: "443c0065fcdba17618ddef05050308f4b471893c5c7da0337d6957c9073ad8a7",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_094,
                sha256: "c250d6278f0b47a6439fb7592b08b58a55eb9f535aa49a1db63211c3f982b674",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 341_120,
                sha256: "bf8073fd6a112ac2a656bb60799652127e881689e51d37ad20df446cd5188b2d",
            },
            PinnedFile {
                path: "onnxruntime/capi/onnxruntime_providers_shared.dll",
                bytes: 21_816,
                sha256: "b7ce00a1246473401b9b7fed2816852c1f9ecd70f2e68a136761c40d6523b712",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-directml",
        version: "1.24.4",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["win_amd64"],
        uv_platform: "x86_64-pc-windows-msvc",
        os: "windows",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_directml-1.24.4-cp312-cp312-win_amd64.whl",
            bytes: 25_111_930,
            sha256: "f2ecb68b7b7b259d2ef3112ae760149f9b5a1e7c0fbb73d539da6250a648a614",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/onnxruntime.dll",
            bytes: 21_111_832,
            sha256: "302c69f9779d63ef4ab90316e59444c4acbaca7fe3455020d79d10bcfcb00715",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_094,
                sha256: "c250d6278f0b47a6439fb7592b08b58a55eb9f535aa49a1db63211c3f982b674",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 331_175,
                sha256: "fb0af774b4d7cffc5b9d046f2aaeade2f37df2f80abf8033c95dfffcc77a8866",
            },
            PinnedFile {
                path: "onnxruntime/capi/DirectML.dll",
                bytes: 18_527_776,
                sha256: "b73972115320e906a49602f2027a3266622881b0d325ba685e0f165a9482a8d7",
            },
            PinnedFile {
                path: "onnxruntime/capi/onnxruntime_providers_shared.dll",
                bytes: 21_576,
                sha256: "f6bbae3af4c0673b0d1e6ca8db900dc85ad959a395b69d361038ec7995cc2652",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-gpu",
        version: "1.31.1",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["win_amd64"],
        uv_platform: "x86_64-pc-windows-msvc",
        os: "windows",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_gpu-1.31.1-cp312-cp312-win_amd64.whl",
            bytes: 168_098_228,
            sha256: "2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/onnxruntime.dll",
            bytes: 18_881_336,
            sha256: "7ce20366f6d5981081bb8bbc0aff757e055e6d0d09c2237cbb2143740cc8658f",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_094,
                sha256: "c250d6278f0b47a6439fb7592b08b58a55eb9f535aa49a1db63211c3f982b674",
            },
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 344_457,
                sha256: "c53a76501ef60db6f865f20599f220761201ac4057683acefdab37d861b86622",
            },
            PinnedFile {
                path: "onnxruntime/capi/onnxruntime_providers_cuda.dll",
                bytes: 194_399_072,
                sha256: "ebb99d5c0b451ff0b67032df80b4e9f442488d9bab1b5eeab68fc1613c1fab96",
            },
            PinnedFile {
                path: "onnxruntime/capi/onnxruntime_providers_shared.dll",
                bytes: 21_816,
                sha256: "cb48721ca5b33cc827956f07f9900aa886052a839b2b18a1c11f036a2ebc5c5c",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime",
        version: "1.32.0",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["manylinux_2_28_aarch64"],
        uv_platform: "aarch64-manylinux_2_28",
        os: "linux",
        arch: "aarch64",
        wheel: PinnedFile {
            path: "onnxruntime-1.32.0-cp312-cp312-manylinux_2_28_aarch64.whl",
            bytes: 23_196_724,
            sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.so.1.32.0",
            bytes: 27_165_936,
            sha256: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
        },
        companions: &[
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
            PinnedFile {
                path: "onnxruntime/capi/libonnxruntime_providers_shared.so",
                bytes: 198_792,
                sha256: "f91fa2b0a2b8dba9cbc319254d342fa8201fd94b5912b9ce717f82e2207ee3d5",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime",
        version: "1.32.0",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["macosx_14_0_arm64"],
        uv_platform: "aarch64-apple-darwin",
        os: "macos",
        arch: "aarch64",
        wheel: PinnedFile {
            path: "onnxruntime-1.32.0-cp312-cp312-macosx_14_0_arm64.whl",
            bytes: 22_519_308,
            sha256: "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.1.32.0.dylib",
            bytes: 35_272_344,
            sha256: "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 334_795,
                sha256: "d8696258afcf9df7827a5e01d6b6d55ee9b461b4e82020f5f48242deb9cc2270",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime",
        version: "1.23.2",
        python: "3.12",
        abi: "cp312",
        pip_platforms: &["macosx_13_0_x86_64"],
        uv_platform: "x86_64-apple-darwin",
        os: "macos",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime-1.23.2-cp312-cp312-macosx_13_0_x86_64.whl",
            bytes: 19_157_705,
            sha256: "218295a8acae83905f6f1aed8cacb8e3eb3bd7513a13fe4ba3b2664a19fc4a6b",
        },
        library: PinnedFile {
            path: "onnxruntime/capi/libonnxruntime.1.23.2.dylib",
            bytes: 30_819_512,
            sha256: "41e7960eccef34f60ca21d091d37bc97d0e70a0b4ce902babf5f795a76e1af74",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime/ThirdPartyNotices.txt",
                bytes: 326_866,
                sha256: "e9e90971a8e75a9a8ac0c6412e29c1202d079998389915aa485f46c816c3b4cc",
            },
            PinnedFile {
                path: "onnxruntime/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
        ],
    },
];
