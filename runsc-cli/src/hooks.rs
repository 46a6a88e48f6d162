//! OCI hooks: programs of the caller's that run at points of a container's life, with its state on standard input.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Spec};

use crate::boot::start_hooks::Hook as Inside;
use crate::process::{ProcessId, wait_readable};
use crate::state::{OCI_VERSION, State, Status};

/// A point of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// During create, after the namespaces were made (old name).
    Prestart,
    /// During create, after the namespaces were made.
    CreateRuntime,
    /// During create, after those, in the namespaces of the sandbox.
    CreateContainer,
    /// After the first process was started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

impl Point {
    fn hooks(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else {
            return &[];
        };
        match self {
            Point::Prestart => hooks.prestart(),
            Point::CreateRuntime => hooks.create_runtime(),
            Point::CreateContainer => hooks.create_container(),
            Point::Poststart => hooks.poststart(),
            Point::Poststop => hooks.poststop(),
        }
        .as_deref()
        .unwrap_or_default()
    }

    fn name(self) -> &'static str {
        match self {
            Point::Prestart => "prestart",
            Point::CreateRuntime => "createRuntime",
            Point::CreateContainer => "createContainer",
            Point::Poststart => "poststart",
            Point::Poststop => "poststop",
        }
    }
}

/// The hooks of startContainer, which the sentry runs. Their standard input is what runc's are given: the container's
/// state as it is seen inside, where its process is process 1.
pub fn for_inside(id: &str, bundle: &Path, spec: &Spec) -> Vec<Inside> {
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_deref());
    let state = serde_json::json!({
        "ociVersion": OCI_VERSION,
        "id": id,
        "status": Status::Created.as_str(),
        "pid": 1,
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    });
    let inside = |hook: &Hook| Inside {
        path: hook.path().to_string_lossy().into_owned(),
        args: hook.args().iter().flatten().skip(1).cloned().collect(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()),
        state: state.to_string(),
    };
    hooks.unwrap_or_default().iter().map(inside).collect()
}

/// Runs the hooks of a point, in order, and stops at the first that fails.
pub fn run(point: Point, spec: &Spec, state: &State, status: Status) -> Result<()> {
    for hook in point.hooks(spec) {
        run_one(point, hook, state, status)
            .with_context(|| format!("{} hook {:?}", point.name(), hook.path()))?;
    }
    Ok(())
}

/// Runs the hooks of a point, also after one that fails, and returns the failures.
pub fn run_all(point: Point, spec: &Spec, state: &State, status: Status) -> Vec<anyhow::Error> {
    let run = |hook| {
        run_one(point, hook, state, status)
            .with_context(|| format!("{} hook {:?}", point.name(), hook.path()))
    };
    point.hooks(spec).iter().filter_map(|hook| run(hook).err()).collect()
}

/// What a hook of the container's namespaces enters of the sandbox's. There is no mount namespace among them: the
/// container's mounts are the sentry's, and a sentry has no files. A hook sees those of the host.
const NAMESPACES: CloneFlags =
    CloneFlags::CLONE_NEWNET.union(CloneFlags::CLONE_NEWUTS).union(CloneFlags::CLONE_NEWIPC);

/// Makes a command enter the namespaces of the sandbox's process before it executes anything. Without root, they belong
/// to the user namespace of that process.
fn enter_namespaces(command: &mut Command, state: &State) -> Result<()> {
    let sentry = state.sentry.as_ref().and_then(ProcessId::open).context("the sandbox is gone")?;
    let own_users = !nix::unistd::geteuid().is_root() || crate::process::in_user_namespace();
    let enter = move || {
        if own_users {
            setns(&sentry, NAMESPACES | CloneFlags::CLONE_NEWUSER)?;
        } else {
            setns(&sentry, NAMESPACES)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call with what was there before.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

fn run_one(point: Point, hook: &Hook, state: &State, status: Status) -> Result<()> {
    let output = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(args);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    if state.bundle != Path::new("") {
        command.current_dir(&state.bundle);
    }
    command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    if point == Point::CreateContainer {
        enter_namespaces(&mut command, state)?;
    }
    let mut child = command.spawn()?;
    let text = state.oci_as(status).to_string();
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read its input.
        let _ = input.write_all(text.as_bytes());
    }
    if let Some(seconds) = hook.timeout() {
        let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let pidfd = ProcessId::of(Pid::from_raw(child.id() as i32))?.open();
        let ended = match &pidfd {
            Some(pidfd) => wait_readable(pidfd.as_fd(), Some(limit))?,
            None => true,
        };
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            bail!("still running after {seconds} s");
        }
    }
    let exit = child.wait()?;
    if exit.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let mut output = std::fs::File::from(output);
    output.rewind()?;
    output.take(4096).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said).trim().replace('\n', " ");
    Err(match said.as_str() {
        "" => anyhow!("{exit}"),
        said => anyhow!("{exit}: {said}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(bundle: &Path) -> State {
        State {
            id: "c1".into(),
            bundle: bundle.into(),
            annotations: [("a".to_string(), "b".to_string())].into(),
            created: String::new(),
            owner: 0,
            status: Status::Creating,
            sentry: None,
            gofer: None,
            sandbox: None,
            stand_in: None,
            record: Default::default(),
        }
    }

    fn spec(hooks: serde_json::Value) -> Spec {
        serde_json::from_value(json!({"ociVersion": "1.0.2", "hooks": hooks})).unwrap()
    }

    #[test]
    fn a_hook_reads_the_state_and_its_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(json!({
            "createRuntime": [{
                "path": "/bin/sh",
                "args": ["sh", "-c", "cat > state; echo \"$A\" > env"],
                "env": ["A=B"]
            }],
            "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", "echo why; exit 3"]}],
            "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 100"], "timeout": 1}],
            "prestart": [{"path": "/nowhere"}],
        }));
        let state = state(dir.path());
        run(Point::CreateRuntime, &spec, &state, Status::Created).unwrap();
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let seen: serde_json::Value = serde_json::from_str(&read("state")).unwrap();
        assert_eq!(seen["id"], "c1");
        assert_eq!(seen["status"], "created");
        assert_eq!(seen["annotations"]["a"], "b");
        assert_eq!(read("env"), "B\n");
        let failure = |point| crate::report::line(&run(point, &spec, &state, Status::Created).unwrap_err());
        let said = failure(Point::Poststop);
        assert!(said.contains("poststop hook \"/bin/sh\"") && said.ends_with(": why"), "{said}");
        assert!(failure(Point::Poststart).contains("still running after 1 s"));
        assert!(failure(Point::Prestart).contains("no such file"));
        run(Point::CreateContainer, &spec, &state, Status::Created).unwrap();
    }

    #[test]
    fn hooks_for_the_inside_know_the_state() {
        let spec = spec(json!({"startContainer": [
            {"path": "/bin/hook", "args": ["hook", "-x"], "env": ["A=B"], "timeout": 3}
        ]}));
        let hooks = for_inside("c1", Path::new("/b"), &spec);
        assert_eq!(
            (hooks[0].path.as_str(), &hooks[0].args[..], hooks[0].timeout),
            ("/bin/hook", &["-x".to_owned()][..], Some(3))
        );
        let state: serde_json::Value = serde_json::from_str(&hooks[0].state).unwrap();
        assert_eq!(
            (&state["id"], &state["status"], &state["pid"]),
            (&json!("c1"), &json!("created"), &json!(1))
        );
    }
}
