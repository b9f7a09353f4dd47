//! What a wheel must be to be taken: its files, with their hashes.

/// One file of a wheel.
#[derive(Debug, PartialEq, Eq)]
pub struct PinnedFile {
    /// Path where the wheel is installed, with `/`. What is below `bin` is a program.
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

    /// Whether it runs on this machine.
    pub(super) fn runs_here(&self) -> bool {
        self.os == std::env::consts::OS && self.arch == std::env::consts::ARCH
    }

    /// The library and its companions.
    pub fn files(&self) -> impl Iterator<Item = &PinnedFile> {
        std::iter::once(&self.library).chain(self.companions)
    }
}
