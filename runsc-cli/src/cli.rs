//! The command line: gVisor's and runc's verbs and flags.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::report::LogFormat;
use crate::spec::OverlayPolicy;

/// An application kernel for containers: runs each container's programs on a kernel of their own.
#[derive(Debug, Parser)]
#[command(name = "runsc", version = VERSION, max_term_width = 110, subcommand_required = true)]
pub struct Cli {
    /// Flags before the verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The second line names [`crate::state::OCI_VERSION`].
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// What runs guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// The best that this host has.
    Auto,
    /// PTRACE_SYSEMU: slow, works wherever ptrace does.
    Ptrace,
    /// Seccomp notifications and traps.
    Systrap,
}

/// What networks a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// The loopback interface.
    None,
    /// The sandbox's own stack on the interfaces of the container's network namespace.
    Sandbox,
    /// The host's stack, in the container's network namespace.
    Host,
}

/// Who else changes the served files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileAccess {
    /// Nobody: attributes and names are cached.
    Exclusive,
    /// Others on the host: they are looked up anew.
    Shared,
}

/// Flags that stand before the verb.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Directory of the containers' state [default: /run/runsc, or $XDG_RUNTIME_DIR/runsc without root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// What runs guest code
    #[arg(long, value_enum, default_value = "auto")]
    pub platform: Platform,
    /// What networks containers have: none is a loopback interface, host is sockets of the host (of the container's
    /// network namespace if it has one); sandbox is not there yet
    #[arg(long, value_enum, default_value = "none")]
    pub network: Network,
    /// Where writes to files of the host go: none (to the host), root:memory or all:memory (root filesystem, or bind
    /// mounts too, to the sandbox's memory)
    #[arg(long, value_name = "SCOPE:MEDIUM", default_value = "root:memory")]
    pub overlay2: OverlayPolicy,
    /// Whether other processes of the host change the root filesystem meanwhile
    #[arg(long, value_enum, default_value = "exclusive")]
    pub file_access: FileAccess,
    /// The same for bind mounts
    #[arg(long, value_enum, default_value = "shared")]
    pub file_access_mounts: FileAccess,
    /// Whether sockets of the host in mounted directories can be connected to: none, open, create or all
    #[arg(long, value_name = "MODE", default_value = "none")]
    pub host_uds: String,
    /// Log the system calls of the guest, decoded
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub strace: bool,
    /// Only these system calls, by name
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub strace_syscalls: Vec<String>,
    /// systrap: leave the guest's call instructions as they are, which makes calls slower
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub systrap_disable_syscall_patching: bool,
    /// Log more, and name the calls that are not implemented and were made
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub debug: bool,
    /// Files for logs of the sandbox: %ID%, %COMMAND% and %TIMESTAMP% are filled in; with a final slash, a directory
    /// [default: standard error]
    #[arg(long, value_name = "PATTERN")]
    pub debug_log: Option<String>,
    /// File for what a panicking sentry says (patterns as in --debug-log)
    #[arg(long, value_name = "PATTERN")]
    pub panic_log: Option<String>,
    /// File for errors of the command
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How --log is written
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Run in a user namespace that knows only the caller; the default without root
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_enum, hide_possible_values = true)]
    pub rootless: Option<Rootless>,
    /// Do not put sandboxes into cgroups: their limits do not hold
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub ignore_cgroups: bool,
    /// Take linux.cgroupsPath as systemd's SLICE:PREFIX:NAME
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true)]
    pub systemd_cgroup: bool,
    /// What a test makes the confined process try.
    #[cfg(feature = "misbehave")]
    #[arg(long)]
    pub misbehave: Option<String>,
}

/// `--rootless`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Also for root.
    True,
    /// Never.
    False,
    /// Without root.
    Auto,
}

/// Flags of gVisor's and runc's that are understood and change nothing here, with whether they take a value.
const ACCEPTED: [(&str, bool); 94] = [
    ("allow-connected-on-save", false),
    ("allow-flag-override", false),
    ("allow-live-tcp-migration", false),
    ("allow-packet-socket-write", false),
    ("allow-rootfs-tar-annotation", false),
    ("allow-suid", false),
    ("alsologtostderr", false),
    ("app-huge-pages", false),
    ("character-device-policy", true),
    ("control-rpc-stop-timeout", true),
    ("coverage-report", true),
    ("cpu-num-from-quota", false),
    ("criu", true),
    ("cuda-checkpoint-path", true),
    ("dcache", true),
    ("debug-command", true),
    ("debug-log-format", true),
    ("debug-to-user-log", false),
    ("directfs", false),
    ("enable-core-tags", false),
    ("EXPERIMENTAL-xdp", true),
    ("EXPERIMENTAL-xdp-need-wakeup", false),
    ("fdlimit", true),
    ("final-metrics-log", true),
    ("fsgofer-host-uds", false),
    ("gofer-network-namespace", true),
    ("gso", false),
    ("gvisor-gro", false),
    ("gvisor-marker-file", false),
    ("host-fifo", true),
    ("host-settings", true),
    ("in-sandbox-cgroup", true),
    ("iouring", false),
    ("kvm-use-cpu-nums", false),
    ("lisafs", false),
    ("log-packets", false),
    ("metric-server", true),
    ("net-disconnect-ok", false),
    ("net-raw", false),
    ("network-processors-per-channel", true),
    ("network-proxy-path", true),
    ("num-network-channels", true),
    ("nvproxy", false),
    ("nvproxy-allow-unsupported-driver", false),
    ("nvproxy-allowed-driver-capabilities", true),
    ("nvproxy-docker", false),
    ("nvproxy-driver-version", true),
    ("oci-seccomp", false),
    ("overlay", false),
    ("override-procs", true),
    ("panic-signal", true),
    ("pause-external-networking", false),
    ("pcap-log", true),
    ("platform_device_path", true),
    ("pod-init-config", true),
    ("profile", false),
    ("profile-block", true),
    ("profile-cpu", true),
    ("profile-gc-interval", true),
    ("profile-heap", true),
    ("profile-mutex", true),
    ("profiling-metrics", true),
    ("profiling-metrics-log", true),
    ("profiling-metrics-rate-us", true),
    ("qdisc", true),
    ("qdisc-tbf-burst", true),
    ("qdisc-tbf-rate", true),
    ("rdmaproxy", false),
    ("ref-leak-mode", true),
    ("reproduce-nat", false),
    ("reproduce-nftables", false),
    ("restore-spec-validation", true),
    ("rx-checksum-offload", false),
    ("shared-root", true),
    ("sidecar-release-enforcement-policy", true),
    ("sidecar-usage-policy", true),
    ("signal-unkillable-policy", true),
    ("software-gso", false),
    ("strace-event", false),
    ("strace-log-size", true),
    ("systrap-disable-fast-path", false),
    ("TESTONLY-afs-syscall-panic", false),
    ("TESTONLY-autosave-image-path", true),
    ("TESTONLY-autosave-resume", false),
    ("TESTONLY-nftables", false),
    ("TESTONLY-test-name-env", true),
    ("TESTONLY-unsafe-nonroot", false),
    ("tpuproxy", false),
    ("trace", true),
    ("traceback", true),
    ("tx-checksum-offload", false),
    ("vfs2", false),
    ("watchdog-action", true),
    ("xdp", true),
];

/// A command line in clap's form.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Normal {
    /// The arguments, the program's name first.
    pub args: Vec<OsString>,
    /// Flags that were left out, since they change nothing.
    pub ignored: Vec<String>,
}

/// Brings flags into clap's form: one dash will do, as for gVisor, and accepted flags that change nothing are left out.
pub fn normalise(args: impl IntoIterator<Item = OsString>) -> Normal {
    let command = Cli::command();
    let mut args = args.into_iter();
    let mut normal = Normal { args: args.next().into_iter().collect(), ignored: Vec::new() };
    if let Some(verb) = long_flags(&command, &mut args, &mut normal, &ACCEPTED) {
        let of_verb = command.find_subcommand(&verb);
        normal.args.push(verb.clone());
        if let Some(first) = of_verb.and_then(|command| long_flags(command, &mut args, &mut normal, &[])) {
            normal.args.push(first);
        }
    }
    normal.args.extend(args);
    normal
}

/// Passes on the flags of a command, and returns the first argument that is none.
fn long_flags(
    command: &clap::Command,
    args: &mut impl Iterator<Item = OsString>,
    normal: &mut Normal,
    accepted: &[(&str, bool)],
) -> Option<OsString> {
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let flag = match text.strip_prefix("--").or_else(|| text.strip_prefix('-')) {
            None | Some("") => return Some(arg),
            Some(flag) => flag,
        };
        let name = flag.split('=').next().unwrap_or(flag);
        let known = command.get_arguments().find(|arg| {
            arg.get_long() == Some(name)
                || arg.get_visible_aliases().is_some_and(|names| names.contains(&name))
        });
        let own = known.map(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set());
        let ignored = accepted.iter().find(|(known, _)| *known == name).map(|(_, takes)| *takes);
        let short = || {
            let arg =
                command.get_arguments().find(|arg| arg.get_short().is_some_and(|c| c.to_string() == flag));
            arg.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
        };
        let (form, takes) = match (own, ignored) {
            (Some(takes), _) => (OsString::from(format!("--{flag}")), takes),
            (None, Some(takes)) => {
                normal.ignored.push(name.to_owned());
                if takes && !flag.contains('=') {
                    args.next();
                }
                continue;
            }
            // A short one, or none that there is.
            (None, None) if text.starts_with("--") => (arg, false),
            (None, None) => (arg, short()),
        };
        normal.args.push(form);
        if takes && !flag.contains('=') {
            normal.args.extend(args.next());
        }
    }
    None
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command on the files of this host, with its writes kept in memory
    Do(Do),
    /// Create and start a container, wait for it and delete it
    Run(Run),
    /// Create a container, whose process then waits for start
    Create(Create),
    /// Start the process of a created container
    Start(Id),
    /// Write a config.json to begin with
    Spec(SpecArgs),
    /// List containers
    List(List),
    /// Print the state of a container
    State(Id),
    /// Send a signal to a container
    Kill(Kill),
    /// Remove containers that have stopped
    Delete(Delete),
    /// Run another process in a container
    Exec(Box<Exec>),
    /// List the processes of a container
    Ps(Ps),
    /// Wait until a container has stopped, and print its exit status
    Wait(Wait),
    /// Print what a container uses, once or every few seconds
    Events(Events),
    /// Hold a container's processes
    Pause(Id),
    /// Let a paused container's processes go on
    Resume(Id),
    /// Change a container's limits
    Update(Box<Update>),
    /// Say what of the OCI specification there is
    Features,
    /// Add this runtime to Docker's configuration
    Install(Install),
    /// Remove a runtime from Docker's configuration
    Uninstall(Uninstall),
    /// Not there yet
    Checkpoint(Images),
    /// Not there yet
    Restore(Images),
    /// List the system calls and how far they are supported
    Syscalls(Syscalls),
    /// Say what this host can do for each platform
    Platforms,
    #[command(hide = true)]
    Boot(Id),
    #[command(hide = true)]
    Gofer(Id),
}

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
    /// Accepted
    #[arg(long, hide = true)]
    pub user_log: Option<PathBuf>,
    /// Accepted
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// Accepted: there are no more than the three
    #[arg(long, hide = true, default_value_t = 0)]
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
    /// Accepted: there are no more than the three
    #[arg(long, hide = true, default_value_t = 0)]
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

/// `runsc uninstall`
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

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(normalise(line.split_whitespace().map(OsString::from)).args)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The calls that clients make, as recorded.
    #[test]
    fn clients_are_understood() {
        for line in [
            "runsc --root R --log F --log-format json create --bundle B --pid-file P --console-socket S c1",
            "runsc --root R --log F --log-format json start c1",
            "runsc --root R --log F --log-format json kill --all c1 9",
            "runsc --root R --log F --log-format json exec --process F --console-socket S --detach --pid-file P c1",
            "runsc --systemd-cgroup --log-format=json --log F create --bundle B --pid-file P c1",
            "runsc delete --force c1",
            "runsc exec --pid-file P --process F --detach --tty --console-socket S c1",
            "runsc ps --format json c1",
            "runsc --root S --ignore-cgroups --network=none run --bundle B --detach c1",
            "runsc exec --cwd / --env A=B c1 sh -c true",
            "runsc kill c1 SIGKILL",
            "runsc --root=R state c1",
            "runsc -root=R -debug -debug-log /l/ -platform=ptrace do -- ls -la",
            "runsc --overlay2=none --watchdog-action panic --directfs=false --strace=true do sh -c exit",
            "runsc --version",
            "runsc wait c1",
            "runsc --root R --log F --log-format json update --resources - c1",
            "runsc update --memory 512m --cpu-quota -1 --pids-limit 10 c1",
            "runsc update -r F c1",
            "runsc --root R events --stats c1",
            "runsc --root R events --interval=500ms c1",
            "runsc --log F pause c1",
            "runsc --rootless=auto resume c1",
            "runsc features",
            "runsc install --config_file=/x --runtime r -- --debug --strace",
            "runsc uninstall --runtime r",
            "runsc checkpoint --image-path I --work-path W --leave-running c1",
            "runsc restore --bundle B --image-path I c1",
            "runsc run -bundle B -detach c1",
            "runsc exec -cwd /x -t c1 ls -cwd",
        ] {
            match parse(line) {
                Ok(_) => {}
                Err(error) if error.kind() == clap::error::ErrorKind::DisplayVersion => {}
                Err(error) => panic!("{line}: {error}"),
            }
        }
    }

    #[test]
    fn what_follows_the_command_is_its_own() {
        let Ok(Cli { verb: Verb::Do(args), global }) = parse("runsc -debug do --cwd /x ls --color -debug")
        else {
            panic!("no do")
        };
        assert!(global.debug);
        assert_eq!(args.command, ["ls", "--color", "-debug"]);
        assert_eq!(args.cwd.as_deref(), Some("/x"));
    }

    #[test]
    fn flags_that_change_nothing_are_named() {
        let line = "runsc --traceback all -qdisc=fifo --gso=false --debug list --quiet";
        let normal = normalise(line.split(' ').map(OsString::from));
        assert_eq!(normal.args, ["runsc", "--debug", "list", "--quiet"]);
        assert_eq!(normal.ignored, ["traceback", "qdisc", "gso"]);
    }

    #[test]
    fn flags_of_a_command_inside_stay_as_they_are() {
        let normal = normalise("runsc exec -cwd /x -t c1 ls -cwd".split(' ').map(OsString::from));
        assert_eq!(normal.args, ["runsc", "exec", "--cwd", "/x", "-t", "c1", "ls", "-cwd"]);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("512m"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("10kb"), Ok(10240));
        assert_eq!(parse_bytes("-1"), Ok(-1));
        assert!(parse_bytes("-5").is_err() && parse_bytes("5x").is_err() && parse_bytes("").is_err());
    }

    #[test]
    fn the_version_names_the_specification() {
        assert!(VERSION.ends_with(crate::state::OCI_VERSION));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "runsc",
            "runsc fly",
            "runsc --platform=magic list",
            "runsc --no-such-flag list",
            "runsc create",
            "runsc do",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
