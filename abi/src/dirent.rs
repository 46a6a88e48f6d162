//! Directory entries (`dirent.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

pub const DT_UNKNOWN: u8 = 0;
pub const DT_FIFO: u8 = 1;
pub const DT_CHR: u8 = 2;
pub const DT_DIR: u8 = 4;
pub const DT_BLK: u8 = 6;
pub const DT_REG: u8 = 8;
pub const DT_LNK: u8 = 10;
pub const DT_SOCK: u8 = 12;
pub const DT_WHT: u8 = 14;

/// The offset of `d_name` in `struct linux_dirent64`; the type is the byte before.
pub const DIRENT64_NAME_OFFSET: usize = 19;
/// The offset of `d_name` in `struct linux_dirent`; the type is the record's last byte.
pub const DIRENT_NAME_OFFSET: usize = 18;

/// The length of a getdents64(2) record with a name of `name_len` bytes.
pub const fn dirent64_len(name_len: usize) -> usize {
    (DIRENT64_NAME_OFFSET + name_len + 1).next_multiple_of(8)
}

/// The length of a getdents(2) record with a name of `name_len` bytes.
pub const fn dirent_len(name_len: usize) -> usize {
    (DIRENT_NAME_OFFSET + name_len + 2).next_multiple_of(8)
}

/// Appends a `struct linux_dirent64`. `off` is the position that a later lseek(2) can resume from; `name` is at most
/// NAME_MAX bytes and has no NUL.
pub fn encode_dirent64(buf: &mut Vec<u8>, ino: u64, off: i64, dtype: u8, name: &[u8]) {
    let len = dirent64_len(name.len());
    let end = buf.len() + len;
    buf.extend_from_slice(&ino.to_le_bytes());
    buf.extend_from_slice(&off.to_le_bytes());
    buf.extend_from_slice(&(len as u16).to_le_bytes());
    buf.push(dtype);
    buf.extend_from_slice(name);
    buf.resize(end, 0);
}

/// Appends a `struct linux_dirent` of the old getdents(2), which keeps the type in its last byte.
pub fn encode_dirent(buf: &mut Vec<u8>, ino: u64, off: i64, dtype: u8, name: &[u8]) {
    let len = dirent_len(name.len());
    let end = buf.len() + len;
    buf.extend_from_slice(&ino.to_le_bytes());
    buf.extend_from_slice(&off.to_le_bytes());
    buf.extend_from_slice(&(len as u16).to_le_bytes());
    buf.extend_from_slice(name);
    buf.resize(end - 1, 0);
    buf.push(dtype);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirent64_records_are_aligned_and_terminated() {
        let mut buf = Vec::new();
        encode_dirent64(&mut buf, 7, 1, DT_DIR, b"abcd");
        assert_eq!(buf.len(), 24);
        encode_dirent64(&mut buf, 8, 2, DT_REG, b"abcde");
        assert_eq!(buf.len(), 24 + 32, "19 + 5 + NUL does not fit 24");
        let second = &buf[24..];
        assert_eq!(second[..8], 8u64.to_le_bytes());
        assert_eq!(second[8..16], 2u64.to_le_bytes());
        assert_eq!(second[16..18], 32u16.to_le_bytes());
        assert_eq!(second[18], DT_REG);
        assert_eq!(second[19..], *b"abcde\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn old_records_end_with_the_type() {
        let mut buf = Vec::new();
        encode_dirent(&mut buf, 7, 1, DT_LNK, b"abcd");
        assert_eq!((buf.len(), buf[16], buf[23]), (24, 24, DT_LNK));
        assert_eq!(buf[18..23], *b"abcd\0");
        encode_dirent(&mut buf, 7, 1, DT_LNK, b"abcde");
        assert_eq!(buf.len(), 24 + 32);
    }
}
