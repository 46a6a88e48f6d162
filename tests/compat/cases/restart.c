// What a signal does to a blocking call: EINTR, or a restart with SA_RESTART, for each kind of call.
#include "compat.h"
#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>

static volatile int hits;
static void count(int sig) {
    (void)sig;
    hits++;
}

static pid_t child;

// A child that sends SIGUSR1 to us when we sleep, and goes on with the block after.
#define POKE(me)                                                                                                       \
    for (child = OK(fork()); child == 0 && (wait_asleep(me), OK(kill(me, SIGUSR1)), wait_asleep(me), true); _exit(0))

// Every call is interrupted with this flag.
static void setup(int flags) { handle(SIGUSR1, count, flags); }

#define CHECK_POKED()                                                                                                  \
    do {                                                                                                               \
        CHECK_EQ(hits, 1);                                                                                             \
        JOIN(child);                                                                                                   \
    } while (0)

TEST(read_pipe_eintr) {
    int fd[2];
    char c;
    OK(pipe(fd));
    setup(0);
    pid_t me = getpid();
    POKE(me) {}
    CHECK_ERRNO(read(fd[0], &c, 1), EINTR);
    CHECK_POKED();
}

TEST(read_pipe_restarts) {
    int fd[2];
    char c;
    OK(pipe(fd));
    setup(SA_RESTART);
    pid_t me = getpid();
    POKE(me) gate_open(fd[1]);
    CHECK_EQ(read(fd[0], &c, 1), 1);
    CHECK_POKED();
}

TEST(read_partial_is_returned) {
    // A write that has moved some bytes reports them.
    int fd[2];
    OK(pipe(fd));
    setup(0);
    static char buf[200000];
    pid_t me = getpid();
    POKE(me) {}
    ssize_t n = write(fd[1], buf, sizeof buf);
    CHECK_V(n > 0 && n < (ssize_t)sizeof buf, n);
    CHECK_POKED();
}

TEST(write_pipe_restarts_and_counts) {
    // With some bytes moved, even SA_RESTART gives the short count.
    int fd[2];
    OK(pipe(fd));
    setup(SA_RESTART);
    static char buf[200000];
    pid_t me = getpid();
    POKE(me) {}
    ssize_t n = write(fd[1], buf, sizeof buf);
    CHECK_V(n > 0 && n < (ssize_t)sizeof buf, n);
    CHECK_POKED();
}

TEST(socket_recv_eintr_and_restart) {
    int s[2];
    char c;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    pid_t me = getpid();
    setup(0);
    POKE(me) {}
    CHECK_ERRNO(recv(s[0], &c, 1, 0), EINTR);
    CHECK_POKED();
    hits = 0;
    setup(SA_RESTART);
    POKE(me) OK(send(s[1], "x", 1, 0));
    CHECK_EQ(recv(s[0], &c, 1, 0), 1);
    CHECK_POKED();
}

TEST(recv_with_timeout_is_eintr_despite_restart) {
    // SO_RCVTIMEO makes the wait not restartable.
    int s[2];
    char c;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    struct timeval tv = {100, 0};
    OK(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    setup(SA_RESTART);
    pid_t me = getpid();
    POKE(me) {}
    CHECK_ERRNO(recv(s[0], &c, 1, 0), EINTR);
    CHECK_POKED();
}

static int listener(struct sockaddr_in *a) {
    socklen_t n = sizeof *a;
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int l = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(l, (void *)a, sizeof *a));
    OK(listen(l, 5));
    OK(getsockname(l, (void *)a, &n));
    return l;
}

TEST(accept_eintr_and_restart) {
    struct sockaddr_in a;
    int l = listener(&a);
    pid_t me = getpid();
    setup(0);
    POKE(me) {}
    CHECK_ERRNO(accept(l, 0, 0), EINTR);
    CHECK_POKED();
    hits = 0;
    setup(SA_RESTART);
    POKE(me) OK(connect(OK(socket(AF_INET, SOCK_STREAM, 0)), (void *)&a, sizeof a));
    OK(accept(l, 0, 0));
    CHECK_POKED();
}

TEST(wait_eintr_and_restart) {
    pid_t me = getpid(), other;
    CHILD(other) for (;;) pause();
    setup(0);
    POKE(me) {}
    CHECK_ERRNO(waitpid(other, 0, 0), EINTR);
    CHECK_POKED();
    hits = 0;
    setup(SA_RESTART);
    POKE(me) OK(kill(other, SIGKILL));
    CHECK_EQ(WAIT(other), SIGKILL);
    CHECK_POKED();
}

TEST(poll_is_eintr_despite_restart) {
    setup(SA_RESTART);
    pid_t me = getpid();
    POKE(me) {}
    CHECK_ERRNO(poll(0, 0, -1), EINTR);
    CHECK_POKED();
}

TEST(ppoll_is_eintr_despite_restart) {
    setup(SA_RESTART);
    pid_t me = getpid();
    struct timespec t = {100, 0};
    POKE(me) {}
    CHECK_ERRNO(ppoll(0, 0, &t, 0), EINTR);
    CHECK_POKED();
    CHECK(t.tv_sec <= 100); // the libc hides the rest
}

TEST(poll_restarts_after_ignored_or_stop) {
    // No handler runs: the call goes on, with what is left of its time.
    setup(0);
    pid_t me = getpid(), p;
    int fd[2];
    OK(pipe(fd));
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGWINCH));
        OK(kill(me, SIGCONT));
        wait_asleep(me);
        gate_open(fd[1]);
    }
    struct pollfd pf = {fd[0], POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 30000), 1);
    JOIN(p);
}

TEST(select_is_eintr_despite_restart) {
    setup(SA_RESTART);
    pid_t me = getpid();
    struct timeval t = {100, 0};
    POKE(me) {}
    CHECK_ERRNO(select(0, 0, 0, 0, &t), EINTR);
    CHECK_POKED();
    CHECK(t.tv_sec < 100); // Linux shows what is left
}

TEST(epoll_wait_is_eintr_despite_restart) {
    setup(SA_RESTART);
    int e = OK(epoll_create1(0));
    struct epoll_event ev;
    pid_t me = getpid();
    POKE(me) {}
    CHECK_ERRNO(epoll_wait(e, &ev, 1, -1), EINTR);
    CHECK_POKED();
}

TEST(nanosleep_is_eintr_with_rest) {
    setup(SA_RESTART);
    pid_t me = getpid();
    struct timespec t = {100, 0}, rest = {0};
    POKE(me) {}
    CHECK_ERRNO(nanosleep(&t, &rest), EINTR);
    CHECK_POKED();
    CHECK_V(rest.tv_sec >= 50 && rest.tv_sec < 100, rest.tv_sec);
}

TEST(nanosleep_goes_on_after_stop_and_continue) {
    pid_t p, me = getpid();
    int64_t t0 = now_ms();
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGSTOP));
        for (int i = 0; i < 1000 && state_of(me) != 'T'; i++) usleep(1000);
        OK(kill(me, SIGCONT));
    }
    struct timespec t = {0, 150000000};
    OK(nanosleep(&t, 0));
    CHECK(now_ms() - t0 >= 150);
    JOIN(p);
}

TEST(clock_nanosleep_absolute_is_eintr_and_keeps_rest) {
    setup(SA_RESTART);
    pid_t me = getpid();
    struct timespec t, rest = {7, 7};
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += 100;
    POKE(me) {}
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, &rest), EINTR);
    CHECK_POKED();
    CHECK_EQ(rest.tv_sec, 7);
}

TEST(futex_wait_with_timeout_is_eintr_despite_restart_or_goes_on) {
    // A relative timeout makes it restart by restart_syscall: with a handler that is EINTR.
    setup(SA_RESTART);
    static int w;
    pid_t me = getpid();
    struct timespec t = {100, 0};
    POKE(me) {}
    CHECK_ERRNO(syscall(SYS_futex, &w, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &t, 0, 0), EINTR);
    CHECK_POKED();
}

TEST(flock_eintr_and_restart) {
    int a = OK(open("f", O_RDWR | O_CREAT, 0600)), b = OK(open("f", O_RDWR));
    OK(flock(a, LOCK_EX));
    pid_t me = getpid();
    setup(0);
    POKE(me) {}
    CHECK_ERRNO(flock(b, LOCK_EX), EINTR);
    CHECK_POKED();
    hits = 0;
    setup(SA_RESTART);
    POKE(me) OK(flock(a, LOCK_UN));
    OK(flock(b, LOCK_EX));
    CHECK_POKED();
}

TEST(fcntl_setlkw_eintr_and_restart) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    struct flock lk = {.l_type = F_WRLCK};
    int g[2], h[2];
    OK(pipe(g));
    OK(pipe(h));
    pid_t owner, me = getpid();
    CHILD(owner) {
        OK(fcntl(fd, F_SETLK, &lk));
        gate_open(g[1]);
        gate_wait(h[0]);
    }
    gate_wait(g[0]);
    setup(0);
    POKE(me) {}
    CHECK_ERRNO(fcntl(fd, F_SETLKW, &lk), EINTR);
    CHECK_POKED();
    hits = 0;
    setup(SA_RESTART);
    POKE(me) gate_open(h[1]);
    OK(fcntl(fd, F_SETLKW, &lk));
    CHECK_POKED();
    JOIN(owner);
}

TEST(open_fifo_eintr_and_restart) {
    OK(mkfifo("fifo", 0600));
    pid_t me = getpid();
    setup(0);
    POKE(me) {}
    CHECK_ERRNO(open("fifo", O_RDONLY), EINTR);
    CHECK_POKED();
    hits = 0;
    setup(SA_RESTART);
    POKE(me) OK(open("fifo", O_WRONLY));
    OK(open("fifo", O_RDONLY));
    CHECK_POKED();
}

TEST(semop_is_eintr_despite_restart) {
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    struct sembuf b = {0, -1, 0};
    setup(SA_RESTART);
    pid_t me = getpid();
    POKE(me) {}
    errno = 0;
    int r = semop(id, &b, 1), e = errno;
    OK(semctl(id, 0, IPC_RMID));
    CHECK_EQ(r, -1);
    CHECK_EQ(e, EINTR);
    CHECK_POKED();
}

TEST(msgrcv_is_eintr_despite_restart) {
    int id = OK(msgget(IPC_PRIVATE, 0600));
    struct { long type; char text[8]; } m;
    setup(SA_RESTART);
    pid_t me = getpid();
    POKE(me) {}
    errno = 0;
    int r = msgrcv(id, &m, 8, 0, 0), e = errno;
    OK(msgctl(id, IPC_RMID, 0));
    CHECK_EQ(r, -1);
    CHECK_EQ(e, EINTR);
    CHECK_POKED();
}

TEST(sleep_in_two_handlers_then_one_eintr) {
    // Two pending signals: both handlers run before the call returns.
    static volatile int other;
    void f(int sig) {
        (void)sig;
        other++;
    }
    setup(SA_RESTART);
    handle(SIGUSR2, f, 0);
    int fd[2];
    char c;
    OK(pipe(fd));
    pid_t me = getpid(), p;
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGSTOP));
        for (int i = 0; i < 1000 && state_of(me) != 'T'; i++) usleep(1000);
        OK(kill(me, SIGUSR1));
        OK(kill(me, SIGUSR2));
        OK(kill(me, SIGCONT));
        wait_asleep(me);
        gate_open(fd[1]);
    }
    // SIGUSR1 (restart) is delivered first; then SIGUSR2's handler is entered from within its frame: the decision was
    // made by the first one.
    CHECK_EQ(read(fd[0], &c, 1), 1);
    CHECK_EQ(hits, 1);
    CHECK_EQ(other, 1);
    JOIN(p);
}

TEST(restart_keeps_arguments) {
    // The restarted call sees the registers as they were, not what the handler's calls left.
    void f(int sig) {
        (void)sig;
        hits++;
        getpid();
        (void)!write(999, "", 0);
    }
    handle(SIGUSR1, f, SA_RESTART);
    int s[2];
    char buf[4] = {0};
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    struct iovec v = {buf, 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    pid_t me = getpid();
    POKE(me) OK(send(s[1], "abcd", 4, 0));
    CHECK_EQ(recvmsg(s[0], &m, 0), 4);
    CHECK_MEM(buf, "abcd", 4);
    CHECK_POKED();
}
