//! What a sentry that was taken over could do: nothing. Each test runs a sentry that tries, once before its filters
//! are in place, where only the namespaces hold it, and once behind them.
#![cfg(feature = "misbehave")]

mod common;

use common::Runsc;

/// What `runsc do` says when its sentry tries this.
fn attempt(what: &str) -> String {
    let runsc = Runsc::with_flags(&["--misbehave", what]);
    runsc.fails(&["do", "true"])
}

/// The same without root.
fn attempt_without_root(what: &str) -> String {
    common::text(&common::without_root(&["--misbehave", what, "do", "true"]).stderr)
}

/// A process of the host that is nobody's business.
struct Other(std::process::Child);

impl Other {
    fn start() -> Other {
        Other(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn namespaces_alone_leave_nothing() {
    let other = Other::start();
    let pid = other.0.id();
    for (what, error) in [
        ("open:/etc/passwd".to_owned(), "ENOENT"),
        ("open:/proc/self/status".to_owned(), "ENOENT"),
        ("open:/..".to_owned() + "/etc", "ENOENT"),
        ("socket".to_owned(), "ENETUNREACH"),
        (format!("kill:{pid}"), "ESRCH"),
        (format!("ptrace:{pid}"), "ESRCH"),
        (format!("process-vm:{pid}"), "ESRCH"),
        ("execve:/bin/sh".to_owned(), "ENOENT"),
        ("mount".to_owned(), "EPERM"),
        ("setuid".to_owned(), "EPERM"),
    ] {
        let line = attempt(&format!("unfiltered-{what}"));
        // Without root there is but one user to be: then this is no step up.
        if what == "setuid" && line.contains("succeeded") && !nix::unistd::geteuid().is_root() {
            continue;
        }
        assert!(line.contains(&format!("failed: {error}")), "{what}: {line}");
    }
}

#[test]
fn it_is_the_same_without_root() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: all tests run without root as it is");
        return;
    }
    let pid = std::process::id();
    for (what, outcome) in [
        ("unfiltered-open:/etc/passwd".to_owned(), "failed: ENOENT"),
        ("unfiltered-open:/proc/self/status".to_owned(), "failed: ENOENT"),
        ("unfiltered-socket".to_owned(), "failed: ENETUNREACH"),
        ("unfiltered-mount".to_owned(), "failed: EPERM"),
        (format!("unfiltered-kill:{pid}"), "failed: ESRCH"),
        ("open:/etc/passwd".to_owned(), "denied: openat"),
        ("socket".to_owned(), "denied: socket"),
    ] {
        let line = attempt_without_root(&what);
        assert!(line.contains(outcome), "{what}: {line}");
    }
}

#[test]
fn filters_deny_what_a_sentry_does_not_need() {
    let pid = std::process::id();
    for (what, call) in [
        ("open:/etc/passwd".to_owned(), "openat"),
        ("open:/proc/self/status".to_owned(), "openat"),
        ("socket".to_owned(), "socket"),
        ("execve:/bin/sh".to_owned(), "execve"),
        ("mount".to_owned(), "mount"),
        ("unshare".to_owned(), "unshare"),
        ("setuid".to_owned(), "setuid"),
        ("fork".to_owned(), "clone"),
        ("exec-memory".to_owned(), "mmap"),
    ] {
        let line = attempt(&what);
        assert!(line.contains(&format!("a host call that it is denied: {call}\n")), "{what}: {line}");
    }
    // These are for its stubs, and for its files in memory; nothing else can be named.
    for (what, error) in [
        (format!("kill:{pid}"), "ESRCH"),
        (format!("process-vm:{pid}"), "ESRCH"),
        ("open-in-memory:/etc/passwd".to_owned(), "ENOENT"),
        ("open-in-memory:../etc/passwd".to_owned(), "ENOENT"),
        ("open-in-memory:/proc/1/status".to_owned(), "ENOENT"),
    ] {
        let line = attempt(&what);
        assert!(line.contains(&format!("failed: {error}")), "{what}: {line}");
    }
}

#[test]
fn a_panic_ends_the_sandbox_and_is_told() {
    let line = attempt("panic");
    assert!(line.contains("panic in thread") && line.contains("told to"), "{line}");
}
