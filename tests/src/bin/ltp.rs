//! Runs system call tests of the Linux Test Project natively and in the sandbox, and compares: see `docs/testing.md`.
//!
//! `ltp [--platform P[,P…]] [--runtest FILE] [--root DIR] [--logs DIR] [--limit SECONDS] [--keep-native] LTP [NAME…]`: LTP is
//! the folder where a built LTP was installed. What each program printed is kept in a folder a target below the logs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runsc_tests::arguments::Arguments;
use runsc_tests::compat::in_parallel;
use runsc_tests::ltp::{self, Suite, Test, Verdict};
use runsc_tests::target::{Target, platforms, runsc};
use runsc_tests::{guest, known, programs, tree};

const USAGE: &str = "ltp [--platform P[,P…]] [--runtest FILE] [--root DIR] [--logs DIR] [--limit SECONDS] [--keep-native] \
                     LTP [NAME…]";

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(count) => {
            println!("ltp: {count} differences that are not listed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("ltp: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<usize> {
    let (mut chosen, mut runtest, mut root, mut limit, mut keep_native) =
        (None, "syscalls".to_string(), None, 120, false);
    let mut logs = guest::target_dir().join("ltp");
    let mut names: Vec<String> = Vec::new();
    let mut args = Arguments::of_program();
    while let Some(key) = args.next_key() {
        match key.as_str() {
            "--platform" => chosen = Some(args.value()?.split(',').map(str::to_string).collect()),
            "--runtest" => runtest = args.value()?,
            "--root" => root = Some(PathBuf::from(args.value()?)),
            "--logs" => logs = PathBuf::from(args.value()?),
            "--limit" => limit = args.value()?.parse().context("--limit")?,
            "--keep-native" => keep_native = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(0);
            }
            other if other.starts_with("--") => bail!("unknown flag {other}\n{USAGE}"),
            _ => names.push(key),
        }
    }
    if names.is_empty() {
        bail!("{USAGE}");
    }
    let ltp = PathBuf::from(names.remove(0)).canonicalize()?;
    let mut tests = ltp::list(&ltp, &runtest)?;
    tests.retain(|test| names.is_empty() || names.contains(&test.name));
    if tests.is_empty() {
        bail!("no such test: {}", names.join(" "));
    }
    let Some(root) = root.map_or_else(|| programs::root("full"), |root| Ok(Some(root)))? else {
        return Ok(0);
    };
    tree::adopt_orphans();
    let suite = Suite { ltp, root, logs, limit: Duration::from_secs(limit), keep_native };
    let known = known::read(&guest::crate_dir().join("ltp/known-differences.toml"))?;

    let native = run_all(&suite, &tests, &Target::Native(std::env::temp_dir()))?;
    println!("native: {}", ltp::summary(&native));
    let Some(runsc) = runsc() else {
        println!("ltp: sandbox runs skipped: no runsc binary (build it, or set RUNSC)");
        return Ok(0);
    };
    let mut fresh = 0;
    for platform in chosen.unwrap_or_else(platforms) {
        let target = Target::Sandbox { runsc: runsc.clone(), platform: platform.clone(), flags: Vec::new() };
        let verdicts = run_all(&suite, &tests, &target)?;
        println!("{platform}: {}", ltp::summary(&verdicts));
        let (mut differ, mut listed) = (0, 0);
        for (name, verdict) in &verdicts {
            let Some(native) = native.get(name).filter(|native| verdict.differs(native)) else { continue };
            differ += 1;
            match known.iter().find(|entry| entry.covers(name, &platform)) {
                Some(entry) => {
                    listed += 1;
                    println!("{platform}: known   {name}: {verdict} (native: {native}): {}", entry.reason);
                }
                None => println!("{platform}: DIFFERS {name}: {verdict} (native: {native})"),
            }
        }
        println!("{platform}: {differ} differ from native, {listed} of them listed");
        fresh += differ - listed;
    }
    Ok(fresh)
}

fn run_all(suite: &Suite, tests: &[Test], target: &Target) -> Result<BTreeMap<String, Verdict>> {
    let verdicts = in_parallel(tests, |test| Ok((test.name.clone(), suite.run(test, target)?)));
    verdicts.into_iter().collect()
}
