//! `siginfo_t` (`siginfo.h`).

use crate::signal::{SEGV_PKUERR, SI_KERNEL, SI_TIMER, Signal};

layout! {
    /// `siginfo_t`. What `fields` holds depends on the signal and on `si_code`: use the constructors and getters.
    struct SigInfo[128] { si_signo: i32, si_errno: i32, si_code: i32, _pad: u32, fields: [u64; 14] }
}

/// Getters of the halves and wholes of `fields`; the offset in the structure is 16 more than in Linux's union.
impl SigInfo {
    fn half(&self, index: usize) -> u32 {
        let word = self.fields[index / 2];
        if index.is_multiple_of(2) { word as u32 } else { (word >> 32) as u32 }
    }

    fn with(signal: Signal, code: i32, fields: &[u64]) -> SigInfo {
        let mut info = SigInfo { si_signo: signal.number() as i32, si_code: code, ..SigInfo::default() };
        for (to, from) in info.fields.iter_mut().zip(fields) {
            *to = *from;
        }
        info
    }

    fn pair(low: u32, high: u32) -> u64 {
        u64::from(low) | u64::from(high) << 32
    }

    /// A signal that a process sent: `code` is SI_USER for kill(2), SI_TKILL for tgkill(2).
    pub fn kill(signal: Signal, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo::with(signal, code, &[SigInfo::pair(pid as u32, uid)])
    }

    /// A signal that the kernel sent, with no more to say (`SI_KERNEL`).
    pub fn kernel(signal: Signal) -> SigInfo {
        SigInfo::with(signal, SI_KERNEL, &[])
    }

    /// A signal with a value: SI_QUEUE of rt_sigqueueinfo(2), SI_MESGQ of mq_notify(3).
    pub fn queue(signal: Signal, code: i32, pid: i32, uid: u32, value: u64) -> SigInfo {
        SigInfo::with(signal, code, &[SigInfo::pair(pid as u32, uid), value])
    }

    /// A POSIX timer's expiry (`SI_TIMER`).
    pub fn timer(signal: Signal, timer_id: i32, overrun: i32, value: u64) -> SigInfo {
        SigInfo::with(signal, SI_TIMER, &[SigInfo::pair(timer_id as u32, overrun as u32), value])
    }

    /// A child's change of state (`CLD_*`). `signal` is its exit signal; `status` the exit code or signal number;
    /// times are in clock ticks.
    pub fn child(
        signal: Signal,
        code: i32,
        pid: i32,
        uid: u32,
        status: i32,
        utime: i64,
        stime: i64,
    ) -> SigInfo {
        let fields = [SigInfo::pair(pid as u32, uid), u64::from(status as u32), utime as u64, stime as u64];
        SigInfo::with(signal, code, &fields)
    }

    /// A fault at `addr` (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP).
    pub fn fault(signal: Signal, code: i32, addr: u64) -> SigInfo {
        SigInfo::with(signal, code, &[addr])
    }

    /// A violation of a protection key (`SEGV_PKUERR`).
    pub fn pkey_fault(addr: u64, pkey: u32) -> SigInfo {
        SigInfo::with(Signal::SIGSEGV, SEGV_PKUERR, &[addr, 0, u64::from(pkey)])
    }

    /// Readiness of a file with FASYNC and F_SETSIG (`POLL_*`).
    pub fn poll(signal: Signal, code: i32, band: i64, fd: i32) -> SigInfo {
        SigInfo::with(signal, code, &[band as u64, u64::from(fd as u32)])
    }

    /// A system call that a filter or a dispatcher caught (`SYS_*`); `errno` is the filter's data.
    pub fn sigsys(code: i32, call_addr: u64, syscall: i32, arch: u32, errno: i32) -> SigInfo {
        let fields = [call_addr, SigInfo::pair(syscall as u32, arch)];
        SigInfo { si_errno: errno, ..SigInfo::with(Signal::SIGSYS, code, &fields) }
    }

    /// The signal; `None` if the number is none, as in what a guest wrote.
    pub fn signal(&self) -> Option<Signal> {
        Signal::from_i32(self.si_signo)
    }

    /// True if a process, not the kernel, says to have sent it (`SI_FROMUSER`).
    pub fn is_from_user(&self) -> bool {
        self.si_code <= 0
    }

    /// `si_pid`
    pub fn pid(&self) -> i32 {
        self.half(0) as i32
    }

    /// Changes `si_pid`, which differs by pid namespace.
    pub fn set_pid(&mut self, pid: i32) {
        self.fields[0] = SigInfo::pair(pid as u32, self.uid());
    }

    /// `si_uid`
    pub fn uid(&self) -> u32 {
        self.half(1)
    }

    /// Changes `si_uid`, which differs by user namespace.
    pub fn set_uid(&mut self, uid: u32) {
        self.fields[0] = SigInfo::pair(self.half(0), uid);
    }

    /// `si_timerid`
    pub fn timer_id(&self) -> i32 {
        self.half(0) as i32
    }

    /// `si_overrun`
    pub fn overrun(&self) -> i32 {
        self.half(1) as i32
    }

    /// Changes `si_overrun`, which is known at delivery only.
    pub fn set_overrun(&mut self, overrun: i32) {
        self.fields[0] = SigInfo::pair(self.half(0), overrun as u32);
    }

    /// `si_value`
    pub fn value(&self) -> u64 {
        self.fields[1]
    }

    /// `si_status`
    pub fn status(&self) -> i32 {
        self.half(2) as i32
    }

    /// `si_utime`, in clock ticks.
    pub fn utime(&self) -> i64 {
        self.fields[2] as i64
    }

    /// `si_stime`, in clock ticks.
    pub fn stime(&self) -> i64 {
        self.fields[3] as i64
    }

    /// `si_addr`
    pub fn addr(&self) -> u64 {
        self.fields[0]
    }

    /// `si_addr_lsb`
    pub fn addr_lsb(&self) -> u16 {
        self.half(2) as u16
    }

    /// `si_band`
    pub fn band(&self) -> i64 {
        self.fields[0] as i64
    }

    /// `si_fd`
    pub fn fd(&self) -> i32 {
        self.half(2) as i32
    }

    /// `si_call_addr`
    pub fn call_addr(&self) -> u64 {
        self.fields[0]
    }

    /// `si_syscall`
    pub fn syscall(&self) -> i32 {
        self.half(2) as i32
    }

    /// `si_arch`
    pub fn arch(&self) -> u32 {
        self.half(3)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::signal::{CLD_EXITED, SEGV_MAPERR, SI_QUEUE, SI_TKILL, SI_USER, SYS_SECCOMP};

    fn u32_at(info: &SigInfo, offset: usize) -> u32 {
        u32::from_ne_bytes(info.as_bytes()[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(info: &SigInfo, offset: usize) -> u64 {
        u64::from_ne_bytes(info.as_bytes()[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn fields_are_where_linux_has_them() {
        let mut info = SigInfo::kill(Signal::SIGTERM, SI_TKILL, 7, 1000);
        assert_eq!((u32_at(&info, 0), u32_at(&info, 8) as i32), (15, SI_TKILL));
        assert_eq!((u32_at(&info, 16), u32_at(&info, 20)), (7, 1000));
        assert_eq!((info.pid(), info.uid(), info.is_from_user()), (7, 1000, true));
        info.set_pid(8);
        info.set_uid(1001);
        assert_eq!((info.pid(), info.uid(), u64_at(&info, 24)), (8, 1001, 0));

        let info = SigInfo::queue(Signal::SIGUSR1, SI_QUEUE, 7, 1, 0x1234_5678_9abc);
        assert_eq!((u64_at(&info, 24), info.value()), (0x1234_5678_9abc, 0x1234_5678_9abc));

        let mut info = SigInfo::timer(Signal::SIGALRM, 3, 0, 5);
        info.set_overrun(4);
        assert_eq!((u32_at(&info, 16), u32_at(&info, 20), u64_at(&info, 24)), (3, 4, 5));
        assert_eq!((info.timer_id(), info.overrun(), info.value()), (3, 4, 5));

        let info = SigInfo::child(Signal::SIGCHLD, CLD_EXITED, 7, 1, -2, 10, 20);
        assert_eq!((u32_at(&info, 24) as i32, u64_at(&info, 32), u64_at(&info, 40)), (-2, 10, 20));
        assert_eq!((info.status(), info.utime(), info.stime()), (-2, 10, 20));

        let info = SigInfo::fault(Signal::SIGSEGV, SEGV_MAPERR, !0);
        assert_eq!((u64_at(&info, 16), info.addr(), info.is_from_user()), (!0, !0, false));
        assert_eq!(u32_at(&SigInfo::pkey_fault(1, 15), 32), 15);

        let info = SigInfo::poll(Signal::SIGIO, 1, -1, 9);
        assert_eq!((u64_at(&info, 16), u32_at(&info, 24)), (!0, 9));
        assert_eq!((info.band(), info.fd()), (-1, 9));

        let info = SigInfo::sigsys(SYS_SECCOMP, 0x400000, 39, 0xc000_003e, 5);
        assert_eq!((u32_at(&info, 4), u64_at(&info, 16)), (5, 0x400000));
        assert_eq!((u32_at(&info, 24), u32_at(&info, 28)), (39, 0xc000_003e));
        assert_eq!((info.call_addr(), info.syscall(), info.arch()), (0x400000, 39, 0xc000_003e));
    }

    #[test]
    fn a_guests_signal_number_may_be_none() {
        for (number, signal) in [(0, None), (65, None), (-1, None), (64, Signal::new(64))] {
            let info = SigInfo { si_signo: number, si_code: SI_USER, ..SigInfo::default() };
            assert_eq!(info.signal(), signal);
        }
    }
}
