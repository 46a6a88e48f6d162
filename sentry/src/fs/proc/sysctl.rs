//! `/proc/sys`: kernel parameters (sysctl(8), fs/proc/proc_sysctl.c, kernel/sysctl.c).
//!
//! What is shown belongs to the namespaces of whoever reads, not to those of the mount. A parameter whose range has one
//! value only can be written, but not changed: what it tells is how things are here.

mod tables;

use std::sync::Arc;

use abi::capability::{CAP_CHECKPOINT_RESTORE, CAP_NET_ADMIN, CAP_SYS_ADMIN};
use abi::utsname::__NEW_UTS_LEN;
use abi::{Errno, Result};

use super::Instance;
use crate::Kernel;
use crate::fs::synthetic::{Content, Context, Kind, Node, Request, parse_number};
use crate::parameters::{Parameter, Parameters, Scope};
use crate::task::namespaces::Namespaces;
use crate::task::{Credentials, Task};
use crate::vfs::permission::{READ, WRITE};
use crate::vfs::{Inode, Io};

/// The parameters as a mount shows them.
#[derive(Clone)]
pub(super) struct Sysctl {
    instance: Arc<Instance>,
    scope: Scope,
}

/// The directory `sys`.
pub(super) fn root(instance: &Arc<Instance>, ino: u64) -> Arc<dyn Inode> {
    Node::new(Sysctl { instance: instance.clone(), scope: Scope::System }, &tables::SYS, ino)
}

/// The directory `sys/net`.
fn net(sysctl: &Sysctl, ino: u64) -> Arc<dyn Inode> {
    Node::new(Sysctl { instance: sysctl.instance.clone(), scope: Scope::Net }, &tables::NET, ino)
}

impl Sysctl {
    fn kernel(&self) -> &Arc<Kernel> {
        &self.instance.kernel
    }
}

impl Context for Sysctl {
    /// test_perm(): by the mode alone. Root is whoever has kernel uid 0; no capability stands in for it, but that over the
    /// network for the parameters of the network.
    fn permission(&self, node: &Node<Sysctl>, creds: &Credentials, mask: u32) -> Result<()> {
        let mode = node.entry().mode;
        let root = creds.user_ns.kernel_uid(0).ok();
        let owner = creds.euid == 0
            || self.scope == Scope::Net && (creds.capable(CAP_NET_ADMIN) || Some(creds.euid) == root);
        let granted = match owner {
            true => mode >> 6,
            false if creds.in_egroup(0) => mode >> 3,
            false => mode,
        };
        let is_dir = matches!(node.entry().kind, Kind::Directory(..) | Kind::Tree(_));
        let asked = if is_dir { mask } else { mask & (READ | WRITE) };
        if asked & !granted & 7 == 0 { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// Calls `f` with the values of what `parameter` belongs to.
fn with_values<R>(
    kernel: &Kernel,
    namespaces: Option<&Namespaces>,
    parameter: &Parameter,
    f: impl FnOnce(&Parameters) -> R,
) -> R {
    match (parameter.scope, namespaces) {
        (Scope::Net, Some(namespaces)) => f(&namespaces.net.parameters),
        (Scope::Ipc, Some(namespaces)) => f(&namespaces.ipc.parameters),
        _ => f(&kernel.parameters),
    }
}

impl Content<Sysctl> for Parameter {
    fn read(&self, sysctl: &Sysctl, io: &Io<'_>) -> Result<Vec<u8>> {
        let namespaces = io.task.map(Task::namespaces);
        let values = with_values(sysctl.kernel(), namespaces.as_deref(), self, |of| self.values(of));
        let texts: Vec<String> = values.iter().map(|&v| self.show(v)).collect();
        Ok(format!("{}\n", texts.join("\t")).into_bytes())
    }

    fn write(&self, sysctl: &Sysctl, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        if request.offset != 0 {
            // Only the beginning of a file counts (kernel.sysctl_writes_strict).
            return Err(Errno::EINVAL);
        }
        let namespaces = io.task.map(Task::namespaces);
        if let (Some(task), Some(namespaces)) = (io.task, &namespaces) {
            check_owner(&task.credentials(), self.scope, namespaces)?;
        }
        let new = parse_numbers(self, request.text()?)?;
        with_values(sysctl.kernel(), namespaces.as_deref(), self, |of| self.set(of, &new))
    }

    fn parameter(&self) -> Option<&Parameter> {
        Some(self)
    }
}

/// The mode has let root of any user namespace pass: it must be one that owns the network or IPC namespace.
fn check_owner(creds: &Credentials, scope: Scope, namespaces: &Namespaces) -> Result<()> {
    let user_ns = match scope {
        Scope::System => return Ok(()),
        Scope::Net => &namespaces.net.user_ns,
        Scope::Ipc => &namespaces.ipc.user_ns,
    };
    let owner = creds.euid == 0 || user_ns.kernel_uid(0) == Ok(creds.euid);
    if owner || creds.capable_in(user_ns, CAP_NET_ADMIN) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Numbers with white space between them. EINVAL if there is none, or what is no number.
fn parse_numbers(parameter: &Parameter, text: &str) -> Result<Vec<i64>> {
    let words = text.split(|c: char| c.is_ascii_whitespace()).filter(|w| !w.is_empty());
    let numbers: Vec<i64> = words
        .map(|word| match word.parse::<u64>() {
            Ok(value) if parameter.unsigned => Ok(value as i64),
            _ => parse_number(word).map_err(|_| Errno::EINVAL),
        })
        .collect::<Result<_>>()?;
    if numbers.is_empty() { Err(Errno::EINVAL) } else { Ok(numbers) }
}

/// A text that comes from elsewhere and cannot be written.
struct Shown(fn(&Sysctl, &Io<'_>) -> Result<String>);

impl Content<Sysctl> for Shown {
    fn read(&self, sysctl: &Sysctl, io: &Io<'_>) -> Result<Vec<u8>> {
        Ok(format!("{}\n", (self.0)(sysctl, io)?).into_bytes())
    }

    fn write(&self, _sysctl: &Sysctl, _io: &Io<'_>, _request: &Request<'_>) -> Result<()> {
        Err(Errno::EPERM)
    }
}

/// `kernel.hostname` (true) or `kernel.domainname` of the reader.
struct UtsName(bool);

impl Content<Sysctl> for UtsName {
    fn read(&self, _sysctl: &Sysctl, io: &Io<'_>) -> Result<Vec<u8>> {
        let uts = io.task.ok_or(Errno::EINVAL)?.namespaces().uts.clone();
        let mut name = if self.0 { uts.hostname() } else { uts.domainname() };
        name.push(b'\n');
        Ok(name)
    }

    fn write(&self, _sysctl: &Sysctl, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        let task = io.task.ok_or(Errno::EINVAL)?;
        let uts = task.namespaces().uts.clone();
        let name = request.data.split(|&b| b == b'\n' || b == 0).next().unwrap_or_default();
        let name = name.get(..__NEW_UTS_LEN).unwrap_or(name);
        if self.0 {
            uts.set_hostname(name);
        } else {
            uts.set_domainname(name);
        }
        Ok(())
    }
}

/// `kernel.ns_last_pid`.
struct LastPid;

impl Content<Sysctl> for LastPid {
    fn read(&self, _sysctl: &Sysctl, io: &Io<'_>) -> Result<Vec<u8>> {
        Ok(format!("{}\n", io.task.ok_or(Errno::EINVAL)?.pid_ns().last()).into_bytes())
    }

    fn write(&self, _sysctl: &Sysctl, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        let task = io.task.ok_or(Errno::EINVAL)?;
        let (creds, ns) = (task.credentials(), task.pid_ns());
        let capable = |cap| creds.capable_in(&ns.user_ns, cap);
        if !capable(CAP_CHECKPOINT_RESTORE) && !capable(CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let last = u32::try_from(request.number()?).map_err(|_| Errno::EINVAL)?;
        ns.set_last(last);
        Ok(())
    }
}

/// What only those may set who can restore processes (CAP_CHECKPOINT_RESTORE).
struct Restored(&'static Parameter);

impl Content<Sysctl> for Restored {
    fn read(&self, sysctl: &Sysctl, io: &Io<'_>) -> Result<Vec<u8>> {
        self.0.read(sysctl, io)
    }

    fn write(&self, sysctl: &Sysctl, io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        let task = io.task.ok_or(Errno::EINVAL)?;
        let (creds, ns) = (task.credentials(), task.namespaces().ipc.clone());
        let capable = |cap| creds.capable_in(&ns.user_ns, cap);
        if !capable(CAP_CHECKPOINT_RESTORE) && !capable(CAP_SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        self.0.write(sysctl, io, request)
    }

    fn parameter(&self) -> Option<&Parameter> {
        Some(self.0)
    }
}

/// A number of huge pages: however many are asked for, there are none, as on a machine without a piece of memory that
/// large.
struct NoHugePages;

impl Content<Sysctl> for NoHugePages {
    fn read(&self, _sysctl: &Sysctl, _io: &Io<'_>) -> Result<Vec<u8>> {
        Ok(b"0\n".to_vec())
    }

    fn write(&self, _sysctl: &Sysctl, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        if request.number()? < 0 { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// What can be written to and not read: a number from 1 to `.0`.
struct Trigger(i64);

impl Content<Sysctl> for Trigger {
    fn write(&self, _sysctl: &Sysctl, _io: &Io<'_>, request: &Request<'_>) -> Result<()> {
        // The caches that it would drop are the host's.
        if (1..=self.0).contains(&request.number()?) { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

/// A UUID as text.
fn uuid_text(uuid: [u8; 16]) -> String {
    let hex: Vec<String> = uuid.iter().map(|b| format!("{b:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().concat();
    [part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 16)].join("-")
}

/// Sets a parameter by its name (`net.core.somaxconn`, or with slashes) for a container that is about to start. ENOENT if
/// there is none, EINVAL for bad values.
pub fn set(kernel: &Kernel, namespaces: &Namespaces, name: &str, value: &str) -> Result<()> {
    let separator = if name.contains('/') { '/' } else { '.' };
    let mut names = name.split(separator);
    let mut entries: &[_] = match names.next() {
        Some("net") => table_of(&tables::NET),
        Some(first) => {
            let entry = table_of(&tables::SYS).iter().find(|e| e.name == first).ok_or(Errno::ENOENT)?;
            table_of(entry)
        }
        None => return Err(Errno::ENOENT),
    };
    match name.replace('/', ".").as_str() {
        "kernel.hostname" => {
            namespaces.uts.set_hostname(value.as_bytes());
            return Ok(());
        }
        "kernel.domainname" => {
            namespaces.uts.set_domainname(value.as_bytes());
            return Ok(());
        }
        _ => {}
    }
    for name in names {
        let entry = entries.iter().find(|e| e.name == name).ok_or(Errno::ENOENT)?;
        match entry.kind {
            Kind::File(content) => {
                let parameter = content.parameter().ok_or(Errno::EPERM)?;
                let new = parse_numbers(parameter, value.trim())?;
                return with_values(kernel, Some(namespaces), parameter, |of| parameter.set(of, &new));
            }
            _ => entries = table_of(entry),
        }
    }
    Err(Errno::ENOENT)
}

fn table_of(
    entry: &'static crate::fs::synthetic::Entry<Sysctl>,
) -> &'static [crate::fs::synthetic::Entry<Sysctl>] {
    match entry.kind {
        Kind::Directory(entries, _) => entries,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::parameters;

    /// Every parameter's name is the path at which it is found, and its defaults are in its range.
    #[test]
    fn tables_are_consistent() {
        let mut count = 0;
        let mut todo = vec![(String::new(), &tables::SYS), ("net.".to_string(), &tables::NET)];
        while let Some((prefix, entry)) = todo.pop() {
            for entry in table_of(entry) {
                let name = format!("{prefix}{}", entry.name);
                match entry.kind {
                    Kind::File(content) => {
                        let Some(parameter) = content.parameter() else { continue };
                        assert_eq!(parameter.name, name);
                        let range = parameter.min..=parameter.max;
                        assert!(
                            parameter.unsigned || parameter.default.iter().all(|v| range.contains(v)),
                            "{name}"
                        );
                        count += 1;
                    }
                    Kind::Directory(..) => todo.push((format!("{name}."), entry)),
                    _ => {}
                }
            }
        }
        assert!(count > 100);
    }

    /// docs/parameters.md names those that can be changed without an effect.
    #[test]
    fn the_document_names_what_is_only_remembered() {
        let document = include_str!("../../../../docs/parameters.md");
        let mut named = BTreeSet::new();
        for item in document.split("\n  - ").skip(1) {
            let (directories, names) = item.split_once(':').unwrap();
            let quoted = |text: &'static str| text.split('`').skip(1).step_by(2);
            for directory in quoted(directories) {
                named.extend(quoted(names).map(|name| format!("{directory}.{name}")));
            }
        }
        let effective = |of: &Parameter| parameters::ALL.iter().any(|known| known.name == of.name);
        let mut found = BTreeSet::new();
        let mut todo = vec![&tables::SYS, &tables::NET];
        while let Some(entry) = todo.pop() {
            for entry in table_of(entry) {
                match entry.kind {
                    Kind::File(content) => found.extend(
                        content
                            .parameter()
                            .filter(|of| of.min < of.max && !effective(of) && entry.mode & 0o200 != 0)
                            .map(|of| of.name.to_string()),
                    ),
                    Kind::Directory(..) => todo.push(entry),
                    _ => {}
                }
            }
        }
        assert_eq!(named.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "are none of these");
        assert_eq!(found.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "are missing");
    }

    #[test]
    fn numbers_are_parsed_as_linux_does() {
        let parse = |text| parse_numbers(&crate::parameters::SOMAXCONN, text);
        assert_eq!(parse("1 2\t3"), Ok(vec![1, 2, 3]));
        assert_eq!(parse("0x10"), Ok(vec![16]));
        assert_eq!(parse("-5"), Ok(vec![-5]));
        for bad in ["", "a", "1 b", "1.5", "--1"] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad}");
        }
        assert_eq!(
            parse_numbers(&crate::parameters::SHMMAX, "18446744073692774399"),
            Ok(vec![18446744073692774399u64 as i64])
        );
    }

    #[test]
    fn uuids_have_their_dashes() {
        let uuid = crate::kernel::random_uuid();
        let text = uuid_text(uuid);
        assert_eq!(text.len(), 36);
        assert_eq!(text.chars().filter(|&c| c == '-').count(), 4);
        assert_eq!(text.chars().nth(14), Some('4'));
    }
}
