//! What a sentry is left with: nothing but what it was given.
//!
//! The command starts the boot process in new user, pid, mount, network, IPC and UTS namespaces (`process`). The boot
//! process then leaves the host's files ([`namespaces::enter_empty_root`]), gives up its rights
//! ([`namespaces::drop_privileges`]), makes the platform, and puts a system call filter on each of its threads
//! ([`filter::install`]) before it looks at anything of the guest's.

pub mod filter;
#[cfg(feature = "misbehave")]
pub mod misbehave;
pub mod namespaces;
pub mod policy;
