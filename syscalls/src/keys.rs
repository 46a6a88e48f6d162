//! Keys (security/keys/keyctl.c).

use std::sync::Arc;

use abi::keyctl as k;
use abi::{Errno, Result};
use sentry::keys::{Key, KeyType, need};
use sentry::task::CurrentTask;

use crate::arguments::{Address, UserCStr};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    ADD_KEY => add_key, Partial, "types keyring, user and logon";
    REQUEST_KEY => request_key, Partial, "nobody is asked for keys that are not there";
    KEYCTL => keyctl, Partial, "no public keys, persistent keyrings, restrictions or watches";
};

/// The longest payload of a call.
const PAYLOAD_MAX: usize = 1024 * 1024 - 1;

fn type_name(task: &CurrentTask, name: UserCStr) -> Result<Vec<u8>> {
    let name = name.read(task, 32, Errno::EINVAL)?;
    match name.first() {
        None => Err(Errno::EINVAL),
        Some(b'.') => Err(Errno::EPERM),
        Some(_) => Ok(name),
    }
}

fn description(task: &CurrentTask, text: UserCStr) -> Result<Vec<u8>> {
    text.read(task, 4096, Errno::EINVAL)
}

fn payload(task: &CurrentTask, at: Address, len: usize) -> Result<Vec<u8>> {
    if len > PAYLOAD_MAX {
        return Err(Errno::EINVAL);
    }
    let mut payload = vec![0; if at.0 == 0 { 0 } else { len }];
    task.mm().read_bytes(at.0, &mut payload)?;
    Ok(payload)
}

fn add_key(
    task: &CurrentTask,
    kind: UserCStr,
    name: UserCStr,
    data: Address,
    len: usize,
    ring: i32,
) -> Result<i32> {
    if len > PAYLOAD_MAX {
        return Err(Errno::EINVAL);
    }
    let kind = type_name(task, kind)?;
    let name = if name.is_null() { Vec::new() } else { description(task, name)? };
    if kind == b"keyring" && name.first() == Some(&b'.') {
        return Err(Errno::EPERM);
    }
    let payload = payload(task, data, len)?;
    let ring = task.key(ring, true, need::WRITE)?;
    let kind = KeyType::by_name(&kind)?;
    if name.is_empty() {
        return Err(Errno::EINVAL);
    }
    Ok(task.add_key(&ring, kind, &name, payload)?.serial)
}

fn request_key(
    task: &CurrentTask,
    kind: UserCStr,
    name: UserCStr,
    callout: UserCStr,
    ring: i32,
) -> Result<i32> {
    let kind = type_name(task, kind)?;
    let name = description(task, name)?;
    if !callout.is_null() {
        callout.read(task, 4096, Errno::EINVAL)?;
    }
    let target = if ring == 0 { None } else { Some(task.key(ring, true, need::WRITE)?) };
    let kind = KeyType::by_name(&kind).map_err(|_| Errno::ENOKEY)?;
    let found = task.find_key(None, kind, &name)?;
    if let Some(ring) = target {
        ring.link(&found)?;
    }
    Ok(found.serial)
}

/// Copies a result if it fits, and returns its length.
fn give(task: &CurrentTask, bytes: &[u8], buf: u64, len: u64) -> Result<u64> {
    if buf != 0 && bytes.len() as u64 <= len {
        task.mm().write_bytes(buf, bytes)?;
    }
    Ok(bytes.len() as u64)
}

fn keyctl(task: &CurrentTask, operation: u32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) -> Result<u64> {
    let id = arg2 as i32;
    let done = |()| 0;
    match operation {
        k::KEYCTL_GET_KEYRING_ID => Ok(task.key(id, arg3 as i32 != 0, need::SEARCH)?.serial as u64),
        k::KEYCTL_JOIN_SESSION_KEYRING => {
            let name = match arg2 {
                0 => None,
                at => Some(description(task, UserCStr(at))?),
            };
            if name.as_ref().is_some_and(|name| name.first() == Some(&b'.')) {
                return Err(Errno::EPERM);
            }
            Ok(task.join_session_keyring(name.as_deref())? as u64)
        }
        k::KEYCTL_UPDATE => {
            if arg4 > platform::PAGE_SIZE {
                return Err(Errno::EINVAL);
            }
            let payload = payload(task, Address(arg3), arg4 as usize)?;
            task.key(id, false, need::WRITE)?.update(payload).map(done)
        }
        k::KEYCTL_REVOKE => {
            let key = match task.key(id, false, need::WRITE) {
                Err(Errno::EACCES) => task.key(id, false, need::SETATTR)?,
                result => result?,
            };
            key.revoke();
            Ok(0)
        }
        k::KEYCTL_CHOWN => {
            let ns = task.credentials().user_ns.clone();
            let uid = if arg3 as i32 == -1 { None } else { Some(ns.kernel_uid(arg3 as u32)?) };
            let gid = if arg4 as i32 == -1 { None } else { Some(ns.kernel_gid(arg4 as u32)?) };
            if uid.is_none() && gid.is_none() {
                return Ok(0);
            }
            task.key(id, true, need::SETATTR)?.set_owner(task, uid, gid).map(done)
        }
        k::KEYCTL_SETPERM => {
            if arg3 as u32 & !0x3f3f_3f3f != 0 {
                return Err(Errno::EINVAL);
            }
            task.key(id, true, need::SETATTR)?.set_permissions(task, arg3 as u32).map(done)
        }
        k::KEYCTL_DESCRIBE => {
            let mut text = task.key(id, false, need::VIEW)?.describe(&task.credentials());
            text.push(0);
            give(task, &text, arg3, arg4)
        }
        k::KEYCTL_CLEAR => task.key(id, true, need::WRITE)?.clear().map(done),
        k::KEYCTL_LINK => {
            let ring = task.key(arg3 as i32, true, need::WRITE)?;
            ring.link(&task.key(id, true, need::LINK)?).map(done)
        }
        k::KEYCTL_UNLINK => {
            let ring = task.key(arg3 as i32, false, need::WRITE)?;
            let key = task.key(id, false, need::NOTHING)?;
            ring.unlink(&key).map(done)
        }
        k::KEYCTL_SEARCH => search(task, id, UserCStr(arg3), UserCStr(arg4), arg5 as i32),
        k::KEYCTL_READ => {
            let key = match task.key(id, false, need::READ) {
                // Who can find it may read it.
                Err(Errno::EACCES) => task.key(id, false, need::SEARCH)?,
                result => result?,
            };
            give(task, &key.read()?, arg3, arg4)
        }
        k::KEYCTL_SET_REQKEY_KEYRING => match id {
            // No change, and the default, which it is.
            -1 | 0 => Ok(0),
            _ => Err(Errno::EINVAL),
        },
        k::KEYCTL_SET_TIMEOUT => {
            let now = task.kernel().clock.monotonic();
            task.key(id, true, need::SETATTR)?.set_timeout(now, arg3 as u32);
            Ok(0)
        }
        k::KEYCTL_INVALIDATE => {
            task.key(id, false, need::SEARCH)?.revoke();
            Ok(0)
        }
        k::KEYCTL_GET_SECURITY => {
            task.key(id, false, need::VIEW)?;
            give(task, b"\0", arg3, arg4)
        }
        k::KEYCTL_ASSUME_AUTHORITY if id == 0 => Ok(0),
        k::KEYCTL_INSTANTIATE | k::KEYCTL_NEGATE | k::KEYCTL_REJECT | k::KEYCTL_INSTANTIATE_IOV => {
            Err(Errno::EPERM)
        }
        k::KEYCTL_ASSUME_AUTHORITY => Err(Errno::ENOKEY),
        k::KEYCTL_CAPABILITIES => {
            // KEYCTL_CAPS0_CAPABILITIES and KEYCTL_CAPS0_INVALIDATE.
            let caps = [0x80 | 0x20, 0];
            let len = (arg3 as usize).min(caps.len());
            task.mm().write_bytes(arg2, caps.get(..len).unwrap_or_default())?;
            Ok(caps.len() as u64)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn search(task: &CurrentTask, ring: i32, kind: UserCStr, name: UserCStr, target: i32) -> Result<u64> {
    let kind = type_name(task, kind)?;
    let name = description(task, name)?;
    let ring: Arc<Key> = task.key(ring, false, need::SEARCH)?;
    let target = if target == 0 { None } else { Some(task.key(target, true, need::WRITE)?) };
    let found = task.find_key(Some(&ring), KeyType::by_name(&kind)?, &name)?;
    if let Some(target) = target {
        target.link(&found)?;
    }
    Ok(found.serial as u64)
}
