//! The control groups that a process is in, of version 1 or 2.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this host has only the unified hierarchy.
pub fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// The directories of a process's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    unified: Option<PathBuf>,
    controllers: HashMap<String, PathBuf>,
}

impl Cgroup {
    /// Those of a process; None if they are also this shim's, which are not a container's.
    pub fn of_container(pid: u32) -> Option<Cgroup> {
        let read = |who: &str| std::fs::read_to_string(format!("/proc/{who}/cgroup")).unwrap_or_default();
        let (theirs, ours) = (parse(&read(&pid.to_string()), unified()), parse(&read("self"), unified()));
        (theirs != Cgroup::default() && theirs.directory("memory") != ours.directory("memory"))
            .then_some(theirs)
    }

    /// The directory with the files of a controller.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        self.unified.as_deref().or_else(|| self.controllers.get(controller).map(PathBuf::as_path))
    }

    /// A file of a controller.
    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.directory(controller)?.join(file)).ok()
    }

    /// A file that holds a number; `max` is the largest.
    pub fn number(&self, controller: &str, file: &str) -> Option<u64> {
        match self.read(controller, file)?.trim() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        }
    }

    /// A file with a name and a number on each line.
    pub fn table(&self, controller: &str, file: &str) -> HashMap<String, u64> {
        let text = self.read(controller, file).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        let file = if self.unified.is_some() { "memory.events" } else { "memory.oom_control" };
        self.table("memory", file).get("oom_kill").copied()
    }
}

/// The lines `ID:CONTROLLERS:PATH` of /proc/PID/cgroup.
fn parse(text: &str, unified: bool) -> Cgroup {
    let mut cgroup = Cgroup::default();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let below = path.trim_start_matches('/');
        if controllers.is_empty() {
            if unified {
                cgroup.unified = Some(Path::new(MOUNT).join(below));
            }
            continue;
        }
        for controller in controllers.split(',') {
            let directory = Path::new(MOUNT).join(controller).join(below);
            cgroup.controllers.insert(controller.to_owned(), directory);
        }
    }
    cgroup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let text = "9:memory:/pod/c\n4:cpu,cpuacct:/pod/c\n1:name=systemd:/s\n0::/u\n";
        let one = parse(text, false);
        assert_eq!(one.directory("memory"), Some(Path::new("/sys/fs/cgroup/memory/pod/c")));
        assert_eq!(one.directory("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpuacct/pod/c")));
        assert_eq!(one.directory("pids"), None);
        let two = parse("0::/pod/c\n", true);
        assert_eq!(two.directory("pids"), Some(Path::new("/sys/fs/cgroup/pod/c")));
        assert_eq!(parse("", true), Cgroup::default());
    }

    #[test]
    fn the_shims_own_groups_are_no_containers() {
        assert_eq!(Cgroup::of_container(std::process::id()), None);
    }
}
