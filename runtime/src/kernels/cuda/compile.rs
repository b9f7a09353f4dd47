//! CUDA C++ to machine code by NVRTC, kept on disk by what it was made from.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};
use sha2::{Digest as _, Sha256};

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
    let mut options = vec![
        format!("--gpu-architecture=sm_{major}{minor}"),
        "--std=c++17".to_owned(),
    ];
    options.extend(
        definitions
            .iter()
            .map(|(name, value)| format!("-D{name}={value}")),
    );
    let mut digest = Sha256::new();
    for part in options
        .iter()
        .map(String::as_str)
        .chain([source, &driver.to_string()])
    {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let name: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // Without a folder to keep it in, it is compiled every time.
    let kept = library::kernel_folder()
        .ok()
        .map(|folder| folder.join(format!("{name}.cubin")));
    if let Some(code) = kept
        .as_deref()
        .and_then(|path| fs::read(path).ok())
        .filter(|code| is_elf(code))
    {
        return Ok(code);
    }
    let code = compile(source, &options)?;
    if let Some(path) = kept
        && let Err(error) = keep(&path, &code)
    {
        tracing::warn!(path = %path.display(), %error, "compiled kernels cannot be kept");
    }
    Ok(code)
}

/// Cut-off files are made anew.
fn is_elf(code: &[u8]) -> bool {
    code.starts_with(b"\x7fELF")
}

fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&folder)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(code)?;
    file.persist(path)?;
    Ok(())
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
        return Err(
            "NVRTC, which compiles the GPU kernels, is not found: `pip install nvidia-cuda-nvrtc` brings it; \
             `--attention expanded` does without"
                .to_owned(),
        );
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
