//! Tells from its ELF file alone what a library is: a plain ONNX Runtime, or a Python extension that holds one inside.

use std::fs::File;
use std::path::Path;

use object::elf::{EM_AARCH64, EM_X86_64, Machine, PF_X, PT_LOAD, R_X86_64_RELATIVE};
use object::read::elf::{
    ElfFile64, FileHeader as _, ProgramHeader as _, Rela as _, SectionHeader as _,
};
use object::{Endianness, Object as _, ObjectSymbol as _, ReadCache, ReadRef};

use super::error::{LibraryError, Result, io};

/// The function through which a plain build hands out its API.
const API_GETTER: &str = "OrtGetApiBase";

/// What an ELF file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Exports `OrtGetApiBase`.
    Plain,
    /// Holds the API without exporting it.
    Extension(Extension),
}

/// Where a Python extension keeps the API, and what it asks of Python.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extension {
    /// The version string that `GetVersionString` returns.
    pub version: String,
    /// Address of the table {GetApi, GetVersionString}, before loading.
    pub api_base: u64,
    /// An exported symbol and its address before loading: after loading, the difference is the load address.
    pub anchor: (String, u64),
    /// The names that the extension expects a Python interpreter to define.
    pub python_symbols: Vec<String>,
}

/// The reader's own messages, to which [`analyse`] adds the path.
type Outcome<T> = std::result::Result<T, String>;

type Elf<'data> = ElfFile64<'data, Endianness, &'data ReadCache<File>>;

/// Reads `path` and says which kind of ONNX Runtime it holds.
///
/// # Errors
/// The file is unreadable, no ELF library, for another processor, or holds no ONNX Runtime.
pub(super) fn analyse(path: &Path) -> Result<Kind> {
    let file = File::open(path).map_err(io("open", path))?;
    let cache = ReadCache::new(file);
    let malformed = |reason: &dyn std::fmt::Display| LibraryError::NotALibrary {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let elf: Elf = ElfFile64::parse(&cache).map_err(|error| malformed(&error))?;
    check_architecture(path, elf.elf_header().e_machine(elf.endian()))?;
    check_length(&elf, &cache).map_err(|reason| malformed(&reason))?;

    let exports = |name: &str| {
        elf.dynamic_symbols()
            .any(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
    };
    if exports(API_GETTER) {
        return Ok(Kind::Plain);
    }
    match find_extension(&elf).map_err(|error| malformed(&error))? {
        Some(extension) => Ok(Kind::Extension(extension)),
        None => Err(LibraryError::NotOnnxRuntime {
            path: path.to_owned(),
        }),
    }
}

fn check_architecture(path: &Path, machine: Machine) -> Result<()> {
    let needed = std::env::consts::ARCH;
    let expected = match needed {
        "x86_64" => EM_X86_64,
        "aarch64" => EM_AARCH64,
        // The system's loader decides on processors that ONNX Runtime publishes nothing for.
        _ => return Ok(()),
    };
    if machine == expected {
        return Ok(());
    }
    let found = match machine {
        EM_X86_64 => "x86_64".to_owned(),
        EM_AARCH64 => "aarch64".to_owned(),
        Machine(number) => format!("another processor (ELF machine {number})"),
    };
    Err(LibraryError::ForeignArchitecture {
        path: path.to_owned(),
        found,
        needed,
    })
}

/// A download cut short keeps its headers: every segment must lie inside the file.
fn check_length(elf: &Elf, cache: &ReadCache<File>) -> Outcome<()> {
    let length = ReadRef::len(cache).map_err(|()| "its length cannot be told".to_owned())?;
    let endian = elf.endian();
    for segment in elf.elf_program_headers() {
        let end = segment
            .p_offset(endian)
            .checked_add(segment.p_filesz(endian));
        if end.is_none_or(|end| end > length) {
            return Err(format!(
                "it ends after {length} bytes, in the middle of a segment"
            ));
        }
    }
    Ok(())
}

/// Looks for the one table {GetApi, GetVersionString} whose second function returns a version string.
fn find_extension(elf: &Elf) -> Outcome<Option<Extension>> {
    let Some(anchor) = elf
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.is_global() && symbol.address() != 0)
        .find_map(|symbol| Some((symbol.name().ok()?.to_owned(), symbol.address())))
    else {
        return Ok(None);
    };
    let python_symbols = elf
        .dynamic_symbols()
        .filter(|symbol| symbol.is_undefined())
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.starts_with("Py") || name.starts_with("_Py"))
        .map(str::to_owned)
        .collect();

    let segments = segments(elf)?;
    let versions: Vec<(u64, String)> = segments
        .iter()
        .filter(|segment| !segment.executable)
        .flat_map(|segment| version_strings(segment.address, segment.data))
        .collect();
    let getters: Vec<(u64, &str)> = segments
        .iter()
        .filter(|segment| segment.executable)
        .flat_map(|segment| address_getters(segment.address, segment.data))
        .filter_map(|(function, target)| {
            let (_, version) = versions.iter().find(|(address, _)| *address == target)?;
            Some((function, version.as_str()))
        })
        .collect();
    let in_code = |address: u64| {
        segments.iter().any(|segment| {
            segment.executable && address.wrapping_sub(segment.address) < segment.data.len() as u64
        })
    };

    // The table is constant data, so the loader fills it in: two neighbouring relative relocations.
    let relocations = relative_relocations(elf)?;
    let mut tables = relocations.iter().filter_map(|&(offset, function)| {
        let (_, version) = getters
            .iter()
            .find(|(getter, _)| *getter == function || getter.checked_sub(4) == Some(function))?;
        let api_base = offset.checked_sub(8)?;
        let get_api = relocations
            .binary_search_by_key(&api_base, |&(offset, _)| offset)
            .ok()?;
        in_code(relocations[get_api].1).then(|| (api_base, (*version).to_owned()))
    });
    let (Some((api_base, version)), None) = (tables.next(), tables.next()) else {
        return Ok(None);
    };
    Ok(Some(Extension {
        version,
        api_base,
        anchor,
        python_symbols,
    }))
}

struct Segment<'data> {
    address: u64,
    executable: bool,
    data: &'data [u8],
}

fn segments<'data>(elf: &Elf<'data>) -> Outcome<Vec<Segment<'data>>> {
    let endian = elf.endian();
    elf.elf_program_headers()
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .map(|segment| {
            let data = segment
                .data(endian, elf.data())
                .map_err(|()| "a segment lies outside the file".to_owned())?;
            Ok(Segment {
                address: segment.p_vaddr(endian),
                executable: segment.p_flags(endian).contains(PF_X),
                data,
            })
        })
        .collect()
}

/// Every "1.19.2" between two NULs, with its address.
fn version_strings(address: u64, data: &[u8]) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut start = 0;
    for (end, _) in data.iter().enumerate().filter(|&(_, &byte)| byte == 0) {
        let text = &data[start..end];
        if start > 0 && is_version(text) {
            found.push((
                address + start as u64,
                String::from_utf8_lossy(text).into_owned(),
            ));
        }
        start = end + 1;
    }
    found
}

fn is_version(text: &[u8]) -> bool {
    if !(5..=12).contains(&text.len()) {
        return false;
    }
    let mut parts = 0;
    for part in text.split(|&byte| byte == b'.') {
        if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
            return false;
        }
        parts += 1;
    }
    parts == 3
}

/// Every `lea rax, [rip+d]; ret` of x86-64 code: its address, and the address that it returns.
fn address_getters(address: u64, code: &[u8]) -> Vec<(u64, u64)> {
    const LENGTH: usize = 8;
    code.windows(LENGTH)
        .enumerate()
        .filter(|(_, window)| window.starts_with(&[0x48, 0x8d, 0x05]) && window[LENGTH - 1] == 0xc3)
        .map(|(position, window)| {
            let distance = i32::from_le_bytes([window[3], window[4], window[5], window[6]]);
            let function = address + position as u64;
            // The distance counts from the instruction after the seven bytes of `lea`.
            (
                function,
                function
                    .wrapping_add(7)
                    .wrapping_add_signed(distance.into()),
            )
        })
        .collect()
}

/// Offset and addend of every relative relocation, by offset.
fn relative_relocations(elf: &Elf) -> Outcome<Vec<(u64, u64)>> {
    let endian = elf.endian();
    let mut found = Vec::new();
    for section in elf.elf_section_table().iter() {
        let Some((relocations, _)) = section
            .rela(endian, elf.data())
            .map_err(|error| error.to_string())?
        else {
            continue;
        };
        for relocation in relocations {
            if relocation.r_type(endian, false) == R_X86_64_RELATIVE {
                let addend = relocation.r_addend(endian) as u64;
                found.push((relocation.r_offset(endian), addend));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::library::{InstallOptions, install};

    #[test]
    fn finds_the_api_inside_the_training_wheel() {
        let installed = install(None, &InstallOptions::for_user().unwrap()).unwrap();
        let Kind::Extension(extension) = analyse(&installed.library()).unwrap() else {
            panic!("the training wheel exports no API");
        };
        assert_eq!(extension.version, "1.19.2");
        assert_eq!(extension.api_base, 0x140_cdf0);
        assert_eq!(extension.python_symbols.len(), 163);
        assert!(
            extension
                .python_symbols
                .iter()
                .any(|name| name == "_Py_NoneStruct")
        );
    }

    #[test]
    fn knows_versions_from_other_texts() {
        for text in ["1.19.2", "1.2.3", "10.20.30"] {
            assert!(is_version(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "1.19",
            "1.19.",
            "1..2",
            "v1.19.2",
            "1.19.2-dev",
            "1.2.3.4",
        ] {
            assert!(!is_version(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn reads_the_address_out_of_the_instruction() {
        let mut code = vec![0x90; 4];
        // lea rax, [rip - 11]; ret: at address 0x1004, the next instruction is at 0x100b.
        code.extend([0x48, 0x8d, 0x05, 0xf5, 0xff, 0xff, 0xff, 0xc3]);
        assert_eq!(address_getters(0x1000, &code), [(0x1004, 0x1000)]);
    }
}
