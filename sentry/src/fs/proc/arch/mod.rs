//! What depends on the processor's architecture.

mod x86_64;

pub(super) use x86_64::{MACHINE, cpuinfo};
