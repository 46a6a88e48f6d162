//! Reading and writing guest memory.
//!
//! Whatever goes wrong is EFAULT: a bad address, a page that is protected, an address space that is dead. A stack
//! grows for the sentry's accesses as for the guest's own.

use abi::mman::PAGE_SIZE;
use platform::USER_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::fault::Growth;
use super::{By, MemoryManager, Prot};
use crate::{Errno, Result};

/// Zeroes to write, a chunk at a time.
static ZEROES: [u8; 4 * PAGE_SIZE as usize] = [0; 4 * PAGE_SIZE as usize];

impl MemoryManager {
    /// EFAULT if `addr..addr + len` is not in user space (access_ok).
    pub fn check_range(addr: u64, len: u64) -> Result<()> {
        if len > USER_MAX || addr > USER_MAX - len { Err(Errno::EFAULT) } else { Ok(()) }
    }

    /// Carries out `op`, which transfers bytes from an offset on and returns how many, as far as memory allows.
    fn transfer(&self, addr: u64, len: usize, mut op: impl FnMut(u64, usize) -> Result<usize>) -> usize {
        let len = len.min(usize::try_from(USER_MAX.saturating_sub(addr)).unwrap_or(usize::MAX));
        let mut done = 0;
        let mut retried = usize::MAX;
        while done < len {
            let at = addr + done as u64;
            done = done.saturating_add(op(at, done).unwrap_or(0)).min(len);
            if done == len {
                break;
            }
            match self.grow_stack(addr + done as u64) {
                Growth::Grown => {}
                // Perhaps it was grown by another thread; but only once at each place.
                Growth::Mapped if retried != done => retried = done,
                _ => break,
            }
        }
        done
    }

    /// Reads as much as can be; EFAULT if that is nothing (and `buf` is not empty).
    pub fn read_upto(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len();
        let done =
            self.transfer(addr, len, |at, done| self.space.read(at, buf.get_mut(done..).unwrap_or_default()));
        if done == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Writes as much as can be; EFAULT if that is nothing (and `buf` is not empty).
    pub fn write_upto(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        let done = self
            .transfer(addr, buf.len(), |at, done| self.space.write(at, buf.get(done..).unwrap_or_default()));
        if done == 0 && !buf.is_empty() { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// As [`MemoryManager::write_upto`], for what the calling thread's present call gives to the guest: it may arrive only
    /// when the call ends, which is cheaper. Not for what others wait for.
    pub fn write_result_upto(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        if self.is_plain(addr, buf.len()) && self.space.write_later(addr, buf) {
            return Ok(buf.len());
        }
        self.write_upto(addr, buf)
    }

    /// As [`MemoryManager::write_bytes`], for results: [`MemoryManager::write_result_upto`].
    pub fn write_result(&self, addr: u64, buf: &[u8]) -> Result<()> {
        if self.write_result_upto(addr, buf)? == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Whether nothing but a change of mappings, or of the length of a file, can make a write of `addr..addr + len` fail.
    fn is_plain(&self, addr: u64, len: usize) -> bool {
        let Some(to) = addr.checked_add(len as u64).filter(|_| len > 0) else { return false };
        let state = self.state.read();
        let mut at = addr;
        while at < to {
            let Some((start, end, vma)) = state.vmas.get(at) else { return false };
            let last = to.min(end) - 1;
            let is_plain = !vma.is_shared()
                && vma.prot.contains(Prot::WRITE)
                && (vma.is_anonymous_on_host() || vma.is_within_file(last - start));
            if !is_plain {
                return false;
            }
            at = end;
        }
        true
    }

    /// Fills `buf` from guest memory.
    pub fn read_bytes(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len();
        if self.read_upto(addr, buf)? == len { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies `buf` to guest memory. On EFAULT a part may have been written.
    pub fn write_bytes(&self, addr: u64, buf: &[u8]) -> Result<()> {
        if self.write_upto(addr, buf)? == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Reads a structure.
    pub fn read_object<T: FromBytes + IntoBytes>(&self, addr: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read_bytes(addr, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure or a slice of structures.
    pub fn write_object<T: IntoBytes + Immutable + ?Sized>(&self, addr: u64, value: &T) -> Result<()> {
        self.write_bytes(addr, value.as_bytes())
    }

    /// Reads `count` structures; the caller has bounded the count. ENOMEM if they cannot be allocated.
    pub fn read_array<T: FromBytes + IntoBytes>(&self, addr: u64, count: usize) -> Result<Vec<T>> {
        let size = (count as u64).checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
        MemoryManager::check_range(addr, size)?;
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        values.resize_with(count, T::new_zeroed);
        self.read_bytes(addr, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    /// Reads a string up to its NUL, which is not part of the result. `too_long` if there is none in the first `max`
    /// bytes.
    pub fn read_cstring(&self, addr: u64, max: usize, too_long: Errno) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut page = [0; PAGE_SIZE as usize];
        let carried = self.space.read_carried(addr, &mut page);
        if let Some(text) = page.get(..carried.min(max))
            && let Some(end) = text.iter().position(|&b| b == 0)
        {
            return Ok(text.get(..end).unwrap_or_default().to_vec());
        }
        while text.len() < max {
            let at = addr.checked_add(text.len() as u64).ok_or(Errno::EFAULT)?;
            // Not beyond the page: the next one may be missing, and the string end before it.
            let len = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(max - text.len());
            let part = page.get_mut(..len).unwrap_or_default();
            self.read_bytes(at, part)?;
            if let Some(end) = part.iter().position(|&b| b == 0) {
                text.extend(part.iter().take(end));
                return Ok(text);
            }
            text.extend_from_slice(part);
        }
        Err(too_long)
    }

    /// Reads several pieces with one call of the host. All or EFAULT.
    pub fn read_batch(&self, segments: &mut [(u64, &mut [u8])]) -> Result<()> {
        let total: usize = segments.iter().map(|(_, buf)| buf.len()).sum();
        if self.read_batch_upto(segments) == total { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Writes several pieces with one call of the host. All or EFAULT.
    pub fn write_batch(&self, segments: &[(u64, &[u8])]) -> Result<()> {
        let total: usize = segments.iter().map(|(_, buf)| buf.len()).sum();
        if self.write_batch_upto(segments) == total { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Reads several pieces, in order, up to the first byte that cannot be had. Returns the number of bytes.
    pub fn read_batch_upto(&self, segments: &mut [(u64, &mut [u8])]) -> usize {
        let total: usize = segments.iter().map(|(_, buf)| buf.len()).sum();
        let valid =
            segments.iter().all(|(addr, buf)| MemoryManager::check_range(*addr, buf.len() as u64).is_ok());
        let mut done = if valid { self.space.read_batch(segments).unwrap_or(0).min(total) } else { 0 };
        let mut skip = done;
        if done < total {
            // The rest piece by piece.
            for (addr, buf) in segments {
                let have = skip.min(buf.len());
                skip -= have;
                let rest = buf.get_mut(have..).unwrap_or_default();
                let wanted = rest.len();
                let got = self.read_upto(addr.saturating_add(have as u64), rest).unwrap_or(0);
                done += got;
                if got < wanted {
                    break;
                }
            }
        }
        done
    }

    /// Writes several pieces, in order, up to the first byte that cannot be written. Returns the number of bytes.
    pub fn write_batch_upto(&self, segments: &[(u64, &[u8])]) -> usize {
        let total: usize = segments.iter().map(|(_, buf)| buf.len()).sum();
        let valid =
            segments.iter().all(|(addr, buf)| MemoryManager::check_range(*addr, buf.len() as u64).is_ok());
        let mut done = if valid { self.space.write_batch(segments).unwrap_or(0).min(total) } else { 0 };
        let mut skip = done;
        if done < total {
            for (addr, buf) in segments {
                let have = skip.min(buf.len());
                skip -= have;
                let rest = buf.get(have..).unwrap_or_default();
                let put = self.write_upto(addr.saturating_add(have as u64), rest).unwrap_or(0);
                done += put;
                if put < rest.len() {
                    break;
                }
            }
        }
        done
    }

    /// Writes `len` zeroes (clear_user).
    pub fn zero(&self, addr: u64, len: u64) -> Result<()> {
        MemoryManager::check_range(addr, len)?;
        let mut done = 0;
        while done < len {
            let n = (len - done).min(ZEROES.len() as u64);
            self.write_bytes(addr + done, ZEROES.get(..n as usize).unwrap_or_default())?;
            done += n;
        }
        Ok(())
    }

    /// Writes regardless of page protection, as ptrace(2) does. Returns the bytes written; EFAULT for none.
    pub fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        MemoryManager::check_range(addr, buf.len() as u64)?;
        match self.space.poke(addr, buf) {
            Ok(0) | Err(_) if !buf.is_empty() => Err(Errno::EFAULT),
            other => other,
        }
    }

    /// Reads an aligned 32-bit word at once, as futex operations have to. EINVAL if it is not aligned.
    pub fn load_u32(&self, addr: u64) -> Result<u32> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        // The host copies less than 8 bytes byte by byte.
        let pair: [u32; 2] = self.read_object(addr & !7)?;
        Ok(if addr & 4 == 0 { pair[0] } else { pair[1] })
    }

    /// Atomically replaces an aligned 32-bit word by `new` if it is `expected`, and returns what it was. EINVAL if it
    /// is not aligned.
    pub fn compare_exchange(&self, by: By<'_>, addr: u64, expected: u32, new: u32) -> Result<u32> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        MemoryManager::check_range(addr, 4)?;
        self.space.compare_exchange(by, addr, expected, new).map_err(|_| Errno::EFAULT)
    }
}
