//! The arguments of the verbs.

use std::path::PathBuf;

use clap::{ArgAction, ValueEnum};

/// `runsc do`
#[derive(Debug, clap::Args)]
pub struct Do {
    /// Directory of the host that becomes the root
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Working directory inside [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Do not pass on the environment but for these
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Mount a directory of the host, for writing: SOURCE[:DESTINATION[:ro]]
    #[arg(long, short, value_name = "SPEC")]
    pub volume: Vec<String>,
    /// Keep writes in memory; with =false they go to the host's files
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub force_overlay: bool,
    /// Accepted: there is nothing that it would silence
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What `create` and `run` share.
#[derive(Debug, clap::Args)]
pub struct CreateFlags {
    /// Directory with the config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket that takes the master side of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File that gets the pid of the sandbox
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// File that gets messages for the user: calls that were made and are not there
    #[arg(long, value_name = "FILE")]
    pub user_log: Option<PathBuf>,
    /// Accepted
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// How many file descriptors after the standard ones are passed on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// `runsc create`
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    pub flags: CreateFlags,
    /// The new container's id
    pub id: String,
}

/// `runsc run`
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    pub flags: CreateFlags,
    /// Do not wait for the container
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub detach: bool,
    /// Leave the container there when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Accepted
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// The new container's id
    pub id: String,
}

/// A container.
#[derive(Debug, clap::Args)]
pub struct Id {
    /// The container's id
    pub id: String,
}

/// `runsc spec`
#[derive(Debug, clap::Args)]
pub struct SpecArgs {
    /// Where to write it
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Working directory of the process
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub cwd: String,
    /// Accepted
    #[arg(long, hide = true)]
    pub rootless: bool,
    /// The process's arguments [default: sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// One JSON value.
    Json,
}

/// `runsc list`
#[derive(Debug, clap::Args)]
pub struct List {
    /// table or json
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
    /// Only ids
    #[arg(long, short)]
    pub quiet: bool,
}

/// `runsc kill`
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// To all processes of the container
    #[arg(long, short)]
    pub all: bool,
    /// To this process, by its pid inside
    #[arg(long)]
    pub pid: Option<i32>,
    /// The container's id
    pub id: String,
    /// Name or number
    #[arg(default_value = "TERM")]
    pub signal: String,
}

/// `runsc delete`
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Kill what still runs; do not complain of what is not there
    #[arg(long, short)]
    pub force: bool,
    /// The containers' ids
    #[arg(required = true)]
    pub ids: Vec<String>,
}

/// `runsc exec`
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Working directory inside
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Environment variable; those of the container's process are there, too
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// User, by name or number, and perhaps group
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Further groups
    #[arg(long, short = 'g', visible_alias = "additional-gid", value_name = "GID", value_delimiter = ',')]
    pub additional_gids: Vec<u32>,
    /// Further capabilities
    #[arg(long, short, value_name = "CAP", value_delimiter = ',')]
    pub cap: Vec<String>,
    /// Give it a terminal
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub tty: Option<bool>,
    /// Do not wait for it
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub detach: bool,
    /// A process.json instead of a command
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Unix socket that takes the master side of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File that gets the pid of a process of the host that ends as this one does
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// File that gets the pid inside
    #[arg(long, value_name = "FILE")]
    pub internal_pid_file: Option<PathBuf>,
    /// No privileges by setuid programs
    #[arg(long)]
    pub no_new_privs: bool,
    /// How many file descriptors after the standard ones are passed on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Accepted
    #[arg(long, hide = true)]
    pub apparmor: Option<String>,
    /// Accepted
    #[arg(long, hide = true)]
    pub process_label: Option<String>,
    /// Accepted
    #[arg(long, hide = true)]
    pub cgroup: Option<String>,
    /// Accepted
    #[arg(long, hide = true)]
    pub ignore_paused: bool,
    /// The container's id
    pub id: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `runsc ps`
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// table, or json: an array of the pids
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
    /// The container's id
    pub id: String,
    /// Accepted: options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub options: Vec<String>,
}

/// `runsc wait`
#[derive(Debug, clap::Args)]
pub struct Wait {
    /// Wait for this process, by its pid inside, instead of the first one
    #[arg(long, visible_alias = "rootpid")]
    pub pid: Option<i32>,
    /// The container's id
    pub id: String,
}

/// `runsc events`
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Print once, and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub stats: bool,
    /// How often: seconds, or with a unit (500ms, 5s, 1m)
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_interval)]
    pub interval: std::time::Duration,
    /// The container's id
    pub id: String,
}

fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is no time"))?;
    let seconds = match text.get(digits.len()..) {
        Some("" | "s") => number,
        Some("ms") => number / 1000.0,
        Some("m") => number * 60.0,
        Some("h") => number * 3600.0,
        _ => return Err(format!("{text:?} is no time")),
    };
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("duration must be greater than 0".into()),
    }
}

/// `runsc update`
#[derive(Debug, clap::Args)]
pub struct Update {
    /// File with the resources of config.json to change, or - for standard input; all else is ignored then
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Microseconds
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// Microseconds in each period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long, value_name = "N")]
    pub cpu_burst: Option<u64>,
    /// Relative weight
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Microseconds
    #[arg(long, value_name = "N")]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1 for SCHED_IDLE
    #[arg(long, value_name = "N")]
    pub cpu_idle: Option<i64>,
    /// Processors, as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Bytes, perhaps with k, m or g; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = parse_bytes)]
    pub memory: Option<i64>,
    /// Bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = parse_bytes)]
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = parse_bytes)]
    pub memory_swap: Option<i64>,
    /// Accepted
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,
    /// Accepted
    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Threads; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container's id
    pub id: String,
}

/// Bytes as Docker's go-units reads them: a number and k, m, g, t or p, perhaps followed by b or ib.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid size: {text:?}");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = lower.get(number.len()..).unwrap_or_default().trim();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let power = match unit {
        "" => 0,
        unit => 1 + "kmgtp".find(unit).filter(|_| unit.len() == 1).ok_or_else(wrong)? as i32,
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * 1024f64.powi(power);
    if bytes >= 0.0 && bytes < i64::MAX as f64 { Ok(bytes as i64) } else { Err(wrong()) }
}

/// `runsc install`
#[derive(Debug, clap::Args)]
pub struct Install {
    #[command(flatten)]
    pub entry: Uninstall,
    /// Switch Docker's experimental features on
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub experimental: bool,
    /// Leave Docker's userland proxy as it is, instead of switching it off
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub userland_proxy: bool,
    /// Replace a runtime of that name
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub clobber: bool,
    /// Docker's cgroup driver
    #[arg(long, value_name = "NAME", default_value = "")]
    pub cgroupdriver: String,
    /// Flags that the runtime is always to be called with
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub args: Vec<String>,
}

/// `runsc uninstall`, and what `install` shares with it: the entry in question.
#[derive(Debug, clap::Args)]
pub struct Uninstall {
    /// Docker's configuration
    #[arg(
        long = "config_file",
        visible_alias = "config-file",
        value_name = "FILE",
        default_value = "/etc/docker/daemon.json"
    )]
    pub config_file: PathBuf,
    /// What Docker calls the runtime
    #[arg(long, value_name = "NAME", default_value = "runsc")]
    pub runtime: String,
}

/// `runsc checkpoint` and `runsc restore`: whatever they are given, they fail, and say why.
#[derive(Debug, clap::Args)]
pub struct Images {
    /// Flags and the container's id
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub args: Vec<String>,
}

/// `runsc syscalls`
#[derive(Debug, clap::Args)]
pub struct Syscalls {
    /// table or json
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("512m"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("10kb"), Ok(10240));
        assert_eq!(parse_bytes("-1"), Ok(-1));
        assert!(parse_bytes("-5").is_err() && parse_bytes("5x").is_err() && parse_bytes("").is_err());
    }
}
