//! The libraries that join ranks, as this program fetches them.

use super::pinned_wheel::{PinnedFile, PinnedWheel};

/// Every library that can be fetched.
pub const LIBRARIES: &[PinnedWheel] = &[
    PinnedWheel {
        package: "mpich",
        version: "5.0.2",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "mpich-5.0.2-py3-none-manylinux_2_28_x86_64.whl",
            bytes: 13_282_595,
            sha256: "8fed465ebff269ea2ebac179a25de02671ddf8df476e0f115be089015015cfd4",
        },
        library: PinnedFile {
            path: "lib/libmpi_abi.so.1",
            bytes: 12_796_721,
            sha256: "42918a6749a42355dee5388281a94c37303832f9e11bc138709fb5e7622529fa",
        },
        companions: &[
            PinnedFile {
                path: "bin/hydra_pmi_proxy",
                bytes: 675_456,
                sha256: "8c9f1c5be81678a2d0a402d1a3ad2747a9262b9ada3a977795b3cf99d16ace91",
            },
            PinnedFile {
                path: "bin/mpiexec",
                bytes: 745_856,
                sha256: "18e436afe968b4534a93555c10db82622375d3457f8827f9147d3f960e211a9e",
            },
            PinnedFile {
                path: "lib/mpich/libfabric.so.1",
                bytes: 1_249_177,
                sha256: "774cf3f9fc0edd82cfbee15e1610c36f94f2b8d1410115d7bab7ca5cd7764003",
            },
            PinnedFile {
                path: "lib/mpich/libucm.so.0",
                bytes: 127_769,
                sha256: "ec60318e242e5526325d39564c78ed9fb7a1666c79ba138fdabf2720479f0da2",
            },
            PinnedFile {
                path: "lib/mpich/libucp.so.0",
                bytes: 1_040_457,
                sha256: "da88318be234deef89f5ac29f180d1cba549fb1588cafa1f659cd0433efb2d97",
            },
            PinnedFile {
                path: "lib/mpich/libucs.so.0",
                bytes: 466_481,
                sha256: "dc2547cf7278c048dac4dbc052b0ae72b93fff5ccdd5a34da1086730c0bd7cb6",
            },
            PinnedFile {
                path: "lib/mpich/libucs_signal.so.0",
                bytes: 14_240,
                sha256: "8ed5194bd9ad58be4aff909404306e23abea937aa5eaced774b65baf241c65be",
            },
            PinnedFile {
                path: "lib/mpich/libuct.so.0",
                bytes: 275_873,
                sha256: "7c64f83367a547cb54b7e2b4a31b886550f2e4284e612cf413b6e26a79f38b27",
            },
            PinnedFile {
                path: "lib/mpich/libfabric/libefa-fi.so",
                bytes: 749_409,
                sha256: "e032509f7d2b8ea6c2eae49b5924baced0e76b8a4d01dc8496cf20add1e128d8",
            },
            PinnedFile {
                path: "lib/mpich/libfabric/libpsmx2-fi.so",
                bytes: 512_249,
                sha256: "6524f7291e79840c8200547b62e553e0282b26f6057e44ef51e9fd5330c21107",
            },
            PinnedFile {
                path: "lib/mpich/libfabric/libverbs-fi.so",
                bytes: 529_009,
                sha256: "e4cef4cd839bb4a9970289b0fb10a2fc4f1c80b4e13787a9931ed25fbde44aee",
            },
            PinnedFile {
                path: "lib/mpich/ucx/libuct_cma.so.0",
                bytes: 30_481,
                sha256: "c6f281308448a47df88a077276c2eaa39ce2bcaa6d7d0c0e58bf58ad49d31920",
            },
            PinnedFile {
                path: "lib/mpich/ucx/libuct_ib.so.0",
                bytes: 303_953,
                sha256: "fc6897506e0e7344d913db41c2139738a4cd1247efb80a8a651df954cde1a6d4",
            },
            PinnedFile {
                path: "lib/mpich/ucx/libuct_ib_efa.so.0",
                bytes: 58_409,
                sha256: "693ce201c4b3bcf805431f98385e3efd9ae10c565dfbb140a784cb0f8efe30c8",
            },
            PinnedFile {
                path: "lib/mpich/ucx/libuct_ib_mlx5.so.0",
                bytes: 450_281,
                sha256: "93a60813a9ee514cb2e9bf32a736d1826a0a9de00829ed7e6fb12cbb466bf66e",
            },
            PinnedFile {
                path: "lib/mpich/ucx/libuct_rdmacm.so.0",
                bytes: 67_305,
                sha256: "cd9fff1ecb177e671b2c03a0b44125104b0fd0c8c2313c2bd96be8e91bf05c79",
            },
            PinnedFile {
                path: "mpich-5.0.2.dist-info/licenses/LICENSE",
                bytes: 1_893,
                sha256: "60fc73dd0d561c98aa1987fcd68c57be2fcb55add62ad69d3a35f42e10967399",
            },
            PinnedFile {
                path: "mpich-5.0.2.dist-info/licenses/LICENSE.hwloc",
                bytes: 2_552,
                sha256: "d79a936a42f3c6cb7c8375a023d43f4435f4664d3a5a2ea6b4623cff83c7fc06",
            },
            PinnedFile {
                path: "mpich-5.0.2.dist-info/licenses/LICENSE.json-c",
                bytes: 2_205,
                sha256: "74c1e6ca5eba76b54d0ad00d4815c8315c1b3bc45ff99de61d103dc92486284c",
            },
            PinnedFile {
                path: "mpich-5.0.2.dist-info/licenses/LICENSE.ofi",
                bytes: 19_859,
                sha256: "09fcf3e28e57cdb62f027bcfad63a9859740209aaac33f80da8b72d30a4ee036",
            },
            PinnedFile {
                path: "mpich-5.0.2.dist-info/licenses/LICENSE.ucx",
                bytes: 2_291,
                sha256: "ebb5c7fa3d2e20fbee5431a975c7196779647490324dc2346cc561f0f044048d",
            },
        ],
    },
    PinnedWheel {
        package: "nvidia-nccl-cu13",
        version: "2.31.2",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_18_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "nvidia_nccl_cu13-2.31.2-py3-none-manylinux_2_18_x86_64.whl",
            bytes: 252_442_223,
            sha256: "0bcaf0308854cb55fcc35af72e2c83143f3b71e65a4e865e2c586b1cdcdb5ae0",
        },
        library: PinnedFile {
            path: "nvidia/nccl/lib/libnccl.so.2",
            bytes: 299_259_704,
            sha256: "78103983bb558aef7277a0c05a9a5963e619a69f6e77ece3c449fb045a3368d4",
        },
        companions: &[PinnedFile {
            path: "nvidia_nccl_cu13-2.31.2.dist-info/licenses/License.txt",
            bytes: 1_895,
            sha256: "0f0174a6b4e0b33ac26375bf729533075b32f4c51a5b6802a3d742d7dcdc9a76",
        }],
    },
    PinnedWheel {
        package: "nvidia-nccl-cu12",
        version: "2.31.2",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_18_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "nvidia_nccl_cu12-2.31.2-py3-none-manylinux_2_18_x86_64.whl",
            bytes: 342_105_414,
            sha256: "f9b1dc3c2a7e20176054144ebb3b32fea83b40402ee5d7ac7045cd11ecc956c0",
        },
        library: PinnedFile {
            path: "nvidia/nccl/lib/libnccl.so.2",
            bytes: 473_266_472,
            sha256: "dba12e429fe11268b895d0531ba96a7f679f35227d5b1ec77c5febbcd02281bd",
        },
        companions: &[PinnedFile {
            path: "nvidia_nccl_cu12-2.31.2.dist-info/licenses/License.txt",
            bytes: 1_895,
            sha256: "0f0174a6b4e0b33ac26375bf729533075b32f4c51a5b6802a3d742d7dcdc9a76",
        }],
    },
];
