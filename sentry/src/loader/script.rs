//! `#!` lines (fs/binfmt_script.c).

use abi::limits::BINPRM_BUF_SIZE;

use crate::{Errno, Result};

/// A script's first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Path of the interpreter.
    pub interpreter: Vec<u8>,
    /// The rest of the line, if there is one: a single argument, spaces and all.
    pub argument: Option<Vec<u8>>,
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Looks at the first 256 bytes of a file (or fewer, if it is shorter). `None` if it is no script; ENOEXEC for a line
/// without interpreter, or one so long that the interpreter's name may be cut.
pub fn parse_script(head: &[u8]) -> Result<Option<Script>> {
    let mut line = [0u8; BINPRM_BUF_SIZE];
    for (to, from) in line.iter_mut().zip(head) {
        *to = *from;
    }
    let Some(rest) = line.strip_prefix(b"#!") else { return Ok(None) };
    let skip_spaces = |text: &[u8]| text.iter().take_while(|b| is_space(b)).count();
    let rest = match rest.iter().position(|&b| b == b'\n') {
        Some(end) => rest.get(..end).unwrap_or_default(),
        None => {
            let name = rest.get(skip_spaces(rest)..).unwrap_or_default();
            if !name.iter().any(|b| is_space(b) || *b == 0) {
                return Err(Errno::ENOEXEC);
            }
            // The last byte is where Linux puts the terminating NUL.
            rest.get(..rest.len() - 1).unwrap_or_default()
        }
    };
    let trailing = rest.iter().rev().take_while(|b| is_space(b)).count();
    let rest = rest.get(skip_spaces(rest)..rest.len() - trailing).unwrap_or_default();
    let end = rest.iter().position(|b| is_space(b) || *b == 0).unwrap_or(rest.len());
    let (interpreter, rest) = rest.split_at_checked(end).unwrap_or_default();
    if interpreter.is_empty() && rest.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let argument = match rest.first() {
        None | Some(0) => None,
        Some(_) => {
            let text = rest.get(skip_spaces(rest)..).unwrap_or_default();
            let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
            Some(text.get(..end).unwrap_or_default().to_vec())
        }
    };
    Ok(Some(Script { interpreter: interpreter.to_vec(), argument }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(interpreter: &str, argument: Option<&str>) -> Result<Option<Script>> {
        let argument = argument.map(|a| a.as_bytes().to_vec());
        Ok(Some(Script { interpreter: interpreter.as_bytes().to_vec(), argument }))
    }

    #[test]
    fn lines_as_linux_reads_them() {
        let parse = |line: &str| parse_script(line.as_bytes());
        assert_eq!(parse("\x7fELF"), Ok(None));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("#"), Ok(None));
        assert_eq!(parse("#!/bin/sh\necho"), script("/bin/sh", None));
        assert_eq!(parse("#! \t/bin/sh \t\n"), script("/bin/sh", None));
        assert_eq!(parse("#!/bin/sh -e  -x \n"), script("/bin/sh", Some("-e  -x")));
        assert_eq!(parse("#!/usr/bin/env\tpython3\n"), script("/usr/bin/env", Some("python3")));
        assert_eq!(parse("#!/bin/sh"), script("/bin/sh", None), "a file that ends there");
        assert_eq!(parse("#!/bin/sh -e"), script("/bin/sh", Some("-e")));
        assert_eq!(parse("#!/bin/sh\0-e\n"), script("/bin/sh", None));
        assert_eq!(parse("#!/bin/sh a\0b\n"), script("/bin/sh", Some("a")));
        assert_eq!(parse("#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse("#!   \n/bin/sh"), Err(Errno::ENOEXEC));
        assert_eq!(parse("#!\r\n"), script("\r", None));
        // Longer than what is read.
        let name = "/".repeat(300);
        assert_eq!(parse(&format!("#!{name}\n")), Err(Errno::ENOEXEC));
        assert_eq!(parse(&format!("#!{}", " ".repeat(300))), Err(Errno::ENOEXEC));
        let long = format!("#!/bin/sh {}", "a".repeat(300));
        assert_eq!(parse(&long), script("/bin/sh", Some(&"a".repeat(256 - 10 - 1))));
    }
}
