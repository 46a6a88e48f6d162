//! Compiles the part of the Container Runtime Interface that a test speaks: in Rust alone, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=containerd/proto/cri.proto");
    let files = protox::compile(["containerd/proto/cri.proto"], ["containerd/proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
