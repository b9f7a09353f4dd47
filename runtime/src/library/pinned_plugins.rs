//! Plug-ins: providers in libraries of their own, as this program fetches them.

use super::pinned_wheel::{PinnedFile, PinnedWheel};

/// Every plug-in that can be fetched.
pub const PLUGINS: &[PinnedWheel] = &[
    PinnedWheel {
        package: "onnxruntime-ep-openvino",
        version: "1.8.1",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_openvino-1.8.1-py3-none-manylinux_2_28_x86_64.whl",
            bytes: 52_587_628,
            sha256: "3832643158c8c187fcab6db661cde2a8c06a2b3559d95d0f2411ac0e51c5e924",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_openvino/libonnxruntime_providers_openvino_plugin.so",
            bytes: 3_069_280,
            sha256: "99644306dea90173d2fac5e2ad8d10c9574ecf6e6e71ca30e426531abd5a717f",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_openvino/cache.json",
                bytes: 8_840_377,
                sha256: "0b2ad2a99516a3411ce3fef274e8ae2880b41a6f00c9bac6768cd4a94b87c41c",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libhwloc.so.15",
                bytes: 473_321,
                sha256: "e91be9f5bc1c87aadb08f2e19ebcb742979adda0a5434f72650a154e317e7fb1",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino.so.2641",
                bytes: 20_526_937,
                sha256: "9b9a80ac1f18e07b13ed54459d9a865bcfe9dc170dbf8fe740c2974b85ecedc1",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_auto_batch_plugin.so",
                bytes: 265_129,
                sha256: "1e7102276dd42ef917078a09be4f1838c41c3611ca2e10c34fb7ea31f1fef561",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_auto_plugin.so",
                bytes: 685_129,
                sha256: "3971fe197490e31479727aa761e8abc972f7967f67eaa39cac75859f1e19e017",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_hetero_plugin.so",
                bytes: 559_265,
                sha256: "387eec6f2341230ceb13e1cca0476fcee87ca0e9e2386e2a9db00e6cea8378a9",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_intel_cpu_plugin.so",
                bytes: 63_691_929,
                sha256: "6599e3dd300d047b5ed72f8e48101c5f312c25321f35f57f803641ff8372900b",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_intel_gpu_plugin.so",
                bytes: 41_732_569,
                sha256: "e494cf8fb428f1fecfad35e2bac7b2fb24159ac6b13fe19027f0c4ae36374b33",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_ir_frontend.so.2641",
                bytes: 640_313,
                sha256: "554e9fd3d4a0fbc587c14379464b2324e24b8ea736cfb749ad2cd9e74dfc09e0",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libopenvino_onnx_frontend.so.2641",
                bytes: 6_827_321,
                sha256: "82d499f5b5e8514def7aaa1ecd5a9f570542d33ae9d00a0077f707cccd0e0192",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libtbb.so.12",
                bytes: 369_313,
                sha256: "ac9518497a4f2cb6729792730f145ee58367316031511923fef263c9ac81ca61",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libtbbbind_2_5.so.3",
                bytes: 33_025,
                sha256: "179ebd1223abd20a461dc978f24090d7ef7c1308b8dff14e4adfe4a21d75543f",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libtbbmalloc.so.2",
                bytes: 159_729,
                sha256: "0cccbdb4783bf190da19b34540fb7f749b0955ec1982d7ac8e5f398365399895",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/libtbbmalloc_proxy.so.2",
                bytes: 28_377,
                sha256: "ecd654634c8a40fe45850c230e2fdbead674c4a1d6a54e89c117e919b61a6df0",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/third-party-programs.txt",
                bytes: 13_680,
                sha256: "cf1dc931aee305019c370a5e6398040e43afa8e22664118710f8b0e13c02de0c",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-openvino",
        version: "1.8.1",
        python: "3.12",
        abi: "none",
        pip_platforms: &["win_amd64"],
        uv_platform: "x86_64-pc-windows-msvc",
        os: "windows",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_openvino-1.8.1-py3-none-win_amd64.whl",
            bytes: 75_824_318,
            sha256: "1acd878be173b02bb8b953460f2f59b121e5f6e47ebc6aad490c0590cf6718fb",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_openvino/onnxruntime_providers_openvino_plugin.dll",
            bytes: 1_744_664,
            sha256: "ff8d1e432d5efd36132da91ac9e4e069db39ef29c4d6e059302b33dddb0e6613",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_openvino/cache.json",
                bytes: 8_840_377,
                sha256: "0b2ad2a99516a3411ce3fef274e8ae2880b41a6f00c9bac6768cd4a94b87c41c",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino.dll",
                bytes: 16_655_640,
                sha256: "1535483dbb4addf5a9f44584c2f7ac831366f39fbeab85860a728993e32822ad",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_auto_batch_plugin.dll",
                bytes: 321_304,
                sha256: "5f380527db6ac1ccf9e2eab251ca98583ec9d9afc4cfd67bc7bce9bc03f83420",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_auto_plugin.dll",
                bytes: 840_984,
                sha256: "4e54d293900707715151b772ec0c64cdfac7857d8297945d8bdc4bee1f127986",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_hetero_plugin.dll",
                bytes: 643_864,
                sha256: "136aa89c3b27cbe765862973956a09a5ede6f7d0578bea7782125067ea9ef851",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_intel_cpu_plugin.dll",
                bytes: 46_512_408,
                sha256: "89c410042001a5a2a72fb4a0f8df27daf2dbd46ee6bd14e927bef834bb70111d",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_intel_gpu_plugin.dll",
                bytes: 34_999_064,
                sha256: "4a8765a1cf1677879696c9d8ef391398410d59c3af61c173fee55abaac207e9c",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_ir_frontend.dll",
                bytes: 807_192,
                sha256: "1576eaf914f09e551f1a3134d400f30b54240e778970a77367f707d6583bbc6a",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_onnx_frontend.dll",
                bytes: 5_524_248,
                sha256: "64981309cedf878922284ad38b690918df3b6f07e02f5e3c0525d4bd10b30c1d",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/openvino_runtime.manifest",
                bytes: 1_287,
                sha256: "0b94828d5885d5fc2e088df42e4bbf3c68481eca13e8fb00cb3e64325fa797d9",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/tbb12.dll",
                bytes: 439_064,
                sha256: "22c2df89b57d734283341ca8d031ca6cda7cdc84d27dba7d75e369d6be58213d",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/tbbbind_2_5.dll",
                bytes: 239_896,
                sha256: "747aad0a7544f1a17ff2479cf56e066952c60b091613b40fb33d28cbbe63183f",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/tbbmalloc.dll",
                bytes: 143_128,
                sha256: "2fbaf41783d9d42cd9e96b0654c21e5a165f2b00e16b489e267eb8d32d74afb2",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/tbbmalloc_proxy.dll",
                bytes: 71_448,
                sha256: "3a28e8e197079d101d1d980bc7658530108c137f08593c9150db41218d27d3b1",
            },
            PinnedFile {
                path: "onnxruntime_ep_openvino/third-party-programs.txt",
                bytes: 13_789,
                sha256: "32b1b5ff9693ee3b4a35caa9c73581a5390b4513ba8b87d5a79f463c2af91a06",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-webgpu",
        version: "0.4.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_webgpu-0.4.0-py3-none-manylinux_2_28_x86_64.whl",
            bytes: 6_892_120,
            sha256: "5d8c961eda91a88961cad1fb7621f389f006b18497d6ea9ecf96f729f066cbfb",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_webgpu/libonnxruntime_providers_webgpu.so",
            bytes: 16_450_888,
            sha256: "9f76e3dc4459421958ad086a9da03bf7e5de9289e9a3a56e28bbb459773dec81",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/ThirdPartyNotices.txt",
                bytes: 338_088,
                sha256: "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-webgpu",
        version: "0.4.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_28_aarch64"],
        uv_platform: "aarch64-manylinux_2_28",
        os: "linux",
        arch: "aarch64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_webgpu-0.4.0-py3-none-manylinux_2_28_aarch64.whl",
            bytes: 6_096_222,
            sha256: "17f660db53b1a509c63e721ac6784a2daa1c4e91a968523ee9986505ee5b0a55",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_webgpu/libonnxruntime_providers_webgpu.so",
            bytes: 13_862_448,
            sha256: "720e1288e7e465f924db44b88a98a9d1c543eba3fbb2ff801cf2545f5e7f0279",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/ThirdPartyNotices.txt",
                bytes: 338_088,
                sha256: "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-webgpu",
        version: "0.4.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["macosx_14_0_universal2"],
        uv_platform: "aarch64-apple-darwin",
        os: "macos",
        arch: "aarch64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_webgpu-0.4.0-py3-none-macosx_14_0_universal2.whl",
            bytes: 5_200_679,
            sha256: "8d0a91d44b43d931c3068b9134aed9770f27803e353c2b58c93e1700bb68bcca",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_webgpu/libonnxruntime_providers_webgpu.dylib",
            bytes: 14_966_224,
            sha256: "894aa43c308c97afe58f6485b8411962181a39b27170f5f210cc7503adb52850",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/LICENSE",
                bytes: 1_073,
                sha256: "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
            },
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/ThirdPartyNotices.txt",
                bytes: 338_088,
                sha256: "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-webgpu",
        version: "0.4.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["win_amd64"],
        uv_platform: "x86_64-pc-windows-msvc",
        os: "windows",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_webgpu-0.4.0-py3-none-win_amd64.whl",
            bytes: 13_149_847,
            sha256: "7db646669d1a2390551da675115ea125e68cb3d4d2c3a2d6e463372bf8d6ea87",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_webgpu/onnxruntime_providers_webgpu.dll",
            bytes: 10_954_080,
            sha256: "85d7b2065b1968b846cd00d5d87d5286d3c44e8f6c557cd382d96300e524b6cb",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/LICENSE",
                bytes: 1_094,
                sha256: "c250d6278f0b47a6439fb7592b08b58a55eb9f535aa49a1db63211c3f982b674",
            },
            PinnedFile {
                path: "onnxruntime_ep_webgpu-0.4.0.dist-info/licenses/ThirdPartyNotices.txt",
                bytes: 344_457,
                sha256: "c53a76501ef60db6f865f20599f220761201ac4057683acefdab37d861b86622",
            },
            PinnedFile {
                path: "onnxruntime_ep_webgpu/dxcompiler.dll",
                bytes: 17_986_360,
                sha256: "d7e740883f8048233d15752bc5d4ba207fc03d835c78fffab26387d400892193",
            },
            PinnedFile {
                path: "onnxruntime_ep_webgpu/dxil.dll",
                bytes: 1_508_704,
                sha256: "0a0d059a51dd5e1916a4a9924817d70b5dbb8e0c103a102fa2c6c92cb748c27f",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-nv-tensorrt-rtx-cu13",
        version: "0.5.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["manylinux_2_28_x86_64"],
        uv_platform: "x86_64-manylinux_2_28",
        os: "linux",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_nv_tensorrt_rtx_cu13-0.5.0-py3-none-manylinux_2_28_x86_64.whl",
            bytes: 146_476_965,
            sha256: "32f575c633d171b4edf4b53d3bb22b72a6c9c0a850d2982ce9a788a5d40d3298",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_nv_tensorrt_rtx/libonnxruntime_providers_nv_tensorrt_rtx.so",
            bytes: 5_113_208,
            sha256: "d83dde283dd583376fa17b49fbc9d7c85674ae1a077f7e5671f79c4e2f056d78",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/Acknowledgements.txt",
                bytes: 105_200,
                sha256: "3b67e831a770f7daf66a7a0772cc23e6a22fd5e3fb8ffef74c4a717357d2a096",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/README.txt",
                bytes: 1_466,
                sha256: "9371fb491ecede4ad1fefedd20e25939769333d33bf869752d75a4a9f30489bd",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/libcudart.so.13.4.36",
                bytes: 798_496,
                sha256: "82d50fc923566a86ff5449cb190d58007a26280669b4f62be2c284cacb51ed24",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/libtensorrt_onnxparser_rtx.so.1.7.1",
                bytes: 4_097_984,
                sha256: "8bc09093b0e460f494d0410d8a2d2739b3e4de441d016e1f8ffa74bfb99a49aa",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/libtensorrt_plugins.so",
                bytes: 69_706_480,
                sha256: "45eb50eb35378a737ba96e63f7aa8b4ef1f7c7e1739f9066fe869a7074d7a0d4",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/libtensorrt_rtx.so.1.7.1",
                bytes: 234_013_248,
                sha256: "6980f8946580af43f06ccbd82a06c65d61638ff76329d726764a0a408747be84",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/libtensorrt_shim.so",
                bytes: 1_530_568,
                sha256: "54c78af86decf4341782543140ba6690fada2abafcfda7c324bc4b9c73ebf484",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-nv-tensorrt-rtx-cu13",
        version: "0.5.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["win_amd64"],
        uv_platform: "x86_64-pc-windows-msvc",
        os: "windows",
        arch: "x86_64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_nv_tensorrt_rtx_cu13-0.5.0-py3-none-win_amd64.whl",
            bytes: 110_875_664,
            sha256: "609b19f7236c8522ef005a9f763003a78f492e5d871afad39fe1b247760eb3c7",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_nv_tensorrt_rtx/onnxruntime_providers_nv_tensorrt_rtx.dll",
            bytes: 2_392_176,
            sha256: "efbf29728e5dbdc148369640cf2eac7215c05deff256484bd0a61d8a96d140a7",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/TRTRTX_Acknowledgements.txt",
                bytes: 107_164,
                sha256: "611660ec0ae19c7b8df4a6442009c8bc85ba9e56d7d5ea042564841e72032d25",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/TRTRTX_README.txt",
                bytes: 1_484,
                sha256: "48f5a9fc4b2bc48ae15167ec73e80c6855f90c7d07b184ba2b91814316b4bf37",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/cudart64_13.dll",
                bytes: 551_024,
                sha256: "f0e947c8e46b5b3b38ae643d5aff5b939d25676b7fe7c299bc2cc9a05815fda6",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/tensorrt_onnxparser_rtx_1_7.dll",
                bytes: 2_329_200,
                sha256: "b38d00d107dae534f1fc855df5bc1a04fc0ae25135b5b10d17f9b30cc4c9c411",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/tensorrt_plugins.dll",
                bytes: 51_289_200,
                sha256: "50a345da5f5f9ecc214410f65964513f37e9c30e8bfe55eeb9f744bc0db95692",
            },
            PinnedFile {
                path: "onnxruntime_ep_nv_tensorrt_rtx/tensorrt_rtx_1_7.dll",
                bytes: 229_312_112,
                sha256: "7b8a06d4b66dfe7da7f1ff48a994ad9dcf107cd28b4822d6f25453528c0db6dd",
            },
        ],
    },
    PinnedWheel {
        package: "onnxruntime-ep-mlx",
        version: "0.31.0",
        python: "3.12",
        abi: "none",
        pip_platforms: &["macosx_14_0_arm64"],
        uv_platform: "aarch64-apple-darwin",
        os: "macos",
        arch: "aarch64",
        wheel: PinnedFile {
            path: "onnxruntime_ep_mlx-0.31.0-py3-none-macosx_14_0_arm64.whl",
            bytes: 43_171_606,
            sha256: "507070f9def0093c8ff083037fc4538017248effb958e150f471cbe5ac05d5d1",
        },
        library: PinnedFile {
            path: "onnxruntime_ep_mlx/libonnxruntime_mlx_ep.dylib",
            bytes: 4_240_112,
            sha256: "f32137424a2314eae90d4162ef15144471ebef605f6bc39777c385f499d79c3b",
        },
        companions: &[
            PinnedFile {
                path: "onnxruntime_ep_mlx/libmlx.dylib",
                bytes: 21_504_816,
                sha256: "a349071adf83d514534ac5816c7e87712e923079bc73ba7e0694f611cd955f2d",
            },
            PinnedFile {
                path: "onnxruntime_ep_mlx/libmlxc.dylib",
                bytes: 895_024,
                sha256: "cc86c9aee82d1650162eb01544d6fa00fdf4c2c2d8a5294279311c7e19490479",
            },
            PinnedFile {
                path: "onnxruntime_ep_mlx/mlx.metallib",
                bytes: 135_712_368,
                sha256: "266313bb90850db63dbbba74ba586d13f34427807a4c466aa1c8c6bd3ad5259d",
            },
        ],
    },
];
