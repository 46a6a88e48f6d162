//! Who a process is to others: `uid_map`, `gid_map`, `setgroups`, `loginuid` and their like (user_namespaces(7),
//! fs/proc/base.c, kernel/user_namespace.c).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::capability::{CAP_AUDIT_CONTROL, CAP_SYS_ADMIN};
use abi::fcntl::OpenFlags;
use abi::{Errno, Result};

use super::subject::{Subject, user_ns_of};
use crate::fs::synthetic::{Content, Request};
use crate::task::UserNamespace;
use crate::task::credentials::IdMap;
use crate::vfs::Io;

/// The longest map that can be written, in bytes (a page less one).
const MAP_MAX: usize = 4095;

fn user_ns(subject: &Subject) -> Result<Arc<UserNamespace>> {
    Ok(subject.find()?.credentials().user_ns.clone())
}

/// `uid_map` (true) or `gid_map`.
pub(super) struct Map(pub bool);

impl Content<Subject> for Map {
    fn read(&self, subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
        let ns = user_ns(subject)?;
        // In terms of the reader's namespace, or of the one above if that is it.
        let reader = user_ns_of(io, subject.kernel());
        let map = match &ns.parent {
            _ if !Arc::ptr_eq(&reader, &ns) => reader.map(self.0),
            Some(parent) => parent.map(self.0),
            None => IdMap::identity(),
        };
        let mut text = String::new();
        for extent in ns.map(self.0).extents() {
            let outside = map.from_kernel(extent.kernel).unwrap_or(u32::MAX);
            let _ = writeln!(text, "{:>10} {outside:>10} {:>10}", extent.first, extent.count);
        }
        Ok(text.into_bytes())
    }

    fn write(&self, subject: &Subject, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        if request.offset != 0 || request.data.len() > MAP_MAX {
            return Err(Errno::EINVAL);
        }
        let ns = user_ns(subject)?;
        let Some(parent) = &ns.parent else { return Err(Errno::EPERM) };
        let (Some(writer), Some(opener)) = (io.task, request.opener) else { return Err(Errno::EPERM) };
        if !Arc::ptr_eq(&opener.user_ns, &ns) && !Arc::ptr_eq(&opener.user_ns, parent) {
            return Err(Errno::EPERM);
        }
        ns.set_map(self.0, &parse_map(request.data)?, &writer.credentials(), opener)
    }
}

/// Lines of three numbers. EINVAL.
fn parse_map(data: &[u8]) -> Result<Vec<(u32, u32, u32)>> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let mut lines = Vec::new();
    // One line feed ends the last line, and nothing comes after it.
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        let mut fields = line.split_ascii_whitespace();
        let mut next = || fields.next().and_then(|f| f.parse::<u32>().ok()).ok_or(Errno::EINVAL);
        let line = (next()?, next()?, next()?);
        if fields.next().is_some() {
            return Err(Errno::EINVAL);
        }
        lines.push(line);
    }
    Ok(lines)
}

/// `projid_map`: no filesystem has projects.
pub(super) fn projid_map(subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
    let initial = user_ns(subject)?.parent.is_none();
    Ok(if initial { b"         0          0 4294967295\n".to_vec() } else { Vec::new() })
}

/// `setgroups`.
pub(super) struct SetGroups;

impl Content<Subject> for SetGroups {
    fn open(&self, subject: &Subject, io: &Io<'_>, flags: OpenFlags) -> Result<()> {
        let ns = user_ns(subject)?;
        let may = io.task.is_none_or(|task| task.credentials().capable_in(&ns, CAP_SYS_ADMIN));
        if flags.writable() && !may { Err(Errno::EACCES) } else { Ok(()) }
    }

    fn read(&self, subject: &Subject, _io: &Io<'_>) -> Result<Vec<u8>> {
        Ok(if user_ns(subject)?.setgroups_denied() { b"deny\n".to_vec() } else { b"allow\n".to_vec() })
    }

    fn write(&self, subject: &Subject, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        if request.offset != 0 || request.data.len() >= 8 {
            return Err(Errno::EINVAL);
        }
        let ns = user_ns(subject)?;
        match request.text()? {
            "allow" if ns.setgroups_denied() => Err(Errno::EPERM),
            "allow" => Ok(()),
            "deny" => ns.deny_setgroups(),
            _ => Err(Errno::EINVAL),
        }
    }
}

pub(super) fn login_uid(subject: &Subject, io: &Io<'_>) -> Result<Vec<u8>> {
    let uid = subject.find()?.group.login_uid.load(Ordering::Relaxed);
    let shown = match uid {
        u32::MAX => u32::MAX,
        uid => user_ns_of(io, subject.kernel()).uid(uid),
    };
    Ok(shown.to_string().into_bytes())
}

pub(super) fn set_login_uid(subject: &Subject, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
    let group = subject.find()?.group;
    let writer = io.task.ok_or(Errno::EPERM)?;
    if !Arc::ptr_eq(&writer.group, &group) {
        return Err(Errno::EPERM);
    }
    if request.offset != 0 {
        return Err(Errno::EINVAL);
    }
    let uid: u32 = request.text()?.parse().map_err(|_| Errno::EINVAL)?;
    let creds = writer.credentials();
    let new = if uid == u32::MAX { uid } else { creds.user_ns.kernel_uid(uid)? };
    let unset = group.login_uid.load(Ordering::Relaxed) == u32::MAX;
    if !unset && !creds.capable_in(&subject.kernel().user_ns, CAP_AUDIT_CONTROL) {
        return Err(Errno::EPERM);
    }
    group.login_uid.store(new, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_lines_of_three_numbers() {
        assert_eq!(parse_map(b"0 1000 1\n"), Ok(vec![(0, 1000, 1)]));
        assert_eq!(parse_map(b"0 1000 1\n  1\t100000   65536"), Ok(vec![(0, 1000, 1), (1, 100_000, 65536)]));
        for bad in [&b""[..], b"\n", b"0 1", b"0 1 2 3", b"a 1 2", b"0 1 2\n\n", b"0 1 4294967296", b"-1 0 1"]
        {
            assert_eq!(parse_map(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
