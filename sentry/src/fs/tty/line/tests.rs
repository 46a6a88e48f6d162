//! The same input through a pseudo-terminal of the host and through a [`Line`]: the same bytes must come out.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use abi::tty as t;
use abi::tty::Termios2;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use proptest::prelude::*;

use super::Line;

/// How long the host may take to show what is expected: first, and when it was not there in all the attempts. Only a
/// failure takes that long.
const LIMITS: [Duration; 6] = [
    Duration::from_millis(300),
    Duration::from_millis(300),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

const OUTPUT_MAX: usize = 12 * 1024;
const TAKEN: usize = 4095;

#[derive(Clone, Debug)]
enum Step {
    /// Bytes arrive from the wire.
    Type(Vec<u8>),
    /// A program writes.
    Write(Vec<u8>),
    /// A program reads, without waiting.
    Read(usize),
    Settings(Settings),
    FlushInput,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    iflag: u32,
    oflag: u32,
    lflag: u32,
    cc: [u8; 19],
}

impl Settings {
    const NEW: Settings = Settings {
        iflag: t::PTS_TERMIOS.c_iflag,
        oflag: t::PTS_TERMIOS.c_oflag,
        lflag: t::PTS_TERMIOS.c_lflag,
        cc: t::INIT_C_CC,
    };

    fn termios(&self) -> Termios2 {
        let Settings { iflag, oflag, lflag, cc } = *self;
        Termios2 { c_iflag: iflag, c_oflag: oflag, c_lflag: lflag, c_cc: cc, ..t::PTS_TERMIOS }
    }
}

/// A pseudo-terminal of the host.
struct Host {
    master: File,
    slave: File,
    limit: Duration,
}

fn ready(file: &File, flags: PollFlags, limit: Duration) -> bool {
    let mut fds = [PollFd::new(file.as_fd(), flags)];
    let timeout = PollTimeout::try_from(limit).unwrap();
    poll(&mut fds, timeout).unwrap() > 0
}

impl Host {
    fn new(limit: Duration) -> Host {
        let pty = nix::pty::openpty(None, None).unwrap();
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        }
        Host { master: pty.master.into(), slave: pty.slave.into(), limit }
    }

    fn set(&self, settings: &Settings) {
        let mut raw: nix::libc::termios = tcgetattr(&self.slave).unwrap().into();
        raw.c_iflag = settings.iflag;
        raw.c_oflag = settings.oflag;
        raw.c_lflag = settings.lflag;
        raw.c_cc[..19].copy_from_slice(&settings.cc);
        tcsetattr(&self.slave, SetArg::TCSANOW, &Termios::from(raw)).unwrap();
    }

    /// As much of `data` as it takes.
    fn put(mut file: &File, data: &[u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            match file.write(&data[done..]) {
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        done
    }

    /// What is on the wire, of which `expected` should be.
    fn output(&self, expected: usize) -> Vec<u8> {
        let end = Instant::now() + self.limit;
        let mut all = Vec::new();
        let mut buf = [0; 8192];
        loop {
            let left = if all.len() < expected {
                end.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            if !ready(&self.master, PollFlags::POLLIN, left) {
                return all;
            }
            match (&self.master).read(&mut buf) {
                Ok(0) => return all,
                Ok(n) => all.extend(&buf[..n]),
                Err(_) => return all,
            }
        }
    }

    /// One read, which should give `expected`; `None` is "nothing there". What is still on its way is waited for.
    fn read(&self, count: usize, expected: Option<&[u8]>) -> Option<Vec<u8>> {
        let end = Instant::now() + self.limit;
        let mut buf = vec![0; count];
        let mut done = 0;
        loop {
            match (&self.slave).read(&mut buf[done..]) {
                Ok(n) => {
                    done += n;
                    if n == 0 || expected.is_none_or(|e| e.len() <= done) {
                        return Some(buf[..done].to_vec());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock && expected.is_some() && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return (done > 0).then(|| buf[..done].to_vec()),
            }
        }
    }
}

fn new_line() -> Line {
    Line::new(t::PTS_TERMIOS, OUTPUT_MAX, TAKEN)
}

/// A read that does not wait.
fn read(line: &mut Line, count: usize) -> Option<Vec<u8>> {
    let mut reading = line.begin_read(count);
    let complete = line.read(&mut reading);
    let immediate = reading.timeout() == Some(0);
    line.end_read();
    (complete || immediate || !reading.data.is_empty()).then_some(reading.data)
}

/// Carries out all steps on both sides. The host processes input a little later than it comes, and a reader may be
/// faster: a difference counts when it is there again and again.
fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut outcome = Ok(());
    for limit in LIMITS {
        outcome = compare_once(steps, limit);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn compare_once(steps: &[Step], limit: Duration) -> Result<(), TestCaseError> {
    let host = Host::new(limit);
    let mut line = new_line();
    for (number, step) in steps.iter().enumerate() {
        let at = format!("step {number}, {step:?}");
        // While there is something to read, there is no telling how far the host has got; poll(2) waits for it.
        while !matches!(step, Step::Read(_))
            && line.readable(true)
            && let Some(ours) = read(&mut line, 100)
        {
            prop_assert_eq!(host.read(100, Some(&ours)), Some(ours), "before {}", &at);
        }
        ready(&host.slave, PollFlags::POLLIN, Duration::ZERO);
        match step {
            Step::Type(data) => {
                let mut taken = 0;
                while taken < data.len() {
                    let n = line.receive(&data[taken..]);
                    if n == 0 {
                        break;
                    }
                    taken += n;
                }
                prop_assert_eq!(Host::put(&host.master, &data[..taken]), taken, "{}", &at);
                // Lines show before all of the input was processed.
                std::thread::sleep(Duration::from_micros(300));
            }
            Step::Write(data) => {
                let n = line.write(data);
                prop_assert_eq!(Host::put(&host.slave, &data[..n]), n, "{}", &at);
            }
            Step::Read(count) => {
                let ours = read(&mut line, *count);
                let theirs = host.read(*count, ours.as_deref());
                prop_assert_eq!(theirs, ours, "{}", &at);
            }
            Step::Settings(settings) => {
                line.set_termios(settings.termios());
                host.set(settings);
            }
            Step::FlushInput => {
                line.flush_pending();
                line.flush_input();
                tcflush(&host.slave, FlushArg::TCIFLUSH).unwrap();
            }
        }
        let ours = line.take_output(usize::MAX);
        let theirs = host.output(ours.len());
        prop_assert_eq!(
            String::from_utf8_lossy(&theirs),
            String::from_utf8_lossy(&ours),
            "output after {}",
            &at
        );
    }
    Ok(())
}

fn same(steps: &[Step]) {
    compare(steps).unwrap();
}

fn typed(text: &[u8]) -> Step {
    Step::Type(text.to_vec())
}

fn with(change: impl FnOnce(&mut Settings)) -> Step {
    let mut settings = Settings::NEW;
    change(&mut settings);
    Step::Settings(settings)
}

#[test]
fn lines_are_edited() {
    same(&[
        typed(b"hello\n"),
        Step::Read(100),
        typed(b"abx\x7fc\n"),
        Step::Read(100),
        typed(b"one two  \x17three\n"),
        Step::Read(100),
        typed(b"junk\x15kept\n"),
        Step::Read(100),
        typed(b"a\x16\x03z\n"),
        Step::Read(100),
        typed(b"re\tprint\x12ed\n"),
        Step::Read(100),
        typed(b"\x7f\x7f\x17\x15ok\n"),
        Step::Read(100),
    ]);
}

#[test]
fn tabs_and_control_characters_are_erased() {
    same(&[
        Step::Write(b"prompt> ".to_vec()),
        typed(b"ab\tc\t"),
        typed(b"\x7f"),
        typed(b"\x7f\x7f"),
        typed(b"\x01\x02\t"),
        typed(b"\x7f\x7f\x7f"),
        typed(b"\x15"),
        typed(b"x\ty\tz\x15\n"),
        Step::Read(10),
    ]);
}

#[test]
fn utf8_characters_are_erased_whole() {
    same(&[
        with(|s| s.iflag |= t::IUTF8),
        typed("aé€𝄞".as_bytes()),
        typed(b"\x7f"),
        typed(b"\x7f\x7f"),
        typed("ñandú\t\x7f\x17ö\n".as_bytes()),
        Step::Read(100),
        typed(b"\x80\x80\x7f\x7f\n"),
        Step::Read(100),
    ]);
}

#[test]
fn erasing_may_be_printed() {
    same(&[
        with(|s| s.lflag |= t::ECHOPRT),
        typed(b"abc\x7f\x7f"),
        typed(b"d"),
        typed(b"ef\x17"),
        typed(b"\n"),
        Step::Read(100),
        with(|s| s.lflag &= !t::ECHOE),
        typed(b"abc\x7f\x7f\x15"),
        with(|s| s.lflag &= !t::ECHOKE),
        typed(b"abc\x15def\n"),
        Step::Read(100),
        with(|s| s.lflag &= !(t::ECHOK | t::ECHOKE)),
        typed(b"abc\x15def\n"),
        Step::Read(100),
    ]);
}

#[test]
fn end_of_file_ends_a_read() {
    same(&[
        typed(b"part\x04"),
        Step::Read(100),
        typed(b"\x04"),
        Step::Read(100),
        // A read that just fits takes the end of file along.
        typed(b"four\x04"),
        Step::Read(4),
        Step::Read(4),
        typed(b"long line\n"),
        Step::Read(4),
        Step::Read(4),
        Step::Read(4),
        typed(&[b"x".repeat(64), b"\x04".to_vec()].concat()),
        Step::Read(64),
        Step::Read(1),
        typed(&[b"y".repeat(200), b"\n".to_vec()].concat()),
        Step::Read(130),
        Step::Read(130),
    ]);
}

#[test]
fn signals_flush() {
    same(&[
        typed(b"dirty"),
        typed(b"\x03"),
        typed(b"clean\n"),
        Step::Read(100),
        // In one piece with what precedes it, the echo of that is lost.
        typed(b"abc\x03def\n"),
        Step::Read(100),
        with(|s| s.lflag |= t::NOFLSH),
        typed(b"abc\x1cdef\x1a\n"),
        Step::Read(100),
        with(|s| s.lflag &= !t::ISIG),
        typed(b"abc\x03\n"),
        Step::Read(100),
    ]);
    let mut line = new_line();
    line.receive(b"a\x03b\x1cc\x1a");
    use abi::signal::Signal;
    assert_eq!(line.signals, [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP]);
}

#[test]
fn input_is_translated() {
    same(&[
        typed(b"a\rb\n"),
        Step::Read(10),
        Step::Read(10),
        with(|s| s.iflag = t::INLCR),
        typed(b"a\nb\rc\n\x04"),
        Step::Read(10),
        with(|s| s.iflag = t::IGNCR),
        typed(b"a\rb\n"),
        Step::Read(10),
        with(|s| s.iflag = t::ISTRIP | t::IUCLC),
        typed(b"\xc1BC\xe4D\n"),
        Step::Read(10),
        with(|s| s.iflag = t::PARMRK),
        typed(b"a\xffb\n"),
        Step::Read(10),
        with(|s| s.cc[t::VEOL] = b'.'),
        typed(b"one.two\n"),
        Step::Read(10),
        Step::Read(10),
    ]);
}

#[test]
fn output_is_translated() {
    let text = b"a\tb\r\nc\x08\x08d\n\r\re\te\xffF\x01\n".to_vec();
    let flags = [
        t::OPOST,
        t::OPOST | t::ONLCR,
        t::OPOST | t::OCRNL,
        t::OPOST | t::OCRNL | t::ONLRET,
        t::OPOST | t::ONOCR,
        t::OPOST | t::ONLRET,
        t::OPOST | t::XTABS,
        t::OPOST | t::XTABS | t::ONLCR | t::OLCUC,
        0,
    ];
    let mut steps = Vec::new();
    for flags in flags {
        steps.push(with(|s| s.oflag = flags));
        steps.push(Step::Write(text.clone()));
        steps.push(Step::Write(text.clone()));
        steps.push(typed(b"x\ty\t\x7f\x15"));
    }
    same(&steps);
}

#[test]
fn raw_reads_take_what_there_is() {
    let raw = |minimum: u8, time: u8| {
        with(|s| {
            (s.iflag, s.oflag, s.lflag) = (0, 0, 0);
            (s.cc[t::VMIN], s.cc[t::VTIME]) = (minimum, time);
        })
    };
    same(&[
        raw(1, 0),
        typed(b"\x03\x04\r\x7f\n"),
        Step::Read(2),
        Step::Read(100),
        Step::Read(100),
        raw(0, 0),
        Step::Read(100),
        raw(3, 0),
        typed(b"ab"),
        Step::Read(100),
        typed(b"abcde"),
        Step::Read(2),
        Step::Read(100),
        raw(0, 5),
        Step::Read(100),
        raw(100, 0),
        typed(&b"z".repeat(90)),
        Step::Read(200),
        Step::Read(200),
        typed(&b"z".repeat(150)),
        Step::Read(200),
        Step::Read(200),
    ]);
}

#[test]
fn changing_modes_keeps_input() {
    same(&[
        typed(b"half"),
        with(|s| s.lflag &= !t::ICANON),
        Step::Read(2),
        Step::Read(10),
        // In the other direction what is there counts as a line; see also the unit test below.
        with(|s| s.cc[t::VMIN] = 50),
        typed(b"more"),
        with(|_| {}),
        Step::Read(10),
    ]);
    let mut line = new_line();
    line.set_termios(Termios2 { c_lflag: 0, ..t::PTS_TERMIOS });
    line.receive(b"raw");
    line.set_termios(t::PTS_TERMIOS);
    assert_eq!(read(&mut line, 10).as_deref(), Some(&b"raw"[..]));
    assert_eq!(read(&mut line, 10), None);
}

#[test]
fn a_long_line_is_cut() {
    let mut cut = vec![with(|s| s.lflag &= !t::ECHO)];
    cut.push(typed(&b"0123456789".repeat(450)));
    cut.push(typed(b"the end\n"));
    cut.push(Step::Read(5000));
    cut.push(Step::Read(5000));
    cut.push(typed(&b"0123456789".repeat(450)));
    cut.push(typed(b"\x7f\x7f\x7fe\n"));
    cut.push(Step::Read(5000));
    same(&cut);
    // With echo, all of it is echoed.
    same(&[typed(&b"0123456789".repeat(450)), typed(b"\n"), Step::Read(5000)]);
}

#[test]
fn flow_control_stops_output() {
    same(&[
        with(|s| s.lflag &= !t::ECHO),
        typed(b"\x13"),
        Step::Write(b"held".to_vec()),
        typed(b"\x11"),
        Step::Write(b"gone".to_vec()),
        with(|s| s.iflag |= t::IXANY),
        typed(b"\x13"),
        typed(b"a"),
        Step::Write(b"gone".to_vec()),
        typed(b"\x13"),
        // Without IXON nothing can start it: it starts by itself.
        with(|s| s.iflag &= !t::IXON),
        Step::Write(b"gone".to_vec()),
        Step::FlushInput,
    ]);
    // Echo is held too, and comes before what is written later.
    let mut line = new_line();
    line.receive(b"\x13abc");
    assert_eq!(line.write(b"x"), 0);
    assert_eq!(line.take_output(100), b"");
    line.receive(b"\x11");
    line.write(b"x");
    assert_eq!(line.take_output(100), b"abcx");
}

#[test]
fn flow_control_is_found_behind_a_full_buffer() {
    let mut line = new_line();
    line.receive(&b"line\n".repeat(1000));
    assert!(!line.pending.is_empty());
    line.receive(b"\x13");
    assert_eq!(line.write_room(), 0);
    // It does not act again when it is processed.
    line.receive(b"\x11");
    assert!(line.write_room() > 0);
    let mut lines = 0;
    while let Some(text) = read(&mut line, 100) {
        assert_eq!(text, b"line\n");
        lines += 1;
        assert!(line.write_room() > 0);
        line.take_output(usize::MAX);
    }
    assert_eq!(lines, 1000);
}

#[test]
fn output_fills_up_and_drains() {
    let mut line = new_line();
    let text = vec![b'x'; 100_000];
    let first = line.write(&text);
    assert_eq!(first, OUTPUT_MAX);
    assert!(!line.writable());
    assert_eq!(line.write(b"y"), 0);
    line.news = super::News::empty();
    line.take_output(OUTPUT_MAX - 10);
    assert!(line.news.contains(super::News::ROOM));
    // What the wire has is not flushed.
    line.write(&text);
    line.flush_output();
    assert_eq!(line.output_len(), TAKEN);
}

#[test]
fn packet_mode_tells_of_changes() {
    let mut line = new_line();
    line.set_packet_mode(true);
    line.flush_input();
    assert_eq!(line.take_packet_status(), t::TIOCPKT_FLUSHREAD);
    assert_eq!(line.take_packet_status(), 0);
    line.receive(b"\x13");
    assert_eq!(line.take_packet_status(), t::TIOCPKT_STOP);
    line.receive(b"\x11");
    assert_eq!(line.take_packet_status(), t::TIOCPKT_START);
    line.set_termios(Termios2 { c_iflag: t::ICRNL, ..t::PTS_TERMIOS });
    assert_eq!(line.take_packet_status(), t::TIOCPKT_NOSTOP);
    line.set_termios(Termios2 { c_lflag: t::PTS_TERMIOS.c_lflag | t::EXTPROC, ..t::PTS_TERMIOS });
    assert_eq!(line.take_packet_status(), t::TIOCPKT_DOSTOP | t::TIOCPKT_IOCTL);
    line.receive(b"\x03");
    assert_eq!(line.take_packet_status(), 0, "EXTPROC leaves signals to the other end");
}

/// Bytes that mean something, and some that do not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(&b"\x03\x04\x7f\x15\x17\x12\x16\x11\x13\x1a\x1c\r\n\t\x08\x01\0"[..]);
    let byte = prop_oneof![
        4 => prop::sample::select(&b"ab c_.\xffZ"[..]),
        3 => special,
        1 => prop::sample::select("é€\u{1d11e}".as_bytes()),
        1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 1..12)
}

fn settings() -> impl Strategy<Value = Settings> {
    let flags = |base: u32, all: &'static [u32]| {
        prop::collection::vec(prop::sample::select(all), 0..4)
            .prop_map(move |toggled| toggled.iter().fold(base, |flags, flag| flags ^ flag))
    };
    let iflag = flags(
        Settings::NEW.iflag,
        &[
            t::ISTRIP,
            t::INLCR,
            t::IGNCR,
            t::ICRNL,
            t::IUCLC,
            t::IXON,
            t::IXANY,
            t::IMAXBEL,
            t::IUTF8,
            t::PARMRK,
        ],
    );
    let oflag =
        flags(Settings::NEW.oflag, &[t::OPOST, t::OLCUC, t::ONLCR, t::OCRNL, t::ONOCR, t::ONLRET, t::XTABS]);
    let lflag = flags(
        Settings::NEW.lflag,
        &[
            t::ISIG,
            t::ICANON,
            t::ECHO,
            t::ECHOE,
            t::ECHOK,
            t::ECHONL,
            t::NOFLSH,
            t::ECHOCTL,
            t::ECHOPRT,
            t::ECHOKE,
            t::IEXTEN,
            t::EXTPROC,
        ],
    );
    let cc = (
        prop::sample::select(vec![t::VERASE, t::VKILL, t::VEOF, t::VEOL, t::VEOL2, t::VMIN, t::VWERASE]),
        prop::sample::select(&b"\0\x01\x02ab.\xff"[..]),
        any::<bool>(),
    )
        .prop_map(|(index, value, change)| {
            let mut cc = t::INIT_C_CC;
            if change {
                cc[index] = value;
            }
            cc
        });
    (iflag, oflag, lflag, cc).prop_map(|(iflag, oflag, lflag, cc)| Settings { iflag, oflag, lflag, cc })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => bytes().prop_map(Step::Type),
        2 => bytes().prop_map(Step::Write),
        4 => prop_oneof![Just(1usize), Just(3), Just(100)].prop_map(Step::Read),
        2 => settings().prop_map(Step::Settings),
        1 => Just(Step::FlushInput),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_session_is_as_on_the_host(steps in prop::collection::vec(step(), 1..30)) {
        compare(&steps)?;
    }
}
