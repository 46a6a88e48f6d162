//! A container's use of resources, in the messages of the host's control groups.
//!
//! `runsc events --stats` knows best: the sentry can tell containers of one sandbox apart. Without it, the files of the
//! control group count.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;

use anyhow::{Result, bail};

use crate::cgroup::{Cgroup, unified};
use crate::events::pack;

/// Numbers that both messages have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu_total_ns: u64,
    cpu_user_ns: u64,
    cpu_kernel_ns: u64,
    cpu_each_ns: Vec<u64>,
    periods: u64,
    throttled_periods: u64,
    throttled_ns: u64,
    memory: u64,
    memory_max: u64,
    memory_limit: u64,
    memory_failures: u64,
    swap: u64,
    swap_limit: u64,
    file: u64,
    anonymous: u64,
    inactive_file: u64,
    active_file: u64,
    inactive_anonymous: u64,
    active_anonymous: u64,
    faults: u64,
    major_faults: u64,
    oom_kills: u64,
    pids: u64,
    pids_limit: u64,
}

/// What `runsc events --stats` printed, and what the control group adds to it.
pub fn message(stats: Option<&[u8]>, cgroup: Option<&Cgroup>) -> Result<Any> {
    let usage = match (stats.map(serde_json::from_slice::<Value>), cgroup) {
        (Some(Ok(stats)), _) if stats["data"].is_object() => from_stats(&stats["data"]),
        (_, Some(cgroup)) if unified() => from_unified(cgroup),
        (_, Some(cgroup)) => from_controllers(cgroup),
        (_, None) => bail!("nothing accounts for this container: it is in no control group"),
    };
    if unified() { pack(&usage.unified()) } else { pack(&usage.controllers()) }
}

fn from_stats(data: &Value) -> Usage {
    let number = |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let raw = |name: &str| number(&format!("/memory/raw/{name}"));
    let either = |one: u64, other: u64| if one == 0 { other } else { one };
    let each = data.pointer("/cpu/usage/percpu").and_then(Value::as_array);
    Usage {
        cpu_total_ns: number("/cpu/usage/total"),
        cpu_user_ns: number("/cpu/usage/user"),
        cpu_kernel_ns: number("/cpu/usage/kernel"),
        cpu_each_ns: each.into_iter().flatten().filter_map(Value::as_u64).collect(),
        periods: number("/cpu/throttling/periods"),
        throttled_periods: number("/cpu/throttling/throttledPeriods"),
        throttled_ns: number("/cpu/throttling/throttledTime"),
        memory: number("/memory/usage/usage"),
        memory_max: number("/memory/usage/max"),
        memory_limit: number("/memory/usage/limit"),
        memory_failures: number("/memory/usage/failcnt"),
        swap: number("/memory/swap/usage"),
        swap_limit: number("/memory/swap/limit"),
        file: either(number("/memory/cache"), raw("file")),
        anonymous: either(raw("rss"), raw("anon")),
        inactive_file: either(raw("total_inactive_file"), raw("inactive_file")),
        active_file: either(raw("total_active_file"), raw("active_file")),
        inactive_anonymous: either(raw("total_inactive_anon"), raw("inactive_anon")),
        active_anonymous: either(raw("total_active_anon"), raw("active_anon")),
        faults: raw("pgfault"),
        major_faults: raw("pgmajfault"),
        oom_kills: raw("oom_kill"),
        pids: number("/pids/current"),
        pids_limit: number("/pids/limit"),
    }
}

fn from_controllers(cgroup: &Cgroup) -> Usage {
    let memory = |file: &str| cgroup.number("memory", file).unwrap_or(0);
    let cpu = |file: &str| cgroup.number("cpuacct", file).unwrap_or(0);
    let stat = cgroup.table("memory", "memory.stat");
    let stat = |name: &str| stat.get(name).copied().unwrap_or(0);
    let throttling = cgroup.table("cpu", "cpu.stat");
    let throttling = |name: &str| throttling.get(name).copied().unwrap_or(0);
    let each = cgroup.read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
    Usage {
        cpu_total_ns: cpu("cpuacct.usage"),
        cpu_user_ns: cpu("cpuacct.usage_user"),
        cpu_kernel_ns: cpu("cpuacct.usage_sys"),
        cpu_each_ns: each.split_whitespace().filter_map(|number| number.parse().ok()).collect(),
        periods: throttling("nr_periods"),
        throttled_periods: throttling("nr_throttled"),
        throttled_ns: throttling("throttled_time"),
        memory: memory("memory.usage_in_bytes"),
        memory_max: memory("memory.max_usage_in_bytes"),
        memory_limit: memory("memory.limit_in_bytes"),
        memory_failures: memory("memory.failcnt"),
        swap: memory("memory.memsw.usage_in_bytes").saturating_sub(memory("memory.usage_in_bytes")),
        swap_limit: memory("memory.memsw.limit_in_bytes"),
        file: stat("total_cache"),
        anonymous: stat("total_rss"),
        inactive_file: stat("total_inactive_file"),
        active_file: stat("total_active_file"),
        inactive_anonymous: stat("total_inactive_anon"),
        active_anonymous: stat("total_active_anon"),
        faults: stat("total_pgfault"),
        major_faults: stat("total_pgmajfault"),
        oom_kills: cgroup.oom_kills().unwrap_or(0),
        pids: cgroup.number("pids", "pids.current").unwrap_or(0),
        pids_limit: limit(cgroup.number("pids", "pids.max")),
    }
}

fn from_unified(cgroup: &Cgroup) -> Usage {
    let memory = |file: &str| cgroup.number("memory", file).unwrap_or(0);
    let stat = cgroup.table("memory", "memory.stat");
    let stat = |name: &str| stat.get(name).copied().unwrap_or(0);
    let cpu = cgroup.table("cpu", "cpu.stat");
    let cpu = |name: &str| cpu.get(name).copied().unwrap_or(0);
    let events = cgroup.table("memory", "memory.events");
    Usage {
        cpu_total_ns: cpu("usage_usec").saturating_mul(1000),
        cpu_user_ns: cpu("user_usec").saturating_mul(1000),
        cpu_kernel_ns: cpu("system_usec").saturating_mul(1000),
        cpu_each_ns: Vec::new(),
        periods: cpu("nr_periods"),
        throttled_periods: cpu("nr_throttled"),
        throttled_ns: cpu("throttled_usec").saturating_mul(1000),
        memory: memory("memory.current"),
        memory_max: memory("memory.peak"),
        memory_limit: memory("memory.max"),
        memory_failures: events.get("max").copied().unwrap_or(0),
        swap: memory("memory.swap.current"),
        swap_limit: memory("memory.swap.max"),
        file: stat("file"),
        anonymous: stat("anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        inactive_anonymous: stat("inactive_anon"),
        active_anonymous: stat("active_anon"),
        faults: stat("pgfault"),
        major_faults: stat("pgmajfault"),
        oom_kills: cgroup.oom_kills().unwrap_or(0),
        pids: cgroup.number("pids", "pids.current").unwrap_or(0),
        pids_limit: limit(cgroup.number("pids", "pids.max")),
    }
}

/// Of processes: none is 0.
fn limit(number: Option<u64>) -> u64 {
    number.filter(|number| *number != u64::MAX).unwrap_or(0)
}

impl Usage {
    fn controllers(&self) -> v1::Metrics {
        let entry =
            |usage, max, failcnt, limit| v1::MemoryEntry { limit, usage, max, failcnt, ..Default::default() };
        v1::Metrics {
            pids: Some(v1::PidsStat { current: self.pids, limit: self.pids_limit, ..Default::default() })
                .into(),
            cpu: Some(v1::CPUStat {
                usage: Some(v1::CPUUsage {
                    total: self.cpu_total_ns,
                    kernel: self.cpu_kernel_ns,
                    user: self.cpu_user_ns,
                    per_cpu: self.cpu_each_ns.clone(),
                    ..Default::default()
                })
                .into(),
                throttling: Some(v1::Throttle {
                    periods: self.periods,
                    throttled_periods: self.throttled_periods,
                    throttled_time: self.throttled_ns,
                    ..Default::default()
                })
                .into(),
                ..Default::default()
            })
            .into(),
            memory: Some(v1::MemoryStat {
                cache: self.file,
                rss: self.anonymous,
                pg_fault: self.faults,
                pg_maj_fault: self.major_faults,
                inactive_anon: self.inactive_anonymous,
                active_anon: self.active_anonymous,
                inactive_file: self.inactive_file,
                active_file: self.active_file,
                total_cache: self.file,
                total_rss: self.anonymous,
                total_pg_fault: self.faults,
                total_pg_maj_fault: self.major_faults,
                total_inactive_anon: self.inactive_anonymous,
                total_active_anon: self.active_anonymous,
                total_inactive_file: self.inactive_file,
                total_active_file: self.active_file,
                hierarchical_memory_limit: self.memory_limit,
                usage: Some(entry(self.memory, self.memory_max, self.memory_failures, self.memory_limit))
                    .into(),
                swap: Some(entry(self.swap, 0, 0, self.swap_limit)).into(),
                kernel: Some(entry(0, 0, 0, 0)).into(),
                kernel_tcp: Some(entry(0, 0, 0, 0)).into(),
                ..Default::default()
            })
            .into(),
            memory_oom_control: Some(v1::MemoryOomControl { oom_kill: self.oom_kills, ..Default::default() })
                .into(),
            ..Default::default()
        }
    }

    fn unified(&self) -> v2::Metrics {
        v2::Metrics {
            pids: Some(v2::PidsStat { current: self.pids, limit: self.pids_limit, ..Default::default() })
                .into(),
            cpu: Some(v2::CPUStat {
                usage_usec: self.cpu_total_ns / 1000,
                user_usec: self.cpu_user_ns / 1000,
                system_usec: self.cpu_kernel_ns / 1000,
                nr_periods: self.periods,
                nr_throttled: self.throttled_periods,
                throttled_usec: self.throttled_ns / 1000,
                ..Default::default()
            })
            .into(),
            memory: Some(v2::MemoryStat {
                anon: self.anonymous,
                file: self.file,
                inactive_anon: self.inactive_anonymous,
                active_anon: self.active_anonymous,
                inactive_file: self.inactive_file,
                active_file: self.active_file,
                pgfault: self.faults,
                pgmajfault: self.major_faults,
                usage: self.memory,
                usage_limit: self.memory_limit,
                max_usage: self.memory_max,
                swap_usage: self.swap,
                swap_limit: self.swap_limit,
                ..Default::default()
            })
            .into(),
            memory_events: Some(v2::MemoryEvents {
                max: self.memory_failures,
                oom_kill: self.oom_kills,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = r#"{"type":"stats","id":"c","data":{
        "cpu":{"usage":{"total":5000,"kernel":1000,"user":4000,"percpu":[2000,3000]}},
        "memory":{"cache":7,"usage":{"usage":100,"limit":1000,"max":120},"raw":{"inactive_file":3}},
        "pids":{"current":2,"limit":9}}}"#;

    #[test]
    fn the_runtimes_numbers_are_passed_on() {
        let stats: Value = serde_json::from_str(STATS).unwrap();
        let usage = from_stats(&stats["data"]);
        let one = usage.controllers();
        assert_eq!(one.cpu.usage.per_cpu, [2000, 3000]);
        assert_eq!((one.memory.usage.usage, one.memory.usage.limit, one.memory.usage.max), (100, 1000, 120));
        assert_eq!((one.memory.cache, one.memory.total_inactive_file), (7, 3));
        assert_eq!((one.pids.current, one.pids.limit), (2, 9));
        let two = usage.unified();
        assert_eq!((two.cpu.usage_usec, two.memory.usage, two.memory.usage_limit), (5, 100, 1000));
        let any = message(Some(STATS.as_bytes()), None).unwrap();
        assert!(any.type_url.starts_with("io.containerd.cgroups.v"), "{}", any.type_url);
    }

    #[test]
    fn nothing_is_made_up() {
        assert!(message(None, None).is_err());
        assert!(message(Some(b"no json"), None).is_err());
    }
}
