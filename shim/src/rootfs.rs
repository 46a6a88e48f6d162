//! Mounts the root filesystem that containerd's snapshotter describes.

use std::ffi::CString;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use containerd_shim_protos::api::Mount;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_remount, move_mount, unmount,
};

/// What the kernel takes as options of one mount(2), a page, with some room for what it adds.
const MAX_DATA: usize = 4096 - 512;

/// Mounts them over one another on `target`. On a failure nothing stays mounted.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(target).with_context(|| format!("creating {target:?}"))?;
    for mount in mounts {
        let place = target.join(mount.target.trim_start_matches('/'));
        let place = if mount.target.is_empty() { target } else { &place };
        let what = || format!("mounting {} {:?} on {place:?}", mount.type_, mount.source);
        if let Err(error) = mount_one(mount, place) {
            unmount_all(target);
            return Err(error).with_context(what);
        }
    }
    Ok(())
}

/// Removes every mount from `target`.
pub fn unmount_all(target: &Path) {
    // Until it is no mount point, or not there.
    while unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

fn mount_one(what: &Mount, target: &Path) -> io::Result<()> {
    let (flags, data) = parse_options(&what.options);
    if what.type_ == "overlay" && data.len() > MAX_DATA {
        return mount_many_layers(&what.source, flags, &data, target);
    }
    let data = CString::new(data)?;
    let read_only_bind = MountFlags::BIND | MountFlags::RDONLY;
    mount(what.source.as_str(), target, what.type_.as_str(), flags, data.as_c_str())?;
    if flags.contains(read_only_bind) {
        // The first call of a bind mount looks at no other flag.
        mount_remount(target, flags, c"")?;
    }
    Ok(())
}

/// An overlay whose layers are too many for one call's options.
fn mount_many_layers(source: &str, flags: MountFlags, data: &str, target: &Path) -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    for option in data.split(',') {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    fsconfig_set_string(&context, "lowerdir+", layer)?;
                }
            }
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option)?,
        }
    }
    let attributes = match flags.contains(MountFlags::RDONLY) {
        true => MountAttrFlags::MOUNT_ATTR_RDONLY,
        false => MountAttrFlags::empty(),
    };
    fsconfig_create(&context)?;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&made, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Options that are flags of mount(2), and the others joined for the filesystem.
fn parse_options(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        let (flag, set) = match option.as_str() {
            "bind" => (MountFlags::BIND, true),
            "rbind" => (MountFlags::BIND | MountFlags::REC, true),
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "noatime" => (MountFlags::NOATIME, true),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "relatime" => (MountFlags::RELATIME, true),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "defaults" | "async" | "atime" => (MountFlags::empty(), true),
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, set);
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_from_options_of_the_filesystem() {
        let options = ["rbind", "ro", "index=off", "lowerdir=/a:/b"].map(str::to_owned);
        let (flags, data) = parse_options(&options);
        assert_eq!(flags, MountFlags::BIND | MountFlags::REC | MountFlags::RDONLY);
        assert_eq!(data, "index=off,lowerdir=/a:/b");
    }

    #[test]
    fn a_failed_mount_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("rootfs");
        let bad = Mount { type_: "no-such-filesystem".into(), source: "x".into(), ..Default::default() };
        let error = mount_all(&[bad], &target).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-filesystem"), "{error:#}");
        unmount_all(&target);
        mount_all(&[], &target).unwrap();
    }
}
