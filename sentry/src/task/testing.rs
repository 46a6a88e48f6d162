//! A kernel and a task for tests that run no guest: the platform is a table.

use std::sync::{Arc, Weak};

use abi::{Errno, Result};
use parking_lot::Mutex;

use super::credentials::IdMap;
use super::group::{GroupParts, ProcessGroup, ThreadGroup};
use super::limits::Limits;
use super::signal::Actions;
use super::task::TaskParts;
use super::{Credentials, CurrentTask, Outcome, Pid, SyscallTable, Task};
use crate::Kernel;
use crate::fs::tmpfs::{Tmpfs, TmpfsOptions};
use crate::kernel::KernelOptions;
use crate::mm::MemoryManager;
use crate::mm::mock::MockPlatform;
use crate::vfs::{FdTable, FsContext, Mount, MountFlags, MountNamespace, SuperBlock};

struct NoCalls;

impl SyscallTable for NoCalls {
    fn call(&self, _task: &CurrentTask, _number: u64, _args: [u64; 6]) -> Result<Outcome> {
        Err(Errno::ENOSYS)
    }
}

/// A kernel with one processor and a GiB of memory.
pub(crate) fn kernel() -> Arc<Kernel> {
    let options = KernelOptions {
        vdso: None,
        platform: Arc::new(MockPlatform::default()),
        syscalls: &NoCalls,
        container: "test".into(),
        cpus: 1,
        memory: 1 << 30,
        ids: (IdMap::identity(), IdMap::identity()),
        strace: false,
        strace_only: Vec::new(),
    };
    Kernel::new(options).unwrap()
}

/// A process of root's, with a tmpfs as its root and a network namespace of its own.
pub(crate) fn task() -> Arc<Task> {
    let kernel = kernel();
    let root = SuperBlock::make(Tmpfs::new(&TmpfsOptions::new(1 << 20)));
    let root = Mount::new(root, MountFlags::empty(), b"tmpfs");
    let mounts = MountNamespace::new(root, kernel.user_ns.clone());
    let ipc = crate::ipc::IpcNamespace::new(&kernel, kernel.user_ns.clone());
    let namespaces = kernel.container_namespaces(mounts.clone(), ipc, b"test").unwrap();
    let pid = Pid::allocate(&kernel.pid_ns, &[]).unwrap();
    let group = ThreadGroup::new(GroupParts {
        kernel: kernel.clone(),
        pid: pid.clone(),
        parent: Weak::new(),
        made_by: Weak::new(),
        process_group: ProcessGroup::new_session(pid.clone()),
        exit_signal: None,
        actions: Arc::new(Mutex::new(Actions::default())),
        limits: Limits::initial(),
        container: kernel.first.clone(),
        is_init: true,
    });
    Task::new(TaskParts {
        group,
        pid,
        comm: b"test".to_vec(),
        credentials: Arc::new(Credentials::root(kernel.user_ns.clone())),
        memory: MemoryManager::new(&*kernel.platform).unwrap(),
        files: Arc::new(FdTable::new()),
        fs: Arc::new(FsContext::new(mounts.root(), mounts.root(), 0o022)),
        namespaces: Arc::new(namespaces),
    })
}
