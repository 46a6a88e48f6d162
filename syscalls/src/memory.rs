//! Memory mappings (mm/mmap.c and its neighbours).

use std::sync::Arc;

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_NICE};
use abi::fcntl::OpenFlags;
use abi::mman as m;
use abi::stat::FileType;
use abi::uio::Iovec;
use abi::{Errno, Result};
use platform::Prot;
use sentry::mm::{Fixed, MapFile, MapRequest, RemapRequest};
use sentry::task::CurrentTask;
use sentry::vfs::{File, MountFlags};

use crate::arguments::{Address, UserPtr};
use crate::io::read_iovecs;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    MMAP => mmap;
    MUNMAP => munmap;
    MPROTECT => mprotect;
    MREMAP => mremap;
    BRK => brk;
    MADVISE => madvise;
    MLOCK => mlock, Partial, "counted and made present; the host may still swap it out";
    MLOCK2 => mlock2, Partial, "counted and made present; the host may still swap it out";
    MUNLOCK => munlock;
    MLOCKALL => mlockall, Partial, "counted and made present; the host may still swap it out";
    MUNLOCKALL => munlockall;
    MSYNC => msync;
    MINCORE => mincore;
    MSEAL => mseal;
    REMAP_FILE_PAGES => remap_file_pages;
    PROCESS_MADVISE => process_madvise;
    PKEY_MPROTECT => pkey_mprotect, Partial, "as on a processor without protection keys";
    PKEY_ALLOC => pkey_alloc, Partial, "as on a processor without protection keys";
    PKEY_FREE => pkey_free, Partial, "as on a processor without protection keys";
};

/// PROT_SEM has no effect, and the grow flags are for mprotect(2).
const PROT_KNOWN: u32 = m::Prot::PROT_READ.bits() | m::Prot::PROT_WRITE.bits() | m::Prot::PROT_EXEC.bits();

fn mmap(task: &CurrentTask, addr: u64, len: u64, prot: u32, flags: u32, fd: i32, offset: u64) -> Result<u64> {
    let prot = Prot::from_bits_truncate(prot & PROT_KNOWN);
    let kind = flags & m::MAP_TYPE;
    let flags = m::MapFlags::from_bits_retain(flags);
    if offset & (platform::PAGE_SIZE - 1) != 0 {
        return Err(Errno::EINVAL);
    }
    let anonymous = flags.contains(m::MapFlags::MAP_ANONYMOUS);
    let file = if anonymous { None } else { Some(task.file(fd)?) };
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(m::MapFlags::MAP_HUGETLB) && anonymous {
        // No huge pages are reserved in a sandbox.
        return Err(Errno::ENOMEM);
    }
    if file.as_ref().is_some_and(|file| file.flags().contains(OpenFlags::O_PATH)) {
        return Err(Errno::EBADF);
    }
    let shared = matches!(kind, m::MAP_SHARED | m::MAP_SHARED_VALIDATE);
    // Linux looks at the address before it looks at these.
    let file = match (kind, file) {
        (m::MAP_PRIVATE | m::MAP_SHARED, None) => Ok(None),
        (m::MAP_SHARED_VALIDATE, Some(_)) if has_unknown_flags(flags) => Err(Errno::EOPNOTSUPP),
        (m::MAP_PRIVATE | m::MAP_SHARED | m::MAP_SHARED_VALIDATE, Some(file)) => {
            mapped_file(file, shared, prot, offset)
        }
        _ => Err(Errno::EINVAL),
    };
    let (file, late_error) = match file {
        Ok(file) => (file, None),
        Err(errno) => (None, Some(errno)),
    };
    let fixed = if flags.contains(m::MapFlags::MAP_FIXED_NOREPLACE) {
        Fixed::NoReplace
    } else if flags.contains(m::MapFlags::MAP_FIXED) {
        Fixed::Replace
    } else {
        Fixed::No
    };
    let has = |flag| flags.contains(flag);
    let request = MapRequest {
        addr,
        len,
        prot,
        shared,
        fixed,
        low: has(m::MapFlags::MAP_32BIT),
        grows_down: has(m::MapFlags::MAP_GROWSDOWN),
        noreserve: has(m::MapFlags::MAP_NORESERVE),
        populate: has(m::MapFlags::MAP_POPULATE) && !has(m::MapFlags::MAP_NONBLOCK),
        locked: has(m::MapFlags::MAP_LOCKED),
        special: false,
        late_error,
        file,
        limits: task.memory_limits(),
    };
    let mm = task.mm();
    task.with_thread(|thread| mm.map(thread, &request))
}

/// For MAP_SHARED_VALIDATE.
fn has_unknown_flags(flags: m::MapFlags) -> bool {
    flags.bits() & !m::LEGACY_MAP_MASK & !m::MAP_TYPE & !m::MapFlags::MAP_FIXED_NOREPLACE.bits() != 0
}

/// A file that is to be mapped, and what may ever be done with the mapping.
fn mapped_file(file: Arc<File>, shared: bool, prot: Prot, offset: u64) -> Result<Option<MapFile>> {
    let opened = file.flags();
    if shared && prot.contains(Prot::WRITE) && !opened.writable() || !opened.readable() {
        return Err(Errno::EACCES);
    }
    let noexec = file.path().mount().flags().contains(MountFlags::NOEXEC);
    if noexec && prot.contains(Prot::EXEC) {
        return Err(Errno::EPERM);
    }
    if file.path().inode().file_type() == FileType::Directory {
        return Err(Errno::ENODEV);
    }
    let mut max_prot = Prot::READ | Prot::WRITE | Prot::EXEC;
    let sealed = shared && sentry::fs::memfd::forbids_writable_mapping(&file);
    if sealed && opened.writable() && prot.contains(Prot::WRITE) {
        return Err(Errno::EPERM);
    }
    if shared && (sealed || !opened.writable()) {
        max_prot -= Prot::WRITE;
    }
    if noexec {
        max_prot -= Prot::EXEC;
    }
    if file.operations().maps_anonymous() {
        // Shared, it is memory of its own, to be used as far as the descriptor may.
        return if shared { mapped_zeroes(max_prot).map(Some) } else { Ok(None) };
    }
    let mappable = file.operations().mappable()?;
    Ok(Some(MapFile { mappable, file: Some(file), name: None, offset, max_prot }))
}

/// Shared memory that is mapped by way of `/dev/zero` (shmem_zero_setup()).
fn mapped_zeroes(max_prot: Prot) -> Result<MapFile> {
    let mappable = sentry::mm::AnonymousShared::zero_device()?;
    Ok(MapFile { mappable, file: None, name: Some("/dev/zero (deleted)".into()), offset: 0, max_prot })
}

fn munmap(task: &CurrentTask, addr: u64, len: u64) -> Result<()> {
    let mm = task.mm();
    task.with_thread(|thread| mm.unmap(thread, addr, len))
}

fn mprotect(task: &CurrentTask, addr: u64, len: u64, prot: u32) -> Result<()> {
    let both = m::Prot::PROT_GROWSDOWN.bits() | m::Prot::PROT_GROWSUP.bits();
    let grows = prot & both;
    if grows == both || addr & (platform::PAGE_SIZE - 1) != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(());
    }
    let end = len.checked_next_multiple_of(platform::PAGE_SIZE).and_then(|len| addr.checked_add(len));
    end.ok_or(Errno::ENOMEM)?;
    // No stack grows upwards here.
    if prot & !(PROT_KNOWN | m::Prot::PROT_SEM.bits() | both) != 0 || grows == m::Prot::PROT_GROWSUP.bits() {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    let (prot, limits) = (Prot::from_bits_truncate(prot & PROT_KNOWN), task.memory_limits());
    task.with_thread(|thread| mm.protect(thread, addr, len, prot, grows != 0, &limits))
}

/// As on a processor without protection keys: only the key -1, which is none, can be given.
fn pkey_mprotect(task: &CurrentTask, addr: u64, len: u64, prot: u32, key: i32) -> Result<()> {
    if key == -1 { mprotect(task, addr, len, prot) } else { Err(Errno::EINVAL) }
}

fn pkey_alloc(_task: &CurrentTask, flags: u64, rights: u64) -> Result<u64> {
    /// PKEY_DISABLE_ACCESS and PKEY_DISABLE_WRITE.
    const RIGHTS: u64 = 3;
    Err(if flags != 0 || rights & !RIGHTS != 0 { Errno::EINVAL } else { Errno::ENOSPC })
}

fn pkey_free(_task: &CurrentTask, _key: i32) -> Result<()> {
    Err(Errno::EINVAL)
}

fn mremap(task: &CurrentTask, old: u64, old_len: u64, new_len: u64, flags: u32, new: u64) -> Result<u64> {
    if flags
        & !(m::MremapFlags::MREMAP_MAYMOVE.bits()
            | m::MremapFlags::MREMAP_FIXED.bits()
            | m::MremapFlags::MREMAP_DONTUNMAP.bits())
        != 0
    {
        return Err(Errno::EINVAL);
    }
    let request = RemapRequest {
        old,
        old_len,
        new_len,
        may_move: flags & m::MremapFlags::MREMAP_MAYMOVE.bits() != 0,
        fixed: (flags & m::MremapFlags::MREMAP_FIXED.bits() != 0).then_some(new),
        dont_unmap: flags & m::MremapFlags::MREMAP_DONTUNMAP.bits() != 0,
    };
    let (mm, limits) = (task.mm(), task.memory_limits());
    task.with_thread(|thread| mm.remap(thread, &request, &limits))
}

fn brk(task: &CurrentTask, addr: u64) -> Result<u64> {
    let (mm, limits) = (task.mm(), task.memory_limits());
    Ok(task.with_thread(|thread| mm.set_brk(thread, addr, &limits)))
}

fn madvise(task: &CurrentTask, addr: u64, len: u64, advice: u32) -> Result<()> {
    let can_admin = task.credentials().capable_in(&task.kernel().user_ns, CAP_SYS_ADMIN);
    let mm = task.mm();
    task.with_thread(|thread| mm.advise(thread, addr, len, advice, can_admin))
}

fn mlock(task: &CurrentTask, addr: u64, len: u64) -> Result<()> {
    mlock2(task, addr, len, 0)
}

fn mlock2(task: &CurrentTask, addr: u64, len: u64, flags: u32) -> Result<()> {
    if flags & !m::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    let (mm, limits) = (task.mm(), task.memory_limits());
    task.with_thread(|thread| mm.lock(thread, addr, len, flags != 0, &limits))
}

fn munlock(task: &CurrentTask, addr: u64, len: u64) -> Result<()> {
    task.mm().unlock(addr, len)
}

fn mlockall(task: &CurrentTask, flags: u32) -> Result<()> {
    let flags = m::MlockallFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let (mm, limits) = (task.mm(), task.memory_limits());
    task.with_thread(|thread| mm.lock_all(thread, flags, &limits))
}

fn munlockall(task: &CurrentTask) -> Result<()> {
    task.mm().unlock_all();
    Ok(())
}

fn msync(task: &CurrentTask, addr: u64, len: u64, flags: u32) -> Result<()> {
    task.mm().sync(addr, len, flags)
}

fn mincore(task: &CurrentTask, addr: u64, len: u64, vec: Address) -> Result<()> {
    const CHUNK: u64 = 4096;
    if addr & (platform::PAGE_SIZE - 1) != 0 {
        return Err(Errno::EINVAL);
    }
    if len > platform::USER_MAX || addr > platform::USER_MAX - len {
        return Err(Errno::ENOMEM);
    }
    let pages = len.div_ceil(platform::PAGE_SIZE);
    let mm = task.mm();
    let mut done = 0;
    while done < pages {
        let mut part = vec![0u8; (pages - done).min(CHUNK) as usize];
        mm.resident(addr + done * platform::PAGE_SIZE, &mut part)?;
        mm.write_bytes(vec.0 + done, &part)?;
        done += part.len() as u64;
    }
    Ok(())
}

fn mseal(task: &CurrentTask, addr: u64, len: u64, flags: u64) -> Result<()> {
    if flags == 0 { task.mm().seal(addr, len) } else { Err(Errno::EINVAL) }
}

fn remap_file_pages(
    task: &CurrentTask,
    addr: u64,
    len: u64,
    prot: u64,
    page: u64,
    _flags: u64,
) -> Result<()> {
    if prot != 0 {
        return Err(Errno::EINVAL);
    }
    let mask = !(platform::PAGE_SIZE - 1);
    let offset = page.checked_mul(platform::PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let (mm, limits) = (task.mm(), task.memory_limits());
    task.with_thread(|thread| mm.remap_file_pages(thread, addr & mask, len & mask, offset, &limits))
}

fn process_madvise(
    task: &CurrentTask,
    pidfd: i32,
    iov: UserPtr<Iovec>,
    count: usize,
    advice: u32,
    flags: u32,
) -> Result<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let ranges = read_iovecs(task, iov, count)?;
    let file = task.file(pidfd)?;
    let pidfd = file.ops::<sentry::fs::pidfd::PidFd>().ok_or(Errno::EBADF)?;
    let target = pidfd.pid.group().and_then(|g| g.any_task()).ok_or(Errno::ESRCH)?;
    let own = Arc::ptr_eq(&target.group, &task.group);
    let for_others = [m::MADV_COLD, m::MADV_PAGEOUT, m::MADV_WILLNEED];
    if !own && !for_others.contains(&advice) {
        return Err(Errno::EINVAL);
    }
    crate::credentials::may_inspect(task, &target)?;
    if !own && !task.capable(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mm = target.memory().ok_or(Errno::ESRCH)?;
    let can_admin = task.capable(CAP_SYS_ADMIN);
    let mut done = 0;
    for (addr, len) in ranges {
        let advise = |thread: sentry::mm::By<'_>| mm.advise(thread, addr, len, advice, can_admin);
        let result = if own { task.with_thread(advise) } else { advise(None) };
        match result {
            Ok(()) => done += len,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
