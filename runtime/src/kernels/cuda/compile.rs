//! CUDA C++ to machine code by NVRTC, kept on disk by what it was made from.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};
use sha2::{Digest as _, Sha256};

use super::WITHOUT_KERNELS;
use crate::digest::sha256;
use crate::library;

/// Machine code for a GPU of compute capability `major`.`minor`, with macros defined as `definitions` say.
///
/// # Errors
/// NVRTC is not there, or refuses the source.
pub(super) fn machine_code(
    source: &str,
    definitions: &[(&str, usize)],
    (major, minor): (i32, i32),
    driver: i32,
) -> Result<Vec<u8>, String> {
    // What one architecture alone has, as the products of whole warpgroups of 9.0, is asked for by an "a".
    let alone = if (major, minor) == HOPPER && knows_hopper() {
        "a"
    } else {
        ""
    };
    let mut options = vec![
        format!("--gpu-architecture=sm_{major}{minor}{alone}"),
        "--std=c++17".to_owned(),
    ];
    options.extend(
        definitions
            .iter()
            .map(|(name, value)| format!("-D{name}={value}")),
    );
    let driver = driver.to_string();
    let parts = options.iter().map(String::as_str).chain([source, &driver]);
    // No part holds the byte that separates them.
    let name = sha256(parts.collect::<Vec<_>>().join("\0"));
    // Without a folder to keep it in, it is compiled every time.
    let kept = library::kernel_folder()
        .ok()
        .map(|folder| folder.join(format!("{name}.cubin")));
    if let Some(code) = kept.as_deref().and_then(read_kept) {
        return Ok(code);
    }
    let code = compile(source, &options)?;
    /// Whether it was said that kernels are compiled anew each time.
    static SAID: AtomicBool = AtomicBool::new(false);
    if let Some(path) = kept
        && let Err(error) = keep(&path, &code)
        && !SAID.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(path = %path.display(), %error, "compiled kernels cannot be kept");
    }
    Ok(code)
}

/// The compute capability of H100 and H200.
pub(super) const HOPPER: (i32, i32) = (9, 0);

/// Whether NVRTC compiles what that capability alone has: CUDA 12 does too, but was not tried.
pub(super) fn knows_hopper() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: loading NVIDIA's library does no more than set it up; the version is written to live variables.
        unsafe {
            sys::is_culib_present()
                && sys::nvrtcVersion(&mut major, &mut minor) == nvrtcResult::NVRTC_SUCCESS
                && major >= 13
        }
    })
}

/// Length of the SHA-256 that follows the machine code in its file.
const SUM: usize = 32;

/// The machine code in a file that [`keep`] wrote; none where the file is missing, cut off or changed.
fn read_kept(path: &Path) -> Option<Vec<u8>> {
    let mut code = fs::read(path).ok()?;
    let sum = code.split_off(code.len().checked_sub(SUM)?);
    (Sha256::digest(&code)[..] == sum[..]).then_some(code)
}

/// Writes machine code and its hash to `path`, so that a file of that name is whole and on the disk.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&folder)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(code)?;
    file.write_all(&Sha256::digest(code))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn no_nvrtc() -> String {
    format!(
        "NVRTC, which compiles the GPU kernels, is not found: `pip install nvidia-cuda-nvrtc` brings it; \
         {WITHOUT_KERNELS} does without"
    )
}

/// A program of NVRTC, released in the end.
struct Program(nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is destroyed once.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
    // SAFETY: loading NVIDIA's library does no more than set it up.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_nvrtc());
    }
    let failed = |doing: &str, result: nvrtcResult| format!("NVRTC cannot {doing}: {result:?}");
    let text = CString::new(source).map_err(|e| e.to_string())?;
    let options: Vec<CString> = options
        .iter()
        .map(|option| CString::new(option.as_str()))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let arguments: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program = ptr::null_mut();
    // SAFETY: all strings are live and end in NUL, there are no headers.
    let created = unsafe {
        sys::nvrtcCreateProgram(
            &mut program,
            text.as_ptr(),
            c"kernels.cu".as_ptr(),
            0,
            ptr::null(),
            ptr::null(),
        )
    };
    if created != nvrtcResult::NVRTC_SUCCESS {
        return Err(failed("take the kernels' source", created));
    }
    let program = Program(program);
    // SAFETY: the program is live, the arguments are as many strings as said.
    let compiled =
        unsafe { sys::nvrtcCompileProgram(program.0, arguments.len() as i32, arguments.as_ptr()) };
    if compiled != nvrtcResult::NVRTC_SUCCESS {
        return Err(format!(
            "{}\n{}",
            failed("compile the kernels", compiled),
            log(&program)
        ));
    }
    let mut size = 0;
    // SAFETY: the program is live and compiled.
    let sized = unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) };
    let mut code = vec![0u8; size];
    // SAFETY: the buffer has the size that was asked for.
    let copied = unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) };
    match (sized, copied) {
        (nvrtcResult::NVRTC_SUCCESS, nvrtcResult::NVRTC_SUCCESS) => Ok(code),
        _ => Err(failed("hand over the kernels", copied)),
    }
}

/// What the compiler had to say.
fn log(program: &Program) -> String {
    let mut size = 0;
    // SAFETY: the program is live; the buffer has the size that was told, and ends in NUL.
    unsafe {
        if sys::nvrtcGetProgramLogSize(program.0, &mut size) != nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        let mut text = vec![0u8; size + 1];
        sys::nvrtcGetProgramLog(program.0, text.as_mut_ptr().cast());
        CStr::from_bytes_until_nul(&text)
            .map(|t| t.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_code_that_is_cut_off_or_changed_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/code.cubin");
        let code = b"\x7fELF and what follows it".repeat(5);
        keep(&path, &code).unwrap();
        assert_eq!(read_kept(&path), Some(code));
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read_kept(&path), None, "{length} bytes");
        }
        let mut changed = whole;
        changed[20] ^= 1;
        fs::write(&path, changed).unwrap();
        assert_eq!(read_kept(&path), None);
    }

    #[test]
    fn the_way_out_without_nvrtc_starts_no_kernel_of_ours() {
        let advice = no_nvrtc();
        for flag in ["--attention expanded", "--no-own-kernels"] {
            assert!(advice.contains(flag), "{advice}");
        }
    }
}
