//! `runsc events`: what a container uses, in runc's form.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cgroup::{Cgroup, Stats};
use crate::cli::Events;
use crate::container::{self, Runtime};
use crate::control::Client;
use crate::state::Status;

/// Prints one object a line: once, or until the container has stopped.
pub fn events(runtime: &Runtime, args: &Events) -> Result<i32> {
    let state = runtime.root.read(&args.id)?;
    if state.status() == Status::Stopped {
        bail!("container not running");
    }
    let address = runtime.root.address(&state);
    let cgroup = container::read_cgroup(&runtime.root.directory(&args.id))?;
    loop {
        let mut stats = cgroup.as_ref().map(Cgroup::stats).unwrap_or_default();
        if let Ok(usage) = Client::connect(&address).and_then(|client| client.usage()) {
            // The host counts its own threads, and the sandbox's; without a cgroup, it counts nothing.
            stats.pids.current = Some(usage.pids);
            stats.pids.limit = usage.pids_limit.unwrap_or(0);
            if stats.cpu.total.is_none() {
                (stats.cpu.user, stats.cpu.kernel) = (usage.cpu_user, usage.cpu_system);
                stats.cpu.total = Some(usage.cpu_user + usage.cpu_system);
            }
            stats.memory.usage = stats.memory.usage.or(Some(usage.memory));
        }
        let event = json!({"type": "stats", "id": args.id, "data": data(&stats)});
        if !crate::report::print(event)? || args.stats {
            return Ok(0);
        }
        std::thread::sleep(args.interval);
        if !runtime.root.read(&args.id).is_ok_and(|state| state.status() != Status::Stopped) {
            return Ok(0);
        }
    }
}

/// The object that runc prints.
fn data(stats: &Stats) -> Value {
    let memory = &stats.memory;
    let nothing = json!({"limit": 0, "failcnt": 0});
    let raw: serde_json::Map<_, _> =
        memory.raw.iter().map(|(name, value)| (name.clone(), Value::from(*value))).collect();
    json!({
        "cpu": {
            "usage": {
                "total": stats.cpu.total.unwrap_or(0),
                "percpu": stats.cpu.percpu,
                "kernel": stats.cpu.kernel,
                "user": stats.cpu.user,
            },
            "throttling": {
                "periods": stats.cpu.periods,
                "throttledPeriods": stats.cpu.throttled_periods,
                "throttledTime": stats.cpu.throttled_time,
            },
        },
        "memory": {
            "cache": memory.cache,
            "usage": {
                "limit": memory.limit,
                "usage": memory.usage.unwrap_or(0),
                "max": memory.max,
                "failcnt": memory.failures,
            },
            "swap": nothing,
            "kernel": nothing,
            "kernelTCP": nothing,
            "raw": raw,
        },
        "pids": {"current": stats.pids.current.unwrap_or(0), "limit": stats.pids.limit},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
