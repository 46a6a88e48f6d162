//! Locks, leases, seals and ownership of open files: those parts of fcntl(2), flock(2), memfd_create(2).

use std::sync::Arc;

use abi::fcntl::{self as f, FOwnerEx, Flock};
use abi::{Errno, Result};
use sentry::fs::memfd;
use sentry::task::CurrentTask;
use sentry::vfs::File;
use sentry::vfs::locks::{self, Kind, Owner, Range};

use crate::arguments::{UserCStr, UserPtr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    FLOCK => flock;
    MEMFD_CREATE => memfd_create;
};

/// The commands of fcntl(2) that are not about descriptors or pipes.
pub(crate) fn fcntl(task: &CurrentTask, fd: i32, file: &Arc<File>, command: u32, arg: u64) -> Result<u64> {
    match command {
        f::F_GETLK | f::F_OFD_GETLK => {
            get_lock(task, file, UserPtr::new(arg), command == f::F_OFD_GETLK).map(|()| 0)
        }
        f::F_SETLK | f::F_SETLKW | f::F_OFD_SETLK | f::F_OFD_SETLKW => {
            let ofd = matches!(command, f::F_OFD_SETLK | f::F_OFD_SETLKW);
            let wait = matches!(command, f::F_SETLKW | f::F_OFD_SETLKW);
            set_lock(task, file, UserPtr::new(arg), ofd, wait).map(|()| 0)
        }
        f::F_GETOWN => {
            let owner = file.owner().clone();
            let Some(pid) = owner.pid else { return Ok(0) };
            let number = i64::from(pid.number_in(&task.pid_ns()));
            Ok((if owner.kind == f::F_OWNER_PGRP as i32 { -number } else { number }) as u64)
        }
        f::F_SETOWN => {
            let number = arg as i32;
            let (kind, number) = if number < 0 {
                (f::F_OWNER_PGRP, number.checked_neg().ok_or(Errno::EINVAL)?)
            } else {
                (f::F_OWNER_PID, number)
            };
            set_owner(task, file, kind as i32, number).map(|()| 0)
        }
        f::F_GETOWN_EX => {
            let owner = file.owner().clone();
            let number = owner.pid.map_or(0, |pid| pid.number_in(&task.pid_ns())) as i32;
            task.mm().write_object(arg, &FOwnerEx { r#type: owner.kind, pid: number })?;
            Ok(0)
        }
        f::F_SETOWN_EX => {
            let owner: FOwnerEx = task.mm().read_object(arg)?;
            if !(0..=f::F_OWNER_PGRP as i32).contains(&owner.r#type) {
                return Err(Errno::EINVAL);
            }
            set_owner(task, file, owner.r#type, owner.pid).map(|()| 0)
        }
        f::F_GETSIG => Ok(file.owner().signal as u64),
        f::F_SETSIG => {
            if arg > 64 {
                return Err(Errno::EINVAL);
            }
            file.owner().signal = arg as i32;
            Ok(0)
        }
        f::F_SETLEASE => {
            let kind = match i16::try_from(arg).map_err(|_| Errno::EINVAL)? {
                f::F_RDLCK => Some(Kind::Read),
                f::F_WRLCK => Some(Kind::Write),
                f::F_UNLCK => None,
                _ => return Err(Errno::EINVAL),
            };
            locks::set_lease(task, file, kind).map(|()| 0)
        }
        f::F_GETLEASE => Ok(f::F_UNLCK as u64),
        f::F_CREATED_QUERY => Ok(file.created().into()),
        f::F_GET_SEALS => memfd::seals(file).map(|seals| seals.bits().into()),
        f::F_ADD_SEALS => memfd::add_seals(file, arg as u32).map(|()| 0),
        f::F_GET_RW_HINT | f::F_GET_FILE_RW_HINT => {
            task.mm().write_object(arg, &0u64)?;
            Ok(0)
        }
        f::F_SET_RW_HINT | f::F_SET_FILE_RW_HINT => {
            // A hint to the storage, which is not the sandbox's.
            if task.mm().read_object::<u64>(arg)? > 5 { Err(Errno::EINVAL) } else { Ok(0) }
        }
        f::F_NOTIFY => {
            if !file.path().dentry().is_dir() {
                return Err(Errno::ENOTDIR);
            }
            {
                let mut owner = file.owner();
                if owner.pid.is_none() {
                    owner.set(task, Some(task.group.pid.clone()), f::F_OWNER_PID as i32);
                }
            }
            file.set_directory_notification(fd, arg as u32);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_owner(task: &CurrentTask, file: &File, kind: i32, number: i32) -> Result<()> {
    let pid = match u32::try_from(number).map_err(|_| Errno::EINVAL)? {
        0 => None,
        n => Some(task.pid_ns().find(n).ok_or(Errno::ESRCH)?),
    };
    file.owner().set(task, pid, kind);
    Ok(())
}

/// The range that a `struct flock` means (flock_to_posix_lock).
fn range_of(file: &File, lock: &Flock) -> Result<Range> {
    let base = match lock.l_whence as u32 {
        f::SEEK_SET => 0,
        f::SEEK_CUR => *file.position() as i64,
        f::SEEK_END => file.path().inode().attributes()?.size as i64,
        _ => return Err(Errno::EINVAL),
    };
    Range::new(base.checked_add(lock.l_start).ok_or(Errno::EOVERFLOW)?, lock.l_len)
}

fn owner(task: &CurrentTask, file: &File, ofd: bool) -> Owner {
    if ofd { Owner::description(file) } else { Owner::process(&task.fds()) }
}

fn get_lock(task: &CurrentTask, file: &Arc<File>, pointer: UserPtr<Flock>, ofd: bool) -> Result<()> {
    let mut lock = pointer.read(task)?;
    if ofd && lock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = match lock.l_type {
        f::F_RDLCK => Kind::Read,
        f::F_WRLCK => Kind::Write,
        _ => return Err(Errno::EINVAL),
    };
    let range = range_of(file, &lock)?;
    match locks::get_record(file, owner(task, file, ofd), kind, range) {
        None => lock.l_type = f::F_UNLCK,
        Some(found) => {
            lock.l_type = if found.kind == Kind::Read { f::F_RDLCK } else { f::F_WRLCK };
            lock.l_whence = f::SEEK_SET as i16;
            lock.l_start = found.range.start as i64;
            lock.l_len = found.range.len() as i64;
            lock.l_pid = found.pid.map_or(-1, |pid| pid.number_in(&task.pid_ns()) as i32);
        }
    }
    pointer.write(task, &lock)
}

fn set_lock(
    task: &CurrentTask,
    file: &Arc<File>,
    pointer: UserPtr<Flock>,
    ofd: bool,
    wait: bool,
) -> Result<()> {
    let lock = pointer.read(task)?;
    let range = range_of(file, &lock)?;
    if ofd && lock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = match lock.l_type {
        f::F_RDLCK => {
            file.check_readable()?;
            Some(Kind::Read)
        }
        f::F_WRLCK => {
            file.check_writable()?;
            Some(Kind::Write)
        }
        f::F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    locks::set_record(task, file, owner(task, file, ofd), kind, range, wait)
}

fn flock(task: &CurrentTask, fd: i32, operation: u32) -> Result<()> {
    let file = task.file(fd)?;
    if file.flags().contains(f::OpenFlags::O_PATH) {
        return Err(Errno::EBADF);
    }
    let kind = match operation & !f::LOCK_NB {
        f::LOCK_SH => Some(Kind::Read),
        f::LOCK_EX => Some(Kind::Write),
        f::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    locks::flock(task, &file, kind, operation & f::LOCK_NB == 0)
}

fn memfd_create(task: &CurrentTask, name: UserCStr, flags: u32) -> Result<i32> {
    const MFD_CLOEXEC: u32 = 1;
    let name = name.read(task, memfd::NAME_MAX + 1, Errno::EINVAL)?;
    let file = task.kernel().memfds.create(&task.credentials(), &name, flags)?;
    task.install(file, flags & MFD_CLOEXEC != 0)
}
