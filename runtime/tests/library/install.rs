//! Fetching builds into a cache of their own, by both clients, and at the same time.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::options;
use mpnet_runtime::library::{
    self, ClientKind, InstallOptions, LibraryError, LocateOptions, Origin,
};

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn pip_fetches_once_and_the_cache_serves_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let online = InstallOptions {
        client: Some(ClientKind::Pip),
        ..options(folder.path())
    };
    let installed = library::install(None, &online).unwrap();
    installed.verify().unwrap();
    assert_eq!(installed.manifest.source, "pip");
    assert_eq!(
        library::list(&online.cache).unwrap(),
        std::slice::from_ref(&installed)
    );

    // No client and no network any more.
    let offline = InstallOptions {
        search_path: Some(OsString::new()),
        ..online.clone()
    };
    let build = library::locate(&LocateOptions {
        requested: None,
        environment: None,
        wheel: None,
        download: true,
        install: offline,
    })
    .unwrap();
    assert_eq!(
        (build.path, build.origin),
        (installed.library(), Origin::Cache)
    );

    // A library that lost its end is listed but not served, and fetched again.
    let whole = fs::read(installed.library()).unwrap();
    fs::write(installed.library(), &whole[..1000]).unwrap();
    let listed = library::list(&online.cache).unwrap();
    assert_eq!(listed, std::slice::from_ref(&installed));
    assert!(matches!(
        listed[0].verify(),
        Err(LibraryError::Truncated { found: 1000, .. })
    ));
    assert_eq!(library::install(None, &online).unwrap(), installed);
    assert_eq!(fs::read(installed.library()).unwrap(), whole);

    // A library with other bytes has its length, but does not pass the check; force replaces it.
    let mut changed = whole.clone();
    changed[5_000_000] ^= 1;
    fs::write(installed.library(), &changed).unwrap();
    assert!(matches!(
        installed.verify(),
        Err(LibraryError::WrongHash { .. })
    ));
    library::install(
        None,
        &InstallOptions {
            force: true,
            ..online.clone()
        },
    )
    .unwrap();
    installed.verify().unwrap();
    assert_eq!(
        names(&online.cache),
        [
            OsString::from(".lock"),
            installed.folder.file_name().unwrap().into()
        ]
    );
}

#[test]
fn uv_fetches_the_same_files() {
    let uv = crate::common::pip("uv", &["install", "--quiet", "--target", "{}", "uv"]);
    let folder = tempfile::tempdir().unwrap();
    let mut path = vec![uv.join("bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let options = InstallOptions {
        client: Some(ClientKind::Uv),
        search_path: Some(std::env::join_paths(path).unwrap()),
        ..options(folder.path())
    };
    let installed = library::install(None, &options).unwrap();
    installed.verify().unwrap();
    assert_eq!(installed.manifest.source, "uv");
}

#[test]
fn installations_at_the_same_time_end_in_one_build() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let libraries: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| library::install(None, &options).unwrap().library()))
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    });
    assert!(
        libraries
            .iter()
            .all(|library| *library == libraries[0] && library.is_file()),
        "{libraries:?}"
    );
    assert_eq!(
        names(&options.cache).len(),
        2,
        "{:?}",
        names(&options.cache)
    );
}

#[test]
fn what_a_killed_installation_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    fs::create_dir_all(options.cache.join(".unfinished-abc/build")).unwrap();
    library::install(None, &options).unwrap();
    assert!(!options.cache.join(".unfinished-abc").exists());
}
