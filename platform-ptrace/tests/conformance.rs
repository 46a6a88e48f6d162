//! The conformance suite on the ptrace platform.

fn main() {
    platform::conformance::main(|| match platform_ptrace::Ptrace::new() {
        Ok(platform) => Ok(Box::new(platform)),
        Err(e) => Err(e.to_string()),
    });
}
