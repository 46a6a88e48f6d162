//! Runs every case natively, then on each platform, and demands the same outcome.
//!
//! `$RUNSC` names the binary (default: the newest in the target folder), `$RUNSC_PLATFORMS` the platforms. Cases that
//! are known to differ stand in `known-differences.toml`; one that stands there and passes is a failure too.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use runsc_tests::compat::{self, Family, Outcome, Outcomes};
use runsc_tests::target::{Target, platforms, runsc};
use runsc_tests::{guest, known, tree};

/// For each case, also on a slow platform on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        println!("compat: test");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            println!("compat: {failures} failures");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("compat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize> {
    if !guest::have_compiler() {
        println!("compat: skipped: no gcc to build the cases with");
        return Ok(0);
    }
    tree::adopt_orphans();
    let list = compat::families(None)?;
    let known = known::read(&guest::crate_dir().join("compat/known-differences.toml"))?;
    let native = compat::native_targets();
    let mut failures = 0;

    let mut targets = Vec::new();
    match runsc() {
        None => println!("compat: sandbox runs skipped: no runsc binary (build it, or set RUNSC)"),
        Some(runsc) => {
            for platform in platforms() {
                let target = Target::Sandbox { runsc: runsc.clone(), platform, flags: Vec::new() };
                match target.probe() {
                    Ok(()) => targets.push(target),
                    Err(error) => {
                        println!("compat: platform {target} does not work: {error:#}");
                        failures += 1;
                    }
                }
            }
        }
    }

    let start = Instant::now();
    let native_results = run_all(&list, &native);
    println!("compat: native runs took {:.1} s", start.elapsed().as_secs_f32());
    let start = Instant::now();
    let results = run_all(&list, &targets);
    if !targets.is_empty() {
        println!("compat: sandbox runs took {:.1} s", start.elapsed().as_secs_f32());
    }

    print!("\n{:<14} {:>5} {:>8} {:>8}", "family", "cases", "native", "skipped");
    targets.iter().for_each(|target| print!(" {:>10}", target.to_string()));
    println!();
    let mut details = Vec::new();
    let mut totals = vec![0; targets.len() + 3];
    for (index, family) in list.iter().enumerate() {
        let natives: Vec<&Outcomes> = native_results.iter().map(|target| &target[index]).collect();
        let judged: Vec<(&String, Outcome)> =
            family.cases.iter().map(|case| (case, compat::worst(&natives, case))).collect();
        let mut row = vec![family.cases.len(), 0, 0];
        for (case, outcome) in &judged {
            let name = format!("{}.{case}", family.name);
            match outcome {
                Outcome::Pass => row[1] += 1,
                Outcome::Skip(why) => {
                    row[2] += 1;
                    details.push(format!("skipped natively: {name}: {why}"));
                }
                Outcome::Fail(why) => {
                    failures += 1;
                    details.push(format!("FAILS NATIVELY: {name}: {why}"));
                }
            }
        }
        for (target, results) in targets.iter().zip(&results) {
            let mut same = 0;
            for (case, _) in judged.iter().filter(|(_, outcome)| *outcome == Outcome::Pass) {
                let name = format!("{}.{case}", family.name);
                let entry = known.iter().find(|entry| entry.covers(&name, &target.to_string()));
                match (results[index].get(*case), entry) {
                    (Some(Outcome::Pass), None) => same += 1,
                    (Some(Outcome::Pass), Some(_)) => {
                        same += 1;
                        failures += 1;
                        details.push(format!("PASSES, STRIKE FROM THE LIST: {name} on {target}"));
                    }
                    (Some(Outcome::Fail(_) | Outcome::Skip(_)), Some(entry)) => {
                        details.push(format!("known: {name} on {target}: {}", entry.reason));
                    }
                    (Some(Outcome::Fail(why)), None) => {
                        failures += 1;
                        details.push(format!("DIFFERS: {name} on {target}: {why}"));
                    }
                    (Some(Outcome::Skip(why)), None) => {
                        failures += 1;
                        details.push(format!("DIFFERS: {name} on {target}: skipped: {why}"));
                    }
                    (None, _) => {}
                }
            }
            row.push(same);
        }
        totals.iter_mut().zip(&row).for_each(|(total, value)| *total += value);
        print_row(&family.name, &row);
    }
    print_row("total", &totals);
    for entry in &known {
        let exists = list
            .iter()
            .any(|family| family.cases.iter().any(|case| entry.name == format!("{}.{case}", family.name)));
        if !exists {
            failures += 1;
            details.push(format!("NO SUCH CASE in known-differences.toml: {}", entry.name));
        }
    }
    println!();
    details.iter().for_each(|line| println!("{line}"));
    Ok(failures)
}

fn print_row(name: &str, row: &[usize]) {
    print!("{name:<14} {:>5} {:>8} {:>8}", row[0], row[1], row[2]);
    row[3..].iter().for_each(|value| print!(" {value:>10}"));
    println!();
}

/// Runs all families on all targets; by target, then by family.
fn run_all(list: &[Family], targets: &[Target]) -> Vec<Vec<Outcomes>> {
    let jobs: Vec<(&Target, &Family)> =
        targets.iter().flat_map(|target| list.iter().map(move |family| (target, family))).collect();
    let mut results =
        compat::in_parallel(&jobs, |(target, family)| compat::run(family, &family.cases, target, LIMIT))
            .into_iter();
    targets.iter().map(|_| results.by_ref().take(list.len()).collect()).collect()
}
