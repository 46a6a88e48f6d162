//! Terminals (`termbits.h`, `termios.h`, `ioctls.h`, `tty.h`).
#![allow(missing_docs, reason = "the names are Linux's")]

pub const NCCS: usize = 19;

layout! {
    /// `struct termios` of the kernel, as TCGETS gives it.
    struct Termios[36] { c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32, c_line: u8, c_cc: [u8; 19] }

    /// `struct termios2` of TCGETS2.
    struct Termios2[44] {
        c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32, c_line: u8, c_cc: [u8; 19], c_ispeed: u32,
        c_ospeed: u32,
    }

    /// `struct termio` of TCGETA.
    struct Termio[18] { c_iflag: u16, c_oflag: u16, c_cflag: u16, c_lflag: u16, c_line: u8, c_cc: [u8; 8], _pad: u8 }

    /// `struct winsize`.
    struct Winsize[8] { ws_row: u16, ws_col: u16, ws_xpixel: u16, ws_ypixel: u16 }
}

// `c_iflag`
pub const IGNBRK: u32 = 0o1;
pub const BRKINT: u32 = 0o2;
pub const IGNPAR: u32 = 0o4;
pub const PARMRK: u32 = 0o10;
pub const INPCK: u32 = 0o20;
pub const ISTRIP: u32 = 0o40;
pub const INLCR: u32 = 0o100;
pub const IGNCR: u32 = 0o200;
pub const ICRNL: u32 = 0o400;
pub const IUCLC: u32 = 0o1000;
pub const IXON: u32 = 0o2000;
pub const IXANY: u32 = 0o4000;
pub const IXOFF: u32 = 0o10000;
pub const IMAXBEL: u32 = 0o20000;
pub const IUTF8: u32 = 0o40000;
// `c_oflag`
pub const OPOST: u32 = 0o1;
pub const OLCUC: u32 = 0o2;
pub const ONLCR: u32 = 0o4;
pub const OCRNL: u32 = 0o10;
pub const ONOCR: u32 = 0o20;
pub const ONLRET: u32 = 0o40;
pub const OFILL: u32 = 0o100;
pub const OFDEL: u32 = 0o200;
pub const NLDLY: u32 = 0o400;
pub const CRDLY: u32 = 0o3000;
pub const TABDLY: u32 = 0o14000;
pub const XTABS: u32 = 0o14000;
pub const BSDLY: u32 = 0o20000;
pub const VTDLY: u32 = 0o40000;
pub const FFDLY: u32 = 0o100000;
// `c_cflag`
pub const CBAUD: u32 = 0o10017;
pub const B0: u32 = 0o0;
pub const B50: u32 = 0o1;
pub const B110: u32 = 0o3;
pub const B300: u32 = 0o7;
pub const B1200: u32 = 0o11;
pub const B2400: u32 = 0o13;
pub const B4800: u32 = 0o14;
pub const B9600: u32 = 0o15;
pub const B19200: u32 = 0o16;
pub const B38400: u32 = 0o17;
pub const CSIZE: u32 = 0o60;
pub const CS5: u32 = 0o0;
pub const CS6: u32 = 0o20;
pub const CS7: u32 = 0o40;
pub const CS8: u32 = 0o60;
pub const CSTOPB: u32 = 0o100;
pub const CREAD: u32 = 0o200;
pub const PARENB: u32 = 0o400;
pub const PARODD: u32 = 0o1000;
pub const HUPCL: u32 = 0o2000;
pub const CLOCAL: u32 = 0o4000;
pub const CBAUDEX: u32 = 0o10000;
pub const BOTHER: u32 = 0o10000;
pub const B57600: u32 = 0o10001;
pub const B115200: u32 = 0o10002;
pub const B230400: u32 = 0o10003;
pub const CIBAUD: u32 = 0o2003600000;
pub const CMSPAR: u32 = 0o10000000000;
pub const CRTSCTS: u32 = 0o20000000000;
pub const IBSHIFT: u32 = 0o20;
// `c_lflag`
pub const ISIG: u32 = 0o1;
pub const ICANON: u32 = 0o2;
pub const XCASE: u32 = 0o4;
pub const ECHO: u32 = 0o10;
pub const ECHOE: u32 = 0o20;
pub const ECHOK: u32 = 0o40;
pub const ECHONL: u32 = 0o100;
pub const NOFLSH: u32 = 0o200;
pub const TOSTOP: u32 = 0o400;
pub const ECHOCTL: u32 = 0o1000;
pub const ECHOPRT: u32 = 0o2000;
pub const ECHOKE: u32 = 0o4000;
pub const FLUSHO: u32 = 0o10000;
pub const PENDIN: u32 = 0o40000;
pub const IEXTEN: u32 = 0o100000;
pub const EXTPROC: u32 = 0o200000;
// Indices of `c_cc`
pub const VINTR: usize = 0;
pub const VQUIT: usize = 1;
pub const VERASE: usize = 2;
pub const VKILL: usize = 3;
pub const VEOF: usize = 4;
pub const VTIME: usize = 5;
pub const VMIN: usize = 6;
pub const VSWTC: usize = 7;
pub const VSTART: usize = 8;
pub const VSTOP: usize = 9;
pub const VSUSP: usize = 10;
pub const VEOL: usize = 11;
pub const VREPRINT: usize = 12;
pub const VDISCARD: usize = 13;
pub const VWERASE: usize = 14;
pub const VLNEXT: usize = 15;
pub const VEOL2: usize = 16;
/// A character of `c_cc` that is switched off.
pub const __DISABLED_CHAR: u8 = 0;
/// Line disciplines.
pub const N_TTY: u8 = 0;

// ioctls
pub const TCGETS: u32 = 0x5401;
pub const TCSETS: u32 = 0x5402;
pub const TCSETSW: u32 = 0x5403;
pub const TCSETSF: u32 = 0x5404;
pub const TCGETA: u32 = 0x5405;
pub const TCSETA: u32 = 0x5406;
pub const TCSETAW: u32 = 0x5407;
pub const TCSETAF: u32 = 0x5408;
pub const TCSBRK: u32 = 0x5409;
pub const TCXONC: u32 = 0x540a;
pub const TCFLSH: u32 = 0x540b;
pub const TIOCEXCL: u32 = 0x540c;
pub const TIOCNXCL: u32 = 0x540d;
pub const TIOCSCTTY: u32 = 0x540e;
pub const TIOCGPGRP: u32 = 0x540f;
pub const TIOCSPGRP: u32 = 0x5410;
pub const TIOCOUTQ: u32 = 0x5411;
pub const TIOCSTI: u32 = 0x5412;
pub const TIOCGWINSZ: u32 = 0x5413;
pub const TIOCSWINSZ: u32 = 0x5414;
pub const TIOCMGET: u32 = 0x5415;
pub const TIOCMBIS: u32 = 0x5416;
pub const TIOCMBIC: u32 = 0x5417;
pub const TIOCMSET: u32 = 0x5418;
pub const TIOCGSOFTCAR: u32 = 0x5419;
pub const TIOCSSOFTCAR: u32 = 0x541a;
pub const TIOCINQ: u32 = 0x541b;
pub const TIOCLINUX: u32 = 0x541c;
pub const TIOCCONS: u32 = 0x541d;
pub const TIOCGSERIAL: u32 = 0x541e;
pub const TIOCSSERIAL: u32 = 0x541f;
pub const TIOCPKT: u32 = 0x5420;
pub const TIOCNOTTY: u32 = 0x5422;
pub const TIOCSETD: u32 = 0x5423;
pub const TIOCGETD: u32 = 0x5424;
pub const TCSBRKP: u32 = 0x5425;
pub const TIOCSBRK: u32 = 0x5427;
pub const TIOCCBRK: u32 = 0x5428;
pub const TIOCGSID: u32 = 0x5429;
pub const TCGETS2: u32 = 0x802c542a;
pub const TCSETS2: u32 = 0x402c542b;
pub const TCSETSW2: u32 = 0x402c542c;
pub const TCSETSF2: u32 = 0x402c542d;
pub const TIOCGPTN: u32 = 0x80045430;
pub const TIOCSPTLCK: u32 = 0x40045431;
pub const TIOCGDEV: u32 = 0x80045432;
pub const TIOCSIG: u32 = 0x40045436;
pub const TIOCVHANGUP: u32 = 0x5437;
pub const TIOCGPKT: u32 = 0x80045438;
pub const TIOCGPTLCK: u32 = 0x80045439;
pub const TIOCGEXCL: u32 = 0x80045440;
pub const TIOCGPTPEER: u32 = 0x5441;
pub const TIOCGLCKTRMIOS: u32 = 0x5456;
pub const TIOCSLCKTRMIOS: u32 = 0x5457;
// Console ioctls, which programs use to find out whether they are on one.
pub const KDGKBTYPE: u32 = 0x4b33;
pub const KDGETMODE: u32 = 0x4b3b;
pub const KDSETMODE: u32 = 0x4b3a;
pub const KDGKBMODE: u32 = 0x4b44;
pub const VT_OPENQRY: u32 = 0x5600;
pub const VT_GETSTATE: u32 = 0x5603;

// Argument of TCFLSH.
pub const TCIFLUSH: u32 = 0;
pub const TCOFLUSH: u32 = 1;
pub const TCIOFLUSH: u32 = 2;
// Argument of TCXONC.
pub const TCOOFF: u32 = 0;
pub const TCOON: u32 = 1;
pub const TCIOFF: u32 = 2;
pub const TCION: u32 = 3;
// Bits of packet mode (TIOCPKT).
pub const TIOCPKT_DATA: u8 = 0;
pub const TIOCPKT_FLUSHREAD: u8 = 1;
pub const TIOCPKT_FLUSHWRITE: u8 = 2;
pub const TIOCPKT_STOP: u8 = 4;
pub const TIOCPKT_START: u8 = 8;
pub const TIOCPKT_NOSTOP: u8 = 16;
pub const TIOCPKT_DOSTOP: u8 = 32;
pub const TIOCPKT_IOCTL: u8 = 64;
// Modem lines (TIOCMGET).
pub const TIOCM_LE: u32 = 1;
pub const TIOCM_DTR: u32 = 2;
pub const TIOCM_RTS: u32 = 4;
pub const TIOCM_CTS: u32 = 0x20;
pub const TIOCM_CAR: u32 = 0x40;
pub const TIOCM_RNG: u32 = 0x80;
pub const TIOCM_DSR: u32 = 0x100;

/// `INIT_C_CC`: ^C, ^\, DEL, ^U, ^D, TIME 0, MIN 1, ^Q, ^S, ^Z, ^R, ^O, ^W, ^V.
pub const INIT_C_CC: [u8; 19] =
    [3, 0o34, 0o177, 0o25, 4, 0, 1, 0, 0o21, 0o23, 0o32, 0, 0o22, 0o17, 0o27, 0o26, 0, 0, 0];

/// `tty_std_termios`: what a new terminal has.
pub const STD_TERMIOS: Termios2 = Termios2 {
    c_iflag: ICRNL | IXON,
    c_oflag: OPOST | ONLCR,
    c_cflag: B38400 | CS8 | CREAD | HUPCL,
    c_lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
    c_line: N_TTY,
    c_cc: INIT_C_CC,
    c_ispeed: 38400,
    c_ospeed: 38400,
};

/// What a new pseudo-terminal slave has.
pub const PTS_TERMIOS: Termios2 = Termios2 { c_cflag: B38400 | CS8 | CREAD, ..STD_TERMIOS };

/// What a pseudo-terminal master has: nothing is processed.
pub const PTM_TERMIOS: Termios2 =
    Termios2 { c_iflag: 0, c_oflag: 0, c_cflag: B38400 | CS8 | CREAD, c_lflag: 0, ..STD_TERMIOS };

impl From<Termios2> for Termios {
    fn from(t: Termios2) -> Termios {
        let Termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, .. } = t;
        Termios { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc }
    }
}
