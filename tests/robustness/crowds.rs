//! Many threads, many processes, much memory: who goes too far is stopped, and the sandbox answers throughout.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::sandbox::{Runsc, describe, on_each_platform, text};

/// The sandbox answers: to the commands that look, and with a process more.
fn answers(runsc: &Runsc, id: &str) {
    assert_eq!(runsc.state(id)["status"], "running");
    assert_eq!(runsc.ok(&["exec", id, "/stress", "hello"]), "hello\n");
    assert!(runsc.ok(&["ps", id]).contains("stress"));
}

fn crowd(name: &str, command: &str, count: &str, last: &str) {
    on_each_platform(name, |runsc| {
        let running = runsc.run_until_ready("crowd", &[command, count]);
        answers(runsc, "crowd");
        let (line, code) = running.finish();
        assert_eq!((line.as_str(), code), (last, Some(0)));

        // The same, deleted in the middle of it.
        let running = runsc.run_until_ready("again", &[command, "50"]);
        runsc.delete("again");
        drop(running);
    });
}

#[test]
fn two_thousand_threads() {
    crowd("two_thousand_threads", "threads", "2000", "2000 threads\n");
}

#[test]
fn five_hundred_processes() {
    crowd("five_hundred_processes", "processes", "500", "500 processes\n");
}

#[test]
fn a_fork_bomb_is_stopped_by_its_limit() {
    crowd("a_fork_bomb", "bomb", "60", "59 forks\n");
}

/// The limit of pids is the guest's. That of the host, which also counts what the sandbox keeps for each process, is never
/// in its way, whatever that has done.
#[test]
fn all_processes_of_a_limit_can_be_there() {
    on_each_platform("all_processes_of_a_limit", |runsc| {
        let bundle = runsc.bundle("c", &["vforks", "60"], |config| {
            config["linux"]["resources"] = serde_json::json!({"pids": {"limit": 60}});
        });
        let running = runsc.run_bundle_until_ready("c", &bundle);
        // What comes from outside is beside the limit, as with runc.
        answers(runsc, "c");
        assert_eq!(running.finish(), ("59 forks\n".into(), Some(0)));
    });
}

#[test]
fn tracers_of_each_other_can_be_killed() {
    on_each_platform("tracers_of_each_other", |runsc| {
        let bundle = runsc.bundle("c", &["tracers"], |_| {});
        let output = runsc.output(&["run", "--bundle", &bundle, "c"]);
        assert!(output.status.success(), "{}", describe(&output));
        assert_eq!(text(&output.stdout), "both ended\n");
    });
}

#[test]
fn a_memory_eater_is_stopped_by_its_limit() {
    on_each_platform("a_memory_eater", |runsc| {
        let bundle = runsc.bundle("c", &["address-space", "64"], |_| {});
        let output = runsc.output(&["run", "--bundle", &bundle, "c"]);
        assert!(output.status.success(), "{}", describe(&output));
    });
}

/// A memory cgroup by hand, with everything of a sandbox in it.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// None (and why) where there is no cgroup v1 memory controller that we may use.
    fn new(bytes: u64) -> Result<MemoryGroup, String> {
        let dir = PathBuf::from(format!("/sys/fs/cgroup/memory/runsc-test-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let group = MemoryGroup(dir);
        let limit = group.0.join("memory.limit_in_bytes");
        fs::write(&limit, bytes.to_string()).map_err(|e| format!("{}: {e}", limit.display()))?;
        Ok(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Empty once the container is deleted, though its last process may take a moment to be reaped.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn the_memory_limit_of_a_sandbox_takes_the_guilty_process() {
    on_each_platform("the_memory_limit_of_a_sandbox", |runsc| {
        let group = match MemoryGroup::new(256 << 20) {
            Ok(group) => group,
            Err(why) => return println!("  skipped: {why}"),
        };
        let bundle = runsc.bundle("c", &["eat"], |_| {});
        let out = runsc.dir.path().join("out");
        let create = runsc
            .command(&["create", "--bundle", &bundle, "c"])
            .stdout(fs::File::create(&out).unwrap())
            .status()
            .unwrap();
        assert!(create.success());
        for pid in runsc.processes("c") {
            fs::write(group.0.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        runsc.ok(&["start", "c"]);
        let status = runsc.ok(&["wait", "c"]);
        let said = fs::read_to_string(&out).unwrap();
        assert_eq!(
            (said.as_str(), status.contains("\"exitStatus\":0")),
            ("status 0x9, the other lives\n", true)
        );
        runsc.delete("c");
    });
}

#[test]
fn every_table_has_an_end() {
    on_each_platform("every_table_has_an_end", |runsc| {
        let bundle = runsc.bundle("c", &["tables"], |_| {});
        let output = runsc.output(&["run", "--bundle", &bundle, "c"]);
        assert!(output.status.success() && text(&output.stdout).ends_with("done\n"), "{}", describe(&output));
    });
}
