//! Systemd's driver: a container's group is a transient scope, which systemd makes with the container's first process.
//!
//! `linux.cgroupsPath` is then `SLICE:PREFIX:NAME`: the scope `PREFIX-NAME.scope` in the slice. Systemd is told the limits
//! that it has a word for, lest it set others the next time that it looks at its units; all of them are then written to the
//! files of the group, as without systemd.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::bus::{Body, Bus, Method, Value};
use super::resources::{room_for, weight_of_shares};

/// How long systemd may take to put a process into its scope.
const LIMIT: Duration = Duration::from_secs(30);

/// A scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `system.slice`, say.
    slice: String,
    /// What the scope's name starts with.
    prefix: String,
    /// The container.
    name: String,
}

impl Unit {
    /// Of a path in systemd's form; the default is that of runc.
    pub fn new(id: &str, path: &Path) -> Result<Unit> {
        let text = path.to_string_lossy();
        if text.is_empty() {
            return Ok(Unit { slice: default_slice(), prefix: "runsc".into(), name: id.into() });
        }
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            bail!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
            );
        };
        let slice = if slice.is_empty() { default_slice() } else { slice.to_owned() };
        Ok(Unit { slice, prefix: prefix.into(), name: name.into() })
    }

    fn scope(&self) -> String {
        match self.prefix.as_str() {
            "" => format!("{}.scope", self.name),
            prefix => format!("{prefix}-{}.scope", self.name),
        }
    }

    /// Where systemd makes it: `a-b.slice` is in `a.slice`.
    pub fn path(&self) -> Result<PathBuf> {
        let Some(name) = self.slice.strip_suffix(".slice").filter(|name| !name.contains('/')) else {
            bail!("{:?} is no slice of systemd's", self.slice);
        };
        let mut path = PathBuf::from("/");
        if name != "-" {
            let mut above = String::new();
            for part in name.split('-') {
                if part.is_empty() {
                    bail!("{:?} is no slice of systemd's", self.slice);
                }
                above.push_str(part);
                path.push(format!("{above}.slice"));
                above.push('-');
            }
        }
        path.push(self.scope());
        Ok(path)
    }
}

impl Unit {
    /// Has systemd make the scope around a process.
    pub fn start(&self, pid: Pid, resources: Option<&LinuxResources>) -> Result<()> {
        let mut properties = vec![
            ("Description", Value::Text(format!("container {}", self.name))),
            ("Slice", Value::Text(self.slice.clone())),
            ("DefaultDependencies", Value::Bool(false)),
            ("Delegate", Value::Bool(true)),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("IOAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
            ("PIDs", Value::Numbers(vec![pid.as_raw().unsigned_abs()])),
        ];
        properties.extend(resources.map(limits).unwrap_or_default());
        let mut body = Body::default();
        body.text(&self.scope());
        body.text("replace");
        body.properties(&properties);
        body.no_units();
        manager("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?;
        // The answer comes when the job is queued, not when it is done.
        let start = Instant::now();
        let group = format!("/{}", self.scope());
        while !std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?
            .lines()
            .any(|line| line.ends_with(&group))
        {
            if start.elapsed() > LIMIT {
                bail!("{} has not started", self.scope());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Tells systemd other limits.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let mut body = Body::default();
        body.text(&self.scope());
        // Until the next boot.
        body.bool(true);
        body.properties(&limits(resources));
        manager("SetUnitProperties", "sba(sv)", &body)
    }
}

/// Calls systemd: the system's, or the user's own.
fn manager(member: &str, signature: &str, body: &Body) -> Result<()> {
    let uid = nix::unistd::geteuid();
    let socket = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if uid.is_root() => PathBuf::from("/run/dbus/system_bus_socket"),
        Some(directory) => PathBuf::from(directory).join("bus"),
        None => PathBuf::from(format!("/run/user/{uid}/bus")),
    };
    call(&socket, member, signature, body).context("cgroups: systemd")
}

fn call(socket: &Path, member: &str, signature: &str, body: &Body) -> Result<()> {
    let method = Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
        signature,
    };
    Bus::connect(socket)?.call(&method, body)
}

/// The limits that systemd knows, by its names.
fn limits(resources: &LinuxResources) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let or_max = |limit: i64| Value::Number(u64::try_from(limit).unwrap_or(u64::MAX));
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            all.push(("MemoryMax", or_max(limit)));
        }
        if let Some(low) = memory.reservation().filter(|low| *low != 0) {
            all.push(("MemoryLow", or_max(low)));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            all.push(("CPUWeight", Value::Number(weight_of_shares(shares))));
        }
        if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
            let period = cpu.period().filter(|period| *period != 0).unwrap_or(100_000);
            // Systemd wants microseconds a second, in steps of 10 ms.
            let rate = u64::try_from(quota).map(|quota| quota.saturating_mul(1_000_000) / period);
            let rate = rate.map_or(u64::MAX, |rate| rate.next_multiple_of(10_000));
            all.push(("CPUQuotaPeriodUSec", Value::Number(period)));
            all.push(("CPUQuotaPerSecUSec", Value::Number(rate)));
        }
    }
    if let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        all.push((
            "TasksMax",
            u64::try_from(pids.limit()).map_or(Value::Number(u64::MAX), |n| Value::Number(room_for(n))),
        ));
    }
    all
}

fn default_slice() -> String {
    if nix::unistd::geteuid().is_root() { "system.slice".into() } else { "user.slice".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_nested_by_name() {
        let path = |text: &str| Unit::new("id", Path::new(text)).and_then(|unit| unit.path());
        let pod = path("kubepods-besteffort-pod1.slice:cri-containerd:c1").unwrap();
        assert_eq!(
            pod,
            Path::new(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-c1.scope"
            )
        );
        assert_eq!(path("-.slice::c1").unwrap(), Path::new("/c1.scope"));
        assert!(path("/a/b").is_err());
        assert!(path("a--b.slice:p:c").is_err());
        assert!(path("nothing:p:c").is_err());
    }

    /// A bus looks at each message whether it is what it says, and ends the connection if not.
    #[test]
    fn a_bus_understands_what_is_said() {
        use std::io::{BufRead, BufReader};
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bus");
        let address = format!("--address=unix:path={}", socket.display());
        let daemon = std::process::Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address", &address])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            println!("skipped: there is no dbus-daemon");
            return;
        };
        let mut line = String::new();
        let ready = BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line);
        let properties = [
            ("Description", Value::Text("container".into())),
            ("Delegate", Value::Bool(true)),
            ("PIDs", Value::Numbers(vec![1, 2])),
            ("MemoryMax", Value::Number(7)),
        ];
        let mut start = Body::default();
        start.text("a.scope");
        start.text("replace");
        start.properties(&properties);
        start.no_units();
        let mut set = Body::default();
        set.text("a.scope");
        set.bool(true);
        set.properties(&properties[1..]);
        let started = call(&socket, "StartTransientUnit", "ssa(sv)a(sa(sv))", &start);
        let updated = call(&socket, "SetUnitProperties", "sba(sv)", &set);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        ready.unwrap();
        for result in [started, updated] {
            let said = crate::report::line(&result.unwrap_err());
            assert!(
                said.contains("org.freedesktop.systemd1") && said.contains("org.freedesktop.DBus.Error"),
                "{said}"
            );
        }
    }

    #[test]
    fn limits_have_systemds_names() {
        let resources = serde_json::json!({
            "memory": {"limit": 1000}, "cpu": {"quota": 25000, "period": 100000, "shares": 1024}, "pids": {"limit": -1}
        });
        let number = Value::Number;
        assert_eq!(
            limits(&serde_json::from_value(resources).unwrap()),
            [
                ("MemoryMax", number(1000)),
                ("CPUWeight", number(39)),
                ("CPUQuotaPeriodUSec", number(100_000)),
                ("CPUQuotaPerSecUSec", number(250_000)),
                ("TasksMax", number(u64::MAX)),
            ]
        );
    }
}
