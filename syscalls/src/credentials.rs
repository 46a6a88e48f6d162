//! User and group ids, capabilities (kernel/sys.c, kernel/groups.c, kernel/capability.c).

use std::sync::Arc;

use abi::capability::{
    _LINUX_CAPABILITY_VERSION_1, _LINUX_CAPABILITY_VERSION_2, _LINUX_CAPABILITY_VERSION_3, CAP_SETGID,
    CAP_SETPCAP, CAP_SETUID, CapSet, SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP, UserCapData, UserCapHeader,
};
use abi::{Errno, Result};
use sentry::task::{AccessMode, Credentials, CurrentTask, Task};

use crate::arguments::UserPtr;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    GETUID => getuid;
    GETEUID => geteuid;
    GETGID => getgid;
    GETEGID => getegid;
    GETRESUID => getresuid;
    GETRESGID => getresgid;
    SETUID => setuid;
    SETGID => setgid;
    SETREUID => setreuid;
    SETREGID => setregid;
    SETRESUID => setresuid;
    SETRESGID => setresgid;
    SETFSUID => setfsuid;
    SETFSGID => setfsgid;
    GETGROUPS => getgroups;
    SETGROUPS => setgroups;
    CAPGET => capget;
    CAPSET => capset;
};

/// ptrace_may_access() with the real ids: the same user, or CAP_SYS_PTRACE.
pub fn may_inspect(task: &CurrentTask, target: &Arc<Task>) -> Result<()> {
    task.may_access(target, AccessMode::AttachReal)
}

fn getuid(task: &CurrentTask) -> Result<u32> {
    let creds = task.credentials();
    Ok(creds.user_ns.uid(creds.uid))
}

fn geteuid(task: &CurrentTask) -> Result<u32> {
    let creds = task.credentials();
    Ok(creds.user_ns.uid(creds.euid))
}

fn getgid(task: &CurrentTask) -> Result<u32> {
    let creds = task.credentials();
    Ok(creds.user_ns.gid(creds.gid))
}

fn getegid(task: &CurrentTask) -> Result<u32> {
    let creds = task.credentials();
    Ok(creds.user_ns.gid(creds.egid))
}

/// Ids of users or of groups: what the calls on both have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

#[derive(Clone, Copy)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    fs: u32,
}

impl Kind {
    fn of(self, creds: &Credentials) -> Ids {
        match self {
            Kind::User => Ids { real: creds.uid, effective: creds.euid, saved: creds.suid, fs: creds.fsuid },
            Kind::Group => Ids { real: creds.gid, effective: creds.egid, saved: creds.sgid, fs: creds.fsgid },
        }
    }

    fn with(self, creds: &Credentials, ids: Ids) -> Credentials {
        let Ids { real, effective, saved, fs } = ids;
        match self {
            Kind::User => Credentials { uid: real, euid: effective, suid: saved, fsuid: fs, ..creds.clone() },
            Kind::Group => {
                Credentials { gid: real, egid: effective, sgid: saved, fsgid: fs, ..creds.clone() }
            }
        }
    }

    /// The id as the caller's user namespace has it.
    fn shown(self, creds: &Credentials, id: u32) -> u32 {
        match self {
            Kind::User => creds.user_ns.uid(id),
            Kind::Group => creds.user_ns.gid(id),
        }
    }

    /// An argument: `None` for -1, else the kernel id. EINVAL.
    fn argument(self, creds: &Credentials, id: u32) -> Result<Option<u32>> {
        match self {
            _ if id == u32::MAX => Ok(None),
            Kind::User => creds.user_ns.kernel_uid(id).map(Some),
            Kind::Group => creds.user_ns.kernel_gid(id).map(Some),
        }
    }

    fn is_capable(self, creds: &Credentials) -> bool {
        creds.capable(if self == Kind::User { CAP_SETUID } else { CAP_SETGID })
    }
}

fn get_all(
    task: &CurrentTask,
    kind: Kind,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<()> {
    let creds = task.credentials();
    let ids = kind.of(&creds);
    real.write(task, &kind.shown(&creds, ids.real))?;
    effective.write(task, &kind.shown(&creds, ids.effective))?;
    saved.write(task, &kind.shown(&creds, ids.saved))
}

fn getresuid(task: &CurrentTask, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> Result<()> {
    get_all(task, Kind::User, r, e, s)
}

fn getresgid(task: &CurrentTask, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> Result<()> {
    get_all(task, Kind::Group, r, e, s)
}

/// New user ids: capabilities follow (cap_emulate_setxuid()), and the process is no longer dumpable.
fn commit_uids(task: &CurrentTask, old: &Credentials, mut new: Credentials) -> Result<()> {
    let root = new.user_ns.kernel_uid(0).ok();
    let is_root = |id: u32| Some(id) == root;
    if old.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
        let had = is_root(old.uid) || is_root(old.euid) || is_root(old.suid);
        let has = is_root(new.uid) || is_root(new.euid) || is_root(new.suid);
        if had && !has && old.securebits & SECBIT_KEEP_CAPS == 0 {
            new.permitted = CapSet::EMPTY;
            new.effective = CapSet::EMPTY;
            new.ambient = CapSet::EMPTY;
        } else if had && !has {
            new.ambient = CapSet::EMPTY;
        }
        if is_root(old.euid) && !is_root(new.euid) {
            new.effective = CapSet::EMPTY;
        }
        if !is_root(old.euid) && is_root(new.euid) {
            new.effective = new.permitted;
        }
    }
    commit(task, old, new);
    Ok(())
}

fn commit(task: &CurrentTask, old: &Credentials, new: Credentials) {
    let changed =
        old.euid != new.euid || old.egid != new.egid || old.fsuid != new.fsuid || old.fsgid != new.fsgid;
    if changed || !new.permitted.is_subset(old.permitted) {
        task.mm().set_dumpable(0);
        task.parent_death_signal.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    task.set_credentials(new);
}

/// Replaces the ids by what `change` makes of them.
fn change(
    task: &CurrentTask,
    kind: Kind,
    change: impl FnOnce(&Credentials, Ids) -> Result<Ids>,
) -> Result<()> {
    let old = task.credentials();
    let new = kind.with(&old, change(&old, kind.of(&old))?);
    match kind {
        Kind::User => commit_uids(task, &old, new),
        Kind::Group => {
            commit(task, &old, new);
            Ok(())
        }
    }
}

fn set(task: &CurrentTask, kind: Kind, id: u32) -> Result<()> {
    change(task, kind, |creds, old| {
        let id = kind.argument(creds, id)?.ok_or(Errno::EINVAL)?;
        let capable = kind.is_capable(creds);
        if !capable && id != old.real && id != old.saved {
            return Err(Errno::EPERM);
        }
        let (real, saved) = if capable { (id, id) } else { (old.real, old.saved) };
        Ok(Ids { real, effective: id, saved, fs: id })
    })
}

fn set_two(task: &CurrentTask, kind: Kind, real: u32, effective: u32) -> Result<()> {
    change(task, kind, |creds, old| {
        let (real, effective) = (kind.argument(creds, real)?, kind.argument(creds, effective)?);
        let capable = kind.is_capable(creds);
        let own = [old.real, old.effective, old.saved];
        let refused = |id: Option<u32>, own: &[u32]| id.is_some_and(|id| !own.contains(&id) && !capable);
        if refused(real, &own[..2]) || refused(effective, &own) {
            return Err(Errno::EPERM);
        }
        let resaves = real.is_some() || effective.is_some_and(|e| e != old.real);
        let effective = effective.unwrap_or(old.effective);
        let saved = if resaves { effective } else { old.saved };
        Ok(Ids { real: real.unwrap_or(old.real), effective, saved, fs: effective })
    })
}

fn set_three(task: &CurrentTask, kind: Kind, ids: [u32; 3]) -> Result<()> {
    change(task, kind, |creds, old| {
        let [real, effective, saved] = ids;
        let real = kind.argument(creds, real)?;
        let effective = kind.argument(creds, effective)?;
        let saved = kind.argument(creds, saved)?;
        let own = [old.real, old.effective, old.saved];
        let foreign = [real, effective, saved].iter().flatten().any(|id| !own.contains(id));
        if foreign && !kind.is_capable(creds) {
            return Err(Errno::EPERM);
        }
        let effective = effective.unwrap_or(old.effective);
        Ok(Ids {
            real: real.unwrap_or(old.real),
            effective,
            saved: saved.unwrap_or(old.saved),
            fs: effective,
        })
    })
}

fn setuid(task: &CurrentTask, id: u32) -> Result<()> {
    set(task, Kind::User, id)
}

fn setgid(task: &CurrentTask, id: u32) -> Result<()> {
    set(task, Kind::Group, id)
}

fn setreuid(task: &CurrentTask, real: u32, effective: u32) -> Result<()> {
    set_two(task, Kind::User, real, effective)
}

fn setregid(task: &CurrentTask, real: u32, effective: u32) -> Result<()> {
    set_two(task, Kind::Group, real, effective)
}

fn setresuid(task: &CurrentTask, real: u32, effective: u32, saved: u32) -> Result<()> {
    set_three(task, Kind::User, [real, effective, saved])
}

fn setresgid(task: &CurrentTask, real: u32, effective: u32, saved: u32) -> Result<()> {
    set_three(task, Kind::Group, [real, effective, saved])
}

/// Returns the old id whether it was changed or not.
fn set_fs(task: &CurrentTask, kind: Kind, id: u32) -> u32 {
    let creds = task.credentials();
    let old = kind.of(&creds);
    if let Ok(Some(id)) = kind.argument(&creds, id)
        && ([old.real, old.effective, old.saved, old.fs].contains(&id) || kind.is_capable(&creds))
    {
        let mut new = kind.with(&creds, Ids { fs: id, ..old });
        let root = new.user_ns.kernel_uid(0).ok();
        if kind == Kind::User && creds.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
            if Some(old.fs) == root && Some(id) != root {
                new.effective = new.effective.difference(CapSet::FS);
            } else if Some(old.fs) != root && Some(id) == root {
                new.effective = new.effective.union(new.permitted.intersection(CapSet::FS));
            }
        }
        commit(task, &creds, new);
    }
    kind.shown(&creds, old.fs)
}

fn setfsuid(task: &CurrentTask, id: u32) -> Result<u32> {
    Ok(set_fs(task, Kind::User, id))
}

fn setfsgid(task: &CurrentTask, id: u32) -> Result<u32> {
    Ok(set_fs(task, Kind::Group, id))
}

/// NGROUPS_MAX.
const GROUPS_MAX: usize = 65536;

fn getgroups(task: &CurrentTask, size: i32, list: UserPtr<u32>) -> Result<usize> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let creds = task.credentials();
    if size == 0 {
        return Ok(creds.groups.len());
    }
    if creds.groups.len() > size {
        return Err(Errno::EINVAL);
    }
    for (i, &group) in creds.groups.iter().enumerate() {
        list.at(i)?.write(task, &creds.user_ns.gid(group))?;
    }
    Ok(creds.groups.len())
}

fn setgroups(task: &CurrentTask, size: i32, list: UserPtr<u32>) -> Result<()> {
    let old = task.credentials();
    if !old.capable(CAP_SETGID) || !old.user_ns.setgroups_allowed() {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(size).ok().filter(|&s| s <= GROUPS_MAX).ok_or(Errno::EINVAL)?;
    let mut groups = Vec::with_capacity(size);
    for id in list.read_slice(task, size)? {
        groups.push(old.user_ns.kernel_gid(id)?);
    }
    groups.sort_unstable();
    commit(task, &old, Credentials { groups: groups.into(), ..(*old).clone() });
    Ok(())
}

/// How many data structures a version has. An unknown version is answered with the one preferred, and EINVAL.
fn version(task: &CurrentTask, header: UserPtr<UserCapHeader>) -> Result<(UserCapHeader, usize)> {
    let read = header.read(task)?;
    match read.version {
        _LINUX_CAPABILITY_VERSION_1 => Ok((read, 1)),
        _LINUX_CAPABILITY_VERSION_2 | _LINUX_CAPABILITY_VERSION_3 => Ok((read, 2)),
        _ => {
            header.write(task, &UserCapHeader { version: _LINUX_CAPABILITY_VERSION_3, ..read })?;
            Err(Errno::EINVAL)
        }
    }
}

fn capget(task: &CurrentTask, header: UserPtr<UserCapHeader>, data: UserPtr<UserCapData>) -> Result<()> {
    let (header, words) = match version(task, header) {
        Err(Errno::EINVAL) if data.is_null() => return Ok(()),
        result => result?,
    };
    if header.pid < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = process::thread(task, header.pid)?.credentials();
    if data.is_null() {
        return Ok(());
    }
    for i in 0..words {
        let word = |set: CapSet| (set.bits() >> (32 * i)) as u32;
        let part = UserCapData {
            effective: word(creds.effective),
            permitted: word(creds.permitted),
            inheritable: word(creds.inheritable),
        };
        data.at(i)?.write(task, &part)?;
    }
    Ok(())
}

fn capset(task: &CurrentTask, header: UserPtr<UserCapHeader>, data: UserPtr<UserCapData>) -> Result<()> {
    let (header, words) = version(task, header)?;
    if header.pid != 0 && process::thread(task, header.pid)?.tid() != task.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for (i, part) in data.read_slice(task, words)?.iter().enumerate() {
        for (set, word) in sets.iter_mut().zip([part.effective, part.permitted, part.inheritable]) {
            *set |= u64::from(word) << (32 * i);
        }
    }
    let [effective, permitted, inheritable] = sets.map(CapSet::from_bits_truncate);
    let old = task.credentials();
    let may_add = old.capable(CAP_SETPCAP);
    let refused = (!may_add && !inheritable.is_subset(old.inheritable.union(old.permitted)))
        || !inheritable.is_subset(old.inheritable.union(old.bounding))
        || !permitted.is_subset(old.permitted)
        || !effective.is_subset(permitted);
    if refused {
        return Err(Errno::EPERM);
    }
    let ambient = old.ambient.intersection(permitted).intersection(inheritable);
    let new = Credentials { effective, permitted, inheritable, ambient, ..(*old).clone() };
    commit(task, &old, new);
    Ok(())
}
