//! A library, loaded before all others, that makes the C library's functions behave as on other machines: file systems
//! without locks, folders that nobody may write to, files that hold something else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::Command as Run;

/// Locks and syncs of folders fail.
pub const NO_LOCKS: &str = "SHIM_NO_LOCKS";
/// Folders, with colons between, in which nothing can be written.
pub const READ_ONLY: &str = "SHIM_READ_ONLY";
/// A file, and the one that is opened in its place.
pub const FROM: &str = "SHIM_FROM";
pub const TO: &str = "SHIM_TO";

const CODE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#define REAL(name) dlsym(RTLD_NEXT, name)

static int refused(const char *path) {
    const char *folders = path ? getenv("SHIM_READ_ONLY") : 0;
    while (folders && *folders) {
        size_t n = strcspn(folders, ":");
        if (n && strncmp(path, folders, n) == 0 && (path[n] == '/' || path[n] == 0)) {
            errno = EROFS;
            return 1;
        }
        folders += n + (folders[n] == ':');
    }
    return 0;
}
static const char *led(const char *path) {
    const char *from = getenv("SHIM_FROM"), *to = getenv("SHIM_TO");
    return path && from && to && strcmp(path, from) == 0 ? to : path;
}
#define MODE(flags) mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define OPEN(name) int name(const char *path, int flags, ...) { \
    MODE(flags) \
    if (WRITES(flags) && refused(path)) return -1; \
    int (*real)(const char *, int, ...) = REAL(#name); \
    return real(led(path), flags, mode); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) int name(int at, const char *path, int flags, ...) { \
    MODE(flags) \
    if (WRITES(flags) && refused(path)) return -1; \
    int (*real)(int, const char *, int, ...) = REAL(#name); \
    return real(at, led(path), flags, mode); }
OPENAT(openat)
OPENAT(openat64)
int statx(int at, const char *restrict path, int flags, unsigned mask, struct statx *restrict out) {
    int (*real)(int, const char *, int, unsigned, struct statx *) = REAL("statx");
    return real(at, led(path), flags, mask, out);
}
int mkdir(const char *path, mode_t mode) {
    int (*real)(const char *, mode_t) = REAL("mkdir");
    return refused(path) ? -1 : real(path, mode);
}
int unlink(const char *path) {
    int (*real)(const char *) = REAL("unlink");
    return refused(path) ? -1 : real(path);
}
int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = REAL("rename");
    return refused(from) || refused(to) ? -1 : real(from, to);
}
int symlink(const char *target, const char *path) {
    int (*real)(const char *, const char *) = REAL("symlink");
    return refused(path) ? -1 : real(target, path);
}
int flock(int fd, int operation) {
    if (getenv("SHIM_NO_LOCKS")) { errno = ENOSYS; return -1; }
    int (*real)(int, int) = REAL("flock");
    return real(fd, operation);
}
int fsync(int fd) {
    struct stat found;
    if (getenv("SHIM_NO_LOCKS") && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) { errno = EINVAL; return -1; }
    int (*real)(int) = REAL("fsync");
    return real(fd);
}
"#;

/// Loads the library, which is made in `folder`, into what `run` starts.
pub fn load<'r>(run: &'r mut Run, folder: &Path) -> &'r mut Run {
    run.env("LD_PRELOAD", library(folder))
}

fn library(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    fs::write(&source, CODE).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    library
}
