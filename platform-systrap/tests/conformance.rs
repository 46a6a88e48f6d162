//! The conformance suite on systrap.

fn main() {
    platform::conformance::main(|| match platform_systrap::SystrapPlatform::new(true) {
        Ok(platform) => Ok(Box::new(platform)),
        Err(e) => Err(e.to_string()),
    });
}
