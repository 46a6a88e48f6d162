//! `linux.namespaces`: those of the host that config.json names.
//!
//! The sandbox has a kernel of its own, so most of its namespaces have no counterpart on the host. The network is
//! different: a manager prepares interfaces in a namespace of the host and names it, and the sandbox's process has to be
//! in it.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::process;

/// Which network namespace the sandbox's process is in.
#[derive(Debug, Default)]
pub enum Network {
    /// A new one.
    #[default]
    New,
    /// This one.
    Of(File),
    /// None is asked for. If the container is to have the host's sockets, that of the caller; else a new one, since it
    /// has no use for another.
    Callers,
}

/// Checks what is named, and opens what is needed of it.
pub fn network(spec: &Spec) -> Result<Network> {
    let mut network = Network::Callers;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    let namespaces = namespaces.unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        let kind = namespace.typ();
        if namespaces.iter().take(index).any(|other| other.typ() == kind) {
            bail!("config.json: linux.namespaces: {kind} is given twice");
        }
        let Some(path) = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) else {
            if kind == LinuxNamespaceType::Network {
                network = Network::New;
            }
            continue;
        };
        let file =
            open(kind, path).with_context(|| format!("config.json: linux.namespaces: {kind} {path:?}"))?;
        match kind {
            LinuxNamespaceType::Network => network = Network::Of(file),
            _ => tracing::info!("the {kind} namespace {path:?} is the host's, the container has its own"),
        }
    }
    Ok(network)
}

fn open(kind: LinuxNamespaceType, path: &Path) -> Result<File> {
    let file = File::open(path)?;
    let wanted = match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        // The flag of time namespaces, which nix does not know.
        LinuxNamespaceType::Time => CloneFlags::from_bits_retain(0x80),
    };
    match process::namespace_type(&file) {
        Ok(found) if found == wanted => Ok(file),
        Ok(_) => bail!("is a namespace of another type"),
        Err(_) => bail!("is no namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(namespaces: serde_json::Value) -> Result<Network> {
        let spec = json!({"ociVersion": "1.2.0", "linux": {"namespaces": namespaces}});
        network(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn namespaces_are_what_they_are_said_to_be() {
        assert!(matches!(parse(json!([{"type": "network"}])), Ok(Network::New)));
        assert!(matches!(parse(json!([{"type": "pid"}])), Ok(Network::Callers)));
        let own = parse(json!([{"type": "network", "path": "/proc/self/ns/net"}, {"type": "pid"}]));
        assert!(matches!(own, Ok(Network::Of(_))));
        let said = |namespaces| crate::report::line(&parse(namespaces).unwrap_err());
        assert!(said(json!([{"type": "network", "path": "/proc/self/ns/ipc"}])).contains("another type"));
        assert!(said(json!([{"type": "ipc", "path": "/dev/null"}])).contains("no namespace"));
        assert!(said(json!([{"type": "uts", "path": "/nowhere"}])).contains("no such file"));
        assert!(said(json!([{"type": "ipc"}, {"type": "ipc"}])).contains("twice"));
    }
}
