//! The shim as containerd calls it, as far as no container is needed.

use std::process::{Command, Output, Stdio};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::RuntimeInfo;

fn shim(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_containerd-shim-runsc-v1"));
    command.args(args).env_remove("TTRPC_ADDRESS").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn it_describes_itself() {
    let output = shim(&["-v"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("io.containerd.runsc.v1"), "{output:?}");
    let output = shim(&["-info"]);
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.runsc.v1");
    assert!(!info.version.version.is_empty());
}

#[test]
fn calls_that_containerd_would_not_make_are_refused() {
    for (args, words) in [
        (&["start"][..], "called by containerd"),
        (&["-namespace", "n", "-id", "c", "start"], "TTRPC_ADDRESS"),
        (&["-namespace", "n", "-id", "../c", "start"], "no container"),
        (&["-no-such-flag"], "-no-such-flag"),
        // Its socket is its standard input.
        (&["-namespace", "n", "-id", "c"], "no socket"),
    ] {
        let output = shim(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
    }
}
