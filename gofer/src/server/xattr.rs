//! Extended attributes.

use super::nodes::Held;
use super::paths::Short;
use super::{Outcome, Server, only};
use crate::host;
use crate::protocol::{Message, MountFlags, Node, Parts, XATTR_NAME_MAX, Xattr};
use abi::{Errno, Result};
use std::os::fd::AsFd;

impl Server {
    pub(super) fn get_xattr(&mut self, mut parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let (held, name, value, _) = self.xattr(&mut parts)?;
        if !value.is_empty() {
            return Err(Errno::EPROTO);
        }
        let path = self.paths.link(held.fd.as_fd())?;
        // ERANGE: longer than a message.
        let length = host::getxattr(path.as_c_str(), name.as_c_str(), reply.spare())
            .map_err(|error| if error == Errno::ERANGE { Errno::E2BIG } else { error })?;
        reply.advance(length);
        Ok(None)
    }

    pub(super) fn set_xattr(&mut self, mut parts: Parts<'_>) -> Outcome {
        let (held, name, value, flags) = self.xattr(&mut parts)?;
        self.writable(held)?;
        let flags = i32::try_from(flags).map_err(|_| Errno::EINVAL)?;
        let path = self.paths.link(held.fd.as_fd())?;
        host::setxattr(path.as_c_str(), name.as_c_str(), value, flags)?;
        Ok(None)
    }

    pub(super) fn list_xattr(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: Node = only(parts)?;
        let held = self.nodes.get(request.node)?;
        let path = self.paths.link(held.fd.as_fd())?;
        let spare = reply.spare();
        let length = host::listxattr(path.as_c_str(), spare)
            .map_err(|error| if error == Errno::ERANGE { Errno::E2BIG } else { error })?;
        // Drops, in place, the names that cannot be read either.
        let flags = self.flags(held.mount);
        let (mut from, mut kept) = (0, 0);
        while let Some(rest) = spare.get(from..length).filter(|rest| !rest.is_empty()) {
            let name = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
            let next = from + (name + 1).min(rest.len());
            if check(flags, rest.get(..name).unwrap_or(&[])).is_ok() && next - from == name + 1 {
                spare.copy_within(from..next, kept);
                kept += next - from;
            }
            from = next;
        }
        reply.advance(kept);
        Ok(None)
    }

    pub(super) fn remove_xattr(&mut self, mut parts: Parts<'_>) -> Outcome {
        let (held, name, value, _) = self.xattr(&mut parts)?;
        if !value.is_empty() {
            return Err(Errno::EPROTO);
        }
        self.writable(held)?;
        let path = self.paths.link(held.fd.as_fd())?;
        host::removexattr(path.as_c_str(), name.as_c_str())?;
        Ok(None)
    }

    /// The node, the name, the value and the flags of a request.
    #[allow(clippy::type_complexity, reason = "the four parts of a request")]
    fn xattr<'a>(
        &self,
        parts: &mut Parts<'a>,
    ) -> Result<(&Held, Short<{ XATTR_NAME_MAX + 1 }>, &'a [u8], u32)> {
        let request: Xattr = parts.get()?;
        let name = parts.take(request.name as usize)?;
        let held = self.nodes.get(request.node)?;
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Errno::ERANGE);
        }
        check(self.flags(held.mount), name)?;
        Ok((held, Short::new(&[name])?, parts.rest(), request.flags))
    }
}

/// EOPNOTSUPP for attributes that are none of the guest's business.
fn check(flags: MountFlags, name: &[u8]) -> Result<()> {
    let overlay = flags.contains(MountFlags::TRUSTED_OVERLAY) && name.starts_with(b"trusted.overlay.");
    if name.starts_with(b"user.") || name == b"security.capability" || overlay {
        Ok(())
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}
