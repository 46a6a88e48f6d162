//! Real programs in a Debian root: each script of `programs/scripts` runs natively in a chroot and in a container on each
//! platform, and must print the same and end with the same code.
//!
//! The first lines of a script may say, as comments, what it needs (`# root: full`, `# root: more`; otherwise `minimal`) and that it
//! is to run once for each of several arguments (`# each: a b c`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::chroot::{self, Run};
use crate::guest::crate_dir;
use crate::target::Target;

/// A script with its argument.
#[derive(Clone, Debug)]
pub struct Program {
    /// The script's name without extension, and `:ARGUMENT` if it has one.
    pub name: String,
    /// The variant of the root file system (`minimal`, `full` or `more`).
    pub root: String,
    /// The file below `programs/scripts`.
    script: String,
    argument: Option<String>,
}

fn scripts() -> PathBuf {
    crate_dir().join("programs/scripts")
}

/// All programs, in the order of their names.
pub fn list() -> Result<Vec<Program>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(scripts())?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".sh") else { continue };
        let text = fs::read_to_string(entry.path())?;
        let header = |key: &str| {
            text.lines().take_while(|line| line.starts_with('#')).find_map(|line| line.strip_prefix(key))
        };
        let root = header("# root:").unwrap_or("minimal").trim().to_string();
        let program = |argument: Option<&str>| Program {
            name: argument.map_or(stem.to_string(), |argument| format!("{stem}:{argument}")),
            root: root.clone(),
            script: file.clone(),
            argument: argument.map(str::to_string),
        };
        match header("# each:") {
            Some(arguments) => list.extend(arguments.split_whitespace().map(|name| program(Some(name)))),
            None => list.push(program(None)),
        }
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Makes (or finds) a root file system; `None`, with the reason printed, if this machine cannot.
pub fn root(variant: &str) -> Result<Option<PathBuf>> {
    let output =
        Command::new(crate_dir().join("rootfs/make")).arg(variant).output().context("rootfs/make")?;
    match output.status.code() {
        Some(0) => Ok(Some(PathBuf::from(String::from_utf8(output.stdout)?.trim()))),
        Some(77) => {
            println!("programs: no {variant} root: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(None)
        }
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

impl Program {
    fn guest_command(&self) -> Vec<String> {
        let script = format!("/programs/{}", self.script);
        ["bash", &script].into_iter().map(str::to_string).chain(self.argument.clone()).collect()
    }

    /// Runs it in a copy of the root (writes are thrown away), at most `limit` long.
    pub fn run(&self, root: &Path, target: &Target, limit: Duration) -> Result<Run> {
        chroot::run(root, &scripts(), &self.guest_command(), target, limit)
    }
}

/// The lines by which two runs differ, as `-native` and `+sandbox`.
///
/// Where lines are unique (a table of outcomes) they are compared as a set, so that one missing line is one difference.
pub fn differences(native: &Run, other: &Run) -> Vec<String> {
    let mut list = Vec::new();
    let (left, right): (Vec<&str>, Vec<&str>) =
        (native.stdout.lines().collect(), other.stdout.lines().collect());
    if left != right {
        let (a, b): (BTreeSet<&str>, BTreeSet<&str>) =
            (left.iter().copied().collect(), right.iter().copied().collect());
        list.extend(a.difference(&b).map(|line| format!("-{line}")));
        list.extend(b.difference(&a).map(|line| format!("+{line}")));
        if list.is_empty() {
            let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            let line = right.get(same).unwrap_or(&"");
            list.push(format!(
                "+(the same lines in another order or number from line {} on: {line})",
                same + 1
            ));
        }
    }
    if native.ended != other.ended {
        list.push(format!("-{}", native.ended));
        list.push(format!("+{}", other.ended));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stdout: &str, code: i32) -> Run {
        Run {
            stdout: stdout.to_string(),
            stderr: String::new(),
            ended: format!("exit code {code}"),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn differences_name_lines_and_codes() {
        assert!(differences(&run("a\nb\n", 0), &run("a\nb\n", 0)).is_empty());
        assert_eq!(differences(&run("a\nb\n", 0), &run("a\nc\n", 0)), ["-b", "+c"]);
        assert_eq!(differences(&run("a\nb\n", 0), &run("b\na\n", 0)).len(), 1);
        assert_eq!(differences(&run("", 0), &run("", 1)), ["-exit code 0", "+exit code 1"]);
    }

    #[test]
    fn every_script_is_listed() {
        let list = list().unwrap();
        assert!(list.iter().any(|program| program.name == "shell" && program.root == "minimal"));
        assert!(list.iter().any(|program| program.name == "python-tests:test_os" && program.root == "full"));
    }
}
