//! execve(2) (fs/exec.c).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::capability::{CapSet, SECBIT_KEEP_CAPS, SECBIT_NOROOT};
use abi::fcntl::OpenFlags;

use abi::stat::{S_ISGID, S_ISUID};
use abi::{Errno, Result};
use parking_lot::Mutex;
use platform::Context;

use super::credentials::Credentials;
use super::current::CurrentTask;
use crate::loader::{self, LoadError, LoadRequest, Loaded};
use crate::mm::MemoryManager;
use crate::parameters::RANDOMIZE_VA_SPACE;
use crate::vfs::mount::MountFlags;
use crate::vfs::{FdFlags, File, Path, operations};

/// How many `#!` lines one execve follows (exec_binprm()).
const SCRIPTS_MAX: u32 = 5;

/// What execve gets.
pub struct ExecRequest {
    /// The program, open for execution.
    pub file: Arc<File>,
    /// Its name, as the caller gave it (`/dev/fd/N` for execveat of a descriptor).
    pub filename: Vec<u8>,
    /// The descriptor has FD_CLOEXEC: a script could not be opened by its interpreter.
    pub unreachable: bool,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
}

/// A program that was loaded into fresh memory.
pub struct Program {
    /// The memory.
    pub mm: Arc<MemoryManager>,
    /// Registers to start with.
    pub context: Context,
    /// Credentials to run with.
    pub credentials: Credentials,
    /// The task's new name.
    pub comm: Vec<u8>,
}

/// Opens `path` for execution: a regular file with permission on a mount without noexec.
pub fn open_executable(task: &super::Task, path: &Path) -> Result<Arc<File>> {
    let creds = task.credentials();
    crate::vfs::permission::check_exec(&creds, path.mount(), &**path.inode())?;
    let io = crate::vfs::Io::of(task);
    File::executable(path.inode().open(&io, path, OpenFlags::empty())?, path.clone())
}

/// Opens an interpreter: as [`open_executable`], but who writes to it is not kept away while it is mapped.
fn open_interpreter(task: &super::Task, name: &[u8]) -> Result<Arc<File>> {
    let path = operations::resolve(task, None, name, crate::vfs::WalkFlags::FOLLOW)?;
    let file = open_executable(task, &path)?;
    Ok(File::new(file.operations().clone(), path, OpenFlags::empty()))
}

/// Loads a program for `task` into new memory; nothing of the task is changed.
pub fn load(task: &super::Task, mut request: ExecRequest) -> std::result::Result<Program, LoadError> {
    let kernel = task.kernel();
    let mm = MemoryManager::new(&*task.group.container.platform)?;
    let execfn = request.filename.clone();
    let creds_file = resolve_scripts(task, &mut request)?;
    let old = task.credentials();
    let no_new_privs = task.no_new_privs.load(Ordering::Relaxed);
    let no_more = no_new_privs || task.has_weak_tracer(&old);
    let (credentials, secure) = exec_credentials(&old, &creds_file, no_more)?;
    let mut random = [0u8; 48];
    kernel.fill_random(&mut random);
    let limit = task.group.limits.current(abi::resource::RLIMIT_STACK);
    let randomize = task.group.personality.load(Ordering::Relaxed) & abi::personality::ADDR_NO_RANDOMIZE == 0
        && RANDOMIZE_VA_SPACE.get(&kernel.parameters) != 0;
    let resolver = |name: &[u8]| open_interpreter(task, name);
    let ns = &credentials.user_ns;
    let loaded: Loaded = loader::load(
        &mm,
        &LoadRequest {
            file: request.file.clone(),
            filename: execfn,
            argv: request.argv,
            envp: request.envp,
            uid: ns.uid(credentials.uid),
            euid: ns.uid(credentials.euid),
            gid: ns.gid(credentials.gid),
            egid: ns.gid(credentials.egid),
            secure,
            stack_limit: limit,
            random,
            randomize,
            vdso: kernel.vdso.as_ref(),
            resolver: &resolver,
        },
    )?;
    let mut context = Context::default();
    context.regs.rip = loaded.entry;
    context.regs.rsp = loaded.stack_pointer;
    context.regs.eflags = 0x202;
    let name = request.filename.rsplit(|&c| c == b'/').next().unwrap_or_default();
    Ok(Program { mm, context, credentials, comm: name[..name.len().min(15)].to_vec() })
}

/// Replaces scripts by their interpreters. Returns the file whose set-id bits count.
fn resolve_scripts(task: &super::Task, request: &mut ExecRequest) -> Result<Arc<File>> {
    for _ in 0..=SCRIPTS_MAX {
        let mut head = crate::vfs::VecSink::new(256);
        request.file.operations().read(&request.file.io(Some(task)), &mut head, 0)?;
        let Some(script) = loader::parse_script(&head.data)? else {
            return Ok(request.file.clone());
        };
        if request.unreachable {
            return Err(Errno::ENOENT);
        }
        let path = operations::resolve(task, None, &script.interpreter, crate::vfs::WalkFlags::FOLLOW)?;
        let mut argv = vec![script.interpreter.clone()];
        argv.extend(script.argument);
        argv.push(request.filename.clone());
        argv.extend(request.argv.drain(..).skip(1));
        request.argv = argv;
        request.file = open_executable(task, &path)?;
        request.filename = script.interpreter;
    }
    Err(Errno::ELOOP)
}

/// The credentials after execve (capabilities(7), "Transformation of capabilities during execve()"), and AT_SECURE.
fn exec_credentials(old: &Credentials, file: &Arc<File>, no_new_privs: bool) -> Result<(Credentials, bool)> {
    let mut new = old.clone();
    let attributes = file.path().inode().attributes()?;
    let may_raise = !no_new_privs && !file.path().mount().flags().contains(MountFlags::NOSUID);
    let mapped = old.user_ns.maps_ids(attributes.uid, attributes.gid);
    let (mut set_id, mut file_caps) = (false, None);
    if may_raise && mapped {
        if attributes.mode & S_ISUID != 0 {
            new.euid = attributes.uid;
            set_id |= new.euid != old.euid;
        }
        if attributes.mode & (S_ISGID | 0o010) == S_ISGID | 0o010 {
            new.egid = attributes.gid;
            set_id |= new.egid != old.egid;
        }
        if let Ok(xattr) = file.path().inode().xattr(b"security.capability") {
            file_caps = Some(parse_file_caps(&xattr)?);
        }
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let root = old.user_ns.kernel_uid(0).ok();
    let (mut permitted, mut inheritable, mut effective_bit) =
        file_caps.unwrap_or((CapSet::EMPTY, CapSet::EMPTY, false));
    let has_file_caps = file_caps.is_some();
    if old.securebits & SECBIT_NOROOT == 0 && root.is_some() {
        if Some(new.euid) == root || Some(new.uid) == root {
            permitted = CapSet::FULL;
            inheritable = CapSet::FULL;
        }
        if Some(new.euid) == root {
            effective_bit = true;
        }
    }
    let privileged_file = has_file_caps || set_id;
    new.ambient = if privileged_file { CapSet::EMPTY } else { old.ambient };
    new.permitted = permitted
        .intersection(old.bounding)
        .union(inheritable.intersection(old.inheritable))
        .union(new.ambient);
    if no_new_privs {
        new.permitted = new.permitted.intersection(old.permitted);
    }
    new.effective = if effective_bit { new.permitted } else { new.ambient };
    new.securebits &= !SECBIT_KEEP_CAPS;
    let gained = !new.permitted.difference(old.permitted).is_empty() && Some(old.uid) != root;
    let secure = set_id || new.euid != new.uid || new.egid != new.gid || gained;
    Ok((new, secure))
}

/// struct vfs_cap_data: permitted, inheritable, effective bit. EINVAL for another format.
fn parse_file_caps(xattr: &[u8]) -> Result<(CapSet, CapSet, bool)> {
    let word = |i: usize| xattr.get(i * 4..i * 4 + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let magic = word(0).ok_or(Errno::EINVAL)?;
    let (version, effective) = (magic & 0xff00_0000, magic & 1 != 0);
    let pair = |low: usize, high: usize| -> Result<u64> {
        Ok(u64::from(word(low).ok_or(Errno::EINVAL)?) | u64::from(word(high).ok_or(Errno::EINVAL)?) << 32)
    };
    match version {
        0x0200_0000 | 0x0300_0000 => {
            Ok((CapSet::from_bits_truncate(pair(1, 3)?), CapSet::from_bits_truncate(pair(2, 4)?), effective))
        }
        _ => Err(Errno::EINVAL),
    }
}

impl CurrentTask {
    /// Replaces the program of the process.
    pub fn exec(&self, request: ExecRequest) -> Result<()> {
        if self.too_many.load(Ordering::Relaxed) {
            let limit = self.group.limits.current(abi::resource::RLIMIT_NPROC);
            if self.kernel().counts.of_user(self.credentials().uid) as u64 > limit {
                return Err(Errno::EAGAIN);
            }
            self.too_many.store(false, Ordering::Relaxed);
        }
        let program = match load(self, request) {
            Ok(program) => program,
            Err(e) if e.fatal => {
                tracing::debug!(pid = self.tgid(), "exec cannot map the program: {}", e.errno);
                let core = self.dumps_core();
                self.group.begin_exit(abi::wait::signaled(abi::signal::Signal::SIGSEGV, core));
                return Ok(());
            }
            Err(e) => return Err(e.errno),
        };
        let old_pid = self.pid();
        self.kill_siblings()?;
        // From here on there is no way back: a failure kills the process.
        self.release_memory();
        if let Err(e) = self.replace_memory(program.mm, &program.context) {
            tracing::error!(pid = self.tgid(), "exec cannot start its thread: {e}");
            self.group.begin_exit(abi::wait::signaled(abi::signal::Signal::SIGKILL, false));
            return Ok(());
        }
        let group = &self.group;
        let mut actions = group.actions.read().lock().clone();
        actions.reset_handlers();
        *group.actions.write() = Arc::new(Mutex::new(actions));
        group.timers.clear_posix(self.kernel(), group);
        group.family.lock().did_exec = true;
        {
            let mut own = self.signals.lock();
            own.stack = abi::signal::StackT { ss_flags: abi::signal::SS_DISABLE, ..Default::default() };
        }
        drop((self.keyrings.thread.lock().take(), group.keyring.lock().take()));
        self.robust_list.store(0, Ordering::Relaxed);
        self.futexes_left.store(false, Ordering::Release);
        let old = self.credentials();
        if old.euid != program.credentials.euid || old.egid != program.credentials.egid {
            self.parent_death_signal.store(0, Ordering::Relaxed);
        }
        self.set_credentials(program.credentials);
        self.set_comm(&program.comm);
        if let Some(files) = self.files() {
            let files = if Arc::strong_count(&files) > 2 {
                let own = Arc::new(files.fork());
                drop(self.set_files(Some(own.clone())));
                own
            } else {
                files
            };
            let closed = files.remove_where(|_, flags| flags.contains(FdFlags::CLOEXEC));
            for file in &closed {
                operations::flush(self, file);
            }
        }
        self.tell_exec(&old_pid);
        Ok(())
    }

    /// de_thread(): every other thread of the process leaves, and the caller becomes the leader.
    fn kill_siblings(&self) -> Result<()> {
        let group = self.group.clone();
        {
            let mut signals = group.signals.lock();
            if signals.exit.is_some() || signals.exec_by.is_some() {
                return Err(Errno::ERESTARTNOINTR);
            }
            if group.tasks.lock().len() == 1 && Arc::ptr_eq(&self.pid(), &group.pid) {
                return Ok(());
            }
            signals.exec_by = Some(self.tid());
        }
        for task in group.threads() {
            if !Arc::ptr_eq(&task, self) {
                task.interrupt();
            }
        }
        let alone = || (group.tasks.lock().len() == 1).then_some(());
        let waited = self.wait_killable(&group.thread_events, alone);
        group.signals.lock().exec_by = None;
        waited?;
        if !Arc::ptr_eq(&self.pid(), &group.pid) {
            self.set_pid(group.pid.clone());
            drop(group.counted.lock().take());
        }
        Ok(())
    }
}
