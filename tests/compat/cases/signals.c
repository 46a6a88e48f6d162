// Signals: actions, masks, queueing, waiting, alternate stacks, contexts, stop and continue.
#include "compat.h"
#include <sys/signalfd.h>
#include <ucontext.h>

static volatile sig_atomic_t hits, last_sig;
static siginfo_t last_info;
static void count(int sig) {
    hits++;
    last_sig = sig;
}
static void record(int sig, siginfo_t *si, void *uc) {
    (void)uc;
    hits++;
    last_sig = sig;
    last_info = *si;
}

TEST(handler_runs) {
    handle(SIGUSR1, count, 0);
    OK(raise(SIGUSR1));
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_sig, SIGUSR1);
}

TEST(sigaction_round_trip) {
    struct sigaction a = {.sa_sigaction = record, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_ONSTACK}, b;
    sigaddset(&a.sa_mask, SIGHUP);
    sigaddset(&a.sa_mask, SIGRTMAX);
    OK(sigaction(SIGUSR1, &a, 0));
    OK(sigaction(SIGUSR1, 0, &b));
    CHECK(b.sa_sigaction == record);
    CHECK_EQ(b.sa_flags & ~0x04000000, a.sa_flags);
    CHECK(sigismember(&b.sa_mask, SIGHUP) && sigismember(&b.sa_mask, SIGRTMAX) && !sigismember(&b.sa_mask, SIGINT));
}

TEST(sigaction_errnos) {
    struct sigaction a = {.sa_handler = SIG_IGN}, b;
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGKILL, &a, 0, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGSTOP, &a, 0, 8), EINVAL);
    OK(syscall(SYS_rt_sigaction, SIGKILL, 0, &b, 8));
    CHECK_ERRNO(syscall(SYS_rt_sigaction, 0, &a, 0, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, 65, &a, 0, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, &a, 0, 16), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_rt_sigaction, SIGUSR1, 0, 8, 8), EFAULT);
}

TEST(mask_cannot_hold_kill_and_stop) {
    sigset_t all, got;
    sigfillset(&all);
    OK(sigprocmask(SIG_SETMASK, &all, 0));
    OK(sigprocmask(SIG_SETMASK, 0, &got));
    CHECK(!sigismember(&got, SIGKILL) && !sigismember(&got, SIGSTOP));
    CHECK(sigismember(&got, SIGTERM) && sigismember(&got, SIGSEGV));
    CHECK_ERRNO(syscall(SYS_rt_sigprocmask, 7, &all, 0, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, 0, 4), EINVAL);
    CHECK_ERRNO(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, 0, 8), EFAULT);
    OK(syscall(SYS_rt_sigprocmask, 7, 0, &got, 8)); // how is not looked at
}

TEST(siginfo_of_kill) {
    handle(SIGUSR1, record, SA_SIGINFO);
    OK(kill(getpid(), SIGUSR1));
    CHECK_EQ(last_info.si_signo, SIGUSR1);
    CHECK_EQ(last_info.si_code, SI_USER);
    CHECK_EQ(last_info.si_errno, 0);
    CHECK_EQ(last_info.si_pid, getpid());
    CHECK_EQ(last_info.si_uid, getuid());
}

TEST(siginfo_of_tgkill) {
    handle(SIGUSR1, record, SA_SIGINFO);
    OK(tgkill(getpid(), gettid(), SIGUSR1));
    CHECK_EQ(last_info.si_code, SI_TKILL);
    CHECK_EQ(last_info.si_pid, getpid());
}

TEST(siginfo_of_sigqueue) {
    handle(SIGUSR1, record, SA_SIGINFO);
    OK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_ptr = (void *)0x123456789abc}));
    CHECK_EQ(last_info.si_code, SI_QUEUE);
    CHECK_EQ(last_info.si_pid, getpid());
    CHECK((uintptr_t)last_info.si_value.sival_ptr == 0x123456789abc);
}

TEST(rt_sigqueueinfo_cannot_forge) {
    siginfo_t si = {.si_signo = SIGUSR1, .si_code = SI_USER};
    pid_t p;
    CHILD(p) for (;;) pause();
    CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, p, SIGUSR1, &si), EPERM);
    si.si_code = SI_TKILL;
    CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, p, SIGUSR1, &si), EPERM);
    si.si_code = 5;
    CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, p, SIGUSR1, &si), EPERM);
    si.si_code = -77;
    OK(syscall(SYS_rt_sigqueueinfo, p, SIGUSR1, &si));
    CHECK_EQ(WAIT(p), SIGUSR1);
    // To oneself everything goes.
    handle(SIGUSR1, record, SA_SIGINFO);
    si.si_code = SI_USER;
    si.si_pid = 4711;
    OK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &si));
    CHECK_EQ(last_info.si_pid, 4711);
    CHECK_ERRNO(syscall(SYS_rt_sigqueueinfo, getpid(), 65, &si), EINVAL);
}

TEST(standard_signals_do_not_queue) {
    sigset_t set = sigs(SIGUSR1, 0, 0);
    handle(SIGUSR1, record, SA_SIGINFO);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    for (int i = 1; i <= 3; i++) OK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = i}));
    OK(sigprocmask(SIG_UNBLOCK, &set, 0));
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_info.si_value.sival_int, 1);
}

static int order[64], norder;
static void append(int sig, siginfo_t *si, void *uc) {
    (void)uc;
    if (norder < 64) order[norder++] = sig * 100 + si->si_value.sival_int;
}

TEST(realtime_signals_queue_in_order) {
    int r = SIGRTMIN;
    sigset_t set = sigs(r, r + 1, 0);
    struct sigaction a = {.sa_sigaction = append, .sa_flags = SA_SIGINFO, .sa_mask = set};
    OK(sigaction(r, &a, 0));
    OK(sigaction(r + 1, &a, 0));
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    for (int i = 0; i < 3; i++) {
        OK(sigqueue(getpid(), r + 1, (union sigval){.sival_int = i}));
        OK(sigqueue(getpid(), r, (union sigval){.sival_int = i}));
    }
    // Frames are pushed lowest number first, so that the highest handler runs first; with the mask, each runs to its end
    // and the next lowest is delivered: lowest first.
    OK(sigprocmask(SIG_UNBLOCK, &set, 0));
    CHECK_EQ(norder, 6);
    for (int i = 0; i < 3; i++) CHECK_EQ(order[i], r * 100 + i);
    for (int i = 0; i < 3; i++) CHECK_EQ(order[3 + i], (r + 1) * 100 + i);
}

TEST(standard_before_realtime) {
    int r = SIGRTMIN;
    sigset_t set = sigs(r, SIGUSR1, SIGUSR2);
    struct sigaction a = {.sa_sigaction = append, .sa_flags = SA_SIGINFO, .sa_mask = set};
    OK(sigaction(r, &a, 0));
    OK(sigaction(SIGUSR1, &a, 0));
    OK(sigaction(SIGUSR2, &a, 0));
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    OK(sigqueue(getpid(), r, (union sigval){.sival_int = 1}));
    OK(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 2}));
    OK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 3}));
    OK(sigprocmask(SIG_UNBLOCK, &set, 0));
    CHECK_EQ(norder, 3);
    CHECK_EQ(order[0], SIGUSR1 * 100 + 3);
    CHECK_EQ(order[1], SIGUSR2 * 100 + 2);
    CHECK_EQ(order[2], r * 100 + 1);
}

TEST(thread_signals_before_process_signals) {
    sigset_t set = sigs(SIGUSR1, SIGUSR2, 0);
    struct sigaction a = {.sa_sigaction = append, .sa_flags = SA_SIGINFO, .sa_mask = set};
    OK(sigaction(SIGUSR1, &a, 0));
    OK(sigaction(SIGUSR2, &a, 0));
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    OK(kill(getpid(), SIGUSR1));
    OK(tgkill(getpid(), gettid(), SIGUSR2));
    OK(sigprocmask(SIG_UNBLOCK, &set, 0));
    CHECK_EQ(norder, 2);
    CHECK_EQ(order[0] / 100, SIGUSR2);
    CHECK_EQ(order[1] / 100, SIGUSR1);
}

TEST(queue_limit_is_rlimit_sigpending) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(54321)); // nobody else's signals count
        struct rlimit r = {10, 10};
        OK(setrlimit(RLIMIT_SIGPENDING, &r));
        sigset_t set = sigs(SIGRTMIN, 0, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        int n = 0;
        while (n < 50 && !sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = n})) n++;
        CHECK_EQ(n, 10);
        CHECK_EQ(errno, EAGAIN);
        // kill of a signal that is pending still works, without an entry.
        OK(kill(getpid(), SIGRTMIN));
        OK(kill(getpid(), SIGTERM + 0 * n));
        _exit(1);
    }
    CHECK_EQ(WAIT(p), SIGTERM);
}

TEST(handler_blocks_itself_unless_nodefer) {
    void f(int sig) {
        sigset_t m;
        sigprocmask(SIG_BLOCK, 0, &m);
        hits = sigismember(&m, sig) + 10 * sigismember(&m, SIGHUP);
    }
    struct sigaction a = {.sa_handler = f};
    sigaddset(&a.sa_mask, SIGHUP);
    OK(sigaction(SIGUSR1, &a, 0));
    raise(SIGUSR1);
    CHECK_EQ(hits, 11);
    a.sa_flags = SA_NODEFER;
    OK(sigaction(SIGUSR1, &a, 0));
    raise(SIGUSR1);
    CHECK_EQ(hits, 10);
    sigset_t m;
    OK(sigprocmask(SIG_BLOCK, 0, &m));
    CHECK(sigisemptyset(&m)); // restored
}

TEST(resethand_restores_default) {
    handle(SIGUSR1, count, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction a;
    OK(sigaction(SIGUSR1, 0, &a));
    CHECK(a.sa_handler == SIG_DFL);
    CHECK_EQ(hits, 1);
}

TEST(nested_handlers) {
    static int depth, deepest;
    void f(int sig) {
        depth++;
        if (depth > deepest) deepest = depth;
        if (depth < 20) raise(sig);
        depth--;
    }
    handle(SIGUSR1, f, SA_NODEFER);
    raise(SIGUSR1);
    CHECK_EQ(deepest, 20);
    CHECK_EQ(depth, 0);
}

TEST(setcontext_out_of_handler) {
    static ucontext_t back;
    static volatile int n;
    void f(int sig) {
        (void)sig;
        setcontext(&back);
    }
    handle(SIGUSR1, f, 0);
    OK(getcontext(&back));
    if (n++ < 3) raise(SIGUSR1);
    CHECK_EQ(n, 4);
    sigset_t m;
    OK(sigprocmask(SIG_BLOCK, 0, &m));
    CHECK(!sigismember(&m, SIGUSR1));
}

TEST(ignored_signals_vanish) {
    sigset_t set = sigs(SIGUSR1, 0, 0), got;
    signal(SIGUSR1, SIG_IGN);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    raise(SIGUSR1);
    OK(sigpending(&got));
    CHECK(sigismember(&got, SIGUSR1)); // a blocked signal is kept even if ignored
    signal(SIGUSR1, SIG_IGN);          // setting the action discards it
    OK(sigpending(&got));
    CHECK(!sigismember(&got, SIGUSR1));
    raise(SIGUSR1);
    OK(sigprocmask(SIG_UNBLOCK, &set, 0));
}

TEST(default_actions) {
    struct { int sig; int status; } t[] = {
        {SIGHUP, SIGHUP}, {SIGINT, SIGINT}, {SIGKILL, SIGKILL}, {SIGPIPE, SIGPIPE}, {SIGALRM, SIGALRM}, {SIGTERM, SIGTERM},
        {SIGUSR1, SIGUSR1}, {SIGIO, SIGIO}, {SIGVTALRM, SIGVTALRM}, {SIGPROF, SIGPROF}, {SIGSTKFLT, SIGSTKFLT}, {SIGPWR, SIGPWR},
        {SIGRTMIN, SIGRTMIN}, {SIGRTMAX, SIGRTMAX}, {SIGQUIT, SIGQUIT}, {SIGABRT, SIGABRT}, {SIGSYS, SIGSYS}, {SIGTRAP, SIGTRAP},
        {SIGXCPU, SIGXCPU}, {SIGXFSZ, SIGXFSZ}, {SIGCHLD, 0}, {SIGURG, 0}, {SIGWINCH, 0}, {SIGCONT, 0},
    };
    for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
        pid_t p;
        CHILD(p) kill(getpid(), t[i].sig);
        int s = WAIT(p) & ~0x80; // no matter whether core is dumped
        if (s != t[i].status) FAIL("signal %d gives status %#x", t[i].sig, s);
    }
}

TEST(kill_errnos) {
    CHECK_ERRNO(kill(getpid(), 65), EINVAL);
    CHECK_ERRNO(kill(getpid(), -1), EINVAL);
    CHECK_ERRNO(kill(999999, 0), ESRCH);
    CHECK_ERRNO(kill(-999999, SIGTERM), ESRCH);
    CHECK_ERRNO(kill(INT_MIN, SIGTERM), ESRCH);
    OK(kill(getpid(), 0));
    OK(kill(0, 0));
    OK(kill(-getpgrp(), 0));
}

TEST(kill_permission) {
    NEED_ROOT();
    pid_t a, b;
    int g[2];
    OK(pipe(g));
    CHILD(a) {
        OK(setresuid(2001, 2002, 2003));
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    struct { uid_t r, e; bool may; } t[] = {{2001, 9, 1}, {9, 2001, 1}, {2003, 9, 1}, {9, 2003, 1}, {2002, 9, 0}, {9, 2002, 0}, {9, 9, 0}};
    for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
        CHILD(b) {
            OK(setresuid(t[i].r, t[i].e, t[i].e));
            if (t[i].may) OK(kill(a, 0));
            else CHECK_ERRNO(kill(a, 0), EPERM);
            // SIGCONT may be sent within the session.
            OK(kill(a, SIGCONT));
        }
        JOIN(b);
    }
    OK(kill(a, SIGKILL));
    CHECK_EQ(WAIT(a), SIGKILL);
}

TEST(sigtimedwait) {
    sigset_t set = sigs(SIGUSR1, SIGRTMIN, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    struct timespec zero = {0}, some = {0, 10000000}, bad = {0, 1000000000};
    siginfo_t si;
    CHECK_ERRNO(sigtimedwait(&set, &si, &zero), EAGAIN);
    CHECK_ERRNO(sigtimedwait(&set, &si, &some), EAGAIN);
    CHECK_ERRNO(sigtimedwait(&set, &si, &bad), EINVAL);
    OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 5}));
    raise(SIGUSR1);
    CHECK_EQ(sigtimedwait(&set, &si, &zero), SIGUSR1); // lowest first
    CHECK_EQ(sigtimedwait(&set, &si, &zero), SIGRTMIN);
    CHECK_EQ(si.si_value.sival_int, 5);
    CHECK_EQ(si.si_code, SI_QUEUE);
    CHECK_ERRNO(sigtimedwait(&set, &si, &zero), EAGAIN);
}

TEST(sigwaitinfo_is_woken) {
    sigset_t set = sigs(SIGUSR1, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    pid_t p, me = getpid();
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGUSR1));
    }
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
    CHECK_EQ(si.si_pid, p);
    JOIN(p);
}

TEST(sigwaitinfo_is_interrupted_by_other_signal) {
    sigset_t set = sigs(SIGUSR1, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    handle(SIGUSR2, count, SA_RESTART);
    pid_t p, me = getpid();
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGUSR2));
    }
    CHECK_ERRNO(sigwaitinfo(&set, 0), EINTR);
    CHECK_EQ(hits, 1);
    JOIN(p);
}

TEST(sigsuspend_swaps_mask) {
    sigset_t set = sigs(SIGUSR1, SIGUSR2, 0), wait = sigs(SIGUSR2, 0, 0), m;
    handle(SIGUSR1, count, 0);
    handle(SIGUSR2, count, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    raise(SIGUSR2);
    raise(SIGUSR1);
    CHECK_ERRNO(sigsuspend(&wait), EINTR);
    CHECK_EQ(hits, 1);
    CHECK_EQ(last_sig, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, 0, &m));
    CHECK(sigismember(&m, SIGUSR1) && sigismember(&m, SIGUSR2));
    CHECK_ERRNO(syscall(SYS_rt_sigsuspend, &wait, 4), EINVAL);
}

TEST(sigsuspend_blocks_until_signal) {
    handle(SIGUSR1, count, 0);
    sigset_t none = sigs(0, 0, 0), set = sigs(SIGUSR1, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    pid_t p, me = getpid();
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGUSR1));
    }
    CHECK_ERRNO(sigsuspend(&none), EINTR);
    CHECK_EQ(hits, 1);
    JOIN(p);
}

TEST(pause_returns_after_handler_only) {
    handle(SIGUSR1, count, SA_RESTART);
    pid_t p, me = getpid();
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGWINCH)); // ignored: does not end it
        wait_asleep(me);
        OK(kill(me, SIGUSR1));
    }
    CHECK_ERRNO(pause(), EINTR);
    CHECK_EQ(hits, 1);
    JOIN(p);
}

TEST(sigpending_union) {
    sigset_t set = sigs(SIGUSR1, SIGUSR2, 0), got;
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    OK(kill(getpid(), SIGUSR1));
    OK(tgkill(getpid(), gettid(), SIGUSR2));
    OK(sigpending(&got));
    CHECK(sigismember(&got, SIGUSR1) && sigismember(&got, SIGUSR2) && !sigismember(&got, SIGHUP));
}

// ---- alternate stacks

static char alt[65536] __attribute__((aligned(16)));
static volatile uintptr_t handler_sp;
static stack_t seen_stack;
static void note_stack(int sig) {
    (void)sig;
    handler_sp = (uintptr_t)__builtin_frame_address(0);
    sigaltstack(0, &seen_stack);
}
static bool on_alt(uintptr_t sp) { return sp >= (uintptr_t)alt && sp < (uintptr_t)alt + sizeof alt; }

TEST(sigaltstack_is_used_with_onstack) {
    stack_t st = {.ss_sp = alt, .ss_size = sizeof alt}, old;
    OK(sigaltstack(&st, &old));
    CHECK_EQ(old.ss_flags, SS_DISABLE);
    handle(SIGUSR1, note_stack, 0);
    raise(SIGUSR1);
    CHECK(!on_alt(handler_sp));
    CHECK_EQ(seen_stack.ss_flags, 0);
    handle(SIGUSR1, note_stack, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(on_alt(handler_sp));
    CHECK_EQ(seen_stack.ss_flags, SS_ONSTACK);
    CHECK(seen_stack.ss_sp == alt);
    CHECK_EQ(seen_stack.ss_size, sizeof alt);
}

TEST(sigaltstack_errnos) {
    stack_t st = {.ss_sp = alt, .ss_size = 100};
    CHECK_ERRNO(sigaltstack(&st, 0), ENOMEM);
    st = (stack_t){.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = 8};
    CHECK_ERRNO(sigaltstack(&st, 0), EINVAL);
    CHECK_ERRNO(sigaltstack((void *)8, 0), EFAULT);
    st = (stack_t){.ss_flags = SS_DISABLE};
    OK(sigaltstack(&st, 0));
}

TEST(sigaltstack_cannot_change_while_in_use) {
    static int result;
    void f(int sig) {
        (void)sig;
        stack_t st = {.ss_flags = SS_DISABLE};
        result = sigaltstack(&st, 0) == -1 ? errno : 0;
    }
    stack_t st = {.ss_sp = alt, .ss_size = sizeof alt};
    OK(sigaltstack(&st, 0));
    handle(SIGUSR1, f, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK_EQ(result, EPERM);
}

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
TEST(sigaltstack_autodisarm) {
    stack_t st = {.ss_sp = alt, .ss_size = sizeof alt, .ss_flags = (int)SS_AUTODISARM}, got;
    OK(sigaltstack(&st, 0));
    handle(SIGUSR1, note_stack, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(on_alt(handler_sp));
    CHECK_EQ(seen_stack.ss_flags, SS_DISABLE); // disarmed within the handler
    OK(sigaltstack(0, &got));
    CHECK_EQ((unsigned)got.ss_flags, SS_AUTODISARM); // and back
    CHECK(got.ss_sp == alt);
}

TEST(nested_handlers_share_the_alternate_stack) {
    static uintptr_t sp[2];
    void g(int sig) {
        (void)sig;
        sp[1] = (uintptr_t)__builtin_frame_address(0);
    }
    void f(int sig) {
        (void)sig;
        sp[0] = (uintptr_t)__builtin_frame_address(0);
        raise(SIGUSR2);
    }
    stack_t st = {.ss_sp = alt, .ss_size = sizeof alt};
    OK(sigaltstack(&st, 0));
    handle(SIGUSR1, f, SA_ONSTACK);
    handle(SIGUSR2, g, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(on_alt(sp[0]) && on_alt(sp[1]) && sp[1] < sp[0]);
}

TEST(stack_overflow_is_handled_on_alternate_stack) {
    pid_t p;
    CHILD(p) {
        void f(int sig) {
            (void)sig;
            _exit(9);
        }
        struct rlimit r = {1 << 20, 1 << 20};
        OK(setrlimit(RLIMIT_STACK, &r));
        stack_t st = {.ss_sp = alt, .ss_size = sizeof alt};
        OK(sigaltstack(&st, 0));
        handle(SIGSEGV, f, SA_ONSTACK);
        volatile char *sp = __builtin_frame_address(0);
        for (;;) *(sp -= 256) = 1;
    }
    CHECK_EQ(WAIT(p), W_EXIT(9));
    CHILD(p) {
        struct rlimit r = {1 << 20, 1 << 20};
        OK(setrlimit(RLIMIT_STACK, &r));
        handle(SIGSEGV, count, 0); // no room for a frame: killed
        volatile char *sp = __builtin_frame_address(0);
        asm volatile("mov %0, %%rsp\n1: push $0\njmp 1b" ::"r"(sp));
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

// ---- contexts

TEST(registers_survive_a_handler) {
    void f(int sig) {
        (void)sig;
        asm volatile("xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%edx, %%edx; xor %%esi, %%esi; xor %%edi, %%edi; xor %%r8d, %%r8d;"
                     "xor %%r9d, %%r9d; xor %%r10d, %%r10d; xor %%r11d, %%r11d" ::: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11");
        hits++;
    }
    handle(SIGUSR1, f, 0);
    // The signal arrives at the end of tgkill: all but rax, rcx and r11 keep their values.
    unsigned long out[6];
    asm volatile("mov $0x1111, %%r8; mov $0x2222, %%r9; mov $0x3333, %%r10; mov $0x4444, %%r12; mov $0x5555, %%r13; std; cld; syscall;"
                 "mov %%r8, 0(%4); mov %%r9, 8(%4); mov %%r10, 16(%4); mov %%r12, 24(%4); mov %%r13, 32(%4); mov %%rax, 40(%4)"
                 :
                 : "a"(SYS_tgkill), "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1), "b"(out)
                 : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "memory");
    CHECK_EQ(hits, 1);
    CHECK_EQ(out[0], 0x1111);
    CHECK_EQ(out[1], 0x2222);
    CHECK_EQ(out[2], 0x3333);
    CHECK_EQ(out[3], 0x4444);
    CHECK_EQ(out[4], 0x5555);
    CHECK_EQ(out[5], 0);
}

TEST(sse_state_survives_a_handler) {
    void f(int sig) {
        (void)sig;
        asm volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15; fninit" ::: "xmm0", "xmm7", "xmm15");
        unsigned mx = 0x9f80; // another rounding mode
        asm volatile("ldmxcsr %0" ::"m"(mx));
        hits++;
    }
    handle(SIGUSR1, f, 0);
    unsigned long in = 0x123456789abcdef0, out[3];
    unsigned mx = 0x1fa0, mx2;
    unsigned short cw = 0x27f, cw2;
    asm volatile("movq %8, %%xmm0; movq %8, %%xmm7; movq %8, %%xmm15; ldmxcsr %9; fldcw %10; syscall;"
                 "movq %%xmm0, %0; movq %%xmm7, %1; movq %%xmm15, %2; stmxcsr %3; fnstcw %4"
                 : "=m"(out[0]), "=m"(out[1]), "=m"(out[2]), "=m"(mx2), "=m"(cw2)
                 : "a"(SYS_tgkill), "D"((long)getpid()), "S"((long)gettid()), "r"(in), "m"(mx), "m"(cw), "d"((long)SIGUSR1)
                 : "rcx", "r11", "xmm0", "xmm7", "xmm15", "memory");
    CHECK_EQ(hits, 1);
    for (int i = 0; i < 3; i++) CHECK_EQ(out[i], in);
    CHECK_EQ(mx2, mx);
    CHECK_EQ(cw2, cw);
}

TEST(avx_state_survives_a_handler) {
    if (!__builtin_cpu_supports("avx")) SKIP("no AVX");
    void f(int sig) {
        (void)sig;
        asm volatile("vzeroall" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
        hits++;
    }
    handle(SIGUSR1, f, 0);
    unsigned char in[32], out[32];
    for (int i = 0; i < 32; i++) in[i] = i + 1;
    asm volatile("vmovdqu %1, %%ymm5; syscall; vmovdqu %%ymm5, %0"
                 : "=m"(out)
                 : "m"(in), "a"(SYS_tgkill), "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1)
                 : "rcx", "r11", "xmm5", "memory");
    CHECK_EQ(hits, 1);
    CHECK_MEM(in, out, 32);
}

TEST(handler_starts_with_clean_state) {
    // Direction flag clear, arguments in registers, stack aligned as after a call.
    static unsigned long flags, sp;
    void f(int sig, siginfo_t *si, void *uc) {
        asm volatile("pushfq; pop %0" : "=r"(flags));
        sp = (unsigned long)__builtin_frame_address(0);
        CHECK_EQ(sig, SIGUSR1);
        CHECK_EQ(si->si_signo, SIGUSR1);
        CHECK(uc);
    }
    handle(SIGUSR1, f, SA_SIGINFO);
    asm volatile("std; syscall; cld" ::"a"(SYS_tgkill), "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1) : "rcx", "r11", "memory");
    CHECK(!(flags & 0x400));
    CHECK_EQ(sp % 16, 0);
}

TEST(edited_context_takes_effect) {
    void f(int sig, siginfo_t *si, void *arg) {
        (void)sig, (void)si;
        ucontext_t *uc = arg;
        uc->uc_mcontext.gregs[REG_R12] = 0xabcdef;
        uc->uc_mcontext.gregs[REG_RAX] = 777;
        sigaddset(&uc->uc_sigmask, SIGHUP);
    }
    handle(SIGUSR1, f, SA_SIGINFO);
    unsigned long r12, rax;
    asm volatile("xor %%r12d, %%r12d; syscall; mov %%r12, %0"
                 : "=r"(r12), "=a"(rax)
                 : "a"(SYS_tgkill), "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1)
                 : "rcx", "r11", "r12", "memory");
    CHECK_EQ(r12, 0xabcdef);
    CHECK_EQ(rax, 777);
    sigset_t m;
    OK(sigprocmask(SIG_BLOCK, 0, &m));
    CHECK(sigismember(&m, SIGHUP));
}

TEST(edited_xmm_takes_effect) {
    void f(int sig, siginfo_t *si, void *arg) {
        (void)sig, (void)si;
        ucontext_t *uc = arg;
        CHECK(uc->uc_mcontext.fpregs);
        CHECK_EQ(uc->uc_mcontext.fpregs->_xmm[3].element[0], 0x11223344);
        uc->uc_mcontext.fpregs->_xmm[3].element[0] = 0x55667788;
    }
    handle(SIGUSR1, f, SA_SIGINFO);
    unsigned in = 0x11223344, out;
    asm volatile("movd %1, %%xmm3; syscall; movd %%xmm3, %0"
                 : "=m"(out)
                 : "m"(in), "a"(SYS_tgkill), "D"((long)getpid()), "S"((long)gettid()), "d"((long)SIGUSR1)
                 : "rcx", "r11", "xmm3", "memory");
    CHECK_EQ(out, 0x55667788);
}

TEST(skip_an_instruction_in_handler) {
    void f(int sig, siginfo_t *si, void *arg) {
        (void)sig, (void)si;
        ((ucontext_t *)arg)->uc_mcontext.gregs[REG_RIP] += 2; // ud2
        hits++;
    }
    handle(SIGILL, f, SA_SIGINFO);
    asm volatile("ud2");
    asm volatile("ud2");
    CHECK_EQ(hits, 2);
}

TEST(sigreturn_with_bad_context_kills) {
    pid_t p;
    CHILD(p) {
        void f(int sig, siginfo_t *si, void *arg) {
            (void)sig, (void)si;
            ((ucontext_t *)arg)->uc_mcontext.gregs[REG_RIP] = 0x8000000000000000; // not canonical
        }
        handle(SIGUSR1, f, SA_SIGINFO);
        raise(SIGUSR1);
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
    CHILD(p) {
        void f(int sig, siginfo_t *si, void *arg) {
            (void)sig, (void)si;
            ((ucontext_t *)arg)->uc_mcontext.fpregs = (void *)16;
        }
        handle(SIGUSR1, f, SA_SIGINFO);
        raise(SIGUSR1);
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

TEST(handler_at_bad_address_kills) {
    pid_t p;
    CHILD(p) {
        handle(SIGUSR1, (void *)16, 0);
        raise(SIGUSR1);
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

TEST(context_has_mask_and_stack) {
    static ucontext_t seen;
    void f(int sig, siginfo_t *si, void *arg) {
        (void)sig, (void)si;
        seen = *(ucontext_t *)arg;
    }
    stack_t st = {.ss_sp = alt, .ss_size = sizeof alt};
    OK(sigaltstack(&st, 0));
    sigset_t set = sigs(SIGHUP, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    handle(SIGUSR1, f, SA_SIGINFO | SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(sigismember(&seen.uc_sigmask, SIGHUP) && !sigismember(&seen.uc_sigmask, SIGUSR1));
    CHECK(seen.uc_stack.ss_sp == alt);
    CHECK_EQ(seen.uc_stack.ss_size, sizeof alt);
    CHECK((uint16_t)seen.uc_mcontext.gregs[REG_CSGSFS] == 0x33);
}

// ---- stop and continue

TEST(sigcont_discards_stops_and_vice_versa) {
    sigset_t set = sigs(SIGTSTP, SIGCONT, 0), got;
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    raise(SIGTSTP);
    OK(sigpending(&got));
    CHECK(sigismember(&got, SIGTSTP));
    raise(SIGCONT);
    OK(sigpending(&got));
    CHECK(!sigismember(&got, SIGTSTP) && sigismember(&got, SIGCONT));
    raise(SIGTSTP);
    OK(sigpending(&got));
    CHECK(sigismember(&got, SIGTSTP) && !sigismember(&got, SIGCONT));
    OK(sigprocmask(SIG_BLOCK, 0, &got));
    signal(SIGTSTP, SIG_IGN);
}

TEST(sigcont_handler_runs_after_continue) {
    pid_t p;
    CHILD(p) {
        handle(SIGCONT, count, 0);
        raise(SIGSTOP);
        CHECK_EQ(hits, 1);
    }
    int s;
    CHECK_EQ(waitpid(p, &s, WUNTRACED), p);
    CHECK_EQ(s, W_STOP(SIGSTOP));
    OK(kill(p, SIGCONT));
    JOIN(p);
}

TEST(signals_wait_while_stopped_except_kill) {
    pid_t p;
    static int g[2];
    OK(pipe(g));
    CHILD(p) {
        void f(int sig) {
            (void)sig;
            gate_open(g[1]);
        }
        handle(SIGUSR1, f, 0);
        for (;;) pause();
    }
    int s;
    wait_asleep(p); // with its handler in place
    OK(kill(p, SIGSTOP));
    CHECK_EQ(waitpid(p, &s, WUNTRACED), p);
    OK(kill(p, SIGUSR1));
    CHECK_EQ(state_of(p), 'T');
    struct pollfd pf = {g[0], POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 20), 0);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(stop_stops_all_threads) {
    pid_t p;
    volatile long *n = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHILD(p) {
        extern void *counts(void *);
        pthread_t t[2];
        for (int i = 0; i < 2; i++) t[i] = start(counts, (void *)n);
        finish(t[0]);
    }
    while (!*n) usleep(100);
    OK(kill(p, SIGSTOP));
    int s;
    CHECK_EQ(waitpid(p, &s, WUNTRACED), p);
    long a = *n;
    usleep(5000);
    CHECK_EQ(*n, a);
    OK(kill(p, SIGCONT));
    while (*n == a) usleep(100);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}
void *counts(void *arg) {
    for (;;) {
        __atomic_fetch_add((long *)arg, 1, __ATOMIC_RELAXED);
        usleep(100);
    }
    return 0;
}

TEST(stop_and_continue_are_transparent_to_blocking_calls) {
    pid_t p;
    int fd[2];
    OK(pipe(fd));
    CHILD(p) {
        char c;
        CHECK_EQ(read(fd[0], &c, 1), 1); // not EINTR
    }
    wait_asleep(p);
    OK(kill(p, SIGSTOP));
    int s;
    CHECK_EQ(waitpid(p, &s, WUNTRACED), p);
    OK(kill(p, SIGCONT));
    wait_asleep(p);
    gate_open(fd[1]);
    JOIN(p);
}

// ---- signalfd

TEST(signalfd_reads_siginfo) {
    sigset_t set = sigs(SIGUSR1, SIGRTMIN, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    int fd = OK(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    struct signalfd_siginfo si[3];
    CHECK_ERRNO(read(fd, si, sizeof si), EAGAIN);
    CHECK_ERRNO(read(fd, si, 100), EINVAL);
    struct pollfd pf = {fd, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0);
    OK(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 31}));
    raise(SIGUSR1);
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(read(fd, si, sizeof si), 2 * sizeof *si);
    CHECK_EQ(si[0].ssi_signo, SIGUSR1);
    CHECK_EQ(si[0].ssi_pid, getpid());
    CHECK_EQ(si[1].ssi_signo, SIGRTMIN);
    CHECK_EQ(si[1].ssi_int, 31);
    CHECK_EQ(si[1].ssi_code, SI_QUEUE);
    CHECK_ERRNO(read(fd, si, sizeof si), EAGAIN);
}

TEST(signalfd_errnos_and_change) {
    sigset_t set = sigs(SIGUSR1, 0, 0), other = sigs(SIGUSR2, 0, 0), both = sigs(SIGUSR1, SIGUSR2, 0);
    OK(sigprocmask(SIG_BLOCK, &both, 0));
    int fd = OK(signalfd(-1, &set, SFD_NONBLOCK));
    CHECK_EQ(signalfd(fd, &other, 0), fd);
    raise(SIGUSR1);
    struct signalfd_siginfo si;
    CHECK_ERRNO(read(fd, &si, sizeof si), EAGAIN);
    raise(SIGUSR2);
    CHECK_EQ(read(fd, &si, sizeof si), sizeof si);
    CHECK_EQ(si.ssi_signo, SIGUSR2);
    CHECK_ERRNO(signalfd(0, &set, 0), EINVAL);
    CHECK_ERRNO(signalfd(999, &set, 0), EBADF);
    CHECK_ERRNO(signalfd(-1, &set, 1), EINVAL);
    CHECK_ERRNO(write(fd, &si, sizeof si), EINVAL);
}

TEST(signalfd_blocking_read_and_child) {
    sigset_t set = sigs(SIGCHLD, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    int fd = OK(signalfd(-1, &set, 0));
    pid_t p, me = getpid();
    CHILD(p) {
        wait_asleep(me);
        _exit(6);
    }
    struct signalfd_siginfo si;
    CHECK_EQ(read(fd, &si, sizeof si), sizeof si);
    CHECK_EQ(si.ssi_pid, p);
    CHECK_EQ(si.ssi_status, 6);
    CHECK_EQ(si.ssi_code, CLD_EXITED);
    CHECK_EQ(WAIT(p), W_EXIT(6));
}

TEST(raise_in_forked_child_of_handler) {
    // A child made in a handler returns through the same frame.
    static pid_t kid;
    void f(int sig) {
        (void)sig;
        kid = OK(fork());
    }
    handle(SIGUSR1, f, 0);
    raise(SIGUSR1);
    if (!kid) _exit(3);
    CHECK_EQ(WAIT(kid), W_EXIT(3));
}

TEST(many_signals_between_processes) {
    handle(SIGUSR1, count, 0);
    sigset_t set = sigs(SIGRTMIN, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    pid_t p, me = getpid();
    CHILD(p) for (int i = 0; i < 500; i++) OK(sigqueue(me, SIGRTMIN, (union sigval){.sival_int = i}));
    for (int i = 0; i < 500; i++) {
        siginfo_t si;
        CHECK_EQ(sigwaitinfo(&set, &si), SIGRTMIN);
        CHECK_EQ(si.si_value.sival_int, i);
    }
    JOIN(p);
}

// Who is made while its group is killed dies with it, or is not made.
TEST(kill_of_a_group_that_grows) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    for (int round = 0; round < 20; round++) {
        int fds[2];
        OK(pipe(fds));
        pid_t leader = OK(fork());
        if (leader == 0) {
            OK(setpgid(0, 0));
            for (int i = 0; i < 100; i++) {
                if (fork() == 0)
                    for (;;) pause();
                if (write(fds[1], "x", 1) != 1) _exit(COMPAT_FAILED);
            }
            for (;;) pause();
        }
        char byte;
        for (int i = 0; i < 1 + round % 4; i++) CHECK_EQ(read(fds[0], &byte, 1), 1);
        for (volatile int i = 0; i < round * 40000; i++) {}
        OK(kill(-leader, SIGKILL));
        // If one is left, this does not end.
        int status;
        while (wait(&status) > 0) CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        CHECK_EQ(errno, ECHILD);
        close(fds[0]);
        close(fds[1]);
    }
}
