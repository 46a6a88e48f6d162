//! The compatibility harness: families of cases, each a C program of `compat/cases`, run on targets and compared.
//!
//! A family's program runs its cases one after the other and prints a line for each (`compat/cases/compat.h`). Where a
//! sandbox dies or stalls in the middle, the first case without a line is to blame, and the rest goes on in a new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use crate::guest::{self, Linkage};
use crate::target::Target;
use crate::tree;

/// Families that also run as dynamically linked programs.
const ALSO_PIE: [&str; 5] = ["exec", "futex", "memory", "signals", "threads"];

/// The folder of the cases' sources.
pub fn cases_dir() -> PathBuf {
    guest::crate_dir().join("compat/cases")
}

/// A program with its cases.
#[derive(Clone, Debug)]
pub struct Family {
    /// The source's name, with `-pie` added for the dynamically linked build.
    pub name: String,
    /// The built program.
    pub program: PathBuf,
    /// The cases, in the order in which the program runs them.
    pub cases: Vec<String>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every check held.
    Pass,
    /// Not applicable here, for this reason.
    Skip(String),
    /// What failed: a line for each check, or why there is none.
    Fail(String),
}

/// The outcome of each case (by its name without the family).
pub type Outcomes = BTreeMap<String, Outcome>;

/// Builds all families (or the one named) and asks them for their cases.
pub fn families(only: Option<&str>) -> Result<Vec<Family>> {
    let mut sources: Vec<PathBuf> = fs::read_dir(cases_dir())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "c"))
        .collect();
    sources.sort();
    let mut jobs = Vec::new();
    for source in sources {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let pie = format!("{name}-pie");
        if only.is_none_or(|only| only == name) {
            jobs.push((name.clone(), source.clone(), Linkage::Static));
        }
        if only.map_or(ALSO_PIE.contains(&name.as_str()), |only| only == pie) {
            jobs.push((pie, source, Linkage::Pie));
        }
    }
    if jobs.is_empty() {
        bail!("no such family: {}", only.unwrap_or("(none)"));
    }
    let built = in_parallel(&jobs, |(name, source, linkage)| -> Result<Family> {
        let program = guest::build(source, *linkage)?;
        let output = Command::new(&program).arg("--list").output().context(program.display().to_string())?;
        let cases: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_string).collect();
        if cases.is_empty() {
            bail!("{} lists no cases", program.display());
        }
        Ok(Family { name: name.clone(), program, cases })
    });
    built.into_iter().collect()
}

/// Runs `work` on each item, two at a time; the results are in the order of the items.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(item) = items.get(index)
                {
                    let result = work(item);
                    results.lock().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Runs these cases of a family on a target, allowing `limit` for each.
pub fn run(family: &Family, cases: &[String], target: &Target, limit: Duration) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut left: Vec<String> = cases.to_vec();
    while !left.is_empty() {
        let ended = run_batch(family, &left, target, limit, &mut outcomes);
        left.retain(|case| !outcomes.contains_key(case));
        if !left.is_empty() {
            let culprit = left.remove(0);
            outcomes.insert(culprit, Outcome::Fail(ended));
        }
    }
    outcomes
}

/// Runs cases in one process; says how it ended.
fn run_batch(
    family: &Family,
    cases: &[String],
    target: &Target,
    limit: Duration,
    outcomes: &mut Outcomes,
) -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let mark = format!("COMPAT_RUN={}.{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let (key, value) = mark.split_once('=').unwrap_or_default();
    let mut command = target.command(&family.program);
    command.arg("--limit").arg(limit.as_secs().to_string()).args(cases).env(key, value);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return format!("not started: {error}"),
    };
    let (sender, lines) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(|line| line.ok()) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    let stderr = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });

    // The program itself ends a case after `limit`; a sandbox that is silent for longer is stuck.
    let patience = limit + Duration::from_secs(15);
    let mut stalled = false;
    let mut finished: Option<Instant> = None;
    let mut loose: Vec<String> = Vec::new();
    let mut heard = Instant::now();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                heard = Instant::now();
                note(&line, cases, outcomes, &mut loose);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if heard.elapsed() > patience => {
                stalled = true;
                break;
            }
            Err(RecvTimeoutError::Timeout) => {
                // A leftover of a case may hold the pipe open after the program's end.
                if finished.is_none() && matches!(child.try_wait(), Ok(Some(_))) {
                    finished = Some(Instant::now());
                }
                if finished.is_some_and(|at| at.elapsed() > Duration::from_secs(2)) {
                    break;
                }
            }
        }
    }
    if !stalled {
        let end = Instant::now() + patience;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        stalled = matches!(child.try_wait(), Ok(None));
    }
    if stalled {
        tree::kill_tree(child.id());
    }
    let status = child.wait();
    tree::kill_marked(&mark);
    let stderr = stderr.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let mut ended = match (stalled, status) {
        (true, _) => format!("hang: nothing heard for {} s", patience.as_secs()),
        (false, Ok(status)) => format!("no result: the program ended with {status}"),
        (false, Err(error)) => format!("no result: {error}"),
    };
    for line in loose.iter().map(String::as_str).chain(last_lines(&stderr, 8)) {
        ended.push_str("\n    ");
        ended.push_str(line);
    }
    ended
}

fn last_lines(text: &str, count: usize) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let skip = lines.len().saturating_sub(count);
    lines.into_iter().skip(skip)
}

/// Takes in one line of a program's output. Lines of no case (of a helper program) go to the next failure.
fn note(line: &str, cases: &[String], outcomes: &mut Outcomes, loose: &mut Vec<String>) {
    let mut words = line.splitn(3, ' ');
    let (kind, name, rest) =
        (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !cases.iter().any(|case| case == name) || !["ok", "skip", "FAIL"].contains(&kind) {
        loose.push(line.to_string());
        return;
    }
    match (kind, outcomes.get_mut(name)) {
        ("FAIL", Some(Outcome::Fail(text))) => {
            text.push_str("; ");
            text.push_str(rest);
        }
        ("FAIL", _) => {
            let mut text = std::mem::take(loose).join("; ");
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(rest);
            outcomes.insert(name.to_string(), Outcome::Fail(text));
        }
        ("skip", None) => {
            outcomes.insert(name.to_string(), Outcome::Skip(rest.to_string()));
        }
        ("ok", None) => {
            outcomes.insert(name.to_string(), Outcome::Pass);
        }
        _ => {}
    }
    loose.clear();
}

/// Folders for the native runs: what a case demands must hold on whatever is below /tmp and on tmpfs, which the
/// sandbox has there.
pub fn native_targets() -> Vec<Target> {
    let mut list = vec![Target::Native(std::env::temp_dir())];
    if std::fs::metadata("/dev/shm").is_ok_and(|meta| meta.is_dir()) {
        list.push(Target::Native("/dev/shm".into()));
    }
    list
}

/// The outcome of a case over several native runs: the worst of them.
pub fn worst(outcomes: &[&Outcomes], case: &str) -> Outcome {
    let mut worst = Outcome::Pass;
    for outcome in outcomes.iter().filter_map(|outcomes| outcomes.get(case)) {
        match (&worst, outcome) {
            (Outcome::Fail(_), _) | (_, Outcome::Pass) => {}
            (Outcome::Skip(_), Outcome::Skip(_)) => {}
            _ => worst = outcome.clone(),
        }
    }
    worst
}
