//! The only way to a container's files: the file [`protocol`], the [`client`] that the sentry uses, the [`server`]
//! that a `runsc gofer` process runs, and how that process is [confined](confine) before it serves.
//!
//! Neither side trusts the other. The sentry may have been taken over by its guest, so the server names nothing
//! outside the directories it was given, bounds what it allocates, and survives any message. The client survives
//! any reply as well: what it hands to the sentry has been checked.
#![deny(unsafe_code)]

pub mod client;
pub mod confine;
#[allow(unsafe_code, reason = "the one module with unsafe code: host calls that nix lacks, and fd passing")]
mod host;
pub mod protocol;
pub mod server;

pub use client::Client;
pub use protocol::channel_pair;
pub use server::{MountFlags, MountRoot, Server, serve};
