//! Capabilities (`capability.h`, `securebits.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

use std::fmt;

macro_rules! capabilities {
    ($($name:ident = $number:literal;)*) => {
        $(pub const $name: u32 = $number;)*

        /// The name (`CAP_CHOWN`), or `None` for a number that is no capability.
        pub const fn name(cap: u32) -> Option<&'static str> {
            match cap { $($number => Some(stringify!($name)),)* _ => None }
        }

        /// The capability with this name, as OCI configurations write it.
        pub fn from_name(name: &str) -> Option<u32> {
            match name { $(stringify!($name) => Some($number),)* _ => None }
        }
    };
}

capabilities! {
    CAP_CHOWN = 0;
    CAP_DAC_OVERRIDE = 1;
    CAP_DAC_READ_SEARCH = 2;
    CAP_FOWNER = 3;
    CAP_FSETID = 4;
    CAP_KILL = 5;
    CAP_SETGID = 6;
    CAP_SETUID = 7;
    CAP_SETPCAP = 8;
    CAP_LINUX_IMMUTABLE = 9;
    CAP_NET_BIND_SERVICE = 10;
    CAP_NET_BROADCAST = 11;
    CAP_NET_ADMIN = 12;
    CAP_NET_RAW = 13;
    CAP_IPC_LOCK = 14;
    CAP_IPC_OWNER = 15;
    CAP_SYS_MODULE = 16;
    CAP_SYS_RAWIO = 17;
    CAP_SYS_CHROOT = 18;
    CAP_SYS_PTRACE = 19;
    CAP_SYS_PACCT = 20;
    CAP_SYS_ADMIN = 21;
    CAP_SYS_BOOT = 22;
    CAP_SYS_NICE = 23;
    CAP_SYS_RESOURCE = 24;
    CAP_SYS_TIME = 25;
    CAP_SYS_TTY_CONFIG = 26;
    CAP_MKNOD = 27;
    CAP_LEASE = 28;
    CAP_AUDIT_WRITE = 29;
    CAP_AUDIT_CONTROL = 30;
    CAP_SETFCAP = 31;
    CAP_MAC_OVERRIDE = 32;
    CAP_MAC_ADMIN = 33;
    CAP_SYSLOG = 34;
    CAP_WAKE_ALARM = 35;
    CAP_BLOCK_SUSPEND = 36;
    CAP_AUDIT_READ = 37;
    CAP_PERFMON = 38;
    CAP_BPF = 39;
    CAP_CHECKPOINT_RESTORE = 40;
}

/// The highest capability there is.
pub const CAP_LAST_CAP: u32 = CAP_CHECKPOINT_RESTORE;

/// A set of capabilities, `CAP_x` being bit `x`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapSet(u64);

impl CapSet {
    pub const EMPTY: CapSet = CapSet(0);
    /// All that exist.
    pub const FULL: CapSet = CapSet((1 << (CAP_LAST_CAP + 1)) - 1);
    /// The capabilities over files that a change of the file system uid to or from 0 takes or gives (`CAP_FS_SET`).
    pub const FS: CapSet = CapSet::of(&[
        CAP_CHOWN,
        CAP_MKNOD,
        CAP_DAC_OVERRIDE,
        CAP_DAC_READ_SEARCH,
        CAP_FOWNER,
        CAP_FSETID,
        CAP_LINUX_IMMUTABLE,
        CAP_MAC_OVERRIDE,
    ]);

    /// From bits, of which those without a capability are dropped, as capset(2) does.
    pub const fn from_bits_truncate(bits: u64) -> CapSet {
        CapSet(bits & CapSet::FULL.0)
    }

    /// The set of these.
    pub const fn of(caps: &[u32]) -> CapSet {
        let mut set = CapSet::EMPTY;
        let mut i = 0;
        while i < caps.len() {
            set = set.with(caps[i]);
            i += 1;
        }
        set
    }

    /// The bits, as in /proc's `CapEff`.
    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// False for what is no capability.
    pub const fn contains(self, cap: u32) -> bool {
        cap <= CAP_LAST_CAP && self.0 & 1 << cap != 0
    }

    /// This set and one more; what is no capability adds nothing.
    pub const fn with(self, cap: u32) -> CapSet {
        if cap <= CAP_LAST_CAP { CapSet(self.0 | 1 << cap) } else { self }
    }

    /// This set but one.
    pub const fn without(self, cap: u32) -> CapSet {
        if cap <= CAP_LAST_CAP { CapSet(self.0 & !(1 << cap)) } else { self }
    }

    pub const fn union(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }

    pub const fn intersection(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }

    /// Those that are not in `other`.
    pub const fn difference(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }

    pub const fn is_subset(self, of: CapSet) -> bool {
        self.0 & !of.0 == 0
    }

    /// In the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..=CAP_LAST_CAP).filter(move |cap| self.contains(*cap))
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().filter_map(name)).finish()
    }
}

impl FromIterator<u32> for CapSet {
    fn from_iter<I: IntoIterator<Item = u32>>(caps: I) -> CapSet {
        caps.into_iter().fold(CapSet::EMPTY, CapSet::with)
    }
}

layout! {
    /// `struct __user_cap_header_struct`.
    struct UserCapHeader[8] { version: u32, pid: i32 }

    /// `struct __user_cap_data_struct`, one (version 1) or two of them with the low word first.
    struct UserCapData[12] { effective: u32, permitted: u32, inheritable: u32 }

    /// `struct vfs_cap_data`: the attribute `security.capability`, with the low words first.
    struct VfsCapData[20] {
        magic_etc: u32, permitted_lo: u32, inheritable_lo: u32, permitted_hi: u32, inheritable_hi: u32,
    }

    /// `struct vfs_ns_cap_data`: the same, for one user namespace.
    struct VfsNsCapData[24] { data: VfsCapData, rootid: u32 }
}

pub const _LINUX_CAPABILITY_VERSION_1: u32 = 0x19980330;
pub const _LINUX_CAPABILITY_VERSION_2: u32 = 0x20071026;
pub const _LINUX_CAPABILITY_VERSION_3: u32 = 0x20080522;
pub const VFS_CAP_REVISION_MASK: u32 = 0xff000000;
pub const VFS_CAP_REVISION_1: u32 = 0x1000000;
pub const VFS_CAP_REVISION_2: u32 = 0x2000000;
pub const VFS_CAP_REVISION_3: u32 = 0x3000000;
pub const VFS_CAP_FLAGS_EFFECTIVE: u32 = 1;

// Bits of prctl(PR_SET_SECUREBITS).
pub const SECBIT_NOROOT: u32 = 1;
pub const SECBIT_NOROOT_LOCKED: u32 = 2;
pub const SECBIT_NO_SETUID_FIXUP: u32 = 4;
pub const SECBIT_NO_SETUID_FIXUP_LOCKED: u32 = 8;
pub const SECBIT_KEEP_CAPS: u32 = 0x10;
pub const SECBIT_KEEP_CAPS_LOCKED: u32 = 0x20;
pub const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 0x40;
pub const SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED: u32 = 0x80;
pub const SECBIT_EXEC_RESTRICT_FILE: u32 = 0x100;
pub const SECBIT_EXEC_RESTRICT_FILE_LOCKED: u32 = 0x200;
pub const SECBIT_EXEC_DENY_INTERACTIVE: u32 = 0x400;
pub const SECBIT_EXEC_DENY_INTERACTIVE_LOCKED: u32 = 0x800;
pub const SECURE_ALL_LOCKS: u32 = 0xaaa;
pub const SECURE_ALL_BITS: u32 = 0x555;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_only_capabilities() {
        assert_eq!(CapSet::FULL.bits(), 0x1ff_ffff_ffff);
        assert_eq!(CapSet::from_bits_truncate(!0), CapSet::FULL);
        let set = CapSet::of(&[CAP_CHOWN, CAP_CHECKPOINT_RESTORE, 41, 64, u32::MAX]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [CAP_CHOWN, CAP_CHECKPOINT_RESTORE]);
        assert!(!CapSet::FULL.contains(64) && !CapSet::FULL.contains(41));
        assert_eq!(set.without(CAP_CHOWN).without(64).bits(), 1 << 40);
        assert!(set.is_subset(CapSet::FULL) && !CapSet::FULL.is_subset(set));
        assert_eq!(format!("{set:?}"), r#"{"CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"}"#);
    }

    #[test]
    fn every_capability_has_a_name() {
        for cap in 0..=CAP_LAST_CAP {
            assert_eq!(from_name(name(cap).unwrap()), Some(cap));
        }
        assert_eq!((name(CAP_LAST_CAP + 1), from_name("CAP_LAST_CAP")), (None, None));
    }
}
