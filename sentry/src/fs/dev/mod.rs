//! Device files: the nodes of `/dev`, and the memory devices (drivers/char/mem.c).

mod memory;
mod nodes;

pub use memory::{MAJOR, MemoryDevices};
pub use nodes::{new, populate};
