// epoll: level, edge, one-shot, exclusive, nested; lifetime of the watched.
#include "compat.h"
#include <sys/epoll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

static int ep;
static struct epoll_event ev[64];
static uint64_t one = 1;

static void add(int fd, uint32_t events) {
    struct epoll_event e = {.events = events, .data.u64 = 0xabc000000000 + fd};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}
static int ready(void) { return OK(epoll_wait(ep, ev, 64, 0)); }

TEST(level_triggered) {
    ep = OK(epoll_create1(EPOLL_CLOEXEC));
    int p[2];
    OK(pipe(p));
    add(p[0], EPOLLIN);
    CHECK_EQ(ready(), 0);
    OK(write(p[1], "ab", 2));
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(ready(), 1);
        CHECK_EQ(ev[0].events, EPOLLIN);
        CHECK_EQ(ev[0].data.u64, 0xabc000000000 + p[0]);
    }
    char c[4];
    OK(read(p[0], c, 1));
    CHECK_EQ(ready(), 1);
    OK(read(p[0], c, 1));
    CHECK_EQ(ready(), 0);
    OK(close(p[1]));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].events, EPOLLHUP);
}

TEST(edge_triggered) {
    ep = OK(epoll_create1(0));
    int p[2];
    OK(pipe(p));
    add(p[0], EPOLLIN | EPOLLET);
    OK(write(p[1], "a", 1));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ready(), 0);
    OK(write(p[1], "b", 1)); // each write is an edge, also with data left
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ready(), 0);
    char c[4];
    OK(read(p[0], c, 1));
    CHECK_EQ(ready(), 0);
    struct epoll_event e = {.events = EPOLLIN | EPOLLET};
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e)); // rearms
    CHECK_EQ(ready(), 1);
}

TEST(edge_triggered_output) {
    ep = OK(epoll_create1(0));
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
    add(s[0], EPOLLIN | EPOLLOUT | EPOLLET);
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].events, EPOLLOUT);
    CHECK_EQ(ready(), 0);
    static char b[1 << 16];
    while (write(s[0], b, sizeof b) > 0) {}
    CHECK_EQ(ready(), 0);
    while (read(s[1], b, sizeof b) > 0) {}
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].events, EPOLLOUT);
    OK(write(s[1], "x", 1));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].events, EPOLLIN | EPOLLOUT); // all that holds is reported
}

TEST(one_shot) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(1, 0));
    add(fd, EPOLLIN | EPOLLONESHOT);
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ready(), 0);
    OK(write(fd, &one, 8));
    CHECK_EQ(ready(), 0);
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = 9};
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].data.u32, 9);
}

TEST(ctl_errnos) {
    ep = OK(epoll_create(1));
    int fd = OK(eventfd(0, 0)), file = OK(open("f", O_RDWR | O_CREAT, 0600)), d = OK(open(".", O_RDONLY));
    struct epoll_event e = {.events = EPOLLIN};
    CHECK_ERRNO(epoll_create(0), EINVAL);
    CHECK_ERRNO(epoll_create1(1), EINVAL);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, file, &e), EPERM);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, d, &e), EPERM);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e), EINVAL);
    CHECK_ERRNO(epoll_ctl(fd, EPOLL_CTL_ADD, ep, &e), EINVAL);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, 999, &e), EBADF);
    CHECK_ERRNO(epoll_ctl(999, EPOLL_CTL_ADD, fd, &e), EBADF);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e), ENOENT);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_DEL, fd, 0), ENOENT);
    CHECK_ERRNO(epoll_ctl(ep, 9, fd, &e), EINVAL);
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, fd, (void *)8), EFAULT);
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), EEXIST);
    OK(epoll_ctl(ep, EPOLL_CTL_DEL, fd, 0));
    CHECK_ERRNO(epoll_wait(ep, ev, 0, 0), EINVAL);
    CHECK_ERRNO(epoll_wait(ep, ev, -1, 0), EINVAL);
    CHECK_ERRNO(epoll_wait(fd, ev, 1, 0), EINVAL);
    CHECK_ERRNO(epoll_wait(999, ev, 1, 0), EBADF);
    CHECK_ERRNO(epoll_wait(ep, (void *)-4096, 1, 0), EFAULT);
}

TEST(closing_removes_when_the_last_copy_goes) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(1, 0)), copy = OK(dup(fd));
    add(fd, EPOLLIN);
    OK(close(fd));
    CHECK_EQ(ready(), 1); // the description lives on
    CHECK_EQ(ev[0].data.u64, 0xabc000000000 + fd);
    OK(close(copy));
    CHECK_EQ(ready(), 0);
    fd = OK(eventfd(1, 0));
    add(fd, EPOLLIN); // the number may be used again
    CHECK_EQ(ready(), 1);
}

TEST(same_file_by_two_numbers) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(1, 0)), copy = OK(dup(fd));
    add(fd, EPOLLIN);
    add(copy, EPOLLIN);
    CHECK_EQ(ready(), 2);
}

TEST(nested) {
    int inner = OK(epoll_create1(0)), fd = OK(eventfd(0, 0));
    ep = inner;
    add(fd, EPOLLIN);
    ep = OK(epoll_create1(0));
    add(inner, EPOLLIN);
    CHECK_EQ(ready(), 0);
    OK(write(fd, &one, 8));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].data.u64, 0xabc000000000 + inner);
    struct pollfd pf = {ep, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 1);
    uint64_t v;
    OK(read(fd, &v, 8));
    CHECK_EQ(ready(), 0);
    CHECK_EQ(poll(&pf, 1, 0), 0);
}

TEST(loops_are_refused) {
    int a = OK(epoll_create1(0)), b = OK(epoll_create1(0)), c = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN};
    OK(epoll_ctl(a, EPOLL_CTL_ADD, b, &e));
    OK(epoll_ctl(b, EPOLL_CTL_ADD, c, &e));
    CHECK_ERRNO(epoll_ctl(c, EPOLL_CTL_ADD, a, &e), ELOOP);
    CHECK_ERRNO(epoll_ctl(b, EPOLL_CTL_ADD, a, &e), ELOOP);
    int chain[8];
    for (int i = 0; i < 8; i++) chain[i] = OK(epoll_create1(0));
    int i = 0;
    while (i < 7 && !epoll_ctl(chain[i], EPOLL_CTL_ADD, chain[i + 1], &e)) i++;
    CHECK_V(i <= 5, i);
    CHECK(errno == ELOOP || errno == EINVAL);
}

TEST(nested_wakes_blocked_waiter) {
    int inner = OK(epoll_create1(0)), fd = OK(eventfd(0, 0));
    ep = inner;
    add(fd, EPOLLIN);
    ep = OK(epoll_create1(0));
    add(inner, EPOLLIN);
    pid_t p;
    CHILD(p) CHECK_EQ(epoll_wait(ep, ev, 8, -1), 1);
    wait_asleep(p);
    OK(write(fd, &one, 8));
    JOIN(p);
}

TEST(waiter_is_woken_by_later_add_and_mod) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(1, 0));
    pid_t p;
    CHILD(p) {
        CHECK_EQ(epoll_wait(ep, ev, 8, -1), 1);
        CHECK_EQ(ev[0].events, EPOLLIN);
        CHECK_EQ(epoll_wait(ep, ev, 8, -1), 1);
        CHECK_EQ(ev[0].events, EPOLLOUT);
    }
    wait_asleep(p);
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT};
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
    wait_asleep(p);
    e.events = EPOLLOUT | EPOLLONESHOT;
    OK(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e));
    JOIN(p);
}

TEST(timeouts) {
    ep = OK(epoll_create1(0));
    int64_t t = now_ms();
    CHECK_EQ(epoll_wait(ep, ev, 1, 20), 0);
    CHECK(now_ms() - t >= 19);
    struct timespec ts = {0, 5000000};
    long r = syscall(441 /* epoll_pwait2 */, ep, ev, 1, &ts, 0, 0);
    CHECK(r == 0 || errno == ENOSYS);
}

TEST(pwait_mask) {
    ep = OK(epoll_create1(0));
    sigset_t set = sigs(SIGUSR1, 0, 0), none = sigs(0, 0, 0);
    static volatile int hits;
    void f(int sig) {
        (void)sig;
        hits++;
    }
    handle(SIGUSR1, f, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    raise(SIGUSR1);
    CHECK_EQ(epoll_pwait(ep, ev, 1, 0, 0), 0);
    CHECK_ERRNO(epoll_pwait(ep, ev, 1, 10000, &none), EINTR);
    CHECK_EQ(hits, 1);
    OK(sigprocmask(SIG_BLOCK, 0, &none));
    CHECK(sigismember(&none, SIGUSR1));
}

TEST(maxevents_and_fairness) {
    ep = OK(epoll_create1(0));
    int fd[10];
    for (int i = 0; i < 10; i++) {
        fd[i] = OK(eventfd(1, 0));
        add(fd[i], EPOLLIN);
    }
    CHECK_EQ(epoll_wait(ep, ev, 4, 0), 4);
    // Level-triggered entries go to the end of the list: the others come next.
    uint64_t seen[3] = {ev[0].data.u64, ev[1].data.u64, ev[2].data.u64};
    CHECK_EQ(epoll_wait(ep, ev, 4, 0), 4);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) CHECK(ev[i].data.u64 != seen[k]);
    CHECK_EQ(epoll_wait(ep, ev, 64, 0), 10);
}

TEST(exclusive_wakes_one) {
    int fd = OK(eventfd(0, EFD_NONBLOCK));
    pid_t p[3];
    int out[2];
    OK(pipe(out));
    for (int i = 0; i < 3; i++)
        CHILD(p[i]) {
            ep = OK(epoll_create1(0));
            add(fd, EPOLLIN | EPOLLEXCLUSIVE);
            CHECK_EQ(epoll_wait(ep, ev, 1, -1), 1);
            gate_open(out[1]);
            pause();
        }
    for (int i = 0; i < 3; i++) wait_asleep(p[i]);
    OK(write(fd, &one, 8));
    gate_wait(out[0]); // at least one
    ep = OK(epoll_create1(0));
    struct epoll_event e = {.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT};
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e), EINVAL);
    e.events = EPOLLIN | EPOLLEXCLUSIVE;
    OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
    CHECK_ERRNO(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e), EINVAL);
    for (int i = 0; i < 3; i++) {
        OK(kill(p[i], SIGKILL));
        CHECK_EQ(WAIT(p[i]), SIGKILL);
    }
}

TEST(rdhup_and_error) {
    ep = OK(epoll_create1(0));
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    add(s[0], EPOLLIN | EPOLLRDHUP);
    OK(shutdown(s[1], SHUT_WR));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].events, EPOLLIN | EPOLLRDHUP);
    OK(close(s[1]));
    CHECK_EQ(ready(), 1);
    CHECK_EQ(ev[0].events, EPOLLIN | EPOLLRDHUP | EPOLLHUP);
    int p[2];
    OK(pipe(p));
    OK(close(p[0]));
    add(p[1], 0); // errors come unasked
    CHECK_EQ(ready(), 2);
    CHECK_EQ((ev[0].events | ev[1].events) & EPOLLERR, EPOLLERR);
}

TEST(shared_with_child_and_fork) {
    ep = OK(epoll_create1(0));
    int fd = OK(eventfd(0, 0));
    add(fd, EPOLLIN);
    pid_t p;
    CHILD(p) {
        close(fd); // the parent's copy keeps it
        CHECK_EQ(epoll_wait(ep, ev, 1, -1), 1);
    }
    wait_asleep(p);
    OK(write(fd, &one, 8));
    JOIN(p);
}

TEST(many_descriptors) {
    ep = OK(epoll_create1(0));
    enum { N = 1000 };
    static int fd[N];
    for (int i = 0; i < N; i++) {
        fd[i] = OK(eventfd(0, 0));
        add(fd[i], EPOLLIN | EPOLLET);
    }
    for (int i = 0; i < N; i += 100) OK(write(fd[i], &one, 8));
    CHECK_EQ(ready(), 10);
    CHECK_EQ(ready(), 0);
    for (int i = 0; i < N; i++) OK(close(fd[i]));
    CHECK_EQ(ready(), 0);
}

TEST(nests_five_deep) {
    int p[2], in;
    OK(pipe(p));
    in = p[0];
    for (int i = 0; i < 5; i++) {
        ep = OK(epoll_create1(0));
        add(in, EPOLLIN);
        in = ep;
    }
    CHECK_EQ(ready(), 0);
    OK(write(p[1], "x", 1));
    CHECK_EQ(ready(), 1);
    struct epoll_event e = {.events = EPOLLIN};
    CHECK_ERRNO(epoll_ctl(OK(epoll_create1(0)), EPOLL_CTL_ADD, in, &e), ELOOP);
}

TEST(exclusive_instances_take_turns) {
    int p[2], told[2];
    OK(pipe(p));
    OK(pipe(told));
    enum { N = 4 };
    pid_t who[N];
    for (int i = 0; i < N; i++) {
        pid_t q;
        CHILD(q) {
            ep = OK(epoll_create1(0));
            add(p[0], EPOLLIN | EPOLLET | EPOLLEXCLUSIVE);
            CHECK_EQ(epoll_wait(ep, ev, 1, -1), 1);
            OK(write(told[1], "x", 1));
            close(ep);
        }
        who[i] = q;
    }
    for (int i = 0; i < N; i++) wait_asleep(who[i]);
    char c[8];
    for (int i = 0; i < N; i++) {
        OK(write(p[1], "x", 1));
        CHECK_EQ(read(told[0], c, sizeof c), 1);
        // Nobody else follows.
        msleep(20);
        int more = 0;
        OK(ioctl(told[0], FIONREAD, &more));
        CHECK_EQ(more, 0);
        OK(read(p[0], c, 1));
    }
    for (int i = 0; i < N; i++) JOIN(who[i]);
}

static atomic_bool over;

static void *signals_to_itself(void *unused) {
    while (!over) kill(getpid(), SIGUSR1);
    return 0;
}

// The last handle of an instance goes while the file that it watches is waking it.
TEST(instances_end_while_they_are_woken) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    over = false;
    pthread_t t = start(signals_to_itself, 0);
    for (int i = 0; i < 1000; i++) {
        int in = OK(epoll_create1(0)), file = OK(signalfd(-1, &set, SFD_NONBLOCK));
        struct epoll_event event = {.events = EPOLLIN};
        OK(epoll_ctl(in, EPOLL_CTL_ADD, file, &event));
        OK(close(in));
        OK(close(file));
    }
    over = true;
    finish(t);
}
