//! Flags in clap's form.

use std::ffi::OsString;

use clap::CommandFactory;

use super::Cli;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_them() {
        let document = include_str!("../../../docs/running.md");
        let names: Vec<&str> = document.split('`').skip(1).step_by(2).collect();
        for (flag, _) in ACCEPTED {
            let named = |name: &&str| match name.strip_suffix('*') {
                Some(start) => flag.starts_with(start),
                None => flag == *name,
            };
            assert!(names.iter().any(named), "{flag}");
        }
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
}
