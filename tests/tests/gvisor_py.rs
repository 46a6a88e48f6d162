//! The PyPI package `gvisor`, a Python client, drives `runsc`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use runsc_tests::clients::{self, Place};

/// The version that is tested.
const PACKAGE: &str = "gvisor==2026.10.22.0";

const SCRIPT: &str = include_str!("gvisor_py.py");

#[test]
fn the_python_client_works() -> Result<()> {
    // Debian's first: the user without rights cannot reach others.
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from);
    let Some(python) = python.into_iter().find(|path| path.exists()) else {
        eprintln!("skipped: gvisor_py: there is no /usr/bin/python3");
        return Ok(());
    };
    let place = Place::new()?;
    let library = place.path().join("library");
    if let Some(why) = install(&library) {
        eprintln!("skipped: gvisor_py: {PACKAGE} cannot be had: {why}");
        return Ok(());
    }
    for path in [place.path(), &library] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    place.write("script.py", SCRIPT)?;
    // By a process of its own: a file that another thread's child has open for writing cannot be executed.
    let binary = place.path().join("bin/runsc");
    ensure!(Command::new("cp").arg(&place.runtime).arg(&binary).status()?.success(), "cp");
    let run = |user: Option<u32>| -> Result<()> {
        let mut command = Command::new(&python);
        command
            .arg(place.path().join("script.py"))
            .args(["none", "host"])
            .current_dir("/")
            .env("PYTHONPATH", &library);
        let temporary = place.path().join(user.map_or("root".into(), |user| user.to_string()));
        fs::create_dir(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o777))?;
        command.env("TMPDIR", &temporary);
        match user {
            // Found by the PATH once, and once by its own variable.
            None => command.env("PATH", format!("{}:/usr/bin:/bin", place.path().join("bin").display())),
            Some(user) => command.env("RUNSC_PATH", &binary).uid(user).gid(user),
        };
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "user {user:?}: after {said:?}: {error}");
        println!("gvisor_py: user {user:?}: {}", said.lines().collect::<Vec<_>>().join(", "));
        Ok(())
    };
    let mut result = Ok(());
    if nix::unistd::geteuid().is_root() {
        result = run(None).and(run(Some(1999)));
    } else {
        let _ = run;
        eprintln!("skipped: gvisor_py: needs root to be two users");
    }
    assert_eq!(clients::left_behind(place.path()), Vec::<String>::new());
    result
}

/// Installs the package; says why if that is not possible.
fn install(library: &Path) -> Option<String> {
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-cache-dir",
            "--no-deps",
            "--disable-pip-version-check",
        ])
        .arg("--target")
        .arg(library)
        .arg(PACKAGE)
        .output();
    match output {
        Err(error) => Some(format!("python3: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(said.lines().last().unwrap_or("pip failed").to_owned())
        }
    }
}
