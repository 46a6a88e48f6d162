//! stub
#![allow(missing_docs, unused)]
use crate::vfs::File;
use abi::{Errno, Result};
use std::sync::Arc;
pub struct LoadRequest<'a> {
    pub file: Arc<File>,
    pub filename: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub secure: bool,
    pub stack_limit: u64,
    pub random: [u8; 48],
    pub randomize: bool,
    pub resolver: &'a dyn Fn(&[u8]) -> Result<Arc<File>>,
}
pub struct Loaded {
    pub entry: u64,
    pub stack_pointer: u64,
}
pub struct Script {
    pub interpreter: Vec<u8>,
    pub argument: Option<Vec<u8>>,
}
pub fn parse_script(b: &[u8]) -> Result<Option<Script>> {
    Ok(None)
}
pub fn load(mm: &Arc<crate::mm::MemoryManager>, r: &LoadRequest<'_>) -> Result<Loaded> {
    Err(Errno::ENOEXEC)
}
