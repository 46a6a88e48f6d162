//! Pods: several containers in one sandbox. Container managers ask for them by annotations: the first container of a
//! pod is of type "sandbox", the others are of type "container" and name it.
//!
//! A container that joins has a gofer of its own, and a process of the host that stands for it: that process ends as
//! the container does, passes signals on, and takes the container with it when it is killed. Managers wait for it as
//! they wait for the first process of any container.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::console::{Signals, Stdio};
use crate::container::{Parts, forward};
use crate::control::{Address, Client, FIRST, Target};
use crate::process::{self, Child, Entered, ProcessId};
use crate::record;
use crate::report;
use crate::sandbox::{self, Guard, Options, RECORD};
use crate::state::{Container, Root, State, Status};
use crate::view;

/// The annotations of containerd, and of CRI-O and Podman: a container's type, and the id of its sandbox.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// The sandbox that a container is to join; None if it gets its own.
pub fn sandbox_of<'a>(id: &str, spec: &'a Spec) -> Result<Option<&'a str>> {
    let Some(annotations) = spec.annotations() else { return Ok(None) };
    for (kind, name) in ANNOTATIONS {
        match annotations.get(kind).map(String::as_str) {
            Some("container") => {}
            Some("sandbox") => return Ok(None),
            Some(other) => bail!("annotation {kind}: {other:?} is neither sandbox nor container"),
            None => continue,
        }
        let sandbox = annotations.get(name).with_context(|| format!("annotation {name} is missing"))?;
        return Ok(Some(sandbox.as_str()).filter(|sandbox| *sandbox != id));
    }
    Ok(None)
}

/// A sandbox that can be joined.
pub struct Sandbox {
    /// The state of its first container.
    pub state: State,
    /// What that was created with.
    pub spec: Spec,
}

impl Sandbox {
    /// Finds it.
    pub fn find(root: &Root, id: &str) -> Result<Sandbox> {
        let find = || {
            let state = root.read(id)?;
            if state.sandbox.is_some() {
                bail!("it is itself in the sandbox of another container");
            }
            match state.status() {
                Status::Created | Status::Running => {}
                status => bail!("it is {}", status.as_str()),
            }
            let spec = crate::container::read_spec(&root.directory(id))?;
            Ok(Sandbox { state, spec })
        };
        find().with_context(|| format!("joining sandbox {id:?}"))
    }
}

/// The container whose pid namespace another one is to share; None for one of its own.
///
/// A path `/proc/PID/ns/pid` names the container that PID stands for. Managers that keep namespaces elsewhere mean the
/// sandbox's, as does a configuration that asks for no pid namespace.
pub fn pid_namespace(root: &Root, sandbox: &State, spec: &Spec) -> Result<Option<String>> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let namespace =
        namespaces.into_iter().flatten().find(|namespace| namespace.typ() == LinuxNamespaceType::Pid);
    let path = match namespace.map(|namespace| namespace.path().as_deref()) {
        Some(None) => return Ok(None),
        Some(Some(path)) => path,
        None => Path::new(""),
    };
    let pid =
        path.to_str().and_then(|path| path.strip_prefix("/proc/")?.split('/').next()?.parse::<i32>().ok());
    let Some(pid) = pid else { return Ok(Some(sandbox.id.clone())) };
    for id in root.ids()? {
        let Ok(state) = root.read(&id) else { continue };
        if state.sandbox.as_ref() == Some(&sandbox.id)
            && state.stand_in.as_ref().is_some_and(|stand_in: &ProcessId| stand_in.pid == pid)
        {
            return Ok(Some(id));
        }
    }
    Ok(Some(sandbox.id.clone()))
}

/// What annotations say about volumes of a pod (gVisor's `dev.gvisor.spec.mount.NAME.*`).
#[derive(Debug, Default)]
pub struct Volumes(Vec<Volume>);

#[derive(Debug, Default)]
struct Volume {
    name: String,
    /// Where the manager has it on the host.
    source: PathBuf,
    /// `tmpfs` or `bind`.
    kind: String,
    /// `container`, `pod` or `shared`.
    share: String,
    options: Vec<String>,
}

/// A volume that is kept in the sandbox's memory instead of the host's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryVolume {
    /// Its name, if the containers of the pod share it.
    pub shared: Option<String>,
    /// Options of the tmpfs.
    pub options: Vec<String>,
}

impl Volumes {
    const PREFIX: &str = "dev.gvisor.spec.mount.";

    /// Reads the annotations of a pod's first container.
    pub fn of(spec: &Spec) -> Volumes {
        let mut volumes = BTreeMap::<&str, Volume>::new();
        for (key, value) in spec.annotations().iter().flatten() {
            let Some((name, field)) = key.strip_prefix(Self::PREFIX).and_then(|rest| rest.rsplit_once('.'))
            else {
                continue;
            };
            let volume = volumes.entry(name).or_default();
            volume.name = name.to_owned();
            match field {
                "source" => volume.source = value.into(),
                "type" => volume.kind.clone_from(value),
                "share" => volume.share.clone_from(value),
                "options" => volume.options = value.split(',').map(str::to_owned).collect(),
                _ => {}
            }
        }
        Volumes(volumes.into_values().collect())
    }

    /// The volume that a bind mount of `source` stands for, if it is in memory.
    pub fn in_memory(&self, source: &Path) -> Option<MemoryVolume> {
        let volume = self.0.iter().find(|volume| volume.kind == "tmpfs" && volume.source == source)?;
        let of_tmpfs = |option: &&String| {
            ["size=", "mode=", "uid=", "gid=", "nr_inodes="].iter().any(|key| option.starts_with(key))
        };
        Some(MemoryVolume {
            shared: (volume.share != "container").then(|| volume.name.clone()),
            options: volume.options.iter().filter(of_tmpfs).cloned().collect(),
        })
    }
}

/// A container that is joining a sandbox.
pub struct Joining {
    /// The process that stands for it.
    pub stand_in: Guard,
    /// Its gofer.
    pub gofer: Guard,
    /// The sentry's end of the connection to the gofer.
    channel: OwnedFd,
    /// The sentry's end of what the stand-in waits for.
    life: UnixStream,
    record: File,
}

impl Joining {
    /// Starts the gofer and the stand-in. Both end by themselves if the caller dies before the sentry has them.
    pub fn start(
        options: &Options,
        address: &Address,
        container: &Container,
        parts: &Parts<'_>,
    ) -> Result<Joining> {
        let record = record::create(&container.path.join(RECORD))?;
        let prepare = |pid: Pid, entered: &Entered| parts.prepare(options, pid, entered);
        let home = sandbox::Home { place: parts.place(), prepare: &prepare };
        let (gofer, channel) = sandbox::start_gofer(options, &container.id, &parts.plan.served, &home)?;
        let (life, other_end) = UnixStream::pair()?;
        let foreground = parts.plan.guest.process.terminal;
        let signals = Signals::take_over()?;
        let (covered, cover) = pipe2(OFlag::O_CLOEXEC)?;
        // A manager that enters its mount namespace is to find the container there, not the host.
        let own_mounts = match nix::unistd::geteuid().is_root() {
            true => CloneFlags::CLONE_NEWNS,
            false => CloneFlags::empty(),
        };
        let (stand_in, entered) = match process::fork_into(own_mounts, &home.place)? {
            Some((child, entered)) => (Guard::new(child), entered),
            None => {
                if !own_mounts.is_empty()
                    && let Err(error) = view::cover_root(parts.plan.view.as_ref())
                {
                    tracing::warn!("{}", report::line(&error));
                }
                drop((covered, cover));
                let record = container.path.join(RECORD);
                let code = stand_in(address, &record, other_end, parts.stdio, foreground, &signals);
                std::process::exit(code.unwrap_or(crate::EXIT_FAILURE));
            }
        };
        signals.give_back()?;
        drop(cover);
        process::wait_readable(covered.as_fd(), None)?;
        prepare(stand_in.child()?.pid, &entered)?;
        Ok(Joining { stand_in, gofer, channel, life, record })
    }

    /// Has the sentry make the container.
    pub fn create(
        &self,
        options: &Options,
        address: &Address,
        parts: &Parts<'_>,
        pids_of: Option<String>,
    ) -> Result<()> {
        let [input, output, error] = &parts.stdio.fds;
        let own = [self.channel.as_fd(), self.record.as_fd(), self.life.as_fd()];
        let [channel, record, life] = own;
        let entrances = parts.entrances(options)?;
        let mut fds = vec![input.as_fd(), output.as_fd(), error.as_fd(), channel, record, life];
        fds.extend(parts.stdio.preserved.iter().map(AsFd::as_fd));
        let view = parts.plan.view.as_ref().map(|view| view.device.as_fd());
        fds.extend(view);
        fds.extend(entrances.iter().map(AsFd::as_fd));
        let must_enter = !options.cgroups.rootless;
        Client::connect(address)?.create(
            &parts.plan.guest,
            pids_of,
            &fds,
            parts.stdio.preserved.len(),
            view.is_some(),
            must_enter,
        )?;
        parts.raise_oom_scores();
        Ok(())
    }

    /// Names of the processes for the state file: the stand-in and the gofer.
    pub fn ids(&self) -> Result<(ProcessId, ProcessId)> {
        Ok((ProcessId::of(self.stand_in.child()?.pid)?, ProcessId::of(self.gofer.child()?.pid)?))
    }

    /// Lets the processes live: the stand-in and the gofer.
    pub fn release(self) -> Result<(Child, Child)> {
        Ok((self.stand_in.release()?, self.gofer.release()?))
    }
}

/// The process that stands for a container: waits until the sentry lets go of the other end of `life`.
fn stand_in(
    address: &Address,
    record: &Path,
    life: UnixStream,
    stdio: &Stdio,
    foreground: bool,
    signals: &Signals,
) -> Result<i32> {
    nix::sys::prctl::set_name(c"runsc-container")?;
    let _ = nix::unistd::setsid();
    if stdio.new_terminal {
        // Whose driver then sends its signals here.
        process::take_terminal(&stdio.fds[0]);
    }
    let terminal = stdio.new_terminal.then(|| stdio.fds[0].as_fd());
    let record_file = File::open(record)?;
    process::leave_stdio();
    // Its file is closed, too.
    let _quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    // The caller's lock, its connections and files are not for this process to hold.
    let keep = [life.as_fd(), signals.as_fd(), record_file.as_fd()];
    // SAFETY: this process does not return from here, and uses nothing but these.
    unsafe { process::close_all_but(keep.into_iter().chain(terminal)) };
    signals.forward_until(life.as_fd(), |signo| {
        let target = if foreground { Target::Foreground(FIRST) } else { Target::Process(FIRST) };
        forward(address, target, signo);
    })?;
    let ended = record::read_file(&record_file).exit;
    Ok(ended.unwrap_or(record::ExitStatus::Killed(libc::SIGKILL as u8)).code())
}

/// Makes the sentry forget a container and end all of its processes. Fine if it has forgotten it already. True if its
/// gofer is needed by others.
pub fn destroy(address: &Address) -> Result<bool> {
    Client::connect(address)?.destroy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(annotations: serde_json::Value) -> Spec {
        let config = json!({"ociVersion": "1.0.2", "annotations": annotations});
        crate::spec::parse(config.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn annotations_tell_who_joins_whom() {
        let role = |annotations| sandbox_of("me", &spec(annotations)).map(|found| found.map(str::to_owned));
        assert_eq!(role(json!({})).unwrap(), None);
        for (kind, name) in ANNOTATIONS {
            assert_eq!(role(json!({kind: "sandbox", name: "me"})).unwrap(), None);
            assert_eq!(role(json!({kind: "container", name: "pod"})).unwrap().as_deref(), Some("pod"));
            assert_eq!(role(json!({kind: "container", name: "me"})).unwrap(), None);
            assert!(role(json!({kind: "container"})).is_err());
            assert!(role(json!({kind: "pod", name: "pod"})).is_err());
        }
    }

    #[test]
    fn volumes_in_memory_are_found_by_their_source() {
        let volumes = Volumes::of(&spec(json!({
            "dev.gvisor.spec.mount.a.b.source": "/v/a",
            "dev.gvisor.spec.mount.a.b.type": "tmpfs",
            "dev.gvisor.spec.mount.a.b.share": "pod",
            "dev.gvisor.spec.mount.a.b.options": "rw,size=1m",
            "dev.gvisor.spec.mount.c.source": "/v/c",
            "dev.gvisor.spec.mount.c.type": "tmpfs",
            "dev.gvisor.spec.mount.c.share": "container",
            "dev.gvisor.spec.mount.d.source": "/v/d",
            "dev.gvisor.spec.mount.d.type": "bind",
            "dev.gvisor.spec.mount.d.share": "pod",
            "dev.gvisor.spec.mount.": "nonsense",
        })));
        let shared = MemoryVolume { shared: Some("a.b".into()), options: vec!["size=1m".into()] };
        assert_eq!(volumes.in_memory(Path::new("/v/a")), Some(shared));
        assert_eq!(volumes.in_memory(Path::new("/v/c")).unwrap().shared, None);
        assert_eq!(volumes.in_memory(Path::new("/v/d")), None);
        assert_eq!(volumes.in_memory(Path::new("/v")), None);
    }
}
