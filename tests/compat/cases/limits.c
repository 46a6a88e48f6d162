// Resource limits.
#include "compat.h"

static const int all[] = {RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE,
                          RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME};

// A user id that no other run uses at this time.
static uid_t lonely(void) { return 100000 + getpid(); }

static bool has_resource_capability(void) {
    char buf[4096], *p;
    CHECK(read_file("/proc/self/status", buf, sizeof buf) > 0);
    CHECK((p = strstr(buf, "CapEff:")));
    return strtoull(p + 7, 0, 16) >> 24 & 1;
}

// Kills all processes of this user but this one, and reaps them.
static void kill_all(void) {
    pid_t p;
    do {
        kill(-1, SIGKILL);
        while ((p = waitpid(-1, 0, WNOHANG)) > 0) {}
        if (!p) usleep(500);
    } while (!p);
}

TEST(all_are_readable) {
    struct rlimit r;
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        OK(getrlimit(all[i], &r));
        CHECK(r.rlim_cur <= r.rlim_max);
    }
    CHECK_ERRNO(getrlimit(16, &r), EINVAL);
    CHECK_ERRNO(syscall(SYS_getrlimit, RLIMIT_CPU, 8), EFAULT);
}

TEST(set_and_inherit) {
    struct rlimit r = {100, 200}, g;
    OK(setrlimit(RLIMIT_FSIZE, &r));
    pid_t p;
    CHILD(p) {
        OK(getrlimit(RLIMIT_FSIZE, &g));
        CHECK(g.rlim_cur == 100 && g.rlim_max == 200);
        r.rlim_cur = 150;
        OK(setrlimit(RLIMIT_FSIZE, &r));
    }
    JOIN(p);
    OK(getrlimit(RLIMIT_FSIZE, &g));
    CHECK_EQ(g.rlim_cur, 100);
    r = (struct rlimit){300, 200};
    CHECK_ERRNO(setrlimit(RLIMIT_FSIZE, &r), EINVAL);
}

TEST(raising_the_hard_limit_needs_a_capability) {
    NEED_ROOT();
    if (!has_resource_capability()) SKIP("no CAP_SYS_RESOURCE");
    struct rlimit r = {100, 200};
    OK(setrlimit(RLIMIT_LOCKS, &r));
    r.rlim_max = 300;
    OK(setrlimit(RLIMIT_LOCKS, &r));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        r.rlim_max = 301;
        CHECK_ERRNO(setrlimit(RLIMIT_LOCKS, &r), EPERM);
        r.rlim_max = 250;
        OK(setrlimit(RLIMIT_LOCKS, &r));
        r.rlim_max = 300;
        CHECK_ERRNO(setrlimit(RLIMIT_LOCKS, &r), EPERM);
    }
    JOIN(p);
}

TEST(prlimit_of_another) {
    pid_t p;
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    CHILD(p) {
        gate_wait(g[0]);
        struct rlimit r;
        OK(getrlimit(RLIMIT_NOFILE, &r));
        CHECK_EQ(r.rlim_cur, 55);
    }
    struct rlimit n = {55, 60}, o;
    OK(prlimit(p, RLIMIT_NOFILE, &n, &o));
    CHECK(o.rlim_cur != 55);
    OK(prlimit(p, RLIMIT_NOFILE, 0, &o));
    CHECK_EQ(o.rlim_max, 60);
    gate_open(g[1]);
    JOIN(p);
    CHECK_ERRNO(prlimit(999999, RLIMIT_NOFILE, 0, &o), ESRCH);
    CHECK_ERRNO(prlimit(0, 77, 0, &o), EINVAL);
}

TEST(prlimit_permission) {
    NEED_ROOT();
    pid_t p, parent = getpid();
    CHILD(p) {
        OK(setresuid(1000, 1000, 1000));
        struct rlimit r;
        CHECK_ERRNO(prlimit(parent, RLIMIT_NOFILE, 0, &r), EPERM);
        OK(prlimit(0, RLIMIT_NOFILE, 0, &r));
    }
    JOIN(p);
}

TEST(nproc_stops_fork) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        struct rlimit r = {6, 6};
        OK(setrlimit(RLIMIT_NPROC, &r));
        uid_t u = lonely();
        OK(setresuid(u, u, u));
        int n = 0;
        pid_t k;
        while (n < 20 && (k = fork()) > 0) n++;
        if (n < 20 && !k)
            for (;;) pause();
        CHECK_EQ(errno, EAGAIN);
        CHECK_EQ(n, 5); // it counts itself
        pthread_t t;
        CHECK_EQ(pthread_create(&t, 0, (void *(*)(void *))(void *)pause, 0), EAGAIN);
        kill_all();
    }
    CHECK_EQ(WAIT(p), 0);
}

TEST(nproc_does_not_bind_root) {
    NEED_ROOT();
    struct rlimit r = {1, 1};
    OK(setrlimit(RLIMIT_NPROC, &r));
    pid_t p;
    CHILD(p) {}
    JOIN(p);
}

TEST(fork_bomb_is_stopped) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        struct rlimit r = {100, 100};
        OK(setrlimit(RLIMIT_NPROC, &r));
        uid_t u = lonely();
        OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
        OK(setresuid(u, u, u));
        int *n = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        pid_t k;
        CHILD(k) {
            for (;;) {
                pid_t q = fork();
                if (q < 0) {
                    __atomic_fetch_add(n, 1, __ATOMIC_SEQ_CST);
                    for (;;) pause();
                }
            }
        }
        for (int i = 0; i < 9000 && *(volatile int *)n < 20; i++) usleep(1000);
        CHECK(*n >= 20);
        kill_all();
    }
    JOIN(p);
}

TEST(cpu_limit_sends_sigxcpu) {
    pid_t p;
    CHILD(p) {
        struct rlimit r = {1, 5};
        OK(setrlimit(RLIMIT_CPU, &r));
        for (;;) {}
    }
    CHECK_EQ(WAIT(p), SIGXCPU);
}

TEST(stack_limit_is_enforced) {
    pid_t p;
    CHILD(p) {
        struct rlimit r = {256 << 10, 256 << 10};
        OK(setrlimit(RLIMIT_STACK, &r));
        volatile char *sp = __builtin_frame_address(0);
        for (int i = 0; i < 4 << 20; i += 1024) sp[-i] = 1;
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

TEST(core_limit_zero_dumps_nothing) {
    pid_t p;
    CHILD(p) raise(SIGABRT);
    CHECK_EQ(WAIT(p), SIGABRT); // without the core bit: the runner sets the limit to 0
    CHECK_ERRNO(access("core", F_OK), ENOENT);
}

TEST(proc_limits) {
    struct rlimit r = {1234, 5678};
    OK(setrlimit(RLIMIT_NOFILE, &r));
    char buf[4096];
    CHECK(read_file("/proc/self/limits", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "Max open files            1234                 5678                 files"));
    CHECK(!strncmp(buf, "Limit                     Soft Limit           Hard Limit           Units", 70));
}

TEST(msgqueue_and_memlock_defaults) {
    struct rlimit r;
    OK(getrlimit(RLIMIT_MSGQUEUE, &r));
    CHECK(r.rlim_cur > 0);
    OK(getrlimit(RLIMIT_STACK, &r));
    CHECK(r.rlim_cur >= 1 << 20);
}
