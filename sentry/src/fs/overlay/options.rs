//! Mount options of an overlay.

use std::sync::Arc;

use abi::{Errno, Result};

use super::{Layer, Overlay, Upper};
use crate::vfs::{FileSystem, Inode, NewInode, NewKind, Path};

/// What mount(2) is given as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    lowers: Vec<Vec<u8>>,
    upper: Option<Vec<u8>>,
    work: Option<Vec<u8>>,
}

/// Splits at a separator that has no backslash in front; a backslash before a separator goes.
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    for &byte in text {
        if byte != separator {
            part.push(byte);
        } else if part.last() == Some(&b'\\') {
            part.pop();
            part.push(byte);
        } else {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    parts
}

impl Options {
    /// EINVAL for what is unknown, and for features that are not there.
    fn parse(data: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        for option in split(data, b',').iter().filter(|option| !option.is_empty()) {
            let (key, value) = match option.iter().position(|&b| b == b'=') {
                Some(at) => (option.get(..at).unwrap_or_default(), option.get(at + 1..).unwrap_or_default()),
                None => (&option[..], &[][..]),
            };
            let path = || if value.is_empty() { Err(Errno::EINVAL) } else { Ok(value.to_vec()) };
            match (key, value) {
                (b"lowerdir", _) => options.lowers = split(value, b':'),
                (b"upperdir", _) => options.upper = Some(path()?),
                (b"workdir", _) => options.work = Some(path()?),
                (b"index" | b"nfs_export" | b"metacopy", b"off") => {}
                (b"redirect_dir", b"off" | b"nofollow") => {}
                (b"xino", b"off" | b"auto" | b"on") | (b"uuid", _) | (b"volatile", b"") => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        if options.lowers.is_empty() || options.lowers.iter().any(Vec::is_empty) {
            return Err(Errno::EINVAL);
        }
        Ok(options)
    }
}

impl Overlay {
    /// mount(2) of an overlay over directories of the guest's, which `resolve` finds. EINVAL for bad options, or
    /// layers that cannot be used.
    pub fn mount(data: &[u8], resolve: impl Fn(&[u8]) -> Result<Path>) -> Result<Arc<dyn FileSystem>> {
        let options = Options::parse(data)?;
        let layer = |path: &Vec<u8>| {
            let path = resolve(path)?;
            if !path.dentry().is_dir() {
                return Err(Errno::ENOTDIR);
            }
            Ok((Layer { fs: path.dentry().superblock().fs().clone(), root: path.inode().clone() }, path))
        };
        let lowers = options.lowers.iter().map(|path| layer(path).map(|(layer, _)| layer));
        let lowers = lowers.collect::<Result<Vec<_>>>()?;
        let upper = match (&options.upper, &options.work) {
            (None, _) => None,
            // Without a work directory there is nothing to write with.
            (Some(_), None) => return Err(Errno::EINVAL),
            (Some(upper), Some(work)) => {
                let ((upper, upper_path), (work, work_path)) = (layer(upper)?, layer(work)?);
                let same = Arc::ptr_eq(upper_path.mount(), work_path.mount());
                let (a, b) = (upper_path.dentry(), work_path.dentry());
                // An overlay takes no whiteouts, so it cannot be an upper layer.
                if !same || a.is_below(b) || b.is_below(a) || upper.fs.name() == "overlay" {
                    return Err(Errno::EINVAL);
                }
                // It can still be seen by itself, and must look like what it is.
                upper.fs.become_layer();
                Some(Upper { layer: upper, work: work_dir(&work.root)? })
            }
        };
        Ok(Overlay::new(upper, lowers)?)
    }
}

/// The directory `work` of a work directory.
fn work_dir(dir: &Arc<dyn Inode>) -> Result<Arc<dyn Inode>> {
    match dir.lookup(b"work") {
        Err(Errno::ENOENT) => {
            dir.create(b"work", &NewInode { kind: NewKind::Directory, mode: 0, uid: 0, gid: 0 })
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_and_unescaped() {
        let parse = |text: &str| Options::parse(text.as_bytes());
        let bytes = |text: &str| text.as_bytes().to_vec();
        let options = parse(r"lowerdir=/a:/b\:c:/d\,e,upperdir=/u\,v,workdir=/w,xino=off").unwrap();
        assert_eq!(options.lowers, [bytes("/a"), bytes("/b:c"), bytes("/d,e")]);
        assert_eq!((options.upper, options.work), (Some(bytes("/u,v")), Some(bytes("/w"))));
        for bad in [
            "",
            "lowerdir=",
            "lowerdir=/a::/b",
            "upperdir=/u,workdir=/w",
            "lowerdir=/a,foo",
            "lowerdir=/a,upperdir=",
        ] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad}");
        }
        assert_eq!(parse("lowerdir=/a,redirect_dir=on"), Err(Errno::EINVAL));
    }
}
