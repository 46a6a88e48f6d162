//! Files about the whole system (fs/proc, mm/vmstat.c, kernel/).

use std::fmt::Write;
use std::sync::Arc;

use abi::Result;

use super::subject::refresh_cpu_time;
use super::{System, arch};
use crate::Kernel;
use crate::fs::synthetic::Content;
use crate::task::group::CpuTime;
use crate::task::wait::NANOS_PER_TICK;
use crate::task::{CurrentTask, Task};
use crate::vfs::Io;

const NANOS: u64 = 1_000_000_000;

pub(super) fn version(_system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let text = format!("Linux version {} (runsc) {}\n", crate::kernel::RELEASE, crate::kernel::VERSION);
    Ok(text.into_bytes())
}

/// Nanoseconds since the system was started: that is the host, whose clocks programs see too (CLOCK_BOOTTIME).
fn uptime_nanos(kernel: &Kernel) -> u64 {
    kernel.clock.boottime()
}

fn all_tasks(kernel: &Kernel) -> Vec<Arc<Task>> {
    kernel.processes().iter().flat_map(|process| process.threads()).collect()
}

/// Processor time of all tasks, living and ended.
fn busy(kernel: &Kernel) -> CpuTime {
    all_tasks(kernel).iter().fold(kernel.statistics.ended_time(), |sum, task| sum.plus(task.cpu_time()))
}

/// Processor time that nobody used.
fn idle(system: &System, busy: CpuTime) -> u64 {
    let cpus = u64::from(system.container().cpus());
    uptime_nanos(system.kernel()).saturating_mul(cpus).saturating_sub(busy.total())
}

pub(super) fn uptime(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let kernel = system.kernel();
    let centis = |nanos: u64| (nanos / NANOS, nanos / (NANOS / 100) % 100);
    let (up, idle) = (centis(uptime_nanos(kernel)), centis(idle(system, busy(kernel))));
    Ok(format!("{}.{:02} {}.{:02}\n", up.0, up.1, idle.0, idle.1).into_bytes())
}

pub(super) fn loadavg(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let kernel = system.kernel();
    let running = kernel.count_running();
    let [one, five, fifteen] = kernel.load_averages();
    let last = system.0.pid_ns.last();
    let tasks = kernel.counts.all();
    Ok(format!("{one:.2} {five:.2} {fifteen:.2} {running}/{tasks} {last}\n").into_bytes())
}

pub(super) fn meminfo(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let container = system.container();
    let (total, free) = (container.memory() / 1024, system.kernel().memory_free(container) / 1024);
    let used = total.saturating_sub(free);
    let lines = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total / 2),
        ("Committed_AS", used),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{:<16}{value:>8} kB", format!("{name}:"));
    }
    for name in ["Total", "Free", "Rsvd", "Surp"] {
        let _ = writeln!(text, "{:<16}{:>8}", format!("HugePages_{name}:"), 0);
    }
    text.push_str("Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
    Ok(text.into_bytes())
}

pub(super) fn cpuinfo(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(arch::cpuinfo(system.container().cpus()).into_bytes())
}

/// `/proc/stat`.
pub(super) struct Stat;

impl Content<System> for Stat {
    fn opened(&self, system: &System, task: &CurrentTask) {
        task.update_cpu_time();
        refresh_cpu_time(&all_tasks(system.kernel()), task);
    }

    fn read(&self, system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
        let kernel = system.kernel();
        let busy = busy(kernel);
        let (idle, cpus) = (idle(system, busy), system.container().cpus());
        let ticks = |nanos: u64| nanos / NANOS_PER_TICK;
        let line = |parts: u64| {
            let part = |nanos: u64| ticks(nanos / parts);
            format!("{} 0 {} {} 0 0 0 0 0 0\n", part(busy.user), part(busy.system), part(idle))
        };
        let mut text = format!("cpu  {}", line(1));
        // Who ran where is the host's affair.
        for cpu in 0..cpus {
            let _ = write!(text, "cpu{cpu} {}", line(cpus.into()));
        }
        let started = kernel.clock.realtime_nanos().saturating_sub(uptime_nanos(kernel)) / NANOS;
        let switches: u64 = kernel.processes().iter().map(|p| p.usage().voluntary).sum();
        let tasks = all_tasks(kernel);
        let count = |state: char| tasks.iter().filter(|task| task.state() == state).count();
        let _ = write!(
            text,
            "intr 0\nctxt {switches}\nbtime {started}\nprocesses {}\nprocs_running {}\nprocs_blocked {}\n\
             softirq 0 0 0 0 0 0 0 0 0 0 0\n",
            kernel.statistics.tasks(),
            count('R').max(1),
            count('D'),
        );
        Ok(text.into_bytes())
    }
}

pub(super) fn filesystems(_system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let types = [
        "sysfs", "tmpfs", "proc", "cgroup2", "devtmpfs", "sockfs", "pipefs", "ramfs", "devpts", "mqueue",
        "overlay",
    ];
    Ok(types.map(|name| format!("nodev\t{name}\n")).concat().into_bytes())
}

pub(super) fn devices(_system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(b"Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n".into())
}

pub(super) fn vmstat(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let pages = |bytes: u64| bytes / platform::PAGE_SIZE;
    let free = system.kernel().memory_free(system.container());
    let used = system.container().memory().saturating_sub(free);
    let lines = [
        ("nr_free_pages", pages(free)),
        ("nr_inactive_anon", 0),
        ("nr_active_anon", pages(used)),
        ("nr_inactive_file", 0),
        ("nr_active_file", 0),
        ("nr_unevictable", 0),
        ("nr_mlock", 0),
        ("nr_anon_pages", pages(used)),
        ("nr_mapped", 0),
        ("nr_file_pages", 0),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("nr_shmem", 0),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
        ("oom_kill", 0),
    ];
    Ok(lines.iter().map(|(name, value)| format!("{name} {value}\n")).collect::<String>().into_bytes())
}

pub(super) fn interrupts(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let columns: String =
        (0..system.container().cpus()).map(|cpu| format!("{:<11}", format!("CPU{cpu}"))).collect();
    Ok(format!("           {columns}\n").into_bytes())
}

pub(super) fn softirqs(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let cpus = system.container().cpus();
    let columns: String = (0..cpus).map(|cpu| format!("{:<11}", format!("CPU{cpu}"))).collect();
    let mut text = format!("                    {columns}\n");
    for name in ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"]
    {
        let zeroes: String = (0..cpus).map(|_| format!(" {:>10}", 0)).collect();
        let _ = writeln!(text, "{:>12}{zeroes}", format!("{name}:"));
    }
    Ok(text.into_bytes())
}
