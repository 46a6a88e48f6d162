//! Standard files of a process: those of the host as they are, or a terminal whose other end is a terminal of the host.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use abi::fcntl::OpenFlags;
use abi::tty::Winsize;
use anyhow::{Context, Result, bail};
use nix::sys::stat::fstat;
use nix::unistd::isatty;
use sentry::Kernel;
use sentry::fs::gofer::{Access, GoferFs};
use sentry::fs::tty::HostConsole;
use sentry::task::Credentials;
use sentry::vfs::mount::MountTree;
use sentry::vfs::walk::Walker;
use sentry::vfs::{File, Io, Mount, MountFlags, MountNamespace, Path, SuperBlock, WalkFlags};

use super::guest::Process;
use super::host_file::HostFiles;
use super::mounts;

/// How many standard files there are.
const STANDARD: usize = 3;

/// Standard input, output and error, and what else a process is given.
pub struct Stdio {
    /// The open files, and those that the process has besides: 3 and up.
    pub files: Vec<Arc<File>>,
    /// The terminal that some of them are, and that is to be the process's controlling one.
    pub console: Option<HostConsole>,
}

/// Makes standard files of what a command has given; what follows the first three is passed on as it is.
pub fn open(
    kernel: &Arc<Kernel>,
    namespace: &Arc<MountNamespace>,
    host_files: &HostFiles,
    process: &Process,
    mut fds: Vec<OwnedFd>,
) -> Result<Stdio> {
    if fds.len() < STANDARD {
        bail!("three standard files are wanted");
    }
    let directories = take_directories(process, &mut fds)?;
    if !process.terminal {
        let files = host_files.open(fds).context("opening the standard files")?;
        return Ok(Stdio { files, console: None }.with(directories));
    }
    if !isatty(&fds[0])? {
        bail!("the process wants a terminal, and its standard input is none");
    }
    let preserved = host_files.open(fds.split_off(STANDARD)).context("opening the preserved files")?;
    // What leads elsewhere, such as a log, stays as it is.
    let terminal = fstat(&fds[0])?.st_rdev;
    let same = |fd: &OwnedFd| isatty(fd).unwrap_or(false) && fstat(fd).is_ok_and(|s| s.st_rdev == terminal);
    let is_terminal: Vec<bool> = fds.iter().map(same).collect();
    let output = fds.iter().zip(&is_terminal).rev().find_map(|(fd, is)| is.then_some(fd));
    let output = output.unwrap_or(&fds[0]).try_clone().context("dup")?;
    let input = fds[0].try_clone().context("dup")?;
    let mut winsize = size_of(&input).unwrap_or_default();
    if let (0, Some((rows, columns))) = (winsize.ws_row, process.console_size) {
        winsize = Winsize { ws_row: rows, ws_col: columns, ..winsize };
    }
    let place = find(kernel, namespace, "/dev/pts");
    let owner = (kernel.user_ns.kernel_uid(process.uid)?, kernel.user_ns.kernel_gid(process.gid)?);
    let console =
        HostConsole::new(kernel, place, owner, (input, output), winsize).context("making the terminal")?;
    let others = fds.into_iter().zip(&is_terminal).filter_map(|(fd, is)| (!is).then_some(fd)).collect();
    let mut others = host_files.open(others).context("opening the standard files")?.into_iter().peekable();
    let mut files = Vec::new();
    for is in is_terminal {
        files.push(match others.next_if(|_| !is) {
            Some(other) => other,
            None => console.open().context("opening the terminal")?,
        });
    }
    files.extend(preserved);
    Ok(Stdio { files, console: Some(console) }.with(directories))
}

impl Stdio {
    /// The same with these files at their places, which are in order.
    fn with(mut self, files: Vec<(usize, Arc<File>)>) -> Stdio {
        for (place, file) in files {
            self.files.insert(place.min(self.files.len()), file);
        }
        self
    }
}

/// Opens the directories among what is passed on; the rest stays.
fn take_directories(process: &Process, fds: &mut Vec<OwnedFd>) -> Result<Vec<(usize, Arc<File>)>> {
    let mut open = Vec::new();
    for number in process.directories.iter().map(|number| *number as usize).rev() {
        let earlier = open.last().map_or(fds.len(), |(place, _)| *place);
        if number < STANDARD || number >= earlier {
            bail!("file descriptor {number} is no directory that was passed on");
        }
        let file = directory(fds.remove(number)).with_context(|| format!("file descriptor {number}"))?;
        open.push((number, file));
    }
    open.reverse();
    Ok(open)
}

/// The directory of the host that a gofer serves, by the connection to it. It is the root of a mount that is nowhere:
/// there is nothing above it. The gofer ends with the last use of its files.
fn directory(channel: OwnedFd) -> Result<Arc<File>> {
    let fs = GoferFs::new(Arc::new(gofer::Client::new(channel)), 0, Access::Shared, b"")?;
    let mount = Mount::new(SuperBlock::make(fs), MountFlags::NOSUID | MountFlags::NODEV, b"none");
    let root = mount.root().clone();
    let place = Path::new(mount, root);
    let flags = OpenFlags::O_DIRECTORY;
    let open = place.inode().open(&Io::default(), &place, flags)?;
    Ok(File::new(open, place, flags))
}

/// Makes the terminal of a container's first process appear as `/dev/console`, as runc does.
pub fn bind_console(
    kernel: &Arc<Kernel>,
    namespace: &Arc<MountNamespace>,
    console: &HostConsole,
) -> Result<()> {
    let own = find(kernel, namespace, "/dev")
        .is_some_and(|dev| matches!(dev.mount().superblock().fs().name(), "tmpfs" | "devtmpfs"));
    let credentials = Credentials::root(kernel.user_ns.clone());
    let walker = Walker { io: Io::default(), creds: &credentials, namespace, root: namespace.root() };
    // Nothing is made in directories of the host for this.
    let at = match own {
        true => mounts::make_place(&walker, "/dev/console", false)?,
        false => match find(kernel, namespace, "/dev/console") {
            Some(at) => at,
            None => return Ok(()),
        },
    };
    let tree: MountTree = namespace.copy_tree(console.place(), false)?;
    namespace.attach(tree, &at)?;
    Ok(())
}

fn find(kernel: &Arc<Kernel>, namespace: &Arc<MountNamespace>, path: &str) -> Option<Path> {
    let credentials = Credentials::root(kernel.user_ns.clone());
    let walker = Walker { io: Io::default(), creds: &credentials, namespace, root: namespace.root() };
    walker.walk(&walker.root, path.as_bytes(), WalkFlags::FOLLOW).ok()
}

/// The size of the window of the host's terminal.
fn size_of(terminal: &OwnedFd) -> Option<Winsize> {
    // SAFETY: all-zero is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let rc = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    let libc::winsize { ws_row, ws_col, ws_xpixel, ws_ypixel } = size;
    (rc == 0).then_some(Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel })
}

/// The window of the host's terminal has a new size.
pub fn update_size(console: &HostConsole) {
    if let Some(Some(size)) = console.with_host(size_of) {
        console.resize(size);
    }
}
