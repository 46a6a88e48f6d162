//! Measures requests to a confined server in a process of its own, on one core and on any: `cargo run --release
//! --example walk`.

use gofer::confine::confine;
use gofer::protocol::OpenFlags;
use gofer::server::serve_channels;
use gofer::{Client, MountFlags, MountRoot, channel_pair};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: u32 = 20_000;

fn pin(cores: &[usize]) -> nix::Result<()> {
    let mut cpus = CpuSet::new();
    cores.iter().try_for_each(|&core| cpus.set(core))?;
    sched_setaffinity(Pid::from_raw(0), &cpus)
}

/// The server process: its channel is its standard input.
fn serve(root: &str) -> Result<(), Box<dyn Error>> {
    let channels = [std::io::stdin().as_fd().try_clone_to_owned()?];
    let mounts = vec![MountRoot { fd: File::open(root)?.into(), flags: MountFlags::empty() }];
    let errors = std::io::stderr();
    let start = Instant::now();
    let confined = confine(&channels, mounts, &[errors.as_fd()])?;
    eprintln!("confined in {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    confined.skipped.iter().for_each(|skipped| eprintln!("skipped: {skipped}"));
    Ok(serve_channels(channels.into(), confined.server)?)
}

/// Memory that only this process has, in KiB.
fn private(pid: u32) -> Result<u64, Box<dyn Error>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let sizes = maps
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1));
    Ok(sizes.filter_map(|size| size.parse::<u64>().ok()).sum())
}

fn time(name: &str, mut request: impl FnMut() -> abi::Result<()>) -> Result<(), Box<dyn Error>> {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            request()?;
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(ROUNDS));
    }
    println!("{name:40} {:7.2} µs", best * 1e6);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(root) = std::env::args().nth(1) {
        return serve(&root);
    }
    let root = tempfile::tempdir()?;
    fs::create_dir_all(root.path().join("a/b/c/d"))?;
    fs::write(root.path().join("a/b/c/d/file"), b"contents")?;
    for n in 0..1000 {
        fs::write(root.path().join(format!("a/b/c/entry{n}")), b"")?;
    }
    println!("on one core");
    pin(&[0])?;
    measure(root.path())?;
    println!("on any core");
    pin(&(0..std::thread::available_parallelism()?.get().max(2)).collect::<Vec<_>>())?;
    measure(root.path())
}

fn measure(root: &Path) -> Result<(), Box<dyn Error>> {
    let (client, end) = channel_pair()?;
    let mut server = Command::new(std::env::current_exe()?).arg(root).stdin(Stdio::from(end)).spawn()?;
    let client = Client::new(client);
    let top = client.attach(0)?.node;
    println!("{:40} {:4} KiB", "private memory of an idle server", private(server.id())?);
    let path: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"file"];
    let walked = client.walk(top, &path)?;
    let file = walked.entries.last().ok_or("no file")?.node;
    let directory = walked.entries.get(2).ok_or("no directory")?.node;

    time("attributes", || client.attributes(file).map(drop))?;
    time("walk of a missing name", || client.walk(top, &[b"missing"]).map(drop))?;
    time("walk of 1 name, forget", || {
        let (entry, _) = client.lookup(top, b"a")?;
        client.forget(entry.node);
        Ok(())
    })?;
    time("walk of 5 names, forget", || {
        let walked = client.walk(top, &path)?;
        walked.entries.iter().for_each(|entry| client.forget(entry.node));
        Ok(())
    })?;
    time("open, close", || client.open(file, OpenFlags::empty()).map(|opened| drop(black_box(opened))))?;
    for attributes in [false, true] {
        let mut entries = 0;
        let start = Instant::now();
        for _ in 0..200 {
            let mut cookie = 0;
            loop {
                let batch = client.read_dir(directory, cookie, 65536, attributes)?;
                entries += batch.len();
                match batch.iter().last() {
                    Some(last) if !batch.end => cookie = last.cookie,
                    _ => break,
                }
            }
        }
        let name = if attributes { "entry of a directory, with attributes" } else { "entry of a directory" };
        println!("{name:40} {:7.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(entries as u32));
    }
    println!("{:40} {:4} KiB", "private memory of the server now", private(server.id())?);
    drop(client);
    server.wait()?;
    Ok(())
}
