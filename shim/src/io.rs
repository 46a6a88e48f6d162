//! Standard files of containers: fifos that containerd made.
//!
//! Without a terminal, the container gets the fifos themselves: nothing is copied, nothing can be lost, and the shim may
//! die. The shim only holds the other ends, so that a reader that goes away for a while (a restart of containerd) is no
//! broken pipe to the container, and a writer that does is no end of file: that is what CloseIO says.
//!
//! With a terminal, the shim copies between its master side and the fifos.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::runsc::ChildStdio;

/// How long the rest of a terminal's output may take to be read by containerd.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What containerd names as standard files: fifos, or `file://` URIs, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// They are those of a terminal.
    pub terminal: bool,
}

/// The shim's part of a process's standard files.
#[derive(Default)]
pub struct Io {
    /// Keeps the fifo of standard input from its end.
    stdin: Option<File>,
    /// Keep the fifos of output from having no reader.
    readers: Vec<File>,
    terminal: Option<Terminal>,
}

struct Terminal {
    master: File,
    input: Option<JoinHandle<()>>,
    output: Option<JoinHandle<()>>,
}

impl Io {
    /// Opens the files for a process without a terminal.
    pub fn open(paths: &Paths) -> Result<(Io, ChildStdio)> {
        let mut held = Io::default();
        let stdin =
            held.open_input(&paths.stdin).with_context(|| format!("standard input {:?}", paths.stdin))?;
        let mut output =
            |path: &str| held.open_output(path).with_context(|| format!("standard output or error {path:?}"));
        let child = ChildStdio { stdin, stdout: output(&paths.stdout)?, stderr: output(&paths.stderr)? };
        Ok((held, child))
    }

    fn open_input(&mut self, path: &str) -> Result<Stdio> {
        if path.is_empty() {
            return Ok(Stdio::null());
        }
        let reader = nonblocking().read(true).open(path)?;
        if is_fifo(&reader)? {
            self.stdin = Some(nonblocking().write(true).open(path)?);
            // That was for the opening.
            rustix::io::ioctl_fionbio(&reader, false)?;
        }
        Ok(reader.into())
    }

    fn open_output(&mut self, path: &str) -> Result<Stdio> {
        let path = match path.split_once("://") {
            None if path.is_empty() => return Ok(Stdio::null()),
            None | Some(("fifo", _)) => path.trim_start_matches("fifo://"),
            Some(("file", path)) => return Ok(open_log_file(path)?.into()),
            Some((scheme, _)) => bail!("{scheme}:// is not supported"),
        };
        if !Path::new(path).metadata()?.file_type().is_fifo() {
            return Ok(OpenOptions::new().append(true).open(path)?.into());
        }
        self.readers.push(nonblocking().read(true).open(path)?);
        Ok(OpenOptions::new().write(true).open(path)?.into())
    }

    /// Begins to copy between a terminal and the fifos.
    pub fn attach(master: File, paths: &Paths) -> Result<Io> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let mut terminal = Terminal { master: master.try_clone()?, input: None, output: None };
        if !paths.stdin.is_empty() {
            let fifo = pipe::OpenOptions::new()
                .read_write(true)
                .open_receiver(&paths.stdin)
                .with_context(|| format!("standard input {:?}", paths.stdin))?;
            terminal.input =
                Some(tokio::spawn(copy_input(fifo, pipe::Sender::from_file_unchecked(master.try_clone()?)?)));
        }
        let master = pipe::Receiver::from_file_unchecked(master)?;
        let output = match paths.stdout.split_once("://") {
            None if paths.stdout.is_empty() => tokio::spawn(copy_output(master, Sink::None)),
            Some(("file", path)) => tokio::spawn(copy_output(master, Sink::File(open_log_file(path)?))),
            _ => {
                let path = paths.stdout.trim_start_matches("fifo://");
                let fifo = pipe::OpenOptions::new()
                    .read_write(true)
                    .open_sender(path)
                    .with_context(|| format!("standard output {path:?}"))?;
                tokio::spawn(copy_output(master, Sink::Fifo(fifo)))
            }
        };
        terminal.output = Some(output);
        Ok(Io { terminal: Some(terminal), ..Io::default() })
    }

    /// Standard input ends, after what is in the fifo.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Tells the terminal its size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let Some(terminal) = &self.terminal else { bail!("the process has no terminal") };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal.master, size).context("TIOCSWINSZ")
    }

    /// After the process's end: passes on what is left in its terminal, and lets go of all.
    pub async fn finish(self) {
        let Some(mut terminal) = self.terminal else { return };
        if let Some(input) = &terminal.input {
            input.abort();
        }
        if let Some(output) = terminal.output.as_mut()
            && tokio::time::timeout(DRAIN_LIMIT, &mut *output).await.is_err()
        {
            output.abort();
        }
    }
}

/// Where a terminal's output goes.
enum Sink {
    None,
    File(File),
    Fifo(pipe::Sender),
}

// tokio's ends of pipes read and write any descriptor that epoll knows.
async fn copy_input(mut fifo: pipe::Receiver, mut master: pipe::Sender) {
    // Either end's going is its end.
    let _ = tokio::io::copy(&mut fifo, &mut master).await;
}

async fn copy_output(mut master: pipe::Receiver, mut sink: Sink) {
    let mut buffer = vec![0; 16 << 10];
    // EIO: nobody has the terminal open any more.
    while let Ok(count @ 1..) = master.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        let written = match &mut sink {
            Sink::None => Ok(()),
            Sink::File(file) => file.write_all(bytes),
            Sink::Fifo(fifo) => fifo.write_all(bytes).await,
        };
        // A container is not stopped by those who do not listen.
        if written.is_err() {
            sink = Sink::None;
        }
    }
}

fn nonblocking() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    options
}

fn is_fifo(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.file_type().is_fifo())
}

fn open_log_file(path: &str) -> Result<File> {
    if let Some(parent) = Path::new(path).parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("creating {parent:?}"))?;
    }
    OpenOptions::new().append(true).create(true).open(path).with_context(|| format!("opening {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Command;

    fn fifo(dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn fifos_are_given_to_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdin: fifo(dir.path(), "in"),
            stdout: fifo(dir.path(), "out"),
            stderr: format!("file://{}/logs/err", dir.path().display()),
            terminal: false,
        };
        let (mut io, child) = Io::open(&paths).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&paths.stdin).unwrap();
        writer.write_all(b"hello").unwrap();
        drop(writer);
        let mut cat = Command::new("sh");
        cat.args(["-c", "cat; echo oops >&2"]).stdin(child.stdin).stdout(child.stdout).stderr(child.stderr);
        let mut running = cat.spawn().unwrap();
        drop(cat);
        let mut reader = OpenOptions::new().read(true).open(&paths.stdout).unwrap();
        let mut bytes = [0; 5];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        // The writer's going was no end of file; this is.
        assert!(running.try_wait().unwrap().is_none());
        io.close_input();
        assert!(running.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(dir.path().join("logs/err")).unwrap(), "oops\n");
        // No writer is left: the reader sees the end.
        assert_eq!(reader.read(&mut bytes).unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_opened_is_told() {
        for stdout in ["binary:///bin/logger", "/no/such/fifo"] {
            let error = Io::open(&Paths { stdout: stdout.into(), ..Paths::default() }).map(drop).unwrap_err();
            assert!(format!("{error:#}").contains(stdout), "{error:#}");
        }
        Io::open(&Paths::default()).map(drop).unwrap();
    }
}
