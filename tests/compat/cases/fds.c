// Descriptors: dup, fcntl, close_range, limits, O_ASYNC.
#include "compat.h"
#include <sys/sem.h>

static int nullfd(void) { return OK(open("/dev/null", O_RDWR)); }
static bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(dup_dup2_dup3) {
    int a = nullfd(), b = OK(dup(a));
    CHECK(b > a);
    OK(fcntl(a, F_SETFD, FD_CLOEXEC));
    CHECK_EQ(fcntl(b, F_GETFD), 0);
    CHECK_EQ(fcntl(OK(dup(a)), F_GETFD), 0); // not copied
    CHECK_EQ(dup2(a, 200), 200);
    CHECK_EQ(dup2(a, a), a);
    CHECK_EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(dup3(a, 201, O_CLOEXEC), 201);
    CHECK_EQ(fcntl(201, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(dup3(a, a, 0), EINVAL);
    CHECK_ERRNO(dup3(a, 202, O_NONBLOCK), EINVAL);
    CHECK_ERRNO(dup(999), EBADF);
    CHECK_ERRNO(dup2(999, 5), EBADF);
    CHECK_ERRNO(dup2(999, 999), EBADF);
    CHECK_ERRNO(dup2(a, -1), EBADF);
    CHECK_ERRNO(dup2(a, 1 << 30), EBADF);
}

TEST(dup2_closes_target) {
    int p[2];
    OK(pipe(p));
    OK(dup2(nullfd(), p[1]));
    char c;
    CHECK_EQ(read(p[0], &c, 1), 0); // the write end is gone
}

TEST(fcntl_dupfd) {
    int a = nullfd();
    CHECK_EQ(fcntl(a, F_DUPFD, 100), 100);
    CHECK_EQ(fcntl(a, F_DUPFD, 100), 101);
    CHECK_EQ(fcntl(a, F_DUPFD_CLOEXEC, 100), 102);
    CHECK_EQ(fcntl(102, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(fcntl(a, F_DUPFD, -1), EINVAL);
    CHECK_ERRNO(fcntl(a, F_DUPFD, 1 << 30), EINVAL);
    CHECK_ERRNO(fcntl(a, 9999), EINVAL);
    CHECK_ERRNO(fcntl(999, F_GETFD), EBADF);
}

TEST(setfl_changes_some_flags) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK | O_RDONLY | O_TRUNC | O_CREAT));
    CHECK_EQ(fcntl(fd, F_GETFL) & ~0100000, O_RDWR | O_APPEND | O_NONBLOCK);
    OK(write(fd, "ab", 2));
    OK(lseek(fd, 0, SEEK_SET));
    OK(write(fd, "c", 1));
    char b[4] = {0};
    CHECK_EQ(pread(fd, b, 4, 0), 3);
    CHECK_STR(b, "abc");
    OK(fcntl(fd, F_SETFL, 0));
    int other = OK(dup(fd));
    OK(fcntl(other, F_SETFL, O_NONBLOCK));
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK); // belongs to the description
}

TEST(nofile_limit) {
    pid_t p;
    CHILD(p) {
        struct rlimit r = {20, 20};
        OK(setrlimit(RLIMIT_NOFILE, &r));
        int n = 0;
        while (open("/dev/null", O_RDONLY) >= 0) n++;
        CHECK_EQ(errno, EMFILE);
        CHECK(n <= 20);
        CHECK(is_open(19));
        int fds[2];
        CHECK_ERRNO(pipe(fds), EMFILE);
        CHECK_ERRNO(dup(0), EMFILE);
        CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM, 0), EMFILE);
        CHECK_ERRNO(dup2(0, 20), EBADF);
        CHECK_EQ(dup2(0, 19), 19);
        CHECK_ERRNO(fcntl(0, F_DUPFD, 20), EINVAL);
        close(19);
        CHECK_ERRNO(pipe(fds), EMFILE); // two are needed
        OK(open("/dev/null", O_RDONLY));
    }
    JOIN(p);
}

TEST(thousands_of_descriptors) {
    struct rlimit r;
    OK(getrlimit(RLIMIT_NOFILE, &r));
    int n = r.rlim_cur < 5000 ? (int)r.rlim_cur - 50 : 4900, a = nullfd();
    for (int i = 0; i < n; i++) OK(dup(a));
    CHECK(is_open(n));
    OK(syscall(SYS_close_range, a + 1, ~0u, 0));
    CHECK(!is_open(a + 1) && !is_open(n));
    CHECK(is_open(a));
}

TEST(close_range_flags) {
    int a = nullfd();
    for (int i = 50; i < 60; i++) OK(dup2(a, i));
    OK(syscall(SYS_close_range, 52, 55, 0));
    CHECK(is_open(51) && !is_open(52) && !is_open(55) && is_open(56));
    OK(syscall(SYS_close_range, 56, 57, 4 /* CLOEXEC */));
    CHECK_EQ(fcntl(56, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(58, F_GETFD), 0);
    CHECK_ERRNO(syscall(SYS_close_range, 5, 4, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_close_range, 5, 6, 1), EINVAL);
    OK(syscall(SYS_close_range, 2000, 3000, 0)); // nothing there
}

static void *unshare_close(void *arg) {
    OK(syscall(SYS_close_range, 50, 60, 2 /* UNSHARE */));
    CHECK(!is_open(50));
    return arg;
}
TEST(close_range_unshare) {
    OK(dup2(nullfd(), 50));
    finish(start(unshare_close, 0));
    CHECK(is_open(50));
}

TEST(close_errnos) {
    int a = nullfd();
    OK(close(a));
    CHECK_ERRNO(close(a), EBADF);
    CHECK_ERRNO(close(-1), EBADF);
}

static volatile int got, got_fd, got_band;
static void on_io(int sig, siginfo_t *si, void *uc) {
    (void)uc;
    got = sig;
    got_fd = si->si_fd;
    got_band = si->si_band;
}

TEST(o_async_sends_sigio) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    handle(SIGIO, on_io, SA_SIGINFO);
    OK(fcntl(s[0], F_SETOWN, getpid()));
    CHECK_EQ(fcntl(s[0], F_GETOWN), getpid());
    OK(fcntl(s[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    CHECK(fcntl(s[0], F_GETFL) & O_ASYNC);
    OK(write(s[1], "x", 1));
    for (int i = 0; i < 2000 && !got; i++) usleep(1000);
    CHECK_EQ(got, SIGIO);
}

TEST(f_setsig_gives_details) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    handle(SIGRTMIN, on_io, SA_SIGINFO);
    OK(fcntl(s[0], F_SETOWN, getpid()));
    OK(fcntl(s[0], F_SETSIG, SIGRTMIN));
    CHECK_EQ(fcntl(s[0], F_GETSIG), SIGRTMIN);
    OK(fcntl(s[0], F_SETFL, O_ASYNC));
    OK(write(s[1], "x", 1));
    for (int i = 0; i < 2000 && !got; i++) usleep(1000);
    CHECK_EQ(got, SIGRTMIN);
    CHECK_EQ(got_fd, s[0]);
    CHECK(got_band & POLLIN);
    CHECK_ERRNO(fcntl(s[0], F_SETSIG, 65), EINVAL);
    CHECK_ERRNO(fcntl(s[0], F_SETOWN, 999999), ESRCH);
}

TEST(directory_notification) {
    int d = OK(open(".", O_RDONLY));
    handle(SIGRTMIN, on_io, SA_SIGINFO);
    OK(fcntl(d, F_SETSIG, SIGRTMIN));
    if (fcntl(d, F_NOTIFY, DN_CREATE | DN_DELETE)) {
        CHECK_EQ(errno, EINVAL);
        SKIP("no dnotify in this kernel");
    }
    OK(close(OK(open("f", O_CREAT | O_WRONLY, 0600))));
    CHECK_EQ(got, SIGRTMIN);
    CHECK_EQ(got_fd, d);
    got = 0;
    OK(unlink("f")); // once, without DN_MULTISHOT
    CHECK_EQ(got, 0);
    OK(fcntl(d, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    for (int i = 0; i < 3; i++) {
        got = 0;
        OK(mkdir("d", 0700));
        CHECK_EQ(got, SIGRTMIN);
        OK(rmdir("d"));
    }
    int f = OK(open("/dev/null", O_RDONLY));
    CHECK_ERRNO(fcntl(f, F_NOTIFY, DN_CREATE), ENOTDIR);
}

TEST(setown_of_a_group) {
    int s[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    OK(fcntl(s[0], F_SETOWN, -getpgrp()));
    struct { int type; pid_t pid; } own;
    OK(fcntl(s[0], F_GETOWN_EX, &own));
    CHECK_EQ(own.type, 2 /* F_OWNER_PGRP */);
    CHECK_EQ(own.pid, getpgrp());
    own.type = 0, own.pid = gettid(); // F_OWNER_TID
    OK(fcntl(s[0], F_SETOWN_EX, &own));
    CHECK_EQ(fcntl(s[0], F_GETOWN), gettid());
}

TEST(pipe_size) {
    int p[2];
    OK(pipe(p));
    CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
    CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, 4096), 4096);
    CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, 5000), 8192);
    CHECK_EQ(fcntl(p[1], F_SETPIPE_SZ, 1 << 20), 1 << 20);
    static char b[100000];
    CHECK_EQ(write(p[1], b, sizeof b), sizeof b); // does not block
    CHECK_ERRNO(fcntl(p[1], F_SETPIPE_SZ, 4096), EBUSY);
    CHECK_ERRNO(fcntl(p[1], F_SETPIPE_SZ, 0x90000000u), EINVAL);
    CHECK_ERRNO(fcntl(nullfd(), F_GETPIPE_SZ), EBADF);
}

TEST(kcmp_compares) {
    int a = nullfd(), b = OK(dup(a)), c = nullfd();
    long r = syscall(SYS_kcmp, getpid(), getpid(), 0, a, b);
    if (r == -1 && (errno == ENOSYS || errno == EPERM)) SKIP("no kcmp");
    CHECK_EQ(r, 0);
    CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, a, c) != 0);
}

TEST(kcmp_of_processes) {
    enum { VM = 1, IO = 5, SYSVSEM };
    long r = syscall(SYS_kcmp, getpid(), getpid(), VM, 0, 0);
    if (r == -1 && (errno == ENOSYS || errno == EPERM)) SKIP("no kcmp");
    int set = OK(semget(IPC_PRIVATE, 1, 0600));
    pid_t parent = getpid(), pid;
    CHILD(pid) {
        CHECK(syscall(SYS_kcmp, parent, getpid(), VM, 0, 0) > 0);
        // What neither has is the same.
        CHECK_EQ(syscall(SYS_kcmp, parent, getpid(), IO, 0, 0), 0);
        CHECK_EQ(syscall(SYS_kcmp, parent, getpid(), SYSVSEM, 0, 0), 0);
        struct sembuf up = {0, 1, SEM_UNDO};
        OK(semop(set, &up, 1));
        CHECK(syscall(SYS_kcmp, parent, getpid(), SYSVSEM, 0, 0) > 0);
        CHECK_EQ(syscall(SYS_kcmp, getpid(), getpid(), SYSVSEM, 0, 0), 0);
    }
    JOIN(pid);
    OK(semctl(set, 0, IPC_RMID));
    CHECK_ERRNO(syscall(SYS_kcmp, parent, parent, 99, 0, 0), EINVAL);
}

TEST(closing_in_another_thread_leaves_blocked_read) {
    // A read in progress keeps the description.
    static int p[2];
    static volatile pid_t tid;
    OK(pipe(p));
    void *f(void *a) {
        char c = 0;
        tid = gettid();
        CHECK_EQ(read(p[0], &c, 1), 1);
        CHECK_EQ(c, 'x');
        return a;
    }
    pthread_t t = start(f, 0);
    while (!tid) usleep(100);
    wait_asleep(tid);
    OK(close(p[0]));
    OK(write(p[1], "x", 1));
    finish(t);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO(write(p[1], "x", 1), EPIPE);
}

#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY 1028
#endif
TEST(f_created_query) {
    int fd = OK(open("/dev/null", O_RDONLY));
    if (fcntl(fd, F_CREATED_QUERY, 0) < 0 && errno == EINVAL) SKIP("no F_CREATED_QUERY before Linux 6.12");
    CHECK_EQ(fcntl(fd, F_CREATED_QUERY, 0), 0);
    int a = OK(open("f", O_RDWR | O_CREAT, 0600)), b = OK(open("f", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(fcntl(a, F_CREATED_QUERY, 0), 1);
    CHECK_EQ(fcntl(OK(dup(a)), F_CREATED_QUERY, 0), 1);
    CHECK_EQ(fcntl(b, F_CREATED_QUERY, 0), 0);
}
