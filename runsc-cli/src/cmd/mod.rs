//! The verbs, one function each; the longer ones in modules of their own.

mod do_;
mod events;
mod exec;
mod features;
mod install;
mod pause;
mod update;

pub use do_::run_do;
pub use events::events;
pub use exec::exec;
pub use features::features;
pub use install::{install, uninstall};
pub use pause::{pause, resume};
pub use update::update;

use std::io::Write;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::boot;
use crate::cli;
use crate::console::{refuse_activation, signal_number};
use crate::container::{CreateArgs, Runtime};
use crate::control::{Client, FIRST, ProcessInfo, Target};
use crate::report::print;
use crate::spec;
use crate::state::{self, Status};

/// `runsc run`
pub fn run(runtime: &Runtime, args: &cli::Run, preserved: Vec<OwnedFd>) -> Result<i32> {
    let bundle = spec::bundle_path(&args.flags.bundle)?;
    let spec = spec::load(&bundle)?;
    let create = CreateArgs { keep: args.keep, ..create_args(&args.flags, args.detach, preserved)? };
    runtime.run(&args.id, &bundle, &spec, &create)
}

/// `runsc create`
pub fn create(runtime: &Runtime, args: &cli::Create, preserved: Vec<OwnedFd>) -> Result<i32> {
    let bundle = spec::bundle_path(&args.flags.bundle)?;
    let spec = spec::load(&bundle)?;
    runtime.create(&args.id, &bundle, &spec, &create_args(&args.flags, true, preserved)?)?;
    Ok(0)
}

fn create_args(flags: &cli::CreateFlags, detach: bool, preserved: Vec<OwnedFd>) -> Result<CreateArgs> {
    refuse_activation()?;
    Ok(CreateArgs {
        console_socket: flags.console_socket.clone(),
        pid_file: flags.pid_file.clone(),
        detach,
        die_with_command: false,
        no_cgroup: false,
        keep: false,
        preserved,
        user_log: flags.user_log.clone(),
    })
}

/// `runsc start`
pub fn start(runtime: &Runtime, id: &str) -> Result<i32> {
    let container = runtime.root.open(id)?;
    let Some(mut state) = container.state()? else {
        bail!("it was never created");
    };
    runtime.start(&container, &mut state)?;
    Ok(0)
}

/// `runsc spec`
pub fn write_spec(args: &cli::SpecArgs) -> Result<i32> {
    let path = args.bundle.join("config.json");
    let command = match args.command.is_empty() {
        true => vec!["sh".to_owned()],
        false => args.command.clone(),
    };
    let default_caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let config = json!({
        "ociVersion": state::OCI_VERSION,
        "process": {
            "terminal": nix::unistd::isatty(std::io::stdin()).unwrap_or(false),
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"
            ],
            "cwd": args.cwd,
            "capabilities": {
                "bounding": default_caps,
                "effective": default_caps,
                "permitted": default_caps
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runsc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}
            ]
        }
    });
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("creating {path:?}"))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&config)?)
        .with_context(|| format!("writing {path:?}"))?;
    Ok(0)
}

/// `runsc list`
pub fn list(runtime: &Runtime, args: &cli::List) -> Result<i32> {
    let mut rows = Vec::new();
    for id in runtime.root.ids()? {
        // One that is deleted meanwhile is not there.
        if let Ok(state) = runtime.root.read(&id) {
            rows.push(state);
        }
    }
    if args.quiet {
        for state in &rows {
            if !print(&state.id)? {
                break;
            }
        }
    } else if args.format == cli::Format::Json {
        let rows: Vec<_> = rows.iter().map(state::State::oci).collect();
        print(serde_json::to_string(&rows)?)?;
    } else {
        let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
        for state in &rows {
            let oci = state.oci();
            table.push([
                state.id.clone(),
                oci["pid"].to_string(),
                state.status().as_str().to_owned(),
                state.bundle.display().to_string(),
                state.created.clone(),
                state::owner_name(state.owner),
            ]);
        }
        print_table(&table)?;
    }
    Ok(0)
}

/// Prints columns as wide as their widest cell.
fn print_table<const N: usize>(rows: &[[String; N]]) -> Result<()> {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        if !print(line.join("  ").trim_end())? {
            break;
        }
    }
    Ok(())
}

/// `runsc state`
pub fn state(runtime: &Runtime, id: &str) -> Result<i32> {
    let state = runtime.root.read(id)?;
    print(serde_json::to_string_pretty(&state.oci())?)?;
    Ok(0)
}

/// `runsc kill`
pub fn kill(runtime: &Runtime, args: &cli::Kill) -> Result<i32> {
    let signo = signal_number(&args.signal)?;
    let target = match (args.all, args.pid) {
        (true, Some(_)) => bail!("--all and --pid exclude each other"),
        (true, None) => Target::All,
        (false, pid) => Target::Process(pid.unwrap_or(FIRST)),
    };
    match runtime.kill(&args.id, target, signo) {
        // runc: with --all, a container that has stopped has no process left to be killed, and that is fine.
        Err(_) if args.all && runtime.root.read(&args.id).is_ok_and(|s| s.status() == Status::Stopped) => {
            Ok(0)
        }
        result => result.map(|()| 0),
    }
}

/// `runsc delete`
pub fn delete(runtime: &Runtime, args: &cli::Delete) -> Result<i32> {
    let mut first_failure = None;
    for id in &args.ids {
        let result = runtime.delete(id, args.force).with_context(|| format!("deleting container {id:?}"));
        if let Err(error) = result {
            first_failure.get_or_insert(error);
        }
    }
    first_failure.map_or(Ok(0), Err)
}

/// `runsc ps`
pub fn ps(runtime: &Runtime, args: &cli::Ps) -> Result<i32> {
    let state = runtime.root.read(&args.id)?;
    if state.status() == Status::Stopped {
        bail!("container not running");
    }
    let processes = Client::connect(&runtime.root.address(&state))?.processes()?;
    if args.format == cli::Format::Json {
        let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
        print(serde_json::to_string(&pids)?)?;
        return Ok(0);
    }
    let mut table = vec![["UID", "PID", "PPID", "THREADS", "TTY", "STIME", "TIME", "CMD"].map(String::from)];
    table.extend(processes.iter().map(ps_row));
    print_table(&table)?;
    Ok(0)
}

fn ps_row(process: &ProcessInfo) -> [String; 8] {
    let started = std::time::UNIX_EPOCH + std::time::Duration::from_secs(process.started);
    let time = crate::clock::rfc3339(started);
    let seconds = process.cpu_ms / 1000;
    [
        process.uid.to_string(),
        process.pid.to_string(),
        process.ppid.to_string(),
        process.threads.to_string(),
        process.tty.clone(),
        time.get(11..16).unwrap_or("?").to_owned(),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        process.command.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    ]
}

/// `runsc wait`
pub fn wait(runtime: &Runtime, args: &cli::Wait) -> Result<i32> {
    let status = runtime.wait(&args.id, args.pid.unwrap_or(FIRST))?;
    print(json!({"id": args.id, "exitStatus": status.code()}))?;
    Ok(0)
}

/// `runsc syscalls`
pub fn syscalls(args: &cli::Syscalls) -> Result<i32> {
    let rows = boot::syscall_table();
    if args.format == cli::Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|[number, name, support, note]| {
                json!({"number": number.parse::<u64>().unwrap_or(0), "name": name, "support": support, "note": note})
            })
            .collect();
        print(serde_json::to_string_pretty(&rows)?)?;
        return Ok(0);
    }
    let mut table = vec![["NUM", "NAME", "SUPPORT", "NOTE"].map(String::from)];
    table.extend(rows);
    print_table(&table)?;
    Ok(0)
}

/// `runsc platforms`
pub fn platforms() -> Result<i32> {
    for name in boot::PLATFORMS {
        match boot::platform(name, true) {
            Ok(platform) => {
                print(format!("{name}: usable"))?;
                for (feature, value) in platform.report().features {
                    print(format!("    {feature}: {value}"))?;
                }
            }
            Err(error) => {
                print(format!("{name}: not usable: {}", crate::report::line(&error)))?;
            }
        }
    }
    Ok(0)
}
