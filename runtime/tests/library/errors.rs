//! Every way in which finding, fetching or loading a build can fail, each with its own message.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::options;
use mpnet_runtime::library::{
    self, Build, ClientKind, InstallOptions, LibraryError, LocateOptions, Origin, PinnedFile,
    PinnedWheel,
};

fn locate(options: InstallOptions, requested: &Path) -> library::Result<Build> {
    library::locate(&LocateOptions {
        requested: Some(requested.to_owned()),
        environment: None,
        wheel: None,
        download: false,
        install: options,
    })
}

fn load(path: &Path) -> LibraryError {
    library::load(&Build {
        path: path.to_owned(),
        origin: Origin::Requested,
    })
    .unwrap_err()
}

/// The folder of the default build in the user's cache.
fn installed() -> PathBuf {
    let wheel = library::install(None, &InstallOptions::for_user().unwrap()).unwrap();
    wheel.folder.join("onnxruntime/capi")
}

/// The default wheel with other expectations of one file.
fn altered(change: impl FnOnce(&mut PinnedFile, &mut PinnedFile)) -> &'static PinnedWheel {
    let pinned = library::default_wheel().unwrap();
    let copy = |file: &PinnedFile| PinnedFile {
        path: file.path,
        bytes: file.bytes,
        sha256: file.sha256,
    };
    let (mut wheel, mut library) = (copy(&pinned.wheel), copy(&pinned.library));
    change(&mut wheel, &mut library);
    Box::leak(Box::new(PinnedWheel {
        wheel,
        library,
        companions: &[],
        ..*pinned
    }))
}

/// Nothing but the lock may be left of an installation that failed.
fn assert_empty(cache: &Path) {
    let left: Vec<_> = fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [".lock"]);
}

const OTHER_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_wheel_with_another_hash_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let error = library::install(
        Some(altered(|wheel, _| wheel.sha256 = OTHER_HASH)),
        &options,
    )
    .unwrap_err();
    assert!(
        matches!(&error, LibraryError::WrongHash { expected, .. } if expected == OTHER_HASH),
        "{error}"
    );
    assert!(
        error.to_string().contains("is not the published file"),
        "{error}"
    );
    assert_empty(&options.cache);
}

#[test]
fn a_library_with_another_hash_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let error = library::install(
        Some(altered(|_, library| library.sha256 = OTHER_HASH)),
        &options,
    )
    .unwrap_err();
    assert!(
        matches!(&error, LibraryError::WrongHash { path, .. } if path.ends_with(
        library::default_wheel().unwrap().library.path)),
        "{error}"
    );
    assert_empty(&options.cache);
}

#[test]
fn a_wheel_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let longer = altered(|wheel, _| wheel.bytes += 1);
    let error = library::install(Some(longer), &options).unwrap_err();
    assert!(
        matches!(error, LibraryError::Truncated { expected, found, .. } if expected == found + 1),
        "{error}"
    );
    assert_empty(&options.cache);
}

#[test]
fn without_a_client_the_message_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let options = InstallOptions {
        search_path: Some(folder.path().into()),
        ..options(folder.path())
    };
    let error = library::install(None, &options).unwrap_err();
    assert!(matches!(error, LibraryError::NoClient { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("neither pip nor uv was found"),
        "{error}"
    );
}

#[test]
fn without_a_network_the_client_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let pip = folder.path().join("pip");
    // The user's pip, told to use no registry.
    fs::write(
        &pip,
        "#!/bin/sh\nPIP_NO_INDEX=1 PIP_FIND_LINKS= exec python3 -m pip \"$@\"\n",
    )
    .unwrap();
    fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
    let options = InstallOptions {
        search_path: Some(folder.path().into()),
        client: Some(ClientKind::Pip),
        ..options(folder.path())
    };
    let error = library::install(None, &options).unwrap_err();
    assert!(
        matches!(error, LibraryError::ClientsFailed { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("No matching distribution found"),
        "{error}"
    );
    assert_empty(&options.cache);
}

#[test]
fn an_empty_cache_without_download_says_how_to_fill_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = library::locate(&LocateOptions {
        requested: None,
        environment: None,
        wheel: None,
        download: false,
        install: options(folder.path()),
    })
    .unwrap_err();
    assert!(
        matches!(error, LibraryError::NotInstalled { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("mpnet runtime install"),
        "{error}"
    );
}

#[test]
fn a_path_that_does_not_exist_is_named_with_its_option() {
    let folder = tempfile::tempdir().unwrap();
    let error = locate(options(folder.path()), &folder.path().join("nothing.so")).unwrap_err();
    assert!(
        matches!(
            error,
            LibraryError::Missing {
                origin: "--ort",
                ..
            }
        ),
        "{error}"
    );
    let error = library::locate(&LocateOptions {
        requested: None,
        environment: Some(folder.path().join("nothing.so")),
        wheel: None,
        download: false,
        install: options(folder.path()),
    })
    .unwrap_err();
    assert!(
        matches!(
            error,
            LibraryError::Missing {
                origin: "ORT_DYLIB_PATH",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_folder_without_a_build_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = locate(options(folder.path()), folder.path()).unwrap_err();
    assert!(matches!(error, LibraryError::EmptyFolder { .. }), "{error}");
}

#[test]
fn a_damaged_wheel_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = crate::common::onnxruntime_wheel("1.16.3");
    let whole = fs::read_dir(whole).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(whole).unwrap();
    let wheel = folder.path().join("cut.whl");
    fs::write(&wheel, &bytes[..bytes.len() / 2]).unwrap();
    let error = locate(options(folder.path()), &wheel).unwrap_err();
    assert!(
        matches!(error, LibraryError::DamagedWheel { .. }),
        "{error}"
    );

    let wheel = folder.path().join("flipped.whl");
    let mut flipped = bytes;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&wheel, &flipped).unwrap();
    let error = locate(options(folder.path()), &wheel).unwrap_err();
    assert!(
        matches!(error, LibraryError::DamagedWheel { .. }),
        "{error}"
    );
    assert_empty(&folder.path().join("cache"));
}

#[test]
fn a_wheel_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let wheels = crate::common::pip(
        "flatbuffers",
        &[
            "download",
            "--no-deps",
            "--dest",
            "{}",
            "flatbuffers==25.12.19",
        ],
    );
    let error = locate(options(folder.path()), &wheels).unwrap_err();
    assert!(
        matches!(error, LibraryError::WheelWithoutLibrary { .. }),
        "{error}"
    );
}

#[test]
fn a_text_file_is_no_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    fs::write(
        &path,
        "not a library, but long enough to hold the header of one, were it one",
    )
    .unwrap();
    let error = load(&path);
    assert!(matches!(error, LibraryError::NotALibrary { .. }), "{error}");
}

#[test]
fn a_library_cut_short_is_told_before_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    let whole = fs::read(
        library::install(None, &InstallOptions::for_user().unwrap())
            .unwrap()
            .library(),
    )
    .unwrap();
    for length in [0, 40, 1000, whole.len() / 2, whole.len() - 5_000_000] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load(&path);
        assert!(
            matches!(error, LibraryError::NotALibrary { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_sound_library_of_something_else_is_no_onnx_runtime() {
    let error = load(&installed().join("libonnxruntime_providers_shared.so"));
    assert!(
        matches!(error, LibraryError::NotOnnxRuntime { .. }),
        "{error}"
    );
}

#[test]
fn a_missing_dependency_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    let wheel = library::wheel_of("onnxruntime").unwrap();
    let installed = library::install(Some(wheel), &InstallOptions::for_user().unwrap()).unwrap();
    let mut bytes = fs::read(installed.library()).unwrap();
    // Among the names of what it needs.
    let name = b"libpthread.so.0\0";
    let place = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[place..place + 10].copy_from_slice(b"libnowhere");
    fs::write(&path, bytes).unwrap();
    let error = load(&path);
    assert!(matches!(error, LibraryError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("libnowhere.so.0"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_made_is_replaced_for_this_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let options = InstallOptions {
        cache: file.join("cache"),
        ..options(folder.path())
    };
    let installed = library::install(None, &options).unwrap();
    installed.verify().unwrap();
    // Fetched once.
    assert_eq!(library::install(None, &options).unwrap(), installed);
}

#[test]
fn a_foreign_architecture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    let mut bytes = fs::read(installed().join("libonnxruntime_providers_shared.so")).unwrap();
    // e_machine: AArch64.
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = load(&path);
    assert!(
        matches!(&error, LibraryError::ForeignArchitecture { found, .. } if found == "aarch64"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("built for aarch64, this program for x86_64"),
        "{error}"
    );
}

#[test]
fn a_build_that_is_too_old_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let build = locate(
        options(folder.path()),
        &crate::common::onnxruntime_wheel("1.16.3"),
    )
    .unwrap();
    let error = load(&build.path);
    assert!(
        matches!(&error, LibraryError::TooOld { found, .. } if found == "1.16.3"),
        "{error}"
    );
    assert!(error.to_string().contains("1.17 or later"), "{error}");
}
