//! What others of the host see who enter the mount namespace of a process of a sandbox.
//!
//! Podman does that to list a container's processes, and to copy files: it expects the files that the container sees. So
//! they get a FUSE filesystem, which the sentry answers for ([`sentry::view`]). It lies on top of the root of the
//! namespace: whoever enters is led to what lies on top, while the process itself stays in the directory underneath.
//! Other managers do not look there, and get nothing for it to cost.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::Spec;

use crate::confine::namespaces::{call, call_int};
use crate::report;

/// By this annotation Podman says that a container is its own.
const MANAGER: (&str, &str) = ("io.container.manager", "libpod");

const FSOPEN_CLOEXEC: i64 = 1;
const FSMOUNT_CLOEXEC: i64 = 1;
const FSCONFIG_SET_FLAG: i64 = 0;
const FSCONFIG_SET_STRING: i64 = 1;
const FSCONFIG_CMD_CREATE: i64 = 6;
const MOVE_MOUNT_F_EMPTY_PATH: i64 = 4;

/// A FUSE filesystem that is not mounted yet.
#[derive(Debug)]
pub struct View {
    /// Where requests come from.
    pub device: OwnedFd,
    /// The mount, attached nowhere.
    pub mount: OwnedFd,
}

impl View {
    /// Makes one, if the container's manager will look for it and the host has what it takes.
    pub fn wanted_by(spec: &Spec) -> Option<View> {
        let manager = spec.annotations().as_ref().and_then(|all| all.get(MANAGER.0));
        if manager.map(String::as_str) != Some(MANAGER.1) {
            return None;
        }
        View::new()
            .inspect_err(|error| tracing::debug!("no view of the container: {}", report::line(error)))
            .ok()
    }

    /// The filesystem belongs to the caller's user namespace: processes of another one, such as the sentry's, could not
    /// let the caller's in.
    fn new() -> Result<View> {
        let device: OwnedFd =
            File::options().read(true).write(true).open("/dev/fuse").context("/dev/fuse")?.into();
        let context =
            call(libc::SYS_fsopen, [c"fuse".as_ptr() as i64, FSOPEN_CLOEXEC, 0, 0, 0]).context("fsopen")?;
        let configure = |command: i64, key: Option<&CStr>, value: Option<&CStr>| {
            let pointer = |text: Option<&CStr>| text.map_or(0, |text| text.as_ptr() as i64);
            let args = [context.as_raw_fd().into(), command, pointer(key), pointer(value), 0];
            call_int(libc::SYS_fsconfig, args).with_context(|| format!("fsconfig({key:?})"))
        };
        let numbers = [
            (c"fd", device.as_raw_fd().to_string()),
            (c"user_id", geteuid().to_string()),
            (c"group_id", getegid().to_string()),
            // A directory; in octal digits.
            (c"rootmode", "40000".to_owned()),
            (c"source", "runsc".to_owned()),
        ];
        for (key, value) in numbers {
            configure(FSCONFIG_SET_STRING, Some(key), Some(&CString::new(value)?))?;
        }
        // Who may come in is for the namespace to say, and what they may do for the modes of the files.
        for key in [c"allow_other", c"default_permissions"] {
            configure(FSCONFIG_SET_FLAG, Some(key), None)?;
        }
        configure(FSCONFIG_CMD_CREATE, None, None)?;
        // A sandbox that was taken over could show anything: a program for root to execute, a device of the host's.
        let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let args = [context.as_raw_fd().into(), FSMOUNT_CLOEXEC, attributes as i64, 0, 0];
        let mount = call(libc::SYS_fsmount, args).context("fsmount")?;
        Ok(View { device, mount })
    }

    /// Puts it on top of the root of the caller's mount namespace, and returns the device; None if that does not work.
    pub fn cover_root(self) -> Option<OwnedFd> {
        match self.attach() {
            Ok(()) => Some(self.device),
            Err(error) => {
                tracing::debug!("no view of the container: {}", report::line(&error));
                None
            }
        }
    }

    fn attach(&self) -> Result<()> {
        let (empty, root) = (c"".as_ptr() as i64, c"/".as_ptr() as i64);
        let mount = self.mount.as_raw_fd().into();
        let args = [mount, empty, libc::AT_FDCWD.into(), root, MOVE_MOUNT_F_EMPTY_PATH];
        call_int(libc::SYS_move_mount, args).context("move_mount")?;
        Ok(())
    }
}

/// Hides the host's files from those who enter the mount namespace of the caller, which must be its own: what they find
/// is the view or, without one, an empty directory. The caller itself sees what it saw.
pub fn cover_root(view: Option<&View>) -> Result<()> {
    let none = None::<&str>;
    // What the host unmounts is to go here, too.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("leaving the host's mounts")?;
    let Some(view) = view else { return cover_root_by_nothing() };
    view.attach().or_else(|error| {
        tracing::debug!("no view of the container: {}", report::line(&error));
        cover_root_by_nothing()
    })
}

fn cover_root_by_nothing() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("none"), "/", Some("tmpfs"), flags, Some("size=4k,nr_inodes=2,mode=555"))
        .context("covering the root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_podman_gets_a_view() {
        let spec = |annotations| {
            let config = serde_json::json!({"ociVersion": "1.0.2", "annotations": annotations});
            crate::spec::parse(config.to_string().as_bytes()).unwrap()
        };
        assert!(View::wanted_by(&spec(serde_json::json!({}))).is_none());
        assert!(View::wanted_by(&spec(serde_json::json!({"io.container.manager": "cri-o"}))).is_none());
    }
}
