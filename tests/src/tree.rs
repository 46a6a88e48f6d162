//! Ending a process with all its descendants, by process id.

use std::collections::{HashMap, HashSet};
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Makes orphans of our children our own children, so that [`kill_tree`] and [`kill_marked`] find them.
pub fn adopt_orphans() {
    // It fails only on kernels before 3.4; then orphans are merely not found.
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// The parent of every process that /proc shows.
fn parents() -> HashMap<i32, i32> {
    let mut map = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; the state and the parent follow the last one.
        let parent = stat.rfind(')').and_then(|end| stat[end + 1..].split_whitespace().nth(1)?.parse().ok());
        map.insert(pid, parent.unwrap_or(0));
    }
    map
}

/// A process and all that descend from it.
pub fn family(root: u32) -> HashSet<i32> {
    let parents = parents();
    let mut family = HashSet::from([root as i32]);
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

/// Kills a process and all that descend from it, until none is left that can be found.
pub fn kill_tree(root: u32) {
    for _ in 0..10 {
        let mut found = false;
        for pid in family(root) {
            let pid = Pid::from_raw(pid);
            let killed = kill(pid, Signal::SIGKILL).is_ok();
            // The root is waited for by who started it; of the others, those that came to us are ours to wait for.
            if pid.as_raw() != root as i32 {
                found |= killed;
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
        }
        if !found {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Kills those of our own children (orphans come to us, see [`adopt_orphans`]) that carry `mark` in their environment:
/// what a finished run has left behind.
pub fn kill_marked(mark: &str) {
    let me = std::process::id() as i32;
    for (pid, parent) in parents() {
        let marked = || {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|env| env.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
        };
        if parent == me && marked() {
            kill_tree(pid as u32);
        }
    }
}
