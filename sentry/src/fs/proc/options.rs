//! Mount options of proc.

use std::fmt;

use abi::{Errno, Result};

/// Which processes of others are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HidePid {
    /// All, to all.
    #[default]
    Off,
    /// Their directories can be seen, but not entered.
    NoAccess,
    /// They cannot be seen.
    Invisible,
    /// Only those that could be traced can be seen, whatever `gid` says.
    NotPtraceable,
}

/// Mount options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcOptions {
    /// `hidepid=`.
    pub hide_pid: HidePid,
    /// `gid=`: the group that `hidepid` does not concern (a kernel id).
    pub gid: u32,
    /// `subset=pid`: nothing but processes.
    pub only_pids: bool,
}

impl ProcOptions {
    /// The options of mount(2)'s data, separated by commas. EINVAL for what is unknown or malformed.
    pub fn parse(data: &[u8]) -> Result<ProcOptions> {
        ProcOptions::default().change(data)
    }

    /// As [`ProcOptions::parse`]; what is not named stays as it is.
    pub fn change(self, data: &[u8]) -> Result<ProcOptions> {
        let data = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut options = self;
        for option in data.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').ok_or(Errno::EINVAL)?;
            match (key, value) {
                ("hidepid", "0" | "off") => options.hide_pid = HidePid::Off,
                ("hidepid", "1" | "noaccess") => options.hide_pid = HidePid::NoAccess,
                ("hidepid", "2" | "invisible") => options.hide_pid = HidePid::Invisible,
                ("hidepid", "4" | "ptraceable") => options.hide_pid = HidePid::NotPtraceable,
                ("gid", _) => options.gid = value.parse().map_err(|_| Errno::EINVAL)?,
                ("subset", "pid") => options.only_pids = true,
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

impl fmt::Display for ProcOptions {
    /// As in `/proc/mounts` (proc_show_options()).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.gid != 0 {
            parts.push(format!("gid={}", self.gid));
        }
        match self.hide_pid {
            HidePid::Off => {}
            HidePid::NoAccess => parts.push("hidepid=noaccess".to_string()),
            HidePid::Invisible => parts.push("hidepid=invisible".to_string()),
            HidePid::NotPtraceable => parts.push("hidepid=ptraceable".to_string()),
        }
        if self.only_pids {
            parts.push("subset=pid".to_string());
        }
        f.write_str(&parts.join(","))
    }
}
