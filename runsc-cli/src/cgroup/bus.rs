//! As much of D-Bus as it takes to call a method of systemd's (the D-Bus specification: messages, and the EXTERNAL
//! mechanism of authentication).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

/// How long the bus or the called may be silent.
const LIMIT: Duration = Duration::from_secs(30);
/// No answer that matters here is longer.
const MESSAGE_MAX: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// A value that a property can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `t`
    Number(u64),
    /// `au`
    Numbers(Vec<u32>),
}

/// A message body, or a part of one, in little-endian order.
#[derive(Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// `u`
    pub fn number(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    /// `s` and `o`
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `b`
    pub fn bool(&mut self, value: bool) {
        self.number(value.into());
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements `fill` adds; `align` is their alignment.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Body)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// `a(sv)`
    pub fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |body| {
            for (name, value) in properties {
                body.align(8);
                body.text(name);
                body.variant(value);
            }
        });
    }

    /// `a(sa(sv))` without elements.
    pub fn no_units(&mut self) {
        self.array(8, |_| {});
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Bool(value) => {
                self.signature("b");
                self.bool(*value);
            }
            Value::Number(value) => {
                self.signature("t");
                self.align(8);
                self.0.extend(value.to_le_bytes());
            }
            Value::Numbers(values) => {
                self.signature("au");
                self.array(4, |body| values.iter().for_each(|value| body.number(*value)));
            }
        }
    }
}

/// A method to be called.
pub struct Method<'a> {
    /// Whose.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// What `body` is.
    pub signature: &'a str,
}

fn message(method: &Method<'_>, serial: u32, body: &Body) -> Vec<u8> {
    let mut all = Body(vec![b'l', METHOD_CALL, 0, 1]);
    all.number(body.0.len() as u32);
    all.number(serial);
    all.array(8, |all| {
        let fields = [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", method.destination),
        ];
        for (code, signature, text) in fields {
            all.align(8);
            all.0.push(code);
            all.signature(signature);
            all.text(text);
        }
        if !method.signature.is_empty() {
            all.align(8);
            all.0.push(8);
            all.signature("g");
            all.signature(method.signature);
        }
    });
    all.align(8);
    all.0.extend(&body.0);
    all.0
}

/// A connection to a bus.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects to the bus behind a socket, and says hello.
    pub fn connect(socket: &Path) -> Result<Bus> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {socket:?}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut bus = Bus { stream, serial: 0 };
        let uid = nix::unistd::geteuid().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            bus.stream.read_exact(&mut byte).context("authentication")?;
            line.push(byte[0]);
            if line.len() > 1024 {
                bail!("authentication: the answer does not end");
            }
        }
        if !line.starts_with(b"OK ") {
            bail!("authentication: {}", String::from_utf8_lossy(&line).trim());
        }
        bus.stream.write_all(b"BEGIN\r\n")?;
        let hello = Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            signature: "",
        };
        bus.call(&hello, &Body::default())?;
        Ok(bus)
    }

    /// Calls a method and waits for its return, whose value nobody here wants.
    pub fn call(&mut self, method: &Method<'_>, body: &Body) -> Result<()> {
        self.serial += 1;
        self.stream.write_all(&message(method, self.serial, body)).context(method.member.to_owned())?;
        loop {
            let answer = self.receive().context(method.member.to_owned())?;
            match answer {
                Answer { kind: METHOD_RETURN, to, .. } if to == self.serial => return Ok(()),
                Answer { kind: ERROR, to, said } if to == self.serial => {
                    return Err(anyhow!("{said}")).context(method.member.to_owned());
                }
                // Signals, such as the one that tells our name.
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Answer> {
        let mut head = [0u8; 16];
        self.stream.read_exact(&mut head)?;
        if head[0] != b'l' {
            bail!("an answer in an order that was not asked for");
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (number(4), number(12));
        let total = fields.next_multiple_of(8).saturating_add(body);
        if total > MESSAGE_MAX {
            bail!("an answer of {total} bytes");
        }
        let mut rest = vec![0; total];
        self.stream.read_exact(&mut rest)?;
        let (fields, body) =
            (rest.get(..fields).unwrap_or_default(), rest.get(total - body..).unwrap_or_default());
        let mut answer = Answer { kind: head[1], to: 0, said: String::new() };
        let mut at = 0;
        // Each field: a code, a signature of one letter, a value.
        while let Some([code, 1, kind, 0]) = fields.get(at..at + 4) {
            let word = |at: usize| {
                fields.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
            };
            let start = at + 4;
            let end = match kind {
                b'u' => start + 4,
                b'g' => start + 2 + usize::from(fields.get(start).copied().unwrap_or(0)),
                _ => start + 5 + word(start) as usize,
            };
            match code {
                4 => answer.said = text(fields, start),
                5 => answer.to = word(start),
                _ => {}
            }
            at = end.next_multiple_of(8);
        }
        if answer.kind == ERROR {
            // The name, and what most add as the first argument.
            let why = text(body, 0);
            if !why.is_empty() {
                answer.said = format!("{why} ({})", answer.said);
            }
        }
        Ok(answer)
    }
}

struct Answer {
    kind: u8,
    to: u32,
    said: String,
}

/// A string of a message, cleaned; empty if there is none.
fn text(bytes: &[u8], at: usize) -> String {
    let length = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
    let text = bytes.get(at + 4..(at + 4).saturating_add(length)).unwrap_or_default();
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn values_are_aligned() {
        let mut body = Body::default();
        body.text("ab");
        body.properties(&[("P", Value::Numbers(vec![7])), ("L", Value::Number(9))]);
        // The length of an array does not count what aligns its first element.
        assert_eq!(body.0[..16], *b"\x02\0\0\0ab\0\0\x30\0\0\0\0\0\0\0");
        assert_eq!(body.0[16..40], *b"\x01\0\0\0P\0\x02au\0\0\0\x04\0\0\0\x07\0\0\0\0\0\0\0");
        assert_eq!(body.0[40..], *b"\x01\0\0\0L\0\x01t\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0");
    }

    /// A bus that greets, and then answers one call with an error.
    #[test]
    fn an_error_of_the_called_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).unwrap();
                bytes
            };
            let uid = nix::unistd::geteuid().to_string();
            let auth = read("\0AUTH EXTERNAL \r\n".len() + 2 * uid.len());
            assert!(auth.starts_with(b"\0AUTH EXTERNAL 3"));
            let mut writer = stream.try_clone().unwrap();
            writer.write_all(b"OK 1234\r\n").unwrap();
            let mut read = |count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).unwrap();
                bytes
            };
            assert_eq!(read(7), b"BEGIN\r\n");
            for (serial, kind) in [(1u8, METHOD_RETURN), (2, ERROR)] {
                let head = read(16);
                let (body, fields) = (usize::from(head[4]), usize::from(head[12]));
                read(fields.next_multiple_of(8) + body);
                let mut answer = Body(vec![b'l', kind, 0, 1]);
                answer.number(12);
                answer.number(serial.into());
                answer.array(8, |all| {
                    all.0.push(5);
                    all.signature("u");
                    all.number(serial.into());
                    all.align(8);
                    all.0.push(4);
                    all.signature("s");
                    all.text("a.b.Error");
                });
                answer.align(8);
                let mut why = Body::default();
                why.text("because");
                answer.0.extend(&why.0);
                writer.write_all(&answer.0).unwrap();
            }
        });
        let mut bus = Bus::connect(&path).unwrap();
        let method = Method { destination: "d", path: "/p", interface: "i", member: "Do", signature: "" };
        let error = bus.call(&method, &Body::default()).unwrap_err();
        assert_eq!(crate::report::line(&error), "Do: because (a.b.Error)");
        server.join().unwrap();
    }
}
