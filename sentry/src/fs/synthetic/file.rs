//! Open files of text.

use std::any::Any;

use abi::poll::PollEvents;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::Context;
use crate::vfs::io::{put_slice, take_all};
use crate::vfs::{FileOps, Io, Sink, Source};

/// How much a write may bring at once, in bytes.
const WRITE_MAX: usize = 64 * 1024;

/// What a file shows, and what writing to it does.
#[allow(unused_variables, reason = "the defaults refuse")]
pub trait Content<C>: Send + Sync {
    /// Checks that are made when it is opened, beyond permission bits.
    fn open(&self, context: &C, io: &Io<'_>) -> Result<()> {
        Ok(())
    }

    /// All of its text, as it is now.
    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Takes what one write(2) brings, all of it. EIO is what files of proc without such an operation say.
    fn write(&self, context: &C, io: &Io<'_>, data: &[u8], offset: u64) -> Result<()> {
        Err(Errno::EIO)
    }
}

/// A file that can only be read.
pub struct Read<C>(pub fn(&C, &Io<'_>) -> Result<Vec<u8>>);

impl<C> Content<C> for Read<C> {
    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        (self.0)(context, io)
    }
}

/// A file that can be read and written to.
pub struct ReadWrite<C>(pub fn(&C, &Io<'_>) -> Result<Vec<u8>>, pub fn(&C, &Io<'_>, &[u8]) -> Result<()>);

impl<C> Content<C> for ReadWrite<C> {
    fn read(&self, context: &C, io: &Io<'_>) -> Result<Vec<u8>> {
        (self.0)(context, io)
    }

    fn write(&self, context: &C, io: &Io<'_>, data: &[u8], _offset: u64) -> Result<()> {
        (self.1)(context, io, data)
    }
}

/// An open file: its text is made by the first read, and anew by every read at its beginning (seq_file).
pub struct TextFile<C: Context> {
    context: C,
    content: &'static dyn Content<C>,
    text: Mutex<Option<Vec<u8>>>,
}

impl<C: Context> TextFile<C> {
    /// Shows `content` of `context`.
    pub fn new(context: C, content: &'static dyn Content<C>) -> TextFile<C> {
        TextFile { context, content, text: Mutex::new(None) }
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
        self.content.write(&self.context, io, &data, *offset)?;
        Ok(data.len())
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        PollEvents::READABLE | PollEvents::WRITABLE
    }
}
