//! The streams of `kubectl exec` and `kubectl attach`: containerd answers Exec and Attach with an address at which it
//! speaks WebSocket, subprotocol `v4.channel.k8s.io`. The first byte of each message names its channel.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::daemon::text;

/// What may take long on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const STDIN: u8 = 0;
/// What the program prints, or its terminal shows.
pub const STDOUT: u8 = 1;
/// Its standard error.
pub const STDERR: u8 = 2;
const STATUS: u8 = 3;
const SIZE: u8 = 4;

/// An open stream.
pub struct Stream {
    from: BufReader<TcpStream>,
    /// What has come on each channel, and has not been expected yet.
    seen: [Vec<u8>; 5],
}

impl Stream {
    /// Opens the one at this address.
    pub fn open(url: &str) -> Stream {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut from = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(from.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Stream { from, seen: Default::default() }
    }

    fn send(&mut self, channel: u8, bytes: &[u8]) {
        let length = u16::try_from(bytes.len() + 1).unwrap();
        // The last and only frame of a binary message, masked (as a client's must be) by zeros.
        let mut frame = vec![0x82, 0xfe];
        frame.extend(length.to_be_bytes());
        frame.extend([0, 0, 0, 0, channel]);
        frame.extend(bytes);
        self.from.get_mut().write_all(&frame).unwrap();
    }

    /// Gives the program something to read.
    pub fn type_line(&mut self, line: &str) {
        self.send(STDIN, format!("{line}\n").as_bytes());
    }

    /// Tells the size of the terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.send(SIZE, format!("{{\"Width\":{columns},\"Height\":{rows}}}").as_bytes());
    }

    /// Takes a message. False if there are no more.
    fn receive(&mut self) -> bool {
        let mut start = [0; 2];
        if self.from.read_exact(&mut start).is_err() {
            return false;
        }
        let mut long = [0; 8];
        let length = match start[1] & 0x7f {
            126 => {
                self.from.read_exact(&mut long[6..]).unwrap();
                u64::from_be_bytes(long)
            }
            127 => {
                self.from.read_exact(&mut long).unwrap();
                u64::from_be_bytes(long)
            }
            length => length.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.from.read_exact(&mut payload).unwrap();
        match (start[0] & 0x0f, payload.split_first()) {
            (8, _) => return false,
            (1 | 2, Some((channel, bytes))) => self.seen[usize::from(*channel)].extend(bytes),
            _ => {}
        }
        true
    }

    /// Waits until this has come on a channel, and forgets all up to its end.
    pub fn expect(&mut self, channel: u8, what: &str) {
        loop {
            let seen = &mut self.seen[usize::from(channel)];
            if let Some(at) = seen.windows(what.len()).position(|part| part == what.as_bytes()) {
                seen.drain(..at + what.len());
                return;
            }
            let seen = text(seen);
            assert!(self.receive(), "{what:?} did not come, but {seen:?}");
        }
    }

    /// Waits for the program's end: standard output, standard error, and the exit code.
    pub fn end(mut self) -> (String, String, i64) {
        while self.receive() {}
        let [_, stdout, stderr, status, _] = &self.seen;
        let status: serde_json::Value = serde_json::from_slice(status)
            .unwrap_or_else(|error| panic!("channel {STATUS}: {error}: {:?}", text(status)));
        let code = if status["status"] == "Success" {
            0
        } else {
            assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
            status["details"]["causes"][0]["message"].as_str().unwrap().parse().unwrap()
        };
        (text(stdout), text(stderr), code)
    }
}
