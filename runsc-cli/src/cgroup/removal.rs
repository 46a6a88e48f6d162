//! Removing groups: with those below, and the empty ones above that runsc has made.
//!
//! A group that has processes cannot be removed, and the host takes its time to bury them. One above a container's may
//! be made for one container and be used by another: a mark (an extended attribute) says that it is runsc's to remove.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long it is waited for the processes of a group.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The mark: for root, and for others where user attributes are possible (Linux 5.7).
const MARKS: [&CStr; 2] = [c"trusted.runsc.made", c"user.runsc.made"];

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// Says that runsc has made a group that containers are put below. One that cannot be marked is known to the container
/// that it was made for.
pub fn mark(group: &Path) {
    let Some(path) = c_path(group) else { return };
    for name in MARKS {
        // SAFETY: two zero-terminated strings, and one byte of data with its length.
        let rc = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), c"1".as_ptr().cast(), 1, 0) };
        if rc == 0 {
            return;
        }
    }
}

fn is_marked(group: &Path) -> bool {
    let Some(path) = c_path(group) else { return false };
    MARKS.iter().any(|name| {
        // SAFETY: two zero-terminated strings; a size of zero asks for the length alone.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
    })
}

/// Removes a group, with all below it, and those above it that are empty and marked, or among `parents`.
pub fn remove(group: &Path, limit: Instant, parents: &BTreeSet<PathBuf>) -> Result<()> {
    if is_root(group) {
        return Ok(());
    }
    remove_tree(group, limit)?;
    for above in group.ancestors().skip(1) {
        if !is_marked(above) && !parents.contains(above) {
            break;
        }
        match std::fs::remove_dir(above) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // Who made them may have been killed before they were marked.
                above.ancestors().filter(|above| parents.contains(*above)).for_each(mark);
                break;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether it is a whole hierarchy, which a configuration may name, and which is the host's.
pub fn is_root(group: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let here = device(group);
    here.is_some() && here != group.parent().and_then(device)
}

fn remove_tree(group: &Path, limit: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        let error = match std::fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::ResourceBusy {
            return Err(error.into());
        }
        for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path(), limit)?;
            }
        }
        if Instant::now() >= limit {
            let still = processes(group);
            return Err(match still.is_empty() {
                true => error.into(),
                false => anyhow!(error).context(format!("processes are in it: {}", still.join(", "))),
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The processes of a group, with their names and states.
pub fn processes(group: &Path) -> Vec<String> {
    let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let name = |pid: &str| {
        // Its name in parentheses and its state.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let end = stat.rfind(')').map_or(0, |end| end + 3);
        stat.get(..end).filter(|text| !text.is_empty()).unwrap_or(pid).to_owned()
    };
    pids.lines().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_with_the_last_that_needs_it() {
        let top = Path::new("/sys/fs/cgroup");
        let name = format!("runsc-test-removal-{}", std::process::id());
        let Some(parent) = ["pids", "unified", ""]
            .iter()
            .map(|controller| top.join(controller).join(&name))
            .find(|path| std::fs::create_dir(path).is_ok())
        else {
            println!("skipped: no cgroups can be made here");
            return;
        };
        mark(&parent);
        if !is_marked(&parent) {
            println!("skipped: groups cannot be marked here");
            std::fs::remove_dir(parent).unwrap();
            return;
        }
        let (one, other) = (parent.join("one"), parent.join("other"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir_all(other.join("below/it")).unwrap();
        let soon = || Instant::now() + Duration::from_millis(50);
        let none = BTreeSet::new();
        // A process keeps a group, and is named.
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(one.join("cgroup.procs"), child.id().to_string()).unwrap();
        let said = crate::report::line(&remove(&one, soon(), &none).unwrap_err());
        child.kill().unwrap();
        child.wait().unwrap();
        remove(&one, Instant::now() + LIMIT, &none).unwrap();
        let kept = parent.exists();
        remove(&other, soon(), &none).unwrap();
        assert!(said.contains(&format!("{} (sleep) S", child.id())), "{said}");
        assert!(kept && !parent.exists());
        // Those of the host stay.
        remove(parent.parent().unwrap(), soon(), &none).unwrap();
    }
}
