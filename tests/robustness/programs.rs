//! Programs cut at every length and with something wrong in their headers: execve's errors, and the ends of those that
//! start all the same, are Linux's.

use std::process::Command;

use crate::sandbox::{describe, on_each_platform, program, text};

#[test]
fn broken_programs_end_as_on_linux() {
    on_each_platform("broken_programs", |runsc| {
        let mutants = program("mutants");
        let dir = tempfile::tempdir().unwrap();
        let native = Command::new(&mutants).arg(dir.path()).output().unwrap();
        assert!(native.status.success(), "{}", describe(&native));
        let inside = |args: &[&str]| {
            let mut command = runsc.command(&["do", "--"]);
            let output = command.arg(&mutants).arg(dir.path()).args(args).output().unwrap();
            assert!(output.status.success(), "{}", describe(&output));
            text(&output.stdout)
        };
        let (expected, got) = (text(&native.stdout), inside(&[]));
        let differences: Vec<_> =
            expected.lines().zip(got.lines()).filter(|(expected, got)| expected != got).collect();
        assert!(differences.is_empty(), "Linux, and the sandbox: {differences:#?}");
        assert_eq!(expected.lines().count(), got.lines().count());
        // Those may do anything but go on for ever, and nobody else may suffer.
        assert_eq!(inside(&["7", "60"]), "60 mutants\n");
    });
}
