//! Executables and core dumps (`elf.h`, `auxvec.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use crate::ptrace::UserRegs;
use crate::time::Timeval;

layout! {
    /// `Elf64_Ehdr`.
    struct Elf64Ehdr[64] {
        e_ident: [u8; 16], e_type: u16, e_machine: u16, e_version: u32, e_entry: u64, e_phoff: u64, e_shoff: u64,
        e_flags: u32, e_ehsize: u16, e_phentsize: u16, e_phnum: u16, e_shentsize: u16, e_shnum: u16, e_shstrndx: u16,
    }

    /// `Elf64_Phdr`.
    struct Elf64Phdr[56] {
        p_type: u32, p_flags: u32, p_offset: u64, p_vaddr: u64, p_paddr: u64, p_filesz: u64, p_memsz: u64,
        p_align: u64,
    }

    /// `Elf64_Shdr`.
    struct Elf64Shdr[64] {
        sh_name: u32, sh_type: u32, sh_flags: u64, sh_addr: u64, sh_offset: u64, sh_size: u64, sh_link: u32,
        sh_info: u32, sh_addralign: u64, sh_entsize: u64,
    }

    /// `Elf64_Sym`.
    struct Elf64Sym[24] { st_name: u32, st_info: u8, st_other: u8, st_shndx: u16, st_value: u64, st_size: u64 }

    /// `Elf64_Dyn`.
    struct Elf64Dyn[16] { d_tag: i64, d_val: u64 }

    /// `Elf64_Rela`.
    struct Elf64Rela[24] { r_offset: u64, r_info: u64, r_addend: i64 }

    /// `Elf64_Nhdr`.
    struct Elf64Nhdr[12] { n_namesz: u32, n_descsz: u32, n_type: u32 }

    /// `struct elf_prstatus`, the note NT_PRSTATUS of each thread in a core dump.
    struct ElfPrstatus[336] {
        si_signo: i32, si_code: i32, si_errno: i32, pr_cursig: i16, _pad0: u16, pr_sigpend: u64,
        pr_sighold: u64, pr_pid: i32, pr_ppid: i32, pr_pgrp: i32, pr_sid: i32, pr_utime: Timeval,
        pr_stime: Timeval, pr_cutime: Timeval, pr_cstime: Timeval, pr_reg: UserRegs, pr_fpvalid: i32,
        _pad1: u32,
    }

    /// `struct elf_prpsinfo`, the note NT_PRPSINFO of a core dump.
    struct ElfPrpsinfo[136] {
        pr_state: u8, pr_sname: u8, pr_zomb: u8, pr_nice: i8, _pad: u32, pr_flag: u64, pr_uid: u32,
        pr_gid: u32, pr_pid: i32, pr_ppid: i32, pr_pgrp: i32, pr_sid: i32, pr_fname: [u8; 16],
        pr_psargs: [u8; 80],
    }
}

pub const ELFMAG: [u8; 4] = *b"\x7fELF";
pub const EI_CLASS: usize = 4;
pub const EI_DATA: usize = 5;
pub const EI_VERSION: usize = 6;
pub const EI_OSABI: usize = 7;
pub const ELFCLASS32: u8 = 1;
pub const ELFCLASS64: u8 = 2;
pub const ELFDATA2LSB: u8 = 1;
pub const EV_CURRENT: u8 = 1;
pub const ELFOSABI_NONE: u8 = 0;
pub const ELFOSABI_LINUX: u8 = 3;
pub const ET_REL: u16 = 1;
pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;
pub const ET_CORE: u16 = 4;
pub const EM_386: u16 = 3;
pub const EM_X86_64: u16 = 62;
pub const EM_AARCH64: u16 = 183;
pub const PT_NULL: u32 = 0;
pub const PT_LOAD: u32 = 1;
pub const PT_DYNAMIC: u32 = 2;
pub const PT_INTERP: u32 = 3;
pub const PT_NOTE: u32 = 4;
pub const PT_SHLIB: u32 = 5;
pub const PT_PHDR: u32 = 6;
pub const PT_TLS: u32 = 7;
pub const PT_GNU_EH_FRAME: u32 = 0x6474e550;
pub const PT_GNU_STACK: u32 = 0x6474e551;
pub const PT_GNU_RELRO: u32 = 0x6474e552;
pub const PT_GNU_PROPERTY: u32 = 0x6474e553;
pub const PF_X: u32 = 1;
pub const PF_W: u32 = 2;
pub const PF_R: u32 = 4;
pub const PN_XNUM: u16 = 65535;
pub const SHT_NULL: u32 = 0;
pub const SHT_PROGBITS: u32 = 1;
pub const SHT_SYMTAB: u32 = 2;
pub const SHT_STRTAB: u32 = 3;
pub const SHT_RELA: u32 = 4;
pub const SHT_HASH: u32 = 5;
pub const SHT_DYNAMIC: u32 = 6;
pub const SHT_NOTE: u32 = 7;
pub const SHT_NOBITS: u32 = 8;
pub const SHT_DYNSYM: u32 = 11;
pub const SHT_GNU_VERDEF: u32 = 0x6ffffffd;
pub const SHT_GNU_VERSYM: u32 = 0x6fffffff;
pub const DT_NULL: i64 = 0;
pub const DT_HASH: i64 = 4;
pub const DT_STRTAB: i64 = 5;
pub const DT_SYMTAB: i64 = 6;
pub const DT_STRSZ: i64 = 10;
pub const DT_SYMENT: i64 = 11;
pub const DT_SONAME: i64 = 14;
pub const DT_GNU_HASH: i64 = 0x6ffffef5;
pub const DT_VERSYM: i64 = 0x6ffffff0;
pub const DT_VERDEF: i64 = 1879048188;
pub const DT_VERDEFNUM: i64 = 1879048189;
pub const NT_PRSTATUS: u32 = 1;
pub const NT_PRFPREG: u32 = 2;
pub const NT_PRPSINFO: u32 = 3;
pub const NT_TASKSTRUCT: u32 = 4;
pub const NT_AUXV: u32 = 6;
pub const NT_SIGINFO: u32 = 0x53494749;
pub const NT_FILE: u32 = 0x46494c45;
pub const NT_PRXFPREG: u32 = 0x46e62b7f;
pub const NT_X86_XSTATE: u32 = 0x202;
pub const NT_GNU_PROPERTY_TYPE_0: u32 = 5;

// Entries of the auxiliary vector.
pub const AT_NULL: u64 = 0;
pub const AT_IGNORE: u64 = 1;
pub const AT_EXECFD: u64 = 2;
pub const AT_PHDR: u64 = 3;
pub const AT_PHENT: u64 = 4;
pub const AT_PHNUM: u64 = 5;
pub const AT_PAGESZ: u64 = 6;
pub const AT_BASE: u64 = 7;
pub const AT_FLAGS: u64 = 8;
pub const AT_ENTRY: u64 = 9;
pub const AT_NOTELF: u64 = 10;
pub const AT_UID: u64 = 11;
pub const AT_EUID: u64 = 12;
pub const AT_GID: u64 = 13;
pub const AT_EGID: u64 = 14;
pub const AT_PLATFORM: u64 = 15;
pub const AT_HWCAP: u64 = 16;
pub const AT_CLKTCK: u64 = 17;
pub const AT_SECURE: u64 = 23;
pub const AT_BASE_PLATFORM: u64 = 24;
pub const AT_RANDOM: u64 = 25;
pub const AT_HWCAP2: u64 = 26;
pub const AT_RSEQ_FEATURE_SIZE: u64 = 27;
pub const AT_RSEQ_ALIGN: u64 = 28;
pub const AT_HWCAP3: u64 = 29;
pub const AT_HWCAP4: u64 = 30;
pub const AT_EXECFN: u64 = 31;
pub const AT_SYSINFO_EHDR: u64 = 33;
pub const AT_MINSIGSTKSZ: u64 = 51;

// Bits of `AT_HWCAP2`.
pub const HWCAP2_RING3MWAIT: u64 = 1;
pub const HWCAP2_FSGSBASE: u64 = 2;
