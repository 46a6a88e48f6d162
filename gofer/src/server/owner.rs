//! The ids under which new inodes are created.

use crate::host;
use abi::{Errno, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
const NO_ID: u32 = u32::MAX;

/// The server's own ids, and whether it can take others.
pub struct Owner {
    uid: Uid,
    gid: Gid,
    any: bool,
}

impl Owner {
    /// Looks at the calling thread.
    pub fn new() -> Result<Owner> {
        let wanted = CAP_SETUID | CAP_SETGID;
        let any = host::capabilities()?.effective & wanted == wanted;
        let bits = host::secure_bits()?;
        if any && bits & libc::SECBIT_NO_SETUID_FIXUP == 0 {
            // Without CAP_SETPCAP the capabilities are suspended while the ids are not the superuser's: then a
            // creation is checked as the owner's own.
            let _ = host::set_secure_bits(bits | libc::SECBIT_NO_SETUID_FIXUP);
        }
        let uid = setfsuid(Uid::from_raw(NO_ID));
        let gid = setfsgid(Gid::from_raw(NO_ID));
        Ok(Owner { uid, gid, any })
    }

    /// Runs `create` under these ids; what it creates belongs to them. EINVAL for the id -1, EOVERFLOW for one that
    /// the user namespace does not map. Where the server cannot take other ids, it runs under its own.
    pub fn create<T>(&self, uid: u32, gid: u32, create: impl FnOnce() -> Result<T>) -> Result<T> {
        if uid == NO_ID || gid == NO_ID {
            return Err(Errno::EINVAL);
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        if !self.any || (uid, gid) == (self.uid, self.gid) {
            return create();
        }
        let taken = take(uid, gid);
        let created = if taken { create() } else { Err(Errno::EOVERFLOW) };
        // An inode under the wrong ids must not come from any later request.
        if !take(self.uid, self.gid) {
            std::process::abort();
        }
        created
    }
}

/// Takes these ids; false if the kernel did not allow one of them.
fn take(uid: Uid, gid: Gid) -> bool {
    setfsgid(gid);
    setfsuid(uid);
    // A call with an impossible id changes nothing and tells the one in force.
    setfsgid(Gid::from_raw(NO_ID)) == gid && setfsuid(Uid::from_raw(NO_ID)) == uid
}
