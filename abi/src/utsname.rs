//! The name of the system (`utsname.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

/// The longest node and domain name, without NUL.
pub const __NEW_UTS_LEN: usize = 64;

layout! {
    /// `struct new_utsname`. Each field is a string padded with NULs.
    struct Utsname[390] {
        sysname: [u8; 65], nodename: [u8; 65], release: [u8; 65], version: [u8; 65], machine: [u8; 65],
        domainname: [u8; 65],
    }
}

/// A field of [`Utsname`]: the first 64 bytes of `text`, padded with NULs.
pub fn field(text: &[u8]) -> [u8; 65] {
    let mut field = [0; 65];
    for (to, from) in field.iter_mut().zip(text.iter().take(__NEW_UTS_LEN)) {
        *to = *from;
    }
    field
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_always_end_in_nul() {
        assert_eq!(super::field(b"Linux")[..6], *b"Linux\0");
        let long = super::field(&[b'x'; 100]);
        assert_eq!((long[63], long[64]), (b'x', 0));
    }
}
