//! How failures are told: one line with the whole chain of causes, and the log that the caller asked for.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use crate::clock;

/// The causes of an error, outermost first, each without the next one's text.
pub fn chain(error: &Error) -> Vec<String> {
    error
        .chain()
        .flat_map(|cause| {
            if let Some(Chain(causes)) = cause.downcast_ref::<Chain>() {
                return causes.clone();
            }
            let errno = cause.downcast_ref::<Errno>().copied().or_else(|| {
                let io = cause.downcast_ref::<std::io::Error>()?;
                io.raw_os_error().map(Errno::from_raw)
            });
            vec![match (errno, cause.downcast_ref::<abi::Errno>()) {
                (Some(errno), _) => small(errno.desc()),
                (None, Some(errno)) => small(&errno.to_string()),
                (None, None) => cause.to_string(),
            }]
        })
        .collect()
}

/// The words for an error number as Go has them, in small letters: callers of runtimes look for "permission denied".
fn small(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// The causes in one line.
pub fn line(error: &Error) -> String {
    chain(error).join(": ")
}

/// Prints a line on standard output. False if its reader has seen enough and is gone, which is no error.
pub fn print(line: impl fmt::Display) -> Result<bool> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("writing to standard output"),
    }
}

/// A failure that another process told of.
#[derive(Debug)]
pub struct Chain(pub Vec<String>);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(": "))
    }
}

impl std::error::Error for Chain {}

/// How `--log` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `time level message`.
    #[default]
    Text,
    /// One object a line with the members level, msg and time, as runc writes it and its callers read it.
    #[value(alias = "json-k8s")]
    Json,
}

/// What `--log` and `--log-format` say, for the whole process.
static LOG: OnceLock<(PathBuf, LogFormat)> = OnceLock::new();

/// Names the file that [`error`] and [`warn`] append to.
pub fn set_log(path: PathBuf, format: LogFormat) {
    let _ = LOG.set((path, format));
}

/// Tells a failure: on standard error, and in the log.
pub fn error(message: &str) {
    eprintln!("runsc: {message}");
    if let Some((path, format)) = LOG.get()
        && let Err(error) = append(path, *format, "error", message)
    {
        eprintln!("runsc: {}", line(&error));
    }
}

/// Tells what is not as it was asked for, and no failure: in the log, or, without one, on standard error.
pub fn warn(message: &str) {
    tracing::warn!("{message}");
    match LOG.get() {
        Some((path, format)) => {
            let _ = append(path, *format, "warning", message);
        }
        None => eprintln!("runsc: warning: {message}"),
    }
}

/// Tells what nobody needs to see who does not look: in the log alone.
pub fn note(message: &str) {
    if let Some((path, format)) = LOG.get() {
        let _ = append(path, *format, "warning", message);
    }
}

fn append(path: &Path, format: LogFormat, level: &str, message: &str) -> Result<()> {
    let time = clock::now();
    let entry = match format {
        LogFormat::Text => format!("{time} {level} {message}\n"),
        LogFormat::Json => {
            format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time}))
        }
    };
    open_log(path)?.write_all(entry.as_bytes())?;
    Ok(())
}

/// Opens a log file to append to.
pub fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("opening the log {path:?}"))
}

/// Opens the file that [`debug_log_path`] says, in a directory that is made if it is not there.
pub fn open_debug_log(pattern: &str, command: &str, id: &str) -> Result<File> {
    let path = debug_log_path(pattern, command, id);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making the log's directory {directory:?}"))?;
    }
    open_log(&path)
}

/// The file that `--debug-log` names for one process: `%COMMAND%`, `%ID%` and `%TIMESTAMP%` are filled in, and a
/// pattern that ends with a slash is a directory.
fn debug_log_path(pattern: &str, command: &str, id: &str) -> PathBuf {
    let pattern = if pattern.ends_with('/') {
        format!("{pattern}runsc.log.%TIMESTAMP%.%COMMAND%.txt")
    } else {
        pattern.to_owned()
    };
    let timestamp: String = clock::now().chars().filter(char::is_ascii_digit).take(20).collect();
    PathBuf::from(
        pattern.replace("%COMMAND%", command).replace("%ID%", id).replace("%TIMESTAMP%", &timestamp),
    )
}

/// Sends this process's trace events to `file` (without one, they are dropped).
pub fn start_tracing(file: Option<OwnedFd>, debug: bool) {
    let Some(file) = file else { return };
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // What carries the control API tells of every frame.
    let carriers = ["h2", "hyper", "hyper_util", "tonic", "tower"].map(|name| (name, LevelFilter::WARN));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(Mutex::new(File::from(file)))
        .finish()
        .with(Targets::new().with_default(level).with_targets(carriers));
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_without_numbers() {
        let error = Err::<(), _>(std::io::Error::from_raw_os_error(13))
            .context("open \"/data\"")
            .context("running container \"x\"")
            .unwrap_err();
        assert_eq!(line(&error), "running container \"x\": open \"/data\": permission denied");
        let remote = Error::new(Chain(vec!["a".into(), "b".into()])).context("creating");
        assert_eq!(chain(&remote), ["creating", "a", "b"]);
        assert_eq!(line(&Error::new(Errno::ENOENT)), "no such file or directory");
        assert_eq!(line(&Error::new(abi::Errno::EACCES).context("exec")), "exec: permission denied");
    }

    #[test]
    fn errors_are_logged_as_runc_logs_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, LogFormat::Json, "error", "a \"b\"").unwrap();
        append(&path, LogFormat::Json, "warning", "c").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries[0]["level"], "error");
        assert_eq!(entries[0]["msg"], "a \"b\"");
        assert_eq!((&entries[1]["level"], &entries[1]["msg"]), (&"warning".into(), &"c".into()));
    }

    #[test]
    fn debug_logs_are_named_by_pattern() {
        assert_eq!(debug_log_path("/l/%ID%-%COMMAND%", "boot", "c1"), PathBuf::from("/l/c1-boot"));
        let path = debug_log_path("/l/", "run", "c1");
        assert!(path.to_str().unwrap().ends_with(".run.txt"), "{path:?}");
    }
}
