// The frame of every case program: registration, checks, and the runner.
//
//   prog --list                  prints the names of the cases
//   prog [--limit SECONDS] [NAME…]  runs these cases (all without a name), each in a child in a fresh directory, and prints
//                                "ok NAME", "skip NAME REASON" or one or more "FAIL NAME FILE:LINE MESSAGE" for each
//   prog --in-process NAME       runs one case without a fork
//   prog --helper=NAME ARGS…     runs a HELPER: what a case executes as another program
//
// A case passes if it returns. Checks end the process, in whichever thread or child they fail. The exit code is 0 if nothing
// failed. Directories are made in $COMPAT_TMP, or /tmp.
#pragma once
#define _GNU_SOURCE
// glibc says that its functions never call back into this file; but raise() and others run signal handlers.
#include <sys/cdefs.h>
#undef __LEAF
#undef __LEAF_ATTR
#define __LEAF
#define __LEAF_ATTR
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct compat_entry {
    const char *name;
    void (*run)(void);
    int (*help)(int, char **);
    const char *pad;
};
extern const struct compat_entry __start_compat_cases[], __stop_compat_cases[];

#define COMPAT_ENTRY(n, run, help)                                                                                     \
    static const struct compat_entry entry_##n __attribute__((used, section("compat_cases"))) = {#n, run, help, 0}

// A case. Its working directory is fresh and empty; its signals, mask and umask are the default ones; fd 0 is /dev/null.
#define TEST(n)                                                                                                        \
    static void test_##n(void);                                                                                        \
    COMPAT_ENTRY(n, test_##n, 0);                                                                                      \
    static void test_##n(void)

// Another program: `execl(SELF, "any name", "--helper=NAME", …, (char *)0)`. Its value is the exit code.
#define HELPER(n)                                                                                                      \
    static int help_##n(int, char **);                                                                                 \
    COMPAT_ENTRY(n, 0, help_##n);                                                                                      \
    static int help_##n(int argc __attribute__((unused)), char **argv __attribute__((unused)))

#define COMPAT_FAILED 99
#define COMPAT_SKIPPED 98

static const char *compat_case = "?";
static char SELF[PATH_MAX];

__attribute__((unused, format(printf, 2, 3))) static void compat_say(const char *kind, const char *fmt, ...) {
    char line[1024];
    int n = snprintf(line, sizeof line, "%s %s%s", kind, compat_case, *fmt ? " " : "");
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2) n = sizeof line - 2;
    for (int i = 0; i < n; i++)
        if (line[i] == '\n') line[i] = ' ';
    line[n++] = '\n';
    if (write(1, line, n) < 0) _exit(COMPAT_FAILED);
}

#define FAIL(fmt, ...)                                                                                                 \
    do {                                                                                                               \
        compat_say("FAIL", "%s:%d " fmt, __FILE_NAME__, __LINE__, ##__VA_ARGS__);                                      \
        _exit(COMPAT_FAILED);                                                                                          \
    } while (0)
#define SKIP(fmt, ...)                                                                                                 \
    do {                                                                                                               \
        compat_say("skip", fmt, ##__VA_ARGS__);                                                                        \
        _exit(COMPAT_SKIPPED);                                                                                         \
    } while (0)
#define CHECK(c)                                                                                                       \
    do {                                                                                                               \
        if (!(c)) FAIL("%s", #c);                                                                                      \
    } while (0)
// CHECK with a value to print.
#define CHECK_V(c, v)                                                                                                  \
    do {                                                                                                               \
        if (!(c)) FAIL("%s (%s = %lld)", #c, #v, (long long)(v));                                                      \
    } while (0)
#define CHECK_EQ(a, b)                                                                                                 \
    do {                                                                                                               \
        long long a_ = (long long)(a), b_ = (long long)(b);                                                            \
        if (a_ != b_) FAIL("%s is %lld (%#llx), not %s = %lld (%#llx)", #a, a_, a_, #b, b_, b_);                       \
    } while (0)
#define CHECK_STR(a, b)                                                                                                \
    do {                                                                                                               \
        const char *a_ = (a), *b_ = (b);                                                                               \
        if (strcmp(a_, b_)) FAIL("%s is \"%s\", not \"%s\"", #a, a_, b_);                                              \
    } while (0)
#define CHECK_MEM(a, b, n)                                                                                             \
    do {                                                                                                               \
        if (memcmp(a, b, n)) FAIL("%s differs from %s", #a, #b);                                                       \
    } while (0)
// The call fails with this errno.
#define CHECK_ERRNO(expr, e)                                                                                           \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        long r_ = (long)(expr);                                                                                        \
        if (r_ != -1) FAIL("%s is %ld, not " #e, #expr, r_);                                                           \
        if (errno != (e)) FAIL("%s gives %s, not " #e, #expr, strerrorname_np(errno));                                 \
    } while (0)
// The call does not fail; its value.
#define OK(expr)                                                                                                       \
    ({                                                                                                                 \
        __typeof__(expr) v_ = (expr);                                                                                  \
        if ((long)v_ == -1) FAIL("%s gives %s", #expr, strerrorname_np(errno));                                        \
        v_;                                                                                                            \
    })
#define NEED_ROOT()                                                                                                    \
    do {                                                                                                               \
        if (geteuid()) SKIP("needs root");                                                                             \
    } while (0)

// `pid_t p; CHILD(p) { … }`: the block runs in a child, which exits with 0 at its end and dies with its parent.
#define CHILD(p) for (p = OK(fork()); p == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL), true); _exit(0))
// The wait status of a child.
#define WAIT(p)                                                                                                        \
    ({                                                                                                                 \
        int s_ = -1;                                                                                                   \
        CHECK_EQ(OK(waitpid(p, &s_, 0)), p);                                                                           \
        s_;                                                                                                            \
    })
// The child must have exited with 0. (What it printed comes before.)
#define JOIN(p) CHECK_EQ(WAIT(p), 0)
#define W_EXIT(code) ((code) << 8)
#define W_STOP(sig) ((sig) << 8 | 0x7f)

__attribute__((unused)) static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

__attribute__((unused)) static void msleep(int ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000l};
    while (nanosleep(&t, &t) && errno == EINTR) {}
}

// Reads a whole small file as a string; its length, or -1.
__attribute__((unused)) static ssize_t read_file(const char *path, char *buf, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    size_t n = 0;
    ssize_t r = 0;
    while (n < size - 1 && (r = read(fd, buf + n, size - 1 - n)) > 0) n += r;
    int e = errno;
    close(fd);
    buf[n] = 0;
    errno = e;
    return r < 0 ? -1 : (ssize_t)n;
}

__attribute__((unused)) static int write_file(const char *path, const char *data) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return -1;
    ssize_t n = write(fd, data, strlen(data));
    int e = errno;
    close(fd);
    errno = e;
    return n == (ssize_t)strlen(data) ? 0 : -1;
}

// The state letter of a thread of any process (tid) as /proc shows it, or 0.
__attribute__((unused)) static char state_of(pid_t tid) {
    char path[64], buf[512];
    snprintf(path, sizeof path, "/proc/%d/stat", tid);
    if (read_file(path, buf, sizeof buf) < 0) return 0;
    char *p = strrchr(buf, ')');
    return p && p[1] ? p[2] : 0;
}

// Waits until a thread sleeps: to reach a blocking call without reliance on time.
__attribute__((unused)) static void wait_asleep(pid_t tid) {
    for (int i = 0, seen = 0; i < 5000 && seen < 3; i++) {
        char c = state_of(tid);
        if (!c) {
            msleep(50);
            return;
        }
        seen = c == 'S' ? seen + 1 : 0;
        usleep(1000);
    }
}

// Waits for a byte from a pipe, or gives one.
__attribute__((unused)) static void gate_wait(int fd) {
    char c;
    CHECK_EQ(OK(read(fd, &c, 1)), 1);
}
__attribute__((unused)) static void gate_open(int fd) { CHECK_EQ(OK(write(fd, "g", 1)), 1); }

__attribute__((unused)) static pthread_t start(void *(*f)(void *), void *arg) {
    pthread_t t;
    int e = pthread_create(&t, 0, f, arg);
    if (e) FAIL("pthread_create gives %s", strerrorname_np(e));
    return t;
}
__attribute__((unused)) static void *finish(pthread_t t) {
    void *v = 0;
    CHECK_EQ(pthread_join(t, &v), 0);
    return v;
}

// Installs a handler with these flags.
__attribute__((unused)) static void handle(int sig, void *handler, int flags) {
    struct sigaction a = {0};
    a.sa_sigaction = handler;
    a.sa_flags = flags;
    OK(sigaction(sig, &a, 0));
}
__attribute__((unused)) static sigset_t sigs(int a, int b, int c) {
    sigset_t s;
    sigemptyset(&s);
    if (a) sigaddset(&s, a);
    if (b) sigaddset(&s, b);
    if (c) sigaddset(&s, c);
    return s;
}

static int compat_remove(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)ftw;
    if (type == FTW_DP) rmdir(path);
    else unlink(path);
    return 0;
}

static void compat_fresh_state(void) {
    // By number, since the libc hides the two signals that it uses itself.
    static const char default_action[32];
    for (int s = 1; s <= 64; s++) syscall(SYS_rt_sigaction, s, default_action, 0, 8);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    umask(022);
    struct rlimit r;
    if (!getrlimit(RLIMIT_CORE, &r)) {
        r.rlim_cur = 0;
        setrlimit(RLIMIT_CORE, &r);
    }
    setvbuf(stdout, 0, _IONBF, 0);
}

// Runs one case in a child; true if it did not fail.
static bool compat_run(const struct compat_entry *e, int limit) {
    compat_case = e->name;
    char dir[PATH_MAX];
    const char *tmp = getenv("COMPAT_TMP");
    snprintf(dir, sizeof dir, "%s/compat.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) dir[0] = 0;
    else chmod(dir, 0755);
    sigset_t chld = sigs(SIGCHLD, 0, 0);
    sigprocmask(SIG_BLOCK, &chld, 0);
    pid_t p = fork();
    if (p < 0) {
        compat_say("FAIL", "fork gives %s", strerrorname_np(errno));
        return false;
    }
    if (!p) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        compat_fresh_state();
        int null = open("/dev/null", O_RDWR);
        if (null > 0) {
            dup2(null, 0);
            close(null);
        }
        if (dir[0] && chdir(dir)) FAIL("chdir %s", dir);
        e->run();
        _exit(0);
    }
    int64_t end = now_ms() + limit * 1000ll;
    int status = 0;
    pid_t got;
    bool late = false;
    while (!(got = waitpid(p, &status, late ? 0 : WNOHANG))) {
        int64_t left = end - now_ms();
        if (left <= 0) {
            late = true;
            kill(-p, SIGKILL);
            kill(p, SIGKILL);
        } else {
            struct timespec t = {left / 1000, left % 1000 * 1000000};
            sigtimedwait(&chld, 0, &t);
        }
    }
    kill(-p, SIGKILL);
    int rest;
    while (waitpid(-1, &rest, WNOHANG) > 0) {}
    if (dir[0]) nftw(dir, compat_remove, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (got != p) compat_say("FAIL", "waitpid gives %s", strerrorname_np(errno));
    else if (late) compat_say("FAIL", "hang: killed after %d s", limit);
    else if (WIFSIGNALED(status)) compat_say("FAIL", "died by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) == COMPAT_SKIPPED) return true;
    else if (WEXITSTATUS(status) == COMPAT_FAILED) return false;
    else if (status) compat_say("FAIL", "exit code %d", WEXITSTATUS(status));
    else {
        compat_say("ok", "%s", "");
        return true;
    }
    return false;
}

int main(int argc, char **argv) {
    int limit = 10, at = 1;
    bool in_process = false, failed = false;
    ssize_t n = readlink("/proc/self/exe", SELF, sizeof SELF - 1);
    if (n < 0) snprintf(SELF, sizeof SELF, "%s", argv[0]);
    for (; at < argc && !strncmp(argv[at], "--", 2); at++) {
        if (!strcmp(argv[at], "--list")) {
            for (const struct compat_entry *e = __start_compat_cases; e < __stop_compat_cases; e++)
                if (e->run) puts(e->name);
            return 0;
        } else if (!strcmp(argv[at], "--limit") && at + 1 < argc) limit = atoi(argv[++at]);
        else if (!strcmp(argv[at], "--in-process")) in_process = true;
        else if (!strncmp(argv[at], "--helper=", 9)) {
            for (const struct compat_entry *e = __start_compat_cases; e < __stop_compat_cases; e++)
                if (e->help && !strcmp(e->name, argv[at] + 9)) {
                    compat_case = e->name;
                    return e->help(argc, argv);
                }
            return 97;
        }
    }
    for (const struct compat_entry *e = __start_compat_cases; e < __stop_compat_cases; e++) {
        bool wanted = at == argc;
        for (int i = at; i < argc; i++) wanted |= !strcmp(argv[i], e->name);
        if (!e->run || !wanted) continue;
        if (in_process) {
            compat_case = e->name;
            e->run();
            compat_say("ok", "%s", "");
        } else if (!compat_run(e, limit)) failed = true;
    }
    return failed;
}
