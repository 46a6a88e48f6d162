//! `--network=host`: sockets of the host.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{Runsc, describe, text};
use serde_json::json;

/// A Perl program in the sandbox, which every Debian has.
fn perl(runsc: &Runsc, program: &str) -> std::process::Command {
    runsc.command(&["do", "perl", "-MIO::Socket::INET", "-MSocket", "-e", program])
}

fn can_run(test: &str) -> bool {
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: {test}: there is no /usr/bin/perl");
        return false;
    }
    common::can_run(test)
}

#[test]
fn clients_reach_servers_of_the_host() {
    if !can_run("clients_reach_servers_of_the_host") {
        return;
    }
    let runsc = Runsc::with_flags(&["--network=host"]);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let (mut connection, _) = tcp.accept().unwrap();
        let mut request = String::new();
        connection.read_to_string(&mut request).unwrap();
        connection.write_all(&vec![b'x'; 1_000_000]).unwrap();
        drop(connection);
        let mut question = [0; 100];
        let (length, from) = udp.recv_from(&mut question).unwrap();
        udp.send_to(&question[..length].repeat(2), from).unwrap();
        request
    });
    let output = perl(
        &runsc,
        &format!(
            "$s = IO::Socket::INET->new(PeerAddr => '127.0.0.1:{tcp_port}') or die $!;
             print $s 'a question'; $s->shutdown(1);
             my $n = 0; while (my $r = sysread($s, my $b, 65536)) {{ $n += $r }}
             print \"$n\\n\";
             $u = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '127.0.0.1:{udp_port}') or die $!;
             $u->send('ab'); $u->recv(my $answer, 100); print \"$answer\\n\";"
        ),
    )
    .output()
    .unwrap();
    assert_eq!(text(&output.stdout), "1000000\nabab\n", "{}", describe(&output));
    assert_eq!(server.join().unwrap(), "a question");
    // Nobody listens there any more.
    let program = format!("IO::Socket::INET->new(PeerAddr => '127.0.0.1:{tcp_port}') and die; print $!;");
    let output = perl(&runsc, &program).output().unwrap();
    assert_eq!(text(&output.stdout), "Connection refused", "{}", describe(&output));
}

#[test]
fn servers_are_reached_from_the_host() {
    if !can_run("servers_are_reached_from_the_host") {
        return;
    }
    let runsc = Runsc::with_flags(&["--network=host"]);
    let mut child = perl(
        &runsc,
        "$| = 1; $l = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1:0', ReuseAddr => 1) or die $!;
         print $l->sockport, \"\\n\";
         for (1..3) { $c = $l->accept or die $!; $line = <$c>; print $c \"you said $line\"; close $c; }",
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut port = String::new();
    let mut output = child.stdout.take().unwrap();
    while !port.ends_with('\n') {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        port.push(byte[0] as char);
    }
    for name in ["one", "two", "three"] {
        let mut connection = TcpStream::connect(format!("127.0.0.1:{}", port.trim())).unwrap();
        writeln!(connection, "{name}").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("you said {name}\n"));
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_network_namespace_of_its_own_is_not_that_of_the_host() {
    need_sandbox!();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let runsc = Runsc::with_flags(&["--network=host"]);
    let script = format!(
        "busybox ip -o link | busybox wc -l; busybox nc 127.0.0.1 {port} </dev/null || echo refused; \
         (echo inside | busybox nc -l -p 80) & busybox sleep 1; busybox nc 127.0.0.1 80 </dev/null"
    );
    let bundle = runsc.bundle("b", &["sh", "-c", &script], |config| {
        config["linux"] = json!({
            "namespaces": [{"type": "network"}],
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"}
        });
    });
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c1"]);
    assert!(text(&output.stdout).starts_with("1\nrefused\n"), "{}", describe(&output));
    assert!(text(&output.stdout).ends_with("inside\n"), "{}", describe(&output));
}

#[test]
fn interfaces_of_the_host_are_seen_and_not_changed() {
    need_sandbox!();
    let runsc = Runsc::with_flags(&["--network=host"]);
    let script = "busybox ip -o link | busybox wc -l; busybox ip link set lo down 2>/dev/null || echo no";
    let bundle = runsc.bundle("b", &["sh", "-c", script], |_| {});
    // Containers of the same name would have the same cgroup.
    let output = runsc.output(&["run", "--bundle", bundle.to_str().unwrap(), "c2"]);
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(text(&output.stdout), format!("{interfaces}\nno\n"), "{}", describe(&output));
}
