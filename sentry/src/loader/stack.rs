//! The initial stack: arguments, environment and auxiliary vector (fs/exec.c, create_elf_tables in fs/binfmt_elf.c).

use abi::limits::{ARG_MAX, MAX_ARG_STRLEN};
use zerocopy::IntoBytes;

use crate::{Errno, Result};

/// The default stack limit (`_STK_LIM`), three quarters of which arguments may take at most.
const STACK_DEFAULT: u64 = 8 << 20;

/// AT_PLATFORM.
const PLATFORM: &[u8] = b"x86_64\0";

/// E2BIG if arguments, environment and name take more than a quarter of the stack (but at least 128 KiB, at most
/// 6 MiB), or one string more than 128 KiB with its NUL.
pub fn check_arguments(filename: &[u8], argv: &[Vec<u8>], envp: &[Vec<u8>], stack_limit: u64) -> Result<()> {
    let limit = (STACK_DEFAULT / 4 * 3).min(stack_limit / 4).max(ARG_MAX as u64);
    let pointers = (argv.len().max(1) + envp.len()) as u64 * 8;
    let mut left = limit.checked_sub(pointers).filter(|&left| left > 0).ok_or(Errno::E2BIG)?;
    for string in argv.iter().chain(envp).map(Vec::as_slice).chain([filename]) {
        let len = string.len() + 1;
        if len > MAX_ARG_STRLEN {
            return Err(Errno::E2BIG);
        }
        left = left.checked_sub(len as u64).ok_or(Errno::E2BIG)?;
    }
    Ok(())
}

/// What goes on the stack.
pub struct Parts<'a> {
    /// One past the last byte of the stack, a multiple of 16.
    pub top: u64,
    /// AT_EXECFN.
    pub filename: &'a [u8],
    /// Arguments.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
    /// AT_RANDOM.
    pub random: [u8; 16],
    /// Bytes by which the pointers are moved down, less than 8192.
    pub shift: u64,
    /// The auxiliary vector. The addresses of AT_RANDOM, AT_EXECFN and AT_PLATFORM are filled in here.
    pub auxv: Vec<(u64, u64)>,
}

/// The contents of the stack, from the stack pointer to the top.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Linux's mm_struct")]
pub struct Image {
    pub bytes: Vec<u8>,
    pub stack_pointer: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// The auxiliary vector as written.
    pub auxv: Vec<u8>,
}

/// Lays the stack out as Linux does, from the top: 8 zero bytes, name, environment, arguments; the platform's name and
/// the random bytes; the auxiliary vector and the pointers, so that the stack pointer is a multiple of 16. The sizes
/// have been checked ([`check_arguments`]).
pub fn build(parts: Parts<'_>) -> Image {
    let size = |strings: &[Vec<u8>]| strings.iter().map(|s| s.len() as u64 + 1).sum::<u64>();
    let execfn = parts.top - 8 - (parts.filename.len() as u64 + 1);
    let env_start = execfn - size(parts.envp);
    let arg_start = env_start - size(parts.argv);
    let platform = ((arg_start - parts.shift) & !15) - PLATFORM.len() as u64;
    let random = platform - parts.random.len() as u64;
    let mut auxv = parts.auxv;
    for (kind, value) in &mut auxv {
        match *kind {
            abi::elf::AT_RANDOM => *value = random,
            abi::elf::AT_EXECFN => *value = execfn,
            abi::elf::AT_PLATFORM => *value = platform,
            _ => {}
        }
    }
    auxv.push((abi::elf::AT_NULL, 0));
    let words = auxv.len() * 2 + parts.argv.len() + 1 + parts.envp.len() + 1 + 1;
    let stack_pointer = (random - words as u64 * 8) & !15;

    let mut bytes = Vec::with_capacity((parts.top - stack_pointer) as usize);
    let mut word = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    word(parts.argv.len() as u64);
    let mut string_at = arg_start;
    for strings in [parts.argv, parts.envp] {
        for string in strings {
            word(string_at);
            string_at += string.len() as u64 + 1;
        }
        word(0);
    }
    for &(kind, value) in &auxv {
        word(kind);
        word(value);
    }
    let mut put = |addr: u64, content: &[u8]| {
        bytes.resize((addr - stack_pointer) as usize, 0);
        bytes.extend_from_slice(content);
    };
    put(random, &parts.random);
    put(platform, PLATFORM);
    put(arg_start, &[]);
    for string in parts.argv.iter().chain(parts.envp).map(Vec::as_slice).chain([parts.filename]) {
        bytes.extend_from_slice(string);
        bytes.push(0);
    }
    bytes.extend_from_slice(&[0; 8]);
    let auxv: Vec<u64> = auxv.iter().flat_map(|&(kind, value)| [kind, value]).collect();
    let auxv = auxv.as_bytes().to_vec();
    Image { bytes, stack_pointer, arg_start, arg_end: env_start, env_start, env_end: execfn, auxv }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|s| s.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_order_is_linuxs() {
        let (argv, envp) = (strings(&["prog", "arg"]), strings(&["A=1"]));
        let top = 0x7fff_0000;
        let auxv = vec![(abi::elf::AT_PAGESZ, 4096), (abi::elf::AT_RANDOM, 0), (abi::elf::AT_EXECFN, 0)];
        for shift in [0, 1, 8191] {
            let image = build(Parts {
                top,
                filename: b"/bin/prog",
                argv: &argv,
                envp: &envp,
                random: [7; 16],
                shift,
                auxv: auxv.clone(),
            });
            assert_eq!(image.stack_pointer % 16, 0);
            assert_eq!(image.stack_pointer + image.bytes.len() as u64, top);
            assert!(image.bytes.ends_with(b"prog\0arg\0A=1\0/bin/prog\0\0\0\0\0\0\0\0\0"));
            let at = |addr: u64| &image.bytes[(addr - image.stack_pointer) as usize..];
            let words: Vec<u64> = image.bytes[..14 * 8]
                .chunks_exact(8)
                .map(|b| u64::from_le_bytes(b.try_into().unwrap()))
                .collect();
            assert_eq!(words[0], 2);
            assert!(at(words[1]).starts_with(b"prog\0"));
            assert!(at(words[2]).starts_with(b"arg\0"));
            assert_eq!(words[3], 0);
            assert!(at(words[4]).starts_with(b"A=1\0"));
            assert_eq!(words[5..8], [0, abi::elf::AT_PAGESZ, 4096]);
            assert_eq!(words[8], abi::elf::AT_RANDOM);
            assert!(at(words[9]).starts_with(&[7; 16]));
            assert!(at(words[9] + 16).starts_with(b"x86_64\0"));
            assert_eq!(words[10], abi::elf::AT_EXECFN);
            assert!(at(words[11]).starts_with(b"/bin/prog\0"));
            assert_eq!(words[12..14], [0, 0]);
            assert_eq!((words[1], words[4]), (image.arg_start, image.env_start));
            assert_eq!(image.arg_end, image.env_start);
            assert_eq!(image.auxv.len(), 4 * 16);
        }
    }

    #[test]
    fn arguments_are_limited() {
        let check = |argv: &[Vec<u8>], limit| check_arguments(b"x", argv, &[], limit);
        let long = |len: usize| vec![vec![b'a'; len]];
        assert_eq!(check(&long(MAX_ARG_STRLEN - 1), 8 << 20), Ok(()));
        assert_eq!(check(&long(MAX_ARG_STRLEN), 8 << 20), Err(Errno::E2BIG));
        let many = vec![vec![b'a'; 999]; 2000];
        assert_eq!(check(&many, 8 << 20), Ok(()));
        assert_eq!(check(&many, 4 << 20), Err(Errno::E2BIG));
        assert_eq!(check(&vec![vec![b'a'; 99]; 1000], 0), Ok(()), "128 KiB whatever the limit");
        assert_eq!(check(&vec![vec![b'a'; 999]; 7000], u64::MAX), Err(Errno::E2BIG), "6 MiB at most");
        assert_eq!(check(&vec![vec![]; 1 << 20], u64::MAX), Err(Errno::E2BIG), "pointers count");
    }
}
