//! What is behind the names of fifos, sockets and devices.
//!
//! A fifo's pipe and a socket's endpoint belong to the inode, not to the filesystem that stores the name: they are
//! found through the superblock's table. Devices are found by number.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use abi::fcntl::OpenFlags;
use abi::{Errno, Result};
use parking_lot::{Mutex, RwLock};

use super::{FileOps, Io, Path};

/// What the names of a superblock lead to, by inode number. Entries are weak: the object lives as long as it is open.
#[derive(Default)]
pub struct SpecialTable(Mutex<HashMap<u64, Weak<dyn Any + Send + Sync>>>);

impl SpecialTable {
    /// The object of an inode, if it is alive and a `T`.
    pub fn get<T: Any + Send + Sync>(&self, ino: u64) -> Option<Arc<T>> {
        self.0.lock().get(&ino)?.upgrade()?.downcast().ok()
    }

    /// The object of an inode, made by `make` if there is none.
    pub fn get_or_insert<T: Any + Send + Sync>(&self, ino: u64, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut table = self.0.lock();
        if let Some(Ok(found)) = table.get(&ino).and_then(Weak::upgrade).map(Arc::downcast) {
            return found;
        }
        let new = make();
        table.retain(|_, weak| weak.strong_count() > 0);
        let any: Arc<dyn Any + Send + Sync> = new.clone();
        table.insert(ino, Arc::downgrade(&any));
        new
    }

    /// Binds an object to an inode.
    pub fn set<T: Any + Send + Sync>(&self, ino: u64, object: &Arc<T>) {
        let any: Arc<dyn Any + Send + Sync> = object.clone();
        let mut table = self.0.lock();
        table.retain(|_, weak| weak.strong_count() > 0);
        table.insert(ino, Arc::downgrade(&any));
    }
}

/// Opens a device of a driver: minor number, where it was found, flags.
pub trait Driver: Send + Sync {
    /// open(2) of a node with this device number. ENXIO if there is no such minor.
    fn open(&self, io: &Io<'_>, path: &Path, rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>>;
}

/// Character device drivers, by major number.
#[derive(Default)]
pub struct Drivers(RwLock<BTreeMap<u32, Arc<dyn Driver>>>);

impl Drivers {
    /// Takes over a major number.
    pub fn register(&self, major: u32, driver: Arc<dyn Driver>) {
        self.0.write().insert(major, driver);
    }

    /// Opens a character device. ENXIO without a driver.
    pub fn open(&self, io: &Io<'_>, path: &Path, rdev: u64, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let driver = self.0.read().get(&abi::stat::major(rdev)).cloned().ok_or(Errno::ENXIO)?;
        driver.open(io, path, rdev, flags)
    }
}
