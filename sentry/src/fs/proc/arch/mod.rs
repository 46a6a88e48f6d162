//! What depends on the processor's architecture.

mod x86_64;

pub(in crate::fs) use x86_64::{Cache, MACHINE, caches, cpuinfo};
