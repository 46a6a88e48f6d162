//! `mounts`, `mountinfo` and `mountstats` (fs/proc_namespace.c).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::fcntl::OpenFlags;
use abi::poll::PollEvents;
use abi::stat::{major, minor};
use abi::{Errno, Result};

use super::subject::Subject;
use crate::fs::synthetic::{Content, Read, TextFile};
use crate::task::CurrentTask;
use crate::vfs::{Dentry, FileOps, Io, Mount, MountFlags, MountNamespace, Path, Sink};
use crate::wait::WaitQueue;

pub(super) fn open_mounts(subject: &Subject, io: &Io<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    open(subject, io, flags, &Read(mounts))
}

pub(super) fn open_mountinfo(subject: &Subject, io: &Io<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    open(subject, io, flags, &Read(mountinfo))
}

pub(super) fn open_mountstats(subject: &Subject, io: &Io<'_>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
    open(subject, io, flags, &Read(mountstats))
}

fn open(
    subject: &Subject,
    io: &Io<'_>,
    flags: OpenFlags,
    content: &'static dyn Content<View>,
) -> Result<Arc<dyn FileOps>> {
    // A task that has ended has no mounts to show.
    let task = subject.living().map_err(|_| Errno::EINVAL)?;
    let view = View { namespace: task.namespaces().mount.clone(), root: task.fs().root() };
    let (namespace, seen) = (view.namespace.clone(), view.namespace.events().into());
    Ok(Arc::new(Watched { text: TextFile::open(view, content, io, flags)?, namespace, seen }))
}

/// The mounts as a process saw them when the file was opened.
#[derive(Clone)]
struct View {
    namespace: Arc<MountNamespace>,
    root: Path,
}

impl crate::fs::synthetic::Context for View {}

/// An open file that poll(2) says has changed when mounts have.
struct Watched {
    text: TextFile<View>,
    namespace: Arc<MountNamespace>,
    seen: AtomicU64,
}

impl FileOps for Watched {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        true
    }

    fn read(&self, io: &Io<'_>, dst: &mut dyn Sink, offset: u64) -> Result<usize> {
        self.text.read(io, dst, offset)
    }

    fn poll(&self, _io: &Io<'_>) -> PollEvents {
        let now = self.namespace.events();
        let mut events = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        if self.seen.swap(now, Ordering::AcqRel) != now {
            events |= PollEvents::POLLERR | PollEvents::POLLPRI;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.namespace.changed)
    }

    fn opened(&self, task: &CurrentTask) {
        self.text.opened(task);
    }
}

/// Appends a name with what separates fields escaped.
fn escape(text: &mut Vec<u8>, name: &[u8], more: &[u8]) {
    for &byte in name {
        if b" \t\n\\".contains(&byte) || more.contains(&byte) {
            text.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            text.push(byte);
        }
    }
}

/// The path of a dentry within its filesystem.
fn path_within(dentry: &Arc<Dentry>) -> Vec<u8> {
    if dentry.superblock().fs().name() == "nsfs" {
        return dentry.name();
    }
    let mut names = Vec::new();
    let mut at = dentry.clone();
    while let Some(parent) = at.parent() {
        names.push(at.name());
        at = parent;
    }
    let mut path = dentry.superblock().fs().subtree().to_vec();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    if dentry.is_unlinked() {
        path.extend_from_slice(b"//deleted");
    }
    path
}

fn mount_options(flags: MountFlags) -> String {
    let names = [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
    ];
    names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect()
}

fn read_write(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

fn filesystem_options(mount: &Mount) -> String {
    let options = mount.superblock().fs().options();
    if options.is_empty() { options } else { format!(",{options}") }
}

impl View {
    /// The mounts below the root, with their places.
    fn visible(&self) -> Vec<(Arc<Mount>, Vec<u8>)> {
        let place = |mount: Arc<Mount>| {
            let at = Path::new(mount.clone(), mount.root().clone());
            let (name, reachable) = at.name_below(&self.root);
            reachable.then_some((mount, name))
        };
        self.namespace.mounts().into_iter().filter_map(place).collect()
    }
}

fn source(mount: &Mount) -> Vec<u8> {
    if mount.source().is_empty() { b"none".to_vec() } else { mount.source().to_vec() }
}

fn mounts(view: &View, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (mount, place) in view.visible() {
        escape(&mut text, &source(&mount), b"#");
        text.push(b' ');
        escape(&mut text, &place, b"");
        text.push(b' ');
        escape(&mut text, mount.superblock().fs().name().as_bytes(), b"#");
        let flags = mount.flags();
        let options = filesystem_options(&mount);
        let line = format!(" {}{}{options} 0 0\n", read_write(mount.is_read_only()), mount_options(flags));
        text.extend_from_slice(line.as_bytes());
    }
    Ok(text)
}

fn mountinfo(view: &View, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (mount, place) in view.visible() {
        let dev = mount.superblock().dev();
        // The root of a namespace hangs on something that nobody sees.
        let parent = mount.parent().map_or(1, |parent| parent.mount().id());
        let head = format!("{} {parent} {}:{} ", mount.id(), major(dev), minor(dev));
        text.extend_from_slice(head.as_bytes());
        escape(&mut text, &path_within(mount.root()), b"");
        text.push(b' ');
        escape(&mut text, &place, b"");
        let flags = mount.flags();
        let mut middle = format!(" {}{}", read_write(mount.is_read_only()), mount_options(flags));
        let propagation = mount.propagation();
        if propagation.group != 0 {
            middle.push_str(&format!(" shared:{}", propagation.group));
        }
        if propagation.master != 0 {
            middle.push_str(&format!(" master:{}", propagation.master));
        }
        if propagation.unbindable {
            middle.push_str(" unbindable");
        }
        middle.push_str(" - ");
        text.extend_from_slice(middle.as_bytes());
        escape(&mut text, mount.superblock().fs().name().as_bytes(), b"#");
        text.push(b' ');
        escape(&mut text, &source(&mount), b"#");
        text.extend_from_slice(format!(" rw{}\n", filesystem_options(&mount)).as_bytes());
    }
    Ok(text)
}

fn mountstats(view: &View, _io: &Io<'_>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (mount, place) in view.visible() {
        text.extend_from_slice(b"device ");
        escape(&mut text, &source(&mount), b"#");
        text.extend_from_slice(b" mounted on ");
        escape(&mut text, &place, b"");
        text.extend_from_slice(b" with fstype ");
        escape(&mut text, mount.superblock().fs().name().as_bytes(), b"#");
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped() {
        let mut text = Vec::new();
        escape(&mut text, b"a b\tc\\d\ne#f", b"#");
        assert_eq!(text, br"a\040b\011c\134d\012e\043f");
    }
}
