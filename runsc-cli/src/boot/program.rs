//! Looks a container's program up before it is started: callers of runtimes expect that `create` fails if it is not
//! there, and take its words to tell "not found" (127) from "not permitted" (126).

use std::sync::Arc;

use abi::Errno;
use sentry::task::Credentials;
use sentry::vfs::walk::Walker;
use sentry::vfs::{Io, MountNamespace, WalkFlags, permission};

use super::guest::Process;

/// The PATH of a process that has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether the program is there and may be executed, as far as its name and mode say; the start finds out the rest.
pub fn check(namespace: &Arc<MountNamespace>, creds: &Credentials, process: &Process) -> Result<(), Errno> {
    let walker = Walker { io: Io::default(), creds, namespace, root: namespace.root() };
    let cwd = walker.walk(&walker.root, process.cwd.as_bytes(), WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    let find = |path: &str| {
        let found = walker.walk(&cwd, path.as_bytes(), WalkFlags::FOLLOW)?;
        permission::check_exec(creds, found.mount(), &**found.inode())
    };
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        return find(name);
    }
    let path = process.env.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let mut error = Errno::ENOENT;
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        match find(&format!("{directory}/{name}")) {
            Ok(()) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => error = errno,
        }
    }
    Err(error)
}
