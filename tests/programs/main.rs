//! All real programs on all platforms, as a test: `cargo test -p runsc-tests --test programs`.
//!
//! It takes many minutes and is left out of a plain `cargo test`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        println!("programs: test");
        return ExitCode::SUCCESS;
    }
    match Command::new(env!("CARGO_BIN_EXE_programs")).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("programs: {error}");
            ExitCode::FAILURE
        }
    }
}
