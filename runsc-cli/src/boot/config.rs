//! What the command hands to the boot process: one sealed memfd, and the file descriptors that it numbers.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use super::guest::Guest;

/// The contents of the memfd.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BootConfig {
    /// What to run.
    pub guest: Guest,
    /// `ptrace`, `systrap` or `auto`.
    pub platform: String,
    /// systrap may rewrite call sites of guests.
    pub patching: bool,
    /// The process has the host's nobody to become.
    pub become_nobody: bool,
    /// End when the command that started it ends.
    pub die_with_command: bool,
    /// Standard input is the controlling terminal: its signals are the container's.
    pub controlling_terminal: bool,
    /// Other processes of the host change the root filesystem, too.
    pub shared_root: bool,
    /// Other processes of the host change the bind mounts, too.
    pub shared_mounts: bool,
    /// Sockets in served directories may be connected to.
    pub host_sockets: bool,
    /// Sockets of the internet families are the host's, in the network namespace of the process.
    pub host_network: bool,
    /// And that was made for it: nobody else prepares it.
    pub own_network: bool,
    /// Log the guest's system calls.
    pub strace: bool,
    /// Only these, by name; empty for all.
    pub strace_calls: Vec<String>,
    /// Log more, and name unimplemented calls at the end.
    pub debug: bool,
    /// What came with it.
    pub donated: Donated,
    /// What a test makes it try.
    pub misbehave: Option<String>,
}

/// Numbers of file descriptors in the boot process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Donated {
    /// A pipe for the outcome of the boot.
    pub outcome: RawFd,
    /// The listening socket of the control API.
    pub control: RawFd,
    /// The listening socket of descriptors beside it.
    pub fds: RawFd,
    /// The record file.
    pub record: RawFd,
    /// The gofer's connection.
    pub gofer: RawFd,
    /// The first process's standard input, output and error.
    pub stdio: [RawFd; 3],
    /// What it has besides them: file descriptors 3 and up.
    pub preserved: Vec<RawFd>,
    /// Where messages for the user go.
    pub user_log: Option<RawFd>,
    /// Where trace events go.
    pub log: Option<RawFd>,
    /// A FUSE filesystem that shows the container: its device and its mount.
    pub view: Option<[RawFd; 2]>,
}

/// What goes through the outcome pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The first process is loaded and waits for start.
    Ready,
    /// Causes, outermost first.
    Failed(Vec<String>),
}
