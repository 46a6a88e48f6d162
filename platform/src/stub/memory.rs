//! Guest memory of a stub process: changing the mappings, reading and writing.

use super::filter::ADVICE;
use super::process::{Op, StubProcess, check};
use super::tracee::Tracee;
use super::{MAX_FDS, MAX_OPS, SCRATCH_OFFSET, SCRATCH_SIZE, STUB_DATA};
use crate::{Change, Errno, PAGE_SIZE, Prot, Result, USER_MAX, USER_MIN};
use std::os::fd::BorrowedFd;

/// Checks that a range is page-aligned, not empty, and the guest's: EINVAL otherwise.
pub fn check_range(addr: u64, len: u64) -> Result<()> {
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    let aligned = addr.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE);
    if len == 0 || !aligned || addr < USER_MIN || end > USER_MAX {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn check_prot(prot: Prot) -> Result<u64> {
    if Prot::all().contains(prot) { Ok(u64::from(prot.bits())) } else { Err(Errno::EINVAL) }
}

/// The operation that carries out a change. Its file, if any, is descriptor 0 of the command until renumbered.
fn operation<'a>(change: &Change<'a>) -> Result<(Op, Option<BorrowedFd<'a>>)> {
    let op = |number: i64, args: [u64; 6]| Ok((Op::call(number, args), None));
    match *change {
        Change::MapAnonymous { addr, len, prot } => {
            check_range(addr, len)?;
            // What may be committed is the sentry's to count, not the host's.
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            op(libc::SYS_mmap, [addr, len, check_prot(prot)?, flags as u64, u64::MAX, 0])
        }
        Change::MapFile { addr, len, prot, shared, file, offset } => {
            check_range(addr, len)?;
            if !offset.is_multiple_of(PAGE_SIZE) || offset.checked_add(len).is_none() {
                return Err(Errno::EINVAL);
            }
            let sharing = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_NORESERVE };
            let flags = sharing | libc::MAP_FIXED;
            let args = [addr, len, check_prot(prot)?, flags as u64, 0, offset];
            Ok((Op::call(libc::SYS_mmap, args).with_fd(4), Some(file)))
        }
        Change::Unmap { addr, len } => {
            check_range(addr, len)?;
            op(libc::SYS_munmap, [addr, len, 0, 0, 0, 0])
        }
        Change::Protect { addr, len, prot } => {
            check_range(addr, len)?;
            op(libc::SYS_mprotect, [addr, len, check_prot(prot)?, 0, 0, 0])
        }
        Change::Move { old, old_len, new, new_len, keep } => {
            if old_len == 0 {
                check_range(old, PAGE_SIZE)?;
            } else {
                check_range(old, old_len)?;
            }
            check_range(new, new_len)?;
            let flags = if old == new {
                if keep || old_len == 0 {
                    return Err(Errno::EINVAL);
                }
                0
            } else {
                let keep = if keep { libc::MREMAP_DONTUNMAP } else { 0 };
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | keep
            };
            op(libc::SYS_mremap, [old, old_len, new_len, flags as u64, new, 0])
        }
        Change::Advise { addr, len, advice } => {
            check_range(addr, len)?;
            if !ADVICE.contains(&advice) {
                return Err(Errno::EINVAL);
            }
            op(libc::SYS_madvise, [addr, len, advice as u64, 0, 0, 0])
        }
    }
}

/// The system call that carries out a change, for a stub thread to make itself; `None` if it needs a descriptor. EINVAL.
pub fn call_of_change(change: &Change<'_>) -> Result<Option<(u64, [u64; 6])>> {
    let (op, file) = operation(change)?;
    Ok(file.is_none().then(|| op.parts()))
}

impl StubProcess {
    /// [`crate::AddressSpace::apply`].
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<()> {
        self.state().alive()?;
        let mut ops: Vec<Op> = Vec::with_capacity(changes.len().min(MAX_OPS));
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        for change in changes {
            let (op, file) = match operation(change) {
                Ok(x) => x,
                Err(e) => {
                    self.flush(&mut ops, &mut fds)?;
                    return Err(e);
                }
            };
            if ops.len() == MAX_OPS || fds.len() == MAX_FDS {
                self.flush(&mut ops, &mut fds)?;
            }
            ops.push(match file {
                Some(file) => {
                    fds.push(file);
                    op.set_arg(4, fds.len() as u64 - 1)
                }
                None => op,
            });
        }
        self.flush(&mut ops, &mut fds)
    }

    fn flush(&self, ops: &mut Vec<Op>, fds: &mut Vec<BorrowedFd<'_>>) -> Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        let results = self.execute(ops, fds)?;
        for result in &results {
            check(*result)?;
        }
        if results.len() != ops.len() {
            self.state().misbehaved("operations left undone");
            return Err(Errno::ESRCH);
        }
        ops.clear();
        fds.clear();
        Ok(())
    }

    /// [`crate::AddressSpace::read_batch`]. Addresses at or above [`USER_MAX`] fault.
    pub fn read_batch(&self, segments: &mut [(u64, &mut [u8])]) -> Result<usize> {
        let list = segments.iter_mut().map(|(addr, buf)| (*addr, buf.as_mut_ptr(), buf.len()));
        // SAFETY: each pointer and length come from a slice that is borrowed mutably until we return.
        unsafe { self.transfer(list, false, USER_MAX) }
    }

    /// [`crate::AddressSpace::write_batch`]. Addresses at or above [`USER_MAX`] fault.
    pub fn write_batch(&self, segments: &[(u64, &[u8])]) -> Result<usize> {
        let list = segments.iter().map(|(addr, buf)| (*addr, buf.as_ptr().cast_mut(), buf.len()));
        // SAFETY: each pointer and length come from a slice that is borrowed until we return; writing to the
        // guest only reads them.
        unsafe { self.transfer(list, true, USER_MAX) }
    }

    /// Reads the stub region, or guest memory. What it holds is as hostile as the guest.
    pub fn read_stub(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        let list = std::iter::once((addr, buf.as_mut_ptr(), len));
        // SAFETY: the pointer and length are those of `buf`.
        let n = unsafe { self.transfer(list, false, u64::MAX) }?;
        if n == len { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Writes the stub region, or guest memory.
    pub fn write_stub(&self, addr: u64, buf: &[u8]) -> Result<()> {
        let list = std::iter::once((addr, buf.as_ptr().cast_mut(), buf.len()));
        // SAFETY: the pointer and length are those of `buf`, which is only read.
        let n = unsafe { self.transfer(list, true, u64::MAX) }?;
        if n == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// process_vm_readv or process_vm_writev over segments (remote address, local pointer, bytes). The kernel transfers
    /// page by page and returns the bytes before the page that faulted, also inside a segment; a short count is
    /// followed by another try, since a signal or MAX_RW_COUNT may be its cause.
    ///
    /// # Safety
    /// The local memory must be valid for the transfer.
    unsafe fn transfer(
        &self,
        segments: impl Iterator<Item = (u64, *mut u8, usize)>,
        write: bool,
        limit: u64,
    ) -> Result<usize> {
        const BATCH: usize = 64;
        self.state().alive()?;
        let null = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let (mut local, mut remote) = ([null; BATCH], [null; BATCH]);
        let (mut count, mut wanted, mut total) = (0usize, 0usize, 0usize);
        let mut segments = segments.peekable();
        loop {
            // Fill a batch; a segment that begins or ends outside the guest's range is cut and ends everything.
            let mut cut = false;
            while count < BATCH && !cut {
                let Some((addr, pointer, len)) = segments.next() else { break };
                let room = limit.saturating_sub(addr);
                cut = (len as u64) > room;
                let len = len.min(usize::try_from(room).unwrap_or(usize::MAX));
                if len == 0 {
                    continue;
                }
                if let (Some(l), Some(r)) = (local.get_mut(count), remote.get_mut(count)) {
                    *l = libc::iovec { iov_base: pointer.cast(), iov_len: len };
                    *r = libc::iovec { iov_base: addr as *mut _, iov_len: len };
                }
                count += 1;
                wanted += len;
            }
            let mut first = 0;
            while wanted > 0 {
                let (l, r) = (local.get(first..count), remote.get(first..count));
                let (Some(l), Some(r)) = (l, r) else { return Err(Errno::EINVAL) };
                // SAFETY: the local vectors are valid by the caller's promise; remote addresses are the kernel's
                // to check.
                let n = unsafe {
                    let n = l.len() as u64;
                    if write {
                        libc::process_vm_writev(self.pid(), l.as_ptr(), n, r.as_ptr(), n, 0)
                    } else {
                        libc::process_vm_readv(self.pid(), l.as_ptr(), n, r.as_ptr(), n, 0)
                    }
                };
                if n <= 0 {
                    return self.transfer_failed(total);
                }
                let mut n = n as usize;
                total += n;
                wanted = wanted.saturating_sub(n);
                while n > 0 {
                    let (Some(l), Some(r)) = (local.get_mut(first), remote.get_mut(first)) else { break };
                    let step = n.min(l.iov_len);
                    l.iov_base = l.iov_base.wrapping_byte_add(step);
                    r.iov_base = r.iov_base.wrapping_byte_add(step);
                    l.iov_len -= step;
                    r.iov_len -= step;
                    n -= step;
                    if l.iov_len == 0 {
                        first += 1;
                    }
                }
            }
            if cut || segments.peek().is_none() {
                return Ok(total);
            }
            count = 0;
        }
    }

    fn transfer_failed(&self, total: usize) -> Result<usize> {
        match nix::errno::Errno::last() {
            nix::errno::Errno::ESRCH => {
                // The process, or just its service thread, is gone.
                self.state().kill(crate::Death::Host);
                Err(Errno::ESRCH)
            }
            nix::errno::Errno::EFAULT => Ok(total),
            _ if total > 0 => Ok(total),
            e => Err(e.into()),
        }
    }

    /// [`crate::AddressSpace::poke`]: the service thread is seized for a moment and written through with
    /// PTRACE_POKEDATA, which needs no /proc, changes no protection, and copies on write. Returns the bytes
    /// written before the first word that could not be.
    pub fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        self.state().alive()?;
        let room = usize::try_from(USER_MAX.saturating_sub(addr)).unwrap_or(usize::MAX);
        let Some(buf) = buf.get(..buf.len().min(room)) else { return Ok(0) };
        if buf.is_empty() {
            return Ok(0);
        }
        // Nobody else may seize it, nor wait for an answer from it, meanwhile.
        let _channel = self.lock_channel();
        let tracee = Tracee::seize(self.pid(), self.state())?;
        let mut done = 0;
        while done < buf.len() {
            let at = addr.wrapping_add(done as u64);
            let base = at & !7;
            let skip = (at - base) as usize;
            let mut word = match tracee.peek(base) {
                Ok(word) => word.to_le_bytes(),
                Err(_) => break,
            };
            let n = (8 - skip).min(buf.len() - done);
            for (to, from) in word.iter_mut().skip(skip).zip(buf.iter().skip(done)) {
                *to = *from;
            }
            if tracee.poke(base, u64::from_le_bytes(word)).is_err() {
                break;
            }
            done += n;
        }
        Ok(done)
    }

    /// [`crate::AddressSpace::compare_exchange`], carried out by the service thread.
    pub fn compare_exchange(&self, addr: u64, expected: u32, new: u32) -> Result<u32> {
        self.state().alive()?;
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if addr >= USER_MAX {
            return Err(Errno::EFAULT);
        }
        self.call(Op::compare_exchange(addr, expected, new), &[]).map(|found| found as u32)
    }

    /// [`crate::AddressSpace::resident`].
    pub fn resident(&self, addr: u64, pages: &mut [u8]) -> Result<()> {
        self.state().alive()?;
        check_range(addr, (pages.len() as u64).checked_mul(PAGE_SIZE).ok_or(Errno::EINVAL)?)?;
        let scratch = STUB_DATA + SCRATCH_OFFSET;
        let mut at = addr;
        for part in pages.chunks_mut(SCRATCH_SIZE) {
            let len = part.len() as u64 * PAGE_SIZE;
            self.call(Op::call(libc::SYS_mincore, [at, len, scratch, 0, 0, 0]), &[])?;
            self.read_stub(scratch, part)?;
            at += len;
        }
        Ok(())
    }
}
