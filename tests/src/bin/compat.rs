//! Runs chosen compatibility cases and prints what fails: the developers' entry to `tests/compat`.
//!
//! `compat [--platform P[,P…]] [--family F] [--limit SECONDS] [--strace] [--list] [CASE…]`: a case is `name` or
//! `family.name`; the platform `native` is the host. Without `--platform`: natively and on each platform.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runsc_tests::arguments::Arguments;
use runsc_tests::compat::{self, Outcome};
use runsc_tests::target::{Target, platforms, runsc};
use runsc_tests::tree;

const USAGE: &str = "compat [--platform P[,P…]] [--family F] [--limit SECONDS] [--strace] [--list] [CASE…]";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compat: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let mut chosen: Option<Vec<String>> = None;
    let (mut family, mut limit, mut strace, mut list) = (None, 20, false, false);
    let mut names = Vec::new();
    let mut args = Arguments::of_program();
    while let Some(key) = args.next_key() {
        match key.as_str() {
            "--platform" => chosen = Some(args.value()?.split(',').map(str::to_string).collect()),
            "--family" => family = Some(args.value()?),
            "--limit" => limit = args.value()?.parse().context("--limit")?,
            "--strace" => strace = true,
            "--list" => list = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(true);
            }
            other if other.starts_with("--") => bail!("unknown flag {other}\n{USAGE}"),
            _ => names.push(key),
        }
    }
    tree::adopt_orphans();
    let families = compat::families(family.as_deref())?;
    if list {
        for family in &families {
            family.cases.iter().for_each(|case| println!("{}.{case}", family.name));
        }
        return Ok(true);
    }

    let chosen = chosen.unwrap_or_else(|| std::iter::once("native".to_string()).chain(platforms()).collect());
    let mut targets = Vec::new();
    for platform in chosen {
        if platform == "native" {
            targets.extend(compat::native_targets());
            continue;
        }
        let Some(runsc) = runsc() else {
            println!("{platform}: skipped: no runsc binary (build it, or set RUNSC)");
            continue;
        };
        let flags = if strace { vec!["--strace".to_string()] } else { Vec::new() };
        targets.push(Target::Sandbox { runsc, platform, flags });
    }

    let mut good = true;
    let mut ran = 0;
    for target in &targets {
        let (mut passed, mut skipped, mut failed) = (0, 0, 0);
        for family in &families {
            let cases: Vec<String> = family
                .cases
                .iter()
                .filter(|case| {
                    let full = format!("{}.{case}", family.name);
                    names.is_empty() || names.iter().any(|name| name == *case || *name == full)
                })
                .cloned()
                .collect();
            ran += cases.len();
            if strace && !cases.is_empty() {
                // The trace is for the reader: nothing is taken from it.
                let mut command = target.command(&family.program);
                let status = command.arg("--limit").arg(limit.to_string()).args(&cases).status()?;
                good &= status.success();
                continue;
            }
            for (case, outcome) in compat::run(family, &cases, target, Duration::from_secs(limit)) {
                match outcome {
                    Outcome::Pass => passed += 1,
                    Outcome::Skip(why) => {
                        skipped += 1;
                        println!("{target}: skip {}.{case}: {why}", family.name);
                    }
                    Outcome::Fail(why) => {
                        failed += 1;
                        println!("{target}: FAIL {}.{case}: {why}", family.name);
                    }
                }
            }
        }
        good &= failed == 0;
        if !strace {
            println!("{target}: {passed} passed, {skipped} skipped, {failed} failed");
        }
    }
    if ran == 0 && !targets.is_empty() {
        bail!("no such case: {}", names.join(" "));
    }
    Ok(good)
}
