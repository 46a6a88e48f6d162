//! Files that stand for mounts in the making (fs/fsopen.c, fs/fs_context.c, fs/namespace.c): filesystem contexts, and
//! trees that are attached nowhere.

use std::any::Any;
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::{Errno, Result};
use parking_lot::Mutex;

use crate::Kernel;
use crate::vfs::mount::MountTree;
use crate::vfs::{Dentry, File, FileOps, Io, Mount, MountFlags, MountNamespace, Sink};

/// How many bytes of options a context takes (PAGE_SIZE, as mount(2)).
const OPTIONS_MAX: usize = 4096;

/// What a context is for, and how far it has come.
enum Phase {
    /// fsopen(2): options are collected.
    Parameters,
    /// The filesystem is there, and can be mounted once.
    Created(Arc<Dentry>),
    /// fspick(2), and after fsmount(2): options are changed.
    Reconfigure(Arc<Mount>),
    /// Creating it failed.
    Failed,
}

struct State {
    phase: Phase,
    options: Vec<u8>,
    source: Option<Vec<u8>>,
    read_only: bool,
}

/// What fsopen(2) and fspick(2) make.
pub struct FsContext {
    /// The type of the filesystem.
    pub kind: String,
    state: Mutex<State>,
}

impl FsContext {
    /// A context for a new filesystem, or to change that of `mount`.
    pub fn open(kernel: &Arc<Kernel>, kind: &str, mount: Option<Arc<Mount>>) -> Arc<File> {
        let phase = mount.map_or(Phase::Parameters, Phase::Reconfigure);
        let state = State { phase, options: Vec::new(), source: None, read_only: false };
        let context = FsContext { kind: kind.to_string(), state: Mutex::new(state) };
        kernel.anonymous.file(Arc::new(context), OpenFlags::O_RDWR)
    }

    /// FSCONFIG_SET_FLAG and FSCONFIG_SET_STRING. EBUSY when it is too late, EINVAL.
    pub fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Parameters | Phase::Reconfigure(_) => {}
            Phase::Created(_) | Phase::Failed => return Err(Errno::EBUSY),
        }
        match (key, value) {
            (b"source", Some(value)) => {
                if state.source.is_some() {
                    return Err(Errno::EINVAL);
                }
                state.source = Some(value.to_vec());
                return Ok(());
            }
            (b"ro", None) => state.read_only = true,
            (b"rw", None) => state.read_only = false,
            (b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"mand" | b"nomand", None) => {}
            _ if key.contains(&b',') || value.is_some_and(|value| value.contains(&b',')) => {
                return Err(Errno::EINVAL);
            }
            _ => {
                let len = key.len() + value.map_or(0, <[u8]>::len) + 2;
                if state.options.len() + len > OPTIONS_MAX {
                    return Err(Errno::EINVAL);
                }
                if !state.options.is_empty() {
                    state.options.push(b',');
                }
                state.options.extend_from_slice(key);
                if let Some(value) = value {
                    state.options.push(b'=');
                    state.options.extend_from_slice(value);
                }
            }
        }
        Ok(())
    }

    /// FSCONFIG_CMD_CREATE: `make` gets the options. EBUSY unless options are being collected.
    pub fn create(&self, make: impl FnOnce(&str, &[u8]) -> Result<Arc<Dentry>>) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Parameters) {
            return Err(Errno::EBUSY);
        }
        state.phase = Phase::Failed;
        let root = make(&self.kind, &state.options)?;
        state.phase = Phase::Created(root);
        state.options.clear();
        Ok(())
    }

    /// FSCONFIG_CMD_RECONFIGURE. EBUSY unless the filesystem is mounted.
    pub fn reconfigure(&self) -> Result<()> {
        let mut state = self.state.lock();
        let Phase::Reconfigure(mount) = &state.phase else { return Err(Errno::EBUSY) };
        mount.superblock().fs().reconfigure(&state.options)?;
        state.options.clear();
        Ok(())
    }

    /// fsmount(2): the new filesystem's mount. EINVAL if there is none yet, EBUSY if it was mounted.
    pub fn mount(&self, mut flags: MountFlags) -> Result<Arc<Mount>> {
        let mut state = self.state.lock();
        let root = match &state.phase {
            Phase::Created(root) => root.clone(),
            Phase::Reconfigure(_) => return Err(Errno::EBUSY),
            Phase::Parameters | Phase::Failed => return Err(Errno::EINVAL),
        };
        if state.read_only {
            flags |= MountFlags::RDONLY;
        }
        let source = match &state.source {
            Some(source) => source.clone(),
            None => root.superblock().fs().source().into_bytes(),
        };
        let mount = Mount::new(root, flags, &source);
        state.phase = Phase::Reconfigure(mount.clone());
        Ok(mount)
    }
}

impl FileOps for FsContext {
    fn as_any(&self) -> &dyn Any {
        self
    }

    /// The messages of the filesystem, of which there are none.
    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::ENODATA)
    }

    fn anonymous_name(&self) -> String {
        "anon_inode:[fscontext]".to_string()
    }
}

/// Keeps a detached tree for as long as it is open. Like O_PATH, it is a place, and has no operations.
struct TreeFile {
    _namespace: Arc<MountNamespace>,
}

impl FileOps for TreeFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, _dst: &mut dyn Sink, _offset: u64) -> Result<usize> {
        Err(Errno::EBADF)
    }
}

/// A file that holds a tree which is attached nowhere.
pub fn tree_file(tree: MountTree, user_ns: Arc<crate::task::UserNamespace>) -> Arc<File> {
    let mount = tree.root().clone();
    let namespace = MountNamespace::detached(tree, user_ns);
    let place = crate::vfs::Path::new(mount.clone(), mount.root().clone());
    File::new(Arc::new(TreeFile { _namespace: namespace }), place, OpenFlags::O_PATH)
}
