//! Users and groups of a container, by the files in its root filesystem.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Larger files are not read: they are the container's, and not to be trusted.
const LIMIT: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A user by name or number, with its groups. A number needs no entry.
pub fn look_up(root: &OwnedFd, user: &str) -> Result<Ids> {
    let passwd = read(root, "etc/passwd")?;
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse::<u32>().ok()?;
        let gid = fields.next()?.parse::<u32>().ok()?;
        (name == user || number == Some(uid)).then(|| (name.to_owned(), uid, gid))
    });
    match (entry, number) {
        (Some((name, uid, gid)), _) => {
            Ok(Ids { uid, gid, groups: groups_of(&read(root, "etc/group")?, &name) })
        }
        (None, Some(uid)) => Ok(Ids { uid, ..Ids::default() }),
        (None, None) => bail!("user {user:?} is not in the container's /etc/passwd"),
    }
}

/// A group by name or number.
pub fn group(root: &OwnedFd, group: &str) -> Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    read(root, "etc/group")?
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == group).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
        .ok_or_else(|| anyhow!("group {group:?} is not in the container's /etc/group"))
}

fn groups_of(file: &str, user: &str) -> Vec<u32> {
    file.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == user).then_some(gid)
        })
        .collect()
}

/// A file below the root, without following links out of it; an absent one is empty.
fn read(root: &OwnedFd, path: &str) -> Result<String> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let fd = match openat2(root.as_fd(), path, how) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(errno) => {
            return Err(errno).with_context(|| format!("opening the container's /{path}"));
        }
    };
    let mut text = Vec::new();
    std::fs::File::from(fd)
        .take(LIMIT)
        .read_to_end(&mut text)
        .with_context(|| format!("reading the container's /{path}"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        assert!(look_up(&root(), "bob").is_err());
        std::fs::write(etc.join("passwd"), "broken\nbob:x:1000:100:Bob:/home/bob:/bin/sh\n").unwrap();
        std::fs::write(etc.join("group"), "users:x:100:\nwheel:x:10:eve,bob\n").unwrap();
        let bob = Ids { uid: 1000, gid: 100, groups: vec![10] };
        assert_eq!(look_up(&root(), "bob").unwrap(), bob);
        assert_eq!(look_up(&root(), "1000").unwrap(), bob);
        assert_eq!(look_up(&root(), "7").unwrap(), Ids { uid: 7, ..Ids::default() });
        assert_eq!(group(&root(), "wheel").unwrap(), 10);
        assert!(group(&root(), "nobody").is_err());
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        let root = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        assert!(look_up(&root, "root").is_err());
    }
}
