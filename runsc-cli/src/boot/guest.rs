//! What the sentry is told to start: plain data, made by the command from a config.json, read by the boot process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::start_hooks::Hook;

/// One container and the world that it sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// The container's id.
    pub id: String,
    /// uname(2)'s node name.
    pub hostname: String,
    /// uname(2)'s domain name.
    pub domainname: String,
    /// It has an IPC namespace of its own, even if it joins a sandbox.
    pub own_ipc: bool,
    /// It has a UTS namespace of its own, even if it joins a sandbox.
    pub own_uts: bool,
    /// Its root filesystem.
    pub root: Root,
    /// Ids of the host that its users and groups are; None if they have the same numbers.
    pub ids: Option<Ids>,
    /// What is mounted over it, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes to make in `/dev` beside the usual ones.
    pub devices: Vec<Device>,
    /// Paths that are to look empty.
    pub masked_paths: Vec<String>,
    /// Paths that are to be read-only.
    pub readonly_paths: Vec<String>,
    /// Values for `/proc/sys`, by name with dots.
    pub sysctl: BTreeMap<String, String>,
    /// What runs inside just before the first process.
    pub start_hooks: Vec<Hook>,
    /// The first process.
    pub process: Process,
    /// Its limits.
    pub limits: Limits,
}

/// A root filesystem, served by the gofer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Number of the gofer's directory.
    pub gofer: usize,
    /// No writes, not even to the overlay.
    pub readonly: bool,
    /// Where writes go.
    pub overlay: Overlay,
}

/// The user and group ids of a container, as of `linux.uidMappings` and `linux.gidMappings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Of users.
    pub users: Vec<IdRange>,
    /// Of groups.
    pub groups: Vec<IdRange>,
}

/// A line of a map of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// What it is on the host.
    pub host: u32,
    /// How many.
    pub count: u32,
}

/// Where writes to a mount served by the gofer go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// To the host's files.
    #[default]
    None,
    /// To an upper layer in the sandbox's memory.
    Memory,
}

/// A mount over the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, an absolute path inside.
    pub destination: String,
    /// What.
    pub kind: MountKind,
    /// Shown as the source in `/proc/mounts`.
    pub source: String,
    /// `MS_*` flags that concern the mount itself (RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, NODIRATIME, RELATIME,
    /// STRICTATIME).
    pub flags: u64,
    /// Propagation: one of `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`, perhaps with `MS_REC`; 0 if unsaid.
    pub propagation: u64,
    /// The filesystem's own options, `key` or `key=value`.
    pub data: Vec<String>,
}

/// A filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A host file or directory.
    Bind {
        /// Number of the gofer's directory or file.
        gofer: usize,
        /// Where writes go.
        overlay: Overlay,
        /// It is a directory.
        directory: bool,
        /// The gofer permits writes.
        writable: bool,
        /// Its place on the host, as `/proc/self/mountinfo` shows it.
        place: String,
    },
    /// A volume in the sandbox's memory.
    Memory {
        /// Its name, if the containers of a pod share it.
        shared: Option<String>,
    },
    /// One of the sentry's own filesystems, by Linux's name (tmpfs, proc, sysfs, devpts, mqueue, cgroup, cgroup2,
    /// devtmpfs).
    Own(String),
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// An absolute path inside.
    pub path: String,
    /// `c`, `u`, `b` or `p`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A process to start: the container's first, or another by `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its arguments; the first names the program, to be looked up in its PATH if it has no slash.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// An absolute path inside.
    pub cwd: String,
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities, one bit each.
    pub capabilities: Capabilities,
    /// Limits that differ from the sentry's defaults.
    pub rlimits: Vec<Rlimit>,
    /// Standard input, output and error are one terminal, which becomes the controlling one.
    pub terminal: bool,
    /// The terminal's first size, rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: i32,
    /// The filter that its system calls go through.
    pub seccomp: Option<crate::seccomp::Filter>,
    /// Those of its file descriptors, 3 and up, that are directories: what is given for them leads to a gofer that
    /// serves it.
    pub directories: Vec<u32>,
}

/// Capability sets: bit N is capability N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The bounding set.
    pub bounding: u64,
    /// The effective set.
    pub effective: u64,
    /// The inheritable set.
    pub inheritable: u64,
    /// The permitted set.
    pub permitted: u64,
    /// The ambient set.
    pub ambient: u64,
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// What holds now.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}
