//! Lives of containers, one after the other and many at the same time, also with commands that are killed at random
//! points: no process, mount, cgroup or file of them is left. (Sockets are files of the state directory.)
//!
//! `$RUNSC_LIVES` says how many, in a row and at once: `200,50`.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sandbox::{Runsc, describe, on_each_platform, text};

/// How many in a row, and how many at once.
fn numbers() -> (usize, usize) {
    let given = std::env::var("RUNSC_LIVES").unwrap_or_default();
    let mut numbers = given.split(',').filter_map(|number| number.trim().parse().ok());
    (numbers.next().unwrap_or(9), numbers.next().unwrap_or(6))
}

/// Numbers that look random (xorshift), from a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = (now.as_nanos() as u64).wrapping_add(CALLS.fetch_add(1 << 20, Ordering::Relaxed)) | 1;
        println!("seed {seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// The id of a container, which no other test has, and its bundle. Its cgroup has parents that do not exist yet, and
/// that it shares with others.
fn container(runsc: &Runsc, name: &str, number: usize, args: &[&str]) -> (String, String) {
    let id = format!("{}-{name}{number}", runsc.cgroup());
    let bundle = runsc.bundle(&format!("{name}{number}"), args, |config| {
        config["linux"]["cgroupsPath"] = format!("/{}-{name}/pod{}/{id}", runsc.cgroup(), number % 3).into();
        config["linux"]["resources"] = serde_json::json!({"pids": {"limit": 100}});
    });
    (id, bundle)
}

/// One life, in one of three ways.
fn live(runsc: &Runsc, name: &str, number: usize) {
    match number % 3 {
        0 => {
            let (id, bundle) = container(runsc, name, number, &["hello"]);
            runsc.ok(&["create", "--bundle", &bundle, &id]);
            runsc.ok(&["start", &id]);
            assert!(runsc.ok(&["wait", &id]).contains("\"exitStatus\":0"));
            runsc.ok(&["delete", &id]);
        }
        1 => {
            let (id, bundle) = container(runsc, name, number, &["hello"]);
            assert_eq!(runsc.ok(&["run", "--bundle", &bundle, &id]), "hello\n");
        }
        _ => {
            let (id, bundle) = container(runsc, name, number, &["idle"]);
            runsc.ok(&["run", "--detach", "--bundle", &bundle, &id]);
            assert_eq!(runsc.ok(&["exec", &id, "/stress", "hello"]), "hello\n");
            runsc.ok(&["kill", &id, "KILL"]);
            assert!(runsc.ok(&["wait", &id]).contains("137"));
            runsc.ok(&["delete", &id]);
        }
    }
}

/// The same, but each command is killed before it has taken twice as long as it usually does.
fn live_dangerously(runsc: &Runsc, name: &str, number: usize, usual: Duration, random: &mut Random) {
    let (id, bundle) = container(runsc, name, number, &["idle"]);
    let mut killed = |args: &[&str]| {
        let mut command = runsc.command(args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(2 * usual.as_micros() as u64)));
        let _ = child.kill();
        child.wait().unwrap();
    };
    match number % 3 {
        0 => {
            killed(&["create", "--bundle", &bundle, &id]);
            killed(&["start", &id]);
            killed(&["wait", &id]);
        }
        1 => killed(&["run", "--bundle", &bundle, &id]),
        _ => {
            killed(&["run", "--detach", "--bundle", &bundle, &id]);
            killed(&["exec", &id, "/stress", "hello"]);
            killed(&["exec", "--detach", &id, "/stress", "idle"]);
            killed(&["kill", &id, "KILL"]);
        }
    }
    killed(&["delete", "--force", &id]);
    let begin = Instant::now();
    let output = runsc.output(&["delete", "--force", &id]);
    if begin.elapsed() > Duration::from_secs(5) {
        println!("{id}: delete took {:?}", begin.elapsed());
    }
    assert!(output.status.success(), "{id}: {}", describe(&output));
}

/// Processes with these words on their command lines or in the names of their cgroups.
fn processes_of(words: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name| text(&fs::read(entry.path().join(name)).unwrap_or_default());
        let (line, cgroups) = (read("cmdline"), read("cgroup"));
        // A zombie is somebody's child, who will learn of its end.
        if (line.contains(words) || cgroups.contains(words)) && !read("stat").contains(") Z ") {
            found.push(format!("{:?} {:?}", entry.file_name(), line.replace('\0', " ")));
        }
    }
    found
}

fn nothing_is_left(runsc: &Runsc) {
    // Those of commands that were killed go by themselves, soon. The time only ends a test that would hang.
    let begin = Instant::now();
    loop {
        let left = processes_of(&runsc.cgroup());
        if left.is_empty() {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "processes are left: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let names = |dir: &std::path::Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert!(names(&runsc.root()).is_empty(), "files are left: {:?}", names(&runsc.root()));
    runsc.nothing_mounted_or_grouped();
}

/// In a row, then at once.
fn each(numbers: (usize, usize), name: &str, live: impl Fn(&str, usize) + Sync) {
    let (in_a_row, at_once) = numbers;
    let begin = Instant::now();
    (0..in_a_row).for_each(|number| live(&format!("{name}row"), number));
    println!("{in_a_row} in a row: {:?}", begin.elapsed());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..at_once {
            let live = &live;
            scope.spawn(move || live(&format!("{name}at-once"), number));
        }
    });
    println!("{at_once} at once: {:?}", begin.elapsed());
}

#[test]
fn lives_leave_nothing() {
    on_each_platform("lives_leave_nothing", |runsc| {
        each(numbers(), "", |name, number| live(runsc, name, number));
        nothing_is_left(runsc);
    });
}

#[test]
fn lives_leave_nothing_though_commands_are_killed() {
    on_each_platform("lives_though_commands_are_killed", |runsc| {
        let begin = Instant::now();
        live(runsc, "usual", 1);
        let usual = begin.elapsed().min(Duration::from_millis(300));
        each(numbers(), "killed-", |name, number| {
            live_dangerously(runsc, name, number, usual, &mut Random::new());
        });
        nothing_is_left(runsc);
    });
}
