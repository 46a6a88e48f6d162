//! Mount options of tmpfs.

use std::fmt;
use std::sync::Arc;

use abi::{Errno, Result};

use super::pages::PAGE;
use crate::task::{Credentials, UserNamespace};

/// Mount options.
#[derive(Clone)]
pub struct TmpfsOptions {
    /// Bytes that files can take; 0 for no limit.
    pub size: u64,
    /// How many inodes there can be; 0 for no limit.
    pub inodes: u64,
    /// Permission bits of the root.
    pub mode: u32,
    /// Owner of the root.
    pub uid: u32,
    /// Group of the root.
    pub gid: u32,
    /// Half of the memory, which `size` is unless set otherwise.
    default_size: u64,
    default_inodes: u64,
    /// Whose ids `uid` and `gid` of mount(2) are.
    user_ns: Option<Arc<UserNamespace>>,
}

impl TmpfsOptions {
    /// The defaults on a machine with `memory` bytes: half of it for files, an inode for every two pages.
    pub fn new(memory: u64) -> TmpfsOptions {
        let (size, inodes) = (memory / 2, memory / PAGE as u64 / 2);
        TmpfsOptions {
            size,
            inodes,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            default_size: size,
            default_inodes: inodes,
            user_ns: None,
        }
    }

    /// Unless options say otherwise, the root belongs to who mounts it; ids are those of their user namespace.
    pub fn owned(mut self, creds: &Credentials) -> TmpfsOptions {
        (self.uid, self.gid) = (creds.fsuid, creds.fsgid);
        self.user_ns = Some(creds.user_ns.clone());
        self
    }

    /// No limits, for filesystems of the kernel's own.
    pub fn unlimited() -> TmpfsOptions {
        TmpfsOptions::new(0)
    }

    /// The memory of the machine that the defaults were made for.
    pub(super) fn memory(&self) -> u64 {
        self.default_size.saturating_mul(2)
    }

    /// Pages that files can take.
    pub(super) fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE as u64)
    }

    /// Applies the options of mount(2)'s data, separated by commas. EINVAL for what is unknown or malformed.
    pub fn parse(mut self, data: &[u8], memory: u64) -> Result<TmpfsOptions> {
        let data = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let user_ns = self.user_ns.clone();
        for option in data.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let octal = || u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL);
            let id = || value.parse().map_err(|_| Errno::EINVAL);
            match key {
                "size" => self.size = size(value, memory)?,
                "nr_blocks" => self.size = number(value)?.checked_mul(PAGE as u64).ok_or(Errno::EINVAL)?,
                "nr_inodes" => self.inodes = number(value)?,
                "mode" => self.mode = octal()? & 0o7777,
                "uid" => self.uid = user_ns.as_ref().map_or(id(), |ns| ns.kernel_uid(id()?))?,
                "gid" => self.gid = user_ns.as_ref().map_or(id(), |ns| ns.kernel_gid(id()?))?,
                // How the memory is made up, and numbers of inodes, which always have 64 bits.
                "huge" | "mpol" | "inode32" | "inode64" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(self)
    }
}

/// A number with a suffix k, m, g, t, p or e (memparse()).
fn number(value: &str) -> Result<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match value.get(digits.len()..).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        _ => return Err(Errno::EINVAL),
    };
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    number.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

fn size(value: &str, memory: u64) -> Result<u64> {
    match value.strip_suffix('%') {
        Some(percent) => {
            let percent: u64 = percent.parse().map_err(|_| Errno::EINVAL)?;
            (memory / 100).checked_mul(percent).ok_or(Errno::EINVAL)
        }
        None => number(value),
    }
}

impl fmt::Display for TmpfsOptions {
    /// As in `/proc/mounts` (shmem_show_options()).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.size != self.default_size {
            parts.push(format!("size={}k", self.size.div_ceil(1024)));
        }
        if self.inodes != self.default_inodes {
            parts.push(format!("nr_inodes={}", self.inodes));
        }
        if self.mode != 0o1777 {
            parts.push(format!("mode={:03o}", self.mode));
        }
        if self.uid != 0 {
            parts.push(format!("uid={}", self.uid));
        }
        if self.gid != 0 {
            parts.push(format!("gid={}", self.gid));
        }
        parts.push("inode64".to_string());
        f.write_str(&parts.join(","))
    }
}
