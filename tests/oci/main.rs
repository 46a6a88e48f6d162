//! The programs of opencontainers/runtime-tools (its folder `validation`), as a test of `runsc` as an OCI runtime:
//! `RUNTIME_TOOLS=DIRECTORY cargo test -p runsc-tests --test oci [-- NAME…]`.
//!
//! The directory is a checkout in which `make runtimetest validation-executables` has made `validation/NAME/NAME.t`.
//! Without one, the test is skipped. Programs that fail are listed with the reason in `known-differences.toml`, with the
//! platform `all`; one that is listed and passes is a failure, unless its reason begins with "either:". Most fail for every
//! runtime, as runc 1.1.5 does on the same host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use runsc_tests::{known, target, tree};

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What a program came to.
enum Outcome {
    Passed,
    /// With what it complained of.
    Failed(String),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        println!("oci: test");
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let Some(tools) = std::env::var_os("RUNTIME_TOOLS").map(PathBuf::from) else {
        println!("skipped: oci: RUNTIME_TOOLS does not name a checkout of opencontainers/runtime-tools");
        return ExitCode::SUCCESS;
    };
    let Some(runsc) = target::runsc() else {
        println!("skipped: oci: there is no runsc");
        return ExitCode::SUCCESS;
    };
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: oci: the programs want root");
        return ExitCode::SUCCESS;
    }
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("oci/known-differences.toml");
    let known: BTreeMap<String, String> = match known::read(&list) {
        Ok(list) => list.into_iter().map(|known| (known.name, known.reason)).collect(),
        Err(error) => {
            println!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = dir.path().join("runtime");
    if let Err(error) = wrap(&runsc, &runtime) {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    let programs = programs(&tools);
    if programs.is_empty() {
        println!("skipped: oci: {} has no validation programs that were built", tools.display());
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut unexpected) = (0, Vec::new());
    for (name, program) in &programs {
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        match (run(program, &tools, &runtime), known.get(name)) {
            (_, Some(reason)) if reason.starts_with("either:") => println!("known   {name}: {reason}"),
            (Outcome::Passed, None) => {
                passed += 1;
                println!("ok      {name}");
            }
            (Outcome::Failed(_), Some(reason)) => println!("known   {name}: {reason}"),
            (Outcome::Passed, Some(_)) => {
                unexpected.push(format!("{name}: passes, and is listed as a difference"))
            }
            (Outcome::Failed(why), None) => unexpected.push(format!("{name}: {why}")),
        }
    }
    for line in &unexpected {
        println!("FAILED  {line}");
    }
    println!("oci: {passed} passed, {} unexpected", unexpected.len());
    if unexpected.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes a runtime whose containers write to the host's files: that is where the programs look for what was written.
fn wrap(runsc: &Path, runtime: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let runsc = std::fs::canonicalize(runsc)?;
    std::fs::write(runtime, format!("#!/bin/sh\nexec '{}' --overlay2=none \"$@\"\n", runsc.display()))?;
    std::fs::set_permissions(runtime, std::fs::Permissions::from_mode(0o755))
}

/// The programs that were built, by name.
fn programs(tools: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(tools.join("validation")).into_iter().flatten().flatten();
    let mut programs: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let program = entry.path().join(format!("{name}.t"));
            program.exists().then_some((name, program))
        })
        .collect();
    programs.sort();
    programs
}

/// Runs a program, which calls the runtime that `$RUNTIME` names, and reads what it says: the Test Anything Protocol.
fn run(program: &Path, tools: &Path, runtime: &Path) -> Outcome {
    let output = match tempfile::tempfile() {
        Ok(file) => file,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let Ok(stdout) = output.try_clone() else { return Outcome::Failed("dup".into()) };
    let child = Command::new(program)
        .current_dir(tools)
        .env("RUNTIME", runtime)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                tree::kill_tree(child.id());
                let _ = child.wait();
                return Outcome::Failed(format!("still running after {} s", LIMIT.as_secs()));
            }
        }
    };
    let said = read(output);
    let complaints: Vec<&str> = said.lines().filter(|line| line.starts_with("not ok")).collect();
    // Parts of a program may be skipped, for what config.json does not have. Some programs say something only of errors.
    let checked = said.lines().any(|line| line.starts_with("ok") && !line.contains("# SKIP"));
    let error = said.lines().find(|line| line.trim_start().starts_with("\"error\": \""));
    match (status.success(), complaints.first(), error) {
        (_, Some(complaint), _) => Outcome::Failed((*complaint).to_owned()),
        (false, _, _) => Outcome::Failed(status.to_string()),
        (true, None, Some(error)) if !checked => Outcome::Failed(error.trim().to_owned()),
        (true, None, _) => Outcome::Passed,
    }
}

fn read(mut file: std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
