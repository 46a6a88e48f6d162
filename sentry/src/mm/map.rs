//! mmap(2), munmap(2) and brk(2).

use std::os::fd::AsFd;
use std::sync::Arc;

use platform::{Change, PAGE_SIZE, Prot, USER_MAX, USER_MIN};

use super::policy::Policy;
use super::range_map::Segment;
use super::vma::{Backing, Mapping, Vma, VmaFlags};
use super::{
    AnonymousShared, By, LOW_TOP, Layout, Limits, LockFuture, MAP_COUNT_MAX, MemoryManager, State, again,
    clamp, host_prot, is_page_aligned, page_up,
};
use crate::vfs::{File, Io, Mappable, VecSink};
use crate::{Errno, Result};

/// Large private mappings are aligned for huge pages.
const HUGE_PAGE: u64 = 2 << 20;

/// What fits between two calls of a file when contents are copied.
const COPY_CHUNK: usize = 256 * 1024;

/// How the address of a mapping is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fixed {
    /// A hint.
    #[default]
    No,
    /// MAP_FIXED.
    Replace,
    /// MAP_FIXED_NOREPLACE.
    NoReplace,
}

/// A file to map.
#[derive(Clone)]
pub struct MapFile {
    /// Its pages.
    pub mappable: Arc<dyn Mappable>,
    /// The open file, kept open by the mapping.
    pub file: Option<Arc<File>>,
    /// What `/proc/PID/maps` shows if there is no file.
    pub name: Option<Arc<str>>,
    /// Offset of the first byte, a multiple of the page size.
    pub offset: u64,
    /// What mprotect(2) may ever allow: READ if the file is open for reading; WRITE if the mapping is private, or the
    /// file is open for writing and not sealed; EXEC unless the mount is noexec.
    pub max_prot: Prot,
}

/// The arguments of mmap(2), decoded.
#[derive(Clone, Default)]
pub struct MapRequest {
    /// The address, or where to look first.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// MAP_SHARED. Without a file, shared memory is made.
    pub shared: bool,
    /// MAP_FIXED and MAP_FIXED_NOREPLACE.
    pub fixed: Fixed,
    /// MAP_32BIT.
    pub low: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// MAP_NORESERVE.
    pub noreserve: bool,
    /// MAP_POPULATE without MAP_NONBLOCK.
    pub populate: bool,
    /// MAP_LOCKED.
    pub locked: bool,
    /// mremap(2) cannot make it larger (the vdso).
    pub special: bool,
    /// An error that the caller has found, and that comes after those of the address in Linux.
    pub late_error: Option<Errno>,
    /// The file; `None` is MAP_ANONYMOUS.
    pub file: Option<MapFile>,
    /// The caller's limits.
    pub limits: Limits,
}

impl MemoryManager {
    /// mmap(2). Errors as there; EPERM also for an address below `vm.mmap_min_addr`.
    pub fn map(&self, mut by: By<'_>, req: &MapRequest) -> Result<u64> {
        if req.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(req.len).ok_or(Errno::ENOMEM)?;
        if req.file.as_ref().is_some_and(|file| !is_page_aligned(file.offset)) {
            return Err(Errno::EINVAL);
        }
        if len > USER_MAX {
            return Err(Errno::ENOMEM);
        }
        if req.fixed != Fixed::No {
            check_fixed(req.addr, len)?;
        }
        if req.fixed == Fixed::NoReplace && self.state.read().is_used(req.addr, len) {
            return Err(Errno::EEXIST);
        }
        if req.locked && !req.limits.can_lock && req.limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        if let Some(file) = &req.file
            && file.offset.checked_add(len).is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(Errno::EOVERFLOW);
        }
        if let Some(errno) = req.late_error {
            return Err(errno);
        }
        let vma = self.new_vma(req, len)?;

        let mut state = self.state.write();
        state.limits = req.limits;
        let addr = match req.fixed {
            Fixed::No => state.choose(req, len)?,
            Fixed::Replace => {
                state.may_modify(req.addr, req.addr + len)?;
                req.addr
            }
            Fixed::NoReplace if state.is_used(req.addr, len) => return Err(Errno::EEXIST),
            Fixed::NoReplace => req.addr,
        };
        let mut vma = vma;
        state.add_future_lock(&mut vma);
        if vma.flags.contains(VmaFlags::LOCKED) {
            state.may_lock(len, &req.limits)?;
        }
        state.may_map(addr, len, &vma, &req.limits)?;
        let populate = (req.populate || vma.flags.contains(VmaFlags::LOCKED))
            && !vma.flags.contains(VmaFlags::LOCK_ON_FAULT);
        let prot = vma.prot;
        let (copy, replaced) = self.place(again(&mut by), &mut state, addr, len, vma)?;
        drop(state);
        drop(replaced);
        if let Some(mapping) = copy {
            let offset = req.file.as_ref().map_or(0, |f| f.offset);
            self.copy_in(again(&mut by), addr, len, prot, &mapping, offset)?;
        }
        if populate {
            // mmap(2) does not tell of pages that could not be had.
            let _ = self.populate(by, addr, len, prot);
        }
        Ok(addr)
    }

    /// The mapping that a request describes. Creates shared memory and asks files for their host fd.
    fn new_vma(&self, req: &MapRequest, len: u64) -> Result<Vma> {
        let mut flags = VmaFlags::empty();
        flags.set(VmaFlags::SHARED, req.shared);
        flags.set(VmaFlags::GROWS_DOWN, req.grows_down);
        flags.set(VmaFlags::NO_RESERVE, req.noreserve);
        flags.set(VmaFlags::LOCKED, req.locked);
        flags.set(VmaFlags::DONT_EXPAND, req.special);
        let mut max_prot = Prot::all();
        let file = match &req.file {
            Some(file) => {
                max_prot = file.max_prot;
                if !max_prot.contains(Prot::READ) || (req.prot - max_prot).contains(Prot::WRITE) {
                    return Err(Errno::EACCES);
                }
                if (req.prot - max_prot).contains(Prot::EXEC) {
                    return Err(Errno::EPERM);
                }
                Some(file.clone())
            }
            None if req.shared && !req.grows_down => Some(MapFile {
                mappable: AnonymousShared::new(len)?,
                file: None,
                name: Some("/dev/zero (deleted)".into()),
                offset: 0,
                max_prot,
            }),
            None => None,
        };
        if req.grows_down && (file.is_some() || req.shared) {
            return Err(Errno::EINVAL);
        }
        let backing = match file {
            None => Backing::Anonymous,
            Some(file) if !req.shared && file.mappable.is_zero() => Backing::Anonymous,
            Some(file) => {
                // A shared mapping gets all the access that the guest's own descriptor has, for a later mprotect(2).
                let wanted =
                    if req.shared { req.prot | (max_prot & Prot::WRITE) } else { req.prot - Prot::WRITE };
                let mut host = file.mappable.host_fd(wanted, req.shared);
                if req.shared && wanted != req.prot && matches!(host, Err(Errno::EPERM | Errno::EACCES)) {
                    // Sealed, or read-only after all: without that access, then.
                    max_prot -= Prot::WRITE;
                    host = file.mappable.host_fd(req.prot, req.shared);
                }
                let host = match host {
                    Ok(host) => Some(host),
                    Err(Errno::ENODEV | Errno::EOPNOTSUPP) if !req.shared && file.file.is_some() => None,
                    Err(errno) => return Err(errno),
                };
                let mapping = Mapping { mappable: file.mappable, file: file.file, name: file.name, host };
                Backing::File { mapping: Arc::new(mapping), offset: file.offset }
            }
        };
        Ok(Vma { prot: req.prot, max_prot, flags, policy: Policy::default(), backing })
    }

    /// Maps `vma` on the host and in the map. Returns the mapping whose contents have to be copied in, if the host
    /// would not map it, and what was replaced.
    #[allow(clippy::type_complexity, reason = "two results that are both used at once")]
    pub(super) fn place(
        &self,
        by: By<'_>,
        state: &mut State,
        addr: u64,
        len: u64,
        mut vma: Vma,
    ) -> Result<(Option<Arc<Mapping>>, Vec<super::Piece<Vma>>)> {
        let mut copy = None;
        if let Some(deferred) = &mut state.deferred {
            deferred.push((addr, len, vma.clone()));
        } else {
            copy = self.place_on_host(by, addr, len, &vma)?;
        }
        if copy.is_some() {
            vma.flags |= VmaFlags::COPIED;
        }
        let replaced = state.insert(addr, addr + len, vma);
        Ok((copy, replaced))
    }

    /// Maps on the host. Returns the mapping whose contents have to be copied in, if the host would not map it: it is
    /// on a noexec mount of the host's, or a file that the host cannot map.
    fn place_on_host(&self, mut by: By<'_>, addr: u64, len: u64, vma: &Vma) -> Result<Option<Arc<Mapping>>> {
        let mapped = host_change(addr, len, vma).and_then(|change| self.apply(again(&mut by), &[change]));
        match (mapped, &vma.backing) {
            (Err(Errno::EPERM | Errno::EACCES | Errno::ENODEV), Backing::File { mapping, offset })
                if !vma.is_shared()
                    && let Some(file) = &mapping.file =>
            {
                let prot = host_prot(vma.prot | Prot::WRITE);
                let attributes = file.path().inode().attributes()?;
                let held = if attributes.mode & abi::stat::S_IFMT == abi::stat::S_IFREG {
                    page_up(attributes.size.saturating_sub(*offset)).unwrap_or(len).min(len)
                } else {
                    // A device has no end.
                    len
                };
                if held > 0 {
                    self.apply(again(&mut by), &[Change::MapAnonymous { addr, len: held, prot }])?;
                }
                if held < len {
                    // The end of a file without bytes: SIGBUS, as beyond the end of this one.
                    let nothing = super::shared::empty_file()?;
                    let (addr, len, file) = (addr + held, len - held, nothing.as_fd());
                    self.apply(by, &[Change::MapFile { addr, len, prot, shared: false, file, offset: 0 }])?;
                }
                Ok(Some(mapping.clone()))
            }
            (result, _) => result.map(|()| None),
        }
    }

    /// From now on mappings are made on the host by [`MemoryManager::commit`], all at once: each change has its price.
    /// For a new address space that nobody else uses; nothing but mapping works in between.
    pub(crate) fn defer(&self) {
        self.state.write().deferred = Some(Vec::new());
    }

    /// Makes the mappings since [`MemoryManager::defer`] on the host. If this fails the address space is of no use.
    pub(crate) fn commit(&self) -> Result<()> {
        let deferred = self.state.write().deferred.take().unwrap_or_default();
        let all: Result<Vec<Change<'_>>> =
            deferred.iter().map(|(addr, len, vma)| host_change(*addr, *len, vma)).collect();
        if all.and_then(|changes| self.apply(None, &changes)).is_ok() {
            return Ok(());
        }
        // One by one, to copy what the host cannot map.
        for (addr, len, vma) in &deferred {
            if let Some(mapping) = self.place_on_host(None, *addr, *len, vma)? {
                self.state.write().update(*addr, addr + len, |vma| vma.flags |= VmaFlags::COPIED);
                let offset = match &vma.backing {
                    Backing::File { offset, .. } => *offset,
                    Backing::Anonymous => 0,
                };
                self.copy_in(None, *addr, *len, vma.prot, &mapping, offset)?;
            }
        }
        Ok(())
    }

    /// Fills a copied mapping, which is writable on the host, from its file, and gives it its protection.
    pub(super) fn copy_in(
        &self,
        by: By<'_>,
        addr: u64,
        len: u64,
        prot: Prot,
        mapping: &Mapping,
        offset: u64,
    ) -> Result<()> {
        let file = mapping.file.as_ref().ok_or(Errno::ENODEV)?;
        let mut done = 0;
        while done < len {
            let mut chunk = VecSink::new(COPY_CHUNK.min((len - done) as usize));
            // A read that ends early ends the file, as for Linux's page cache.
            if file.operations().read(&Io::default(), &mut chunk, offset + done)? == 0 {
                break;
            }
            self.space.write(addr + done, &chunk.data).map_err(|_| Errno::EFAULT)?;
            done += chunk.data.len() as u64;
        }
        if !prot.contains(Prot::WRITE) {
            let state = self.state.write();
            if state.vmas.covers(addr, addr + len) {
                self.apply(by, &[Change::Protect { addr, len, prot }])?;
            }
        }
        Ok(())
    }

    /// Faults pages in. EFAULT for memory without access, and beyond the end of a file.
    pub(super) fn populate(&self, by: By<'_>, addr: u64, len: u64, prot: Prot) -> Result<()> {
        let advice = if prot.contains(Prot::WRITE) {
            abi::mman::MADV_POPULATE_WRITE
        } else if !prot.is_empty() {
            abi::mman::MADV_POPULATE_READ
        } else {
            return Err(Errno::EFAULT);
        };
        self.apply(by, &[Change::Advise { addr, len, advice: advice as i32 }])
    }

    /// Where `len` bytes could be mapped.
    pub(crate) fn find_free(&self, len: u64, align: u64) -> Option<u64> {
        self.state.write().find_gap(len, align, false)
    }

    /// munmap(2). EINVAL, or ENOMEM if a mapping would be split beyond the limit.
    pub fn unmap(&self, by: By<'_>, addr: u64, len: u64) -> Result<()> {
        let len = page_up(len).ok_or(Errno::EINVAL)?;
        if !is_page_aligned(addr) || len == 0 || addr > USER_MAX || len > USER_MAX - addr {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.write();
        let removed = self.unmap_locked(by, &mut state, addr, addr + len)?;
        drop(state);
        drop(removed);
        Ok(())
    }

    /// Unmaps on the host and in the map; the pieces are to be dropped without the lock.
    pub(super) fn unmap_locked(
        &self,
        by: By<'_>,
        state: &mut State,
        start: u64,
        end: u64,
    ) -> Result<Vec<super::Piece<Vma>>> {
        let Some((start, end)) = clamp(start, end) else { return Ok(Vec::new()) };
        if state.vmas.overlapping(start, end).next().is_none() {
            return Ok(Vec::new());
        }
        state.may_modify(start, end)?;
        if state.splits(start, end) && state.vmas.len() >= MAP_COUNT_MAX {
            return Err(Errno::ENOMEM);
        }
        self.apply(by, &[Change::Unmap { addr: start, len: end - start }])?;
        Ok(state.remove(start, end))
    }

    /// brk(2): moves the end of the heap to `addr` if that can be, and returns where it is then.
    pub fn set_brk(&self, mut by: By<'_>, addr: u64, limits: &Limits) -> u64 {
        let mut state = self.state.write();
        state.limits = *limits;
        let Layout { start_brk, brk, start_data, end_data, .. } = state.layout;
        let (Some(new), Some(old)) = (page_up(addr), page_up(brk)) else { return brk };
        if addr < start_brk || new > USER_MAX {
            return brk;
        }
        let data = (addr - start_brk).saturating_add(end_data.saturating_sub(start_data));
        if data > limits.data {
            return brk;
        }
        let mut removed = Vec::new();
        let mut grown = None;
        if new < old {
            match self.unmap_locked(again(&mut by), &mut state, new, old) {
                Ok(pieces) => removed = pieces,
                Err(_) => return brk,
            }
        } else if new > old {
            let len = new - old;
            let mut vma = Vma {
                policy: Policy::default(),
                prot: Prot::READ | Prot::WRITE,
                max_prot: Prot::all(),
                flags: VmaFlags::empty(),
                backing: Backing::Anonymous,
            };
            state.add_future_lock(&mut vma);
            let locked = vma.flags.contains(VmaFlags::LOCKED);
            let flags = vma.flags;
            // The page above has to be free too, and a stack's guard below it.
            let blocked = state.vmas.at_or_above(old).is_some_and(|(start, _, next)| {
                start.saturating_sub(next.guard()) < new.saturating_add(PAGE_SIZE)
            });
            if blocked
                || (locked && state.may_lock(len, limits).is_err())
                || state.may_map(old, len, &vma, limits).is_err()
            {
                return brk;
            }
            match self.place(again(&mut by), &mut state, old, len, vma) {
                Ok((_, pieces)) => removed = pieces,
                Err(_) => return brk,
            }
            if locked && !flags.contains(VmaFlags::LOCK_ON_FAULT) {
                grown = Some((old, len));
            }
        }
        state.layout.brk = addr;
        drop(state);
        drop(removed);
        if let Some((start, len)) = grown {
            let _ = self.populate(by, start, len, Prot::READ | Prot::WRITE);
        }
        addr
    }
}

/// What maps `vma` on the host. EACCES if that is not possible.
fn host_change(addr: u64, len: u64, vma: &Vma) -> Result<Change<'_>> {
    let prot = host_prot(vma.prot);
    match &vma.backing {
        Backing::Anonymous => Ok(Change::MapAnonymous { addr, len, prot }),
        Backing::File { mapping, offset } => match &mapping.host {
            Some((fd, delta)) if !vma.flags.contains(VmaFlags::COPIED) => {
                let offset = offset.checked_add(*delta).ok_or(Errno::EOVERFLOW)?;
                Ok(Change::MapFile { addr, len, prot, shared: vma.is_shared(), file: fd.as_fd(), offset })
            }
            _ => Err(Errno::EACCES),
        },
    }
}

/// The rules for an address that is not up to the kernel.
pub(super) fn check_fixed(addr: u64, len: u64) -> Result<()> {
    if addr > USER_MAX || len > USER_MAX - addr {
        return Err(Errno::ENOMEM);
    }
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    if addr < USER_MIN {
        return Err(Errno::EPERM);
    }
    Ok(())
}

impl State {
    /// Where a mapping goes that may go anywhere (get_unmapped_area).
    pub(super) fn choose(&mut self, req: &MapRequest, len: u64) -> Result<u64> {
        let mut hint = req.addr & !(PAGE_SIZE - 1);
        if hint != 0 {
            hint = hint.max(USER_MIN);
            // MAP_32BIT bounds a hint only from above.
            let top = if req.low { LOW_TOP } else { USER_MAX };
            if hint < top && len <= top - hint && self.is_free(hint, len) {
                return Ok(hint);
            }
        }
        let align = if req.file.is_none() && !req.shared && len.is_multiple_of(HUGE_PAGE) {
            HUGE_PAGE
        } else {
            PAGE_SIZE
        };
        self.find_gap(len, align, req.low).ok_or(Errno::ENOMEM)
    }

    pub(super) fn find_gap(&mut self, len: u64, align: u64, low: bool) -> Option<u64> {
        if low {
            return self.vmas.find_gap(len, PAGE_SIZE, LOW_TOP / 2, LOW_TOP);
        }
        let base = self.layout.mmap_base;
        if align > PAGE_SIZE
            && let Some(addr) = self.vmas.find_gap(len, align, USER_MIN, base)
        {
            return Some(addr);
        }
        self.vmas
            .find_gap(len, PAGE_SIZE, USER_MIN, base)
            .or_else(|| self.vmas.find_gap(len, PAGE_SIZE, USER_MIN, USER_MAX))
    }

    /// Is something mapped in the range?
    pub(super) fn is_used(&self, start: u64, len: u64) -> bool {
        self.vmas.overlapping(start, start + len).next().is_some()
    }

    /// Free, and no stack's guard.
    pub(super) fn is_free(&self, start: u64, len: u64) -> bool {
        self.vmas
            .at_or_above(start)
            .is_none_or(|(next, _, vma)| start + len <= next.saturating_sub(vma.guard()))
    }

    /// ENOMEM if the limits or the number of mappings forbid `vma` at `addr`; what it replaces is not counted twice.
    pub(super) fn may_map(&self, addr: u64, len: u64, vma: &Vma, limits: &Limits) -> Result<()> {
        // One for the mapping, one for a split.
        if self.vmas.len() >= MAP_COUNT_MAX {
            return Err(Errno::ENOMEM);
        }
        let end = addr + len;
        let replaced: u64 =
            self.vmas.overlapping(addr, end).map(|(s, e, _)| e.min(end).saturating_sub(s.max(addr))).sum();
        self.may_expand(vma, len - replaced, limits)?;
        let charged = vma.is_data() && !vma.flags.contains(VmaFlags::NO_RESERVE);
        if charged && len > limits.memory {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Would unmapping the range split one mapping in two?
    pub(super) fn splits(&self, start: u64, end: u64) -> bool {
        self.vmas.get(start).is_some_and(|(s, e, _)| s < start && e > end)
    }

    /// mlockall(MCL_FUTURE) applies to a new mapping.
    pub(super) fn add_future_lock(&self, vma: &mut Vma) {
        vma.flags |= match self.lock_future {
            LockFuture::No => VmaFlags::empty(),
            LockFuture::Populate => VmaFlags::LOCKED,
            LockFuture::OnFault => VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT,
        };
    }
}
