//! What is mounted, as structures: statmount(2) and listmount(2) (fs/namespace.c).

use std::sync::Arc;

use abi::mount::{self as m, MntIdReq, MountAttrFlags, MountFlags as M, Statmount, StatmountMask};
use abi::stat::{major, minor};
use abi::{Errno, Result};
use sentry::task::CurrentTask;
use sentry::vfs::{Mount, MountFlags, Path};
use zerocopy::IntoBytes;

use crate::arguments::{Address, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    STATMOUNT => statmount, Partial, "the caller's namespace only";
    LISTMOUNT => listmount, Partial, "the caller's namespace only";
};

/// Below these are the numbers of mountinfo (MNT_UNIQUE_ID_OFFSET).
const FIRST_ID: u64 = 1 << 31;

/// The number of a mount that is never used again (STATX_MNT_ID_UNIQUE), which is not that of mountinfo.
pub(crate) fn unique_id(mount: &Mount) -> u64 {
    FIRST_ID + u64::from(mount.id())
}

/// copy_mnt_id_req(): E2BIG, EINVAL, EFAULT.
fn request(task: &CurrentTask, at: Address) -> Result<MntIdReq> {
    let size = UserPtr::<u32>::new(at.0).read(task)?;
    let request: MntIdReq =
        crate::files::read_extensible(task, at.0, size as usize, m::MNT_ID_REQ_SIZE_VER0 as usize)?;
    if request.mnt_ns_fd != 0 || request.mnt_id <= FIRST_ID {
        return Err(Errno::EINVAL);
    }
    let own = task.namespaces().mount.clone();
    if request.mnt_ns_id != 0 && request.mnt_ns_id != own.ino {
        return Err(Errno::ENOENT);
    }
    Ok(request)
}

fn find(task: &CurrentTask, id: u64) -> Result<Arc<Mount>> {
    let mounts = task.namespaces().mount.mounts();
    mounts.into_iter().find(|mount| unique_id(mount) == id).ok_or(Errno::ENOENT)
}

/// Where it is mounted, as the caller sees it; `None` if it does not.
fn mount_point(task: &CurrentTask, mount: &Arc<Mount>) -> Option<Vec<u8>> {
    let (name, reachable) = Path::new(mount.clone(), mount.root().clone()).name_below(&task.fs().root());
    reachable.then_some(name)
}

fn listmount(task: &CurrentTask, at: Address, ids: UserPtr<u64>, count: usize, flags: u32) -> Result<usize> {
    if flags & !m::LISTMOUNT_REVERSE != 0 {
        return Err(Errno::EINVAL);
    }
    if count > 1_000_000 {
        return Err(Errno::EOVERFLOW);
    }
    let request = request(task, at)?;
    if (1..=FIRST_ID).contains(&request.param) {
        return Err(Errno::EINVAL);
    }
    let above = if request.mnt_id == m::LSMT_ROOT { None } else { Some(find(task, request.mnt_id)?) };
    let below = |mount: &Arc<Mount>| match &above {
        None => true,
        Some(above) => {
            let mut at = mount.parent();
            while let Some(place) = &at {
                if Arc::ptr_eq(place.mount(), above) {
                    return true;
                }
                at = place.mount().parent();
            }
            false
        }
    };
    let mut all = task.namespaces().mount.mounts();
    if flags & m::LISTMOUNT_REVERSE != 0 {
        all.reverse();
    }
    let after = |id: u64| match (request.param, flags & m::LISTMOUNT_REVERSE != 0) {
        (0, _) => true,
        (last, false) => id > last,
        (last, true) => id < last,
    };
    let found: Vec<u64> = all
        .iter()
        .filter(|mount| below(mount) && after(unique_id(mount)) && mount_point(task, mount).is_some())
        .map(|mount| unique_id(mount))
        .take(count)
        .collect();
    task.mm().write_bytes(ids.addr, found.as_bytes())?;
    Ok(found.len())
}

fn attributes(flags: MountFlags) -> u64 {
    use MountAttrFlags as A;
    let pairs = [
        (MountFlags::RDONLY, A::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, A::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, A::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, A::MOUNT_ATTR_NOEXEC),
        (MountFlags::NODIRATIME, A::MOUNT_ATTR_NODIRATIME),
    ];
    let plain =
        pairs.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |all, pair| all | pair.1.bits());
    plain
        | if flags.contains(MountFlags::NOATIME) {
            A::MOUNT_ATTR_NOATIME.bits()
        } else if flags.contains(MountFlags::RELATIME) {
            0
        } else {
            A::MOUNT_ATTR_STRICTATIME.bits()
        }
}

fn propagation(mount: &Mount) -> u64 {
    let p = mount.propagation();
    let mut flags = M::empty();
    if p.group != 0 {
        flags |= M::MS_SHARED;
    }
    if p.master != 0 {
        flags |= M::MS_SLAVE;
    }
    if p.unbindable {
        flags |= M::MS_UNBINDABLE;
    }
    if flags.is_empty() { M::MS_PRIVATE.bits() } else { flags.bits() }
}

/// The strings that follow the structure, each with a zero byte.
#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, text: &[u8]) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend_from_slice(text);
        self.0.push(0);
        at
    }
}

fn statmount(task: &CurrentTask, at: Address, buf: Address, size: usize, flags: u32) -> Result<()> {
    use StatmountMask as S;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let request = request(task, at)?;
    let mount = find(task, request.mnt_id)?;
    let point = mount_point(task, &mount).ok_or(Errno::ENOENT)?;
    let wanted = S::from_bits_truncate(request.param);
    let mut found = Statmount::default();
    let mut strings = Strings::default();
    let mut mask = S::empty();
    let fs = mount.superblock().fs();
    if wanted.contains(S::STATMOUNT_SB_BASIC) {
        mask |= S::STATMOUNT_SB_BASIC;
        let dev = mount.superblock().dev();
        found.sb_dev_major = major(dev);
        found.sb_dev_minor = minor(dev);
        found.sb_magic = fs.status()?.magic;
        found.sb_flags = (mount.flags() & MountFlags::RDONLY).bits() as u32;
    }
    if wanted.contains(S::STATMOUNT_MNT_BASIC) {
        mask |= S::STATMOUNT_MNT_BASIC;
        let parent = mount.parent();
        let parent = parent.as_ref().map_or(&mount, |place| place.mount());
        found.mnt_id = unique_id(&mount);
        found.mnt_parent_id = unique_id(parent);
        found.mnt_id_old = mount.id();
        found.mnt_parent_id_old = parent.id();
        found.mnt_attr = attributes(mount.flags());
        found.mnt_propagation = propagation(&mount);
        found.mnt_peer_group = mount.propagation().group;
        found.mnt_master = mount.propagation().master;
    }
    if wanted.contains(S::STATMOUNT_PROPAGATE_FROM) {
        mask |= S::STATMOUNT_PROPAGATE_FROM;
        found.propagate_from = mount.propagation().master;
    }
    if wanted.contains(S::STATMOUNT_FS_TYPE) {
        mask |= S::STATMOUNT_FS_TYPE;
        found.fs_type = strings.add(fs.name().as_bytes());
    }
    if wanted.contains(S::STATMOUNT_MNT_ROOT) {
        mask |= S::STATMOUNT_MNT_ROOT;
        let mut names = Vec::new();
        let mut at = mount.root().clone();
        while let Some(parent) = at.parent() {
            names.push(at.name());
            at = parent;
        }
        let mut text = Vec::new();
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        found.mnt_root = strings.add(if text.is_empty() { b"/" } else { &text });
    }
    if wanted.contains(S::STATMOUNT_MNT_POINT) {
        mask |= S::STATMOUNT_MNT_POINT;
        found.mnt_point = strings.add(&point);
    }
    let options = fs.options();
    let options = options.trim_start_matches(',');
    if wanted.contains(S::STATMOUNT_MNT_OPTS) && !options.is_empty() {
        mask |= S::STATMOUNT_MNT_OPTS;
        found.mnt_opts = strings.add(options.as_bytes());
    }
    if wanted.contains(S::STATMOUNT_MNT_NS_ID) {
        mask |= S::STATMOUNT_MNT_NS_ID;
        found.mnt_ns_id = task.namespaces().mount.ino;
    }
    if wanted.contains(S::STATMOUNT_SB_SOURCE) {
        mask |= S::STATMOUNT_SB_SOURCE;
        found.sb_source = strings.add(mount.source());
    }
    if wanted.contains(S::STATMOUNT_SUPPORTED_MASK) {
        mask |= S::STATMOUNT_SUPPORTED_MASK;
        found.supported_mask = (S::STATMOUNT_SB_BASIC
            | S::STATMOUNT_MNT_BASIC
            | S::STATMOUNT_PROPAGATE_FROM
            | S::STATMOUNT_MNT_ROOT
            | S::STATMOUNT_MNT_POINT
            | S::STATMOUNT_FS_TYPE
            | S::STATMOUNT_MNT_NS_ID
            | S::STATMOUNT_MNT_OPTS
            | S::STATMOUNT_SB_SOURCE
            | S::STATMOUNT_SUPPORTED_MASK)
            .bits();
    }
    found.mask = mask.bits();
    let whole = size_of::<Statmount>() + strings.0.len();
    if !strings.0.is_empty() && size < whole {
        return Err(Errno::EOVERFLOW);
    }
    found.size = whole.min(size) as u32;
    let bytes = [found.as_bytes(), &strings.0].concat();
    task.mm().write_bytes(buf.0, bytes.get(..whole.min(size)).unwrap_or(&bytes))
}
