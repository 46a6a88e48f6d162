//! stub
#![allow(missing_docs, unused)]
use abi::{Errno, Result};
use platform::{AddressSpace, Fault, Platform, Thread};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};
pub struct MemoryManager {
    a: Arc<dyn AddressSpace>,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FutexKey {
    a: u64,
    b: u64,
    c: u64,
}
pub enum FaultOutcome {
    Resume,
    Signal { signal: i32, code: i32, addr: u64 },
}
impl MemoryManager {
    pub fn new(p: &dyn Platform) -> Result<Arc<Self>> {
        Err(Errno::ENOSYS)
    }
    pub fn fork(&self, by: Option<&mut dyn Thread>) -> Result<Arc<Self>> {
        Err(Errno::ENOSYS)
    }
    pub fn address_space(&self) -> &Arc<dyn AddressSpace> {
        &self.a
    }
    pub fn read_bytes(&self, addr: u64, b: &mut [u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    pub fn write_bytes(&self, addr: u64, b: &[u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    pub fn read_object<T: FromBytes>(&self, addr: u64) -> Result<T> {
        Err(Errno::EFAULT)
    }
    pub fn write_object<T: IntoBytes + Immutable>(&self, addr: u64, t: &T) -> Result<()> {
        Err(Errno::EFAULT)
    }
    pub fn futex_key(&self, addr: u64, shared: bool) -> Result<FutexKey> {
        Err(Errno::EFAULT)
    }
    pub fn compare_exchange(
        &self,
        by: Option<&mut dyn Thread>,
        addr: u64,
        old: u32,
        new: u32,
    ) -> Result<u32> {
        Err(Errno::EFAULT)
    }
    pub fn handle_fault(&self, by: Option<&mut dyn Thread>, f: &Fault) -> FaultOutcome {
        FaultOutcome::Resume
    }
    pub fn max_rss_kib(&self) -> u64 {
        0
    }
}
