//! Runs real programs natively and in the sandbox and compares: `programs/scripts`, see `docs/testing.md`.
//!
//! `programs [--platform P[,P…]] [--root minimal|full|more] [--limit SECONDS] [--show] [--list] [NAME…]`: a name may leave out the
//! argument (`python-tests` is all of them). Without a name: all. `--show` prints what differs in full.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runsc_tests::arguments::Arguments;
use runsc_tests::chroot::Run;
use runsc_tests::known::{self, Difference};
use runsc_tests::programs;
use runsc_tests::target::{Target, platforms, runsc};
use runsc_tests::{guest, tree};

const USAGE: &str =
    "programs [--platform P[,P…]] [--root minimal|full|more] [--limit SECONDS] [--show] [--list] [NAME…]";

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            println!("programs: {failures} failures");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("programs: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<usize> {
    let (mut chosen, mut variant, mut limit, mut show, mut list_only) = (None, None, 900, false, false);
    let mut names: Vec<String> = Vec::new();
    let mut args = Arguments::of_program();
    while let Some(key) = args.next_key() {
        match key.as_str() {
            "--platform" => chosen = Some(args.value()?.split(',').map(str::to_string).collect()),
            "--root" => variant = Some(args.value()?),
            "--limit" => limit = args.value()?.parse().context("--limit")?,
            "--show" => show = true,
            "--list" => list_only = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(0);
            }
            other if other.starts_with("--") => bail!("unknown flag {other}\n{USAGE}"),
            _ => names.push(key),
        }
    }
    let mut list = programs::list()?;
    list.retain(|program| {
        let stem = program.name.split(':').next();
        (names.is_empty() || names.iter().any(|name| *name == program.name || Some(name.as_str()) == stem))
            && variant.as_ref().is_none_or(|variant| *variant == program.root)
    });
    if list.is_empty() {
        bail!("no such program: {}", names.join(" "));
    }
    if list_only {
        list.iter().for_each(|program| println!("{}", program.name));
        return Ok(0);
    }
    tree::adopt_orphans();
    let limit = Duration::from_secs(limit);
    let known = known::read(&guest::crate_dir().join("programs/known-differences.toml"))?;
    let native = Target::Native(std::env::temp_dir());
    let mut targets = Vec::new();
    match runsc() {
        None => println!("programs: sandbox runs skipped: no runsc binary (build it, or set RUNSC)"),
        Some(runsc) => {
            for platform in chosen.unwrap_or_else(platforms) {
                targets.push(Target::Sandbox { runsc: runsc.clone(), platform, flags: Vec::new() });
            }
        }
    }
    let mut roots: HashMap<String, Option<PathBuf>> = HashMap::new();
    let mut failures = 0;
    for program in &list {
        if !roots.contains_key(&program.root) {
            roots.insert(program.root.clone(), programs::root(&program.root)?);
        }
        let Some(Some(root)) = roots.get(&program.root) else {
            println!("{}: skipped", program.name);
            continue;
        };
        let before = program.run(root, &native, limit)?;
        println!("{}: native {:.1} s", program.name, before.took.as_secs_f32());
        if before.ended != "exit code 0" {
            failures += 1;
            println!("{}: FAILS NATIVELY: {}", program.name, before.ended);
            print_tail(&before.stderr, 20);
        }
        for target in &targets {
            let after = program.run(root, target, limit)?;
            failures += judge(&program.name, &before, &after, target, &known, show);
        }
    }
    Ok(failures)
}

/// Prints what differs and is not known; 1 if there is something.
fn judge(name: &str, native: &Run, run: &Run, target: &Target, known: &[Difference], show: bool) -> usize {
    let seconds = run.took.as_secs_f32();
    let platform = target.to_string();
    let of_this = |entry: &&Difference| entry.platform == "all" || entry.platform == platform;
    let differences = programs::differences(native, run);
    let is_known =
        |line: &str| known.iter().filter(of_this).any(|entry| entry.name == format!("{name} {line}"));
    let (old, fresh): (Vec<&String>, Vec<&String>) = differences.iter().partition(|line| is_known(line));
    // A known line that no longer differs must go from the list. (The other side of a pair may stay unlisted.)
    let gone: Vec<&Difference> = known
        .iter()
        .filter(of_this)
        .filter(|entry| entry.name.strip_prefix(name).is_some_and(|rest| rest.starts_with(" -")))
        .filter(|entry| !differences.iter().any(|line| entry.name == format!("{name} {line}")))
        .collect();
    if fresh.is_empty() && gone.is_empty() {
        println!("{name}: {platform} {seconds:.1} s: same ({} known differences)", old.len());
        return 0;
    }
    println!("{name}: {platform} {seconds:.1} s: DIFFERS ({} lines, {} known)", fresh.len(), old.len());
    let most = if show { usize::MAX } else { 30 };
    fresh.iter().take(most).for_each(|line| println!("    {line}"));
    gone.iter().for_each(|entry| println!("    no longer differs, strike from the list: {}", entry.name));
    if run.ended != native.ended || show {
        print_tail(&run.stderr, if show { 200 } else { 10 });
    }
    1
}

fn print_tail(text: &str, count: usize) {
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(count)..] {
        println!("    stderr: {line}");
    }
}
