//! Finding, fetching and loading builds: what works, and each way to fail.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod install;

use std::path::Path;

use mpnet_runtime::library::InstallOptions;

/// The user's clients with a cache of the test's own.
fn options(folder: &Path) -> InstallOptions {
    InstallOptions {
        cache: folder.join("cache"),
        client: None,
        search_path: std::env::var_os("PATH"),
        force: false,
    }
}
