//! The command line: gVisor's and runc's verbs and flags.

mod flags;
mod verbs;

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

pub use flags::normalise;
pub use verbs::*;

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

/// What a container may do with Unix sockets of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostUds {
    /// Nothing.
    None,
    /// Connect to them.
    Open,
    /// Make them.
    Create,
    /// Both.
    All,
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
    /// Whether sockets of the host in mounted directories can be connected to; create and all are not there yet
    #[arg(long, value_enum, default_value = "none")]
    pub host_uds: HostUds,
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

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
