//! The files that a container sees: its root, and what is mounted over it.

use std::sync::Arc;

use abi::Errno;
use anyhow::{Context, Result};
use sentry::fs::Mounter;
use sentry::fs::gofer::{Access, GoferFs};
use sentry::fs::overlay::{self, Layer, Upper};
use sentry::fs::tmpfs::{Tmpfs, TmpfsOptions};
use sentry::vfs::mount::{MountTree, Propagation};
use sentry::vfs::walk::Walker;
use sentry::vfs::{
    Dentry, Io, Mount, MountFlags, MountNamespace, NewInode, NewKind, Path, SuperBlock, WalkFlags,
};

use super::guest::{Device, Guest, MountKind, Overlay};
use super::kernel::Place;
use super::volumes::{Gofer, Volumes, Wanted};

/// Mounts everything that the guest is to see.
pub fn build(
    from: &Mounter<'_>,
    guest: &Guest,
    gofer: &Arc<Gofer>,
    place: &Place,
) -> Result<Arc<MountNamespace>> {
    let access = |shared| if shared { Access::Shared } else { Access::Exclusive };
    let (shared_root, shared_mounts) = place.access;
    let kernel = from.kernel;
    let files = Files { from, volumes: &place.volumes };
    let number = u32::try_from(guest.root.gofer).context("number of the root")?;
    let root = GoferFs::new(gofer.client.clone(), number, access(shared_root), b"")
        .context("asking the gofer")
        .and_then(|lower| files.layered(lower, guest.root.overlay))
        .context("mounting the root filesystem")?;
    let root = Mount::new(root, MountFlags::empty(), b"none");
    let namespace = MountNamespace::new(root.clone(), kernel.user_ns.clone());
    let walker =
        Walker { io: Io::default(), creds: from.creds, namespace: &namespace, root: namespace.root() };
    for mount in &guest.mounts {
        let attach = || -> Result<()> {
            let (tree, directory) = match &mount.kind {
                MountKind::Bind { gofer: number, overlay, directory, writable, place: host_place } => {
                    let wanted = Wanted {
                        container: &guest.id,
                        gofer,
                        number: *number,
                        overlay: *overlay,
                        writable: *writable,
                        access: access(shared_mounts),
                        place: host_place,
                    };
                    let tree = files.volumes.host(&wanted, |lower| files.layered(lower, *overlay))?;
                    (tree, *directory)
                }
                MountKind::Memory { shared } => {
                    let make = || files.tmpfs(&mount.data);
                    let tree = match shared {
                        Some(name) => files.volumes.memory(name, make)?,
                        None => make()?,
                    };
                    (tree, true)
                }
                MountKind::Own(kind) => match files.own(kind, &mount.destination, &mount.data)? {
                    Some(tree) => (tree, true),
                    None => return Ok(()),
                },
            };
            let flags = MountFlags::from_bits_truncate(mount.flags);
            let attached = Mount::new(tree, flags, mount.source.as_bytes());
            attached.set_propagation(propagation(mount.propagation));
            let at = make_place(&walker, &mount.destination, directory).context("making the mount point")?;
            namespace.attach(MountTree::single(attached), &at)?;
            Ok(())
        };
        attach().with_context(|| format!("mounting {:?}", mount.destination))?;
    }
    for device in &guest.devices {
        make_device(&walker, device).with_context(|| format!("making device {:?}", device.path))?;
    }
    for path in &guest.readonly_paths {
        make_read_only(&walker, &namespace, path).with_context(|| format!("readonlyPaths: {path:?}"))?;
    }
    for path in &guest.masked_paths {
        mask(&walker, &namespace, path).with_context(|| format!("maskedPaths: {path:?}"))?;
    }
    if guest.root.readonly {
        // Only now: mount points had to be made.
        root.set_flags(MountFlags::RDONLY).context("making the root read-only")?;
    }
    Ok(namespace)
}

/// Where filesystems come from.
struct Files<'a> {
    from: &'a Mounter<'a>,
    volumes: &'a Volumes,
}

impl Files<'_> {
    /// A directory or file of a gofer's, perhaps below an upper layer in memory.
    fn layered(&self, lower: Arc<GoferFs>, overlay: Overlay) -> Result<Arc<Dentry>> {
        if overlay == Overlay::Memory {
            // As large as the memory, so that df(1) says something sensible.
            let upper = Tmpfs::new(&TmpfsOptions::new(self.from.container.memory().saturating_mul(2)));
            let lower = Layer::whole(lower);
            let upper = Upper::on(upper, &lower).context("making the upper layer")?;
            let fs = overlay::Overlay::new(Some(upper), vec![lower]).context("making the overlay")?;
            return Ok(SuperBlock::make(fs));
        }
        Ok(SuperBlock::make(lower))
    }

    fn tmpfs(&self, options: &[String]) -> Result<Arc<Dentry>> {
        self.own("tmpfs", "", options)?.context("no tmpfs in this build")
    }

    /// A filesystem of the sentry's own; None for one that is not there yet.
    fn own(&self, kind: &str, destination: &str, options: &[String]) -> Result<Option<Arc<Dentry>>> {
        let options = options.iter().filter(|option| *option != "tmpcopyup").cloned();
        let options = options.collect::<Vec<_>>().join(",");
        let kind = if kind == "cgroup" { "cgroup2" } else { kind };
        let root = match sentry::fs::make(self.from, kind, options.as_bytes()) {
            Err(Errno::ENODEV) => {
                tracing::warn!("no {kind} in this build");
                return Ok(None);
            }
            result => result.with_context(|| format!("options {options:?}"))?,
        };
        if destination == "/dev" {
            sentry::fs::dev::populate(&root).context("making devices")?;
        }
        Ok(Some(root))
    }
}

/// The place of a path, made if it is not there: a directory, or an empty file to mount a file on.
pub(super) fn make_place(
    walker: &Walker<'_>,
    path: &str,
    directory: bool,
) -> std::result::Result<Path, Errno> {
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
    let new = NewInode { kind, mode, uid: walker.creds.fsuid, gid: walker.creds.fsgid };
    let mut children = dir.dentry().lock();
    let inode = dir.inode().create(name.as_bytes(), &new)?;
    let dentry = dir.dentry().insert(&mut children, name.as_bytes(), inode);
    drop(children);
    dentry.keep();
    Ok(Path::new(dir.mount().clone(), dentry))
}

/// Makes a device node, unless the name is taken.
fn make_device(walker: &Walker<'_>, device: &Device) -> std::result::Result<(), Errno> {
    let (parent, name) = device.path.rsplit_once('/').ok_or(Errno::EINVAL)?;
    let dir = make_place(walker, if parent.is_empty() { "/" } else { parent }, true)?;
    let number = abi::stat::makedev(device.major, device.minor);
    let kind = match device.kind {
        'b' => NewKind::BlockDevice(number),
        'p' => NewKind::Fifo,
        _ => NewKind::CharDevice(number),
    };
    let user_ns = &walker.creds.user_ns;
    let (uid, gid) = (user_ns.kernel_uid(device.uid)?, user_ns.kernel_gid(device.gid)?);
    let new = NewInode { kind, mode: device.mode, uid, gid };
    let mut children = dir.dentry().lock();
    match dir.dentry().lookup_locked(&mut children, name.as_bytes()) {
        Err(Errno::ENOENT) => {}
        result => return result.map(drop),
    }
    let inode = dir.inode().create(name.as_bytes(), &new)?;
    let dentry = dir.dentry().insert(&mut children, name.as_bytes(), inode);
    drop(children);
    dentry.keep();
    Ok(())
}

/// Mounts a path over itself, read-only with all that is mounted below it. Nothing to do if it is not there.
fn make_read_only(walker: &Walker<'_>, namespace: &Arc<MountNamespace>, path: &str) -> Result<()> {
    let place = match walker.walk(&walker.root, path.as_bytes(), WalkFlags::FOLLOW) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        place => place?,
    };
    let tree = namespace.copy_tree(&place, true)?;
    for mount in tree.mounts() {
        mount.set_flags(mount.flags() | MountFlags::RDONLY)?;
    }
    Ok(namespace.attach(tree, &place)?)
}

/// Makes a path look empty: an empty directory, or `/dev/null`. Nothing to do if it is not there.
fn mask(walker: &Walker<'_>, namespace: &Arc<MountNamespace>, path: &str) -> Result<()> {
    let place = match walker.walk(&walker.root, path.as_bytes(), WalkFlags::FOLLOW) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        place => place?,
    };
    let cover = if place.dentry().is_dir() {
        SuperBlock::make(Tmpfs::new(&TmpfsOptions::unlimited()))
    } else {
        walker.walk(&walker.root, b"/dev/null", WalkFlags::FOLLOW).context("/dev/null")?.dentry().clone()
    };
    let mount = Mount::new(cover, MountFlags::RDONLY, b"none");
    Ok(namespace.attach(MountTree::single(mount), &place)?)
}

fn propagation(flags: u64) -> Propagation {
    // Nothing outside the sandbox could send or receive events: a slave is as good as private.
    Propagation {
        group: if flags & libc::MS_SHARED != 0 { Mount::new_group() } else { 0 },
        master: 0,
        unbindable: flags & libc::MS_UNBINDABLE != 0,
    }
}
