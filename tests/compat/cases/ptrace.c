// ptrace(2): what debuggers and strace do.
#include "compat.h"
#include <elf.h>
#include <linux/ptrace.h>
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
