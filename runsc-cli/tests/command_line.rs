//! What the command says and how it ends, without a sandbox.

mod common;

use common::{Runsc, describe, text};
use serde_json::Value;

#[test]
fn failures_are_one_line_and_exit_128() {
    let runsc = Runsc::new();
    assert_eq!(runsc.fails(&["state", "nobody"]), "runsc: container \"nobody\" does not exist\n");
    let line = runsc.fails(&["run", "--bundle", "/nowhere", "c1"]);
    assert_eq!(line, "runsc: running container \"c1\": bundle \"/nowhere\": no such file or directory\n");
    assert!(runsc.fails(&["start", "nobody"]).contains("does not exist"));
    assert!(runsc.fails(&["kill", "nobody", "TERM"]).contains("does not exist"));
    assert!(runsc.fails(&["delete", "nobody"]).contains("does not exist"));
    assert!(runsc.fails(&["exec", "nobody", "true"]).contains("does not exist"));
    assert!(runsc.fails(&["state", "../x"]).contains("no valid container id"));
    runsc.ok(&["delete", "--force", "nobody"]);
}

#[test]
fn what_is_not_there_yet_is_said() {
    let runsc = Runsc::with_flags(&["--network", "sandbox"]);
    let line = runsc.fails(&["list"]);
    assert!(line.contains("not there yet"), "{line}");
}

#[test]
fn broken_configurations_are_explained() {
    let runsc = Runsc::new();
    let bundle = runsc.dir.path().join("b");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let run = |text: &str| {
        std::fs::write(bundle.join("config.json"), text).unwrap();
        let line = runsc.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
        assert!(line.starts_with("runsc: running container \"c1\": "), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        // Nothing is left, so the id is free.
        assert!(runsc.fails(&["state", "c1"]).contains("does not exist"));
        line
    };
    let good = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"args":["true"],"cwd":"/"}}"#;
    for (replace, with, message) in [
        (good, "{", "EOF while parsing"),
        (good, "", "EOF while parsing"),
        (r#""path":"rootfs""#, r#""path":"nowhere""#, "no such file"),
        (r#"["true"]"#, "[]", "args is empty"),
        (r#""uid":0"#, r#""uid":-1"#, "expected u32"),
        (r#""uid":0"#, r#""uid":0,"username":"eve""#, "user \"eve\" is not in the container's /etc/passwd"),
        (r#""cwd":"/""#, r#""cwd":"x""#, "not an absolute path"),
        (r#""1.0.2""#, r#""9""#, "not supported"),
        (
            r#""process":"#,
            r#""mounts":[{"destination":"/x","type":"bind","source":"/nowhere"}],"process":"#,
            "mounts[0] \"/x\": open \"/nowhere\": no such file or directory",
        ),
        (r#""cwd":"#, r#""terminal":true,"cwd":"#, "standard input is no terminal"),
    ] {
        let text = good.replacen(replace, with, 1);
        let line = run(&text);
        assert!(line.contains(message), "{line:?} does not say {message:?}");
    }
    std::fs::remove_file(bundle.join("config.json")).unwrap();
    let line = runsc.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(line.contains("config.json\": no such file"), "{line}");
}

#[test]
fn errors_are_logged_for_the_caller() {
    let runsc = Runsc::new();
    let log = runsc.dir.path().join("log.json");
    let output = runsc
        .command(&[])
        .args(["--log-format", "json", "--log"])
        .arg(&log)
        .args(["state", "nobody"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128), "{}", describe(&output));
    let entry: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    assert_eq!(entry["msg"], "container \"nobody\" does not exist");
    assert!(entry["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_written_spec_can_be_run_from() {
    let runsc = Runsc::new();
    let bundle = runsc.dir.path().join("b");
    std::fs::create_dir(&bundle).unwrap();
    let bundle = bundle.to_str().unwrap();
    runsc.ok(&["spec", "--bundle", bundle, "--", "echo", "-n", "hi"]);
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{bundle}/config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["echo", "-n", "hi"]));
    // All that is wrong with it is that there is no root filesystem.
    let line = runsc.fails(&["run", "--bundle", bundle, "c1"]);
    assert!(line.contains("rootfs\": no such file"), "{line}");
    assert!(runsc.fails(&["spec", "--bundle", bundle]).contains("file exists"));
}

#[test]
fn lists_are_empty_at_first() {
    let runsc = Runsc::new();
    assert_eq!(runsc.ok(&["list", "--format", "json"]), "[]\n");
    assert_eq!(runsc.ok(&["list", "--quiet"]), "");
    assert!(runsc.ok(&["list"]).starts_with("ID"));
}

#[test]
fn who_reads_no_further_is_no_error_and_a_full_disk_is() {
    let runsc = Runsc::new();
    for verb in ["list", "features", "syscalls"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = runsc.command(&[verb]).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{verb}: {}", describe(&output));
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = runsc.command(&[verb]).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(128), "{verb}: {}", describe(&output));
        let said = "runsc: writing to standard output: no space left on device\n";
        assert_eq!(text(&output.stderr), said, "{verb}");
    }
}

#[test]
fn usage_errors_exit_2() {
    let runsc = Runsc::new();
    for args in [&["fly"][..], &[], &["run"], &["--no-such-flag", "list"]] {
        let output = runsc.output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", describe(&output));
        assert!(text(&output.stderr).contains("Usage"), "{}", describe(&output));
    }
}

#[test]
fn platforms_are_explained() {
    let text = Runsc::new().ok(&["platforms"]);
    assert!(text.contains("ptrace") && text.contains("systrap"), "{text}");
}
