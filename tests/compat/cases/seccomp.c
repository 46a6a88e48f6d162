// seccomp(2): what filters may be, what their actions do, who has which.
#include "compat.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <ucontext.h>

#define LD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RET(value) BPF_STMT(BPF_RET | BPF_K, value)
#define JEQ(k, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no)

static long install(unsigned flags, struct sock_filter *code, unsigned short n) {
    struct sock_fprog prog = {n, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}
#define INSTALL(flags, ...)                                                                                            \
    ({                                                                                                                 \
        struct sock_filter code_[] = {__VA_ARGS__};                                                                    \
        install(flags, code_, sizeof code_ / sizeof *code_);                                                           \
    })
// One call gives this, all others are allowed.
static long one(unsigned flags, int number, unsigned value) {
    return INSTALL(flags, LD(nr), JEQ(number, 0, 1), RET(value), RET(SECCOMP_RET_ALLOW));
}
static void no_new_privs(void) { OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

TEST(strictest_action_wins) {
    no_new_privs();
    OK(one(0, SYS_getppid, SECCOMP_RET_ERRNO | ENOTTY));
    CHECK_ERRNO(syscall(SYS_getppid), ENOTTY);
    OK(one(0, SYS_getppid, SECCOMP_RET_ALLOW)); // older and stricter
    CHECK_ERRNO(syscall(SYS_getppid), ENOTTY);
    OK(one(0, SYS_getppid, SECCOMP_RET_ERRNO | EXDEV)); // newer and as strict
    CHECK_ERRNO(syscall(SYS_getppid), EXDEV);
    OK(one(0, SYS_getppid, SECCOMP_RET_TRACE)); // looser
    CHECK_ERRNO(syscall(SYS_getppid), EXDEV);
}

TEST(errno_of_zero_and_trace_without_tracer) {
    no_new_privs();
    OK(one(0, SYS_getppid, SECCOMP_RET_ERRNO));
    CHECK_EQ(syscall(SYS_getppid), 0);
    OK(one(0, SYS_getpgrp, SECCOMP_RET_TRACE | 7));
    CHECK_ERRNO(syscall(SYS_getpgrp), ENOSYS);
    OK(one(0, SYS_gettid, SECCOMP_RET_LOG));
    CHECK_EQ(syscall(SYS_gettid), getpid());
}

TEST(arguments_have_64_bits) {
    no_new_privs();
    OK(INSTALL(0, LD(nr), JEQ(SYS_lseek, 0, 5), LD(args[1]), JEQ(5, 0, 3), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 28),
               JEQ(1, 0, 1), RET(SECCOMP_RET_ERRNO | ENOTTY), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(syscall(SYS_lseek, -1, 5, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_lseek, -1, 1ul << 32 | 5, 0), ENOTTY);
    CHECK_ERRNO(syscall(SYS_lseek, -1, 2ul << 32 | 5, 0), EBADF);
}

TEST(architecture_and_arithmetic) {
    no_new_privs();
    OK(INSTALL(0, LD(arch), JEQ(AUDIT_ARCH_X86_64, 1, 0), RET(SECCOMP_RET_KILL_PROCESS), LD(nr),
               BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 1000), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LDX | BPF_W | BPF_IMM, 1000),
               BPF_STMT(BPF_LD | BPF_W | BPF_MEM, 3), BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0), JEQ(SYS_getppid, 0, 1),
               RET(SECCOMP_RET_ERRNO | EDOM), RET(SECCOMP_RET_ALLOW)));
    CHECK_ERRNO(syscall(SYS_getppid), EDOM);
    CHECK(syscall(SYS_getpid) > 0);
}

extern char after_the_call[];
TEST(instruction_pointer) {
    // The calls of one place in the code only.
    no_new_privs();
    uint64_t here = (uint64_t)after_the_call;
    OK(INSTALL(0, LD(nr), JEQ(SYS_getppid, 0, 5), LD(instruction_pointer), JEQ((uint32_t)here, 0, 3),
               BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12), JEQ((uint32_t)(here >> 32), 0, 1), RET(SECCOMP_RET_ERRNO | EDOM),
               RET(SECCOMP_RET_ALLOW)));
    CHECK_EQ(syscall(SYS_getppid), getppid());
    long r;
    __asm__ volatile("syscall\n.hidden after_the_call\n.globl after_the_call\nafter_the_call:"
                     : "=a"(r)
                     : "a"(SYS_getppid)
                     : "rcx", "r11", "memory");
    CHECK_EQ(r, -EDOM);
}

static volatile long handler_rax, handler_ip;
static siginfo_t info;
static void on_sys(int sig, siginfo_t *si, void *uc) {
    (void)sig;
    ucontext_t *u = uc;
    info = *si;
    handler_rax = u->uc_mcontext.gregs[REG_RAX];
    handler_ip = u->uc_mcontext.gregs[REG_RIP];
    u->uc_mcontext.gregs[REG_RAX] = 4711;
}
TEST(trap_shows_the_call_and_takes_a_result) {
    handle(SIGSYS, on_sys, SA_SIGINFO);
    no_new_privs();
    OK(one(0, SYS_getppid, SECCOMP_RET_TRAP | 9));
    CHECK_EQ(syscall(SYS_getppid), 4711);
    CHECK_EQ(handler_rax, SYS_getppid);
    CHECK_EQ(info.si_errno, 9);
    CHECK_EQ((long)info.si_call_addr, handler_ip);
    CHECK_EQ(info.si_syscall, SYS_getppid);
}

TEST(trap_kills_when_blocked_or_ignored) {
    for (int i = 0; i < 3; i++) {
        pid_t p;
        CHILD(p) {
            sigset_t s = sigs(SIGSYS, 0, 0);
            if (i == 0) OK(sigprocmask(SIG_BLOCK, &s, 0));
            if (i == 1) handle(SIGSYS, SIG_IGN, 0);
            no_new_privs();
            OK(one(0, SYS_getppid, SECCOMP_RET_TRAP));
            syscall(SYS_getppid);
        }
        CHECK_EQ(WAIT(p) & 0x7f, SIGSYS);
    }
}

TEST(kill_process_cannot_be_caught) {
    pid_t p;
    CHILD(p) {
        handle(SIGSYS, on_sys, SA_SIGINFO);
        no_new_privs();
        OK(one(0, SYS_getppid, SECCOMP_RET_KILL_PROCESS));
        syscall(SYS_getppid);
    }
    CHECK_EQ(WAIT(p) & 0x7f, SIGSYS);
    CHILD(p) {
        // An action that the kernel does not know kills too.
        no_new_privs();
        OK(one(0, SYS_getppid, 0x12340000));
        syscall(SYS_getppid);
    }
    CHECK_EQ(WAIT(p) & 0x7f, SIGSYS);
}

static void *ask(void *unused) { return (void *)syscall(SYS_getppid); }
TEST(kill_thread_leaves_the_others) {
    pid_t p;
    CHILD(p) {
        no_new_privs();
        OK(one(0, SYS_getppid, SECCOMP_RET_KILL_THREAD));
        pthread_t t = start(ask, 0);
        CHECK_EQ(pthread_join(t, 0), 0);
        _exit(7);
    }
    CHECK_EQ(WAIT(p), W_EXIT(7));
    CHILD(p) {
        no_new_privs();
        OK(one(0, SYS_getppid, SECCOMP_RET_KILL_PROCESS));
        finish(start(ask, 0));
        _exit(7);
    }
    CHECK_EQ(WAIT(p) & 0x7f, SIGSYS);
    CHILD(p) {
        // The only thread takes the process along.
        no_new_privs();
        OK(one(0, SYS_getppid, SECCOMP_RET_KILL_THREAD));
        syscall(SYS_getppid);
    }
    CHECK_EQ(WAIT(p) & 0x7f, SIGSYS);
}

static int filters_of(const char *file, int *mode) {
    char text[4096];
    CHECK(read_file(file, text, sizeof text) > 0);
    char *m = strstr(text, "\nSeccomp:\t"), *f = strstr(text, "\nSeccomp_filters:\t");
    CHECK(m && f);
    *mode = atoi(m + 10);
    return atoi(f + 18);
}
HELPER(after_exec) {
    int mode;
    int n = filters_of("/proc/self/status", &mode);
    return mode == 2 && n >= 2 && syscall(SYS_getppid) == -1 && errno == EXDEV ? 0 : 1;
}
TEST(fork_and_exec_keep_filters) {
    int mode, before = filters_of("/proc/self/status", &mode);
    no_new_privs();
    OK(one(0, SYS_getppid, SECCOMP_RET_ERRNO | EXDEV));
    OK(one(0, SYS_getpgrp, SECCOMP_RET_ERRNO | EXDEV));
    CHECK_EQ(filters_of("/proc/self/status", &mode), before + 2);
    CHECK_EQ(mode, 2);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
    pid_t p;
    CHILD(p) execl("/proc/self/exe", "x", "--helper=after_exec", (char *)0);
    JOIN(p);
}

TEST(who_may) {
    NEED_ROOT();
    OK(setresuid(1000, 1000, 1000));
    CHECK_ERRNO(one(0, SYS_getppid, SECCOMP_RET_ALLOW), EACCES);
    CHECK_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 8), EFAULT);
    no_new_privs();
    OK(one(0, SYS_getppid, SECCOMP_RET_ALLOW));
}

TEST(errnos) {
    no_new_privs();
    CHECK_ERRNO(one(1 << 20, 0, 0), EINVAL);
    CHECK_ERRNO(one(SECCOMP_FILTER_FLAG_TSYNC | 8, 0, 0), EINVAL); // both want the result
    CHECK_ERRNO(one(1 << 5, 0, 0), EINVAL);                        // WAIT_KILLABLE_RECV without a listener
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 1), EINVAL);
    uint32_t action = SECCOMP_RET_LOG, none = 0x55550000;
    OK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &none), EOPNOTSUPP);
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &action), EINVAL);
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, 8), EFAULT);
    struct seccomp_notif_sizes sizes;
    OK(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
    CHECK_EQ(sizes.seccomp_data, sizeof(struct seccomp_data));
    CHECK_ERRNO(INSTALL(0, RET(SECCOMP_RET_ALLOW), LD(nr)), EINVAL);
    CHECK_ERRNO(INSTALL(0, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), RET(0)), EINVAL);
    CHECK_ERRNO(INSTALL(0, BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), RET(0)), EINVAL);
    CHECK_ERRNO(INSTALL(0, BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), RET(0)), EINVAL);
    CHECK_ERRNO(INSTALL(0, BPF_STMT(BPF_LD | BPF_MEM, 0), RET(0)), EINVAL);
    CHECK_ERRNO(INSTALL(0, BPF_STMT(BPF_JMP | BPF_JA, 5), RET(0)), EINVAL);
    OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT + 1, 0, &(struct sock_fprog){
                                                                 1, (struct sock_filter[]){RET(SECCOMP_RET_ALLOW)}}));
    CHECK_ERRNO(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), EINVAL);
}

TEST(limits) {
    no_new_privs();
    enum { MAX = 4096 };
    static struct sock_filter code[MAX + 1];
    for (int i = 0; i <= MAX; i++) code[i] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
    CHECK_ERRNO(install(0, code, MAX + 1), EINVAL);
    CHECK_ERRNO(install(0, code, 0), EINVAL);
    for (int i = 0; i < MAX - 1; i++) code[i] = (struct sock_filter)LD(nr);
    int n = 0;
    while (n < 100 && !install(0, code, MAX)) n++;
    // 32768 in all.
    CHECK(n >= 6 && n <= 7);
    CHECK_EQ(errno, ENOMEM);
}

static int gate[2];
static void *wait_and_ask(void *unused) {
    gate_wait(gate[0]);
    return (void *)(syscall(SYS_getppid) == -1 ? (long)errno : 0);
}
TEST(tsync_gives_all_threads_the_filter) {
    OK(pipe(gate));
    pthread_t a = start(wait_and_ask, 0), b = start(wait_and_ask, 0);
    no_new_privs();
    OK(one(0, SYS_getpgrp, SECCOMP_RET_ERRNO | EDOM));
    CHECK_EQ(one(SECCOMP_FILTER_FLAG_TSYNC, SYS_getppid, SECCOMP_RET_ERRNO | EXDEV), 0);
    CHECK_EQ(write(gate[1], "xx", 2), 2);
    CHECK_EQ((long)finish(a), EXDEV);
    CHECK_EQ((long)finish(b), EXDEV);
    // Without it, only the caller has it.
    OK(one(0, SYS_getuid, SECCOMP_RET_ERRNO | EDOM));
    CHECK_ERRNO(syscall(SYS_getuid), EDOM);
}

static pid_t other_tid;
static void *diverge(void *unused) {
    other_tid = syscall(SYS_gettid);
    OK(one(0, SYS_getppid, SECCOMP_RET_ALLOW));
    gate_open(gate[1]);
    pause();
    return 0;
}
TEST(tsync_names_the_thread_that_has_another) {
    OK(pipe(gate));
    no_new_privs();
    start(diverge, 0);
    gate_wait(gate[0]);
    CHECK_EQ(one(SECCOMP_FILTER_FLAG_TSYNC, SYS_getppid, SECCOMP_RET_ALLOW), other_tid);
    CHECK_ERRNO(one(SECCOMP_FILTER_FLAG_TSYNC | 16, SYS_getppid, SECCOMP_RET_ALLOW), ESRCH);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
}
