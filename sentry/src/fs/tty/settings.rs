//! Settings as programs give them: `struct termios` of several kinds, and speeds (drivers/tty/tty_ioctl.c,
//! tty_baudrate.c).

use abi::tty as t;
use abi::tty::{Termio, Termios, Termios2};

/// Speeds by their code in `c_cflag`; those from CBAUDEX on follow B38400.
const SPEEDS: [u32; 31] = [
    0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115_200,
    230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000,
    3_000_000, 3_500_000, 4_000_000,
];

fn speed(code: u32) -> u32 {
    let index = if code & t::CBAUDEX != 0 { (code & !t::CBAUDEX) + 15 } else { code };
    SPEEDS.get(index as usize).copied().unwrap_or(0)
}

/// Fills in the speeds that the codes in `c_cflag` mean.
pub(super) fn with_speeds(mut new: Termios2) -> Termios2 {
    let output = new.c_cflag & t::CBAUD;
    if output != t::BOTHER {
        new.c_ospeed = speed(output);
    }
    match new.c_cflag >> t::IBSHIFT & t::CBAUD {
        t::B0 => new.c_ispeed = new.c_ospeed,
        t::BOTHER => {}
        input => new.c_ispeed = speed(input),
    }
    new
}

/// The settings, changed as TCSETS asks.
pub(super) fn changed(old: &Termios2, new: &Termios) -> Termios2 {
    let Termios { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc } = *new;
    Termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc, ..*old }
}

/// The settings, changed as TCSETA asks: the low halves of the flags.
pub(super) fn changed_low(old: &Termios2, new: &Termio) -> Termios2 {
    let low = |old: u32, new: u16| old & 0xffff_0000 | u32::from(new);
    let mut c_cc = old.c_cc;
    c_cc[..8].copy_from_slice(&new.c_cc);
    Termios2 {
        c_iflag: low(old.c_iflag, new.c_iflag),
        c_oflag: low(old.c_oflag, new.c_oflag),
        c_cflag: low(old.c_cflag, new.c_cflag),
        c_lflag: low(old.c_lflag, new.c_lflag),
        c_line: new.c_line,
        c_cc,
        ..*old
    }
}

/// What TCGETA tells.
pub(super) fn low(of: &Termios2) -> Termio {
    let mut c_cc = [0; 8];
    c_cc.copy_from_slice(&of.c_cc[..8]);
    Termio {
        c_iflag: of.c_iflag as u16,
        c_oflag: of.c_oflag as u16,
        c_cflag: of.c_cflag as u16,
        c_lflag: of.c_lflag as u16,
        c_line: of.c_line,
        c_cc,
        _pad: 0,
    }
}

/// Keeps what may not be changed (unset_locked_termios()).
pub(super) fn keep_fixed(new: Termios2, old: &Termios2, fixed: &Termios2) -> Termios2 {
    let keep = |new: u32, old: u32, fixed: u32| new & !fixed | old & fixed;
    let mut c_cc = new.c_cc;
    for (at, c) in c_cc.iter_mut().enumerate() {
        if fixed.c_cc[at] != 0 {
            *c = old.c_cc[at];
        }
    }
    Termios2 {
        c_iflag: keep(new.c_iflag, old.c_iflag, fixed.c_iflag),
        c_oflag: keep(new.c_oflag, old.c_oflag, fixed.c_oflag),
        c_cflag: keep(new.c_cflag, old.c_cflag, fixed.c_cflag),
        c_lflag: keep(new.c_lflag, old.c_lflag, fixed.c_lflag),
        c_line: if fixed.c_line != 0 { old.c_line } else { new.c_line },
        c_cc,
        ..new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_speeds() {
        let speeds = |c_cflag: u32| {
            let t = with_speeds(Termios2 { c_cflag, c_ispeed: 7, c_ospeed: 8, ..t::PTS_TERMIOS });
            (t.c_ispeed, t.c_ospeed)
        };
        assert_eq!(speeds(t::B9600), (9600, 9600));
        assert_eq!(speeds(t::B115200), (115_200, 115_200));
        assert_eq!(speeds(0o10017), (4_000_000, 4_000_000));
        assert_eq!(speeds(t::BOTHER), (8, 8));
        assert_eq!(speeds(t::B9600 | t::BOTHER << t::IBSHIFT), (7, 9600));
        assert_eq!(speeds(t::B9600 | t::B300 << t::IBSHIFT), (300, 9600));
        assert_eq!(speeds(0), (0, 0));
    }

    #[test]
    fn old_structures_change_low_halves() {
        let old = Termios2 { c_lflag: t::ECHO | t::EXTPROC, ..t::PTS_TERMIOS };
        let mut half = low(&old);
        assert_eq!(half.c_lflag, t::ECHO as u16);
        half.c_lflag = t::ICANON as u16;
        half.c_cc[t::VINTR] = 1;
        let new = changed_low(&old, &half);
        assert_eq!((new.c_lflag, new.c_cc[t::VINTR]), (t::ICANON | t::EXTPROC, 1));
        assert_eq!(new.c_cc[8..], old.c_cc[8..]);
    }

    #[test]
    fn fixed_settings_stay() {
        let fixed = Termios2 { c_lflag: t::ECHO, ..Termios2::default() };
        let new = Termios2 { c_lflag: 0, ..t::PTS_TERMIOS };
        assert_eq!(keep_fixed(new, &t::PTS_TERMIOS, &fixed).c_lflag, t::ECHO);
    }
}
