//! `runsc do`: a command on the files of this host.

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::isatty;
use serde_json::{Value, json};

use crate::boot::guest::Overlay;
use crate::capability;
use crate::cli::Do;
use crate::container::{CreateArgs, Runtime};
use crate::spec;
use crate::state;

/// Containers of `do` have ids that start so.
const PREFIX: &str = "do-";

/// Runs it and returns its exit code.
pub fn run_do(mut runtime: Runtime, args: &Do) -> Result<i32> {
    sweep(&runtime);
    let root = std::fs::canonicalize(&args.root).with_context(|| format!("root {:?}", args.root))?;
    let root = root.to_str().ok_or_else(|| anyhow!("root {root:?} is not UTF-8"))?;
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None if root == "/" => std::env::current_dir()
            .context("the current directory")?
            .to_str()
            .ok_or_else(|| anyhow!("the current directory is not UTF-8; use --cwd"))?
            .to_owned(),
        None => "/".into(),
    };
    let env: Vec<String> = if args.env.is_empty() {
        // What is not UTF-8 cannot be passed in a configuration; nobody misses it.
        std::env::vars_os()
            .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?)))
            .collect()
    } else {
        args.env.clone()
    };
    runtime.options.overlay = spec::OverlayPolicy {
        root: match args.force_overlay {
            true => Overlay::Memory,
            false => Overlay::None,
        },
        binds: Overlay::None,
    };
    let hostname = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "runsc".into());
    let caps = capability::all();
    // In a pipeline the terminal is also that of others, who want it as it is.
    let on_terminal = isatty(std::io::stdin()).unwrap_or(false) && isatty(std::io::stdout()).unwrap_or(false);
    let config = json!({
        "ociVersion": state::OCI_VERSION,
        "root": {"path": root},
        "hostname": hostname,
        "process": {
            "terminal": on_terminal,
            "user": {"uid": 0, "gid": 0},
            "args": args.command,
            "env": env,
            "cwd": cwd,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "mounts": mounts(args)?,
    });
    let spec = spec::parse(config.to_string().as_bytes())?;
    let id = format!("{PREFIX}{}", unique()?);
    let create = CreateArgs { die_with_command: true, no_cgroup: true, ..CreateArgs::default() };
    runtime.run(&id, std::path::Path::new("/"), &spec, &create)
}

fn mounts(args: &Do) -> Result<Vec<Value>> {
    let mut mounts = vec![json!({
        "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
        "options": ["nosuid", "nodev", "mode=1777"]
    })];
    for volume in &args.volume {
        let mut parts = volume.split(':');
        let source = parts.next().unwrap_or_default();
        let destination = parts.next().unwrap_or(source);
        let mode = match parts.next() {
            None | Some("rw") => "rw",
            Some("ro") => "ro",
            Some(other) => bail!("--volume {volume:?}: expected ro or rw, not {other:?}"),
        };
        let source =
            std::fs::canonicalize(source).with_context(|| format!("--volume {volume:?}: {source:?}"))?;
        mounts.push(json!({
            "destination": destination, "type": "bind", "source": source,
            "options": ["rbind", mode]
        }));
    }
    Ok(mounts)
}

/// Eight random hexadecimal digits.
fn unique() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 4];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

/// Removes what commands left that were killed: nobody else knows their ids.
fn sweep(runtime: &Runtime) {
    for id in runtime.root.ids().unwrap_or_default() {
        // One that has just begun has no state yet, but holds its lock.
        if id.starts_with(PREFIX)
            && let Some(container) = runtime.root.try_open(&id)
            && runtime.root.read(&id).is_ok_and(|state| state.status() == state::Status::Stopped)
        {
            let _ = container.remove();
        }
    }
}
