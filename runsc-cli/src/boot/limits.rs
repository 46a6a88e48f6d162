//! A container's limits as the sentry knows them: those that it holds itself, and what the guest is shown of the others,
//! which are those of the host's cgroup.

use oci_spec::runtime::{LinuxResources, Spec};
use sentry::Kernel;
use sentry::container::Container;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// What the sentry is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most threads; None is no limit.
    pub pids: Option<u64>,
    /// Files of cgroup2, and what they say.
    pub shown: Vec<(String, String)>,
    /// Processors that it sees.
    pub cpus: u32,
    /// Memory that it sees, in bytes.
    pub memory: u64,
}

/// The files that the sentry's cgroup filesystem has for limits, but for pids.max.
const SHOWN: [&str; 11] = [
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.swap.max",
];

impl Limits {
    /// Of a container's configuration, in a sandbox that was made with another one.
    pub fn of(spec: &Spec, sandbox: Option<&Spec>) -> Limits {
        let own = Limits::of_resources(cgroup::limits_within(spec, sandbox).as_ref());
        let above = sandbox.map(|sandbox| Limits::of_resources(cgroup::limits(sandbox).as_ref()));
        let (cpus, memory) = above.map_or((u32::MAX, u64::MAX), |above| (above.cpus, above.memory));
        Limits { cpus: own.cpus.min(cpus), memory: own.memory.min(memory), ..own }
    }

    fn of_resources(resources: Option<&LinuxResources>) -> Limits {
        let pids = resources.and_then(|resources| resources.pids().as_ref()).map(|pids| pids.limit());
        Limits {
            pids: pids.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok()),
            shown: resources
                .map(cgroup::version_2_files)
                .unwrap_or_default()
                .into_iter()
                .filter(|(file, _)| SHOWN.contains(&file.as_str()))
                .collect(),
            cpus: cpus(resources),
            memory: memory(resources),
        }
    }

    /// Makes them hold for a container.
    pub fn apply(&self, kernel: &Kernel, container: &Container) {
        let pids = self.pids.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        kernel.counts.limit(&container.id, pids);
        container.resize(self.cpus, self.memory);
        for (file, value) in &self.shown {
            if let Some(file) = SHOWN.into_iter().find(|known| known == file) {
                container.cgroup.set_value(file, value.clone());
            }
        }
    }
}

/// Processors that a container may use: those of this process, fewer if the cpuset has fewer or the CPU quota allows
/// fewer.
fn cpus(resources: Option<&LinuxResources>) -> u32 {
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    let cpuset = cpu.and_then(|cpu| cpu.cpus().as_deref()).filter(|list| !list.is_empty());
    let own = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).map_or(1, |set| {
        (0..nix::sched::CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false) && cpuset.is_none_or(|list| in_list(list, *cpu)))
            .count()
    });
    let quota = cpu
        .and_then(|cpu| Some((u64::try_from(cpu.quota()?).ok()?, cpu.period().unwrap_or(100_000))))
        .filter(|(quota, period)| *quota > 0 && *period > 0)
        .map(|(quota, period)| u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX));
    u32::try_from(own).unwrap_or(u32::MAX).min(quota.unwrap_or(u32::MAX)).max(1)
}

/// Whether a list of ranges (`0-3,5`) has a number.
fn in_list(list: &str, number: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |digits: &str| digits.trim().parse::<usize>();
        matches!((parse(first), parse(last)), (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

/// Memory that a container may use, in bytes: the host's, less if its limit is lower.
fn memory(resources: Option<&LinuxResources>) -> u64 {
    // Where sysinfo fails there is no host to ask either.
    let host = nix::sys::sysinfo::sysinfo().map_or(1 << 30, |info| info.ram_total());
    let limit = resources
        .and_then(|resources| *resources.memory())
        .and_then(|memory| u64::try_from(memory.limit()?).ok())
        .filter(|limit| *limit > 0);
    host.min(limit.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_shown_as_cgroup2_would() {
        let resources = json!({
            "pids": {"limit": 9},
            "cpu": {"quota": 50000, "period": 100000},
            "memory": {"limit": 4096, "swap": 8192},
            "blockIO": {"weight": 100}
        });
        let limits = Limits::of_resources(Some(&serde_json::from_value(resources).unwrap()));
        assert_eq!(limits.pids, Some(9));
        let shown: Vec<String> = limits.shown.iter().map(|(file, value)| format!("{file} {value}")).collect();
        assert_eq!(shown, ["cpu.max 50000 100000", "memory.swap.max 4096", "memory.max 4096"]);
        assert_eq!((limits.cpus, limits.memory), (1, 4096));
        let unlimited = serde_json::from_value(json!({"pids": {"limit": -1}})).unwrap();
        assert_eq!(Limits::of_resources(Some(&unlimited)).pids, None);
    }
}
