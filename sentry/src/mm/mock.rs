//! A platform without a host: address spaces as tables, to test what is above them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use platform::{
    AddressSpace, Change, Context, Errno, PAGE_SIZE, Platform, Prot, Report, Result, Thread, USER_MAX,
    USER_MIN,
};

use super::range_map::{RangeMap, Segment};

#[derive(Clone)]
struct HostMap {
    prot: Prot,
    /// The file, offset, and whether it is shared.
    file: Option<(Arc<OwnedFd>, u64, bool)>,
    dont_fork: bool,
    wipe_on_fork: bool,
}

impl Segment for HostMap {
    fn advanced(&self, by: u64) -> HostMap {
        let mut copy = self.clone();
        if let Some((_, offset, _)) = &mut copy.file {
            *offset += by;
        }
        copy
    }

    /// Never: a host may merge less than the sentry does.
    fn continued_by(&self, _len: u64, _next: &HostMap) -> bool {
        false
    }
}

type Page = Box<[u8; PAGE_SIZE as usize]>;

#[derive(Clone, Default)]
struct Memory {
    maps: RangeMap<HostMap>,
    /// Private pages that were written.
    pages: BTreeMap<u64, Page>,
}

/// An address space that is a table.
pub struct MockSpace {
    memory: Mutex<Memory>,
    dead: AtomicBool,
    /// Refuse PROT_EXEC for files, as a noexec mount does.
    pub noexec: AtomicBool,
    /// Changes carried out.
    pub changes: AtomicUsize,
    reads: AtomicUsize,
    /// Fail the change that comes after this many more (0 is never).
    pub fail_in: AtomicUsize,
}

impl MockSpace {
    fn new(memory: Memory) -> Arc<MockSpace> {
        Arc::new(MockSpace {
            memory: Mutex::new(memory),
            dead: AtomicBool::new(false),
            noexec: AtomicBool::new(false),
            changes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            fail_in: AtomicUsize::new(0),
        })
    }

    /// How often guest memory was read.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// The protection of a page on this "host".
    pub fn prot(&self, addr: u64) -> Option<Prot> {
        self.memory.lock().maps.get(addr).map(|(_, _, m)| m.prot)
    }

    /// How many bytes are mapped.
    pub fn mapped(&self) -> u64 {
        self.memory.lock().maps.iter().map(|(s, e, _)| e - s).sum()
    }

    fn change(&self, memory: &mut Memory, change: &Change<'_>) -> Result<()> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        if self.fail_in.load(Ordering::Relaxed) > 0 && self.fail_in.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(Errno::ENOMEM);
        }
        let check = |addr: u64, len: u64| {
            let aligned = addr.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE) && len > 0;
            let inside = (USER_MIN..=USER_MAX).contains(&addr) && len <= USER_MAX - addr;
            if aligned && inside { Ok(()) } else { Err(Errno::EINVAL) }
        };
        let plain = |prot, file| HostMap { prot, file, dont_fork: false, wipe_on_fork: false };
        match *change {
            Change::MapAnonymous { addr, len, prot } => {
                check(addr, len)?;
                memory.clear(addr, len);
                memory.maps.insert(addr, addr + len, plain(prot, None));
            }
            Change::MapFile { addr, len, prot, shared, file, offset } => {
                check(addr, len)?;
                if self.noexec.load(Ordering::Relaxed) && prot.contains(Prot::EXEC) {
                    return Err(Errno::EPERM);
                }
                if shared && prot.contains(Prot::WRITE) {
                    // As the host would: the fd has to be writable.
                    nix::sys::uio::pwrite(file, &[], 0).map_err(|_| Errno::EACCES)?;
                }
                let fd = Arc::new(file.try_clone_to_owned()?);
                memory.clear(addr, len);
                memory.maps.insert(addr, addr + len, plain(prot, Some((fd, offset, shared))));
            }
            Change::Unmap { addr, len } => {
                check(addr, len)?;
                memory.clear(addr, len);
                memory.maps.remove(addr, addr + len);
            }
            Change::Protect { addr, len, prot } => {
                check(addr, len)?;
                if !memory.maps.covers(addr, addr + len) {
                    return Err(Errno::ENOMEM);
                }
                let noexec = self.noexec.load(Ordering::Relaxed) && prot.contains(Prot::EXEC);
                if noexec && memory.maps.overlapping(addr, addr + len).any(|(_, _, m)| m.file.is_some()) {
                    return Err(Errno::EACCES);
                }
                for (_, _, m) in memory.maps.overlapping(addr, addr + len) {
                    if let Some((fd, _, true)) = &m.file
                        && prot.contains(Prot::WRITE)
                    {
                        nix::sys::uio::pwrite(fd, &[], 0).map_err(|_| Errno::EACCES)?;
                    }
                }
                memory.maps.update(addr, addr + len, |_, _, m| m.prot = prot);
            }
            Change::Move { old, old_len, new, new_len, keep } => {
                check(old, old_len)?;
                check(new, new_len)?;
                if old_len != new_len || old == new {
                    return Err(Errno::EINVAL); // the sentry does not ask for these
                }
                let (start, end, map) = memory.maps.get(old).ok_or(Errno::EFAULT)?;
                if old + old_len > end {
                    return Err(Errno::EFAULT);
                }
                let map = map.advanced(old - start);
                memory.clear(new, new_len);
                let moved: Vec<u64> = memory.pages.range(old..old + old_len).map(|(&p, _)| p).collect();
                for page in moved {
                    if let Some(data) = memory.pages.remove(&page) {
                        memory.pages.insert(page - old + new, data);
                    }
                }
                if !keep {
                    memory.maps.remove(old, old + old_len);
                }
                memory.maps.insert(new, new + new_len, map);
            }
            Change::Advise { addr, len, advice } => {
                check(addr, len)?;
                let advice = advice as u32;
                match advice {
                    abi::mman::MADV_DONTNEED | abi::mman::MADV_FREE => memory.clear(addr, len),
                    abi::mman::MADV_DONTFORK => {
                        memory.maps.update(addr, addr + len, |_, _, m| m.dont_fork = true)
                    }
                    abi::mman::MADV_DOFORK => {
                        memory.maps.update(addr, addr + len, |_, _, m| m.dont_fork = false)
                    }
                    abi::mman::MADV_WIPEONFORK => {
                        memory.maps.update(addr, addr + len, |_, _, m| m.wipe_on_fork = true)
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Memory {
    fn clear(&mut self, addr: u64, len: u64) {
        let gone: Vec<u64> = self.pages.range(addr..addr + len).map(|(&p, _)| p).collect();
        for page in gone {
            self.pages.remove(&page);
        }
    }

    /// The contents of a page as a reader sees it; `None` beyond the end of the file.
    fn page(&self, page: u64, map: &HostMap) -> Option<Page> {
        if let Some(data) = self.pages.get(&page) {
            return Some(data.clone());
        }
        let mut data = Box::new([0; PAGE_SIZE as usize]);
        if let Some((fd, offset, _)) = &map.file {
            let n = nix::sys::uio::pread(fd, data.as_mut_slice(), *offset as i64).ok()?;
            if n == 0 {
                return None;
            }
        }
        Some(data)
    }

    fn access(&mut self, addr: u64, len: usize, need: Prot, mut op: impl FnMut(usize, &mut [u8])) -> usize {
        let mut done = 0;
        while done < len {
            let at = addr + done as u64;
            let page = at & !(PAGE_SIZE - 1);
            let within = (at - page) as usize;
            let n = (PAGE_SIZE as usize - within).min(len - done);
            let Some((start, _, map)) = self.maps.get(at) else { break };
            if !map.prot.contains(need) {
                break;
            }
            let map = map.advanced(page - start);
            let Some(mut data) = self.page(page, &map) else { break };
            op(done, &mut data[within..within + n]);
            if need.contains(Prot::WRITE) {
                match &map.file {
                    Some((fd, offset, true)) => {
                        let at = *offset as i64 + within as i64;
                        nix::sys::uio::pwrite(fd, &data[within..within + n], at).unwrap();
                    }
                    _ => {
                        self.pages.insert(page, data);
                    }
                }
            }
            done += n;
        }
        done
    }
}

impl AddressSpace for MockSpace {
    fn new_thread(self: Arc<Self>, _context: &Context) -> Result<Box<dyn Thread>> {
        Err(Errno::ENOSYS)
    }

    fn apply(&self, _by: Option<&mut dyn Thread>, changes: &[Change<'_>]) -> Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(Errno::ESRCH);
        }
        let mut memory = self.memory.lock();
        changes.iter().try_for_each(|change| self.change(&mut memory, change))
    }

    fn fork(&self, _by: Option<&mut dyn Thread>) -> Result<Arc<dyn AddressSpace>> {
        let mut memory = self.memory.lock().clone();
        let maps: Vec<_> = memory.maps.iter().map(|(s, e, m)| (s, e, m.clone())).collect();
        for (s, e, map) in maps {
            if map.dont_fork {
                memory.clear(s, e - s);
                memory.maps.remove(s, e);
            } else if map.wipe_on_fork {
                memory.clear(s, e - s);
            }
        }
        Ok(MockSpace::new(memory))
    }

    fn read_batch(&self, segments: &mut [(u64, &mut [u8])]) -> Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut memory = self.memory.lock();
        let mut total = 0;
        for (addr, buf) in segments {
            let n = memory.access(*addr, buf.len(), Prot::READ, |done, data| {
                buf[done..done + data.len()].copy_from_slice(data)
            });
            total += n;
            if n < buf.len() {
                break;
            }
        }
        Ok(total)
    }

    fn write_batch(&self, segments: &[(u64, &[u8])]) -> Result<usize> {
        let mut memory = self.memory.lock();
        let mut total = 0;
        for (addr, buf) in segments {
            let n = memory.access(*addr, buf.len(), Prot::WRITE, |done, data| {
                data.copy_from_slice(&buf[done..done + data.len()])
            });
            total += n;
            if n < buf.len() {
                break;
            }
        }
        Ok(total)
    }

    fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        let mut memory = self.memory.lock();
        let mut forced = memory.clone();
        forced.maps.update(USER_MIN, USER_MAX, |_, _, m| m.prot = Prot::all());
        let n = forced.access(addr, buf.len(), Prot::WRITE, |done, data| {
            data.copy_from_slice(&buf[done..done + data.len()])
        });
        memory.pages = forced.pages;
        Ok(n)
    }

    fn compare_exchange(
        &self,
        _by: Option<&mut dyn Thread>,
        addr: u64,
        expected: u32,
        new: u32,
    ) -> Result<u32> {
        let mut memory = self.memory.lock();
        let mut found = 0;
        let n = memory.access(addr, 4, Prot::READ | Prot::WRITE, |_, data| {
            found = u32::from_le_bytes(data.try_into().unwrap());
            if found == expected {
                data.copy_from_slice(&new.to_le_bytes());
            }
        });
        if n == 4 { Ok(found) } else { Err(Errno::EFAULT) }
    }

    fn resident(&self, addr: u64, pages: &mut [u8]) -> Result<()> {
        let memory = self.memory.lock();
        for (i, page) in pages.iter_mut().enumerate() {
            *page = u8::from(memory.pages.contains_key(&(addr + i as u64 * PAGE_SIZE)));
        }
        Ok(())
    }

    fn on_death(&self, _watch: Arc<dyn Fn() + Send + Sync>) -> Box<dyn Send + Sync> {
        Box::new(())
    }

    fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

/// Makes [`MockSpace`]s.
#[derive(Default)]
pub struct MockPlatform {
    last: Mutex<Option<Arc<MockSpace>>>,
}

impl MockPlatform {
    /// The address space that was made last.
    pub fn last(&self) -> Arc<MockSpace> {
        self.last.lock().clone().unwrap()
    }
}

impl Platform for MockPlatform {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>> {
        let space = MockSpace::new(Memory::default());
        *self.last.lock() = Some(space.clone());
        Ok(space)
    }

    fn report(&self) -> Report {
        Report::default()
    }
}
