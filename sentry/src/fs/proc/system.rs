//! Files about the whole system.

use std::fmt::Write;

use abi::Result;

use super::System;
use crate::vfs::Io;

pub(super) fn version(_system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(b"Linux version 6.12.0 (runsc) #1 SMP runsc\n".to_vec())
}

pub(super) fn uptime(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let kernel = system.kernel();
    let centis = kernel.clock.monotonic().saturating_sub(kernel.boot_time) / 10_000_000;
    Ok(format!("{}.{:02} 0.00\n", centis / 100, centis % 100).into_bytes())
}

pub(super) fn loadavg(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(format!("0.00 0.00 0.00 1/{} {}\n", system.kernel().count_tasks(), system.0.pid_ns.last())
        .into_bytes())
}

pub(super) fn meminfo(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let (total, free) = (system.kernel().memory / 1024, system.kernel().memory_free() / 1024);
    let mut text = String::new();
    for (name, value) in [("MemTotal", total), ("MemFree", free), ("MemAvailable", free)] {
        let _ = writeln!(text, "{:<16}{value:>8} kB", format!("{name}:"));
    }
    Ok(text.into_bytes())
}

pub(super) fn cpuinfo(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let cpus = (0..system.kernel().cpus).map(|cpu| format!("processor\t: {cpu}\n\n"));
    Ok(cpus.collect::<String>().into_bytes())
}

pub(super) fn stat(system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mut text = "cpu  0 0 0 0 0 0 0 0 0 0\n".to_string();
    for cpu in 0..system.kernel().cpus {
        let _ = writeln!(text, "cpu{cpu} 0 0 0 0 0 0 0 0 0 0");
    }
    Ok(text.into_bytes())
}

pub(super) fn filesystems(_system: &System, _io: &Io<'_>) -> Result<Vec<u8>> {
    Ok(b"nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\n".to_vec())
}
