//! What a group uses.

use super::Cgroup;

/// Numbers of a group; None where the host does not tell.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Threads.
    pub pids: Pids,
}

/// Processor time in nanoseconds, and how often it was held back.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// In all.
    pub total: Option<u64>,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub kernel: u64,
    /// By processor (version 1).
    pub percpu: Vec<u64>,
    /// Periods of the quota that there were.
    pub periods: u64,
    /// In which it was used up.
    pub throttled_periods: u64,
    /// Time for which it was.
    pub throttled_time: u64,
}

/// Bytes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Used now.
    pub usage: Option<u64>,
    /// The most that was used.
    pub max: u64,
    /// The limit.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Of files.
    pub cache: u64,
    /// `memory.stat`.
    pub raw: Vec<(String, u64)>,
}

/// Threads of the host.
#[derive(Clone, Debug, Default)]
pub struct Pids {
    /// There are.
    pub current: Option<u64>,
    /// There may be; 0 is no limit.
    pub limit: u64,
}

impl Cgroup {
    /// Reads them.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let keyed = |controller, file| pairs(&self.text(controller, file).unwrap_or_default());
        let find = |pairs: &[(String, u64)], key: &str| {
            pairs.iter().find(|(name, _)| name == key).map_or(0, |(_, n)| *n)
        };
        let cpu = keyed("cpu", "cpu.stat");
        stats.cpu.periods = find(&cpu, "nr_periods");
        stats.cpu.throttled_periods = find(&cpu, "nr_throttled");
        stats.memory.raw = keyed("memory", "memory.stat");
        if self.v2 {
            stats.cpu.total = (!cpu.is_empty()).then(|| find(&cpu, "usage_usec") * 1000);
            stats.cpu.user = find(&cpu, "user_usec") * 1000;
            stats.cpu.kernel = find(&cpu, "system_usec") * 1000;
            stats.cpu.throttled_time = find(&cpu, "throttled_usec") * 1000;
            stats.memory.usage = self.number("memory", "memory.current");
            stats.memory.max = self.number("memory", "memory.peak").unwrap_or(0);
            stats.memory.limit = self.number("memory", "memory.max").unwrap_or(u64::MAX);
            stats.memory.failures = find(&keyed("memory", "memory.events"), "max");
            stats.memory.cache = find(&stats.memory.raw, "file");
        } else {
            stats.cpu.total = self.number("cpuacct", "cpuacct.usage");
            let percpu = self.text("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
            stats.cpu.percpu = percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            stats.cpu.user = self.number("cpuacct", "cpuacct.usage_user").unwrap_or(0);
            stats.cpu.kernel = self.number("cpuacct", "cpuacct.usage_sys").unwrap_or(0);
            stats.cpu.throttled_time = find(&cpu, "throttled_time");
            stats.memory.usage = self.number("memory", "memory.usage_in_bytes");
            stats.memory.max = self.number("memory", "memory.max_usage_in_bytes").unwrap_or(0);
            stats.memory.limit = self.number("memory", "memory.limit_in_bytes").unwrap_or(u64::MAX);
            stats.memory.failures = self.number("memory", "memory.failcnt").unwrap_or(0);
            stats.memory.cache = find(&stats.memory.raw, "cache");
        }
        stats.pids.current = self.number("pids", "pids.current");
        stats.pids.limit = self.number("pids", "pids.max").unwrap_or(0);
        stats
    }
}

/// Lines `key number`.
fn pairs(text: &str) -> Vec<(String, u64)> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_without_a_number_are_left_out() {
        assert_eq!(super::pairs("a 1\nb x\n\nc 3\n"), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
    }
}
