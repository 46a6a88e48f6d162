// prctl, personality, membarrier, rseq, seccomp and other calls about the process itself.
#include "compat.h"
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

TEST(prctl_errnos) {
    CHECK_ERRNO(prctl(9999), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_NAME, 8), EFAULT);
    CHECK_ERRNO(prctl(PR_GET_NAME, 8), EFAULT);
    CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 7), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_SECCOMP, 99), EINVAL);
}

TEST(prctl_timerslack) {
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 50000);
    OK(prctl(PR_SET_TIMERSLACK, 1000));
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 1000);
    pid_t p;
    CHILD(p) CHECK_EQ(prctl(PR_GET_TIMERSLACK), 1000);
    JOIN(p);
    OK(prctl(PR_SET_TIMERSLACK, 0)); // back to the inherited default
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 50000);
}

TEST(prctl_thp_and_mdwe) {
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
    OK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
    int v = prctl(66 /* PR_GET_MDWE, 6.3 */, 0, 0, 0, 0);
    CHECK_V(v == 0 || (v == -1 && errno == EINVAL), v);
}

TEST(prctl_child_subreaper_and_tid_address) {
    int on = 9;
    OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
    CHECK_EQ(on, 0);
    OK(prctl(PR_SET_CHILD_SUBREAPER, 5));
    OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
    CHECK_EQ(on, 1);
}

TEST(prctl_tsc) {
    int v = 0;
    OK(prctl(PR_GET_TSC, &v));
    CHECK_EQ(v, PR_TSC_ENABLE);
}

TEST(set_mm_needs_a_capability_or_is_absent) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        int r = prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0);
        CHECK_V(r == -1 && (errno == EPERM || errno == EINVAL), errno);
    }
    JOIN(p);
}

TEST(vma_names) {
    char *p = OK(mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 4096, "compat name")) {
        CHECK_EQ(errno, EINVAL); // a kernel without it
        SKIP("no names of anonymous memory");
    }
    static char buf[1 << 17];
    CHECK(read_file("/proc/self/maps", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "[anon:compat name]"));
}

TEST(personality_values) {
    CHECK_EQ(personality(0xffffffff), 0);
    CHECK_EQ(personality(ADDR_NO_RANDOMIZE), 0);
    CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
    pid_t p;
    CHILD(p) CHECK_EQ(personality(0xffffffff), ADDR_NO_RANDOMIZE);
    JOIN(p);
    CHECK_EQ(personality(0), ADDR_NO_RANDOMIZE);
}

TEST(membarrier) {
    int q = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    if (q == -1) {
        CHECK_EQ(errno, ENOSYS);
        SKIP("no membarrier");
    }
    CHECK(q & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    CHECK_ERRNO(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM); // not registered
    OK(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    OK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    CHECK_ERRNO(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_membarrier, 0, 8, 0), EINVAL);
}

struct rseq_area {
    uint32_t cpu_id_start, cpu_id;
    uint64_t rseq_cs;
    uint32_t flags, node, mm;
} __attribute__((aligned(32)));
static struct rseq_area area __attribute__((aligned(32)));

TEST(rseq_registers_or_is_absent) {
    // glibc has registered this thread if the kernel has the call: another registration is refused.
    long r = syscall(334, &area, 32, 0, 0x53053053);
    CHECK_V(r == -1 && (errno == ENOSYS || errno == EINVAL || errno == EPERM || errno == EBUSY), errno);
}

TEST(getrandom) {
    char a[64] = {0}, b[64] = {0};
    CHECK_EQ(getrandom(a, 64, 0), 64);
    CHECK_EQ(getrandom(b, 64, GRND_NONBLOCK), 64);
    CHECK(memcmp(a, b, 64));
    CHECK_EQ(getrandom(a, 0, 0), 0);
    CHECK_EQ(getrandom(a, 16, GRND_RANDOM), 16);
    CHECK_ERRNO(getrandom(a, 1, 0x100), EINVAL);
    CHECK_ERRNO(getrandom(a, 1, GRND_RANDOM | 4), EINVAL);
    CHECK_ERRNO(getrandom((void *)8, 1, 0), EFAULT);
}

TEST(sysinfo) {
    struct sysinfo i;
    OK(sysinfo(&i));
    CHECK(i.uptime >= 0);
    CHECK(i.totalram > 0 && i.freeram <= i.totalram);
    CHECK(i.procs >= 1);
    CHECK(i.mem_unit >= 1);
    CHECK_ERRNO(sysinfo((void *)8), EFAULT);
}

TEST(uname) {
    struct utsname u;
    OK(uname(&u));
    CHECK_STR(u.sysname, "Linux");
    CHECK_STR(u.machine, "x86_64");
    int a, b;
    CHECK_EQ(sscanf(u.release, "%d.%d", &a, &b), 2);
    CHECK(a >= 4);
    CHECK(strlen(u.version) > 0 && strlen(u.nodename) > 0);
}

// Not permitted, or not there at all (what a kernel configuration decides).
#define DENIED(expr)                                                                                                   \
    do {                                                                                                               \
        long d_ = (expr);                                                                                              \
        if (d_ != -1 || (errno != EPERM && errno != ENOSYS)) FAIL("%s is %ld %s", #expr, d_, strerrorname_np(errno));  \
    } while (0)

TEST(syslog_and_reboot_need_rights) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        DENIED(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
        DENIED(syscall(SYS_syslog, 5, 0, 0));
        DENIED(syscall(SYS_swapon, "x", 0));
        DENIED(syscall(SYS_acct, "x"));
        DENIED(syscall(SYS_iopl, 3));
        DENIED(syscall(SYS_ioperm, 0x80, 1, 1));
        DENIED(syscall(SYS_init_module, 0, 0, ""));
        DENIED(syscall(SYS_delete_module, "x", 0));
        DENIED(vhangup());
    }
    JOIN(p);
    // Root with wrong magic numbers; a container's root may not get that far.
    long r = syscall(SYS_reboot, 1, 2, 0, 0);
    CHECK_V(r == -1 && (errno == EINVAL || errno == EPERM || errno == ENOSYS), errno);
}

TEST(absent_calls_are_enosys) {
    int gone[] = {SYS_uselib, SYS__sysctl, SYS_create_module, SYS_get_kernel_syms, SYS_query_module, SYS_nfsservctl, SYS_getpmsg,
                  SYS_putpmsg, SYS_afs_syscall, SYS_tuxcall, SYS_security, SYS_vserver, SYS_epoll_ctl_old, SYS_epoll_wait_old,
                  SYS_set_thread_area, SYS_get_thread_area, 387, 400, 423, 2000, 0x3fffffff, -1};
    for (unsigned i = 0; i < sizeof gone / sizeof *gone; i++) {
        errno = 0;
        long r = syscall(gone[i], 0, 0, 0, 0, 0, 0);
        if (r != -1 || errno != ENOSYS) FAIL("call %d gives %ld %s", gone[i], r, strerrorname_np(errno));
    }
}

TEST(x32_numbers_are_enosys) {
    // A kernel with the x32 ABI would take it; none of today's distributions switches it on.
    long r = syscall(0x40000000 + SYS_getpid);
    CHECK_V((r == -1 && errno == ENOSYS) || r == getpid(), r);
}

TEST(upper_half_of_numbers_and_arguments) {
    // The kernel looks at the low 32 bits of the number, and at the low 32 bits of an int argument.
    long r;
    asm volatile("syscall" : "=a"(r) : "a"(0x100000000ul | SYS_getpid) : "rcx", "r11", "memory");
    CHECK_V(r == getpid() || r == -ENOSYS, r);
    asm volatile("syscall" : "=a"(r) : "a"((long)SYS_close), "D"(0x700000000ul | 999) : "rcx", "r11", "memory");
    CHECK_EQ(r, -EBADF);
    int fd = OK(open("/dev/null", O_RDONLY));
    asm volatile("syscall" : "=a"(r) : "a"((long)SYS_close), "D"(0x700000000ul | (unsigned)fd) : "rcx", "r11", "memory");
    CHECK_EQ(r, 0);
}

TEST(registers_across_a_call) {
    // All but rax, rcx and r11 are kept; rcx holds the return address, r11 the flags.
    unsigned long rcx, r11, here;
    unsigned long in[6] = {1, 2, 3, 4, 5, 6}, out[6];
    asm volatile("lea 1f(%%rip), %[here]; mov %[n], %%eax; syscall; 1: mov %%rcx, %[rcx]; mov %%r11, %[r11]"
                 : [here] "=&b"(here), [rcx] "=&r"(rcx), [r11] "=&r"(r11), "=D"(out[0]), "=S"(out[1]), "=d"(out[2])
                 : [n] "i"(SYS_getpid), "D"(in[0]), "S"(in[1]), "d"(in[2])
                 : "rax", "rcx", "r11", "memory");
    CHECK_EQ(rcx, here);
    CHECK(r11 & 2);
    for (int i = 0; i < 3; i++) CHECK_EQ(out[i], in[i]);
}

TEST(seccomp_filter) {
    pid_t p;
    CHILD(p) {
        struct sock_filter f[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgrp, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog prog = {sizeof f / sizeof *f, f};
        OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
        CHECK_EQ(prctl(PR_GET_SECCOMP), 2);
        CHECK_ERRNO(syscall(SYS_getppid), EXDEV);
        CHECK(syscall(SYS_getpid) > 0);
        pid_t q = OK(fork()); // inherited
        if (!q) {
            syscall(SYS_getpgrp);
            _exit(0);
        }
        CHECK_EQ(WAIT(q) & 0x7f, SIGSYS);
    }
    JOIN(p);
}

static siginfo_t sys_info;
static void on_sys(int sig, siginfo_t *si, void *uc) {
    (void)sig, (void)uc;
    sys_info = *si;
}
TEST(seccomp_trap) {
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 77),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {4, f};
    handle(SIGSYS, on_sys, SA_SIGINFO);
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog));
    syscall(SYS_getppid);
    CHECK_EQ(sys_info.si_signo, SIGSYS);
    CHECK_EQ(sys_info.si_code, 1); // SYS_SECCOMP
    CHECK_EQ(sys_info.si_errno, 77);
    CHECK_EQ(sys_info.si_syscall, SYS_getppid);
    CHECK_EQ(sys_info.si_arch, 0xc000003e);
}

TEST(seccomp_errnos) {
    struct sock_filter bad[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 9999), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog prog = {2, bad}, none = {0, bad};
    if (geteuid()) CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog), EACCES);
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog), EINVAL);
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &none), EINVAL);
    CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_seccomp, 99, 0, 0), EINVAL);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
}

TEST(seccomp_strict) {
    pid_t p;
    CHILD(p) {
        OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        syscall(SYS_exit, 5);
    }
    CHECK_EQ(WAIT(p), W_EXIT(5));
    CHILD(p) {
        OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
        syscall(SYS_getpid);
    }
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(timer_slack_default_is_the_parents) {
    OK(prctl(PR_SET_TIMERSLACK, 70000));
    pid_t p;
    CHILD(p) {
        CHECK_EQ(prctl(PR_GET_TIMERSLACK), 70000);
        OK(prctl(PR_SET_TIMERSLACK, 1000));
        OK(prctl(PR_SET_TIMERSLACK, 0));
        CHECK_EQ(prctl(PR_GET_TIMERSLACK), 70000);
    }
    JOIN(p);
}
