//! An image of busybox, in the form of `docker save`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// The image's name.
pub const BOX: &str = "docker.io/library/box:latest";
/// The same under another name, for the first container of pods.
pub const PAUSE: &str = "docker.io/library/pause:latest";

/// Writes the image's tar file into `dir`.
pub fn make(dir: &Path) -> Result<PathBuf, String> {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let busybox = busybox.ok_or("there is no busybox (Debian's busybox-static)")?;
    let layer = dir.join("layer");
    let fail = |error: std::io::Error| error.to_string();
    for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
        std::fs::create_dir_all(layer.join(name)).map_err(fail)?;
    }
    std::fs::copy(&busybox, layer.join("bin/busybox")).map_err(fail)?;
    let applets = Command::new(&busybox).arg("--list").output().map_err(fail)?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).map_err(fail)?;
    }
    std::fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").map_err(fail)?;
    std::fs::write(layer.join("etc/group"), "root:x:0:\n").map_err(fail)?;
    tar(&layer, &dir.join("layer.tar"), &["."])?;
    let digest = Command::new("sha256sum").arg(dir.join("layer.tar")).output().map_err(fail)?;
    let digest = String::from_utf8_lossy(&digest.stdout).split_whitespace().next().unwrap_or("").to_owned();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "100000"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created_by": "test"}]
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [BOX, PAUSE], "Layers": ["layer.tar"]}]);
    std::fs::write(dir.join("config.json"), config.to_string()).map_err(fail)?;
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).map_err(fail)?;
    let image = dir.join("image.tar");
    tar(dir, &image, &["manifest.json", "config.json", "layer.tar"])?;
    Ok(image)
}

fn tar(from: &Path, to: &Path, what: &[&str]) -> Result<(), String> {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(from)
        .arg("-cf")
        .arg(to)
        .args(what)
        .status()
        .map_err(|error| format!("tar: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("tar: {status}")) }
}
