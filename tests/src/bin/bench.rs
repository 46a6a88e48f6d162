//! Benchmarks: what an operation costs in a guest, as a ratio to the same program run natively in the same run; what
//! starting a container costs; what an idle one holds.
//!
//! `bench [--platform P[,P…]] [--rounds N] [--other PATH] [--calls|--programs|--start|--idle] [NAME…]`: without a choice, all
//! parts. A NAME chooses the calls that begin with it. Numbers are the best of all rounds, which alternate between native
//! and sandbox. `--other` is another `runsc`, such as gVisor's, whose calls and programs are measured beside ours on ptrace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runsc_tests::arguments::Arguments;
use runsc_tests::guest::{self, Linkage};
use runsc_tests::target::{Target, platforms, runsc};
use runsc_tests::{scratch, tree};
use serde_json::json;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    platforms: Vec<String>,
    rounds: usize,
    other: Option<PathBuf>,
    part: Option<String>,
    names: Vec<String>,
}

fn options() -> Result<Options> {
    let mut options =
        Options { platforms: platforms(), rounds: 3, other: None, part: None, names: Vec::new() };
    let mut args = Arguments::of_program();
    while let Some(key) = args.next_key() {
        match key.as_str() {
            "--platform" => options.platforms = args.value()?.split(',').map(str::to_string).collect(),
            "--rounds" => options.rounds = args.value()?.parse().context("--rounds")?,
            "--other" => options.other = Some(PathBuf::from(args.value()?)),
            "--calls" | "--programs" | "--start" | "--idle" => options.part = Some(key),
            other if other.starts_with("--") => {
                bail!(
                    "unknown flag {other}: bench [--platform P] [--rounds N] [--other PATH] [--calls|--programs|--start|--idle] [NAME…]"
                )
            }
            _ => options.names.push(key),
        }
    }
    Ok(options)
}

fn run() -> Result<()> {
    let options = options()?;
    tree::adopt_orphans();
    let program = guest::build(&guest::crate_dir().join("bench/guest.c"), Linkage::Static)?;
    let Some(runsc) = runsc() else {
        bail!("no runsc binary: build it (in release mode), or set RUNSC");
    };
    println!("binary: {}", runsc.display());
    let wants = |part: &str| options.part.as_deref().is_none_or(|chosen| chosen == part);
    if wants("--calls") {
        calls(&options, &program, &runsc)?;
    }
    if wants("--programs") {
        programs(&options, &runsc)?;
    }
    if wants("--start") {
        start(&options, &program, &runsc)?;
    }
    if wants("--idle") {
        idle(&options, &program, &runsc)?;
    }
    Ok(())
}

/// Best time in nanoseconds by name, in the order of the program's output.
type Times = Vec<(String, f64)>;

fn measure(target: &Target, program: &Path, names: &[String], best: &mut Times) -> Result<()> {
    let mut command = target.command(program);
    if matches!(target, Target::Native(_)) {
        // In memory, as the sandbox's /tmp is.
        command.env("BENCH_DIR", "/dev/shm");
    }
    let output = command.args(names).stdin(Stdio::null()).output()?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(time))) = (words.next(), words.next().map(str::parse::<f64>)) else {
            continue;
        };
        match best.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = old.min(time),
            None => best.push((name.to_string(), time)),
        }
    }
    if !output.status.success() {
        println!("{target}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Native first, then the platforms, then the other runtime.
fn targets(options: &Options, runsc: &Path) -> Vec<(String, Target)> {
    let sandbox = |runsc: &Path, platform: &str, flags: &[&str]| Target::Sandbox {
        runsc: runsc.to_path_buf(),
        platform: platform.to_string(),
        flags: flags.iter().map(ToString::to_string).collect(),
    };
    let mut targets = vec![("native".to_string(), Target::Native("/dev/shm".into()))];
    targets
        .extend(options.platforms.iter().map(|platform| (platform.clone(), sandbox(runsc, platform, &[]))));
    if let Some(other) = &options.other {
        let flags = ["--network=none", "--ignore-cgroups"];
        targets.push(("other".to_string(), sandbox(other, "ptrace", &flags)));
    }
    targets
}

/// Prints a table with a ratio to the first column beside each of the others.
fn print_table(what: &str, targets: &[(String, Target)], times: &[Times]) {
    print!("\n{what:<22} {:>12}", "native");
    targets.iter().skip(1).for_each(|(name, _)| print!(" {name:>12} {:>8}", "ratio"));
    println!();
    let Some((native, others)) = times.split_first() else { return };
    for (name, base) in native {
        print!("{name:<22} {base:>12.0}");
        for times in others {
            match times.iter().find(|(other, _)| other == name) {
                Some((_, time)) => print!(" {time:>12.0} {:>8.1}", time / base),
                None => print!(" {:>12} {:>8}", "-", "-"),
            }
        }
        println!();
    }
}

fn calls(options: &Options, program: &Path, runsc: &Path) -> Result<()> {
    let targets = targets(options, runsc);
    let mut times: Vec<Times> = vec![Times::new(); targets.len()];
    for _ in 0..options.rounds {
        for ((_, target), times) in targets.iter().zip(&mut times) {
            measure(target, program, &options.names, times)?;
        }
    }
    print_table("ns per operation", &targets, &times);
    Ok(())
}

/// Programs that users run, by name: what they need, and a shell script that says in nanoseconds how long the work took
/// (without making ready, and without the sandbox's start).
const PROGRAMS: &[(&str, &str, &str)] = &[
    (
        "gcc-5000-lines",
        "gcc",
        "d=$(mktemp -d); cd $d; i=0; while [ $i -lt 1000 ]; do echo \"int f$i(int x) {\n int y = x * $i;\n for (int k = 0; k < x; k++) y += k ^ $i;\n return y;\n}\"; i=$((i+1)); done >a.c; \
         a=$(date +%s%N); gcc -O1 -c a.c; b=$(date +%s%N); echo $((b-a)); rm -rf $d",
    ),
    (
        "git-status-10000",
        "git",
        "d=$(mktemp -d); cd $d; export HOME=$d; git init -q .; i=0; while [ $i -lt 100 ]; do mkdir d$i; (cd d$i; seq 1 100 | split -l 1 -a 3 -); i=$((i+1)); done; \
         git add . >/dev/null; git status --short >/dev/null; a=$(date +%s%N); git status --short >/dev/null; b=$(date +%s%N); echo $((b-a)); rm -rf $d",
    ),
    (
        "python3-imports",
        "python3",
        "export PYTHONDONTWRITEBYTECODE=1; python3 -c 'import asyncio, ssl, json'; \
         a=$(date +%s%N); python3 -c 'import asyncio, ssl, json'; b=$(date +%s%N); echo $((b-a))",
    ),
    (
        "shell-200-processes",
        "sh",
        "a=$(date +%s%N); i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done; b=$(date +%s%N); echo $((b-a))",
    ),
];

fn programs(options: &Options, runsc: &Path) -> Result<()> {
    let targets = targets(options, runsc);
    let mut times: Vec<Times> = vec![Times::new(); targets.len()];
    for (name, needs, script) in PROGRAMS {
        if !options.names.is_empty() && !options.names.iter().any(|wanted| name.starts_with(wanted.as_str()))
        {
            continue;
        }
        if !Path::new("/usr/bin").join(needs).exists() {
            println!("skipped: {name}: there is no {needs}");
            continue;
        }
        for _ in 0..options.rounds {
            for ((_, target), times) in targets.iter().zip(&mut times) {
                let mut command = target.command(Path::new("/bin/sh"));
                let output =
                    command.args(["-c", script]).env("TMPDIR", "/dev/shm").stdin(Stdio::null()).output()?;
                let said = String::from_utf8_lossy(&output.stdout);
                let Ok(time) = said.trim().parse::<f64>() else {
                    println!(
                        "{target}: {name}: {}: {}",
                        output.status,
                        String::from_utf8_lossy(&output.stderr).trim()
                    );
                    continue;
                };
                match times.iter_mut().find(|(known, _)| known == name) {
                    Some((_, old)) => *old = old.min(time),
                    None => times.push((name.to_string(), time)),
                }
            }
        }
    }
    print_table("ns per program", &targets, &times);
    Ok(())
}

/// The best and the median of several timed runs, in milliseconds.
fn timed(rounds: usize, mut run: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok((times.first().copied().unwrap_or(0.0), times.get(times.len() / 2).copied().unwrap_or(0.0)))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The group that those of all containers are in.
fn group() -> String {
    format!("runsc-bench-{}", std::process::id())
}

/// A bundle whose root holds the guest program and nothing else. `role` is what the container is in a pod.
fn bundle(dir: &Path, program: &Path, argument: &str, role: Option<&str>) -> Result<PathBuf> {
    let root = dir.join("rootfs");
    for name in ["proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(program, root.join("guest"))?;
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/guest", argument], "env": ["PATH=/"],
        },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "mount" }] },
    });
    // A group of its own, below one that is made for it.
    let name = dir.file_name().map(|name| name.to_string_lossy().replace('.', "-")).unwrap_or_default();
    config["linux"]["cgroupsPath"] = format!("/{}/{name}", group()).into();
    config["linux"]["resources"] = json!({"pids": {"limit": 1000}, "cpu": {"shares": 512}});
    if let Some(role) = role {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": role, "io.kubernetes.cri.sandbox-id": POD,
        });
    }
    fs::write(dir.join("config.json"), config.to_string())?;
    Ok(dir.to_path_buf())
}

struct Runtime<'a> {
    runsc: &'a Path,
    platform: &'a str,
    state: PathBuf,
}

impl Runtime<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.runsc);
        command.arg(format!("--platform={}", self.platform)).arg("--root").arg(&self.state).args(args);
        command
    }
}

fn start(options: &Options, program: &Path, runsc: &Path) -> Result<()> {
    let rounds = options.rounds * 7;
    println!("\n{:<48} {:>9} {:>9} {:>8}", "whole processes, ms", "best", "median", "ratio");
    let mut table = Table { base: None };
    table.row("native: true", timed(rounds, || succeed(Command::new(program).arg("--true")))?);
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().find(|path| Path::new(path).exists());
    match runc {
        Some(runc) => {
            let dir = in_memory()?;
            let bundle = bundle(dir.path(), program, "--true", None)?;
            let run = || {
                let mut command = Command::new(runc);
                command.arg("--root").arg(dir.path().join("state")).args(["run", "--bundle"]);
                succeed(command.arg(&bundle).arg(RUNC_ID))
            };
            let times = timed(rounds, run)?;
            table.base = Some(times.0);
            table.row("runc: run true", times);
            // runc leaves the groups above a container's.
            for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
                let _ = fs::remove_dir(hierarchy.path().join(group()));
            }
        }
        None => println!("runc: skipped: it is not there, and so there are no ratios"),
    }
    let print = |name: &str, times: (f64, f64)| table.row(name, times);
    for platform in &options.platforms {
        let dir = in_memory()?;
        let bundle = bundle(dir.path(), program, "--true", None)?;
        let bundle = bundle.to_string_lossy();
        let runtime = Runtime { runsc, platform, state: dir.path().join("state") };
        print(
            &format!("{platform}: do /bin/true"),
            timed(rounds, || succeed(&mut runtime.command(&["do", "--", "/bin/true"])))?,
        );
        print(
            &format!("{platform}: run true"),
            timed(rounds, || succeed(&mut runtime.command(&["run", "--bundle", &bundle, "one"])))?,
        );
        steps(&table, &runtime, rounds, "", &bundle, "two")?;
        // And another container in a pod that runs.
        let pod = dir.path().join("pod");
        let member = dir.path().join("member");
        let pod = self::bundle(&pod, program, "--sleep", Some("sandbox"))?;
        let member = self::bundle(&member, program, "--true", Some("container"))?;
        quiet(&mut runtime.command(&["run", "--detach", "--bundle", &pod.to_string_lossy(), POD]))?;
        let member = member.to_string_lossy();
        let ran = timed(rounds, || succeed(&mut runtime.command(&["run", "--bundle", &member, "three"])));
        let ran = ran.and_then(|times| {
            print(&format!("{platform}: in a pod: run true"), times);
            steps(&table, &runtime, rounds, "in a pod: ", &member, "three")
        });
        succeed(&mut runtime.command(&["delete", "--force", POD]))?;
        ran?;
    }
    Ok(())
}

/// A directory in memory, as that of state is by default.
fn in_memory() -> Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?)
}

/// Prints times, the best also as a ratio to that of `runc run`.
struct Table {
    base: Option<f64>,
}

impl Table {
    fn row(&self, name: &str, (best, median): (f64, f64)) {
        let ratio = self.base.map_or("-".into(), |base| format!("{:.2}", best / base));
        println!("{name:<48} {best:>9.2} {median:>9.2} {ratio:>8}");
    }
}

/// The id of the container that runc runs.
const RUNC_ID: &str = "runsc-bench";
/// The id of the pod that a second container joins.
const POD: &str = "pod";

/// Detached: output pipes would be held open by the container.
fn quiet(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { bail!("{command:?}: {status}") }
}

/// A life by the verbs: what each takes, and all of them.
fn steps(
    table: &Table,
    runtime: &Runtime<'_>,
    rounds: usize,
    place: &str,
    bundle: &str,
    id: &str,
) -> Result<()> {
    let verbs: [&[&str]; 4] =
        [&["create", "--bundle", bundle, id], &["start", id], &["wait", id], &["delete", id]];
    let mut times = vec![Vec::new(); verbs.len() + 1];
    for _ in 0..rounds {
        let mut sum = 0.0;
        for (verb, times) in verbs.iter().zip(&mut times) {
            let at = Instant::now();
            quiet(&mut runtime.command(verb))?;
            let time = at.elapsed().as_secs_f64() * 1000.0;
            times.push(time);
            sum += time;
        }
        times.last_mut().context("no times")?.push(sum);
    }
    let names =
        verbs.iter().filter_map(|verb| verb.first().copied()).chain(["create + start + wait + delete"]);
    for (name, mut times) in names.zip(times) {
        times.sort_by(f64::total_cmp);
        table.row(&format!("{}: {place}{name}", runtime.platform), (times[0], times[times.len() / 2]));
    }
    Ok(())
}

/// Private memory of a process in KiB.
fn private_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(field("Private_Clean:")? + field("Private_Dirty:")?)
}

/// Context switches of all threads of a process so far.
fn switches(pid: i32) -> u64 {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        sum += text
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
            .sum::<u64>();
    }
    sum
}

fn idle(options: &Options, program: &Path, runsc: &Path) -> Result<()> {
    const WATCH: Duration = Duration::from_secs(10);
    println!("\nidle container: private memory, context switches in {} s", WATCH.as_secs());
    for platform in &options.platforms {
        let dir = scratch::dir()?;
        let bundle = bundle(dir.path(), program, "--sleep", None)?;
        let runtime = Runtime { runsc, platform, state: dir.path().join("state") };
        let status = runtime
            .command(&["run", "--detach", "--bundle", &bundle.to_string_lossy(), "idle"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("{platform}: run --detach: {status}");
        }
        // Until start-up work is over.
        std::thread::sleep(Duration::from_secs(1));
        let me = std::process::id() as i32;
        let pids: Vec<i32> = tree::family(std::process::id()).into_iter().filter(|pid| *pid != me).collect();
        let mut kib: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for pid in &pids {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_string();
            // Zombies of earlier runs have no memory.
            if let Some(own) = private_kib(*pid) {
                let entry = kib.entry(name).or_default();
                entry.0 += 1;
                entry.1 += own;
            }
        }
        let before: u64 = pids.iter().map(|pid| switches(*pid)).sum();
        std::thread::sleep(WATCH);
        let after: u64 = pids.iter().map(|pid| switches(*pid)).sum();
        succeed(&mut runtime.command(&["delete", "--force", "idle"]))?;
        for (name, (count, kib)) in &kib {
            println!("{platform}: {name:<16} × {count}: {kib} KiB");
        }
        println!("{platform}: context switches: {}", after.saturating_sub(before));
    }
    Ok(())
}
