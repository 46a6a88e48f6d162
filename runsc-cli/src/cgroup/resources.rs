//! From `linux.resources` to what is written to which file of a group, as runc writes it.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The controller that has the file (of version 1; in version 2, the one that must be enabled).
    pub controller: &'static str,
    /// The file's name.
    pub file: String,
    /// What to write.
    pub value: String,
    /// Another file, where this one is not there (bfq's weight).
    pub or: Option<(String, String)>,
    /// Nothing depends on it: a failure is a warning.
    pub optional: bool,
}

impl Setting {
    fn new(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Setting {
        Setting { controller, file: file.into(), value: value.to_string(), or: None, optional: false }
    }

    fn or(mut self, file: &str, value: impl ToString) -> Setting {
        self.or = Some((file.into(), value.to_string()));
        self
    }

    fn optional(mut self) -> Setting {
        self.optional = true;
        self
    }
}

/// What the group had before an update, where the order of writes depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// `memory.memsw.limit_in_bytes` of version 1.
    pub memory_and_swap: Option<u64>,
}

/// The writes for version 1 or 2, in order.
pub fn settings(resources: &LinuxResources, v2: bool, before: Before) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(cpu) = resources.cpu() {
        if v2 { cpu_v2(cpu, &mut all) } else { cpu_v1(cpu, &mut all) }
    }
    if let Some(memory) = resources.memory() {
        if v2 { memory_v2(memory, &mut all) } else { memory_v1(memory, before, &mut all) }
    }
    if let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        let max = match u64::try_from(pids.limit()) {
            Ok(limit) => room_for(limit).to_string(),
            Err(_) => "max".into(),
        };
        all.push(Setting::new("pids", "pids.max", max));
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, bytes) = (limit.page_size(), limit.limit());
        if v2 {
            all.push(Setting::new("hugetlb", format!("hugetlb.{size}.max"), or_max(bytes)));
            all.push(Setting::new("hugetlb", format!("hugetlb.{size}.rsvd.max"), or_max(bytes)).optional());
        } else {
            all.push(Setting::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), bytes));
            let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
            all.push(Setting::new("hugetlb", reserved, bytes).optional());
        }
    }
    if let Some(io) = resources.block_io() {
        if v2 { io_v2(io, &mut all) } else { io_v1(io, &mut all) }
    }
    if let Some(network) = resources.network()
        && !v2
    {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            all.push(Setting::new("net_cls", "net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            all.push(Setting::new("net_prio", "net_prio.ifpriomap", value));
        }
    }
    if !v2 {
        let rules = resources.devices().as_deref().unwrap_or_default();
        all.extend(rules.iter().map(device));
        if !rules.is_empty() {
            let always = ALWAYS.iter().map(|rule| Setting::new("devices", "devices.allow", rule).optional());
            all.extend(always);
        }
    }
    if v2 {
        let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
        unified.sort();
        for (file, value) in unified {
            let known = ["cpuset", "cpu", "memory", "pids", "hugetlb", "io", "rdma", "misc"];
            let controller = file.split('.').next().unwrap_or_default();
            let controller = known.into_iter().find(|name| *name == controller).unwrap_or("cgroup");
            all.push(Setting::new(controller, file, value));
        }
    }
    all
}

/// Threads of the host for a sandbox whose guest may have `pids`. The sentry counts and limits those of the guest; each of
/// them is up to seven on the host, beside the sandbox's own: a sentry thread, a stub thread, the service thread of its
/// process, and there the four stub threads that systrap lets rest.
pub fn room_for(pids: u64) -> u64 {
    pids.saturating_mul(7).saturating_add(64)
}

fn or_max(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

fn cpu_v1(cpu: &LinuxCpu, all: &mut Vec<Setting>) {
    let mut number = |file: &str, value: Option<i64>| {
        if let Some(value) = value.filter(|value| *value != 0) {
            all.push(Setting::new("cpu", file, value));
        }
    };
    let wide = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    number("cpu.shares", wide(cpu.shares()));
    number("cpu.cfs_period_us", wide(cpu.period()));
    number("cpu.cfs_quota_us", cpu.quota());
    number("cpu.cfs_burst_us", wide(cpu.burst()));
    number("cpu.rt_period_us", wide(cpu.realtime_period()));
    number("cpu.rt_runtime_us", cpu.realtime_runtime());
    number("cpu.idle", cpu.idle());
    cpuset(cpu, all);
}

fn cpu_v2(cpu: &LinuxCpu, all: &mut Vec<Setting>) {
    if let Some(idle) = cpu.idle() {
        all.push(Setting::new("cpu", "cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        all.push(Setting::new("cpu", "cpu.weight", weight_of_shares(shares)));
    }
    let period = cpu.period().filter(|period| *period != 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    if period.is_some() || quota.is_some() {
        let value = format!("{} {}", or_max(quota.unwrap_or(-1)), period.unwrap_or(100_000));
        all.push(Setting::new("cpu", "cpu.max", value));
    }
    if let Some(burst) = cpu.burst() {
        all.push(Setting::new("cpu", "cpu.max.burst", burst));
    }
    cpuset(cpu, all);
}

fn cpuset(cpu: &LinuxCpu, all: &mut Vec<Setting>) {
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            all.push(Setting::new("cpuset", file, value));
        }
    }
}

/// 2 to 262144 become 1 to 10000.
pub fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn memory_v1(memory: &LinuxMemory, before: Before, all: &mut Vec<Setting>) {
    let file = |file: &str, value: i64| Setting::new("memory", file, value);
    let limit = memory.limit().filter(|limit| *limit != 0);
    // A limit that is lifted lifts that of memory and swap, too.
    let swap = memory.swap().filter(|swap| *swap != 0).or(limit.filter(|limit| *limit == -1));
    let limit = limit.map(|limit| file("memory.limit_in_bytes", limit));
    let swap_setting = swap.map(|swap| {
        let setting = file("memory.memsw.limit_in_bytes", swap);
        if swap == -1 { setting.optional() } else { setting }
    });
    // Memory alone may never be more than memory and swap.
    let raised = match (swap, before.memory_and_swap) {
        (Some(-1), _) => true,
        (Some(swap), Some(before)) => u64::try_from(swap).is_ok_and(|swap| swap > before),
        _ => false,
    };
    if raised {
        all.extend(swap_setting.into_iter().chain(limit));
    } else {
        all.extend(limit.into_iter().chain(swap_setting));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        all.push(file("memory.soft_limit_in_bytes", reservation));
    }
    if memory.disable_oom_killer() == Some(true) {
        all.push(file("memory.oom_control", 1));
    }
    if let Some(swappiness) = memory.swappiness().and_then(|value| i64::try_from(value).ok()) {
        all.push(file("memory.swappiness", swappiness));
    }
    if let Some(tcp) = kernel_tcp(memory) {
        all.push(file("memory.kmem.tcp.limit_in_bytes", tcp).optional());
    }
}

// Both fields are deprecated in the specification, and still written by callers.
fn kernel_tcp(memory: &LinuxMemory) -> Option<i64> {
    memory.kernel_tcp().filter(|limit| *limit != 0)
}

fn memory_v2(memory: &LinuxMemory, all: &mut Vec<Setting>) {
    let limit = memory.limit().filter(|limit| *limit != 0);
    // In version 2 swap is counted alone; the specification counts both together.
    let swap = match (memory.swap().filter(|swap| *swap != 0), limit) {
        (Some(-1), _) | (None, Some(-1)) => Some("max".to_owned()),
        (Some(swap), Some(limit)) if limit >= 0 && swap >= limit => Some((swap - limit).to_string()),
        _ => None,
    };
    if let Some(swap) = swap {
        all.push(Setting::new("memory", "memory.swap.max", &swap).optional());
    }
    if let Some(limit) = limit {
        all.push(Setting::new("memory", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        all.push(Setting::new("memory", "memory.low", or_max(reservation)));
    }
}

fn throttles<'a>(io: &'a LinuxBlockIo) -> [(&'static str, &'static str, &'a [LinuxThrottleDevice]); 4] {
    let list = |devices: &'a Option<Vec<LinuxThrottleDevice>>| devices.as_deref().unwrap_or_default();
    [
        ("blkio.throttle.read_bps_device", "rbps", list(io.throttle_read_bps_device())),
        ("blkio.throttle.write_bps_device", "wbps", list(io.throttle_write_bps_device())),
        ("blkio.throttle.read_iops_device", "riops", list(io.throttle_read_iops_device())),
        ("blkio.throttle.write_iops_device", "wiops", list(io.throttle_write_iops_device())),
    ]
}

fn io_v1(io: &LinuxBlockIo, all: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        all.push(Setting::new("blkio", "blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        all.push(Setting::new("blkio", "blkio.leaf_weight", weight).optional());
    }
    for device in io.weight_device().iter().flatten() {
        let name = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = format!("{name} {weight}");
            all.push(
                Setting::new("blkio", "blkio.weight_device", &value).or("blkio.bfq.weight_device", &value),
            );
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            all.push(
                Setting::new("blkio", "blkio.leaf_weight_device", format!("{name} {weight}")).optional(),
            );
        }
    }
    for (file, _, devices) in throttles(io) {
        for device in devices {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            all.push(Setting::new("blkio", file, value));
        }
    }
}

fn io_v2(io: &LinuxBlockIo, all: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        // 10 to 1000 become 1 to 10000.
        let general = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
        all.push(Setting::new("io", "io.bfq.weight", weight).or("io.weight", general));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            all.push(Setting::new("io", "io.bfq.weight", value));
        }
    }
    for (_, key, devices) in throttles(io) {
        for device in devices {
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            all.push(Setting::new("io", "io.max", value));
        }
    }
}

/// What runc allows every container, and what the sandbox itself may need: making nodes; null, zero, full, random, urandom,
/// tty, ptmx, terminals, kvm.
const ALWAYS: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:232 rw",
];

/// A rule of the device list, in version 1 alone: in version 2 it would take a BPF program. Rules stand behind what the
/// sandbox cannot do anyway, so that one that cannot be set (in a user namespace, say) is no failure.
fn device(rule: &LinuxDeviceCgroup) -> Setting {
    let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
    let number = |number: Option<i64>| number.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let kind = rule.typ();
    let kind = kind.as_ref().map_or("a", |kind| kind.as_str());
    let access = rule.access().as_deref().unwrap_or("rwm");
    let value = format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()));
    Setting::new("devices", file, value).optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(resources: serde_json::Value, v2: bool, before: Before) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let show = |setting: Setting| format!("{}={}", setting.file, setting.value);
        settings(&resources, v2, before).into_iter().map(show).collect()
    }

    fn example() -> serde_json::Value {
        json!({
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1", "mems": ""},
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500, "swappiness": 0},
            "pids": {"limit": -1},
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
            "network": {"classID": 7},
            "unified": {"memory.high": "9"}
        })
    }

    #[test]
    fn version_1() {
        let written = written(example(), false, Before::default());
        assert_eq!(
            written[..written.len() - ALWAYS.len()],
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0-1",
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=3000",
                "memory.soft_limit_in_bytes=500",
                "memory.swappiness=0",
                "pids.max=max",
                "hugetlb.2MB.limit_in_bytes=4096",
                "hugetlb.2MB.rsvd.limit_in_bytes=4096",
                "blkio.weight=500",
                "blkio.throttle.read_bps_device=8:0 600",
                "net_cls.classid=7",
                "devices.deny=a *:* rwm",
                "devices.allow=c 1:3 rw",
            ]
        );
    }

    #[test]
    fn version_2() {
        assert_eq!(
            written(example(), true, Before::default()),
            [
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1",
                "memory.swap.max=2000",
                "memory.max=1000",
                "memory.low=500",
                "pids.max=max",
                "hugetlb.2MB.max=4096",
                "hugetlb.2MB.rsvd.max=4096",
                "io.bfq.weight=500",
                "io.max=8:0 rbps=600",
                "memory.high=9",
            ]
        );
    }

    #[test]
    fn limits_are_raised_and_lowered_in_the_order_that_works() {
        let memory = json!({"memory": {"limit": 2000, "swap": 4000}});
        let before = |bytes| Before { memory_and_swap: Some(bytes) };
        let first = |before| written(memory.clone(), false, before)[0].clone();
        assert_eq!(first(before(1000)), "memory.memsw.limit_in_bytes=4000");
        assert_eq!(first(before(9000)), "memory.limit_in_bytes=2000");
        let lifted = written(json!({"memory": {"limit": -1}}), false, before(1000));
        assert_eq!(lifted, ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]);
    }
}
