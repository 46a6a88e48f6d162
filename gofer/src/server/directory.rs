//! Reading directories.

use super::nodes::Nodes;
use super::paths::{Name, Paths};
use super::{Outcome, Server, from_statx, only};
use crate::host;
use crate::protocol::{
    DirEntryHeader, MAX_MESSAGE, Message, NodeId, Parts, ReadDir, ReadDirReply, check_name,
};
use abi::{Errno, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes read from a directory at once.
const BATCH: usize = 32 * 1024;
/// The largest entry in a reply: header, name, padding and attributes.
const MAX_ENTRY: usize = 20 + 255 + 7 + size_of::<crate::protocol::Attributes>();
/// `struct linux_dirent64` up to the name: inode, offset, length, type.
const DIRENT_HEADER: usize = 19;
/// Directories kept open between batches.
const MAX_STREAMS: usize = 4;

/// A directory that is being read. Kept open from one batch to the next, since on some filesystems (overlayfs)
/// positions mean little in another open of the directory, or finding them again takes long.
struct Stream {
    node: NodeId,
    /// The cookie of the last entry given out.
    cookie: u64,
    directory: OwnedFd,
}

/// The directories being read, the latest last, and a buffer for their records.
pub struct Streams {
    open: Vec<Stream>,
    buffer: Box<[u8]>,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { open: Vec::with_capacity(MAX_STREAMS), buffer: vec![0; BATCH].into_boxed_slice() }
    }
}

impl Streams {
    /// Closes what is open of a node.
    pub fn forget(&mut self, node: NodeId) {
        self.open.retain(|stream| stream.node != node);
    }

    /// A directory at this cookie: the one that stopped there, or a new one.
    fn at(&mut self, nodes: &Nodes, paths: &Paths, node: NodeId, cookie: u64) -> Result<Stream> {
        let held = nodes.directory(node)?;
        let found = self.open.iter().position(|stream| (stream.node, stream.cookie) == (node, cookie));
        if let Some(found) = found.filter(|_| cookie != 0) {
            return Ok(self.open.remove(found));
        }
        let directory = paths.open_directory(held.fd.as_fd())?;
        if cookie != 0 {
            host::seek(directory.as_fd(), cookie as i64)?;
        }
        Ok(Stream { node, cookie, directory })
    }

    fn keep(&mut self, stream: Stream) {
        if self.open.len() >= MAX_STREAMS {
            self.open.remove(0);
        }
        self.open.push(stream);
    }
}

impl Server {
    pub(super) fn read_dir(&mut self, parts: Parts<'_>, reply: &mut Message) -> Outcome {
        let request: ReadDir = only(parts)?;
        let mut stream = self.streams.at(&self.nodes, &self.paths, request.node, request.cookie)?;
        let at = reply.len();
        let mut batch = ReadDirReply::default();
        reply.put(&batch)?;
        let room = MAX_MESSAGE - reply.len() - MAX_ENTRY;
        let start = reply.len();
        let limit = (request.limit as usize).clamp(1, room);
        let full = |reply: &Message| reply.len() - start >= limit;
        'reading: while !full(reply) {
            // An entry here is no longer than the kernel's record of it; its attributes are several times that.
            let left = limit - (reply.len() - start);
            let want = if request.attributes != 0 { left / 5 } else { left }.clamp(512, BATCH);
            let buffer = self.streams.buffer.get_mut(..want).ok_or(Errno::EIO)?;
            let length = host::getdents(stream.directory.as_fd(), buffer)?;
            if length == 0 {
                batch.end = 1;
                break;
            }
            let mut records = Parts::new(self.streams.buffer.get(..length).ok_or(Errno::EIO)?);
            while let Some(record) = next_record(&mut records)? {
                if record.name != b"." && record.name != b".." && check_name(record.name).is_ok() {
                    if full(reply) {
                        // The rest of the buffer is read again.
                        host::seek(stream.directory.as_fd(), stream.cookie as i64)?;
                        break 'reading;
                    }
                    put_entry(reply, &stream.directory, &record, request.attributes != 0)?;
                    batch.count += 1;
                }
                stream.cookie = record.cookie;
            }
        }
        reply.replace(at, &batch)?;
        if batch.end == 0 {
            self.streams.keep(stream);
        }
        Ok(None)
    }
}

/// A record of getdents64(2).
struct Record<'a> {
    inode: u64,
    cookie: u64,
    kind: u8,
    name: &'a [u8],
}

fn next_record<'a>(records: &mut Parts<'a>) -> Result<Option<Record<'a>>> {
    let mut rest = *records;
    if rest.rest().is_empty() {
        return Ok(None);
    }
    let mut head = *records;
    let (inode, cookie, length, kind): (u64, u64, u16, u8) =
        (head.get()?, head.get()?, head.get()?, head.get()?);
    let name = records.take(length.into())?.get(DIRENT_HEADER..).ok_or(Errno::EIO)?;
    let name = name.split(|&b| b == 0).next().unwrap_or(name);
    Ok(Some(Record { inode, cookie, kind, name }))
}

fn put_entry(
    reply: &mut Message,
    directory: &OwnedFd,
    record: &Record<'_>,
    with_attributes: bool,
) -> Result<()> {
    let attributes = if with_attributes {
        // An entry may have gone since.
        let name = Name::new(&[record.name])?;
        host::statx_name(directory.as_fd(), name.as_c_str()).ok().map(|statx| from_statx(&statx))
    } else {
        None
    };
    let header = DirEntryHeader {
        inode: record.inode.into(),
        cookie: record.cookie.into(),
        kind: record.kind,
        name: record.name.len() as u8,
        attributes: attributes.is_some().into(),
        reserved: 0,
    };
    reply.put(&header)?;
    reply.put_bytes(record.name)?;
    let length = size_of::<DirEntryHeader>() + record.name.len();
    reply.put_bytes([0; 7].get(..length.next_multiple_of(8) - length).unwrap_or(&[]))?;
    match attributes {
        Some(attributes) => reply.put(&attributes),
        None => Ok(()),
    }
}
