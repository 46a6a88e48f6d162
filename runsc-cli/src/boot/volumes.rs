//! What containers of one sandbox share: directories and files of the host that several of them mount, and volumes in
//! memory.
//!
//! Whoever mounts what another container has mounted gets the same filesystem, whichever gofer serves it: so that not
//! only the contents are the same, but also sockets, fifos, locks and watches meet. A gofer therefore lives as long as
//! anybody uses files of it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use sentry::fs::gofer::{Access, GoferFs};
use sentry::vfs::Dentry;

use super::guest::Overlay;

/// The gofer of a container. When the last user drops this, the gofer process ends.
pub struct Gofer {
    /// To talk to it.
    pub client: Arc<gofer::Client>,
    /// Another descriptor of the channel.
    channel: OwnedFd,
}

impl Gofer {
    /// The one at the other end of `channel`.
    pub fn new(channel: OwnedFd) -> Result<Arc<Gofer>> {
        let own = channel.try_clone().context("dup")?;
        Ok(Arc::new(Gofer { client: Arc::new(gofer::Client::new(channel)), channel: own }))
    }

    /// Another descriptor of the channel, which is hung up when the gofer has ended.
    pub fn channel(&self) -> Result<OwnedFd> {
        self.channel.as_fd().try_clone_to_owned().context("dup")
    }
}

impl Drop for Gofer {
    fn drop(&mut self) {
        // Whatever still holds the client: what is not closed by then is closed now.
        let _ = shutdown(self.channel.as_raw_fd(), Shutdown::Both);
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// A directory or file of the host, by device and inode number.
    Host((u64, u64), Overlay),
    /// A volume in memory, by name.
    Memory(String),
}

struct Volume {
    key: Key,
    /// The gofer permits writes.
    writable: bool,
    root: Arc<Dentry>,
    /// None in memory.
    gofer: Option<Arc<Gofer>>,
    /// The containers that have mounted it.
    users: BTreeSet<String>,
}

/// The volumes of a sandbox.
#[derive(Default)]
pub struct Volumes(Mutex<Vec<Volume>>);

/// What a container wants to mount.
pub struct Wanted<'a> {
    /// The container.
    pub container: &'a str,
    /// Its gofer.
    pub gofer: &'a Arc<Gofer>,
    /// Number of the gofer's directory or file.
    pub number: usize,
    /// Where writes go.
    pub overlay: Overlay,
    /// The gofer permits writes.
    pub writable: bool,
    /// Who else uses the files.
    pub access: Access,
    /// Its place on the host, as mountinfo shows it.
    pub place: &'a str,
}

impl Volumes {
    /// A directory or file of the host: the one that another container has mounted, or a new one on `make` of what the
    /// container's own gofer serves.
    pub fn host(
        &self,
        wanted: &Wanted<'_>,
        make: impl FnOnce(Arc<GoferFs>) -> Result<Arc<Dentry>>,
    ) -> Result<Arc<Dentry>> {
        let number = u32::try_from(wanted.number).context("number of the mount")?;
        let client = wanted.gofer.client.clone();
        let fs = GoferFs::new(client, number, wanted.access, wanted.place.as_bytes())
            .context("asking the gofer")?;
        let key = Key::Host(fs.host_id(), wanted.overlay);
        let mut volumes = self.0.lock();
        let usable = |volume: &&mut Volume| {
            volume.key == key
                && (volume.writable || !wanted.writable)
                && volume.gofer.as_ref().is_some_and(|gofer| !gofer.client.is_broken())
        };
        if let Some(volume) = volumes.iter_mut().find(usable) {
            volume.users.insert(wanted.container.to_owned());
            return Ok(volume.root.clone());
        }
        let root = make(fs)?;
        volumes.push(Volume {
            key,
            writable: wanted.writable,
            root: root.clone(),
            gofer: Some(wanted.gofer.clone()),
            users: BTreeSet::from([wanted.container.to_owned()]),
        });
        Ok(root)
    }

    /// A volume in memory, which lives as long as the sandbox.
    pub fn memory(&self, name: &str, make: impl FnOnce() -> Result<Arc<Dentry>>) -> Result<Arc<Dentry>> {
        let key = Key::Memory(name.to_owned());
        let mut volumes = self.0.lock();
        if let Some(volume) = volumes.iter().find(|volume| volume.key == key) {
            return Ok(volume.root.clone());
        }
        let root = make()?;
        let users = BTreeSet::new();
        volumes.push(Volume { key, writable: true, root: root.clone(), gofer: None, users });
        Ok(root)
    }

    /// The container is gone.
    pub fn release(&self, container: &str) {
        let mut gone = Vec::new();
        self.0.lock().retain_mut(|volume| {
            let used = !volume.users.remove(container) || !volume.users.is_empty();
            if !used {
                gone.push((volume.root.clone(), volume.gofer.take()));
            }
            used
        });
        // Not under the lock: the end of a filesystem asks its gofer.
        drop(gone);
    }
}
