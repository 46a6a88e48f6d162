//! Tests of sockets without guests: two tasks of a kernel whose platform is a table.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::inet as i;
use abi::netlink as n;
use abi::poll::PollEvents;
use abi::socket as s;
use abi::socket::MsgFlags;
use abi::{Errno, Result};
use zerocopy::{FromBytes, IntoBytes};

use super::inet::Endpoint;
use super::socket::{address_family, of_file, option, set_option};
use super::unix::UnixSocket;
use super::{ControlMessage, Incoming, NetNamespace, OptionValue, Outgoing, Received, Socket, SocketFile};
use crate::task::Task;
use crate::task::testing::task;
use crate::vfs::io::SliceSource;
use crate::vfs::{FdFlags, File, VecSink};
use crate::wait::Wake;

fn socket(task: &Task, domain: u16, kind: u32, protocol: u32) -> Arc<dyn Socket> {
    super::create(task, domain.into(), kind as i32, protocol as i32).unwrap()
}

fn open(task: &Task, socket: Arc<dyn Socket>) -> Arc<File> {
    SocketFile::open(task.kernel(), socket, (0, 0), abi::fcntl::OpenFlags::empty())
}

fn send_with(
    task: &Task,
    socket: &dyn Socket,
    data: &[u8],
    to: &[u8],
    control: &[ControlMessage],
    flags: MsgFlags,
) -> Result<usize> {
    let mut source = SliceSource::new(data);
    let mut message = Outgoing::plain(Some(task), &mut source, flags | MsgFlags::MSG_NOSIGNAL);
    (message.to, message.control) = (to, control);
    match socket.send(&mut message) {
        Err(_) if message.sent > 0 => Ok(message.sent),
        result => result,
    }
}

fn send(task: &Task, socket: &dyn Socket, data: &[u8]) -> Result<usize> {
    send_with(task, socket, data, &[], &[], MsgFlags::empty())
}

/// What came, with its control messages and flags.
fn receive_with(
    socket: &dyn Socket,
    max: usize,
    flags: MsgFlags,
) -> Result<(Vec<u8>, Vec<Received>, MsgFlags)> {
    let mut sink = VecSink::new(max);
    let mut message = Incoming::plain(None, &mut sink, true);
    message.flags = flags;
    let result = socket.receive(&mut message);
    if message.copied == 0 {
        result?;
    }
    let (control, flags) = (std::mem::take(&mut message.control), message.out_flags);
    Ok((sink.data, control.into_iter().collect(), flags))
}

fn receive(socket: &dyn Socket, max: usize) -> Result<Vec<u8>> {
    receive_with(socket, max, MsgFlags::empty()).map(|(data, ..)| data)
}

fn address(domain: u16, ip: &str, port: u16) -> super::RawAddress {
    Endpoint { ip: ip.parse().unwrap(), port }.raw(domain)
}

fn port_of(socket: &dyn Socket) -> u16 {
    let raw = socket.local_address().unwrap();
    u16::from_be_bytes([raw[2], raw[3]])
}

/// A listener on 127.0.0.1.
fn listener(task: &Task, backlog: u32) -> (Arc<dyn Socket>, super::RawAddress) {
    let listener = socket(task, s::AF_INET, s::SOCK_STREAM, 0);
    listener.bind(task, &address(s::AF_INET, "127.0.0.1", 0)).unwrap();
    listener.listen(task, backlog).unwrap();
    let at = listener.local_address().unwrap();
    (listener, at)
}

fn connect(task: &Task, at: &[u8]) -> Result<Arc<dyn Socket>> {
    let client = socket(task, address_family(at).unwrap(), s::SOCK_STREAM, 0);
    match client.connect(task, at) {
        Ok(()) => {}
        Err(Errno::EINPROGRESS) => client.connected().unwrap_or(Err(Errno::EINPROGRESS))?,
        Err(e) => return Err(e),
    }
    Ok(client)
}

fn connection(task: &Task) -> (Arc<dyn Socket>, Arc<dyn Socket>) {
    let (listener, at) = listener(task, 5);
    let client = connect(task, &at).unwrap();
    (client, listener.accept().unwrap())
}

fn int_option(task: &Task, socket: &Arc<dyn Socket>, level: i32, name: i32) -> i32 {
    match option(task, socket, level, name, 4).unwrap() {
        OptionValue::Bytes(bytes) => i32::from_ne_bytes(*bytes.first_chunk().unwrap()),
        OptionValue::Needs(_) => panic!("needs more"),
    }
}

fn set_int(task: &Task, socket: &Arc<dyn Socket>, level: i32, name: i32, value: i32) -> Result<()> {
    set_option(task, socket, level, name, &value.to_ne_bytes())
}

fn rights(task: &Task, files: &[&Arc<File>]) -> Vec<ControlMessage> {
    let mut data = Vec::new();
    for file in files {
        let fd = task.files().unwrap().install((*file).clone(), FdFlags::empty(), 0, 1 << 20).unwrap();
        data.extend(fd.to_ne_bytes());
    }
    vec![ControlMessage { level: s::SOL_SOCKET, kind: s::SCM_RIGHTS, data }]
}

/// Closes all descriptors.
fn close_all(task: &Task) {
    drop(task.files().unwrap().remove_where(|_, _| true));
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(&self, _events: PollEvents) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_stream_ends_as_its_peer_closes() {
    let task = task();
    let net = task.namespaces().net.clone();
    let (a, b) = UnixSocket::pair(&task, net.clone(), s::SOCK_STREAM, 0).unwrap();
    send(&task, &*a, b"one").unwrap();
    send(&task, &*a, b"two").unwrap();
    assert_eq!(receive(&*b, 100).unwrap(), b"onetwo");
    assert_eq!(receive(&*b, 100).unwrap_err(), Errno::EAGAIN);
    send(&task, &*a, b"last words").unwrap();
    a.close();
    assert!(b.poll().contains(PollEvents::POLLHUP | PollEvents::POLLRDHUP | PollEvents::POLLIN));
    assert_eq!(receive(&*b, 4).unwrap(), b"last");
    assert_eq!(receive(&*b, 100).unwrap(), b" words");
    assert_eq!(receive(&*b, 100).unwrap(), b"");
    assert_eq!(send(&task, &*b, b"x").unwrap_err(), Errno::EPIPE);
    // What is not read is an error for the other side.
    let (a, b) = UnixSocket::pair(&task, net, s::SOCK_STREAM, 0).unwrap();
    send(&task, &*a, b"unread").unwrap();
    b.close();
    assert_eq!(receive(&*a, 1).unwrap_err(), Errno::ECONNRESET);
    assert_eq!(receive(&*a, 1).unwrap(), b"");
}

#[test]
fn a_stream_is_full_and_becomes_writable_once() {
    let task = task();
    let net = task.namespaces().net.clone();
    let (a, b) = UnixSocket::pair(&task, net, s::SOCK_STREAM, 0).unwrap();
    let mut sent = 0;
    while let Ok(n) = send(&task, &*a, &[7; 10_000]) {
        sent += n;
    }
    assert!((100_000..300_000).contains(&sent), "{sent}");
    assert!(!a.poll().contains(PollEvents::POLLOUT));
    let wakes = Arc::new(Counter::default());
    let _registration = a.common().queue.register(PollEvents::POLLOUT, wakes.clone());
    let mut got = 0;
    while let Ok(data) = receive(&*b, 5000) {
        got += data.len();
    }
    assert_eq!((got, wakes.0.load(Ordering::SeqCst)), (sent, 1));
    assert_eq!(a.common().sent.used(), 0);
}

#[test]
fn a_full_backlog_holds_up_who_connects() {
    let task = task();
    let server = socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0);
    let at = [&s::AF_UNIX.to_ne_bytes()[..], b"/server"].concat();
    server.bind(&task, &at).unwrap();
    assert_eq!(socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0).bind(&task, &at), Err(Errno::EADDRINUSE));
    let early = socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0);
    assert_eq!(early.connect(&task, &at), Err(Errno::ECONNREFUSED));
    let datagram = socket(&task, s::AF_UNIX, s::SOCK_DGRAM, 0);
    assert_eq!(datagram.connect(&task, &at), Err(Errno::EPROTOTYPE));
    server.listen(&task, 1).unwrap();
    let clients: Vec<_> = (0..3).map(|_| socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0)).collect();
    assert_eq!(clients[0].connect(&task, &at), Ok(()));
    assert_eq!(clients[1].connect(&task, &at), Ok(()));
    let wakes = Arc::new(Counter::default());
    let _registration = clients[2].common().queue.register(PollEvents::POLLOUT, wakes.clone());
    assert_eq!(clients[2].connect(&task, &at), Err(Errno::EAGAIN));
    let child = server.accept().unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert_eq!(clients[2].connect(&task, &at), Ok(()));
    send(&task, &*clients[0], b"hello").unwrap();
    assert_eq!(receive(&*child, 10).unwrap(), b"hello");
    // Those who are still in the backlog are reset with the listener.
    server.close();
    assert_eq!(receive(&*clients[1], 1).unwrap_err(), Errno::ECONNRESET);
    let late = socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0);
    assert_eq!(late.connect(&task, &at), Err(Errno::ECONNREFUSED));
}

#[test]
fn abstract_names_go_with_their_socket() {
    let task = task();
    let at = [&s::AF_UNIX.to_ne_bytes()[..], b"\0name"].concat();
    let server = socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0);
    server.bind(&task, &at).unwrap();
    assert_eq!(server.bind(&task, &at), Err(Errno::EINVAL));
    server.listen(&task, 5).unwrap();
    let client = connect(&task, &at).unwrap();
    let child = server.accept().unwrap();
    assert_eq!(child.local_address().unwrap()[..], at[..]);
    // A connection shows the name, and does not own it.
    child.close();
    assert!(connect(&task, &at).is_ok());
    server.close();
    assert_eq!(connect(&task, &at).err(), Some(Errno::ECONNREFUSED));
    assert!(socket(&task, s::AF_UNIX, s::SOCK_STREAM, 0).bind(&task, &at).is_ok());
    drop(client);
}

#[test]
fn strangers_wait_for_a_datagram_queue() {
    let task = task();
    let at = [&s::AF_UNIX.to_ne_bytes()[..], b"\0queue"].concat();
    let server = socket(&task, s::AF_UNIX, s::SOCK_DGRAM, 0);
    server.bind(&task, &at).unwrap();
    let client = socket(&task, s::AF_UNIX, s::SOCK_DGRAM, 0);
    client.connect(&task, &at).unwrap();
    let count = (0..100).take_while(|_| send(&task, &*client, b"x").is_ok()).count();
    assert_eq!(count, 11);
    assert!(!client.poll().contains(PollEvents::POLLOUT));
    let wakes = Arc::new(Counter::default());
    let _registration = client.common().queue.register(PollEvents::POLLOUT, wakes.clone());
    assert_eq!(receive(&*server, 10).unwrap(), b"x");
    assert!(wakes.0.load(Ordering::SeqCst) > 0 && client.poll().contains(PollEvents::POLLOUT));
    let long = send(&task, &*client, &vec![0; 300_000]);
    assert_eq!(long.unwrap_err(), Errno::EMSGSIZE);
    server.close();
    assert_eq!(send(&task, &*client, b"x").unwrap_err(), Errno::ECONNREFUSED);
    assert_eq!(send(&task, &*client, b"x").unwrap_err(), Errno::ENOTCONN);
}

#[test]
fn files_and_senders_keep_their_bytes_apart() {
    let task = task();
    let net = task.namespaces().net.clone();
    let (a, b) = UnixSocket::pair(&task, net, s::SOCK_STREAM, 0).unwrap();
    let (a, b): (Arc<dyn Socket>, Arc<dyn Socket>) = (a, b);
    let file = open(&task, socket(&task, s::AF_UNIX, s::SOCK_DGRAM, 0));
    let control = rights(&task, &[&file, &file]);
    send(&task, &*a, b"before").unwrap();
    send_with(&task, &*a, b"with", &[], &control, MsgFlags::empty()).unwrap();
    send(&task, &*a, b"after").unwrap();
    let (data, control, _) = receive_with(&*b, 100, MsgFlags::MSG_PEEK).unwrap();
    assert_eq!((data.as_slice(), control.len()), (&b"beforewith"[..], 1));
    let (data, control, _) = receive_with(&*b, 100, MsgFlags::empty()).unwrap();
    assert_eq!(data, b"beforewith");
    let [Received::Rights(rights)] = control.as_slice() else { panic!("no files") };
    assert_eq!(rights.files().len(), 2);
    assert!(Arc::ptr_eq(&rights.files()[0], &file));
    assert_eq!(receive(&*b, 100).unwrap(), b"after");
    set_int(&task, &b, s::SOL_SOCKET, s::SO_PASSCRED, 1).unwrap();
    send(&task, &*a, b"who").unwrap();
    let (_, control, _) = receive_with(&*b, 100, MsgFlags::empty()).unwrap();
    let [Received::Credentials(creds)] = control.as_slice() else { panic!("no credentials") };
    assert_eq!((creds.pid.as_ref().unwrap().number(), creds.uid), (1, 0));
    let bad =
        [ControlMessage { level: s::SOL_SOCKET, kind: s::SCM_RIGHTS, data: (-1i32).to_ne_bytes().into() }];
    assert_eq!(send_with(&task, &*a, b"x", &[], &bad, MsgFlags::empty()).unwrap_err(), Errno::EBADF);
}

#[test]
fn sockets_that_only_hold_each_other_are_collected() {
    let task = task();
    let net = task.namespaces().net.clone();
    let mut watched: Vec<Weak<dyn Socket>> = Vec::new();
    let pair = || {
        let (a, b) = UnixSocket::pair(&task, net.clone(), s::SOCK_DGRAM, 0).unwrap();
        (open(&task, a), open(&task, b))
    };
    let pass = |file: &Arc<File>, through: &Arc<File>| {
        let control = rights(&task, &[file]);
        send_with(&task, &**of_file(through).unwrap(), b"x", &[], &control, MsgFlags::empty()).unwrap();
    };
    // One that is in its own queue; two that are in each other's; and one that is reachable from outside.
    let (own, sender) = pair();
    pass(&own, &sender);
    let (first, to_first) = pair();
    let (second, to_second) = pair();
    pass(&first, &to_second);
    pass(&second, &to_first);
    let (kept, to_kept) = pair();
    let (inner, to_inner) = pair();
    pass(&inner, &to_kept);
    pass(&kept, &to_inner);
    for file in [&own, &first, &second, &kept, &inner] {
        watched.push(Arc::downgrade(of_file(file).unwrap()));
    }
    let alive = |watched: &[Weak<dyn Socket>]| -> Vec<bool> {
        watched.iter().map(|w| w.strong_count() > 0).collect()
    };
    close_all(&task);
    drop((own, sender, first, to_first, second, to_second, to_kept, inner, to_inner));
    // Unix sockets that are closed see to it, though not each of them.
    let collect = |expected: [bool; 5]| {
        let tries = (0..1_000_000).take_while(|_| {
            drop(pair());
            std::thread::yield_now();
            alive(&watched) != expected
        });
        assert!(tries.count() < 1_000_000, "{:?} instead of {expected:?}", alive(&watched));
    };
    collect([false, false, false, true, true]);
    let (_, control, _) = receive_with(&**of_file(&kept).unwrap(), 1, MsgFlags::empty()).unwrap();
    let [Received::Rights(rights)] = control.as_slice() else { panic!("no files") };
    assert_eq!(Arc::as_ptr(of_file(&rights.files()[0]).unwrap()).cast::<u8>(), watched[4].as_ptr().cast());
    drop((control, kept));
    collect([false; 5]);
}

#[test]
fn a_long_chain_of_passed_sockets_does_not_exhaust_the_stack() {
    let task = task();
    let net = task.namespaces().net.clone();
    let (mut last, mut sender) = {
        let (a, b) = UnixSocket::pair(&task, net.clone(), s::SOCK_DGRAM, 0).unwrap();
        (open(&task, a), open(&task, b))
    };
    for _ in 0..20_000 {
        let (a, b) = UnixSocket::pair(&task, net.clone(), s::SOCK_DGRAM, 0).unwrap();
        let (outer, to_outer) = (open(&task, a), open(&task, b));
        let control = rights(&task, &[&last]);
        let socket = of_file(&to_outer).unwrap();
        send_with(&task, &**socket, b"x", &[], &control, MsgFlags::empty()).unwrap();
        close_all(&task);
        (last, sender) = (outer, to_outer);
    }
    drop((last, sender));
    assert_eq!(net.unix.all().len(), 0);
}

#[test]
fn a_tcp_connection_closes_in_halves() {
    let task = task();
    let (client, server) = connection(&task);
    assert_eq!(client.peer_address().unwrap(), server.local_address().unwrap());
    send(&task, &*client, b"request").unwrap();
    client.shutdown(s::SHUT_WR).unwrap();
    assert_eq!(send(&task, &*client, b"x").unwrap_err(), Errno::EPIPE);
    assert_eq!(receive(&*server, 100).unwrap(), b"request");
    assert_eq!(receive(&*server, 100).unwrap(), b"");
    assert!(server.poll().contains(PollEvents::POLLRDHUP) && !server.poll().contains(PollEvents::POLLHUP));
    send(&task, &*server, b"answer").unwrap();
    server.close();
    assert!(client.poll().contains(PollEvents::POLLHUP | PollEvents::POLLIN));
    assert_eq!(receive(&*client, 100).unwrap(), b"answer");
    assert_eq!(receive(&*client, 100).unwrap(), b"");
    assert_eq!(client.peer_address().unwrap_err(), Errno::ENOTCONN);
}

#[test]
fn tcp_resets_what_is_not_read() {
    let task = task();
    let (client, server) = connection(&task);
    send(&task, &*client, b"unread").unwrap();
    server.close();
    assert!(client.poll().contains(PollEvents::POLLERR | PollEvents::POLLHUP));
    assert_eq!(receive(&*client, 1).unwrap_err(), Errno::ECONNRESET);
    assert_eq!(receive(&*client, 1).unwrap(), b"");
    // A FIN, and then a write that nobody takes.
    let (client, server) = connection(&task);
    server.close();
    assert_eq!(receive(&*client, 1).unwrap(), b"");
    assert_eq!(send(&task, &*client, b"lost"), Ok(4));
    assert_eq!(int_option(&task, &client, s::SOL_SOCKET, s::SO_ERROR), Errno::EPIPE.raw());
    assert_eq!(send(&task, &*client, b"x").unwrap_err(), Errno::EPIPE);
    // SO_LINGER of no time.
    let (client, server) = connection(&task);
    let linger = s::Linger { l_onoff: 1, l_linger: 0 };
    set_option(&task, &server, s::SOL_SOCKET, s::SO_LINGER, linger.as_bytes()).unwrap();
    server.close();
    assert_eq!(receive(&*client, 1).unwrap_err(), Errno::ECONNRESET);
    assert_eq!(receive(&*server, 1).unwrap(), b"");
}

#[test]
fn a_tcp_backlog_fills_and_empties() {
    let task = task();
    let (server, at) = listener(&task, 1);
    let first = connect(&task, &at).unwrap();
    let _second = connect(&task, &at).unwrap();
    let third = socket(&task, s::AF_INET, s::SOCK_STREAM, 0);
    assert_eq!(third.connect(&task, &at), Err(Errno::EINPROGRESS));
    assert!(third.connected().is_none());
    assert_eq!(third.connect(&task, &at), Err(Errno::EALREADY));
    assert_eq!(third.poll(), PollEvents::empty());
    let fourth = socket(&task, s::AF_INET, s::SOCK_STREAM, 0);
    assert_eq!(fourth.connect(&task, &at), Err(Errno::EINPROGRESS));
    // One that gives up leaves its place.
    third.close();
    let child = server.accept().unwrap();
    assert_eq!(child.peer_address().unwrap(), first.local_address().unwrap());
    assert_eq!(fourth.connected(), Some(Ok(())));
    assert_eq!(fourth.connect(&task, &at), Err(Errno::EISCONN));
    let fifth = socket(&task, s::AF_INET, s::SOCK_STREAM, 0);
    assert_eq!(fifth.connect(&task, &at), Err(Errno::EINPROGRESS));
    server.close();
    assert_eq!(receive(&*fourth, 1).unwrap_err(), Errno::ECONNRESET);
    assert_eq!(fifth.connected(), Some(Err(Errno::ECONNREFUSED)));
    assert_eq!(connect(&task, &at).err(), Some(Errno::ECONNREFUSED));
}

#[test]
fn tcp_ports_conflict_by_linuxs_rules() {
    let task = task();
    let bind = |domain: u16, ip: &str, port: u16, options: &[i32]| -> Result<Arc<dyn Socket>> {
        let new = socket(&task, domain, s::SOCK_STREAM, 0);
        for &name in options {
            let level = if name == i::IPV6_V6ONLY { s::SOL_IPV6 } else { s::SOL_SOCKET };
            set_int(&task, &new, level, name, 1).unwrap();
        }
        new.bind(&task, &address(domain, ip, port))?;
        Ok(new)
    };
    let home = bind(s::AF_INET, "127.0.0.1", 4000, &[]).unwrap();
    assert_eq!(bind(s::AF_INET, "0.0.0.0", 4000, &[]).err(), Some(Errno::EADDRINUSE));
    assert_eq!(bind(s::AF_INET6, "::", 4000, &[]).err(), Some(Errno::EADDRINUSE));
    let other = bind(s::AF_INET, "127.0.0.2", 4000, &[]).unwrap();
    let six = bind(s::AF_INET6, "::", 4000, &[i::IPV6_V6ONLY]).unwrap();
    assert_eq!(bind(s::AF_INET, "10.0.0.1", 4000, &[]).err(), Some(Errno::EADDRNOTAVAIL));
    drop((home, other, six));
    // SO_REUSEADDR lets two bind, but only one listen.
    let a = bind(s::AF_INET, "0.0.0.0", 4001, &[s::SO_REUSEADDR]).unwrap();
    let b = bind(s::AF_INET, "0.0.0.0", 4001, &[s::SO_REUSEADDR]).unwrap();
    a.listen(&task, 5).unwrap();
    assert_eq!(b.listen(&task, 5), Err(Errno::EADDRINUSE));
    assert_eq!(bind(s::AF_INET, "0.0.0.0", 4001, &[s::SO_REUSEADDR]).err(), Some(Errno::EADDRINUSE));
    // With SO_REUSEPORT both listen, and share the connections.
    let c = bind(s::AF_INET, "0.0.0.0", 4002, &[s::SO_REUSEPORT]).unwrap();
    let d = bind(s::AF_INET, "0.0.0.0", 4002, &[s::SO_REUSEPORT]).unwrap();
    c.listen(&task, 50).unwrap();
    d.listen(&task, 50).unwrap();
    let clients: Vec<_> =
        (0..10).map(|_| connect(&task, &address(s::AF_INET, "127.0.0.1", 4002)).unwrap()).collect();
    assert!(c.accept().is_ok() && d.accept().is_ok());
    drop(clients);
}

#[test]
fn the_end_that_closes_first_keeps_the_port_for_a_while() {
    let task = task();
    let at = address(s::AF_INET, "127.0.0.1", 4100);
    let serve = |reuse: i32| -> Result<()> {
        let server = socket(&task, s::AF_INET, s::SOCK_STREAM, 0);
        set_int(&task, &server, s::SOL_SOCKET, s::SO_REUSEADDR, reuse)?;
        server.bind(&task, &at)?;
        server.listen(&task, 5)?;
        let client = connect(&task, &at)?;
        let child = server.accept()?;
        child.close();
        client.close();
        server.close();
        Ok(())
    };
    serve(1).unwrap();
    serve(1).unwrap();
    assert_eq!(serve(0), Err(Errno::EADDRINUSE));
}

#[test]
fn a_socket_can_connect_to_itself() {
    let task = task();
    let own = socket(&task, s::AF_INET, s::SOCK_STREAM, 0);
    let at = address(s::AF_INET, "127.0.0.1", 4200);
    own.bind(&task, &at).unwrap();
    assert_eq!(own.connect(&task, &at), Err(Errno::EINPROGRESS));
    assert_eq!(own.connected(), Some(Ok(())));
    send(&task, &*own, b"echo").unwrap();
    assert_eq!(receive(&*own, 10).unwrap(), b"echo");
    own.close();
    assert_eq!(connect(&task, &at).err(), Some(Errno::ECONNREFUSED));
}

#[test]
fn nothing_but_loopback_is_reachable() {
    let task = task();
    let try_connect = |domain: u16, ip: &str| {
        let socket = socket(&task, domain, s::SOCK_STREAM, 0);
        socket.connect(&task, &address(domain, ip, 80)).unwrap_err()
    };
    for ip in ["8.8.8.8", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(try_connect(s::AF_INET, ip), Errno::ENETUNREACH, "{ip}");
    }
    assert_eq!(try_connect(s::AF_INET6, "2001:db8::1"), Errno::ENETUNREACH);
    let down = NetNamespace::unshared(task.kernel().user_ns.clone());
    assert!(down.device.route(IpAddr::from([127, 0, 0, 1])).is_err());
    // :: and v4-mapped addresses lead to listeners of IPv4 too.
    let (server, at) = listener(&task, 5);
    let port = port_of(&*server);
    let client = socket(&task, s::AF_INET6, s::SOCK_STREAM, 0);
    assert_eq!(client.connect(&task, &address(s::AF_INET6, "127.0.0.1", port)), Err(Errno::EINPROGRESS));
    assert_eq!(client.connected(), Some(Ok(())));
    assert_eq!(client.peer_address().unwrap(), address(s::AF_INET6, "127.0.0.1", port));
    assert_eq!(server.accept().unwrap().local_address().unwrap(), at);
}

#[test]
fn many_threads_connect_and_talk() {
    let task = task();
    let (server, at) = listener(&task, 3);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (task, at) = (task.clone(), at.clone());
            scope.spawn(move || {
                for round in 0..200u32 {
                    let client = socket(&task, s::AF_INET, s::SOCK_STREAM, 0);
                    match client.connect(&task, &at) {
                        Err(Errno::EINPROGRESS) => {}
                        other => panic!("{other:?}"),
                    }
                    let connected = loop {
                        match client.connected() {
                            Some(result) => break result,
                            None => std::thread::yield_now(),
                        }
                    };
                    connected.unwrap();
                    send(&task, &*client, &round.to_ne_bytes()).unwrap();
                    let answer = loop {
                        match receive(&*client, 4) {
                            Err(Errno::EAGAIN) => std::thread::yield_now(),
                            result => break result.unwrap(),
                        }
                    };
                    assert_eq!(answer, round.to_ne_bytes());
                    client.close();
                }
            });
        }
        let mut served = 0;
        let mut open: Vec<Arc<dyn Socket>> = Vec::new();
        while served < 800 {
            open.extend(server.accept().ok());
            open.retain(|child| match receive(&**child, 4) {
                Ok(data) if data.is_empty() => {
                    child.close();
                    served += 1;
                    false
                }
                Ok(data) => {
                    send(&task, &**child, &data).unwrap();
                    true
                }
                Err(Errno::EAGAIN) => true,
                Err(e) => panic!("{e:?}"),
            });
            std::thread::yield_now();
        }
    });
    server.close();
    assert_eq!(task.namespaces().net.tcp.all().len(), 0);
}

#[test]
fn a_large_transfer_arrives_whole_with_bounded_memory() {
    let task = task();
    let (client, server) = connection(&task);
    const TOTAL: usize = 32 << 20;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
            let mut sent = 0;
            while sent < TOTAL {
                match send(&task, &*client, &block[..block.len().min(TOTAL - sent)]) {
                    Ok(n) => sent += n,
                    Err(Errno::EAGAIN) => std::thread::yield_now(),
                    Err(e) => panic!("{e:?}"),
                }
            }
            client.shutdown(s::SHUT_WR).unwrap();
        });
        let (mut got, mut sum) = (0usize, 0u64);
        loop {
            match receive(&*server, 70_000) {
                Ok(data) if data.is_empty() => break,
                Ok(data) => {
                    got += data.len();
                    sum += data.iter().map(|&b| u64::from(b)).sum::<u64>();
                }
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                Err(e) => panic!("{e:?}"),
            }
        }
        assert_eq!(got, TOTAL);
        assert!(sum > 0);
    });
}

#[test]
fn a_udp_socket_learns_that_nobody_is_there() {
    let task = task();
    let at = address(s::AF_INET, "127.0.0.1", 4300);
    let client = socket(&task, s::AF_INET, s::SOCK_DGRAM, 0);
    assert_eq!(send_with(&task, &*client, b"x", &at, &[], MsgFlags::empty()), Ok(1));
    assert!(!client.poll().contains(PollEvents::POLLERR));
    client.connect(&task, &at).unwrap();
    assert_eq!(send(&task, &*client, b"x"), Ok(1));
    assert!(client.poll().contains(PollEvents::POLLERR));
    assert_eq!(receive(&*client, 1).unwrap_err(), Errno::ECONNREFUSED);
    assert_eq!(receive(&*client, 1).unwrap_err(), Errno::EAGAIN);
    set_int(&task, &client, s::SOL_IP, i::IP_RECVERR, 1).unwrap();
    assert_eq!(send(&task, &*client, b"returned"), Ok(8));
    let (data, control, flags) = receive_with(&*client, 100, MsgFlags::MSG_ERRQUEUE).unwrap();
    assert_eq!((data.as_slice(), flags), (&b"returned"[..], MsgFlags::MSG_ERRQUEUE));
    let [Received::Data(message)] = control.as_slice() else { panic!("no error") };
    let (error, _) = s::SockExtendedErr::read_from_prefix(&message.data).unwrap();
    assert_eq!((error.ee_errno, error.ee_type, error.ee_code), (111, 3, 3));
    assert_eq!(send(&task, &*client, &vec![0; 65_508]).unwrap_err(), Errno::EMSGSIZE);
}

#[test]
fn udp_delivers_to_the_most_precise_socket_and_drops_what_does_not_fit() {
    let task = task();
    let bind = |ip: &str| {
        let socket = socket(&task, s::AF_INET, s::SOCK_DGRAM, 0);
        set_int(&task, &socket, s::SOL_SOCKET, s::SO_REUSEADDR, 1).unwrap();
        socket.bind(&task, &address(s::AF_INET, ip, 4400)).unwrap();
        socket
    };
    let (any, home) = (bind("0.0.0.0"), bind("127.0.0.1"));
    let client = socket(&task, s::AF_INET, s::SOCK_DGRAM, 0);
    let to = |ip: &str, data: &[u8]| {
        send_with(&task, &*client, data, &address(s::AF_INET, ip, 4400), &[], MsgFlags::empty()).unwrap()
    };
    to("127.0.0.1", b"home");
    to("127.0.0.2", b"away");
    assert_eq!(receive(&*home, 10).unwrap(), b"home");
    assert_eq!(receive(&*any, 10).unwrap(), b"away");
    // A connected socket hears only its peer, and before all others.
    home.connect(&task, &client.local_address().unwrap()).unwrap();
    let stranger = socket(&task, s::AF_INET, s::SOCK_DGRAM, 0);
    let at = address(s::AF_INET, "127.0.0.1", 4400);
    send_with(&task, &*stranger, b"stranger", &at, &[], MsgFlags::empty()).unwrap();
    assert_eq!(receive(&*any, 10).unwrap(), b"stranger");
    let (data, _, flags) = {
        to("127.0.0.1", b"truncated");
        receive_with(&*home, 5, MsgFlags::empty()).unwrap()
    };
    assert_eq!((data.as_slice(), flags), (&b"trunc"[..], MsgFlags::MSG_TRUNC));
    for _ in 0..1000 {
        to("127.0.0.1", &[0; 1000]);
    }
    let received = (0..1000).take_while(|_| receive(&*home, 2000).is_ok()).count();
    assert!((80..110).contains(&received), "{received}");
    let dropped = home.common().drops.load(Ordering::Relaxed) as usize;
    assert_eq!(received + dropped, 1000);
}

#[test]
fn groups_are_heard_by_their_members() {
    let task = task();
    let member = socket(&task, s::AF_INET, s::SOCK_DGRAM, 0);
    member.bind(&task, &address(s::AF_INET, "0.0.0.0", 4500)).unwrap();
    let client = socket(&task, s::AF_INET, s::SOCK_DGRAM, 0);
    let at = address(s::AF_INET, "224.1.1.1", 4500);
    let send = || send_with(&task, &*client, b"all", &at, &[], MsgFlags::empty());
    assert_eq!(send(), Err(Errno::ENETUNREACH));
    let device = i::IpMreq { imr_multiaddr: [224, 1, 1, 1], imr_interface: [127, 0, 0, 1] };
    set_option(&task, &client, s::SOL_IP, i::IP_MULTICAST_IF, &[127, 0, 0, 1]).unwrap();
    assert_eq!(send(), Ok(3));
    assert_eq!(receive(&*member, 10).unwrap_err(), Errno::EAGAIN);
    set_option(&task, &member, s::SOL_IP, i::IP_ADD_MEMBERSHIP, device.as_bytes()).unwrap();
    assert_eq!(send(), Ok(3));
    assert_eq!(receive(&*member, 10).unwrap(), b"all");
    let again = set_option(&task, &member, s::SOL_IP, i::IP_ADD_MEMBERSHIP, device.as_bytes());
    assert_eq!(again, Err(Errno::EADDRINUSE));
}

#[test]
fn netlink_lists_the_device_and_its_addresses() {
    let task = task();
    let socket = socket(&task, s::AF_NETLINK, s::SOCK_RAW, n::NETLINK_ROUTE);
    let request = |kind: u16, flags: u16, payload: &[u8]| {
        let header = n::Nlmsghdr {
            nlmsg_len: (16 + payload.len()) as u32,
            nlmsg_type: kind,
            nlmsg_flags: n::NLM_F_REQUEST | flags,
            nlmsg_seq: 7,
            nlmsg_pid: 0,
        };
        send(&task, &*socket, &[header.as_bytes(), payload].concat()).unwrap();
        let mut messages = Vec::new();
        while let Ok(datagram) = receive(&*socket, 1 << 16) {
            let mut rest = datagram.as_slice();
            while let Some((header, payload, after)) = n::split_message(rest) {
                assert_eq!(header.nlmsg_seq, 7);
                messages.push((header.nlmsg_type, payload.to_vec()));
                rest = after;
            }
        }
        messages
    };
    let links = request(n::RTM_GETLINK, n::NLM_F_DUMP, n::Ifinfomsg::default().as_bytes());
    assert_eq!(links.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [n::RTM_NEWLINK, n::NLMSG_DONE]);
    let name = n::attributes(&links[0].1[16..]).find(|(k, _)| *k == n::IFLA_IFNAME).unwrap();
    assert_eq!(name.1, b"lo\0");
    let addresses = request(n::RTM_GETADDR, n::NLM_F_DUMP, n::Ifaddrmsg::default().as_bytes());
    assert_eq!(addresses.len(), 3);
    let error = |messages: Vec<(u16, Vec<u8>)>| {
        assert_eq!(messages[0].0, n::NLMSG_ERROR);
        i32::from_ne_bytes(*messages[0].1.first_chunk().unwrap())
    };
    assert_eq!(error(request(9999, 0, &[0; 4])), -Errno::EOPNOTSUPP.raw());
    let missing = n::Ifinfomsg { ifi_index: 9, ..n::Ifinfomsg::default() };
    assert_eq!(error(request(n::RTM_GETLINK, 0, missing.as_bytes())), -Errno::ENODEV.raw());
    let down = n::Ifinfomsg { ifi_index: 1, ifi_change: 1, ..n::Ifinfomsg::default() };
    assert_eq!(error(request(n::RTM_NEWLINK, n::NLM_F_ACK, down.as_bytes())), 0);
    assert!(!task.namespaces().net.device.is_up());
    // Garbage is neither answered nor harmful.
    for len in 0..40 {
        assert!(send(&task, &*socket, &vec![0xff; len]).is_ok());
    }
    assert_eq!(receive(&*socket, 100).unwrap_err(), Errno::EAGAIN);
}
