//! Guest programs in C: found in a folder, built with the system's compiler into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// How a guest program is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linkage {
    /// One file, nothing to load at run time.
    Static,
    /// Position independent, with the dynamic linker and shared libraries of the system it runs in.
    Pie,
}

/// The folder of this crate in the source tree.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target folder.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => crate_dir().parent().unwrap_or(Path::new("..")).join("target"),
    }
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Builds one C source into the target folder, unless what is there is newer than the source and every header beside
/// it. Returns the program's path.
pub fn build(source: &Path, linkage: Linkage) -> Result<PathBuf> {
    let name = source.file_stem().context("a source without a name")?;
    let kind = match linkage {
        Linkage::Static => "static",
        Linkage::Pie => "pie",
    };
    let dir = target_dir().join("guest").join(kind);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let program = dir.join(name);
    let folder = source.parent().context("a source without a folder")?;
    let newest = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path == source || path.extension().is_some_and(|ext| ext == "h"))
        .map(|path| modified(&path))
        .max()
        .unwrap_or(SystemTime::now());
    if modified(&program) > newest {
        return Ok(program);
    }
    // Built beside and renamed: another harness may be running the old one.
    let fresh = dir.join(format!("{}.{}", name.to_string_lossy(), std::process::id()));
    let mut cc = Command::new("gcc");
    cc.args(["-O1", "-g", "-pthread", "-w", "-Werror=trampolines", "-o"]).arg(&fresh).arg(source);
    cc.args(match linkage {
        Linkage::Static => &["-static"][..],
        Linkage::Pie => &["-fPIE", "-pie"],
    });
    let output = cc.output().context("running gcc")?;
    if !output.status.success() {
        bail!("gcc {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(&fresh, &program)?;
    Ok(program)
}

/// True if there is a compiler to build guest programs with.
pub fn have_compiler() -> bool {
    Command::new("gcc").arg("--version").output().is_ok_and(|output| output.status.success())
}
