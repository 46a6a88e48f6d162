//! The host's cgroups: where a sandbox's processes are put, so that its limits hold and the host's tools find what it
//! uses.
//!
//! Files of the hierarchies are written directly, as runc does it: that is a table ([`resources`]), works on version 1,
//! version 2 and hybrid hosts alike, and leaves the decision of what is an error to us. (The crate libcgroups was
//! considered: it stops at the first controller that fails, in the order of a hash table, wants the device controller to be
//! there, and brings some thirty crates.) Systemd wants to make the group itself, and is told so over D-Bus ([`systemd`]).
//!
//! A group is removed with the container. Where it is stands in a file of the container's directory that is written before
//! anything is made, so that whatever dies in between, delete finds it.

mod bus;
mod hierarchy;
mod limits;
mod removal;
mod resources;
mod stats;
mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpu, LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use crate::process::{Entered, Place};
use hierarchy::{Hierarchies, UNIFIED};
pub use limits::{inherited, limits, limits_within, shares};
use resources::{Before, Setting, settings};
pub use stats::Stats;

/// How often a group is made anew whose parent was removed meanwhile, with the last container in it.
const ATTEMPTS: u32 = 100;
/// How long a new container waits for the processes of one that was just killed to leave its group.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);

/// What the command line says about cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `--ignore-cgroups`.
    pub ignore: bool,
    /// `--systemd-cgroup`.
    pub systemd: bool,
    /// The caller is not the host's root: what it may not do is a warning.
    pub rootless: bool,
}

/// A container's group: one directory in each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// All controllers are those of cgroup2.
    v2: bool,
    /// Controllers that only cgroup2 has, beside version 1 (hybrid).
    #[serde(default)]
    hybrid: BTreeSet<String>,
    /// By controller; `unified` for cgroup2.
    directories: BTreeMap<String, PathBuf>,
    /// Systemd makes it, with its first process.
    unit: Option<systemd::Unit>,
    /// Groups above it that were not there when it was planned: they go with the last one that is in them.
    #[serde(default)]
    parents: BTreeSet<PathBuf>,
}

impl Cgroup {
    /// Where the group of a container is to be; makes nothing. None if there is to be none.
    pub fn plan(id: &str, spec: &Spec, policy: Policy) -> Result<Option<Cgroup>> {
        if policy.ignore {
            return Ok(None);
        }
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
        let host = match Hierarchies::read() {
            Ok(host) if !host.mounts.is_empty() => host,
            result => {
                let cause =
                    result.err().map_or("none is mounted".to_owned(), |error| crate::report::line(&error));
                if limits(spec).is_some() && !policy.rootless {
                    bail!("cgroups: {cause}; limits of config.json cannot hold (--ignore-cgroups to go on)");
                }
                crate::report::warn(&format!("no cgroups: {cause}"));
                return Ok(None);
            }
        };
        let unit = policy.systemd.then(|| systemd::Unit::new(id, &path)).transpose()?;
        let path = match &unit {
            Some(unit) => unit.path()?,
            None if path.as_os_str().is_empty() => PathBuf::from(id),
            None => path,
        };
        // Groups of version 1 are made by hand, where systemd would make them: it does not know of most controllers there.
        let unit = unit.filter(|_| host.v2);
        let directories = host.directories(&path);
        let parents = match unit {
            Some(_) => BTreeSet::new(),
            None => directories
                .values()
                .flat_map(|directory| missing(directory).skip(1))
                .map(Path::to_owned)
                .collect(),
        };
        Ok(Some(Cgroup { v2: host.v2, hybrid: host.hybrid(), directories, unit, parents }))
    }

    /// Makes the group and sets its limits. What could not be made is forgotten if that is no failure, and what belongs to
    /// another container if it is one.
    pub fn create(&mut self, limits: Option<&LinuxResources>, policy: Policy) -> Result<()> {
        if self.unit.is_some() {
            return Ok(());
        }
        let needed = limits.map(|resources| self.settings(resources, Before::default()));
        let needed: Option<BTreeSet<&str>> = needed.map(|settings| {
            let needed = settings.iter().filter(|setting| !setting.optional);
            needed.map(|setting| setting.controller).collect()
        });
        let is_needed = |controller: &str| {
            let by_name = needed.iter().flatten().any(|needed| *needed == controller);
            by_name
                || controller == UNIFIED
                    && needed.iter().flatten().any(|needed| self.hybrid.contains(*needed))
        };
        let handed_down = |controller: &str| {
            self.v2
                || self.hybrid.contains(controller)
                    && needed.iter().flatten().any(|needed| *needed == controller)
        };
        let mut missing = Vec::new();
        let limit = Instant::now() + EMPTY_LIMIT;
        for (controller, directory) in &self.directories {
            let made = self.make(controller, directory, &handed_down);
            if made.is_ok()
                && let Err(error) = wait_until_empty(directory, limit)
            {
                // Those of another container are not for this one to remove.
                let in_use = controller.clone();
                self.directories
                    .retain(|controller, _| *controller < in_use && !missing.contains(controller));
                return Err(error);
            }
            let Err(error) = made else { continue };
            let error = anyhow::Error::new(error).context(format!("cgroups: creating {directory:?}"));
            if !policy.rootless && (self.v2 && needed.is_some() || is_needed(controller)) {
                return Err(error);
            }
            crate::report::warn(&crate::report::line(&error));
            missing.push(controller.clone());
        }
        self.directories.retain(|controller, _| !missing.contains(controller));
        if let Some(resources) = limits {
            self.set(resources, policy)?;
        }
        Ok(())
    }

    fn make(
        &self,
        controller: &str,
        directory: &Path,
        handed_down: &dyn Fn(&str) -> bool,
    ) -> std::io::Result<()> {
        for _ in 0..ATTEMPTS {
            match self.try_make(controller, directory, handed_down) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                made => return made,
            }
        }
        self.try_make(controller, directory, handed_down)
    }

    fn try_make(
        &self,
        controller: &str,
        directory: &Path,
        handed_down: &dyn Fn(&str) -> bool,
    ) -> std::io::Result<()> {
        let mut missing: Vec<&Path> = missing(directory).collect();
        missing.reverse();
        if controller == UNIFIED {
            let above = missing.first().and_then(|first| first.parent()).unwrap_or(directory);
            // As far up as there are groups; what cannot be handed down is missed when a limit needs it.
            for group in above
                .ancestors()
                .take_while(|path| path.join("cgroup.procs").exists())
                .collect::<Vec<_>>()
                .iter()
                .rev()
            {
                hand_down(group, handed_down);
            }
        }
        for path in &missing {
            match std::fs::create_dir(path) {
                Ok(()) if *path != directory => removal::mark(path),
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if controller == UNIFIED && *path != directory {
                hand_down(path, handed_down);
            }
        }
        if controller == "cpuset" {
            // A new group has no processors and no memory, and nobody can enter it.
            let from_top: Vec<&Path> =
                directory.ancestors().take_while(|path| path.join("cpuset.cpus").exists()).collect();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let mut above = String::new();
                for path in from_top.iter().rev() {
                    let path = path.join(file);
                    let own = std::fs::read_to_string(&path)?;
                    match own.trim() {
                        "" => write_file(&path, above.trim())?,
                        _ => above = own,
                    }
                }
            }
        }
        Ok(())
    }

    /// What a process that is made needs to enter the group by itself. What cannot be had is left to [`Cgroup::join`].
    pub fn place(&self) -> Place {
        let mut place = Place::default();
        if self.unit.is_some() {
            return place;
        }
        for (controller, directory) in &self.directories {
            if controller == UNIFIED {
                let flags = libc::O_PATH | libc::O_DIRECTORY;
                let opened = OpenOptions::new().read(true).custom_flags(flags).open(directory);
                place.unified = opened.ok().map(|group| (controller.clone(), group.into()));
            } else if let Ok(tasks) = OpenOptions::new().write(true).open(directory.join("tasks")) {
                place.tasks.push((controller.clone(), tasks.into()));
            }
        }
        place
    }

    /// Puts a process and those that it will make into the group, where it has not entered it.
    pub fn join(
        &self,
        pid: Pid,
        entered: &Entered,
        limits: Option<&LinuxResources>,
        policy: Policy,
    ) -> Result<()> {
        if let Some(unit) = &self.unit
            && !self.directories.values().all(|directory| directory.exists())
        {
            match unit.start(pid, limits) {
                Err(error) if policy.rootless => {
                    crate::report::warn(&crate::report::line(&error));
                    return Ok(());
                }
                result => result?,
            }
            return limits.map_or(Ok(()), |limits| self.write_all(limits, policy));
        }
        for (_, directory) in self.directories.iter().filter(|(controller, _)| !entered.contains(controller))
        {
            let file = directory.join("cgroup.procs");
            let Err(error) = write_file(&file, &pid.to_string()) else { continue };
            let error = anyhow::Error::new(error).context(format!("cgroups: writing {pid} to {file:?}"));
            if !policy.rootless {
                return Err(error);
            }
            crate::report::warn(&crate::report::line(&error));
        }
        Ok(())
    }

    /// The files that a process writes itself to that enters the group: each stands for one hierarchy. Whoever has them
    /// can put processes that it sees into the group, and nothing else. Empty if the group is not there.
    ///
    /// Beside version 1, the group of cgroup2 is left out where it has no controllers that concern guests, who never
    /// have huge pages of the host: it is slow to enter (a grace period of RCU, 5 to 15 ms).
    pub fn entrances(&self, policy: Policy) -> Result<Vec<File>> {
        let controlled = |directory: &Path| {
            let controllers = std::fs::read_to_string(directory.join("cgroup.controllers"));
            controllers.is_ok_and(|names| names.split_whitespace().any(|name| name != "hugetlb"))
        };
        let needed =
            |controller: &str, directory: &Path| controller != UNIFIED || self.v2 || controlled(directory);
        let file = |controller: &str| if controller == UNIFIED { "cgroup.procs" } else { "tasks" };
        let places = self.directories.iter().filter(|(controller, directory)| needed(controller, directory));
        // Several controllers may have one directory.
        let paths: BTreeSet<PathBuf> =
            places.map(|(controller, directory)| directory.join(file(controller))).collect();
        let mut files = Vec::new();
        for path in paths {
            match File::options().write(true).open(&path) {
                Ok(file) => files.push(file),
                Err(error) if policy.rootless => crate::report::warn(&format!("cgroups: {path:?}: {error}")),
                Err(error) => return Err(error).with_context(|| format!("cgroups: opening {path:?}")),
            }
        }
        Ok(files)
    }

    /// The processes in the group.
    pub fn processes(&self) -> Vec<Pid> {
        let place =
            self.directory("memory").or_else(|| self.directories.values().next().map(PathBuf::as_path));
        let text = place.and_then(|place| std::fs::read_to_string(place.join("cgroup.procs")).ok());
        text.unwrap_or_default().lines().filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?))).collect()
    }

    /// Sets what part of busy processors it gets, if the host can.
    pub fn weigh(&self, shares: u64, policy: Policy) -> Result<()> {
        if self.text("cpu", if self.v2 { "cpu.weight" } else { "cpu.shares" }).is_none() {
            return Ok(());
        }
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(Some(shares));
        let mut resources = LinuxResources::default();
        resources.set_devices(None).set_cpu(Some(cpu));
        self.set(&resources, policy)
    }

    /// Changes limits.
    pub fn set(&self, resources: &LinuxResources, policy: Policy) -> Result<()> {
        if let Some(unit) = &self.unit
            && let Err(error) = unit.update(resources)
        {
            crate::report::warn(&crate::report::line(&error));
        }
        self.write_all(resources, policy)
    }

    fn write_all(&self, resources: &LinuxResources, policy: Policy) -> Result<()> {
        let before = Before { memory_and_swap: self.number("memory", "memory.memsw.limit_in_bytes") };
        for setting in self.settings(resources, before) {
            let Err(error) = self.write(&setting) else { continue };
            let error = error.context(format!("cgroups: setting {} to {:?}", setting.file, setting.value));
            if !setting.optional && !policy.rootless {
                return Err(error);
            }
            crate::report::warn(&crate::report::line(&error));
        }
        Ok(())
    }

    /// The writes, in order, each for the version that has the controller.
    fn settings(&self, resources: &LinuxResources, before: Before) -> Vec<Setting> {
        let mut all = settings(resources, self.v2, before);
        if !self.hybrid.is_empty() {
            let of_v2 = |setting: &Setting| self.hybrid.contains(setting.controller);
            all.retain(|setting| !of_v2(setting));
            all.extend(settings(resources, true, before).into_iter().filter(of_v2));
        }
        all
    }

    fn write(&self, setting: &Setting) -> Result<()> {
        let directory = self
            .directory(setting.controller)
            .ok_or_else(|| anyhow!("this host has no controller {}", setting.controller))?;
        let path = directory.join(&setting.file);
        match (write_file(&path, &setting.value), &setting.or) {
            (Err(error), Some((file, value))) if error.kind() == ErrorKind::NotFound => {
                Ok(write_file(&directory.join(file), value)?)
            }
            (Err(error), None) if error.kind() == ErrorKind::NotFound => {
                bail!("the controller {} is not there", setting.controller)
            }
            (result, _) => Ok(result?),
        }
    }

    /// The directory of a controller.
    fn directory(&self, controller: &str) -> Option<&Path> {
        let name = if self.v2 || self.hybrid.contains(controller) { UNIFIED } else { controller };
        self.directories.get(name).map(PathBuf::as_path)
    }

    fn text(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.directory(controller)?.join(file)).ok()
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.text(controller, file)?.trim().parse().ok()
    }

    /// Removes the group, with those below it and the empty ones above it that runsc has made. Its processes must be
    /// gone, or about to be.
    pub fn remove(&self) -> Result<()> {
        let limit = Instant::now() + removal::LIMIT;
        let mut first_failure = Ok(());
        for directory in self.directories.values() {
            let removed = removal::remove(directory, limit, &self.parents)
                .with_context(|| format!("cgroups: removing {directory:?}"));
            first_failure = first_failure.and(removed);
        }
        first_failure
    }
}

/// A group is one container's: what another has in it would keep it from being removed. (As runc refuses it.)
fn wait_until_empty(group: &Path, limit: Instant) -> Result<()> {
    loop {
        let processes = removal::processes(group);
        if processes.is_empty() || removal::is_root(group) {
            return Ok(());
        }
        if Instant::now() >= limit {
            bail!("cgroups: {group:?} is in use by {}", processes.join(", "));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A group and those above it, from below, as far as they are missing.
fn missing(directory: &Path) -> impl Iterator<Item = &Path> {
    directory.ancestors().take_while(|path| !path.exists())
}

/// What the files of a cgroup2 would say.
pub fn version_2_files(resources: &LinuxResources) -> Vec<(String, String)> {
    settings(resources, true, Before::default())
        .into_iter()
        .map(|setting| (setting.file, setting.value))
        .collect()
}

/// Hands a group's controllers down, each by itself, so that one that cannot be does not keep back the others.
fn hand_down(group: &Path, which: &dyn Fn(&str) -> bool) {
    let controllers = std::fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for name in controllers.split_whitespace().filter(|name| which(name)) {
        let _ = write_file(&group.join("cgroup.subtree_control"), &format!("+{name}"));
    }
}

/// One write to a file that must be there.
fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(path: &str, resources: serde_json::Value) -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.2.0",
            "linux": {"cgroupsPath": path, "resources": resources}
        }))
        .unwrap()
    }

    /// A group that is made on this host, or None with the reason printed.
    fn made(name: &str, resources: serde_json::Value) -> Option<(Cgroup, Spec)> {
        let spec = spec(&format!("/runsc-test-{}-{name}", std::process::id()), resources);
        let mut cgroup = Cgroup::plan("c1", &spec, Policy::default()).unwrap()?;
        match cgroup.create(limits(&spec).as_ref(), Policy::default()) {
            Ok(()) => Some((cgroup, spec)),
            Err(error) => {
                println!("skipped: {}", crate::report::line(&error));
                let _ = cgroup.remove();
                None
            }
        }
    }

    #[test]
    fn limits_are_set_changed_and_removed() {
        let Some((cgroup, spec)) = made("limits", json!({"pids": {"limit": 7}})) else { return };
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let joined = cgroup.join(pid, &Entered::new(), limits(&spec).as_ref(), Policy::default());
        let of_child = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let max = cgroup.number("pids", "pids.max");
        let more: LinuxResources = serde_json::from_value(json!({"pids": {"limit": 9}})).unwrap();
        let updated = cgroup.set(&more, Policy::default());
        let max_after = cgroup.number("pids", "pids.max");
        let stats = cgroup.stats();
        drop(child.stdin.take());
        child.wait().unwrap();
        let directories = cgroup.directories.clone();
        let removed = cgroup.remove();
        joined.unwrap();
        updated.unwrap();
        removed.unwrap();
        assert!(of_child.contains("/runsc-test-"), "{of_child}");
        assert_eq!((max, max_after), (Some(resources::room_for(7)), Some(resources::room_for(9))));
        assert_eq!(stats.pids.current, Some(1));
        assert!(directories.values().all(|directory| !directory.exists()));
        cgroup.remove().unwrap();
    }

    #[test]
    fn each_limit_goes_to_the_version_that_has_the_controller() {
        let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]});
        let Some((cgroup, _)) = made("hybrid", limits) else { return };
        let files = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"];
        let found: Vec<u64> = files.iter().filter_map(|file| cgroup.number("hugetlb", file)).collect();
        cgroup.remove().unwrap();
        assert_eq!(found, [4194304]);
        let both = Cgroup {
            hybrid: BTreeSet::from(["hugetlb".to_owned()]),
            directories: BTreeMap::from([("pids".into(), "/p".into()), (UNIFIED.into(), "/u".into())]),
            ..Cgroup::default()
        };
        let resources =
            json!({"pids": {"limit": 0x10000}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]});
        let all = both.settings(&serde_json::from_value(resources).unwrap(), Before::default());
        let all: Vec<_> =
            all.iter().map(|s| (both.directory(s.controller).unwrap(), s.file.as_str())).collect();
        let (p, u) = (Path::new("/p"), Path::new("/u"));
        assert_eq!(all, [(p, "pids.max"), (u, "hugetlb.2MB.max"), (u, "hugetlb.2MB.rsvd.max")]);
    }

    #[test]
    fn cgroup2_is_entered_beside_version_1_where_it_concerns_guests() {
        let dir = tempfile::tempdir().unwrap();
        let (pids, unified) = (dir.path().join("pids"), dir.path().join("unified"));
        for (directory, file) in [(&pids, "tasks"), (&unified, "cgroup.procs")] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join(file), "").unwrap();
        }
        let entrances = |controllers: &str, v2| {
            std::fs::write(unified.join("cgroup.controllers"), controllers).unwrap();
            let group = (UNIFIED.into(), unified.clone());
            let directories = BTreeMap::from_iter([("pids".into(), pids.clone()), group]);
            Cgroup { v2, directories, ..Cgroup::default() }.entrances(Policy::default()).unwrap().len()
        };
        assert_eq!(entrances("\n", false), 1);
        assert_eq!(entrances("hugetlb\n", false), 1);
        assert_eq!(entrances("io hugetlb\n", false), 2);
        assert_eq!(entrances("\n", true), 2);
    }

    #[test]
    fn a_group_that_is_in_use_is_refused_and_left() {
        let Some((cgroup, spec)) = made("in-use", json!({})) else { return };
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let joined = cgroup.join(Pid::from_raw(child.id() as i32), &Entered::new(), None, Policy::default());
        let mut other = Cgroup::plan("c2", &spec, Policy::default()).unwrap().unwrap();
        let refused = other.create(None, Policy::default());
        let removed = other.remove();
        let kept = cgroup.directories.values().filter(|directory| directory.exists()).count();
        child.kill().unwrap();
        child.wait().unwrap();
        cgroup.remove().unwrap();
        joined.unwrap();
        let said = crate::report::line(&refused.unwrap_err());
        assert!(said.contains("is in use by") && said.contains("(sleep)"), "{said}");
        removed.unwrap();
        assert_eq!(kept, cgroup.directories.len());
    }

    #[test]
    fn a_limit_without_its_controller_is_a_failure_unless_rootless() {
        let spec = spec("/runsc-test-missing", json!({"pids": {"limit": 7}}));
        let resources = limits(&spec).unwrap();
        let cgroup = Cgroup::default();
        let error = cgroup.set(&resources, Policy::default()).unwrap_err();
        assert!(crate::report::line(&error).contains("no controller pids"));
        cgroup.set(&resources, Policy { rootless: true, ..Policy::default() }).unwrap();
    }

    #[test]
    fn limits_of_a_pod_fill_gaps() {
        let spec = |resources: serde_json::Value| -> Spec {
            serde_json::from_value(json!({
                "ociVersion": "1.2.0",
                "annotations": {
                    "io.kubernetes.cri.sandbox-memory": "1000",
                    "io.kubernetes.cri.sandbox-cpu-quota": "50000",
                    "io.kubernetes.cri.sandbox-cpu-period": "100000",
                    "io.kubernetes.cri.sandbox-cpu-shares": "0"
                },
                "linux": {"resources": resources}
            }))
            .unwrap()
        };
        let limits_of = |resources| limits(&spec(resources)).unwrap();
        let pod = limits_of(json!({"cpu": {"shares": 2}, "devices": [{"allow": false}]}));
        assert_eq!(pod.memory().unwrap().limit(), Some(1000));
        let cpu = pod.cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(50000), Some(100000), Some(2)));
        assert_eq!(pod.devices().as_ref().unwrap().len(), 1);
        let own = limits_of(json!({"memory": {"limit": 7}, "cpu": {"quota": 8, "period": 9}}));
        assert_eq!(own.memory().unwrap().limit(), Some(7));
        assert_eq!(own.cpu().clone().unwrap().quota(), Some(8));
    }

    #[test]
    fn groups_can_be_ignored() {
        let spec = spec("/x", json!({}));
        let ignore = Policy { ignore: true, ..Policy::default() };
        assert_eq!(Cgroup::plan("c1", &spec, ignore).unwrap(), None);
    }
}
