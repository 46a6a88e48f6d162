//! The patched call sites of an address space.
//!
//! A site is rewritten when its calls have become many ([`Heat`]), and put back before its page is made writable or
//! moved, or the trampolines it leads to go away. A trampoline is never used again for another site: a sibling may be
//! in it.
//!
//! Lock order: the sentry's lock of the address space, then the map of patches (a leaf but for the host's calls).

use crate::arch::CALL_SIZE;
use crate::arch::site::{DISTANCES, JUMP, SITE, Site, TRAMPOLINE};
use parking_lot::RwLock;
use platform::stub::{Op, STUB_DATA, STUB_DATA_SIZE, StubProcess};
use platform::{Change, Errno, PAGE_SIZE, PATCH_AREA, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls of one site before it is patched: rewriting costs as much as some dozen calls.
const MANY: u8 = 24;

/// Counts calls by site, for one thread. Inexact: sites share entries.
pub struct Heat {
    entries: [(u64, u8); 64],
}

impl Heat {
    /// Nothing counted.
    pub fn new() -> Self {
        Self { entries: [(0, 0); 64] }
    }

    /// Counts a call that ended at `ip`. True once when they have become many.
    pub fn count(&mut self, ip: u64) -> bool {
        let index = (ip ^ ip >> 6) as usize % self.entries.len();
        let Some(entry) = self.entries.get_mut(index) else { return false };
        if entry.0 != ip {
            *entry = (ip, 0);
        }
        if entry.1 > MANY {
            return false;
        }
        entry.1 += 1;
        entry.1 == MANY
    }
}

#[derive(Clone)]
struct Patch {
    site: Site,
    trampoline: u64,
}

/// A range of trampolines.
#[derive(Clone)]
struct Area {
    /// By number of the trampoline: the site it is or was for.
    used: BTreeMap<u64, Site>,
}

#[derive(Clone, Default)]
struct Map {
    /// By address of the `syscall` instruction.
    patches: BTreeMap<u64, Patch>,
    /// By address.
    areas: BTreeMap<u64, Area>,
    /// Pages that were replaced by a copy, which is memory without a file.
    copies: BTreeSet<u64>,
}

/// See the module.
#[derive(Default)]
pub struct Patches {
    map: RwLock<Map>,
    /// There are or have been some.
    any: AtomicBool,
    /// There are to be no more.
    stopped: AtomicBool,
}

impl Map {
    fn patch_covering(&self, ip: u64) -> Option<&Patch> {
        let (_, patch) = self.patches.range(..=ip).next_back()?;
        (ip < patch.site.end()).then_some(patch)
    }

    fn area_of(&self, ip: u64) -> Option<(u64, &Area)> {
        let (start, area) = self.areas.range(..=ip).next_back()?;
        (ip - start < PATCH_AREA).then_some((*start, area))
    }

    /// Sites of which `start..end` holds a byte.
    fn sites_in(&self, start: u64, end: u64) -> Vec<u64> {
        let from = start.saturating_sub(SITE as u64);
        let touched = |patch: &&Patch| patch.site.end() > start;
        self.patches.range(from..end).map(|(_, patch)| patch).filter(touched).map(|p| p.site.addr).collect()
    }

    /// Areas of which `start..end` holds a byte.
    fn areas_in(&self, start: u64, end: u64) -> Vec<u64> {
        self.areas.range(start.saturating_sub(PATCH_AREA - 1)..end).map(|(area, _)| *area).collect()
    }

    /// A trampoline for `site` in an area that there is, with the jump.
    fn free_trampoline(&self, site: &Site) -> Option<(u64, u64, [u8; JUMP])> {
        for (&start, area) in &self.areas {
            for number in 0..PATCH_AREA / TRAMPOLINE {
                let at = start + number * TRAMPOLINE;
                if area.used.contains_key(&number) {
                    continue;
                }
                if let Some(jump) = site.jump(at) {
                    return Some((start, number, jump));
                }
            }
        }
        None
    }
}

impl Patches {
    /// A copy, for a fork.
    pub fn copy(&self) -> Self {
        let map = self.map.read();
        let any = AtomicBool::new(self.any.load(Ordering::Relaxed));
        Self { any, stopped: AtomicBool::new(false), map: RwLock::new(map.clone()) }
    }

    fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Where the guest is, as it knows it, when its thread is at `ip` in a trampoline, and whether that is right behind the
    /// call.
    pub fn original_ip(&self, ip: u64) -> Option<(u64, bool)> {
        if self.is_empty() {
            return None;
        }
        let map = self.map.read();
        let (start, area) = map.area_of(ip)?;
        let offset = ip - start;
        let site = area.used.get(&(offset / TRAMPOLINE))?;
        let ip = site.original_ip(offset % TRAMPOLINE);
        Some((ip, ip == site.addr + CALL_SIZE))
    }

    /// Where a thread has to go on that is at `ip`, as the guest knows it.
    pub fn moved_ip(&self, ip: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let map = self.map.read();
        let patch = map.patch_covering(ip)?;
        patch.site.moved_ip(ip, patch.trampoline)
    }

    /// Whether the invalid instruction that a thread has met at `ip` was a jump of ours. It goes on in the copy, or at `ip`
    /// itself if the instruction there is the guest's own again: the thread may have met the jump before it was put back,
    /// and be heard of only now.
    pub fn met(&self, process: &StubProcess, ip: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        // One look for both, or a patch could come in between.
        let map = self.map.read();
        if map.patch_covering(ip).is_some_and(|patch| patch.site.moved_ip(ip, 0).is_some()) {
            return true;
        }
        let former = |site: &&Site| site.moved_ip(ip, 0).is_some() && !map.patches.contains_key(&site.addr);
        let Some(site) = map.areas.values().flat_map(|area| area.used.values()).find(former) else {
            return false;
        };
        let mut present = vec![0; site.original.len()];
        process.read_batch(&mut [(site.addr, &mut present)]) == Ok(present.len()) && present == site.original
    }

    /// Rewrites the site of the call that ended at `ip`; see [`platform::AddressSpace::patch`]. `shared`: other threads may
    /// run the code.
    pub fn patch(
        &self,
        process: &StubProcess,
        ip: u64,
        shared: bool,
        place: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(Errno::EOPNOTSUPP);
        }
        let addr = ip.checked_sub(CALL_SIZE).ok_or(Errno::EINVAL)?;
        let mut bytes = [0; SITE];
        let read = process.read_batch(&mut [(addr, &mut bytes)])?;
        let map = self.map.read();
        if map.patch_covering(addr).is_some() || map.area_of(addr).is_some() {
            return Err(Errno::EEXIST);
        }
        let site = bytes.get(..read).and_then(|bytes| Site::decode(addr, bytes)).ok_or(Errno::EOPNOTSUPP)?;
        let is_split = addr % PAGE_SIZE + JUMP as u64 > PAGE_SIZE;
        if shared && is_split || !map.sites_in(addr, site.end()).is_empty() {
            return Err(Errno::EOPNOTSUPP);
        }
        let has_room = map.free_trampoline(&site).is_some();
        drop(map);
        let mut area = None;
        if !has_room {
            // Without the lock: mapping is a change of the address space, too.
            area = DISTANCES
                .into_iter()
                .filter_map(|distance| addr.checked_add_signed(distance))
                .map(|addr| addr & !(PATCH_AREA - 1))
                .find(|&area| area.checked_add(PATCH_AREA).is_some() && place(area));
            if area.is_none() {
                return Err(Errno::ENOMEM);
            }
        }
        let mut map = self.map.write();
        if let Some(area) = area {
            map.areas.insert(area, Area { used: BTreeMap::new() });
            self.any.store(true, Ordering::Release);
        }
        let (start, number, jump) = map.free_trampoline(&site).ok_or(Errno::EOPNOTSUPP)?;
        let trampoline = start + number * TRAMPOLINE;
        let code = site.trampoline(trampoline).ok_or(Errno::EOPNOTSUPP)?;
        let area = map.areas.get_mut(&start).ok_or(Errno::ENOMEM)?;
        area.used.insert(number, site.clone());
        write(process, trampoline, &code)?;
        // In the map before it is in memory: a sibling may run it at once.
        map.patches.insert(addr, Patch { site, trampoline });
        if let Err(error) = map.replace(process, shared, addr, &jump) {
            map.patches.remove(&addr);
            return Err(error);
        }
        tracing::trace!(addr, trampoline, "patched a call site");
        Ok(())
    }

    /// To be called before `changes` are made: puts back what they would make visible or break.
    pub fn prepare(&self, process: &StubProcess, shared: bool, changes: &[Change<'_>]) {
        if self.is_empty() {
            return;
        }
        let mut map = self.map.write();
        for change in changes {
            match *change {
                Change::MapAnonymous { addr, len, .. }
                | Change::MapFile { addr, len, .. }
                | Change::Unmap { addr, len } => map.replaced(process, shared, addr, len),
                Change::Protect { addr, len, prot } => {
                    if prot.contains(platform::Prot::WRITE) {
                        map.restore(process, shared, addr, len);
                    }
                    map.remove_areas(process, shared, addr, len);
                }
                Change::Move { old, old_len, new, new_len, .. } => {
                    map.restore(process, shared, old, old_len);
                    map.remove_areas(process, shared, old, old_len);
                    map.replaced(process, shared, new, new_len);
                }
                // DONTNEED and others give the file's bytes back.
                Change::Advise { addr, len, .. } => {
                    map.restore(process, shared, addr, len);
                    map.remove_areas(process, shared, addr, len);
                }
            }
        }
    }

    /// `changes` as they are to be made: advice that would have the file's contents come back spares copied pages, which
    /// hold just these. `None`: as they are.
    pub fn spare_copies<'a>(&self, changes: &[Change<'a>]) -> Option<Vec<Change<'a>>> {
        let drops = |change: &Change<'_>| match *change {
            Change::Advise { advice: libc::MADV_DONTNEED | libc::MADV_FREE, addr, len } => {
                Some((addr, addr + len))
            }
            _ => None,
        };
        if self.is_empty() || !changes.iter().any(|change| drops(change).is_some()) {
            return None;
        }
        let map = self.map.read();
        let mut spared = Vec::new();
        for change in changes {
            let (Some((mut start, end)), Change::Advise { advice, .. }) = (drops(change), *change) else {
                spared.push(*change);
                continue;
            };
            for &page in map.copies.range(start..end) {
                if start < page {
                    spared.push(Change::Advise { addr: start, len: page - start, advice });
                }
                start = page + PAGE_SIZE;
            }
            if start < end {
                spared.push(Change::Advise { addr: start, len: end - start, advice });
            }
        }
        Some(spared)
    }

    /// `buf`, which was read at `addr`, with the guest's own bytes in it.
    pub fn conceal(&self, addr: u64, buf: &mut [u8]) {
        if self.is_empty() {
            return;
        }
        let map = self.map.read();
        let end = addr.saturating_add(buf.len() as u64);
        for site in map.sites_in(addr, end) {
            let Some(patch) = map.patches.get(&site) else { continue };
            for (at, byte) in (site..).zip(patch.site.original.iter().take(JUMP)) {
                if let Some(offset) = at.checked_sub(addr)
                    && let Some(to) = buf.get_mut(offset as usize)
                {
                    *to = *byte;
                }
            }
        }
    }

    /// Puts back all sites, for good.
    pub fn stop(&self, process: &StubProcess, shared: bool) {
        self.stopped.store(true, Ordering::Release);
        self.restore(process, shared, 0, u64::MAX);
    }

    /// Puts back the sites of a range, before a debugger writes there.
    pub fn restore(&self, process: &StubProcess, shared: bool, addr: u64, len: u64) {
        if !self.is_empty() {
            self.map.write().restore(process, shared, addr, len);
        }
    }
}

impl Map {
    /// [`replace`], and remembers a copied page.
    fn replace(&mut self, process: &StubProcess, shared: bool, addr: u64, bytes: &[u8]) -> Result<()> {
        replace(process, shared, addr, bytes)?;
        if shared && is_crossing(addr) {
            self.copies.insert(addr & !(PAGE_SIZE - 1));
        }
        Ok(())
    }

    /// The range gets other pages.
    fn replaced(&mut self, process: &StubProcess, shared: bool, addr: u64, len: u64) {
        let end = addr.saturating_add(len);
        self.copies.retain(|page| !(addr..end).contains(page));
        for site in self.sites_in(addr, end) {
            // What lies outside the range stays.
            if let Some(patch) = self.patches.remove(&site)
                && (site < addr || site + JUMP as u64 > end)
            {
                let original = patch.site.original.get(..JUMP).unwrap_or_default();
                let _ = self.replace(process, shared, site, original);
            }
        }
        self.remove_areas(process, shared, addr, len);
    }

    fn restore(&mut self, process: &StubProcess, shared: bool, addr: u64, len: u64) {
        for site in self.sites_in(addr, addr.saturating_add(len)) {
            self.put_back(process, shared, site);
        }
    }

    fn put_back(&mut self, process: &StubProcess, shared: bool, site: u64) {
        if let Some(patch) = self.patches.remove(&site)
            && let Some(original) = patch.site.original.get(..JUMP)
            && let Err(error) = self.replace(process, shared, site, original)
        {
            tracing::debug!(site, ?error, "putting back a call site");
        }
    }

    fn remove_areas(&mut self, process: &StubProcess, shared: bool, addr: u64, len: u64) {
        for start in self.areas_in(addr, addr.saturating_add(len)) {
            let Some(area) = self.areas.remove(&start) else { continue };
            for site in area.used.values() {
                let of_this = |patch: &Patch| patch.trampoline.wrapping_sub(start) < PATCH_AREA;
                if self.patches.get(&site.addr).is_some_and(of_this) {
                    self.put_back(process, shared, site.addr);
                }
            }
        }
    }
}

/// Where a page is made that is to take another's place: in the stub region, above the stub's data.
const NEW_PAGE: u64 = STUB_DATA + STUB_DATA_SIZE + 0x1_0000;

/// Replaces instructions that other threads may be running, if there are any (`shared`): by one write of an aligned word, or
/// else with the whole page. Between the old page and the new one there is none, and whoever fetches an instruction
/// then waits; so nobody gets a half of each.
fn replace(process: &StubProcess, shared: bool, addr: u64, bytes: &[u8]) -> Result<()> {
    if !shared || !is_crossing(addr) {
        return write(process, addr, bytes);
    }
    let page = addr & !(PAGE_SIZE - 1);
    let offset = (addr - page) as usize;
    let mut contents = vec![0; PAGE_SIZE as usize];
    if process.read_batch(&mut [(page, &mut contents)])? != contents.len() {
        return Err(Errno::EFAULT);
    }
    contents.get_mut(offset..offset + bytes.len()).ok_or(Errno::EOPNOTSUPP)?.copy_from_slice(bytes);
    let read_write = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
    let moving = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let run = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let call = |number, args| process.call(Op::call(number, args), &[]);
    call(libc::SYS_mmap, [NEW_PAGE, PAGE_SIZE, read_write, flags, u64::MAX, 0])?;
    process.write_stub(NEW_PAGE, &contents)?;
    call(libc::SYS_mprotect, [NEW_PAGE, PAGE_SIZE, run, 0, 0, 0])?;
    call(libc::SYS_mremap, [NEW_PAGE, PAGE_SIZE, PAGE_SIZE, moving, page, 0])?;
    Ok(())
}

/// A jump there does not fit into one aligned word.
fn is_crossing(addr: u64) -> bool {
    addr % 8 + JUMP as u64 > 8
}

/// Writes code, whatever its protection.
fn write(process: &StubProcess, addr: u64, bytes: &[u8]) -> Result<()> {
    match process.poke(addr, bytes)? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_rises_once() {
        let mut heat = Heat::new();
        let hot = (0..200).filter(|_| heat.count(0x7f12_3456)).count();
        assert_eq!(hot, 1);
        // Another site in the same entry takes it over.
        let other = 0x7f12_3456 + 64 * 64;
        assert!((0..u64::from(MANY)).filter(|_| heat.count(other)).count() <= 1);
    }
}
