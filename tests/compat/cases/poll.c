// poll, ppoll, select, pselect.
#include "compat.h"
#include <sys/eventfd.h>
#include <sys/personality.h>
#include <sys/select.h>

TEST(timeouts) {
    int64_t t = now_ms();
    CHECK_EQ(poll(0, 0, 15), 0);
    CHECK(now_ms() - t >= 14);
    struct timespec ts = {0, 15000000};
    t = now_ms();
    CHECK_EQ(ppoll(0, 0, &ts, 0), 0);
    CHECK(now_ms() - t >= 14);
    struct timeval tv = {0, 15000};
    t = now_ms();
    CHECK_EQ(select(0, 0, 0, 0, &tv), 0);
    CHECK(now_ms() - t >= 14);
    CHECK_EQ(tv.tv_usec, 0);
}

TEST(bad_descriptors) {
    struct pollfd f[2] = {{999, POLLIN, 77}, {-1, POLLIN, 77}};
    CHECK_EQ(poll(f, 2, 0), 1);
    CHECK_EQ(f[0].revents, POLLNVAL);
    CHECK_EQ(f[1].revents, 0);
    fd_set s;
    FD_ZERO(&s);
    FD_SET(40, &s);
    struct timeval tv = {0};
    CHECK_ERRNO(select(41, &s, 0, 0, &tv), EBADF);
    CHECK_ERRNO(select(-1, 0, 0, 0, &tv), EINVAL);
    tv.tv_sec = -1;
    CHECK_ERRNO(select(0, 0, 0, 0, &tv), EINVAL);
    struct timespec ts = {0, 1000000000};
    CHECK_ERRNO(ppoll(0, 0, &ts, 0), EINVAL);
    CHECK_ERRNO(poll((void *)8, 1, 0), EFAULT);
}

TEST(poll_over_limit_is_einval) {
    pid_t p;
    CHILD(p) {
        struct rlimit r = {10, 10};
        OK(setrlimit(RLIMIT_NOFILE, &r));
        static struct pollfd f[11];
        for (int i = 0; i < 11; i++) f[i].fd = -1;
        CHECK_EQ(poll(f, 10, 0), 0);
        CHECK_ERRNO(poll(f, 11, 0), EINVAL);
    }
    JOIN(p);
}

TEST(always_ready_files) {
    int f = OK(open("f", O_RDWR | O_CREAT, 0600)), n = OK(open("/dev/null", O_RDWR)), d = OK(open(".", O_RDONLY));
    struct pollfd p[3] = {{f, POLLIN | POLLOUT, 0}, {n, POLLIN | POLLOUT, 0}, {d, POLLIN, 0}};
    CHECK_EQ(poll(p, 3, 0), 3);
    CHECK_EQ(p[0].revents, POLLIN | POLLOUT);
    CHECK_EQ(p[1].revents, POLLIN | POLLOUT);
    CHECK_EQ(p[2].revents, POLLIN);
    p[0].events = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
    CHECK_EQ(poll(p, 1, 0), 1);
    CHECK_EQ(p[0].revents, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
}

TEST(duplicates_and_counts) {
    int e = OK(eventfd(1, 0));
    struct pollfd p[3] = {{e, POLLIN, 0}, {e, POLLIN, 0}, {e, 0, 0}};
    CHECK_EQ(poll(p, 3, 0), 2);
    CHECK_EQ(p[2].revents, 0);
}

TEST(select_sets) {
    int a[2], b[2];
    OK(pipe(a)), OK(pipe(b));
    OK(write(a[1], "x", 1));
    fd_set r, w;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(a[0], &r);
    FD_SET(b[0], &r);
    FD_SET(b[1], &w);
    CHECK_EQ(select(b[1] + 1, &r, &w, 0, 0), 2);
    CHECK(FD_ISSET(a[0], &r) && !FD_ISSET(b[0], &r) && FD_ISSET(b[1], &w));
    // A descriptor at or above nfds is not looked at.
    FD_ZERO(&r);
    FD_SET(a[0], &r);
    struct timeval tv = {0};
    CHECK_EQ(select(a[0], &r, 0, 0, &tv), 0);
    // Hang-up makes readable.
    OK(close(b[1]));
    FD_ZERO(&r);
    FD_SET(b[0], &r);
    CHECK_EQ(select(b[0] + 1, &r, 0, 0, &tv), 1);
}

static volatile int hits;
static void count(int sig) {
    (void)sig;
    hits++;
}

TEST(ppoll_and_pselect_mask) {
    sigset_t set = sigs(SIGUSR1, 0, 0), none = sigs(0, 0, 0), m;
    handle(SIGUSR1, count, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    raise(SIGUSR1);
    struct timespec t = {10, 0};
    CHECK_ERRNO(ppoll(0, 0, &t, &none), EINTR);
    CHECK_EQ(hits, 1);
    raise(SIGUSR1);
    CHECK_ERRNO(pselect(0, 0, 0, 0, &t, &none), EINTR);
    CHECK_EQ(hits, 2);
    OK(sigprocmask(SIG_BLOCK, 0, &m));
    CHECK(sigismember(&m, SIGUSR1));
    // Something ready wins over a pending signal, which stays pending when blocked again.
    int e = OK(eventfd(1, 0));
    struct pollfd p = {e, POLLIN, 0};
    raise(SIGUSR1);
    CHECK_EQ(ppoll(&p, 1, &t, &none), 1);
    struct timespec zero = {0};
    int r = sigtimedwait(&set, 0, &zero);
    CHECK_V(r == SIGUSR1 || hits == 3, r);
    CHECK_ERRNO(syscall(SYS_ppoll, &p, 1, &zero, &none, 4), EINVAL);
}

TEST(woken_by_another_process) {
    int e = OK(eventfd(0, 0)), g[2];
    OK(pipe(g));
    pid_t p;
    CHILD(p) {
        struct pollfd f[2] = {{e, POLLIN, 0}, {g[0], POLLIN, 0}};
        CHECK_EQ(poll(f, 2, -1), 1);
        CHECK_EQ(f[0].revents, 0);
        CHECK_EQ(f[1].revents, POLLIN);
        gate_wait(g[0]);
        fd_set r;
        FD_ZERO(&r);
        FD_SET(e, &r);
        CHECK_EQ(select(e + 1, &r, 0, 0, 0), 1);
    }
    wait_asleep(p);
    gate_open(g[1]);
    wait_asleep(p);
    uint64_t v = 1;
    OK(write(e, &v, 8));
    JOIN(p);
}

TEST(raw_select_updates_timeout) {
    struct timeval tv = {5, 0};
    int e = OK(eventfd(1, 0));
    fd_set r;
    FD_ZERO(&r);
    FD_SET(e, &r);
    CHECK_EQ(syscall(SYS_select, e + 1, &r, 0, 0, &tv), 1);
    CHECK(tv.tv_sec <= 5 && tv.tv_sec >= 4);
    struct timespec ts = {5, 0};
    struct pollfd p = {e, POLLIN, 0};
    CHECK_EQ(syscall(SYS_ppoll, &p, 1, &ts, 0, 8), 1);
    CHECK(ts.tv_sec <= 5 && ts.tv_sec >= 4);
}

TEST(many_descriptors) {
    enum { N = 500 };
    static struct pollfd f[N];
    for (int i = 0; i < N; i++) f[i] = (struct pollfd){OK(eventfd(i % 7 == 0, 0)), POLLIN, 0};
    CHECK_EQ(poll(f, N, 0), (N + 6) / 7);
    for (int i = 0; i < N; i++) CHECK_EQ(f[i].revents, i % 7 ? 0 : POLLIN);
}

TEST(pollpri_and_rdhup) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    struct pollfd p = {s[0], POLLIN | POLLRDHUP | POLLPRI, 0};
    CHECK_EQ(poll(&p, 1, 0), 0);
    OK(shutdown(s[1], SHUT_WR));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN | POLLRDHUP);
    OK(shutdown(s[0], SHUT_WR));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN | POLLRDHUP | POLLHUP);
}

TEST(sticky_timeouts_are_not_written_back) {
    int old = OK(personality(0xffffffff));
    OK(personality(old | STICKY_TIMEOUTS));
    struct timeval v = {0, 10};
    CHECK_EQ(syscall(SYS_select, 0, 0, 0, 0, &v), 0);
    CHECK(v.tv_sec == 0 && v.tv_usec == 10);
    struct timespec s = {0, 10000};
    CHECK_EQ(syscall(SYS_ppoll, 0, 0, &s, 0, 8), 0);
    CHECK(s.tv_sec == 0 && s.tv_nsec == 10000);
    OK(personality(old));
    CHECK_EQ(syscall(SYS_select, 0, 0, 0, 0, &v), 0);
    CHECK_EQ(v.tv_usec, 0);
}

TEST(more_descriptors_than_a_transfer_takes) {
    // Answers are written entry by entry, and nothing else is.
    enum { N = 3000 };
    struct rlimit limit;
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    if (limit.rlim_cur < N) SKIP("fewer descriptors are allowed");
    static struct pollfd fds[N];
    int null = OK(open("/dev/null", O_RDWR));
    for (int i = 0; i < N; i++) fds[i] = (struct pollfd){i % 3 ? 900 + i : i % 2 ? null : -1, POLLIN, 0x7777};
    CHECK_EQ(poll(fds, N, 0), N * 2 / 3 + N / 6);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(fds[i].revents, i % 3 ? POLLNVAL : i % 2 ? POLLIN : 0);
        CHECK_EQ(fds[i].events, POLLIN);
    }
}
