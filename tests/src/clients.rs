//! Foreign programs that drive an OCI runtime: tables of shell scripts with what they must print, run with our `runsc`
//! or, to see what is expected, with another runtime (`$RUNTIME`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::target;
use crate::tree;

/// How long a script may take before it counts as hanging. None takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(300);

/// Something that a user does with a client.
pub struct Case {
    /// For the report.
    pub name: &'static str,
    /// Run by `sh`, with the functions and variables of the client's prelude.
    pub script: &'static str,
    /// What the script writes to standard output, without blanks at both ends.
    pub stdout: &'static str,
    /// How the script exits.
    pub code: i32,
}

/// A row of a table.
pub const fn case(name: &'static str, script: &'static str, stdout: &'static str, code: i32) -> Case {
    Case { name, script, stdout, code }
}

/// What cannot be as with a runtime that runs containers on the host's kernel: the name of a case, and why.
pub type Known = (&'static str, &'static str);

/// Where a client has all that it keeps.
pub struct Place {
    dir: TempDir,
    /// The runtime that it calls.
    pub runtime: PathBuf,
    /// With these flags before the verb.
    pub flags: &'static [&'static str],
}

impl Place {
    /// A new directory in /tmp: sockets have short names. Fails if there is no runtime to test.
    pub fn new() -> Result<Place> {
        let (runtime, flags) = match std::env::var_os("RUNTIME") {
            Some(path) => (PathBuf::from(path), &[][..]),
            // The files of a container outlive its processes, and the manager copies from and to them.
            None => {
                let runsc = target::runsc().context("there is no runsc: build it, or set RUNSC")?;
                (runsc, &["--overlay2=none", "--file-access=shared"][..])
            }
        };
        let runtime = fs::canonicalize(&runtime).with_context(|| format!("{}", runtime.display()))?;
        let dir = tempfile::Builder::new().prefix("clients-").tempdir_in("/tmp")?;
        let place = Place { dir, runtime, flags };
        place.program(
            "tty",
            "# Runs a command with a terminal of 33 rows and 99 columns, and prints what it shows.\n\
             words=\nfor word; do words=\"$words '$(printf %s \"$word\" | sed \"s/'/'\\\\\\\\''/g\")'\"; done\n\
             # An end of the input would be typed as a character.\n\
             [ -p /dev/stdin ] || { rm -f input; mkfifo input; exec <>input; }\n\
             exec script -qefc \"stty rows 33 cols 99; $words\" /dev/null",
        )?;
        Ok(place)
    }

    /// Writes a program for scripts to use.
    pub fn program(&self, name: &str, text: &str) -> Result<()> {
        let path = self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{text}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file below it, with the folders above.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        Ok(path)
    }

    /// A tar file with a root filesystem of busybox, for `import`.
    pub fn image(&self) -> Result<PathBuf> {
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
        let busybox = busybox.context("there is no busybox (Debian's busybox-static)")?;
        let root = self.path().join("image");
        for folder in ["bin", "etc", "tmp", "root", "data"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::copy(busybox, root.join("bin/busybox"))?;
        let list = Command::new(busybox).arg("--list").output()?;
        for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(name))?;
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/tmp:/bin/sh\n",
        )?;
        fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\nwheel:x:10:bob\n")?;
        let tar = self.path().join("image.tar");
        let status = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status()?;
        ensure!(status.success(), "tar: {status}");
        fs::remove_dir_all(&root)?;
        Ok(tar)
    }

    /// Runs a script to its end, or kills it with all its children when it hangs.
    pub fn run(&self, prelude: &str, script: &str) -> Result<Output> {
        let (stdout, stderr) = (self.path().join("stdout"), self.path().join("stderr"));
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("PATH={}/bin:$PATH:/usr/sbin:/sbin\n{prelude}\n{script}", self.path().display()))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&stdout)?)
            .stderr(fs::File::create(&stderr)?)
            .spawn()?;
        let status = match wait(&mut child, LIMIT)? {
            Some(status) => status,
            None => {
                tree::kill_tree(child.id());
                child.wait()?;
                let said = String::from_utf8_lossy(&fs::read(&stderr)?).into_owned();
                bail!("no end after {} s; standard error: {said}", LIMIT.as_secs());
            }
        };
        Ok(Output { status, stdout: fs::read(&stdout)?, stderr: fs::read(&stderr)? })
    }

    /// Runs a table of cases, or those that `$CASES` names, and fails with a report of what differs.
    pub fn run_cases(
        &self,
        client: &str,
        prelude: &str,
        cleanup: &str,
        cases: &[Case],
        known: &[Known],
    ) -> Result<()> {
        let only = std::env::var("CASES").unwrap_or_default();
        let only: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
        let (mut passed, mut report) = (0, String::new());
        for case in cases.iter().filter(|case| only.is_empty() || only.contains(&case.name)) {
            let start = Instant::now();
            let difference = match self.run(prelude, case.script) {
                Err(error) => Some(format!("{error:#}")),
                Ok(output) => case.difference(&output),
            };
            let took = start.elapsed().as_millis();
            let why = known.iter().find(|(name, _)| *name == case.name && !self.flags.is_empty());
            match difference {
                Some(_) if why.is_some() => {
                    println!("{client}: {}: known to differ: {}", case.name, why.map_or("", |(_, why)| why));
                }
                None => {
                    passed += 1;
                    println!("{client}: {}: ok ({took} ms)", case.name);
                }
                Some(difference) => {
                    println!("{client}: {}: FAILED ({took} ms)\n{difference}", case.name);
                    let _ = writeln!(report, "{}: {difference}", case.name);
                }
            }
            let _ = self.run(prelude, cleanup);
        }
        println!("{client}: {passed} of {} cases as expected with {}", cases.len(), self.runtime.display());
        ensure!(report.is_empty(), "{report}");
        Ok(())
    }
}

impl Case {
    fn difference(&self, output: &Output) -> Option<String> {
        let stdout = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let code = output.status.code();
        if stdout.trim() == self.stdout && code == Some(self.code) {
            return None;
        }
        Some(format!(
            "  expected {:?} and exit code {}\n  got      {:?} and {}\n  standard error: {}",
            self.stdout,
            self.code,
            stdout.trim(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

/// Waits for a child; None when it has not ended in time.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A daemon that a test starts, and that ends with it.
pub struct Daemon {
    name: String,
    child: Child,
}

impl Daemon {
    /// Starts it, with its output in `log`, and waits until `ready` says so.
    pub fn start(command: &mut Command, log: &Path, mut ready: impl FnMut() -> bool) -> Result<Daemon> {
        let file = fs::File::create(log)?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| name.clone())?;
        let mut daemon = Daemon { name, child };
        let start = Instant::now();
        while !ready() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{}: {status}: {}", daemon.name, last_lines(log));
            }
            if start.elapsed() > LIMIT {
                bail!("{} is not ready after {} s: {}", daemon.name, LIMIT.as_secs(), last_lines(log));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        if !matches!(wait(&mut self.child, Duration::from_secs(30)), Ok(Some(_))) {
            eprintln!("{} does not end on SIGTERM", self.name);
            tree::kill_tree(self.child.id());
            let _ = self.child.wait();
        }
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// What a client has left behind on this machine: mounts and processes that name `place`. What is on its way out gets
/// some time for it.
pub fn left_behind(place: &Path) -> Vec<String> {
    let start = Instant::now();
    loop {
        let left = left_now(&place.to_string_lossy());
        if left.is_empty() || start.elapsed() > Duration::from_secs(60) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn left_now(place: &str) -> Vec<String> {
    let mut left = Vec::new();
    for line in fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines() {
        if line.contains(place) {
            left.push(format!("mount {line}"));
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(place) {
            left.push(format!("process {}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    left
}

/// The cgroups below one of this name, in all hierarchies.
pub fn cgroups(name: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Links lead to hierarchies with two controllers.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if folder.components().any(|part| part.as_os_str() == name) {
                    found.insert(path.clone());
                }
                folders.push(path);
            }
        }
    }
    found
}

/// The cgroups of these names that are made from now on, in any hierarchy, with those below them. The empty ones are removed
/// when this is dropped: engines leave those above their containers' behind.
pub struct NewCgroups {
    names: &'static [&'static str],
    before: BTreeSet<PathBuf>,
}

impl NewCgroups {
    /// From now on.
    pub fn of(names: &'static [&'static str]) -> NewCgroups {
        NewCgroups { names, before: NewCgroups::present(names) }
    }

    fn present(names: &[&str]) -> BTreeSet<PathBuf> {
        let mut found: BTreeSet<PathBuf> = names.iter().flat_map(|name| cgroups(name)).collect();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let path = hierarchy.path();
            found.extend(names.iter().map(|name| path.join(name)).filter(|path| path.is_dir()));
        }
        found
    }
}

impl Drop for NewCgroups {
    fn drop(&mut self) {
        // Children come behind their parents.
        for path in NewCgroups::present(self.names).iter().rev().filter(|path| !self.before.contains(*path)) {
            if let Err(error) = fs::remove_dir(path) {
                eprintln!("left: {}: {error}", path.display());
            }
        }
    }
}

/// The cgroups of containers that were made since `before` below `name`, and are still there. Those of pods, which an
/// engine makes and may leave, are removed.
pub fn cgroups_left(name: &str, before: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let (mut left, mut pods) = (Vec::new(), Vec::new());
    for path in cgroups(name).into_iter().filter(|path| !before.contains(path)) {
        let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_pod = name == "libpod_parent" && path.parent().is_some_and(|parent| parent.ends_with(name));
        // Podman keeps one for all of its monitors.
        if last == "conmon" {
            continue;
        }
        if is_pod && last.len() == 64 { pods.push(path) } else { left.push(path) }
    }
    for pod in pods {
        let _ = fs::remove_dir(pod);
    }
    left
}

/// Whether a program is there, by the PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
