//! What outlives a sandbox: a page of its state directory in which the sentry writes how the container ended.
//!
//! The sentry maps the file while it starts and closes it: afterwards it can change these bytes and nothing else, so
//! that not even a compromised sentry can fill the host's state directory. Readers therefore believe nothing about
//! the contents: numbers are checked, text is cleaned.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use memmap2::MmapMut;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of the file.
const SIZE: usize = 4096;
/// Offset of the text: after the lock-free words.
const TEXT: usize = 16;

/// How a guest process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// It called exit with this code.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
}

impl ExitStatus {
    /// As a shell reports it: 128 and the signal's number for a kill.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => i32::from(code),
            ExitStatus::Killed(signo) => 128 + i32::from(signo & 127),
        }
    }
}

/// Makes the file, all zeros.
pub fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    // Written rather than left a hole: a full disk is found here, not by a SIGBUS in the sentry.
    std::io::Write::write_all(&mut &file, &[0; SIZE])
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(file)
}

/// What a sentry left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How the container's first process ended, if it did.
    pub exit: Option<ExitStatus>,
    /// Why the sentry gave up, if it could say.
    pub last_words: Option<String>,
}

/// Reads the file; an absent one says nothing.
pub fn read(path: &Path) -> Record {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(SIZE as u64).read_to_end(&mut bytes);
    }
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let exit = match word(0).to_ne_bytes() {
        [1, code, ..] => Some(ExitStatus::Exited(code)),
        [2, signo, ..] if (1..=64).contains(&signo) => Some(ExitStatus::Killed(signo)),
        _ => None,
    };
    let text: String = String::from_utf8_lossy(bytes.get(TEXT..).unwrap_or_default())
        .chars()
        .take_while(|c| *c != '\0')
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let denied = word(4);
    let last_words = if denied != 0 {
        let number = denied - 1;
        Some(match abi::sysno::name(u64::from(number)) {
            Some(name) => format!("the sentry made a host call that it is denied: {name}"),
            None => format!("the sentry made a host call that it is denied: number {number}"),
        })
    } else {
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    Record { exit, last_words }
}

static PAGE: OnceLock<Page> = OnceLock::new();

struct Page {
    /// The two words, for a signal handler and the exit path.
    words: &'static [AtomicU32; 2],
    text: Mutex<&'static mut [u8]>,
}

/// In the sentry: maps the file for the rest of this process's life.
pub fn open(file: File) -> Result<()> {
    // SAFETY: nobody truncates the file: it is ours and the command's, and `create` made it SIZE bytes long. What
    // others may write to it meanwhile is harmless: words are atomic, and the text is only written here.
    let map = unsafe { MmapMut::map_mut(&file) }.context("mapping the record file")?;
    let bytes = Box::leak(Box::new(map));
    let (words, text) = bytes.split_at_mut(TEXT);
    // SAFETY: a mapping is page-aligned and `words` has room for two words; it is leaked, so it lives for ever, and
    // `text` does not overlap it.
    let words = unsafe { &*(words.as_ptr().cast::<[AtomicU32; 2]>()) };
    let _ = PAGE.set(Page { words, text: Mutex::new(text) });
    Ok(())
}

/// In the sentry: says how the container's first process ended.
pub fn set_exit(status: ExitStatus) {
    let word = match status {
        ExitStatus::Exited(code) => [1, code, 0, 0],
        ExitStatus::Killed(signo) => [2, signo, 0, 0],
    };
    if let Some(page) = PAGE.get() {
        page.words[0].store(u32::from_ne_bytes(word), Ordering::Release);
    }
}

/// In the sentry's SIGSYS handler: names the host call that was denied. Async-signal-safe.
pub fn set_denied(number: u32) {
    if let Some(page) = PAGE.get() {
        page.words[1].store(number.saturating_add(1), Ordering::Release);
    }
}

/// In the sentry: says why it gives up. The first to speak is heard.
pub fn set_last_words(words: &str) {
    if let Some(page) = PAGE.get() {
        let mut text = page.text.lock();
        if text.first() == Some(&0) {
            for (to, from) in text.iter_mut().zip(words.bytes()) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        assert_eq!(read(&path), Record::default());
        let file = create(&path).unwrap();
        assert_eq!(read(&path), Record::default());
        open(file).unwrap();
        set_exit(ExitStatus::Killed(9));
        set_last_words("a\nb");
        set_last_words("too late");
        assert_eq!(read(&path), Record { exit: Some(ExitStatus::Killed(9)), last_words: Some("a b".into()) });
        set_denied(libc::SYS_openat as u32);
        assert_eq!(read(&path).last_words.unwrap(), "the sentry made a host call that it is denied: openat");
    }

    #[test]
    fn a_forged_record_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        for bytes in [&[9u8, 9, 9][..], &[2, 200, 0, 0], &[0xff; 4096], &[0xff; 9000]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path).exit, None);
        }
    }
}
