//! What ioctl(2) does to terminals (ioctl_tty(2), tty_ioctl()).

use std::sync::Arc;

use abi::capability::CAP_SYS_ADMIN;
use abi::signal::Signal;
use abi::tty::{self as t, Termios, Termios2, Winsize};
use abi::{Errno, Result};

use super::{Terminal, job_control, settings};
use crate::task::CurrentTask;
use crate::vfs::File;

/// Numbers of line disciplines are below this (NR_LDISCS).
const DISCIPLINES: i32 = 31;

/// Which end was asked. Settings, size and session are the terminal's at either end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Terminal,
    Master,
}

/// What a change of settings waits for and discards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Now,
    Drained,
    DrainedAndFlushed,
}

/// The requests that both ends know. ENOTTY for others.
pub(super) fn ioctl(
    terminal: &Arc<Terminal>,
    end: End,
    task: &CurrentTask,
    file: &Arc<File>,
    request: u32,
    arg: u64,
) -> Result<u64> {
    let of_terminal = end == End::Terminal;
    let mm = task.mm();
    let write = |value: i32| mm.write_object(arg, &value).map(|()| 0);
    let privileged = || task.capable(CAP_SYS_ADMIN);
    let check_change = || match end {
        End::Terminal => terminal.check_change(task, Signal::SIGTTOU),
        // Nobody's controlling terminal.
        End::Master => Ok(()),
    };
    match request {
        t::TIOCGWINSZ => {
            let winsize = terminal.state.lock().winsize;
            mm.write_object(arg, &winsize)?;
        }
        t::TIOCSWINSZ => terminal.resize(mm.read_object::<Winsize>(arg)?),
        t::TIOCEXCL | t::TIOCNXCL => terminal.update(|state| {
            let exclusive = if of_terminal { &mut state.exclusive } else { &mut state.master_exclusive };
            *exclusive = request == t::TIOCEXCL;
        }),
        t::TIOCGEXCL => {
            let state = terminal.state.lock();
            let exclusive = if of_terminal { state.exclusive } else { state.master_exclusive };
            drop(state);
            return write(i32::from(exclusive));
        }
        t::TIOCGDEV => return write(terminal.rdev() as i32),
        t::TIOCGETD => return write(i32::from(t::N_TTY)),
        t::TIOCSETD => {
            check_change()?;
            let discipline: i32 = mm.read_object(arg)?;
            if discipline != i32::from(t::N_TTY) {
                let known = (0..DISCIPLINES).contains(&discipline);
                tracing::debug!(discipline, known, "line discipline that is not there");
                return Err(Errno::EINVAL);
            }
        }
        t::TIOCSTI => {
            if !privileged() {
                // dev.tty.legacy_tiocsti is off.
                return Err(Errno::EIO);
            }
            let byte: u8 = mm.read_object(arg)?;
            terminal.update(|state| match end {
                End::Terminal => state.line.insert(byte),
                End::Master => state.line.write_unprocessed(byte),
            });
        }
        // It asks a master, of which there is none here.
        t::TIOCGPTPEER => return Err(Errno::EIO),
        t::TIOCCONS => return Err(if of_terminal { Errno::EPERM } else { Errno::EINVAL }),
        t::TIOCVHANGUP => {
            if !privileged() {
                return Err(Errno::EPERM);
            }
            match end {
                End::Terminal => terminal.hang_up(),
                End::Master => return Err(Errno::EIO),
            }
        }
        // There is no wire on which a break could be sent.
        t::TIOCSBRK | t::TCSBRK | t::TCSBRKP => {
            check_change()?;
            drain(terminal, end, task).map_err(|e| if e.is_restart() { Errno::EINTR } else { e })?;
        }
        t::TIOCCBRK => check_change()?,
        t::TCFLSH => flush(terminal, end, arg, check_change)?,
        t::TCXONC => {
            check_change()?;
            control_flow(terminal, end, arg)?;
        }
        t::TIOCINQ => {
            let state = terminal.state.lock();
            let count = if of_terminal { state.line.input_len() } else { state.line.output_len() };
            drop(state);
            return write(i32::try_from(count).unwrap_or(i32::MAX));
        }
        t::TIOCOUTQ => return write(i32::try_from(undelivered(terminal, end)).unwrap_or(i32::MAX)),
        t::TIOCNOTTY => {
            if !of_terminal || !terminal.controls(task) {
                return Err(Errno::ENOTTY);
            }
            job_control::give_up(task);
        }
        t::TIOCSCTTY => terminal.set_controlling(task, arg, file.flags().readable())?,
        t::TIOCGPGRP => {
            if of_terminal && !terminal.controls(task) {
                return Err(Errno::ENOTTY);
            }
            let group = terminal.foreground();
            return write(group.map_or(0, |group| group.number_in(&task.pid_ns())) as i32);
        }
        t::TIOCSPGRP => terminal.set_foreground(task, arg)?,
        t::TIOCGSID => {
            if of_terminal && !terminal.controls(task) {
                return Err(Errno::ENOTTY);
            }
            let session = terminal.session().ok_or(Errno::ENOTTY)?;
            return write(session.number_in(&task.pid_ns()) as i32);
        }
        _ => return modes(terminal, task, request, arg),
    }
    Ok(0)
}

/// The requests about settings (tty_mode_ioctl()).
fn modes(terminal: &Arc<Terminal>, task: &CurrentTask, request: u32, arg: u64) -> Result<u64> {
    let mm = task.mm();
    let old = || *terminal.state.lock().line.termios();
    let old_style = || Ok(settings::changed(&old(), &mm.read_object::<Termios>(arg)?));
    let new_style = || mm.read_object::<Termios2>(arg);
    let oldest = || Ok(settings::changed_low(&old(), &mm.read_object::<t::Termio>(arg)?));
    let set = |when: When, read: &dyn Fn() -> Result<Termios2>| {
        terminal.check_change(task, Signal::SIGTTOU)?;
        let new = settings::with_speeds(read()?);
        if when != When::Now {
            drain(terminal, End::Terminal, task)?;
        }
        terminal.update(|state| {
            if when == When::DrainedAndFlushed {
                state.line.flush_input();
            }
            let new = settings::keep_fixed(new, state.line.termios(), &state.fixed);
            state.line.set_termios(new);
        });
        Ok(0)
    };
    match request {
        t::TCGETS => mm.write_object(arg, &Termios::from(old())).map(|()| 0),
        t::TCGETS2 => mm.write_object(arg, &old()).map(|()| 0),
        t::TCGETA => mm.write_object(arg, &settings::low(&old())).map(|()| 0),
        t::TCSETS => set(When::Now, &old_style),
        t::TCSETSW => set(When::Drained, &old_style),
        t::TCSETSF => set(When::DrainedAndFlushed, &old_style),
        t::TCSETS2 => set(When::Now, &new_style),
        t::TCSETSW2 => set(When::Drained, &new_style),
        t::TCSETSF2 => set(When::DrainedAndFlushed, &new_style),
        t::TCSETA => set(When::Now, &oldest),
        t::TCSETAW => set(When::Drained, &oldest),
        t::TCSETAF => set(When::DrainedAndFlushed, &oldest),
        t::TIOCGLCKTRMIOS => {
            let fixed = terminal.state.lock().fixed;
            mm.write_object(arg, &Termios::from(fixed)).map(|()| 0)
        }
        t::TIOCSLCKTRMIOS => {
            if !task.capable(CAP_SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            let fixed = settings::changed(&Termios2::default(), &mm.read_object(arg)?);
            terminal.update(|state| state.fixed = fixed);
            Ok(0)
        }
        t::TIOCGSOFTCAR => {
            let local = old().c_cflag & t::CLOCAL != 0;
            mm.write_object(arg, &i32::from(local)).map(|()| 0)
        }
        t::TIOCSSOFTCAR => {
            let local = mm.read_object::<u32>(arg)? != 0;
            terminal.update(|state| {
                let mut new = *state.line.termios();
                new.c_cflag = new.c_cflag & !t::CLOCAL | if local { t::CLOCAL } else { 0 };
                state.line.set_termios(new);
            });
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

/// Output that is not delivered. What a master can read is.
fn undelivered(terminal: &Terminal, end: End) -> usize {
    if end == End::Terminal && terminal.host().is_some() {
        terminal.state.lock().line.output_len()
    } else {
        0
    }
}

/// Waits until all output is delivered (tty_wait_until_sent()).
fn drain(terminal: &Arc<Terminal>, end: End, task: &CurrentTask) -> Result<()> {
    let done = || {
        let connected = terminal.state.lock().connected;
        (undelivered(terminal, end) == 0 || !connected).then_some(())
    };
    terminal.update(|state| state.line.tell_when_empty());
    task.wait_until(&[(&terminal.queue, abi::poll::PollEvents::WRITABLE)], None, done)
}

/// TCFLSH.
fn flush(terminal: &Terminal, end: End, what: u64, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let input = what == u64::from(t::TCIFLUSH) || what == u64::from(t::TCIOFLUSH);
    let output = what == u64::from(t::TCOFLUSH) || what == u64::from(t::TCIOFLUSH);
    check()?;
    if !input && !output {
        return Err(Errno::EINVAL);
    }
    terminal.update(|state| {
        if input {
            match end {
                End::Terminal => {
                    state.line.flush_pending();
                    state.line.flush_input();
                }
                End::Master => state.line.clear_output(),
            }
        }
        if output {
            match end {
                End::Terminal => state.line.flush_output(),
                End::Master => state.line.flush_pending(),
            }
        }
    });
    Ok(())
}

/// TCXONC.
fn control_flow(terminal: &Terminal, end: End, action: u64) -> Result<()> {
    let action = u32::try_from(action).map_err(|_| Errno::EINVAL)?;
    if action > t::TCION {
        return Err(Errno::EINVAL);
    }
    terminal.update(|state| match (end, action) {
        (End::Terminal, t::TCOOFF) => state.line.set_stopped(true),
        (End::Terminal, t::TCOON) => state.line.set_stopped(false),
        (End::Master, t::TCOOFF) => state.master_stopped = true,
        (End::Master, t::TCOON) => {
            state.master_stopped = false;
            state.line.news |= super::line::News::WIRE_ROOM;
        }
        (_, action) => {
            let index = if action == t::TCIOFF { t::VSTOP } else { t::VSTART };
            match end {
                End::Terminal => {
                    let c = state.line.termios().c_cc[index];
                    if c != t::__DISABLED_CHAR {
                        state.line.write_unprocessed(c);
                    }
                }
                // A master has the settings of a new terminal.
                End::Master => {
                    state.line.receive(&[t::INIT_C_CC[index]]);
                }
            }
        }
    });
    Ok(())
}
