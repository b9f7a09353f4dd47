//! Writes a shared object that defines the names which a Python extension expects of its interpreter.
//!
//! A training wheel's extension is linked so that the loader wants every such name at once, though
//! ONNX Runtime's C API uses none of them. Zeroed data under those names is enough, and as nothing in
//! the object is code, no compiler is needed to make it.

use object::Endianness;
use object::elf::{
    self, DT_HASH, DT_NULL, DT_SONAME, DT_STRSZ, DT_STRTAB, DT_SYMENT, DT_SYMTAB, EM_X86_64,
    ET_DYN, PF_R, PF_W, PT_DYNAMIC, PT_GNU_STACK, PT_LOAD, SHF_ALLOC, SHF_WRITE, SHT_NOBITS,
    STB_GLOBAL, STT_OBJECT,
};
use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, Sym, Writer};

const SONAME: &[u8] = b"libmpnet-python-symbols.so";
/// Bytes behind each name: more than any of Python's type objects has.
const SYMBOL_SIZE: u64 = 512;
const PAGE: u64 = 0x1000;
/// Program headers: one for everything, one for the dynamic table, one to ask for no executable stack.
const SEGMENTS: u32 = 3;
/// Entries of the dynamic table, the closing one included.
const DYNAMIC_ENTRIES: usize = 7;

/// The bytes of an x86-64 ELF shared object that defines each of `names` as 512 zeroed bytes.
///
/// # Errors
/// The names do not fit in an ELF file.
pub(super) fn shared_object(names: &[String]) -> object::write::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);

    let soname = writer.add_dynamic_string(SONAME);
    let strings: Vec<_> = names
        .iter()
        .map(|name| writer.add_dynamic_string(name.as_bytes()))
        .collect();

    writer.reserve_file_header();
    writer.reserve_program_headers(SEGMENTS);
    writer.reserve_null_dynamic_symbol_index();
    for _ in names {
        writer.reserve_dynamic_symbol_index();
    }
    let dynsym = writer.reserve_dynsym();
    let buckets = u32::try_from(names.len()).unwrap_or(u32::MAX).max(1);
    let symbols = writer.dynamic_symbol_count();
    let hash = writer.reserve_hash(buckets, symbols);
    let dynstr = writer.reserve_dynstr()?;
    let dynamic = writer.reserve_dynamic(DYNAMIC_ENTRIES);
    let end = writer.reserved_len();
    let bss_name = writer.add_section_name(b".bss");
    writer.reserve_dynsym_section_index();
    writer.reserve_hash_section_index();
    writer.reserve_dynstr_section_index();
    writer.reserve_dynamic_section_index();
    let bss = writer.reserve_section_index();
    writer.reserve_shstrtab_section_index();
    writer.reserve_shstrtab()?;
    writer.reserve_section_headers();
    // Addresses equal file offsets; the symbols' zeroed bytes follow the end of the file in memory.
    let data = end.next_multiple_of(64);

    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: ET_DYN,
        e_machine: EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_align_program_headers();
    let segment = ProgramHeader {
        p_type: PT_LOAD,
        p_flags: PF_R | PF_W,
        p_offset: 0,
        p_vaddr: 0,
        p_paddr: 0,
        p_filesz: end,
        p_memsz: data + SYMBOL_SIZE * names.len() as u64,
        p_align: PAGE,
    };
    writer.write_program_header(&segment);
    writer.write_program_header(&ProgramHeader {
        p_type: PT_DYNAMIC,
        p_offset: dynamic,
        p_vaddr: dynamic,
        p_paddr: dynamic,
        p_filesz: end - dynamic,
        p_memsz: end - dynamic,
        p_align: 8,
        ..segment
    });
    writer.write_program_header(&ProgramHeader {
        p_type: PT_GNU_STACK,
        p_filesz: 0,
        p_memsz: 0,
        p_align: 16,
        ..segment
    });

    writer.write_null_dynamic_symbol();
    for (index, string) in strings.iter().enumerate() {
        let st_name = writer.dynamic_string_offset(Some(*string));
        writer.write_dynamic_symbol(&Sym {
            section: Some(bss.0),
            st_name,
            st_info: elf::SymbolInfo::new(STB_GLOBAL, STT_OBJECT),
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SHN_UNDEF,
            st_value: data + SYMBOL_SIZE * index as u64,
            st_size: SYMBOL_SIZE,
        });
    }
    writer.write_hash(buckets, symbols, |index| {
        let name = names.get(index.checked_sub(1)? as usize)?;
        Some(elf::hash(name.as_bytes()))
    });
    writer.write_dynstr();
    let strings_length = writer.dynstr_len();
    writer.write_align_dynamic();
    writer.write_dynamic_string(DT_SONAME, soname)?;
    writer.write_dynamic(DT_HASH, hash)?;
    writer.write_dynamic(DT_SYMTAB, dynsym)?;
    writer.write_dynamic(DT_SYMENT, 24)?;
    writer.write_dynamic(DT_STRTAB, dynstr)?;
    writer.write_dynamic(DT_STRSZ, strings_length.into())?;
    writer.write_dynamic(DT_NULL, 0)?;

    writer.write_shstrtab();
    writer.write_null_section_header();
    writer.write_dynsym_section_header(dynsym, 1);
    writer.write_hash_section_header(hash);
    writer.write_dynstr_section_header(dynstr);
    writer.write_dynamic_section_header(dynamic);
    let sh_name = writer.section_name_offset(Some(bss_name));
    writer.write_section_header(&SectionHeader {
        sh_name,
        sh_type: SHT_NOBITS,
        sh_flags: SHF_ALLOC | SHF_WRITE,
        sh_addr: data,
        sh_offset: end,
        sh_size: SYMBOL_SIZE * names.len() as u64,
        sh_addralign: 64,
        ..SectionHeader::default()
    });
    writer.write_shstrtab_section_header();
    Ok(bytes)
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use super::*;
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

    #[test]
    fn the_system_loads_it_and_finds_zeroed_data_under_every_name() {
        let names: Vec<String> = (0..300).map(|number| format!("PyTest_{number}")).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), shared_object(&names).unwrap()).unwrap();
        // SAFETY: the object holds data only.
        let library = unsafe { Library::open(Some(file.path()), RTLD_NOW | RTLD_LOCAL) }.unwrap();
        let mut addresses = Vec::new();
        for name in &names {
            // SAFETY: the symbol is the address of data.
            let address = unsafe { library.get::<*const u8>(name.as_bytes()) }
                .unwrap()
                .into_raw()
                .cast::<u8>();
            // SAFETY: SYMBOL_SIZE bytes of data lie there.
            let data = unsafe { std::slice::from_raw_parts(address, SYMBOL_SIZE as usize) };
            assert!(data.iter().all(|&byte| byte == 0), "{name}");
            addresses.push(address as u64);
        }
        assert!(
            addresses.is_sorted_by(|a, b| b - a == SYMBOL_SIZE),
            "symbols overlap or leave gaps"
        );
        // SAFETY: an absent name is only looked up.
        assert!(unsafe { library.get::<*const u8>(b"PyTest_300") }.is_err());
    }
}
