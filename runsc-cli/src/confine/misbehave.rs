//! For tests only: what a sentry that was taken over might try.

use std::ffi::CString;

use anyhow::{Error, anyhow};
use nix::errno::Errno;

/// Tries one thing and says how it went. Where a filter is in place, most end the process instead.
pub fn attempt(what: &str) -> Error {
    match try_it(what) {
        Ok(()) => anyhow!("attempt {what:?} succeeded"),
        Err(errno) => anyhow!("attempt {what:?} failed: {errno:?}"),
    }
}

fn try_it(what: &str) -> Result<(), Errno> {
    let (verb, argument) = what.split_once(':').unwrap_or((what, ""));
    let path = CString::new(argument).unwrap_or_default();
    if verb == "panic" {
        let _ = std::thread::spawn(|| panic!("told to")).join();
        return Ok(());
    }
    let pid: i32 = argument.parse().unwrap_or(0);
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: these calls get valid strings, integers or null pointers, and change no memory of this process.
    let rc = unsafe {
        match verb {
            "open" => libc::open(path.as_ptr(), libc::O_RDONLY),
            "open-in-memory" => {
                libc::openat(crate::confine::policy::MEMORY_DIRECTORY, path.as_ptr(), libc::O_RDONLY)
            }
            "socket" => {
                let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
                let address = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: 53u16.to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
                    sin_zero: [0; 8],
                };
                libc::connect(fd, (&raw const address).cast(), size_of_val(&address) as u32)
            }
            "kill" => libc::kill(pid, 0),
            "ptrace" => libc::ptrace(libc::PTRACE_SEIZE, pid, null, null) as i32,
            "execve" => libc::execve(path.as_ptr(), [null].as_ptr(), [null].as_ptr()),
            "mount" => libc::mount(c"none".as_ptr(), c"/".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()),
            "unshare" => libc::unshare(libc::CLONE_NEWUSER),
            "fork" => libc::fork(),
            // Not by the C library, which has every thread do it.
            "setuid" => libc::syscall(libc::SYS_setuid, 0) as i32,
            "exec-memory" => {
                let memory = libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                if memory == libc::MAP_FAILED { -1 } else { 0 }
            }
            "process-vm" => {
                let mut byte = 0u8;
                let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
                let remote = libc::iovec { iov_base: 0x1_0000 as *mut libc::c_void, iov_len: 1 };
                libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) as i32
            }
            _ => return Err(Errno::ENOSYS),
        }
    };
    Errno::result(rc).map(drop)
}
