//! The hierarchies of the host: which controllers there are, where they are mounted, and where this process is in each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The name under which cgroup2 is listed beside version 1 (hybrid), where it has no controllers.
pub const UNIFIED: &str = "unified";

/// What the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// All controllers are those of cgroup2.
    pub v2: bool,
    /// By controller, or [`UNIFIED`] for cgroup2: its mount.
    pub mounts: BTreeMap<String, PathBuf>,
    /// By the same names: this process's group.
    pub own: BTreeMap<String, PathBuf>,
}

impl Hierarchies {
    /// Looks at /proc.
    pub fn read() -> Result<Hierarchies> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("reading {path}"));
        Ok(Hierarchies::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// Of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)).
    fn parse(mountinfo: &str, cgroup: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
            let Some(place) = left.split(' ').nth(4) else { continue };
            let place = PathBuf::from(unescape(place));
            match kind {
                "cgroup2" => {
                    found.mounts.entry(UNIFIED.into()).or_insert(place);
                }
                "cgroup" => {
                    for option in options.split(',') {
                        let known = cgroup.lines().any(|line| controllers(line).any(|name| name == option));
                        if known {
                            found.mounts.entry(option.into()).or_insert(place.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        for line in cgroup.lines() {
            let path = PathBuf::from(line.splitn(3, ':').nth(2).unwrap_or("/"));
            for name in controllers(line) {
                found.own.insert(name.into(), path.clone());
            }
        }
        found.v2 = found.mounts.len() == 1 && found.mounts.contains_key(UNIFIED);
        found
    }

    /// Controllers that only cgroup2 has, beside version 1.
    pub fn hybrid(&self) -> BTreeSet<String> {
        let unified = self.mounts.get(UNIFIED).filter(|_| !self.v2);
        let text = unified.and_then(|mount| std::fs::read_to_string(mount.join("cgroup.controllers")).ok());
        text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// Where a group is in each hierarchy. A path that is not absolute is below this process's own group; in cgroup2
    /// beside it, because a group that has processes cannot hand controllers down.
    pub fn directories(&self, path: &Path) -> BTreeMap<String, PathBuf> {
        let place = |(name, mount): (&String, &PathBuf)| {
            let own = self.own.get(name).map_or(Path::new("/"), PathBuf::as_path);
            let own = if self.v2 { own.parent().unwrap_or(own) } else { own };
            let path = if path.is_absolute() { path.to_owned() } else { own.join(path) };
            (name.clone(), mount.join(inside(&path)))
        };
        self.mounts.iter().map(place).collect()
    }
}

/// A path as one below a mount: without the leading slash, and without steps that lead out.
fn inside(path: &Path) -> PathBuf {
    crate::spec::clean(&path.to_string_lossy()).trim_start_matches('/').into()
}

/// The names of a line `number:controllers:path`.
fn controllers(line: &str) -> impl Iterator<Item = &str> {
    let mut fields = line.splitn(3, ':');
    let number = fields.next().unwrap_or_default();
    let names = fields.next().unwrap_or_default();
    let names = if number == "0" && names.is_empty() { UNIFIED } else { names };
    names.split(',').filter(|name| !name.is_empty())
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_are_version_1_with_an_empty_version_2() {
        let mountinfo = "\
30 23 0:26 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";
        let cgroup = "3:name=systemd:/a\n2:memory:/x/y\n1:cpu,cpuacct:/\n0::/\n";
        let found = Hierarchies::parse(mountinfo, cgroup);
        assert!(!found.v2);
        let names: Vec<&str> = found.mounts.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct", "memory", "name=systemd", "unified"]);
        let absolute = found.directories(Path::new("/pods/../c1"));
        assert_eq!(absolute["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct/c1"));
        assert_eq!(absolute["memory"], Path::new("/sys/fs/cgroup/my memory/c1"));
        let relative = found.directories(Path::new("c1"));
        assert_eq!(relative["memory"], Path::new("/sys/fs/cgroup/my memory/x/y/c1"));
        assert_eq!(relative["unified"], Path::new("/sys/fs/cgroup/unified/c1"));
    }

    #[test]
    fn version_2_groups_are_beside_ours() {
        let mountinfo = "31 30 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(mountinfo, "0::/user.slice/session-1.scope\n");
        assert!(found.v2);
        let place = |path| found.directories(Path::new(path))["unified"].clone();
        assert_eq!(place("c1"), Path::new("/sys/fs/cgroup/user.slice/c1"));
        assert_eq!(place("/a/c1"), Path::new("/sys/fs/cgroup/a/c1"));
        assert_eq!(place("../../../c1"), Path::new("/sys/fs/cgroup/c1"));
    }
}
