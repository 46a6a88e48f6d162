//! Bundles with something wrong in them: one line that says what, the runtime's exit code, and nothing left.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{Runsc, describe, on_each_platform, text};

/// The bundle is refused, with words that contain one of `words`.
fn refused(runsc: &Runsc, bundle: &str, what: &str, words: &[&str]) {
    for verb in ["run", "create"] {
        let output = runsc.output(&[verb, "--bundle", bundle, "bad"]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(128), "{what}, {verb}: {}", describe(&output));
        assert!(words.iter().any(|word| error.contains(word)), "{what}, {verb}: {error}");
        assert!(!error.contains("panicked") && error.lines().count() == 1, "{what}, {verb}: {error}");
        let left = fs::read_dir(runsc.root()).into_iter().flatten().count();
        assert_eq!(left, 0, "{what}, {verb}: state is left");
    }
}

#[test]
fn wrong_bundles_are_refused_with_their_reason() {
    on_each_platform("wrong_bundles", |runsc| {
        let with = |what: &str, words: &[&str], change: &dyn Fn(&mut Value)| {
            let bundle = runsc.bundle("b", &["hello"], |config| change(config));
            refused(runsc, &bundle, what, words);
        };
        with("a root that is missing", &["nowhere"], &|c| c["root"]["path"] = json!("nowhere"));
        with("a root that is a file", &["config.json"], &|c| c["root"]["path"] = json!("config.json"));
        with("no root", &["root"], &|c| c["root"] = Value::Null);
        with("no process", &["process"], &|c| c["process"] = Value::Null);
        with("no arguments", &["args"], &|c| c["process"]["args"] = json!([]));
        with("an unknown user", &["nobody-we-know"], &|c| {
            c["process"]["user"] = json!({"uid": 0, "gid": 0, "username": "nobody-we-know"});
        });
        with("a program that is missing", &["/no/such"], &|c| c["process"]["args"] = json!(["/no/such"]));
        with("a program that is none", &["/tmp"], &|c| c["process"]["args"] = json!(["/tmp"]));
        with("a relative directory", &["cwd", "absolute"], &|c| c["process"]["cwd"] = json!("tmp"));
        with("an unknown limit", &["RLIMIT_NONE"], &|c| {
            c["process"]["rlimits"] = json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]);
        });
        with("a mount of nothing", &["nothing-there"], &|c| {
            c["mounts"] = json!([{"destination": "/x", "type": "bind", "source": "/nothing-there",
                                  "options": ["rbind"]}]);
        });
        with("a file system that is not there", &["wonderfs"], &|c| {
            c["mounts"] = json!([{"destination": "/x", "type": "wonderfs", "source": "x"}]);
        });
        with("numbers of the wrong type", &["config.json"], &|c| c["process"]["user"]["uid"] = json!("0"));
        with("numbers too large", &["config.json"], &|c| c["process"]["user"]["uid"] = json!(1u64 << 40));
    });
}

#[test]
fn a_broken_config_is_refused() {
    on_each_platform("a_broken_config", |runsc| {
        let bundle = runsc.bundle("b", &["hello"], |_| {});
        let path = format!("{bundle}/config.json");
        let good = fs::read(&path).unwrap();
        let mut broken: Vec<Vec<u8>> =
            (0..good.len()).step_by(good.len() / 8).map(|n| good[..n].to_vec()).collect();
        broken.push(vec![0xff; 100]);
        broken.push(b"[".repeat(100_000));
        broken.push(b"[]".to_vec());
        for bytes in broken {
            fs::write(&path, &bytes).unwrap();
            refused(runsc, &bundle, &format!("{} bytes", bytes.len()), &["config.json"]);
        }
        fs::remove_file(&path).unwrap();
        refused(runsc, &bundle, "none", &["config.json"]);
        fs::create_dir(&path).unwrap();
        refused(runsc, &bundle, "a directory", &["config.json"]);
        refused(runsc, &format!("{bundle}/nowhere"), "no bundle", &["nowhere"]);
    });
}
