//! What a futex is known by.

use super::{MemoryManager, vma::Vma};
use crate::vfs::ObjectId;
use crate::{Errno, Result};

/// Two futex words with the same key are the same futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FutexKey {
    /// Memory of one address space.
    Private {
        /// [`MemoryManager::id`].
        mm: u64,
        /// Address of the word.
        addr: u64,
    },
    /// A word of private memory, waited for without FUTEX_PRIVATE_FLAG.
    SharedOnPrivate {
        /// The address space.
        mm: u64,
        /// Its address.
        addr: u64,
    },
    /// A word of a file or of shared memory, wherever it is mapped.
    Shared {
        /// The object.
        object: ObjectId,
        /// Offset of the word.
        offset: u64,
    },
}

impl MemoryManager {
    /// The key of the word at `addr`; without `shared` (FUTEX_PRIVATE_FLAG) the address alone counts. EINVAL for an
    /// address that is not aligned to 4 bytes, EFAULT for a shared one where nothing can be read.
    pub fn futex_key(&self, addr: u64, shared: bool) -> Result<FutexKey> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        MemoryManager::check_range(addr, 4)?;
        let private = FutexKey::Private { mm: self.id, addr };
        if !shared {
            return Ok(private);
        }
        // Linux keeps shared futexes on private memory apart from private ones (FUT_OFF_MMSHARED).
        let own = FutexKey::SharedOnPrivate { mm: self.id, addr };
        // The page has to be there and readable (get_user_pages_fast() of get_futex_key()).
        self.read_object::<u32>(addr)?;
        let state = self.state.read();
        let (start, _, vma) = state.vmas.get(addr).ok_or(Errno::EFAULT)?;
        if !Vma::is_shared(vma) {
            return Ok(own);
        }
        Ok(match vma.object(addr - start) {
            Some((object, offset)) => FutexKey::Shared { object, offset },
            None => own,
        })
    }
}
