//! Listings of merged directories.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};
use parking_lot::Mutex;

use super::inode::OverlayInode;
use super::{Shared, is_opaque, is_whiteout};
use crate::vfs::{DirSink, FileOps, Inode, Io, Path, Sink};

/// Number, type and name of an entry.
type Listed = (u64, FileType, Box<[u8]>);

struct Collect(Vec<Listed>);

impl DirSink for Collect {
    fn entry(&mut self, _next: u64, ino: u64, file_type: FileType, name: &[u8]) -> bool {
        if name != b"." && name != b".." {
            self.0.push((ino, file_type, name.into()));
        }
        true
    }
}

/// All entries of a layer's directory, without `.` and `..`.
pub(super) fn entries(shared: &Shared, dir: &Arc<dyn Inode>) -> Result<Vec<Listed>> {
    let ops = dir.open(&Io::default(), &shared.own_path(dir), OpenFlags::O_DIRECTORY)?;
    let mut all = Collect(Vec::new());
    let mut at = 0;
    loop {
        let next = ops.read_dir(&Io::default(), at, &mut all)?;
        if next == at {
            return Ok(all.0);
        }
        at = next;
    }
}

/// The entry of a layer's directory is a whiteout: its type says that it may be, then it is looked at.
fn hides(dir: &Arc<dyn Inode>, file_type: FileType, name: &[u8]) -> Result<bool> {
    if file_type != FileType::CharDevice {
        return Ok(false);
    }
    match dir.lookup(name) {
        Ok(inode) => is_whiteout(&inode),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

enum Seen {
    /// Nothing below shows.
    Hidden,
    /// The place in the list of what shows. A directory is merged with those below, unless it is opaque.
    Shown { index: usize, merges: bool },
}

/// What shows of the layers of a directory, with the numbers that the guest sees. Stops after the first entry if only
/// `any` is of interest.
fn merged(dir: &OverlayInode, any: bool) -> Result<Vec<Listed>> {
    let shared = &dir.shared;
    let mut seen: HashMap<Box<[u8]>, Seen> = HashMap::new();
    let mut shown: Vec<Listed> = Vec::new();
    let upper = dir.in_upper().map(|inode| (shared.upper_index(), inode));
    let lowers = dir.lowers().iter().map(|lower| (lower.layer, &lower.inode));
    for (layer, real) in upper.into_iter().chain(lowers) {
        let is_upper = layer == shared.upper_index();
        for (ino, file_type, name) in entries(shared, real)? {
            let is_dir = file_type == FileType::Directory;
            match seen.get_mut(&name) {
                None => {
                    if hides(real, file_type, &name)? {
                        seen.insert(name, Seen::Hidden);
                        continue;
                    }
                    let ino = if is_upper { shared.upper_ino(ino) } else { shared.ino(layer, ino) };
                    seen.insert(name.clone(), Seen::Shown { index: shown.len(), merges: is_upper && is_dir });
                    shown.push((ino, file_type, name));
                    if any {
                        return Ok(shown);
                    }
                }
                // A directory that is in the upper layer as well: its number is that of the lower one.
                Some(Seen::Shown { index, merges }) if *merges => {
                    *merges = false;
                    let in_upper = dir.in_upper().map(|upper| upper.lookup(&name)).transpose();
                    let opaque = match in_upper {
                        Ok(Some(inode)) => is_opaque(&inode)?,
                        Ok(None) | Err(Errno::ENOENT) => false,
                        Err(e) => return Err(e),
                    };
                    if is_dir
                        && !opaque
                        && let Some(entry) = shown.get_mut(*index)
                    {
                        entry.0 = shared.ino(layer, ino);
                    }
                }
                Some(_) => {}
            }
        }
    }
    Ok(shown)
}

/// True if nothing of the layers of a directory shows.
pub(super) fn is_empty(dir: &OverlayInode) -> Result<bool> {
    Ok(merged(dir, true)?.is_empty())
}

/// How a listing goes on after its start.
#[derive(Clone)]
enum Listing {
    /// Only one layer has the directory: as that lists it.
    Plain(Arc<dyn FileOps>, usize),
    /// What there was at the start.
    Merged(Arc<Vec<Listed>>),
}

/// An open directory.
pub struct OverlayDirectory {
    inode: Arc<OverlayInode>,
    path: Path,
    flags: OpenFlags,
    listing: Mutex<Option<Listing>>,
}

impl OverlayDirectory {
    pub(super) fn new(inode: Arc<OverlayInode>, path: &Path, flags: OpenFlags) -> OverlayDirectory {
        OverlayDirectory { inode, path: path.clone(), flags, listing: Mutex::new(None) }
    }

    /// How to list, decided anew at each start.
    fn listing(&self, io: &Io<'_>, start: bool) -> Result<Listing> {
        if let Some(listing) = self.listing.lock().clone()
            && !start
        {
            return Ok(listing);
        }
        let inode = &*self.inode;
        let open = |real: &Arc<dyn Inode>| real.open(io, &self.path, self.flags);
        let listing = match (inode.in_upper(), inode.lowers()) {
            (Some(upper), []) => Listing::Plain(open(upper)?, inode.shared.upper_index()),
            // With further layers below there may be whiteouts.
            (None, [lower]) if inode.shared.lowers.len() == 1 => {
                Listing::Plain(open(&lower.inode)?, lower.layer)
            }
            _ => Listing::Merged(Arc::new(merged(inode, false)?)),
        };
        *self.listing.lock() = Some(listing.clone());
        Ok(listing)
    }
}

/// Passes on what one layer lists, with the overlay's numbers.
struct Translate<'a> {
    inode: &'a OverlayInode,
    layer: usize,
    sink: &'a mut dyn DirSink,
}

impl DirSink for Translate<'_> {
    fn entry(&mut self, next: u64, ino: u64, file_type: FileType, name: &[u8]) -> bool {
        let shared = &self.inode.shared;
        let ino = match name {
            b"." => self.inode.ino(),
            // That of the overlay's dentry.
            b".." => ino,
            _ if self.layer == shared.upper_index() => shared.upper_ino(ino),
            _ => shared.ino(self.layer, ino),
        };
        self.sink.entry(next, ino, file_type, name)
    }
}

impl FileOps for OverlayDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn read_dir(&self, io: &Io<'_>, offset: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let list = match self.listing(io, offset == 0)? {
            Listing::Plain(ops, layer) => {
                return ops.read_dir(io, offset, &mut Translate { inode: &self.inode, layer, sink });
            }
            Listing::Merged(list) => list,
        };
        // The offsets are places in the list, behind those of the directory itself and its parent.
        let own = self.inode.ino();
        let parent = self.path.dentry().parent().map_or(own, |parent| parent.inode().ino());
        let mut at = match sink.dots(offset, own, parent) {
            Ok(at) => at,
            Err(full) => return Ok(full),
        };
        let rest = usize::try_from(at - 2).ok().and_then(|from| list.get(from..)).unwrap_or_default();
        for (ino, file_type, name) in rest {
            if !sink.entry(at + 1, *ino, *file_type, name) {
                break;
            }
            at += 1;
        }
        Ok(at)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        match self.inode.in_upper() {
            Some(upper) => upper.open(&Io::default(), &self.path, OpenFlags::O_DIRECTORY)?.sync(data_only),
            None => Ok(()),
        }
    }

    fn flags_changed(&self, flags: OpenFlags) {
        if let Some(Listing::Plain(ops, _)) = &*self.listing.lock() {
            ops.flags_changed(flags);
        }
    }
}
