//! Reading much that is small and lies close together, as the arguments of execve(2) do: a page at a time.

use abi::mman::PAGE_SIZE;

use super::MemoryManager;
use crate::{Errno, Result};

/// A page of guest memory as it was when it was first read.
pub struct Window<'a> {
    mm: &'a MemoryManager,
    start: u64,
    page: Box<[u8; PAGE_SIZE as usize]>,
    len: usize,
}

impl<'a> Window<'a> {
    /// One that has read nothing yet.
    pub fn new(mm: &'a MemoryManager) -> Self {
        Self { mm, start: 0, page: Box::new([0; PAGE_SIZE as usize]), len: 0 }
    }

    /// The bytes from `addr` to the end of its page: at least one. EFAULT.
    fn rest(&mut self, addr: u64) -> Result<&[u8]> {
        let start = addr - addr % PAGE_SIZE;
        if self.len == 0 || self.start != start {
            self.len = 0;
            self.len = self.mm.read_upto(start, self.page.as_mut_slice())?;
            self.start = start;
        }
        match self.page.get((addr - start) as usize..self.len) {
            Some(rest) if !rest.is_empty() => Ok(rest),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Reads a word, which need not be aligned. EFAULT.
    pub fn read_u64(&mut self, addr: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        let mut done = 0;
        while done < bytes.len() {
            let rest = self.rest(addr.checked_add(done as u64).ok_or(Errno::EFAULT)?)?;
            for (to, from) in bytes.iter_mut().skip(done).zip(rest) {
                *to = *from;
                done += 1;
            }
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a string as [`MemoryManager::read_cstring`] does.
    pub fn read_cstring(&mut self, addr: u64, max: usize, too_long: Errno) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < max {
            let rest = self.rest(addr.checked_add(text.len() as u64).ok_or(Errno::EFAULT)?)?;
            let rest = rest.get(..max - text.len()).unwrap_or(rest);
            if let Some(end) = rest.iter().position(|&byte| byte == 0) {
                text.extend(rest.iter().take(end));
                return Ok(text);
            }
            text.extend_from_slice(rest);
        }
        Err(too_long)
    }
}
