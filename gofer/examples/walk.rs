//! Measures requests, client and server in two threads on one core: `cargo run --release --example walk`.

use gofer::protocol::OpenFlags;
use gofer::{Client, MountFlags, MountRoot, channel_pair, serve};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 20_000;

fn pin() -> nix::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)
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
    let root = tempfile::tempdir()?;
    fs::create_dir_all(root.path().join("a/b/c/d"))?;
    fs::write(root.path().join("a/b/c/d/file"), b"contents")?;
    for n in 0..1000 {
        fs::write(root.path().join(format!("a/b/c/entry{n}")), b"")?;
    }
    pin()?;
    let (client, server) = channel_pair()?;
    let fd = File::open(root.path())?.into();
    let mounts = vec![MountRoot { fd, flags: MountFlags::empty() }];
    let serving = std::thread::spawn(move || serve(server, mounts));

    let client = Client::new(client);
    let top = client.attach(0)?.node;
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
    time("open", || client.open(file, OpenFlags::empty()).map(|opened| drop(black_box(opened))))?;
    let per_entry = 1000;
    let mut entries = 0;
    let start = Instant::now();
    for _ in 0..per_entry {
        let mut cookie = 0;
        loop {
            let batch = client.read_dir(directory, cookie, 32768, false)?;
            entries += batch.len();
            match batch.iter().last() {
                Some(last) if !batch.end => cookie = last.cookie,
                _ => break,
            }
        }
    }
    println!("{:40} {:7.2} µs", "read_dir, per entry", start.elapsed().as_secs_f64() * 1e6 / entries as f64);
    drop(client);
    serving.join().map_err(|_| "the server panicked")??;
    Ok(())
}
