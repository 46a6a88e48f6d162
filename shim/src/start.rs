//! `start`: finds the shim of a container's pod, or starts one, and answers with its address.
//!
//! containerd before 2.3 takes a plain address, and then speaks version 2 of the Task API; from 2.3 on it sends a message
//! and takes one. The server speaks both versions, which differ in nothing but the name.

use std::fs;
use std::io::{ErrorKind, IsTerminal, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::config::Config;

/// Where the sockets of shims are, as containerd's own has it. The path must be short.
const SOCKETS: &str = "/run/containerd/s";
/// In a bundle: the address of its shim, which containerd reads when it starts again.
const ADDRESS: &str = "address";
/// Where containerd takes events.
pub const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// Tells the server where to log.
pub const LOG_PATH: &str = "RUNSC_SHIM_LOG";
/// What containerd sends is not longer.
const MAX_INPUT: u64 = 10 << 20;
/// The version of the Task API that a 2.3 is told.
const TASK_API: i32 = 3;

/// Annotations that name the pod which a container belongs to.
const POD_ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// What containerd sends on standard input.
struct Input {
    /// From 2.3 on.
    params: Option<BootstrapParams>,
    options: Option<Any>,
}

/// The answer for containerd.
pub fn start(args: &Args) -> Result<Vec<u8>> {
    let bundle = args.bundle()?;
    let input = read_input(args)?;
    let ttrpc = match &input.params {
        Some(params) => params.containerd_ttrpc_address.clone(),
        None => std::env::var(TTRPC_ADDRESS).unwrap_or_default(),
    };
    if ttrpc.is_empty() {
        bail!("{TTRPC_ADDRESS} is not set: this program is called by containerd");
    }
    let containerd = match &input.params {
        Some(params) if args.address.is_empty() => params.containerd_grpc_address.clone(),
        _ => args.address.clone(),
    };
    let directory = match input.params.as_ref().and_then(|params| params.socket_dir.as_deref()) {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => PathBuf::from(SOCKETS),
    };
    let config = Config::from_options(input.options.as_ref(), &args.namespace)?;
    let path = directory.join(socket_name(&containerd, &args.namespace, &pod(&bundle, &args.id)?));
    let address = format!("unix://{}", path.display());
    if let Some(listener) = listen(&path)? {
        let started = spawn(args, &config, &bundle, &ttrpc, listener);
        if let Err(error) = started {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
    }
    fs::write(bundle.join(ADDRESS), &address)
        .with_context(|| format!("writing {:?}", bundle.join(ADDRESS)))?;
    match input.params {
        None => Ok(address.into_bytes()),
        Some(_) => Ok(BootstrapResult {
            version: TASK_API,
            address,
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        }
        .write_to_bytes()?),
    }
}

fn read_input(args: &Args) -> Result<Input> {
    let mut bytes = Vec::new();
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_INPUT).read_to_end(&mut bytes).context("reading what containerd sends")?;
    }
    Ok(parse_input(&bytes, args))
}

fn parse_input(bytes: &[u8], args: &Args) -> Input {
    // An Any is a valid message of the other kind, too, but does not name the container.
    if let Ok(params) = BootstrapParams::parse_from_bytes(bytes)
        && params.instance_id == args.id
        && params.namespace == args.namespace
    {
        let mut values = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
        let options = values.find(|any| any.type_url.ends_with(".Options")).cloned();
        return Input { params: Some(params), options };
    }
    let options = Any::parse_from_bytes(bytes).ok().filter(|any| !any.type_url.is_empty());
    Input { params: None, options }
}

/// The pod that a container belongs to: itself, if it is alone.
fn pod(bundle: &Path, id: &str) -> Result<String> {
    let path = bundle.join("config.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(id.to_owned()),
        Err(error) => return Err(error).with_context(|| format!("reading {path:?}")),
    };
    let spec: Value = serde_json::from_slice(&text).with_context(|| format!("reading {path:?}"))?;
    let named = POD_ANNOTATIONS.iter().find_map(|name| spec["annotations"][name].as_str());
    Ok(named.filter(|pod| !pod.is_empty()).unwrap_or(id).to_owned())
}

fn socket_name(containerd: &str, namespace: &str, pod: &str) -> String {
    let who = Path::new(containerd).join(namespace).join(pod);
    let digest = Sha256::digest(who.as_os_str().as_encoded_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new socket; None if a shim listens there.
fn listen(path: &Path) -> Result<Option<UnixListener>> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("creating {directory:?}"))?;
    }
    for _ in 0..10 {
        match UnixListener::bind(path) {
            Ok(listener) => {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                    .with_context(|| format!("{path:?}"))?;
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("listening on {path:?}")),
        }
        match UnixStream::connect(path) {
            Ok(_) => return Ok(None),
            // What a shim left that was killed.
            Err(_) => drop(fs::remove_file(path)),
        }
    }
    bail!("{path:?} is taken, and nobody listens")
}

/// Starts the server, which gets the socket as its standard input.
fn spawn(args: &Args, config: &Config, bundle: &Path, ttrpc: &str, listener: UnixListener) -> Result<()> {
    let this = std::env::current_exe().context("this program's path")?;
    let mut command = Command::new(this);
    command
        .args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address])
        .env(TTRPC_ADDRESS, ttrpc)
        .current_dir(bundle)
        .process_group(0)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if args.debug || config.debug {
        command.arg("-debug");
    }
    if let Some(path) = &config.log_path {
        command.env(LOG_PATH, path.replace("%ID%", &args.id));
    }
    let child = command.spawn().context("starting the server")?;
    // More than containerd itself, less than the containers.
    if let Ok(own) = fs::read_to_string("/proc/self/oom_score_adj")
        && let Ok(score) = own.trim().parse::<i32>()
    {
        let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), (score + 1).min(1000).to_string());
    }
    Ok(())
}

/// Removes the socket of a bundle's shim, if that is gone.
pub fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join(ADDRESS)) else { return };
    let Some(path) = address.trim().strip_prefix("unix://") else { return };
    if UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_a_pod_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pod(dir.path(), "c1").unwrap(), "c1");
        let config = dir.path().join("config.json");
        for (text, expected) in [
            (r#"{}"#, "c1"),
            (r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}"#, "pod"),
            (r#"{"annotations": {"io.kubernetes.cri.sandbox-id": ""}}"#, "c1"),
        ] {
            fs::write(&config, text).unwrap();
            assert_eq!(pod(dir.path(), "c1").unwrap(), expected, "{text}");
        }
        fs::write(&config, "no json").unwrap();
        assert!(pod(dir.path(), "c1").is_err());
        let name = socket_name("/run/containerd/containerd.sock", "default", "123");
        assert_eq!(name, "0ddfbd72d02b3551e75f3a0ed90b9965b533401be618f43a568bc522764e0ad0");
    }

    #[test]
    fn a_socket_is_taken_over_from_the_dead_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s/socket");
        let first = listen(&path).unwrap().unwrap();
        assert!(listen(&path).unwrap().is_none());
        fs::write(dir.path().join(ADDRESS), format!("unix://{}", path.display())).unwrap();
        remove_dead_socket(dir.path());
        assert!(path.exists());
        drop(first);
        let second = listen(&path).unwrap().unwrap();
        drop(second);
        remove_dead_socket(dir.path());
        assert!(!path.exists());
    }

    #[test]
    fn both_generations_of_containerd_are_understood() {
        let args = Args { id: "c1".into(), namespace: "ns".into(), ..Args::default() };
        let any = Any { type_url: "x.v1.Options".into(), value: vec![1], ..Default::default() };
        let old = parse_input(&any.write_to_bytes().unwrap(), &args);
        assert!(old.params.is_none());
        assert_eq!(old.options, Some(any.clone()));
        let none = parse_input(&[], &args);
        assert!(none.params.is_none() && none.options.is_none());
        let mut params =
            BootstrapParams { instance_id: "c1".into(), namespace: "ns".into(), ..Default::default() };
        let mut extension = containerd_shim_protos::bootstrap_api::Extension::new();
        extension.value = Some(any.clone()).into();
        params.extensions.push(extension);
        let new = parse_input(&params.write_to_bytes().unwrap(), &args);
        assert_eq!((new.params, new.options), (Some(params), Some(any)));
    }
}
