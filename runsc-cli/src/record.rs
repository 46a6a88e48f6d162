//! What outlives a sandbox: a page of each container's state directory in which the sentry writes whether the container
//! was started, and how it ended.
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

use anyhow::{Context, Result, bail};
use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Bytes of the file.
const SIZE: usize = 4096;
/// Offset of the text: after the lock-free words.
const TEXT: usize = 16;

/// The lock-free words, by their place.
#[derive(Clone, Copy)]
enum Word {
    /// How the first process ended.
    Exit,
    /// One more than the number of the host call that was denied.
    Denied,
    /// Whether the first process was started.
    Started,
}

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
    /// The container's first process was started.
    pub started: bool,
    /// Why the sentry gave up, if it could say.
    pub last_words: Option<String>,
}

/// Reads the file; an absent one says nothing.
pub fn read(path: &Path) -> Record {
    File::open(path).map_or_else(|_| Record::default(), |file| read_file(&file))
}

/// Reads the open file.
pub fn read_file(file: &File) -> Record {
    let mut bytes = Vec::new();
    let _ = file.take(SIZE as u64).read_to_end(&mut bytes);
    let word = |word: Word| {
        bytes
            .get(word as usize * 4..)
            .and_then(|b| b.get(..4))
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    };
    let exit = match word(Word::Exit).to_ne_bytes() {
        [1, code, ..] => Some(ExitStatus::Exited(code)),
        [2, signo, ..] if (1..=64).contains(&signo) => Some(ExitStatus::Killed(signo)),
        _ => None,
    };
    let text: String = String::from_utf8_lossy(bytes.get(TEXT..).unwrap_or_default())
        .chars()
        .take_while(|c| *c != '\0')
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let denied = word(Word::Denied);
    let last_words = if denied != 0 {
        let number = denied - 1;
        Some(match abi::sysno::name(u64::from(number)) {
            Some(name) => format!("the sentry made a host call that it is denied: {name}"),
            None => format!("the sentry made a host call that it is denied: number {number}"),
        })
    } else {
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    Record { exit, last_words, started: word(Word::Started) == 1 }
}

/// The sentry's side of a record.
pub struct Page {
    map: MmapRaw,
    /// Held by who writes text.
    text: Mutex<()>,
}

/// The record of the sandbox's first container, which also takes the last words.
static SANDBOX: OnceLock<Page> = OnceLock::new();

/// In the sentry: maps the file of the sandbox's first container for the rest of this process's life.
pub fn open(file: File) -> Result<()> {
    let _ = SANDBOX.set(Page::open(&file)?);
    Ok(())
}

impl Page {
    /// Maps a file that [`create`] has made.
    pub fn open(file: &File) -> Result<Page> {
        if file.metadata().context("fstat")?.len() < SIZE as u64 {
            bail!("a record file that is too short");
        }
        let map = MmapOptions::new().len(SIZE).map_raw(file).context("mapping the record file")?;
        Ok(Page { map, text: Mutex::default() })
    }

    fn word(&self, word: Word) -> &AtomicU32 {
        // SAFETY: a mapping is page-aligned and has room for more words than there are. Nobody truncates the file: it
        // is ours and the command's. What others write to it meanwhile is harmless, since words are atomic.
        unsafe { &*self.map.as_mut_ptr().cast::<AtomicU32>().add(word as usize) }
    }

    /// Says that the container's first process was started.
    pub fn set_started(&self) {
        self.word(Word::Started).store(1, Ordering::Release);
    }

    /// Says how the container's first process ended.
    pub fn set_exit(&self, status: ExitStatus) {
        let bytes = match status {
            ExitStatus::Exited(code) => [1, code, 0, 0],
            ExitStatus::Killed(signo) => [2, signo, 0, 0],
        };
        self.word(Word::Exit).store(u32::from_ne_bytes(bytes), Ordering::Release);
    }
}

/// Where a container's record is.
pub enum Writer {
    /// In the sandbox's own, which is always there.
    Sandbox,
    /// In one of the container's.
    Container(Page),
}

impl Writer {
    fn page(&self) -> Option<&Page> {
        match self {
            Writer::Sandbox => SANDBOX.get(),
            Writer::Container(page) => Some(page),
        }
    }

    /// See [`Page::set_started`].
    pub fn set_started(&self) {
        self.page().inspect(|page| page.set_started());
    }

    /// See [`Page::set_exit`].
    pub fn set_exit(&self, status: ExitStatus) {
        self.page().inspect(|page| page.set_exit(status));
    }
}

/// In the sentry's SIGSYS handler: names the host call that was denied. Async-signal-safe.
pub fn set_denied(number: u32) {
    if let Some(page) = SANDBOX.get() {
        page.word(Word::Denied).store(number.saturating_add(1), Ordering::Release);
    }
}

/// In the sentry: says why it gives up. The first to speak is heard.
pub fn set_last_words(words: &str) {
    let Some(page) = SANDBOX.get() else { return };
    let _writing = page.text.lock();
    // SAFETY: this part of the mapping is written here alone, under the lock, and read by nobody in this process.
    let text = unsafe { std::slice::from_raw_parts_mut(page.map.as_mut_ptr().add(TEXT), SIZE - TEXT) };
    if text.first() == Some(&0) {
        for (to, from) in text.iter_mut().zip(words.bytes()) {
            *to = from;
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
        Writer::Sandbox.set_started();
        assert!(read(&path).started && read(&path).exit.is_none());
        Writer::Sandbox.set_exit(ExitStatus::Killed(9));
        set_last_words("a\nb");
        set_last_words("too late");
        assert_eq!(
            read(&path),
            Record { exit: Some(ExitStatus::Killed(9)), last_words: Some("a b".into()), started: true }
        );
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
