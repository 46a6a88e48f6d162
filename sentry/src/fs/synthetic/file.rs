//! Open files of text.

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::Context;
use crate::parameters::Parameter;
use crate::task::{Credentials, CurrentTask};
use crate::vfs::io::{put_slice, take_all};
use crate::vfs::{FileOps, Io, Sink, Source};

/// How much a write may bring at once, in bytes.
const WRITE_MAX: usize = 64 * 1024;

/// One write(2).
pub struct Request<'a> {
    /// What is written, all of it.
    pub data: &'a [u8],
    /// The offset.
    pub offset: u64,
    /// The credentials with which the file was opened; `None` for the kernel itself.
    pub opener: Option<&'a Credentials>,
}

impl Request<'_> {
    /// The data as text without the white space around it. EINVAL if it is no UTF-8.
    pub fn text(&self) -> Result<&str> {
        let text = std::str::from_utf8(self.data).map_err(|_| Errno::EINVAL)?;
        Ok(text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0'))
    }

    /// The data as a number, as kstrtol() takes it: decimal, octal or hexadecimal. EINVAL.
    pub fn number(&self) -> Result<i64> {
        parse_number(self.text()?)
    }
}

/// A number in decimal, octal (0…) or hexadecimal (0x…) notation. EINVAL, and ERANGE if it is too large.
pub fn parse_number(text: &str) -> Result<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| (b as char).is_digit(radix)) {
        return Err(Errno::EINVAL);
    }
    let value = i64::from_str_radix(digits, radix).map_err(|_| Errno::ERANGE)?;
    Ok(if negative { -value } else { value })
}

/// What a file shows, and what writing to it does.
#[allow(unused_variables, reason = "the defaults refuse")]
pub trait Content<C>: Send + Sync {
    /// Checks that are made before it is opened, beyond permission bits.
    fn open(&self, context: &C, io: &Io<'_>, flags: OpenFlags) -> Result<()> {
        Ok(())
    }

    /// The kernel parameter that it shows, if it is one.
    fn parameter(&self) -> Option<&Parameter> {
        None
    }

    /// A task has opened it.
    fn opened(&self, context: &C, task: &CurrentTask) {}

    /// All of its text, as it is now.
    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Takes what one write(2) brings, all of it. EIO is what files of proc without such an operation say.
    fn write(&self, context: &C, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        Err(Errno::EIO)
    }
}

/// How a file is read.
pub type ReadFn<C> = fn(&C, &Io<'_>) -> Result<Vec<u8>>;

/// How a file is written to.
pub type WriteFn<C> = fn(&C, &Io<'_>, &Request<'_>) -> Result<()>;

/// A file that can only be read.
pub struct Read<C>(pub ReadFn<C>);

impl<C> Content<C> for Read<C> {
    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        (self.0)(context, io)
    }
}

/// A file that can be read and written to.
pub struct ReadWrite<C>(pub ReadFn<C>, pub WriteFn<C>);

impl<C> Content<C> for ReadWrite<C> {
    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        (self.0)(context, io)
    }

    fn write(&self, context: &C, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        (self.1)(context, io, request)
    }
}

/// A file that passes a check when it is opened.
pub struct Checked<C>(pub fn(&C, &Io<'_>) -> Result<()>, pub ReadFn<C>);

impl<C> Content<C> for Checked<C> {
    fn open(&self, context: &C, io: &Io<'_>, _flags: OpenFlags) -> Result<()> {
        (self.0)(context, io)
    }

    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        (self.1)(context, io)
    }
}

/// A file that always shows the same.
pub struct Fixed(pub &'static str);

impl<C> Content<C> for Fixed {
    fn read(&self, _context: &C, _io: &Io<'_>) -> Result<Vec<u8>> {
        Ok(self.0.into())
    }
}

/// A file that can be opened, and fails to be read.
pub struct Refused(pub Errno);

impl<C> Content<C> for Refused {
    fn read(&self, _context: &C, _io: &Io<'_>) -> Result<Vec<u8>> {
        Err(self.0)
    }
}

/// An open file: its text is made by the first read, and anew by every read at its beginning (seq_file).
pub struct TextFile<C: Context> {
    context: C,
    content: &'static dyn Content<C>,
    opener: Option<Arc<Credentials>>,
    text: Mutex<Option<Vec<u8>>>,
}

impl<C: Context> TextFile<C> {
    /// Opens `content` of `context`.
    pub fn open(
        context: C,
        content: &'static dyn Content<C>,
        io: &Io<'_>,
        flags: OpenFlags,
    ) -> Result<TextFile<C>> {
        content.open(&context, io, flags)?;
        let opener = io.task.map(|task| task.credentials());
        Ok(TextFile { context, content, opener, text: Mutex::new(None) })
    }
}

impl<C: Context> FileOps for TextFile<C> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        let mut text = self.text.lock();
        if offset == 0 || text.is_none() {
            *text = Some(self.content.read(&self.context, io)?);
        }
        let whole = text.as_deref().unwrap_or_default();
        let done = put_slice(dst, whole, offset)?;
        if offset >= whole.len() as u64 {
            // Read to the end: it takes no more memory while it is only kept open.
            *text = None;
        }
        Ok(done)
    }

    fn write(&self, io: &Io<'_>, src: &mut dyn Source, offset: &mut u64) -> Result<usize> {
        let data = take_all(src, WRITE_MAX)?;
        let request = Request { data: &data, offset: *offset, opener: self.opener.as_deref() };
        self.content.write(&self.context, io, &request)?;
        Ok(data.len())
    }

    fn truncate(&self, _size: u64) -> Result<()> {
        // Lengths mean nothing here, but setting one is no error (proc_setattr, kernfs_iop_setattr).
        Ok(())
    }

    fn opened(&self, task: &CurrentTask) {
        self.content.opened(&self.context, task);
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        PollEvents::READABLE | PollEvents::WRITABLE
    }
}
