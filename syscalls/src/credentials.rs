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

fn getresuid(
    task: &CurrentTask,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<()> {
    let creds = task.credentials();
    real.write(task, &creds.user_ns.uid(creds.uid))?;
    effective.write(task, &creds.user_ns.uid(creds.euid))?;
    saved.write(task, &creds.user_ns.uid(creds.suid))
}

fn getresgid(
    task: &CurrentTask,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> Result<()> {
    let creds = task.credentials();
    real.write(task, &creds.user_ns.gid(creds.gid))?;
    effective.write(task, &creds.user_ns.gid(creds.egid))?;
    saved.write(task, &creds.user_ns.gid(creds.sgid))
}

/// An id argument: `None` for -1, else the kernel id.
fn uid(creds: &Credentials, id: u32) -> Result<Option<u32>> {
    if id == u32::MAX { Ok(None) } else { creds.user_ns.kernel_uid(id).map(Some) }
}

fn gid(creds: &Credentials, id: u32) -> Result<Option<u32>> {
    if id == u32::MAX { Ok(None) } else { creds.user_ns.kernel_gid(id).map(Some) }
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

fn setuid(task: &CurrentTask, id: u32) -> Result<()> {
    let old = task.credentials();
    let id = uid(&old, id)?.ok_or(Errno::EINVAL)?;
    let mut new = (*old).clone();
    if old.capable(CAP_SETUID) {
        new.uid = id;
        new.suid = id;
    } else if id != old.uid && id != old.suid {
        return Err(Errno::EPERM);
    }
    new.euid = id;
    new.fsuid = id;
    commit_uids(task, &old, new)
}

fn setgid(task: &CurrentTask, id: u32) -> Result<()> {
    let old = task.credentials();
    let id = gid(&old, id)?.ok_or(Errno::EINVAL)?;
    let mut new = (*old).clone();
    if old.capable(CAP_SETGID) {
        new.gid = id;
        new.sgid = id;
    } else if id != old.gid && id != old.sgid {
        return Err(Errno::EPERM);
    }
    new.egid = id;
    new.fsgid = id;
    commit(task, &old, new);
    Ok(())
}

fn setreuid(task: &CurrentTask, real: u32, effective: u32) -> Result<()> {
    let old = task.credentials();
    let (real, effective) = (uid(&old, real)?, uid(&old, effective)?);
    let mut new = (*old).clone();
    let capable = old.capable(CAP_SETUID);
    if let Some(real) = real {
        if real != old.uid && real != old.euid && !capable {
            return Err(Errno::EPERM);
        }
        new.uid = real;
    }
    if let Some(effective) = effective {
        if effective != old.uid && effective != old.euid && effective != old.suid && !capable {
            return Err(Errno::EPERM);
        }
        new.euid = effective;
    }
    if real.is_some() || effective.is_some_and(|e| e != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit_uids(task, &old, new)
}

fn setregid(task: &CurrentTask, real: u32, effective: u32) -> Result<()> {
    let old = task.credentials();
    let (real, effective) = (gid(&old, real)?, gid(&old, effective)?);
    let mut new = (*old).clone();
    let capable = old.capable(CAP_SETGID);
    if let Some(real) = real {
        if real != old.gid && real != old.egid && !capable {
            return Err(Errno::EPERM);
        }
        new.gid = real;
    }
    if let Some(effective) = effective {
        if effective != old.gid && effective != old.egid && effective != old.sgid && !capable {
            return Err(Errno::EPERM);
        }
        new.egid = effective;
    }
    if real.is_some() || effective.is_some_and(|e| e != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit(task, &old, new);
    Ok(())
}

fn setresuid(task: &CurrentTask, real: u32, effective: u32, saved: u32) -> Result<()> {
    let old = task.credentials();
    let ids = [uid(&old, real)?, uid(&old, effective)?, uid(&old, saved)?];
    let own = [old.uid, old.euid, old.suid];
    if ids.iter().flatten().any(|id| !own.contains(id)) && !old.capable(CAP_SETUID) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.uid = ids[0].unwrap_or(old.uid);
    new.euid = ids[1].unwrap_or(old.euid);
    new.suid = ids[2].unwrap_or(old.suid);
    new.fsuid = new.euid;
    commit_uids(task, &old, new)
}

fn setresgid(task: &CurrentTask, real: u32, effective: u32, saved: u32) -> Result<()> {
    let old = task.credentials();
    let ids = [gid(&old, real)?, gid(&old, effective)?, gid(&old, saved)?];
    let own = [old.gid, old.egid, old.sgid];
    if ids.iter().flatten().any(|id| !own.contains(id)) && !old.capable(CAP_SETGID) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.gid = ids[0].unwrap_or(old.gid);
    new.egid = ids[1].unwrap_or(old.egid);
    new.sgid = ids[2].unwrap_or(old.sgid);
    new.fsgid = new.egid;
    commit(task, &old, new);
    Ok(())
}

/// Returns the old id whether it was changed or not.
fn setfsuid(task: &CurrentTask, id: u32) -> Result<u32> {
    let old = task.credentials();
    let shown = old.user_ns.uid(old.fsuid);
    if let Ok(Some(id)) = uid(&old, id)
        && ([old.uid, old.euid, old.suid, old.fsuid].contains(&id) || old.capable(CAP_SETUID))
    {
        let mut new = (*old).clone();
        new.fsuid = id;
        let root = new.user_ns.kernel_uid(0).ok();
        if old.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
            if Some(old.fsuid) == root && Some(id) != root {
                new.effective = new.effective.difference(CapSet::FS);
            } else if Some(old.fsuid) != root && Some(id) == root {
                new.effective = new.effective.union(new.permitted.intersection(CapSet::FS));
            }
        }
        commit(task, &old, new);
    }
    Ok(shown)
}

fn setfsgid(task: &CurrentTask, id: u32) -> Result<u32> {
    let old = task.credentials();
    let shown = old.user_ns.gid(old.fsgid);
    if let Ok(Some(id)) = gid(&old, id)
        && ([old.gid, old.egid, old.sgid, old.fsgid].contains(&id) || old.capable(CAP_SETGID))
    {
        commit(task, &old, Credentials { fsgid: id, ..(*old).clone() });
    }
    Ok(shown)
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
