//! From a bundle's config.json to what the sentry is told to start.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime as oci;
use oci_spec::runtime::Spec;

use crate::boot::guest::{
    Capabilities, Device, Guest, IdRange, Ids, Mount, MountKind, Overlay, Process, Rlimit, Root,
};
use crate::boot::limits::Limits;
use crate::capability;
use crate::hooks;
use crate::host_namespaces::{self, Network};
use crate::pod;
use crate::seccomp;
use crate::users;
use crate::view::View;

/// What `--overlay2` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayPolicy {
    /// For the root filesystem.
    pub root: Overlay,
    /// For writable bind mounts.
    pub binds: Overlay,
}

impl std::str::FromStr for OverlayPolicy {
    type Err = anyhow::Error;

    /// `none`, or `root:MEDIUM` or `all:MEDIUM`; the medium is `memory` (`self` and `dir=PATH`, which gVisor also
    /// has, need an upper layer in a host file).
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" || text.is_empty() {
            return Ok(OverlayPolicy { root: Overlay::None, binds: Overlay::None });
        }
        let (scope, medium) =
            text.split_once(':').ok_or_else(|| anyhow!("{text:?} is neither none nor SCOPE:MEDIUM"))?;
        let medium = match medium.split(',').next().unwrap_or_default() {
            "memory" => Overlay::Memory,
            other if other == "self" || other.starts_with("dir=") => {
                bail!("medium {other:?} is not there yet, use memory")
            }
            other => bail!("unknown medium {other:?}, expected memory"),
        };
        match scope {
            "root" => Ok(OverlayPolicy { root: medium, binds: Overlay::None }),
            "all" => Ok(OverlayPolicy { root: medium, binds: medium }),
            other => bail!("unknown scope {other:?}, expected root or all"),
        }
    }
}

/// A host directory or file that the gofer is to serve.
#[derive(Debug)]
pub struct Served {
    /// O_PATH.
    pub fd: OwnedFd,
    /// The gofer refuses writes.
    pub readonly: bool,
}

/// A container ready to be started.
#[derive(Debug)]
pub struct Plan {
    /// For the sentry.
    pub guest: Guest,
    /// For the gofer: number N is what `gofer: N` means in the guest.
    pub served: Vec<Served>,
    /// For the sandbox's process.
    pub network: Network,
    /// For managers that enter the mount namespace of the container's process.
    pub view: Option<View>,
}

/// Reads and checks `config.json` of a bundle.
pub fn load(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("opening {path:?}"))?;
    parse(&text).with_context(|| format!("reading {path:?}"))
}

/// Reads a config.json.
pub fn parse(text: &[u8]) -> Result<Spec> {
    let spec: Spec = serde_json::from_slice(text)?;
    if !spec.version().starts_with("1.") {
        bail!("ociVersion {:?} is not supported, expected 1.x", spec.version());
    }
    Ok(spec)
}

/// Opens what the container needs of the host, and describes the rest. Relative root paths are below `bundle`; `sandbox` is
/// the configuration of the sandbox that it joins.
pub fn plan(
    id: &str,
    bundle: &Path,
    spec: &Spec,
    sandbox: Option<&Spec>,
    overlay: OverlayPolicy,
    volumes: &pod::Volumes,
) -> Result<Plan> {
    let root = spec.root().as_ref().ok_or_else(|| anyhow!("config.json has no root"))?;
    if root.path().as_os_str().is_empty() {
        bail!("config.json: root.path is empty");
    }
    let root_path = bundle.join(root.path());
    let root_fd = open_path(&root_path).with_context(|| format!("root filesystem {root_path:?}"))?;
    if !is_directory(&root_fd)? {
        bail!("root filesystem {root_path:?}: not a directory");
    }
    let readonly = root.readonly().unwrap_or(false);
    let process = spec.process().as_ref().ok_or_else(|| anyhow!("config.json has no process"))?;
    let mut process = convert_process(process, &root_fd).context("config.json: process")?;
    process.seccomp = convert_seccomp(spec)?;
    // Mount points are made in a read-only root, too; they need not be seen outside.
    let root_overlay = if readonly { Overlay::Memory } else { overlay.root };
    let mut served = vec![Served { fd: root_fd, readonly: root_overlay == Overlay::Memory }];
    let mounts = convert_mounts(spec, bundle, overlay, volumes, &mut served)?;
    let hostname = match spec.hostname().as_deref() {
        // A new namespace begins with the name of the one that it was made in.
        None | Some("") => nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        Some(hostname) => hostname.to_owned(),
    };
    if hostname.len() > 64 || hostname.contains('\0') {
        bail!("config.json: hostname {hostname:?} is longer than 64 bytes or has a zero byte");
    }
    let linux = spec.linux().as_ref();
    let guest = Guest {
        id: id.to_owned(),
        hostname,
        domainname: spec.domainname().clone().unwrap_or_default(),
        own_ipc: has_own(spec, oci::LinuxNamespaceType::Ipc),
        own_uts: has_own(spec, oci::LinuxNamespaceType::Uts),
        root: Root { gofer: 0, readonly, overlay: root_overlay },
        ids: ids(spec),
        mounts,
        devices: linux
            .and_then(|linux| linux.devices().as_ref())
            .map_or_else(Vec::new, |devices| devices.iter().map(convert_device).collect()),
        masked_paths: linux.and_then(|linux| linux.masked_paths().clone()).unwrap_or_default(),
        readonly_paths: linux.and_then(|linux| linux.readonly_paths().clone()).unwrap_or_default(),
        sysctl: linux
            .and_then(|linux| linux.sysctl().clone())
            .map_or_else(BTreeMap::new, |sysctl| sysctl.into_iter().collect()),
        start_hooks: hooks::for_inside(id, bundle, spec),
        process,
        limits: Limits::of(spec, sandbox),
    };
    Ok(Plan { guest, served, network: host_namespaces::network(spec)?, view: View::wanted_by(spec) })
}

/// Devices that the sentry has: memory, terminals.
const OWN_DEVICES: [(i64, i64); 9] = [(1, 1), (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// Tells what config.json asks for and the container does not get.
pub fn warn_of_ignored(spec: &Spec) {
    let mut ignored: Vec<String> = Vec::new();
    let mut given = |name: &str, is: bool| {
        if is {
            ignored.push(name.to_owned());
        }
    };
    let text =
        |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty() && text != "unconfined");
    if let Some(process) = spec.process() {
        given("process.apparmorProfile", text(process.apparmor_profile()));
        given("process.selinuxLabel", text(process.selinux_label()));
        given("process.ioPriority", process.io_priority().is_some());
        given("process.scheduler", process.scheduler().is_some());
    }
    if let Some(linux) = spec.linux() {
        given("linux.mountLabel", text(linux.mount_label()));
        given("linux.intelRdt", linux.intel_rdt().is_some());
        given("linux.personality", linux.personality().is_some());
        given("linux.timeOffsets", linux.time_offsets().is_some());
        for device in linux.devices().iter().flatten() {
            let number = (device.major(), device.minor());
            let own =
                device.typ() == oci::LinuxDeviceType::P || OWN_DEVICES.contains(&number) || number.0 == 136;
            given(&format!("linux.devices {:?}", device.path()), !own);
        }
    }
    if !ignored.is_empty() {
        crate::report::warn(&format!("without effect in the sandbox: {}", ignored.join(", ")));
    }
}

/// Checks and converts a process; names of users are those of the root filesystem.
pub fn convert_process(process: &oci::Process, root: &OwnedFd) -> Result<Process> {
    let args = process.args().clone().unwrap_or_default();
    if args.is_empty() {
        bail!("args is empty: there is no program to run");
    }
    if args[0].is_empty() {
        bail!("args[0] is empty: there is no program to run");
    }
    let env = process.env().clone().unwrap_or_default();
    for (what, texts) in [("args", &args), ("env", &env)] {
        if let Some(text) = texts.iter().find(|text| text.contains('\0')) {
            bail!("{what}: {text:?} has a zero byte");
        }
    }
    let cwd = text_of(process.cwd())?;
    if !cwd.starts_with('/') || cwd.contains('\0') {
        bail!("cwd {cwd:?} is not an absolute path");
    }
    let user = process.user();
    let mut ids = users::Ids {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
    };
    if let Some(name) = user.username().as_deref().filter(|name| !name.is_empty()) {
        let named = users::look_up(root, name)?;
        ids.uid = named.uid;
        ids.gid = named.gid;
        ids.groups.extend(named.groups);
    }
    let mut rlimits: Vec<Rlimit> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let resource = rlimit_number(limit.typ());
        if rlimits.iter().any(|other| other.resource == resource) {
            bail!("rlimits: {} is given twice", limit.typ());
        }
        if limit.soft() > limit.hard() {
            bail!(
                "rlimits: {}: soft limit {} is above the hard limit {}",
                limit.typ(),
                limit.soft(),
                limit.hard()
            );
        }
        rlimits.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    let capabilities =
        process.capabilities().as_ref().map_or_else(Capabilities::default, |sets| Capabilities {
            bounding: capability::mask(sets.bounding()),
            effective: capability::mask(sets.effective()),
            inheritable: capability::mask(sets.inheritable()),
            permitted: capability::mask(sets.permitted()),
            ambient: capability::mask(sets.ambient()),
        });
    Ok(Process {
        args,
        env,
        cwd,
        uid: ids.uid,
        gid: ids.gid,
        groups: ids.groups,
        umask: user.umask().unwrap_or(0o022) & 0o777,
        capabilities,
        rlimits,
        terminal: process.terminal().unwrap_or(false),
        console_size: process
            .console_size()
            .and_then(|size| Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?)))
            .filter(|size| *size != (0, 0)),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj().unwrap_or(0),
        seccomp: None,
        directories: Vec::new(),
    })
}

/// The filter of `linux.seccomp`, which holds for each process of the container.
pub fn convert_seccomp(spec: &Spec) -> Result<Option<seccomp::Filter>> {
    let config = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    config.map(seccomp::compile).transpose().context("config.json: linux.seccomp")
}

/// `RLIMIT_*` of asm-generic/resource.h.
fn rlimit_number(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as Kind;
    match kind {
        Kind::RlimitCpu => 0,
        Kind::RlimitFsize => 1,
        Kind::RlimitData => 2,
        Kind::RlimitStack => 3,
        Kind::RlimitCore => 4,
        Kind::RlimitRss => 5,
        Kind::RlimitNproc => 6,
        Kind::RlimitNofile => 7,
        Kind::RlimitMemlock => 8,
        Kind::RlimitAs => 9,
        Kind::RlimitLocks => 10,
        Kind::RlimitSigpending => 11,
        Kind::RlimitMsgqueue => 12,
        Kind::RlimitNice => 13,
        Kind::RlimitRtprio => 14,
        Kind::RlimitRttime => 15,
    }
}

/// The filesystems that the sentry has, by their OCI type.
const OWN_FILESYSTEMS: [&str; 8] =
    ["tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"];

/// Every container gets these, as in gVisor, unless config.json mounts something there.
const DEFAULT_MOUNTS: [(&str, &str, u64, &[&str]); 4] = [
    ("/proc", "proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, &[]),
    ("/sys", "sysfs", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY, &[]),
    ("/dev", "tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, &["mode=755"]),
    ("/dev/pts", "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, &["mode=620", "ptmxmode=666", "gid=5"]),
];

fn convert_mounts(
    spec: &Spec,
    bundle: &Path,
    overlay: OverlayPolicy,
    volumes: &pod::Volumes,
    served: &mut Vec<Served>,
) -> Result<Vec<Mount>> {
    let given = spec.mounts().as_deref().unwrap_or_default();
    let mut mounts = Vec::new();
    for (destination, kind, flags, data) in DEFAULT_MOUNTS {
        let there = given.iter().any(|mount| clean(&mount.destination().to_string_lossy()) == destination);
        if !there {
            mounts.push(Mount {
                destination: destination.into(),
                kind: MountKind::Own(kind.into()),
                source: kind.into(),
                flags,
                propagation: 0,
                data: data.iter().map(|option| option.to_string()).collect(),
            });
        }
    }
    // A default mount comes before those given, unless one of them is above it.
    let defaults = std::mem::take(&mut mounts);
    for (index, mount) in given.iter().enumerate() {
        let mount = convert_mount(mount, bundle, overlay, volumes, served)
            .with_context(|| format!("mounts[{index}] {:?}", mount.destination()))?;
        mounts.push(mount);
    }
    for default in defaults.into_iter().rev() {
        let at =
            mounts.iter().position(|mount| is_below(&mount.destination, &default.destination)).unwrap_or(0);
        let above = mounts
            .iter()
            .rposition(|mount| is_below(&default.destination, &mount.destination))
            .map_or(0, |position| position + 1);
        mounts.insert(at.max(above), default);
    }
    Ok(mounts)
}

/// Whether `path` is strictly below `directory`; both are clean.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/') || (directory == "/" && !rest.is_empty()))
}

fn convert_mount(
    mount: &oci::Mount,
    bundle: &Path,
    overlay: OverlayPolicy,
    volumes: &pod::Volumes,
    served: &mut Vec<Served>,
) -> Result<Mount> {
    let destination = clean(&text_of(mount.destination())?);
    if destination.contains('\0') {
        bail!("the destination has a zero byte");
    }
    let options = mount.options().as_deref().unwrap_or_default();
    let mut parsed = MountOptions::parse(options);
    let kind = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().as_deref().map(text_of).transpose()?;
    let kind = if parsed.bind || kind == "bind" {
        let source = source
            .as_deref()
            .filter(|source| !source.is_empty())
            .ok_or_else(|| anyhow!("a bind mount without a source"))?;
        let path = bundle.join(source);
        if let Some(volume) = volumes.in_memory(&path) {
            parsed.data = volume.options;
            MountKind::Memory { shared: volume.shared }
        } else {
            let fd = open_path(&path)?;
            let directory = is_directory(&fd)?;
            let readonly = parsed.flags & libc::MS_RDONLY != 0;
            let overlay = if readonly { Overlay::None } else { overlay.binds };
            // Symbolic links on the way to it are not part of its name.
            let place = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or(path);
            let place = place.to_string_lossy().into_owned();
            served.push(Served { fd, readonly: readonly || overlay == Overlay::Memory });
            MountKind::Bind { gofer: served.len() - 1, overlay, directory, writable: !readonly, place }
        }
    } else if OWN_FILESYSTEMS.contains(&kind) {
        MountKind::Own(kind.to_owned())
    } else if kind.is_empty() {
        bail!("neither a type nor the option bind");
    } else {
        bail!("filesystem type {kind:?} is not supported");
    };
    Ok(Mount {
        destination,
        source: source.unwrap_or_else(|| "none".into()),
        kind,
        flags: parsed.flags,
        propagation: parsed.propagation,
        data: parsed.data,
    })
}

/// The options of a mount, sorted by whom they concern.
#[derive(Debug, Default, PartialEq, Eq)]
struct MountOptions {
    bind: bool,
    flags: u64,
    propagation: u64,
    data: Vec<String>,
}

/// The options of mounts that are understood beside those of the filesystems themselves.
pub fn mount_options() -> Vec<&'static str> {
    let mut options = vec![
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "private",
        "rbind",
        "relatime",
        "ro",
        "rprivate",
        "rro",
        "rshared",
        "rslave",
        "runbindable",
        "rw",
        "shared",
        "slave",
        "strictatime",
        "suid",
        "sync",
        "tmpcopyup",
        "unbindable",
    ];
    options.sort_unstable();
    options
}

impl MountOptions {
    fn parse(options: &[String]) -> MountOptions {
        let mut parsed = MountOptions::default();
        for option in options {
            let set = |flags: u64| (flags, 0);
            let clear = |flags: u64| (0, flags);
            let (set, clear) = match option.as_str() {
                "bind" | "rbind" => {
                    parsed.bind = true;
                    continue;
                }
                "defaults" | "rw" => clear(libc::MS_RDONLY),
                "ro" | "rro" => set(libc::MS_RDONLY),
                "nosuid" => set(libc::MS_NOSUID),
                "suid" => clear(libc::MS_NOSUID),
                "nodev" => set(libc::MS_NODEV),
                "dev" => clear(libc::MS_NODEV),
                "noexec" => set(libc::MS_NOEXEC),
                "exec" => clear(libc::MS_NOEXEC),
                "sync" => set(libc::MS_SYNCHRONOUS),
                "async" => clear(libc::MS_SYNCHRONOUS),
                "dirsync" => set(libc::MS_DIRSYNC),
                "noatime" => set(libc::MS_NOATIME),
                "atime" => clear(libc::MS_NOATIME),
                "nodiratime" => set(libc::MS_NODIRATIME),
                "diratime" => clear(libc::MS_NODIRATIME),
                "relatime" => set(libc::MS_RELATIME),
                "norelatime" => clear(libc::MS_RELATIME),
                "strictatime" => set(libc::MS_STRICTATIME),
                "nostrictatime" => clear(libc::MS_STRICTATIME),
                "shared" | "rshared" | "private" | "rprivate" | "slave" | "rslave" | "unbindable"
                | "runbindable" => {
                    let (kind, recursive) = match option.strip_prefix('r') {
                        Some(kind) => (kind, libc::MS_REC),
                        None => (option.as_str(), 0),
                    };
                    parsed.propagation = recursive
                        | match kind {
                            "shared" => libc::MS_SHARED,
                            "private" => libc::MS_PRIVATE,
                            "slave" => libc::MS_SLAVE,
                            _ => libc::MS_UNBINDABLE,
                        };
                    continue;
                }
                // Copying up what lies below a tmpfs is the sentry's affair, like any other filesystem option.
                _ => {
                    parsed.data.push(option.clone());
                    continue;
                }
            };
            parsed.flags = parsed.flags & !clear | set;
        }
        parsed
    }
}

fn convert_device(device: &oci::LinuxDevice) -> Device {
    Device {
        path: clean(&device.path().to_string_lossy()),
        kind: match device.typ() {
            oci::LinuxDeviceType::B => 'b',
            oci::LinuxDeviceType::P => 'p',
            oci::LinuxDeviceType::U => 'u',
            _ => 'c',
        },
        major: u32::try_from(device.major()).unwrap_or(0),
        minor: u32::try_from(device.minor()).unwrap_or(0),
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}

/// Whether a container is to have a namespace of its own: one is asked for, and no path says whose.
fn has_own(spec: &Spec, kind: oci::LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == kind && namespace.path().is_none())
}

/// The ids of a user namespace of the container's own.
fn ids(spec: &Spec) -> Option<Ids> {
    if !has_own(spec, oci::LinuxNamespaceType::User) {
        return None;
    }
    let linux = spec.linux().as_ref()?;
    let lines = |mappings: &Option<Vec<oci::LinuxIdMapping>>| {
        let line = |mapping: &oci::LinuxIdMapping| IdRange {
            inside: mapping.container_id(),
            host: mapping.host_id(),
            count: mapping.size(),
        };
        mappings.iter().flatten().map(line).collect::<Vec<_>>()
    };
    let ids = Ids { users: lines(linux.uid_mappings()), groups: lines(linux.gid_mappings()) };
    (!ids.users.is_empty() && !ids.groups.is_empty()).then_some(ids)
}

/// An absolute path without `.`, `..` and doubled slashes; a relative one is taken from `/`, as runc does.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn text_of(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| anyhow!("{path:?} is not UTF-8"))
}

/// Opens a host path with O_PATH. The error names what is wrong, for the caller to add the path's role.
fn open_path(path: &Path) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).with_context(|| format!("open {path:?}"))
}

fn is_directory(fd: &OwnedFd) -> Result<bool> {
    let file = std::fs::File::from(fd.try_clone()?);
    let kind = file.metadata().context("fstat")?.file_type();
    if kind.is_block_device() {
        bail!("block devices cannot be mounted");
    }
    Ok(kind.is_dir())
}

/// The bundle directory, absolute and without symbolic links.
pub fn bundle_path(bundle: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(bundle).with_context(|| format!("bundle {bundle:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NO_OVERLAY: OverlayPolicy = OverlayPolicy { root: Overlay::None, binds: Overlay::None };

    /// A config.json that is fine, changed by `change`.
    fn planned(change: impl FnOnce(&mut serde_json::Value)) -> Result<Plan> {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(bundle.path().join("rootfs/etc")).unwrap();
        std::fs::write(
            bundle.path().join("rootfs/etc/passwd"),
            "root:x:0:0::/:/bin/sh\nbob:x:1000:100::/:/bin/sh\n",
        )
        .unwrap();
        std::fs::create_dir(bundle.path().join("data")).unwrap();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
        });
        change(&mut config);
        let spec = parse(config.to_string().as_bytes())?;
        plan("test", bundle.path(), &spec, None, NO_OVERLAY, &pod::Volumes::default())
    }

    fn error(change: impl FnOnce(&mut serde_json::Value)) -> String {
        crate::report::line(&planned(change).unwrap_err())
    }

    #[test]
    fn errors_name_the_cause() {
        for (message, pointer, value) in [
            ("config.json has no root", "/root", json!(null)),
            ("no such file or directory", "/root/path", json!("nowhere")),
            ("not a directory", "/root/path", json!("rootfs/etc/passwd")),
            ("config.json has no process", "/process", json!(null)),
            ("args is empty", "/process/args", json!([])),
            ("args[0] is empty", "/process/args", json!([""])),
            ("zero byte", "/process/args", json!(["a\0b"])),
            ("cwd \"x\" is not an absolute path", "/process/cwd", json!("x")),
            ("user \"eve\" is not in the container's /etc/passwd", "/process/user/username", json!("eve")),
            (
                "filesystem type \"ext4\" is not supported",
                "/mounts",
                json!([{"destination": "/x", "type": "ext4"}]),
            ),
            ("a bind mount without a source", "/mounts", json!([{"destination": "/x", "type": "bind"}])),
            (
                "mounts[0] \"/x\": open \"/nowhere\": no such file or directory",
                "/mounts",
                json!([{"destination": "/x", "type": "bind", "source": "/nowhere"}]),
            ),
            (
                "RLIMIT_NOFILE is given twice",
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
                       {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]),
            ),
            ("ociVersion \"2.0\" is not supported", "/ociVersion", json!("2.0")),
        ] {
            let got = error(|config| {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                config.pointer_mut(parent).unwrap()[key] = value.clone();
            });
            assert!(got.contains(message), "{got:?} does not say {message:?}");
        }
    }

    #[test]
    fn users_may_be_named() {
        let plan = planned(|config| config["process"]["user"]["username"] = json!("bob")).unwrap();
        assert_eq!((plan.guest.process.uid, plan.guest.process.gid), (1000, 100));
    }

    #[test]
    fn mounts_keep_their_order_and_defaults_are_added() {
        let plan = planned(|config| {
            config["mounts"] = json!([
                {"destination": "/data", "type": "none", "source": "data", "options": ["rbind", "ro", "rslave"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "size=64k"]},
                {"destination": "proc/", "type": "proc"},
            ])
        })
        .unwrap();
        let at: Vec<&str> = plan.guest.mounts.iter().map(|mount| mount.destination.as_str()).collect();
        let place = |path| at.iter().position(|p| *p == path).unwrap();
        assert!(place("/dev") < place("/dev/shm") && place("/dev") < place("/dev/pts"));
        assert_eq!(at.iter().filter(|p| **p == "/proc").count(), 1);
        let data = &plan.guest.mounts[place("/data")];
        let MountKind::Bind { gofer, overlay, directory, writable, place: host } = &data.kind else {
            panic!("{:?}", data.kind)
        };
        assert_eq!((*gofer, *overlay, *directory, *writable), (1, Overlay::None, true, false));
        assert!(host.starts_with('/') && host.ends_with("/data"), "{host}");
        assert_eq!(data.flags, libc::MS_RDONLY);
        assert_eq!(data.propagation, libc::MS_SLAVE | libc::MS_REC);
        assert!(plan.served[1].readonly && !plan.served[0].readonly);
        let shm = &plan.guest.mounts[place("/dev/shm")];
        assert_eq!((shm.flags, shm.data.clone()), (libc::MS_NOSUID, vec!["size=64k".to_string()]));
    }

    #[test]
    fn recorded_configurations_are_understood() {
        for (name, text) in [
            ("containerd", include_str!("../tests/configs/containerd.json")),
            ("docker", include_str!("../tests/configs/docker.json")),
            ("podman", include_str!("../tests/configs/podman.json")),
            ("crio", include_str!("../tests/configs/crio.json")),
        ] {
            let spec = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            let root = OwnedFd::from(std::fs::File::open("/").unwrap());
            let process = convert_process(spec.process().as_ref().unwrap(), &root).unwrap();
            assert!(!process.args.is_empty(), "{name}");
            assert_ne!(process.capabilities.bounding & 1, 0, "{name}: CAP_CHOWN");
        }
    }

    #[test]
    fn broken_configurations_are_errors_and_no_more() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
        let try_it = |text: &[u8]| {
            if let Ok(spec) = parse(text) {
                let _ = plan("test", bundle.path(), &spec, None, NO_OVERLAY, &pod::Volumes::default());
            }
        };
        let good = include_bytes!("../tests/configs/podman.json");
        for end in 0..good.len() {
            try_it(&good[..end]);
        }
        const ODD: &[u8] = b"\"{}[],:0-9a\\/. \0\xff";
        // The same changes in every run.
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let mut text = good.to_vec();
            for _ in 0..=random(3) {
                let at = random(text.len());
                match random(3) {
                    0 => text[at] = ODD[random(ODD.len())],
                    1 => drop(text.drain(at..(at + random(40)).min(text.len()))),
                    _ => {
                        let from = random(good.len());
                        let piece = &good[from..(from + random(40)).min(good.len())];
                        text.splice(at..at, piece.iter().copied());
                    }
                }
            }
            try_it(&text);
        }
    }

    #[test]
    fn overlay_policies_are_read() {
        let policy = |text: &str| text.parse::<OverlayPolicy>();
        assert_eq!(policy("none").unwrap(), NO_OVERLAY);
        assert_eq!(policy("root:memory").unwrap().root, Overlay::Memory);
        assert_eq!(policy("all:memory").unwrap().binds, Overlay::Memory);
        assert_eq!(policy("root:memory").unwrap().binds, Overlay::None);
        for bad in ["memory", "root:disk", "some:memory", "root:self"] {
            assert!(policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, clean_path) in [("a//b/", "/a/b"), ("/../x/./y/..", "/x"), ("", "/"), ("/", "/")] {
            assert_eq!(clean(path), clean_path);
        }
    }
}
