//! A plain build without the training API, out of its wheel: it loads, computes, and is refused for training.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::Path;

use mpnet_plan::Provider;
use mpnet_runtime::doctor::{self, ProviderState};
use mpnet_runtime::engine::{EngineError, TrainingApiEngine, TrainingApiOptions};
use mpnet_runtime::library::{self, Build, InstallOptions, LibraryError, LocateOptions, Origin};

#[test]
fn loads_and_computes_but_does_not_train() {
    let folder = tempfile::tempdir().unwrap();
    let options = LocateOptions {
        requested: Some(common::onnxruntime_wheel("1.22.1")),
        environment: None,
        wheel: None,
        download: false,
        install: InstallOptions {
            cache: folder.path().join("cache"),
            client: None,
            search_path: std::env::var_os("PATH"),
            force: false,
        },
    };
    let report = doctor::examine(&options);
    let (build, loaded) = report.used.unwrap();
    assert_eq!(loaded.version, "1.22.1");
    assert!(!loaded.has_training_api);
    let state = |provider| {
        &report
            .providers
            .iter()
            .flatten()
            .find(|row| row.provider == provider)
            .unwrap()
            .state
    };
    assert!(
        matches!(state(Provider::Cpu), ProviderState::Works(_)),
        "{:?}",
        state(Provider::Cpu)
    );
    assert!(
        matches!(state(Provider::Cuda), ProviderState::Absent),
        "{:?}",
        state(Provider::Cuda)
    );

    // The same file again is the same build; another one has no place in the process.
    assert_eq!(library::load(&build).unwrap().path, loaded.path);
    let other = Build {
        path: Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"),
        origin: Origin::Requested,
    };
    assert!(matches!(
        library::load(&other),
        Err(LibraryError::AlreadyLoaded { .. })
    ));

    let Err(error) = TrainingApiEngine::new(
        &loaded,
        TrainingApiOptions {
            artifacts: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/toy"),
            parameters: Vec::new(),
            undecayed: Vec::new(),
            hidden: Vec::new(),
            weight_decay: 0.0,
            gradient_norm_output: "gradient_norm".to_owned(),
            provider: Provider::Cpu,
            device_id: 0,
            threads: None,
        },
    ) else {
        panic!("an engine without the training API");
    };
    assert!(
        matches!(
            &error,
            EngineError::Library(LibraryError::NoTrainingApi { .. })
        ),
        "{error}"
    );
    assert!(error.to_string().contains("--engine session"), "{error}");
}
