//! Random histories of calls, natively and on each platform: the same transcript is demanded.

use std::process::ExitCode;

use anyhow::{Result, bail};
use nix::sys::utsname::uname;
use runsc_tests::guest::{self, Linkage};
use runsc_tests::target::{Target, platforms, runsc};

/// Programs, and how many histories of each are run. `$HISTORIES` is another number.
const PROGRAMS: &[(&str, u32)] = &[("memory_calls", 60)];

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        println!("histories: test");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("histories: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The host's version of Linux.
fn release() -> Option<(u32, u32)> {
    let name = uname().ok()?;
    let mut numbers = name.release().to_str()?.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn run() -> Result<bool> {
    if !guest::have_compiler() {
        println!("histories: skipped: no gcc to build the programs with");
        return Ok(true);
    }
    if release().is_none_or(|release| release < (6, 17)) {
        println!("histories: skipped: the host's mremap is that of Linux before 6.17");
        return Ok(true);
    }
    let Some(runsc) = runsc() else {
        println!("histories: skipped: no runsc binary (build it, or set RUNSC)");
        return Ok(true);
    };
    let mut good = true;
    for &(name, count) in PROGRAMS {
        let count = std::env::var("HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(count);
        let source = guest::crate_dir().join("histories").join(name).with_extension("c");
        let program = guest::build(&source, Linkage::Static)?;
        let transcript = |target: &Target| -> Result<String> {
            let output = target.command(&program).args(["0", &count.to_string()]).output()?;
            if !output.status.success() {
                bail!("{name} on {target}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let native = transcript(&Target::Native(std::env::temp_dir()))?;
        for platform in platforms() {
            let target = Target::Sandbox { runsc: runsc.clone(), platform, flags: Vec::new() };
            match difference(&native, &transcript(&target)?) {
                None => println!("histories: {name} on {target}: {count} agree"),
                Some(text) => {
                    println!("histories: {name} on {target}: FAIL {text}");
                    good = false;
                }
            }
        }
    }
    Ok(good)
}

/// The first line that differs, with what came before it.
fn difference(native: &str, sandbox: &str) -> Option<String> {
    let (mut seed, mut before) = ("", "");
    for (n, s) in native.lines().zip(sandbox.lines()) {
        if n != s {
            return Some(format!("{seed}, after `{before}`:\n  native  {n}\n  sandbox {s}"));
        }
        if n.starts_with("seed") {
            seed = n;
        }
        before = n;
    }
    let (n, s) = (native.lines().count(), sandbox.lines().count());
    (n != s).then(|| format!("{n} lines natively, {s} in the sandbox"))
}
