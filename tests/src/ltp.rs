//! Programs of the Linux Test Project, built elsewhere: run natively and in the sandbox, their verdicts counted.
//!
//! LTP's install folder is seen at `/programs` in a root file system whose writes are thrown away (see [`chroot`]). Natively
//! the programs get no more rights than the container's, so that they cannot touch the machine's clock or reboot it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::chroot;
use crate::target::Target;

/// A line of a runtest file: what to run, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The line's tag.
    pub name: String,
    /// The rest of the line, for a shell.
    pub command: String,
}

/// How one program of LTP ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lines that say TPASS, TFAIL, TBROK and TCONF.
    pub counts: [usize; 4],
    /// "exit code N", or what became of it instead.
    pub ended: String,
}

/// The words of [`Verdict::counts`].
pub const WORDS: [&str; 4] = ["TPASS", "TFAIL", "TBROK", "TCONF"];

impl Verdict {
    /// From what a program printed, the first line being how it ended.
    pub fn parse(log: &str) -> Verdict {
        let (ended, output) = log.split_once('\n').unwrap_or((log, ""));
        let mut counts = [0; 4];
        for line in output.lines() {
            for (count, word) in counts.iter_mut().zip(WORDS) {
                // "file.c:12: TPASS: text", and "name 1 TPASS : text" of the old library.
                *count +=
                    usize::from(line.contains(&format!(" {word}:")) || line.contains(&format!(" {word} ")));
            }
        }
        Verdict { counts, ended: ended.to_string() }
    }

    /// LTP's own judgement: nothing failed, and something was tested.
    pub fn passed(&self) -> bool {
        self.ended == "exit code 0"
    }

    /// Nothing failed, but something (or all) was found not to apply here.
    pub fn not_applicable(&self) -> bool {
        self.ended == "exit code 32"
    }

    /// Whether this, in a sandbox, is less than a native run's `self`.
    pub fn differs(&self, native: &Verdict) -> bool {
        let [passes, .., skips] = self.counts;
        let fewer = passes < native.counts[0] && skips > native.counts[3];
        (native.passed() && (!self.passed() || fewer))
            || (native.not_applicable() && !self.passed() && (!self.not_applicable() || fewer))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.ended.as_str() {
            "exit code 0" => "passed",
            "exit code 32" => "not applicable",
            other => other,
        };
        write!(f, "{word}")?;
        for (count, name) in self.counts.iter().zip(WORDS).filter(|(count, _)| **count > 0) {
            write!(f, " {name} {count}")?;
        }
        Ok(())
    }
}

/// The tests of one runtest file (such as `syscalls`) of LTP's install folder.
pub fn list(ltp: &Path, file: &str) -> Result<Vec<Test>> {
    let path = ltp.join("runtest").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Test> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(name, command)| Test { name: name.to_string(), command: command.trim().to_string() })
        .collect()
}

/// Where and how tests run.
pub struct Suite {
    /// LTP's install folder.
    pub ltp: PathBuf,
    /// The root file system.
    pub root: PathBuf,
    /// Where the logs are kept, a folder for each target.
    pub logs: PathBuf,
    /// The longest that one program may take.
    pub limit: Duration,
    /// Whether native runs whose log is there are taken as they are.
    pub keep_native: bool,
}

impl Suite {
    /// Runs one test on a target and keeps its log.
    pub fn run(&self, test: &Test, target: &Target) -> Result<Verdict> {
        let (folder, rights) = match target {
            // What `chroot` gives to containers.
            Target::Native(_) => ("native".to_string(), bounding_set()),
            Target::Sandbox { platform, .. } => (platform.clone(), String::new()),
        };
        let log = self.logs.join(folder).join(&test.name);
        if matches!(target, Target::Native(_))
            && self.keep_native
            && let Ok(text) = fs::read_to_string(&log)
        {
            return Ok(Verdict::parse(&text));
        }
        // The test is not process 1, which is special; the shell is, and waits for orphans.
        let script = format!(
            "cd /tmp; export LTPROOT=/programs PATH=/programs/testcases/bin:$PATH TMPDIR=/tmp KCONFIG_SKIP_CHECK=1 \
             LTP_COLORIZE_OUTPUT=n LTP_TIMEOUT_MUL=3; {{ {}; }} 2>&1; exit $?",
            test.command
        );
        let command = format!("exec {rights} bash -c \"$1\"");
        let command = ["bash", "-c", &command, "bash", &script].map(str::to_string);
        let run = chroot::run(&self.root, &self.ltp, &command, target, self.limit)?;
        let text = format!("{}\n{}{}", run.ended, run.stdout, run.stderr);
        fs::create_dir_all(log.parent().context("a log without a folder")?)?;
        fs::write(&log, &text)?;
        Ok(Verdict::parse(&text))
    }
}

fn bounding_set() -> String {
    let names =
        chroot::CAPABILITIES.map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()));
    format!("setpriv --bounding-set=-all,{} --inh-caps=-all", names.join(","))
}

/// The sum of verdicts: how many programs passed, did not apply, failed, and their counts.
pub fn summary(verdicts: &BTreeMap<String, Verdict>) -> String {
    let passed = verdicts.values().filter(|verdict| verdict.passed()).count();
    let skipped = verdicts.values().filter(|verdict| verdict.not_applicable()).count();
    let failed = verdicts.len() - passed - skipped;
    let sums = [0, 1, 2, 3].map(|i| verdicts.values().map(|verdict| verdict.counts[i]).sum::<usize>());
    let counts: Vec<String> = WORDS.iter().zip(sums).map(|(word, sum)| format!("{word} {sum}")).collect();
    format!(
        "{} programs: {passed} passed, {skipped} not applicable, {failed} failed; {}",
        verdicts.len(),
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtest_files_are_read() {
        let tests = parse("#DESCRIPTION: x\naccept01 accept01\n\nftest  export A=1; ftest -i 5\n");
        assert_eq!(tests.len(), 2);
        assert_eq!((tests[1].name.as_str(), tests[1].command.as_str()), ("ftest", "export A=1; ftest -i 5"));
    }

    #[test]
    fn verdicts_are_counted_and_compared() {
        let native = Verdict::parse("exit code 0\na.c:1: TPASS: x\nb01    1  TPASS  :  y\nsays TPASSed\n");
        assert_eq!(native.counts, [2, 0, 0, 0]);
        let same = native.clone();
        assert!(!same.differs(&native));
        let fewer = Verdict::parse("exit code 0\na.c:1: TPASS: x\na.c:2: TCONF: no such thing\n");
        assert!(fewer.differs(&native) && !native.differs(&fewer));
        let failed = Verdict::parse("exit code 1\na.c:1: TFAIL: x\n");
        assert!(failed.differs(&native) && !native.differs(&failed));
        assert_eq!(failed.to_string(), "exit code 1 TFAIL 1");
    }
}
