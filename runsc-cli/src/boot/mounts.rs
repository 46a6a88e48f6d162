//! The files that a container sees: its root, and what is mounted over it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Errno;
use anyhow::{Context, Result};
use sentry::Kernel;
use sentry::fs::gofer::{Access, GoferFs};
use sentry::fs::overlay::{self, Layer, Upper};
use sentry::fs::tmpfs::{Tmpfs, TmpfsOptions};
use sentry::task::Credentials;
use sentry::vfs::mount::{MountTree, Propagation};
use sentry::vfs::walk::Walker;
use sentry::vfs::{
    Dentry, FileSystem, Io, Mount, MountFlags, MountNamespace, NewInode, NewKind, Path, SuperBlock, WalkFlags,
};

use super::guest::{Guest, MountKind, Overlay};

/// Mounts everything that the guest is to see.
pub fn build(
    kernel: &Arc<Kernel>,
    guest: &Guest,
    gofer: OwnedFd,
    shared: bool,
) -> Result<Arc<MountNamespace>> {
    let client = Arc::new(gofer::Client::new(gofer));
    let access = if shared { Access::Shared } else { Access::Exclusive };
    let files = Files { kernel, client, access };
    let root = files.served(guest.root.gofer, guest.root.overlay).context("mounting the root filesystem")?;
    let root = Mount::new(root, MountFlags::empty(), b"none");
    let namespace = MountNamespace::new(root.clone(), kernel.user_ns.clone());
    let credentials = Credentials::root(kernel.user_ns.clone());
    let place = |path: &str, directory: bool| {
        let walker =
            Walker { io: Io::default(), creds: &credentials, namespace: &namespace, root: namespace.root() };
        make_place(&walker, path, directory)
    };
    for mount in &guest.mounts {
        let attach = || -> Result<()> {
            let (tree, directory) = match &mount.kind {
                MountKind::Bind { gofer, overlay, directory } => {
                    (files.served(*gofer, *overlay)?, *directory)
                }
                MountKind::Own(kind) => match files.own(kind, &mount.destination, &mount.data)? {
                    Some(tree) => (tree, true),
                    None => return Ok(()),
                },
            };
            let flags = MountFlags::from_bits_truncate(mount.flags);
            let attached = Mount::new(tree, flags, mount.source.as_bytes());
            attached.set_propagation(propagation(mount.propagation));
            let at = place(&mount.destination, directory).context("making the mount point")?;
            namespace.attach(MountTree::single(attached), &at)?;
            Ok(())
        };
        attach().with_context(|| format!("mounting {:?}", mount.destination))?;
    }
    if guest.root.readonly {
        // Only now: mount points had to be made.
        root.set_flags(MountFlags::RDONLY).context("making the root read-only")?;
    }
    Ok(namespace)
}

/// Where filesystems come from.
struct Files<'a> {
    kernel: &'a Arc<Kernel>,
    client: Arc<gofer::Client>,
    access: Access,
}

impl Files<'_> {
    /// A directory or file of the gofer's.
    fn served(&self, number: usize, overlay: Overlay) -> Result<Arc<Dentry>> {
        let number = u32::try_from(number).context("number of the mount")?;
        let lower = GoferFs::new(self.client.clone(), number, self.access).context("asking the gofer")?;
        if overlay == Overlay::Memory {
            // As large as the memory, so that df(1) says something sensible.
            let upper = Tmpfs::new(&TmpfsOptions::new(self.kernel.memory.saturating_mul(2)));
            let lower = Layer::whole(lower);
            let upper = Upper::on(upper, &lower).context("making the upper layer")?;
            let fs = overlay::Overlay::new(Some(upper), vec![lower]).context("making the overlay")?;
            return Ok(SuperBlock::make(fs));
        }
        Ok(SuperBlock::make(lower))
    }

    /// A filesystem of the sentry's own; None for one that is not there yet.
    fn own(&self, kind: &str, _destination: &str, options: &[String]) -> Result<Option<Arc<Dentry>>> {
        let memory = self.kernel.memory;
        let fs: Arc<dyn FileSystem> = match kind {
            "tmpfs" => {
                let options = options.iter().filter(|option| *option != "tmpcopyup").cloned();
                let options = options.collect::<Vec<_>>().join(",");
                let options = TmpfsOptions::new(memory)
                    .parse(options.as_bytes(), memory)
                    .with_context(|| format!("options {options:?}"))?;
                Tmpfs::new(&options)
            }
            _ => {
                tracing::warn!("no {kind} in this build");
                return Ok(None);
            }
        };
        Ok(Some(SuperBlock::make(fs)))
    }
}

/// The place of a path, made if it is not there: a directory, or an empty file to mount a file on.
fn make_place(walker: &Walker<'_>, path: &str, directory: bool) -> std::result::Result<Path, Errno> {
    match walker.walk(&walker.root, path.as_bytes(), WalkFlags::FOLLOW) {
        Err(Errno::ENOENT) => {}
        result => return result,
    }
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(Errno::ENOENT)?;
    let parent = if parent.is_empty() { "/" } else { parent };
    let dir = make_place(walker, parent, true)?;
    let (kind, mode) = match directory {
        true => (NewKind::Directory, 0o755),
        false => (NewKind::Regular, 0o644),
    };
    let new = NewInode { kind, mode, uid: 0, gid: 0 };
    let mut children = dir.dentry().lock();
    let inode = dir.inode().create(name.as_bytes(), &new)?;
    let dentry = dir.dentry().insert(&mut children, name.as_bytes(), inode);
    drop(children);
    dentry.keep();
    Ok(Path::new(dir.mount().clone(), dentry))
}

fn propagation(flags: u64) -> Propagation {
    // Nothing outside the sandbox could send or receive events: a slave is as good as private.
    Propagation {
        group: if flags & libc::MS_SHARED != 0 { Mount::new_group() } else { 0 },
        master: 0,
        unbindable: flags & libc::MS_UNBINDABLE != 0,
    }
}
