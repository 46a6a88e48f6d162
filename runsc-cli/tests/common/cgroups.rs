//! Where tests find the host's cgroups of a container.

use std::path::PathBuf;

use serde_json::Value;

use super::Runsc;

/// A place for a group that no other test has.
pub fn group(name: &str) -> String {
    format!("/runsc-test-{}-{name}", std::process::id())
}

/// The directories of a container's group, by controller.
pub fn directories(runsc: &Runsc, id: &str) -> Vec<(String, PathBuf)> {
    let text = std::fs::read(runsc.root().join(id).join("cgroup.json")).unwrap();
    let cgroup: Value = serde_json::from_slice(&text).unwrap();
    let directories = cgroup["directories"].as_object().unwrap();
    directories.iter().map(|(name, path)| (name.clone(), path.as_str().unwrap().into())).collect()
}

/// A file of a controller's, by its name in version 1 or 2. None if the host has neither.
pub fn host_file(runsc: &Runsc, id: &str, v1: &str, v2: &str) -> Option<PathBuf> {
    let all = directories(runsc, id);
    let paths = all.iter().flat_map(|(_, directory)| [directory.join(v1), directory.join(v2)]);
    paths.into_iter().find(|path| path.exists())
}

/// Whether this test may make groups with limits.
pub fn can_limit(test: &str) -> bool {
    let writable = |dir: &str| {
        let probe = PathBuf::from(dir).join(format!("runsc-probe-{}-{test}", std::process::id()));
        let made = std::fs::create_dir(&probe);
        let limited = ["memory.limit_in_bytes", "memory.max"].iter().any(|file| probe.join(file).exists());
        let _ = std::fs::remove_dir(&probe);
        made.is_ok() && limited
    };
    let can = writable("/sys/fs/cgroup/memory") || writable("/sys/fs/cgroup");
    if !can {
        eprintln!("skipped: {test}: no memory cgroup can be made here");
    }
    can
}

/// What a file of a container's group says; its names in version 1 and 2. None if the host has neither.
pub fn read(runsc: &Runsc, id: &str, v1: &str, v2: &str) -> Option<String> {
    let text = std::fs::read_to_string(host_file(runsc, id, v1, v2)?).unwrap();
    Some(text.trim().to_owned())
}

/// The number behind a word in such a file.
pub fn count(runsc: &Runsc, id: &str, files: (&str, &str), word: &str) -> Option<u64> {
    let text = read(runsc, id, files.0, files.1)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == word).map(|(_, number)| number.trim().parse().unwrap())
}

/// The processes of the host in a container's group that run guests.
pub fn stubs(runsc: &Runsc, id: &str) -> Vec<u32> {
    let all = directories(runsc, id);
    let memory = all.iter().find(|(name, _)| name == "memory" || name == "unified").unwrap();
    let text = std::fs::read_to_string(memory.1.join("cgroup.procs")).unwrap();
    let is_stub = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "stub")
    };
    text.lines().map(|pid| pid.parse().unwrap()).filter(is_stub).collect()
}

/// Groups of a pod: those of its containers are below one, which is removed at the end. To be dropped after them.
pub struct Groups(String);

impl Groups {
    pub fn new(name: &str) -> Groups {
        Groups(group(name))
    }

    /// The path of a container's.
    pub fn below(&self, container: &str) -> String {
        format!("{}/{container}", self.0)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let name = self.0.trim_start_matches('/');
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for place in hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
            let _ = std::fs::remove_dir(place.join(name));
        }
    }
}
