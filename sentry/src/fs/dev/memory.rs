//! `/dev/null`, zero, full, random and urandom (null(4), full(4), random(4)).

use std::any::Any;
use std::sync::Arc;

use abi::capability::CAP_SYS_ADMIN;
use abi::fcntl::OpenFlags;
use abi::stat::minor;
use abi::{Errno, Result};

use crate::mm::AnonymousShared;
use crate::task::{CurrentTask, Task};
use crate::vfs::special::Driver;
use crate::vfs::{File, FileOps, Io, Mappable, Path, Sink, Source};

/// The driver of major number 1.
pub struct MemoryDevices;

/// The major number.
pub const MAJOR: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Null,
    Zero,
    Full,
    Random,
}

impl Driver for MemoryDevices {
    fn open(&self, _io: &Io<'_>, _path: &Path, rdev: u64, _flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(match minor(rdev) {
            3 => Device::Null,
            5 => Device::Zero,
            7 => Device::Full,
            8 | 9 => Device::Random,
            _ => return Err(Errno::ENXIO),
        }))
    }
}

/// What fits into the pool of random(4).
const POOL_BITS: i32 = 256;

/// How much of random bytes is moved at once, in bytes.
const CHUNK: usize = 4096;

/// How much is moved between two looks at signals, in bytes.
const TURN: usize = 16 * CHUNK;

/// What is put at once: each time is a call of the host.
static ZEROES: [u8; TURN] = [0; TURN];

/// True if a signal ends a read or write of `done` bytes so far: looked at after each 64 KiB.
fn is_interrupted(io: &Io<'_>, done: usize) -> bool {
    done > 0 && done.is_multiple_of(TURN) && io.task.is_some_and(Task::has_signal)
}

impl FileOps for Device {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        if *self == Device::Null {
            return Ok(0);
        }
        let mut chunk = [0; CHUNK];
        let mut done = 0;
        while dst.remaining() > 0 && !is_interrupted(io, done) {
            let part = if *self == Device::Random {
                let part = &mut chunk[..dst.remaining().min(CHUNK)];
                platform::random::fill(part);
                part
            } else {
                &ZEROES[..dst.remaining().min(TURN)]
            };
            match dst.put(part) {
                Ok(n) if n == part.len() => done += n,
                Ok(n) => return Ok(done + n),
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, _offset: &mut u64) -> Result<usize> {
        match self {
            Device::Full => Err(Errno::ENOSPC),
            // Not even looked at: writing from a bad address is no error.
            Device::Null | Device::Zero => Ok(src.remaining()),
            Device::Random => {
                let mut chunk = [0; CHUNK];
                let mut done = 0;
                while src.remaining() > 0 && !is_interrupted(io, done) {
                    let part = &mut chunk[..src.remaining().min(CHUNK)];
                    match src.take(part) {
                        Ok(n) if n == part.len() => done += n,
                        Ok(n) => return Ok(done + n),
                        Err(e) if done == 0 => return Err(e),
                        Err(_) => break,
                    }
                }
                Ok(done)
            }
        }
    }

    /// random(4): the pool is full and stays so.
    fn ioctl(&self, task: &CurrentTask, _file: &Arc<File>, request: u32, arg: u64) -> Result<u64> {
        use abi::random as r;
        if *self != Device::Random {
            return Err(Errno::ENOTTY);
        }
        match request {
            r::RNDGETENTCNT => {
                task.mm().write_object(arg, &POOL_BITS)?;
                Ok(0)
            }
            r::RNDADDTOENTCNT | r::RNDADDENTROPY | r::RNDZAPENTCNT | r::RNDCLEARPOOL | r::RNDRESEEDCRNG => {
                // What guests add is not trusted: it is read, and dropped.
                if !task.capable(CAP_SYS_ADMIN) {
                    return Err(Errno::EPERM);
                }
                if matches!(request, r::RNDADDTOENTCNT | r::RNDADDENTROPY)
                    && task.mm().read_object::<i32>(arg)? < 0
                {
                    return Err(Errno::EINVAL);
                }
                Ok(0)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        if *self == Device::Zero { Ok(AnonymousShared::zero_device()?) } else { Err(Errno::ENODEV) }
    }

    fn maps_anonymous(&self) -> bool {
        *self == Device::Zero
    }

    fn seek(&self, _whence: u32, _offset: i64) -> Result<u64> {
        // null_lseek(): the position is always 0.
        Ok(0)
    }
}
