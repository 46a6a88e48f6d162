//! The state directory: one directory a container below `--root`.
//!
//! ```text
//! ROOT/ID/lock          flock(2)ed by every command that changes the container
//! ROOT/ID/state.json    written to a temporary name and renamed
//! ROOT/ID/config.json   the configuration that it was made with
//! ROOT/ID/record        how it ended, written by the sentry (see `record`)
//! ROOT/ID/control       the socket of the sentry's control API
//! ROOT/ID/fds           the socket for descriptors beside it
//! ```
//! A command may be killed at any point: a directory without a state.json is what is left of a create, and
//! processes are named so that a reused pid is not mistaken for one of ours.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::control::Address;
use crate::process::ProcessId;
use crate::record::{self, Record};
use crate::sandbox::RECORD;

/// The OCI version that state output names.
pub const OCI_VERSION: &str = "1.2.0";

/// What a directory's name starts with while it is removed. Ids do not start with a dot.
const REMOVED: &str = ".removed-";

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A create is at work, or was killed.
    Creating,
    /// Its first process waits for start.
    Created,
    /// Its first process has been started.
    Running,
    /// Its processes are held.
    Paused,
    /// Nothing of it runs.
    Stopped,
}

impl Status {
    /// The OCI word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A state.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Annotations of its configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// The last status that a command set; see [`State::status`].
    pub status: Status,
    /// The sentry.
    pub sentry: Option<ProcessId>,
    /// The gofer.
    pub gofer: Option<ProcessId>,
    /// The id of the sandbox's first container, if this one has joined it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The process that stands for a container that has joined a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<ProcessId>,
    /// What the sentry says.
    #[serde(skip)]
    pub record: Record,
}

impl State {
    /// The status now: what the sentry says, or what was written, unless the sentry is gone.
    pub fn status(&self) -> Status {
        match &self.sentry {
            Some(sentry) if sentry.alive() && self.record.exit.is_none() => match self.record.started {
                // What a command has seen to.
                true if self.status == Status::Paused => Status::Paused,
                true => Status::Running,
                false => self.status,
            },
            _ => Status::Stopped,
        }
    }

    /// The process of the host that a manager knows the container by, as long as it has not stopped.
    pub fn process(&self) -> Option<&ProcessId> {
        self.stand_in.as_ref().or(self.sentry.as_ref())
    }

    /// What `runsc state` prints and hooks read.
    pub fn oci(&self) -> serde_json::Value {
        self.oci_as(self.status())
    }

    /// The same with a status that hooks are to see.
    pub fn oci_as(&self, status: Status) -> serde_json::Value {
        let pid = match status {
            Status::Stopped => 0,
            _ => self.process().map_or(0, |process| process.pid),
        };
        serde_json::json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status.as_str(),
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.annotations,
            "created": self.created,
            "owner": owner_name(self.owner),
        })
    }
}

/// A user's login name, or the number.
pub fn owner_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The directory that `--root` names, or the default: `/run/runsc` for root (not that of a user namespace), else `$XDG_RUNTIME_DIR/runsc`, else a
/// directory of the user's own in `/tmp`.
pub fn default_root() -> PathBuf {
    let uid = nix::unistd::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        // Root of a user namespace, as under a rootless Podman, is an ordinary user outside.
        Some(dir) if !uid.is_root() || !in_first_user_namespace() => PathBuf::from(dir).join("runsc"),
        _ if uid.is_root() => PathBuf::from("/run/runsc"),
        _ => PathBuf::from(format!("/tmp/runsc-{uid}")),
    }
}

/// Whether ids mean here what they mean to the host: the first user namespace maps all of them to themselves.
fn in_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Containers below one `--root`.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Names it. Nothing is made before the first container.
    pub fn new(path: PathBuf) -> Root {
        Root { path }
    }

    /// Makes and locks the directory of a new container. Fails if there is one, except the remains of a create that
    /// was killed before anything was started, which are taken over.
    pub fn create(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.path).with_context(|| format!("creating {:?}", self.path))?;
        let owner = fs::metadata(&self.path)?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            bail!("{:?} belongs to user {owner}", self.path);
        }
        loop {
            let path = self.path.join(id);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("creating {path:?}")),
            }
            let Some(container) = Container::lock(id, path, FlockArg::LockExclusiveNonblock)? else {
                continue;
            };
            if container.exists() {
                bail!("a container {id:?} already exists");
            }
            self.sweep();
            return Ok(container);
        }
    }

    /// Removes what removals left that were killed.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Locks an existing container. Waits for another command that holds it.
    pub fn open(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        loop {
            let path = self.path.join(id);
            if !path.exists() {
                bail!("container {id:?} does not exist");
            }
            match Container::lock(id, path, FlockArg::LockExclusive) {
                Ok(Some(container)) => return Ok(container),
                Ok(None) => continue,
                Err(_) if !self.path.join(id).exists() => continue,
                Err(error) => return Err(error),
            }
        }
    }

    /// Locks a container unless another command holds it, or it is not there.
    pub fn try_open(&self, id: &str) -> Option<Container> {
        check_id(id).ok()?;
        Container::lock(id, self.path.join(id), FlockArg::LockExclusiveNonblock).ok()?
    }

    /// Reads an existing container's state without waiting for anybody. A directory without one is a container that
    /// is being created, or what is left of that.
    pub fn read(&self, id: &str) -> Result<State> {
        check_id(id)?;
        let dir = self.path.join(id);
        match read_state(&dir)? {
            Some(state) => Ok(state),
            None if dir.exists() => Ok(State {
                id: id.to_owned(),
                bundle: PathBuf::new(),
                annotations: BTreeMap::new(),
                created: String::new(),
                owner: fs::metadata(&dir).map_or(0, |meta| meta.uid()),
                status: Status::Creating,
                sentry: None,
                gofer: None,
                sandbox: None,
                stand_in: None,
                record: Record::default(),
            }),
            None => bail!("container {id:?} does not exist"),
        }
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {:?}", self.path));
            }
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Where a container's sentry is asked about it.
    pub fn address(&self, state: &State) -> Address {
        let sandbox = state.sandbox.as_ref().unwrap_or(&state.id);
        Address { sandbox: self.directory(sandbox), container: state.id.clone() }
    }

    /// Where a container's files are.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }
}

/// Ids become file names: as in runc, letters, digits, `_`, `+`, `-` and `.`, not starting with a dot.
fn check_id(id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 255 || id.starts_with('.') || !id.chars().all(fine) {
        bail!("{id:?} is no valid container id");
    }
    Ok(())
}

/// A locked container.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    _lock: Flock<File>,
}

impl Container {
    /// None if the directory was removed or made anew meanwhile.
    fn lock(id: &str, path: PathBuf, how: FlockArg) -> Result<Option<Container>> {
        let lock_path = path.join("lock");
        let file = match OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("opening {lock_path:?}")),
        };
        let lock = Flock::lock(file, how).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => {
                anyhow!("another command is at work on container {id:?}")
            }
            errno => anyhow::Error::new(errno).context(format!("locking {lock_path:?}")),
        })?;
        let same = match (fs::metadata(&lock_path), lock.metadata()) {
            (Ok(now), Ok(held)) => now.ino() == held.ino() && now.dev() == held.dev(),
            _ => false,
        };
        Ok(same.then(|| Container { id: id.to_owned(), path, _lock: lock }))
    }

    /// Whether a state was ever written.
    pub fn exists(&self) -> bool {
        self.path.join("state.json").exists()
    }

    /// Its state; None if its create was killed before anything was started.
    pub fn state(&self) -> Result<Option<State>> {
        read_state(&self.path)
    }

    /// Writes its state so that readers see the old one or the new one.
    pub fn save(&self, state: &State) -> Result<()> {
        self.write("state.json", &serde_json::to_vec(state)?)
    }

    /// Writes one of its files in one step.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let temporary = self.path.join(format!("{name}.new"));
        let target = self.path.join(name);
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(text)?;
            fs::rename(&temporary, &target)
        };
        write().with_context(|| format!("writing {target:?}"))
    }

    /// Removes all of its files, and with them the container.
    pub fn remove(self) -> Result<()> {
        // Under another name first, so that nobody finds, locks or fills a directory that is half gone.
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let doomed = parent.join(format!("{REMOVED}{}", self.id));
        let _ = fs::remove_dir_all(&doomed);
        fs::rename(&self.path, &doomed).with_context(|| format!("removing {:?}", self.path))?;
        match fs::remove_dir_all(&doomed) {
            // Another command may have swept it away.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {doomed:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The lock's descriptor number, for tests.
    #[cfg(test)]
    fn number(&self) -> i32 {
        self._lock.as_raw_fd()
    }
}

fn read_state(dir: &Path) -> Result<Option<State>> {
    let path = dir.join("state.json");
    match fs::read(&path) {
        Ok(text) => {
            let state: State = serde_json::from_slice(&text).with_context(|| format!("reading {path:?}"))?;
            // Afterwards: a state that is read while it changes is not older than its record.
            let record = record::read(&dir.join(RECORD));
            Ok(Some(State { record, ..state }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {path:?}")),
    }
}

/// What a socket of a sandbox carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes (SOCK_STREAM).
    Stream,
    /// Packets (SOCK_SEQPACKET).
    Packets,
}

impl Kind {
    fn socket_type(self) -> nix::sys::socket::SockType {
        match self {
            Kind::Stream => nix::sys::socket::SockType::Stream,
            Kind::Packets => nix::sys::socket::SockType::SeqPacket,
        }
    }
}

/// A listening socket in `directory`, whose path may be longer than a socket address: bound through it.
pub fn listen(directory: &Path, name: &str, kind: Kind) -> Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, UnixAddr, bind, listen, socket};
    let socket = socket(
        AddressFamily::Unix,
        kind.socket_type(),
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .context("socket")?;
    let dir = File::open(directory).with_context(|| format!("opening {directory:?}"))?;
    let address = UnixAddr::new(&PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))?;
    let _ = fs::remove_file(directory.join(name));
    bind(socket.as_raw_fd(), &address).with_context(|| format!("bind {:?}", directory.join(name)))?;
    listen(&socket, Backlog::new(64)?).context("listen")?;
    Ok(socket)
}

/// Connects to what [`listen`] made.
pub fn connect(directory: &Path, name: &str, kind: Kind) -> Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, UnixAddr, connect, socket};
    let socket =
        socket(AddressFamily::Unix, kind.socket_type(), SockFlag::SOCK_CLOEXEC, None).context("socket")?;
    let dir = File::open(directory).with_context(|| format!("opening {directory:?}"))?;
    let address = UnixAddr::new(&PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))?;
    connect(socket.as_raw_fd(), &address).with_context(|| format!("connect {:?}", directory.join(name)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;

    fn state(id: &str) -> State {
        State {
            id: id.into(),
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
            created: clock(),
            owner: 0,
            status: Status::Created,
            sentry: Some(ProcessId::of(Pid::this()).unwrap()),
            gofer: None,
            sandbox: None,
            stand_in: None,
            record: Record::default(),
        }
    }

    fn clock() -> String {
        crate::clock::now()
    }

    #[test]
    fn a_container_exists_from_its_first_state_to_its_removal() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("state"));
        assert!(root.ids().unwrap().is_empty());
        assert!(root.open("c1").is_err());
        // A create that was killed leaves a directory, which the next one takes over.
        drop(root.create("c1").unwrap());
        assert_eq!(root.read("c1").unwrap().status(), Status::Stopped);
        let container = root.create("c1").unwrap();
        container.save(&state("c1")).unwrap();
        let error = root.create("c1").unwrap_err();
        assert!(error.to_string().contains("another command"), "{error}");
        drop(container);
        let error = root.create("c1").unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        assert_eq!(root.read("c1").unwrap().status(), Status::Created);
        assert_eq!(root.ids().unwrap(), ["c1"]);
        root.open("c1").unwrap().remove().unwrap();
        assert!(root.ids().unwrap().is_empty());
        assert!(root.read("c1").is_err());
    }

    #[test]
    fn a_dead_sentry_means_stopped() {
        let mut state = state("c1");
        assert_eq!(state.oci()["pid"], std::process::id());
        state.sentry.as_mut().unwrap().start_time += 1;
        assert_eq!(state.status(), Status::Stopped);
        assert_eq!(state.oci()["pid"], 0);
        assert_eq!(state.oci()["status"], "stopped");
    }

    #[test]
    fn a_lock_on_a_removed_directory_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().to_owned());
        let first = root.create("c1").unwrap();
        assert!(first.number() >= 0);
        let waiting = std::thread::spawn({
            let root = root.clone();
            move || root.open("c1").map(|c| c.id)
        });
        first.remove().unwrap();
        // Whether it came before or after the removal, it finds no container.
        assert!(waiting.join().unwrap().is_err());
    }

    #[test]
    fn the_record_says_what_the_state_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().to_owned());
        let container = root.create("c1").unwrap();
        container.save(&state("c1")).unwrap();
        let page = record::Page::open(&record::create(&container.path.join(RECORD)).unwrap()).unwrap();
        assert_eq!(root.read("c1").unwrap().status(), Status::Created);
        page.set_started();
        assert_eq!(root.read("c1").unwrap().status(), Status::Running);
        page.set_exit(record::ExitStatus::Exited(0));
        assert_eq!(root.read("c1").unwrap().status(), Status::Stopped);
    }

    #[test]
    fn ids_cannot_leave_the_directory() {
        for id in ["", ".", "..", "a/b", ".hidden", "a b", "a\n"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "A-1_2+3.4", "0123456789abcdef"] {
            assert!(check_id(id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn sockets_may_have_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(200));
        fs::create_dir(&long).unwrap();
        let _listening = listen(&long, "control", Kind::Stream).unwrap();
        connect(&long, "control", Kind::Stream).unwrap();
    }
}
