// ptrace(2): what debuggers and strace do.
#include "compat.h"
#include <elf.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <sys/user.h>

#define ptrace_(req, pid, addr, data) syscall(SYS_ptrace, (long)(req), (long)(pid), (long)(addr), (long)(data))

// A child that asks to be traced and stops.
#define TRACEE(p)                                                                                                      \
    for (p = OK(fork()); p == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL), OK(ptrace_(PTRACE_TRACEME, 0, 0, 0)), raise(SIGSTOP), true); _exit(0))
#define STOPPED(p, status) CHECK_EQ(WAIT(p), status)
#define TRAP_(event) ((SIGTRAP | (event) << 8) << 8 | 0x7f)

static struct user_regs_struct regs_of(pid_t p) {
    struct user_regs_struct r;
    OK(ptrace_(PTRACE_GETREGS, p, 0, &r));
    return r;
}

TEST(trace_me_and_signals) {
    pid_t p;
    TRACEE(p) {
        raise(SIGUSR1); // called off by the tracer
        handle(SIGUSR2, SIG_IGN, 0);
        raise(SIGUSR2); // told although ignored
        raise(SIGTERM); // becomes SIGKILL's cousin
    }
    STOPPED(p, W_STOP(SIGSTOP));
    CHECK_EQ(state_of(p), 't');
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGUSR1));
    siginfo_t si;
    OK(ptrace_(PTRACE_GETSIGINFO, p, 0, &si));
    CHECK_EQ(si.si_signo, SIGUSR1);
    CHECK_EQ(si.si_pid, p);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGUSR2));
    OK(ptrace_(PTRACE_CONT, p, 0, SIGUSR2));
    STOPPED(p, W_STOP(SIGTERM));
    OK(ptrace_(PTRACE_CONT, p, 0, SIGABRT));
    CHECK_EQ(WAIT(p) & 0x7f, SIGABRT);
}

TEST(system_calls) {
    pid_t p;
    TRACEE(p) {
        long r = syscall(SYS_getppid, 1, 2, 3);
        _exit(r == 4711 ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    for (int i = 0;; i++) {
        CHECK(i < 100);
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        struct user_regs_struct r = regs_of(p);
        if (r.orig_rax != SYS_getppid) continue;
        CHECK_EQ(r.rax, -ENOSYS);
        CHECK_EQ(r.rdi, 1);
        CHECK_EQ(r.rdx, 3);
        struct ptrace_syscall_info info;
        CHECK(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info) >= 24);
        CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_ENTRY);
        CHECK_EQ(info.entry.nr, SYS_getppid);
        CHECK_EQ(info.entry.args[1], 2);
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        r = regs_of(p);
        CHECK_EQ(r.orig_rax, SYS_getppid);
        CHECK_EQ(r.rax, getpid());
        r.rax = 4711;
        OK(ptrace_(PTRACE_SETREGS, p, 0, &r));
        break;
    }
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

TEST(a_call_can_be_called_off_or_changed) {
    pid_t p;
    TRACEE(p) {
        if (syscall(SYS_getppid) != -EPERM && errno != EPERM) _exit(1);
        _exit(syscall(SYS_getppid) == getpid() ? 0 : 2);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    for (int seen = 0, i = 0; seen < 2; i++) {
        CHECK(i < 100);
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP));
        struct user_regs_struct r = regs_of(p);
        if (r.orig_rax != SYS_getppid) continue;
        r.orig_rax = seen ? SYS_getpid : -1;
        OK(ptrace_(PTRACE_SETREGS, p, 0, &r));
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP));
        if (!seen) {
            r = regs_of(p);
            r.rax = -EPERM;
            OK(ptrace_(PTRACE_SETREGS, p, 0, &r));
        }
        seen++;
    }
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

static volatile long variable = 5;
TEST(memory_and_registers) {
    pid_t p;
    TRACEE(p) _exit(variable == 77 ? 0 : 1);
    STOPPED(p, W_STOP(SIGSTOP));
    long word;
    OK(ptrace_(PTRACE_PEEKDATA, p, &variable, &word));
    CHECK_EQ(word, 5);
    OK(ptrace_(PTRACE_POKEDATA, p, &variable, 77));
    CHECK_ERRNO(ptrace_(PTRACE_PEEKDATA, p, 8, &word), EIO);
    CHECK_ERRNO(ptrace_(PTRACE_POKEDATA, p, 8, 1), EIO);
    struct user_regs_struct r = regs_of(p), s;
    struct iovec v = {&s, sizeof s};
    OK(ptrace_(PTRACE_GETREGSET, p, NT_PRSTATUS, &v));
    CHECK_EQ(v.iov_len, sizeof s);
    CHECK_EQ(s.rip, r.rip);
    CHECK_EQ(s.cs, 0x33);
    OK(ptrace_(PTRACE_PEEKUSR, p, offsetof(struct user, regs.rsp), &word));
    CHECK_EQ(word, r.rsp);
    CHECK_ERRNO(ptrace_(PTRACE_PEEKUSR, p, 3, &word), EIO);
    static char x[16384];
    v = (struct iovec){x, sizeof x};
    OK(ptrace_(PTRACE_GETREGSET, p, NT_X86_XSTATE, &v));
    CHECK(v.iov_len >= 576);
    struct user_fpregs_struct f;
    OK(ptrace_(PTRACE_GETFPREGS, p, 0, &f));
    CHECK_EQ(f.mxcsr, 0x1f80);
    CHECK_ERRNO(ptrace_(PTRACE_GETREGSET, p, 12345, &v), EINVAL);
    CHECK_ERRNO(ptrace_(9999, p, 0, 0), EIO);
    CHECK_ERRNO(ptrace_(PTRACE_CONT, p, 0, 999), EIO);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

TEST(breakpoint_and_single_step) {
    pid_t p;
    TRACEE(p) {
        __asm__ volatile("int3\nnop\nnop");
        _exit(3);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    struct user_regs_struct r = regs_of(p), s;
    OK(ptrace_(PTRACE_SINGLESTEP, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    s = regs_of(p);
    CHECK_EQ(s.rip, r.rip + 1);
    siginfo_t si;
    OK(ptrace_(PTRACE_GETSIGINFO, p, 0, &si));
    CHECK_EQ(si.si_code, 2); // TRAP_TRACE
    OK(ptrace_(PTRACE_SINGLESTEP, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    CHECK_EQ(regs_of(p).rip, r.rip + 2);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(WAIT(p), W_EXIT(3));
}

TEST(events_of_fork_and_exit) {
    pid_t p;
    TRACEE(p) {
        pid_t q = fork();
        if (!q) _exit(5);
        waitpid(q, 0, 0);
        _exit(6);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_FORK));
    unsigned long child;
    OK(ptrace_(PTRACE_GETEVENTMSG, p, 0, &child));
    int status;
    CHECK_EQ(waitpid(child, &status, __WALL), child);
    CHECK_EQ(status, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, child, 0, 0));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(waitpid(child, &status, __WALL), child);
    CHECK_EQ(status, TRAP_(PTRACE_EVENT_EXIT));
    unsigned long code;
    OK(ptrace_(PTRACE_GETEVENTMSG, child, 0, &code));
    CHECK_EQ(code, W_EXIT(5));
    OK(ptrace_(PTRACE_CONT, child, 0, 0));
    CHECK_EQ(waitpid(child, &status, __WALL), child);
    CHECK_EQ(status, W_EXIT(5));
    do OK(waitpid(p, &status, 0));
    while (status == W_STOP(SIGCHLD) && !ptrace_(PTRACE_CONT, p, 0, SIGCHLD));
    CHECK_EQ(status, TRAP_(PTRACE_EVENT_EXIT));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(WAIT(p), W_EXIT(6));
}

HELPER(traced_program) { return 9; }
TEST(exec_is_told) {
    for (int event = 0; event < 2; event++) {
        pid_t p;
        TRACEE(p) execl("/proc/self/exe", "x", "--helper=traced_program", (char *)0);
        STOPPED(p, W_STOP(SIGSTOP));
        if (event) OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEEXEC));
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        STOPPED(p, event ? TRAP_(PTRACE_EVENT_EXEC) : W_STOP(SIGTRAP));
        unsigned long message;
        OK(ptrace_(PTRACE_GETEVENTMSG, p, 0, &message));
        if (event) CHECK_EQ(message, p);
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        CHECK_EQ(WAIT(p), W_EXIT(9));
    }
}

static void *thread_body(void *unused) { return 0; }
TEST(events_of_threads) {
    pid_t p;
    TRACEE(p) finish(start(thread_body, 0));
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACECLONE));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_CLONE));
    unsigned long tid;
    OK(ptrace_(PTRACE_GETEVENTMSG, p, 0, &tid));
    int status;
    CHECK_EQ(waitpid(tid, &status, __WALL), tid);
    CHECK_EQ(status, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, tid, 0, 0));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(waitpid(tid, &status, __WALL), tid);
    CHECK_EQ(status, 0);
    JOIN(p);
}

TEST(attach_and_detach) {
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    OK(ptrace_(PTRACE_ATTACH, p, 0, 0));
    STOPPED(p, W_STOP(SIGSTOP));
    char text[4096], want[64];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", p);
    CHECK(read_file(path, text, sizeof text) > 0);
    snprintf(want, sizeof want, "TracerPid:\t%d\n", getpid());
    CHECK(strstr(text, want));
    CHECK_ERRNO(ptrace_(PTRACE_ATTACH, p, 0, 0), EPERM);
    OK(ptrace_(PTRACE_DETACH, p, 0, 0));
    wait_asleep(p);
    CHECK_ERRNO(ptrace_(PTRACE_CONT, p, 0, 0), ESRCH);
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
    CHECK_ERRNO(ptrace_(PTRACE_ATTACH, 999999, 0, 0), ESRCH);
    CHECK_ERRNO(ptrace_(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
}

TEST(seize_and_interrupt) {
    pid_t p;
    CHILD(p) for (;;) pause();
    OK(ptrace_(PTRACE_SEIZE, p, 0, PTRACE_O_TRACESYSGOOD));
    wait_asleep(p);
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    OK(ptrace_(PTRACE_INTERRUPT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    wait_asleep(p);
    // A stop of the process, and its end.
    OK(kill(p, SIGSTOP));
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, SIGSTOP));
    STOPPED(p, (SIGSTOP | PTRACE_EVENT_STOP << 8) << 8 | 0x7f);
    OK(ptrace_(PTRACE_LISTEN, p, 0, 0));
    OK(kill(p, SIGCONT));
    STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGCONT));
    OK(ptrace_(PTRACE_CONT, p, 0, SIGCONT));
    wait_asleep(p);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(interrupted_calls_go_on) {
    int g[2];
    OK(pipe(g));
    pid_t p;
    CHILD(p) {
        char c;
        _exit(read(g[0], &c, 1) == 1 && c == 'y' ? 0 : 1);
    }
    wait_asleep(p);
    OK(ptrace_(PTRACE_SEIZE, p, 0, 0));
    for (int i = 0; i < 3; i++) {
        OK(ptrace_(PTRACE_INTERRUPT, p, 0, 0));
        STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
        struct user_regs_struct r = regs_of(p);
        if (i == 2) OK(ptrace_(PTRACE_SETREGS, p, 0, &r)); // as they are
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        wait_asleep(p);
    }
    OK(write(g[1], "y", 1));
    JOIN(p);
}

TEST(tracees_outlive_their_tracer_or_not) {
    for (int kill_them = 0; kill_them < 2; kill_them++) {
        int g[2];
        OK(pipe(g));
        pid_t p, tracer;
        CHILD(p) {
            char c;
            _exit(read(g[0], &c, 1) == 1 ? 0 : 1);
        }
        wait_asleep(p);
        CHILD(tracer) OK(ptrace_(PTRACE_SEIZE, p, 0, kill_them ? PTRACE_O_EXITKILL : 0));
        JOIN(tracer);
        OK(write(g[1], "y", 1));
        if (kill_them) CHECK_EQ(WAIT(p), SIGKILL);
        else JOIN(p);
        close(g[0]), close(g[1]);
    }
}

static siginfo_t info_of(pid_t p) {
    siginfo_t si;
    OK(ptrace_(PTRACE_GETSIGINFO, p, 0, &si));
    return si;
}

static void set_regs(pid_t p, struct user_regs_struct r) { OK(ptrace_(PTRACE_SETREGS, p, 0, &r)); }

static unsigned long message_of(pid_t p) {
    unsigned long message = -1;
    OK(ptrace_(PTRACE_GETEVENTMSG, p, 0, &message));
    return message;
}

// Lets a tracee go on to the next stop at a system call that is `number`.
static struct user_regs_struct next_call(pid_t p, long number) {
    for (int i = 0; i < 200; i++) {
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        struct user_regs_struct r = regs_of(p);
        if ((long)r.orig_rax == number) return r;
    }
    FAIL("call %ld is not made", number);
}

// A call site and instructions of our own, known by address.
long own_call(long number);
extern unsigned char own_site[], own_end[];
__asm__(".pushsection .text\n"
        ".balign 64\n"
        "own_call:\n"
        "mov %rdi, %rax\n"
        "own_site:\n"
        "syscall\n"
        "cmp $-4095, %rax\n"
        "nop\n"
        "own_end:\n"
        "ret\n"
        ".popsection\n");

TEST(a_call_is_one_step) {
    pid_t p;
    TRACEE(p) {
        __asm__ volatile("int3");
        _exit(own_call(SYS_getppid) == getppid() ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    int calls = 0;
    for (int i = 0; !calls; i++) {
        CHECK(i < 2000);
        unsigned long before = regs_of(p).rip;
        OK(ptrace_(PTRACE_SINGLESTEP, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP));
        struct user_regs_struct r = regs_of(p);
        CHECK(!(r.eflags & 0x100));
        if (before == (unsigned long)own_site) {
            CHECK_EQ(r.rip, before + 2);
            CHECK_EQ(r.rax, getpid());
            CHECK_EQ(info_of(p).si_code, TRAP_BRKPT);
            CHECK_EQ((long)info_of(p).si_addr, before + 2);
            calls++;
        } else {
            CHECK_EQ(info_of(p).si_code, TRAP_TRACE);
        }
    }
    OK(ptrace_(PTRACE_SINGLESTEP, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    CHECK_EQ(regs_of(p).rip, (long)own_site + 8);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

static volatile sig_atomic_t handled;
static void note(int signal) { handled = signal; }
TEST(entering_a_handler_is_a_step) {
    pid_t p;
    TRACEE(p) {
        handle(SIGUSR1, note, 0);
        raise(SIGUSR1);
        _exit(handled == SIGUSR1 ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGUSR1));
    OK(ptrace_(PTRACE_SINGLESTEP, p, 0, SIGUSR1));
    STOPPED(p, W_STOP(SIGTRAP));
    CHECK_EQ(regs_of(p).rip, (long)note);
    CHECK_EQ(regs_of(p).rdi, SIGUSR1);
    CHECK_EQ(info_of(p).si_code, SIGTRAP);
    CHECK_EQ(info_of(p).si_pid, p);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

static volatile long go_on = 1;
static void loop_of_calls(void) {
    while (go_on)
        if (own_call(SYS_getppid) != getppid()) _exit(1);
    _exit(0);
}
TEST(a_hot_call_site_looks_as_it_was_written) {
    pid_t p;
    CHILD(p) loop_of_calls();
    for (int round = 0; round < 3; round++) {
        msleep(20); // for the site to become hot
        OK(ptrace_(PTRACE_SEIZE, p, 0, PTRACE_O_TRACESYSGOOD));
        OK(ptrace_(PTRACE_INTERRUPT, p, 0, 0));
        STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
        long word;
        OK(ptrace_(PTRACE_PEEKTEXT, p, own_site, &word));
        CHECK_MEM(&word, own_site, 8);
        // At the entry of the call and at its end.
        struct user_regs_struct r;
        do r = next_call(p, SYS_getppid);
        while (r.rip != (unsigned long)own_site + 2 || r.rax != (unsigned long)-ENOSYS);
        CHECK_EQ(r.rdi, SYS_getppid);
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        r = regs_of(p);
        CHECK_EQ(r.rip, (long)own_site + 2);
        CHECK_EQ(r.rcx, r.rip);
        CHECK_EQ(r.r11, r.eflags);
        CHECK_EQ(r.rax, getpid());
        CHECK_EQ(r.orig_rax, SYS_getppid);
        // Step by step: cmp, nop, ret.
        for (int i = 0; i < 2; i++) {
            OK(ptrace_(PTRACE_SINGLESTEP, p, 0, 0));
            STOPPED(p, W_STOP(SIGTRAP));
            CHECK_EQ(regs_of(p).rip, (long)own_site + (i ? 9 : 8));
        }
        // A breakpoint behind the call.
        OK(ptrace_(PTRACE_PEEKTEXT, p, own_site, &word));
        OK(ptrace_(PTRACE_POKETEXT, p, own_site, (word & ~0xff0000l) | 0xcc0000));
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP));
        r = regs_of(p);
        CHECK_EQ(r.rip, (long)own_site + 3);
        CHECK_EQ(r.rax, getpid());
        OK(ptrace_(PTRACE_POKETEXT, p, own_site, word));
        r.rip--;
        set_regs(p, r);
        for (int i = 0; i < 60; i++) {
            unsigned long before = regs_of(p).rip;
            OK(ptrace_(PTRACE_SINGLESTEP, p, 0, 0));
            STOPPED(p, W_STOP(SIGTRAP));
            unsigned long after = regs_of(p).rip;
            if (before == (unsigned long)own_site) CHECK_EQ(after, before + 2);
            if (before == (unsigned long)own_site + 2) CHECK_EQ(after, before + 6);
        }
        if (round == 2) OK(ptrace_(PTRACE_POKEDATA, p, &go_on, 0));
        OK(ptrace_(PTRACE_DETACH, p, 0, 0));
    }
    JOIN(p);
}

TEST(interrupted_calls_are_seen_to_be_made_anew) {
    int g[2];
    OK(pipe(g));
    pid_t p;
    TRACEE(p) {
        char c;
        struct timespec t = {0, 300000000};
        if (read(g[0], &c, 1) != 1) _exit(1);
        _exit(nanosleep(&t, 0) ? 2 : 0);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
    for (int sleeps = 0; sleeps < 2; sleeps++) {
        struct user_regs_struct first = next_call(p, sleeps ? SYS_clock_nanosleep : SYS_read), r;
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        if (!sleeps) wait_asleep(p);
        OK(kill(p, SIGWINCH)); // ignored by default
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        r = regs_of(p);
        CHECK_EQ(r.rax, sleeps ? -516 : -512); // ERESTART_RESTARTBLOCK, ERESTARTSYS
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGWINCH));
        CHECK_EQ(regs_of(p).orig_rax, first.orig_rax);
        OK(ptrace_(PTRACE_SYSCALL, p, 0, SIGWINCH));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        r = regs_of(p);
        CHECK_EQ(r.rax, -ENOSYS);
        CHECK_EQ(r.orig_rax, sleeps ? SYS_restart_syscall : SYS_read);
        CHECK_EQ(r.rip, first.rip);
        if (!sleeps) OK(write(g[1], "x", 1));
        OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        CHECK_EQ(regs_of(p).rax, sleeps ? 0 : 1);
    }
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

TEST(handlers_interrupt_calls_of_tracees) {
    for (int flags = 0; flags < 2; flags++) {
        int g[2];
        OK(pipe(g));
        pid_t p;
        TRACEE(p) {
            char c;
            handle(SIGUSR1, note, flags ? SA_RESTART : 0);
            ssize_t n = read(g[0], &c, 1);
            _exit(flags ? n != 1 : n != -1 || errno != EINTR);
        }
        STOPPED(p, W_STOP(SIGSTOP));
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        wait_asleep(p);
        OK(kill(p, SIGUSR1));
        STOPPED(p, W_STOP(SIGUSR1));
        OK(ptrace_(PTRACE_CONT, p, 0, SIGUSR1));
        OK(write(g[1], "x", 1));
        JOIN(p);
    }
}

TEST(what_is_killed_at_its_entry_is_not_done) {
    int g[2];
    OK(pipe2(g, O_NONBLOCK));
    pid_t p;
    TRACEE(p) OK(write(g[1], "x", 1));
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
    next_call(p, SYS_write);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
    char c;
    CHECK_ERRNO(read(g[0], &c, 1), EAGAIN);
    CHECK_ERRNO(ptrace_(PTRACE_CONT, p, 0, 0), ESRCH);
}

TEST(a_tracer_learns_of_the_end_before_the_parent) {
    int g[2], h[2];
    OK(pipe(g));
    OK(pipe(h));
    pid_t p, tracer;
    CHILD(p) for (;;) pause();
    CHILD(tracer) {
        OK(ptrace_(PTRACE_SEIZE, p, 0, 0));
        OK(kill(p, SIGKILL));
        siginfo_t si = {0};
        OK(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
        CHECK_EQ(si.si_code, CLD_KILLED);
        gate_open(g[1]);
        gate_wait(h[0]);
        CHECK_EQ(WAIT(p), SIGKILL);
        CHECK_ERRNO(waitpid(p, 0, 0), ECHILD);
    }
    gate_wait(g[0]);
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    gate_open(h[1]);
    CHECK_EQ(WAIT(p), SIGKILL);
    JOIN(tracer);
}

TEST(attached_again_at_once) {
    pid_t p;
    CHILD(p) for (;;) own_call(SYS_getppid);
    for (int i = 0; i < 60; i++) {
        OK(ptrace_(PTRACE_ATTACH, p, 0, 0));
        STOPPED(p, W_STOP(SIGSTOP));
        OK(ptrace_(PTRACE_DETACH, p, 0, 0));
    }
    OK(ptrace_(PTRACE_SEIZE, p, 0, 0));
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(filters_ask_tracers) {
    for (int mode = 0; mode < 4; mode++) {
        pid_t p;
        TRACEE(p) {
            struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 42),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog program = {4, code};
            OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
            long n = own_call(SYS_getppid);
            long want[] = {-ENOSYS, syscall(SYS_getpgid, 0), getpid(), 17};
            _exit(mode == 1 ? n <= 0 : n != want[mode]);
        }
        STOPPED(p, W_STOP(SIGSTOP));
        if (mode) OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESECCOMP));
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        if (mode) {
            STOPPED(p, TRAP_(PTRACE_EVENT_SECCOMP));
            CHECK_EQ(message_of(p), 42);
            struct ptrace_syscall_info info;
            CHECK(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info) >= 84);
            CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_SECCOMP);
            CHECK_EQ(info.seccomp.nr, SYS_getppid);
            CHECK_EQ(info.seccomp.ret_data, 42);
            struct user_regs_struct r = regs_of(p);
            CHECK_EQ(r.rax, -ENOSYS);
            if (mode == 2) r.orig_rax = SYS_getpid;
            if (mode == 3) r.orig_rax = -1, r.rax = 17;
            set_regs(p, r);
            OK(ptrace_(PTRACE_CONT, p, 0, 0));
        }
        JOIN(p);
    }
}

TEST(calls_are_emulated) {
    pid_t p;
    TRACEE(p) {
        __asm__ volatile("int3");
        long a = own_call(SYS_getppid), b = own_call(12345);
        __asm__ volatile("int3");
        _exit(a == 4711 && b == 4712 && own_call(SYS_getppid) == getppid() ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    for (int i = 0; i < 2; i++) {
        OK(ptrace_(PTRACE_SYSEMU, p, 0, 0));
        STOPPED(p, W_STOP(SIGTRAP | 0x80));
        struct user_regs_struct r = regs_of(p);
        CHECK_EQ(r.orig_rax, i ? 12345 : SYS_getppid);
        r.rax = 4711 + i;
        set_regs(p, r);
    }
    OK(ptrace_(PTRACE_SYSEMU, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

TEST(continuing_is_told_to_those_who_seize) {
    pid_t p;
    CHILD(p) for (;;) pause();
    OK(ptrace_(PTRACE_SEIZE, p, 0, 0));
    wait_asleep(p);
    OK(kill(p, SIGCONT));
    STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
    CHECK_EQ(info_of(p).si_code, SIGTRAP | PTRACE_EVENT_STOP << 8);
    CHECK_ERRNO(ptrace_(PTRACE_SEIZE, p, 0, 0), EPERM);
    // What comes while it has stopped is told later, or at once to who listens.
    OK(ptrace_(PTRACE_INTERRUPT, p, 0, 0));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
    OK(ptrace_(PTRACE_LISTEN, p, 0, 0));
    CHECK_ERRNO(ptrace_(PTRACE_CONT, p, 0, 0), ESRCH);
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    OK(ptrace_(PTRACE_INTERRUPT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_STOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGCONT));
    CHECK_ERRNO(ptrace_(PTRACE_LISTEN, p, 0, 0), EIO);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    // A stop of the process shows its signal also to PTRACE_INTERRUPT.
    OK(kill(p, SIGTSTP));
    STOPPED(p, W_STOP(SIGTSTP));
    OK(ptrace_(PTRACE_CONT, p, 0, SIGSTOP));
    STOPPED(p, (SIGSTOP | PTRACE_EVENT_STOP << 8) << 8 | 0x7f);
    CHECK_EQ(info_of(p).si_signo, SIGSTOP);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    OK(ptrace_(PTRACE_INTERRUPT, p, 0, 0));
    STOPPED(p, (SIGSTOP | PTRACE_EVENT_STOP << 8) << 8 | 0x7f);
    // Left alone, it stops again.
    OK(ptrace_(PTRACE_DETACH, p, 0, 0));
    while (state_of(p) != 'T') sched_yield();
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(attaching_to_what_has_stopped) {
    pid_t p;
    CHILD(p) {
        raise(SIGSTOP);
        for (;;) pause();
    }
    int status;
    CHECK_EQ(waitpid(p, &status, WUNTRACED), p);
    CHECK_EQ(status, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_ATTACH, p, 0, 0));
    STOPPED(p, W_STOP(SIGSTOP));
    CHECK_EQ(state_of(p), 't');
    // raise() has returned 0.
    CHECK_EQ(regs_of(p).rax, 0);
    OK(ptrace_(PTRACE_DETACH, p, 0, 0));
    while (state_of(p) != 'T') sched_yield();
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(stops_of_a_process_that_is_attached) {
    pid_t p;
    TRACEE(p) {
        raise(SIGSTOP);
        _exit(7);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    CHECK_EQ(info_of(p).si_signo, SIGSTOP);
    OK(ptrace_(PTRACE_CONT, p, 0, SIGSTOP));
    STOPPED(p, W_STOP(SIGSTOP));
    siginfo_t si;
    CHECK_ERRNO(ptrace_(PTRACE_GETSIGINFO, p, 0, &si), EINVAL);
    CHECK_ERRNO(ptrace_(PTRACE_LISTEN, p, 0, 0), EIO);
    CHECK_ERRNO(ptrace_(PTRACE_INTERRUPT, p, 0, 0), EIO);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(WAIT(p), W_EXIT(7));
}

TEST(events_of_vfork) {
    pid_t p;
    TRACEE(p) {
        pid_t q = vfork();
        if (!q) _exit(5);
        __asm__ volatile("int3");
        waitpid(q, 0, 0);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_VFORK));
    CHECK_EQ(info_of(p).si_code, SIGTRAP | PTRACE_EVENT_VFORK << 8);
    CHECK_EQ(regs_of(p).rax, -ENOSYS);
    pid_t q = message_of(p);
    STOPPED(q, W_STOP(SIGSTOP));
    CHECK_EQ(regs_of(q).rax, 0);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    msleep(10);
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    OK(ptrace_(PTRACE_CONT, q, 0, 0));
    CHECK_EQ(WAIT(q), W_EXIT(5));
    STOPPED(p, TRAP_(PTRACE_EVENT_VFORK_DONE));
    CHECK_EQ(message_of(p), q);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    int status;
    CHECK_EQ(waitpid(p, &status, 0), p);
    if (status == W_STOP(SIGCHLD)) {
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        status = WAIT(p);
    }
    CHECK_EQ(status, W_STOP(SIGTRAP));
    CHECK_EQ(regs_of(p).orig_rax, -1);
    OK(ptrace_(PTRACE_KILL, p, 0, 0));
    CHECK_EQ(WAIT(p), SIGKILL);
}

static void *exec_body(void *unused) {
    execl("/proc/self/exe", "x", "--helper=traced_program", (char *)0);
    _exit(1);
}
TEST(exec_by_another_thread) {
    pid_t p;
    TRACEE(p) {
        start(exec_body, 0);
        for (;;) pause();
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_CLONE));
    pid_t tid = message_of(p);
    int status;
    CHECK_EQ(waitpid(tid, &status, __WALL), tid);
    CHECK_EQ(status, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    OK(ptrace_(PTRACE_CONT, tid, 0, 0));
    STOPPED(p, TRAP_(PTRACE_EVENT_EXEC));
    CHECK_EQ(message_of(p), tid);
    struct user_regs_struct r = regs_of(p);
    CHECK_EQ(r.orig_rax, SYS_execve);
    CHECK_EQ(r.rax, -ENOSYS);
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
    OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP | 0x80));
    r = regs_of(p);
    CHECK_EQ(r.orig_rax, SYS_execve);
    CHECK_EQ(r.rax, 0);
    CHECK_ERRNO(waitpid(tid, &status, __WALL), ECHILD);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(WAIT(p), W_EXIT(9));
}

TEST(an_exec_told_by_a_signal) {
    pid_t p;
    TRACEE(p) execl("/proc/self/exe", "x", "--helper=traced_program", (char *)0);
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    siginfo_t si = info_of(p);
    CHECK_EQ(si.si_code, SI_USER);
    CHECK_EQ(si.si_pid, p);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(WAIT(p), W_EXIT(9));
}

TEST(floating_registers_can_be_set) {
    pid_t p;
    TRACEE(p) {
        double a = 1.5, b = 2.5;
        __asm__ volatile("movsd %0, %%xmm7\nmovsd %1, %%xmm9\nint3\nmovsd %%xmm7, %0\nmovsd %%xmm9, %1"
                         : "+m"(a), "+m"(b)::"xmm7", "xmm9", "memory");
        _exit(a == 41.0 && b == 42.0 ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    struct user_fpregs_struct f;
    OK(ptrace_(PTRACE_GETFPREGS, p, 0, &f));
    double *xmm = (double *)f.xmm_space;
    CHECK(xmm[14] == 1.5 && xmm[18] == 2.5);
    xmm[14] = 41.0;
    OK(ptrace_(PTRACE_SETFPREGS, p, 0, &f));
    static char x[16384];
    struct iovec v = {x, sizeof x};
    OK(ptrace_(PTRACE_GETREGSET, p, NT_X86_XSTATE, &v));
    CHECK(((double *)(x + 160))[14] == 41.0);
    ((double *)(x + 160))[18] = 42.0;
    OK(ptrace_(PTRACE_SETREGSET, p, NT_X86_XSTATE, &v));
    // Control bits that do not exist, a header that says what cannot be.
    uint32_t *mxcsr = (uint32_t *)(x + 24), old = *mxcsr;
    *mxcsr = ~0u;
    CHECK_ERRNO(ptrace_(PTRACE_SETREGSET, p, NT_X86_XSTATE, &v), EINVAL);
    *mxcsr = old;
    x[512 + 16] = 1;
    CHECK_ERRNO(ptrace_(PTRACE_SETREGSET, p, NT_X86_XSTATE, &v), EINVAL);
    x[512 + 16] = 0;
    v.iov_len = 576;
    CHECK_ERRNO(ptrace_(PTRACE_SETREGSET, p, NT_X86_XSTATE, &v), EFAULT);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

TEST(the_end_can_be_seen_also_of_what_is_killed) {
    pid_t p;
    TRACEE(p) for (;;) pause();
    STOPPED(p, W_STOP(SIGSTOP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACEEXIT));
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    wait_asleep(p);
    OK(kill(p, SIGKILL));
    STOPPED(p, TRAP_(PTRACE_EVENT_EXIT));
    CHECK_EQ(message_of(p), SIGKILL);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(calls_are_described_and_replaced) {
    pid_t p;
    TRACEE(p) {
        syscall(SYS_getuid);
        __asm__ volatile("int3");
        _exit(own_call(SYS_getppid) == getpid() && own_call(SYS_getppid) == 77 ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    struct ptrace_syscall_info info = {0};
    CHECK_EQ(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info), 24);
    CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_NONE);
    // Without PTRACE_O_TRACESYSGOOD it is not known.
    OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    CHECK_EQ(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info), 24);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP));
    OK(ptrace_(PTRACE_SETOPTIONS, p, 0, PTRACE_O_TRACESYSGOOD));
    struct user_regs_struct r = next_call(p, SYS_getppid);
    CHECK_EQ(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info), 80);
    CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_ENTRY);
    CHECK_EQ(info.instruction_pointer, r.rip);
    CHECK_EQ(info.stack_pointer, r.rsp);
    CHECK_EQ(message_of(p), PTRACE_EVENTMSG_SYSCALL_ENTRY);
    info.entry.nr = SYS_getpid;
    bool settable = ptrace_(0x4212, p, sizeof info, &info) == 0; // PTRACE_SET_SYSCALL_INFO, since 6.16
    if (!settable) r.orig_rax = SYS_getpid, set_regs(p, r);
    OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP | 0x80));
    CHECK_EQ(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info), 33);
    CHECK_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
    CHECK_EQ(info.exit.rval, p);
    CHECK_EQ(info.exit.is_error, 0);
    next_call(p, SYS_getppid);
    OK(ptrace_(PTRACE_SYSCALL, p, 0, 0));
    STOPPED(p, W_STOP(SIGTRAP | 0x80));
    CHECK_EQ(ptrace_(PTRACE_GET_SYSCALL_INFO, p, sizeof info, &info), 33);
    info.exit.rval = 77;
    if (settable) {
        OK(ptrace_(0x4212, p, sizeof info, &info));
        info.op = PTRACE_SYSCALL_INFO_ENTRY;
        CHECK_ERRNO(ptrace_(0x4212, p, sizeof info, &info), EINVAL);
        CHECK_ERRNO(ptrace_(0x4212, p, 8, &info), EINVAL);
    } else r = regs_of(p), r.rax = 77, set_regs(p, r);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    JOIN(p);
}

HELPER(my_effective_user) { return geteuid() == 0; }
TEST(set_id_programs_gain_nothing_under_a_weak_tracer) {
    NEED_ROOT();
    OK(chmod(".", 0755));
    int from = OK(open("/proc/self/exe", O_RDONLY)), to = OK(open("program", O_WRONLY | O_CREAT, 0755));
    static char buf[65536];
    for (ssize_t n; (n = OK(read(from, buf, sizeof buf))) > 0;) OK(write(to, buf, n));
    OK(fchmod(to, 04755));
    close(to);
    for (int weak = 0; weak < 2; weak++) {
        pid_t q;
        CHILD(q) {
            if (weak) OK(setresuid(1000, 1000, 1000));
            pid_t p;
            TRACEE(p) {
                if (!weak) OK(setresuid(1000, 1000, 1000));
                execl("./program", "x", "--helper=my_effective_user", (char *)0);
                _exit(7);
            }
            STOPPED(p, W_STOP(SIGSTOP));
            if (!weak) {
                // Asked for by the tracee, it is no stronger than that.
                OK(ptrace_(PTRACE_DETACH, p, 0, SIGSTOP));
                while (state_of(p) != 'T') sched_yield();
                OK(ptrace_(PTRACE_SEIZE, p, 0, 0));
                OK(kill(p, SIGCONT));
                int status;
                while (OK(waitpid(p, &status, 0)) == p && WIFSTOPPED(status)) OK(ptrace_(PTRACE_CONT, p, 0, 0));
                CHECK_EQ(status, W_EXIT(1));
            } else {
                OK(ptrace_(PTRACE_CONT, p, 0, 0));
                STOPPED(p, W_STOP(SIGTRAP));
                OK(ptrace_(PTRACE_CONT, p, 0, 0));
                CHECK_EQ(WAIT(p), W_EXIT(0));
            }
        }
        JOIN(q);
    }
}

TEST(strange_registers) {
    for (int i = 0; i < 3; i++) {
        pid_t p;
        TRACEE(p) {}
        STOPPED(p, W_STOP(SIGSTOP));
        struct user_regs_struct r = regs_of(p);
        r.orig_rax = -1;
        if (i == 0) r.rip = 0xdead000000000000;
        if (i == 1) r.rip = 0xffffffff81000000;
        if (i == 2) r.rsp = 0xdead000000000000, r.rip = (long)own_end;
        set_regs(p, r);
        struct user_regs_struct bad = r;
        bad.fs_base = 1ul << 63;
        CHECK_ERRNO(ptrace_(PTRACE_SETREGS, p, 0, &bad), EIO);
        bad = r, bad.cs = 0x10;
        CHECK_ERRNO(ptrace_(PTRACE_SETREGS, p, 0, &bad), EIO);
        OK(ptrace_(PTRACE_CONT, p, 0, 0));
        int status = WAIT(p);
        CHECK_EQ(status, W_STOP(i == 2 ? SIGBUS : SIGSEGV));
        OK(ptrace_(PTRACE_CONT, p, 0, SIGSEGV));
        CHECK_EQ(WAIT(p) & 0x7f, SIGSEGV);
    }
}

TEST(masks_and_errors) {
    CHECK_ERRNO(ptrace_(PTRACE_CONT, getppid(), 0, 0), ESRCH);
    pid_t p;
    TRACEE(p) {
        CHECK_ERRNO(ptrace_(PTRACE_TRACEME, 0, 0, 0), EPERM);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGHUP);
        OK(sigprocmask(SIG_SETMASK, &set, 0));
        sigemptyset(&set);
        handle(SIGUSR1, note, 0);
        sigsuspend(&set);
        OK(sigprocmask(SIG_SETMASK, 0, &set));
        _exit(sigismember(&set, SIGUSR2) && !sigismember(&set, SIGHUP) && handled ? 0 : 1);
    }
    STOPPED(p, W_STOP(SIGSTOP));
    CHECK_ERRNO(ptrace_(PTRACE_SETOPTIONS, p, 0, 1 << 30), EINVAL);
    CHECK_ERRNO(ptrace_(PTRACE_SEIZE, p, 0, 1 << 30), EIO);
    CHECK_ERRNO(ptrace_(PTRACE_SEIZE, p, 1, 0), EIO);
    CHECK_ERRNO(ptrace_(PTRACE_SEIZE, p, 0, 0), EPERM);
    CHECK_ERRNO(ptrace_(PTRACE_SEIZE, 1 << 30, 1, 0), ESRCH);
    OK(ptrace_(PTRACE_CONT, p, 0, 0));
    wait_asleep(p);
    CHECK_ERRNO(ptrace_(PTRACE_CONT, p, 0, 999), ESRCH);
    OK(kill(p, SIGUSR1));
    STOPPED(p, W_STOP(SIGUSR1));
    unsigned long mask = 0;
    CHECK_ERRNO(ptrace_(PTRACE_GETSIGMASK, p, 4, &mask), EINVAL);
    OK(ptrace_(PTRACE_GETSIGMASK, p, 8, &mask));
    CHECK_EQ(mask, 1ul << (SIGHUP - 1)); // not sigsuspend's
    mask = 1ul << (SIGUSR2 - 1) | 1ul << (SIGKILL - 1);
    OK(ptrace_(PTRACE_SETSIGMASK, p, 8, &mask));
    // Blocked now, it waits until sigsuspend is made anew.
    OK(ptrace_(PTRACE_CONT, p, 0, SIGUSR2));
    STOPPED(p, W_STOP(SIGUSR2));
    OK(ptrace_(PTRACE_CONT, p, 0, SIGUSR1));
    JOIN(p);
}

TEST(waitid_and_sigchld) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    pid_t p;
    TRACEE(p) raise(SIGUSR1);
    for (int i = 0; i < 3; i++) {
        siginfo_t si = {0}, queued = {0};
        CHECK_EQ(sigwaitinfo(&set, &queued), SIGCHLD);
        CHECK_EQ(queued.si_pid, p);
        CHECK_EQ(queued.si_code, i < 2 ? CLD_TRAPPED : CLD_EXITED);
        CHECK_EQ(queued.si_status, i == 0 ? SIGSTOP : i == 1 ? SIGUSR1 : 0);
        OK(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
        OK(waitid(P_PID, p, &si, WEXITED));
        CHECK_EQ(si.si_code, i < 2 ? CLD_TRAPPED : CLD_EXITED);
        CHECK_EQ(si.si_status, i == 0 ? SIGSTOP : i == 1 ? SIGUSR1 : 0);
        if (i < 2) OK(ptrace_(PTRACE_CONT, p, 0, 0));
    }
}
