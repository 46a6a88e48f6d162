//! mremap(2).

use abi::limits::TASK_SIZE_MAX;
use platform::{Change, PAGE_SIZE, USER_MAX};

use super::map::{Fixed, MapFile, MapRequest, check_fixed};
use super::range_map::Segment;
use super::vma::{Backing, Vma, VmaFlags};
use super::{By, Limits, MAP_COUNT_MAX, MemoryManager, Piece, State, again, is_page_aligned, page_up};
use crate::{Errno, Result};

/// The arguments of mremap(2), decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemapRequest {
    /// The old address.
    pub old: u64,
    /// The old length; 0 maps the pages of a shared mapping once more.
    pub old_len: u64,
    /// The new length.
    pub new_len: u64,
    /// MREMAP_MAYMOVE.
    pub may_move: bool,
    /// MREMAP_FIXED with the new address.
    pub fixed: Option<u64>,
    /// MREMAP_DONTUNMAP.
    pub dont_unmap: bool,
}

/// What remains to be done when the lock is free.
#[derive(Default)]
struct After {
    dropped: Vec<Piece<Vma>>,
    /// A new part of a copied file mapping: address, length, mapping as it was placed.
    fill: Option<(u64, u64, Vma)>,
    populate: Option<(u64, u64, Vma)>,
}

impl MemoryManager {
    /// mremap(2); returns the new address. Errors as there.
    pub fn remap(&self, mut by: By<'_>, req: &RemapRequest, limits: &Limits) -> Result<u64> {
        // A length that overflows when it is rounded up is none, in Linux.
        let (old_len, new_len) = (page_up(req.old_len).unwrap_or(0), page_up(req.new_len).unwrap_or(0));
        if (req.fixed.is_some() || req.dont_unmap) && !req.may_move {
            return Err(Errno::EINVAL);
        }
        if req.dont_unmap && old_len != new_len {
            return Err(Errno::EINVAL);
        }
        if !is_page_aligned(req.old) || new_len == 0 || new_len > TASK_SIZE_MAX {
            return Err(Errno::EINVAL);
        }
        let old = req.old;
        if let Some(new) = req.fixed {
            if !is_page_aligned(new) || new > USER_MAX.saturating_sub(new_len) {
                return Err(Errno::EINVAL);
            }
            // An overlap of old and new.
            if old.saturating_add(old_len) > new && new + new_len > old {
                return Err(Errno::EINVAL);
            }
            if self.state.read().vmas.len() + 5 >= MAP_COUNT_MAX {
                return Err(Errno::ENOMEM);
            }
        }
        let mut after = After::default();
        let mut state = self.state.write();
        state.limits = *limits;
        let result = self.remap_locked(again(&mut by), &mut state, req, old_len, new_len, limits, &mut after);
        drop(state);
        drop(after.dropped);
        if let Some((addr, len, vma)) = after.fill
            && let Backing::File { mapping, offset } = &vma.backing
        {
            self.copy_in(again(&mut by), addr, len, vma.prot, mapping, *offset)?;
        }
        if let Some((addr, len, vma)) = after.populate {
            let _ = self.populate(by, addr, len, vma.prot);
        }
        result
    }

    /// remap_file_pages(2), which is mmap(2) of the same file in other words. EINVAL for what is not one shared mapping.
    pub fn remap_file_pages(
        &self,
        by: By<'_>,
        start: u64,
        len: u64,
        offset: u64,
        limits: &Limits,
    ) -> Result<()> {
        let end = start.checked_add(len).filter(|&end| end > start).ok_or(Errno::EINVAL)?;
        offset.checked_add(len).ok_or(Errno::EINVAL)?;
        let request = {
            let state = self.state.read();
            let (_, _, vma) = state.vmas.get(start).ok_or(Errno::EINVAL)?;
            let Backing::File { mapping, .. } = &vma.backing else { return Err(Errno::EINVAL) };
            let alike = |other: &Vma| {
                let same = matches!(&other.backing, Backing::File { mapping: m, .. }
                    if m.mappable.object() == mapping.mappable.object());
                same && other.flags == vma.flags && other.prot == vma.prot
            };
            let whole = state.vmas.covers(start, end)
                && state.vmas.overlapping(start, end).all(|(_, _, vma)| alike(vma));
            if !vma.is_shared() || !whole {
                return Err(Errno::EINVAL);
            }
            MapRequest {
                addr: start,
                len,
                prot: vma.prot,
                shared: true,
                fixed: Fixed::Replace,
                locked: vma.flags.contains(VmaFlags::LOCKED),
                file: Some(MapFile {
                    mappable: mapping.mappable.clone(),
                    file: mapping.file.clone(),
                    name: mapping.name.clone(),
                    offset,
                    max_prot: vma.max_prot,
                }),
                limits: *limits,
                ..MapRequest::default()
            }
        };
        self.map(by, &request).map(drop)
    }

    #[allow(clippy::too_many_arguments, reason = "the arguments of the call, and its outcome")]
    fn remap_locked(
        &self,
        mut by: By<'_>,
        state: &mut State,
        req: &RemapRequest,
        old_len: u64,
        new_len: u64,
        limits: &Limits,
        after: &mut After,
    ) -> Result<u64> {
        let old = req.old;
        let (start, end, vma) = state.vmas.get(old).ok_or(Errno::EFAULT)?;
        let vma = vma.clone();
        if old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        let in_place = req.fixed.is_none() && !req.dont_unmap;
        state.may_modify(old, old.saturating_add(old_len.max(1)))?;
        if let Some(new) = req.fixed {
            state.may_modify(new, new + new_len)?;
        }
        // Shrinking takes any range, also one with holes.
        if in_place && old_len >= new_len {
            if old_len > new_len {
                let to = old.checked_add(old_len).filter(|&to| to <= USER_MAX).ok_or(Errno::EINVAL)?;
                after.dropped = self.unmap_locked(by, state, old + new_len, to)?;
            }
            return Ok(old);
        }
        if req.dont_unmap && vma.flags.contains(VmaFlags::DONT_EXPAND) {
            return Err(Errno::EINVAL);
        }
        if old_len.min(new_len) > end - old {
            return match req.fixed {
                Some(new) if old_len == new_len => self.remap_several(by, state, req, new, limits, after),
                _ => Err(Errno::EFAULT),
            };
        }
        let grows_by = new_len.saturating_sub(old_len);
        if grows_by > 0 {
            if let Some((_, offset)) = vma.object(old - start)
                && offset.checked_add(new_len).is_none_or(|end| end > i64::MAX as u64)
            {
                return Err(Errno::EINVAL);
            }
            if vma.flags.contains(VmaFlags::DONT_EXPAND) {
                return Err(Errno::EFAULT);
            }
            if vma.flags.contains(VmaFlags::LOCKED) {
                state.may_lock(grows_by, limits)?;
            }
            state.may_expand(&vma, grows_by, limits)?;
            if grows_by > limits.memory && vma.is_data() && !vma.flags.contains(VmaFlags::NO_RESERVE) {
                return Err(Errno::ENOMEM);
            }
        }
        if let Some(new) = req.fixed {
            check_fixed(new, new_len)?;
            // The target is gone even if something fails later on; so it is in Linux.
            let target = self.unmap_locked(again(&mut by), state, new, new + new_len)?;
            after.dropped.extend(target);
            state.vmas.get(old).ok_or(Errno::EFAULT)?;
            if old_len > new_len {
                let to = old.checked_add(old_len).filter(|&to| to <= USER_MAX).ok_or(Errno::EINVAL)?;
                let pieces = self.unmap_locked(again(&mut by), state, old + new_len, to)?;
                after.dropped.extend(pieces);
            }
        }
        let old_len = old_len.min(new_len);
        if req.dont_unmap {
            state.may_expand(&vma, new_len, limits)?;
        }

        let piece = vma.advanced(old - start);
        let tail = piece.advanced(old_len);
        if in_place
            && old_len == end - old
            && old_len > 0
            && old.checked_add(new_len).is_some_and(|end| end <= USER_MAX)
            && state.vmas.overlapping(old + old_len, old + new_len).next().is_none()
        {
            self.extend(by, state, old + old_len, grows_by, tail, after)?;
            return Ok(old);
        }
        if !req.may_move {
            return Err(Errno::ENOMEM);
        }
        if state.vmas.len() + 3 >= MAP_COUNT_MAX {
            return Err(Errno::ENOMEM);
        }
        let new = match req.fixed {
            Some(new) => new,
            None => state.find_gap(new_len, PAGE_SIZE, false).ok_or(Errno::ENOMEM)?,
        };
        // The new part first: it can fail, and then nothing has moved.
        if grows_by > 0 {
            self.extend(again(&mut by), state, new + old_len, grows_by, tail, after)?;
        }
        if old_len > 0 {
            if let Err(errno) = self.move_pages(again(&mut by), old, old_len, new, req.dont_unmap) {
                let extended = self.unmap_locked(by, state, new + old_len, new + new_len)?;
                after.dropped.extend(extended);
                *after = After { dropped: std::mem::take(&mut after.dropped), ..After::default() };
                return Err(errno);
            }
            if req.dont_unmap {
                // What stays is empty, and unlocked.
                state.update(old, old + old_len, |v| v.flags -= VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
            } else {
                let moved = state.remove(old, old + old_len);
                after.dropped.extend(moved);
            }
            after.dropped.extend(state.insert(new, new + old_len, piece));
        }
        Ok(new)
    }

    /// Moves several mappings, with the holes between them, as Linux does since 6.17.
    fn remap_several(
        &self,
        mut by: By<'_>,
        state: &mut State,
        req: &RemapRequest,
        new: u64,
        limits: &Limits,
        after: &mut After,
    ) -> Result<u64> {
        let old_end = req.old.checked_add(page_up(req.old_len).ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
        let pieces: Vec<(u64, u64)> = state
            .vmas
            .overlapping(req.old, old_end)
            .map(|(s, e, _)| (s.max(req.old), e.min(old_end)))
            .collect();
        for (start, end) in pieces {
            let len = end - start;
            let piece = RemapRequest { old: start, fixed: Some(new + (start - req.old)), ..*req };
            let mut part = After::default();
            let moved = self.remap_locked(again(&mut by), state, &piece, len, len, limits, &mut part);
            after.dropped.append(&mut part.dropped);
            moved?;
        }
        Ok(new)
    }

    /// Maps the new part of a mapping that grows.
    fn extend(
        &self,
        by: By<'_>,
        state: &mut State,
        addr: u64,
        len: u64,
        vma: Vma,
        after: &mut After,
    ) -> Result<()> {
        if vma.flags.contains(VmaFlags::LOCKED) && !vma.flags.contains(VmaFlags::LOCK_ON_FAULT) {
            after.populate = Some((addr, len, vma.clone()));
        }
        let (copy, replaced) = self.place(by, state, addr, len, vma.clone())?;
        after.dropped.extend(replaced);
        if copy.is_some() {
            after.fill = Some((addr, len, vma));
        }
        Ok(())
    }

    /// Moves pages on the host. There, one mapping of ours can be several, because neighbours that were written to
    /// apart are not merged; then it goes by halves.
    fn move_pages(&self, mut by: By<'_>, old: u64, len: u64, new: u64, keep: bool) -> Result<()> {
        let change = Change::Move { old, old_len: len, new, new_len: len, keep };
        match self.apply(again(&mut by), &[change]) {
            Err(Errno::EFAULT) if len > PAGE_SIZE => {
                let half = (len / 2) & !(PAGE_SIZE - 1);
                self.move_pages(again(&mut by), old, half, new, keep)?;
                let second = self.move_pages(again(&mut by), old + half, len - half, new + half, keep);
                if second.is_err() {
                    // Back, so that the whole has not happened.
                    let back = Change::Move { old: new, old_len: half, new: old, new_len: half, keep: false };
                    self.apply(by, &[back])?;
                }
                second
            }
            other => other,
        }
    }
}
