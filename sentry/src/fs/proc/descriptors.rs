//! `fd/`, `fdinfo/` and `map_files/` (fs/proc/fd.c, fs/proc/base.c).

use std::fmt::Write;
use std::sync::Arc;

use abi::capability::{CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN};
use abi::fcntl::OpenFlags;
use abi::stat::FileType;
use abi::{Errno, Result};

use super::root::parse_number;
use super::subject::Subject;
use crate::fs::synthetic::{Access, Checked, Children, Context, Entry, Kind, Node, Receive, child_ino};
use crate::mm::MapName;
use crate::task::Credentials;
use crate::vfs::{FdFlags, File, Inode, Io, LinkTarget, Path};

/// `fd/`: links to what is open.
pub(super) const FD: Kind<Subject> = Kind::Directory(&[], Some(Children { find: find_fd, list: list_fd }));

/// `fdinfo/`: what is known of it.
pub(super) const FDINFO: Kind<Subject> =
    Kind::Directory(&[], Some(Children { find: find_info, list: list_info }));

/// `map_files/`: links to what is mapped.
pub(super) const MAP_FILES: Kind<Subject> =
    Kind::Directory(&[], Some(Children { find: find_mapped, list: list_mapped }));

/// The name of an open file, as links and maps show it, seen from `root`.
pub(super) fn file_name(file: &File, root: Option<&Path>) -> Vec<u8> {
    let path = file.path();
    let nameless = path.dentry().parent().is_none() && !Arc::ptr_eq(path.dentry(), path.mount().root());
    if nameless {
        let name = file.operations().anonymous_name();
        // Pipes and sockets leave their number to be added.
        return if name.ends_with(':') { format!("{name}[{}]", path.inode().ino()) } else { name }
            .into_bytes();
    }
    match root {
        Some(root) => path.display(root),
        None => path.display(&Path::new(path.mount().clone(), path.mount().root().clone())),
    }
}

/// A descriptor of a process.
#[derive(Clone)]
struct Descriptor {
    subject: Subject,
    fd: u32,
}

impl Descriptor {
    fn entry(&self) -> Result<(Arc<File>, FdFlags)> {
        let files = self.subject.living()?.files().ok_or(Errno::ENOENT)?;
        let fd = i32::try_from(self.fd).map_err(|_| Errno::ENOENT)?;
        files.entry(fd).map_err(|_| Errno::ENOENT)
    }
}

impl Context for Descriptor {
    fn access(&self, entry: &Entry<Descriptor>) -> Result<Access> {
        let mode = entry.mode;
        let (file, _) = self.entry().map_err(|_| Errno::ENOENT)?;
        let access = self.subject.owner(mode)?;
        if mode & 0o777 != 0o777 {
            return Ok(access);
        }
        // A link's bits say how the file is open.
        let flags = file.flags();
        let mut mode = 0;
        if !flags.contains(OpenFlags::O_PATH) {
            if flags.readable() {
                mode |= 0o500;
            }
            if flags.writable() {
                mode |= 0o300;
            }
        }
        Ok(Access { mode, ..access })
    }

    fn lasts(&self) -> bool {
        false
    }
}

static LINK: Entry<Descriptor> = Entry { name: "", mode: 0o777, kind: Kind::Jump(show, follow) };

static INFO: Entry<Descriptor> = Entry::file("", 0o444, &Checked(|d, io| d.subject.check(io), info));

fn show(descriptor: &Descriptor, io: &Io<'_>) -> Result<Vec<u8>> {
    descriptor.subject.accessible(io)?;
    let root = io.task.map(|task| task.fs().root());
    Ok(file_name(&descriptor.entry()?.0, root.as_ref()))
}

fn follow(descriptor: &Descriptor, io: &Io<'_>) -> Result<LinkTarget> {
    descriptor.subject.accessible(io)?;
    Ok(LinkTarget::File(descriptor.entry()?.0))
}

fn info(descriptor: &Descriptor, _io: &Io<'_>) -> Result<Vec<u8>> {
    let (file, fd_flags) = descriptor.entry()?;
    let mut flags = file.flags();
    if fd_flags.contains(FdFlags::CLOEXEC) {
        flags |= OpenFlags::O_CLOEXEC;
    }
    let path = file.path();
    let position = *file.position();
    let mut text = format!("pos:\t{position}\nflags:\t0{:o}\n", flags.bits());
    let _ = writeln!(text, "mnt_id:\t{}\nino:\t{}", path.mount().id(), path.inode().ino());
    let subject = &descriptor.subject;
    if let Some(files) = subject.living()?.files() {
        let ns = &subject.instance.pid_ns;
        text.push_str(&super::locks::of_file(
            &file,
            &files,
            ns,
            subject.number(&subject.find()?.group.pid).into(),
        ));
    }
    text.push_str(&file.operations().fdinfo());
    Ok(text.into_bytes())
}

fn find_descriptor(
    subject: &Subject,
    parent: u64,
    name: &[u8],
    entry: &'static Entry<Descriptor>,
) -> Result<Arc<dyn Inode>> {
    let fd = parse_number(name).ok_or(Errno::ENOENT)?;
    let descriptor = Descriptor { subject: subject.clone(), fd };
    let (file, _) = descriptor.entry().map_err(|_| Errno::ENOENT)?;
    Ok(Node::new(descriptor, entry, child_ino(parent, name, file.id())))
}

fn list_descriptors(
    subject: &Subject,
    parent: u64,
    from: u64,
    receive: &mut Receive<'_>,
    file_type: FileType,
) -> Result<()> {
    let Some(files) = subject.living().ok().and_then(|task| task.files()) else { return Ok(()) };
    for (fd, file, _) in files.list() {
        if (fd as u64) < from {
            continue;
        }
        let name = fd.to_string();
        let ino = child_ino(parent, name.as_bytes(), file.id());
        if !receive(fd as u64, name.as_bytes(), ino, file_type) {
            break;
        }
    }
    Ok(())
}

fn find_fd(subject: &Subject, parent: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    find_descriptor(subject, parent, name, &LINK)
}

fn list_fd(subject: &Subject, parent: u64, _io: &Io<'_>, from: u64, receive: &mut Receive<'_>) -> Result<()> {
    list_descriptors(subject, parent, from, receive, FileType::Symlink)
}

fn find_info(subject: &Subject, parent: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    find_descriptor(subject, parent, name, &INFO)
}

fn list_info(
    subject: &Subject,
    parent: u64,
    io: &Io<'_>,
    from: u64,
    receive: &mut Receive<'_>,
) -> Result<()> {
    subject.check(io)?;
    list_descriptors(subject, parent, from, receive, FileType::Regular)
}

/// A mapped file, by its addresses.
#[derive(Clone)]
struct Mapped {
    subject: Subject,
    start: u64,
    end: u64,
}

impl Mapped {
    fn file(&self) -> Result<Arc<File>> {
        let mm = self.subject.memory()?.ok_or(Errno::ENOENT)?;
        let entry = mm.maps().into_iter().find(|e| (e.start, e.end) == (self.start, self.end));
        match entry.map(|entry| entry.name) {
            Some(MapName::File(file)) => Ok(file),
            _ => Err(Errno::ENOENT),
        }
    }
}

impl Context for Mapped {
    fn access(&self, entry: &Entry<Mapped>) -> Result<Access> {
        let flags = self.file().map_err(|_| Errno::ENOENT)?.flags();
        let mode = if flags.writable() { 0o700 } else { 0o500 };
        Ok(Access { mode, ..self.subject.owner(entry.mode)? })
    }

    fn lasts(&self) -> bool {
        false
    }
}

static MAPPED: Entry<Mapped> = Entry { name: "", mode: 0o777, kind: Kind::Jump(show_mapped, follow_mapped) };

fn show_mapped(mapped: &Mapped, io: &Io<'_>) -> Result<Vec<u8>> {
    mapped.subject.accessible(io)?;
    let root = io.task.map(|task| task.fs().root());
    Ok(file_name(&*mapped.file()?, root.as_ref()))
}

fn follow_mapped(mapped: &Mapped, io: &Io<'_>) -> Result<LinkTarget> {
    mapped.subject.accessible(io)?;
    let may = |creds: &Credentials| {
        let ns = &mapped.subject.kernel().user_ns;
        creds.capable_in(ns, CAP_SYS_ADMIN) || creds.capable_in(ns, CAP_CHECKPOINT_RESTORE)
    };
    if io.task.is_some_and(|task| !may(&task.credentials())) {
        return Err(Errno::EPERM);
    }
    Ok(LinkTarget::Jump(mapped.file()?.path().clone()))
}

fn find_mapped(subject: &Subject, parent: u64, name: &[u8]) -> Result<Arc<dyn Inode>> {
    let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
    let (start, end) = text.split_once('-').ok_or(Errno::ENOENT)?;
    let parse = |digits: &str| {
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        u64::from_str_radix(digits, 16).ok().filter(|_| canonical).ok_or(Errno::ENOENT)
    };
    let mapped = Mapped { subject: subject.clone(), start: parse(start)?, end: parse(end)? };
    mapped.file().map_err(|_| Errno::ENOENT)?;
    Ok(Node::new(mapped, &MAPPED, child_ino(parent, name, 0)))
}

fn list_mapped(
    subject: &Subject,
    parent: u64,
    io: &Io<'_>,
    from: u64,
    receive: &mut Receive<'_>,
) -> Result<()> {
    subject.check(io)?;
    let Some(mm) = subject.memory()? else { return Ok(()) };
    for entry in mm.maps() {
        // Pages as positions, so that they stay when others come and go.
        let position = entry.start / platform::PAGE_SIZE;
        if position < from || !matches!(entry.name, MapName::File(_)) {
            continue;
        }
        let name = format!("{:x}-{:x}", entry.start, entry.end);
        if !receive(position, name.as_bytes(), child_ino(parent, name.as_bytes(), 0), FileType::Symlink) {
            break;
        }
    }
    Ok(())
}
