//! A container's limits as the sentry knows them: those that it holds itself, and what the guest is shown of the others,
//! which are those of the host's cgroup.

use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use sentry::Kernel;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// What the sentry is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most threads; None is no limit.
    pub pids: Option<u64>,
    /// Files of cgroup2, and what they say.
    pub shown: Vec<(String, String)>,
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
    /// Of `linux.resources`.
    pub fn of(resources: &LinuxResources) -> Limits {
        let pids = resources.pids().as_ref().map(|pids| pids.limit());
        Limits {
            pids: pids.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok()),
            shown: cgroup::version_2_files(resources)
                .into_iter()
                .filter(|(file, _)| SHOWN.contains(&file.as_str()))
                .collect(),
        }
    }

    /// Makes them hold for a container.
    pub fn apply(&self, kernel: &Kernel, container: &Arc<str>) {
        kernel.counts.limit(container, self.pids.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        for (file, value) in &self.shown {
            if let Some(file) = SHOWN.into_iter().find(|known| known == file) {
                kernel.cgroups.root().set_value(file, value.clone());
            }
        }
    }
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
        let limits = Limits::of(&serde_json::from_value(resources).unwrap());
        assert_eq!(limits.pids, Some(9));
        let shown: Vec<String> = limits.shown.iter().map(|(file, value)| format!("{file} {value}")).collect();
        assert_eq!(shown, ["cpu.max 50000 100000", "memory.swap.max 4096", "memory.max 4096"]);
        assert_eq!(Limits::of(&serde_json::from_value(json!({"pids": {"limit": -1}})).unwrap()).pids, None);
    }
}
