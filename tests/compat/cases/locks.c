// File locks: flock, POSIX record locks, open file description locks, leases.
#include "compat.h"
#include <sys/file.h>

#define LK(t, s, l) ((struct flock){.l_type = (t), .l_whence = SEEK_SET, .l_start = (s), .l_len = (l)})

static int fresh(void) { return OK(open("f", O_RDWR | O_CREAT, 0600)); }

// In a child: the result of a lock attempt.
static int attempt(int fd, int cmd, struct flock l) {
    pid_t p;
    CHILD(p) _exit(fcntl(fd, cmd, &l) ? errno : 0);
    return WAIT(p) >> 8;
}

TEST(flock_excludes_other_descriptions) {
    int a = fresh(), b = fresh(), c = OK(dup(a));
    OK(flock(a, LOCK_EX));
    CHECK_ERRNO(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    CHECK_ERRNO(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK);
    OK(flock(c, LOCK_EX | LOCK_NB)); // the same description
    OK(flock(c, LOCK_SH));           // converts
    OK(flock(b, LOCK_SH | LOCK_NB));
    CHECK_ERRNO(flock(a, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    OK(flock(b, LOCK_UN));
    OK(flock(a, LOCK_EX | LOCK_NB));
    OK(close(a));
    CHECK_ERRNO(flock(b, LOCK_SH | LOCK_NB), EWOULDBLOCK); // c still holds it
    OK(close(c));
    OK(flock(b, LOCK_SH | LOCK_NB));
    CHECK_ERRNO(flock(b, 0), EINVAL);
    CHECK_ERRNO(flock(b, LOCK_SH | LOCK_EX), EINVAL);
    CHECK_ERRNO(flock(999, LOCK_SH), EBADF);
}

TEST(flock_is_inherited_by_fork) {
    int a = fresh(), b = fresh();
    OK(flock(a, LOCK_EX));
    pid_t p;
    CHILD(p) {
        close(b);
        OK(flock(a, LOCK_UN)); // of the shared description
    }
    JOIN(p);
    OK(flock(b, LOCK_EX | LOCK_NB));
}

TEST(flock_blocks_until_release) {
    int a = fresh(), b = fresh();
    OK(flock(a, LOCK_EX));
    pid_t p;
    CHILD(p) {
        close(a);
        OK(flock(b, LOCK_EX));
        OK(write(b, "x", 1));
    }
    wait_asleep(p);
    CHECK_EQ(lseek(a, 0, SEEK_END), 0);
    OK(flock(a, LOCK_UN));
    JOIN(p);
    CHECK_EQ(lseek(a, 0, SEEK_END), 1);
}

TEST(posix_locks_conflict_by_range) {
    int fd = fresh();
    OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 10, 10)));
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 0, 10)), 0);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 20, 0)), 0);
    int e = attempt(fd, F_SETLK, LK(F_WRLCK, 19, 1));
    CHECK_EQ(e, EAGAIN);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_RDLCK, 0, 0)), EAGAIN);
    OK(fcntl(fd, F_SETLK, &LK(F_UNLCK, 12, 3))); // splits
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 12, 3)), 0);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 11, 1)), EAGAIN);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 15, 1)), EAGAIN);
    OK(fcntl(fd, F_SETLK, &LK(F_RDLCK, 10, 10)));
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_RDLCK, 10, 10)), 0);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 10, 10)), EAGAIN);
}

TEST(getlk_reports_owner) {
    int fd = fresh();
    OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 5, 7)));
    struct flock l = LK(F_RDLCK, 0, 0);
    OK(fcntl(fd, F_GETLK, &l));
    CHECK_EQ(l.l_type, F_UNLCK); // own locks do not count
    pid_t p;
    CHILD(p) {
        l = LK(F_WRLCK, 0, 0);
        OK(fcntl(fd, F_GETLK, &l));
        CHECK_EQ(l.l_type, F_WRLCK);
        CHECK_EQ(l.l_start, 5);
        CHECK_EQ(l.l_len, 7);
        CHECK_EQ(l.l_whence, SEEK_SET);
        CHECK_EQ(l.l_pid, getppid());
        l = LK(F_WRLCK, 12, 0);
        OK(fcntl(fd, F_GETLK, &l));
        CHECK_EQ(l.l_type, F_UNLCK);
    }
    JOIN(p);
}

TEST(posix_lock_relative_and_negative) {
    int fd = fresh();
    OK(ftruncate(fd, 100));
    OK(lseek(fd, 50, SEEK_SET));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = 10, .l_len = -5};
    OK(fcntl(fd, F_SETLK, &l)); // 55..59
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 55, 1)), EAGAIN);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 59, 1)), EAGAIN);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 60, 1)), 0);
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 54, 1)), 0);
    l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = -10, .l_len = 0};
    OK(fcntl(fd, F_SETLK, &l));
    CHECK_EQ(attempt(fd, F_SETLK, LK(F_WRLCK, 1000000, 1)), EAGAIN);
    CHECK_ERRNO(fcntl(fd, F_SETLK, &LK(F_WRLCK, -1, 1)), EINVAL);
    CHECK_ERRNO(fcntl(fd, F_SETLK, &LK(9, 0, 1)), EINVAL);
    CHECK_ERRNO(fcntl(fd, F_SETLK, &LK(F_WRLCK, 5, -10)), EINVAL);
    struct flock w = {.l_type = F_WRLCK, .l_whence = 7};
    CHECK_ERRNO(fcntl(fd, F_SETLK, &w), EINVAL);
    int r = OK(open("f", O_RDONLY)), wr = OK(open("f", O_WRONLY));
    CHECK_ERRNO(fcntl(r, F_SETLK, &LK(F_WRLCK, 0, 1)), EBADF);
    CHECK_ERRNO(fcntl(wr, F_SETLK, &LK(F_RDLCK, 0, 1)), EBADF);
}

TEST(posix_locks_vanish_at_any_close) {
    int a = fresh(), b = fresh();
    OK(fcntl(a, F_SETLK, &LK(F_WRLCK, 0, 0)));
    CHECK_EQ(attempt(a, F_SETLK, LK(F_WRLCK, 0, 0)), EAGAIN);
    OK(close(b)); // another description of the same file
    CHECK_EQ(attempt(a, F_SETLK, LK(F_WRLCK, 0, 0)), 0);
}

TEST(posix_locks_not_inherited_kept_by_exec) {
    int fd = fresh();
    OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 0)));
    pid_t p;
    CHILD(p) {
        CHECK_ERRNO(fcntl(fd, F_SETLK, &LK(F_RDLCK, 0, 0)), EAGAIN);
    }
    JOIN(p);
    int g[2], h[2];
    OK(fcntl(fd, F_SETLK, &LK(F_UNLCK, 0, 0)));
    OK(pipe(g)), OK(pipe(h));
    CHILD(p) {
        OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 0)));
        dup2(g[1], 1), dup2(h[0], 0);
        execl("/bin/sh", "sh", "-c", "echo; read x", (char *)0);
    }
    gate_wait(g[0]);
    CHECK_ERRNO(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 0)), EAGAIN);
    OK(write(h[1], "\n", 1));
    JOIN(p);
    OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 0)));
}

TEST(setlkw_waits) {
    int fd = fresh(), g[2];
    OK(pipe(g));
    OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 10)));
    pid_t p;
    CHILD(p) {
        OK(fcntl(fd, F_SETLKW, &LK(F_WRLCK, 5, 1)));
        gate_open(g[1]);
    }
    wait_asleep(p);
    struct pollfd pf = {g[0], POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0);
    OK(fcntl(fd, F_SETLK, &LK(F_UNLCK, 0, 5)));
    CHECK_EQ(poll(&pf, 1, 10), 0);
    OK(fcntl(fd, F_SETLK, &LK(F_UNLCK, 0, 0)));
    JOIN(p);
}

TEST(deadlock_is_found) {
    int fd = fresh(), g[2];
    OK(pipe(g));
    OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 1)));
    pid_t p;
    CHILD(p) {
        OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 1, 1)));
        gate_open(g[1]);
        OK(fcntl(fd, F_SETLKW, &LK(F_WRLCK, 0, 1)));
    }
    gate_wait(g[0]);
    wait_asleep(p);
    CHECK_ERRNO(fcntl(fd, F_SETLKW, &LK(F_WRLCK, 1, 1)), EDEADLK);
    OK(fcntl(fd, F_SETLK, &LK(F_UNLCK, 0, 0)));
    JOIN(p);
}

TEST(ofd_locks_belong_to_the_description) {
    int a = fresh(), b = fresh(), c = OK(dup(a));
    OK(fcntl(a, F_OFD_SETLK, &LK(F_WRLCK, 0, 10)));
    CHECK_ERRNO(fcntl(b, F_OFD_SETLK, &LK(F_WRLCK, 5, 1)), EAGAIN); // also within a process
    OK(fcntl(c, F_OFD_SETLK, &LK(F_WRLCK, 5, 1)));
    CHECK_ERRNO(fcntl(b, F_SETLK, &LK(F_WRLCK, 5, 1)), EAGAIN); // conflicts with the classic ones
    struct flock l = LK(F_WRLCK, 0, 0);
    OK(fcntl(b, F_OFD_GETLK, &l));
    CHECK_EQ(l.l_type, F_WRLCK);
    CHECK_EQ(l.l_pid, -1);
    int d = fresh();
    OK(close(d)); // closing another description does not release
    CHECK_ERRNO(fcntl(b, F_OFD_SETLK, &LK(F_WRLCK, 5, 1)), EAGAIN);
    OK(close(a));
    CHECK_ERRNO(fcntl(b, F_OFD_SETLK, &LK(F_WRLCK, 5, 1)), EAGAIN);
    OK(close(c));
    OK(fcntl(b, F_OFD_SETLK, &LK(F_WRLCK, 5, 1)));
    l = LK(F_WRLCK, 0, 1);
    l.l_pid = 5;
    CHECK_ERRNO(fcntl(b, F_OFD_SETLK, &l), EINVAL);
}

TEST(ofd_setlkw_waits) {
    int a = fresh(), b = fresh();
    OK(fcntl(a, F_OFD_SETLK, &LK(F_WRLCK, 0, 0)));
    pid_t p;
    CHILD(p) {
        close(a);
        OK(fcntl(b, F_OFD_SETLKW, &LK(F_WRLCK, 0, 0)));
    }
    wait_asleep(p);
    OK(fcntl(a, F_OFD_SETLK, &LK(F_UNLCK, 0, 0)));
    JOIN(p);
}

TEST(exit_releases_and_wakes) {
    int fd = fresh(), g[2];
    OK(pipe(g));
    pid_t p;
    CHILD(p) {
        OK(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 0)));
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    CHECK_ERRNO(fcntl(fd, F_SETLK, &LK(F_WRLCK, 0, 0)), EAGAIN);
    pid_t q, self = getpid();
    CHILD(q) {
        wait_asleep(self);
        OK(kill(p, SIGKILL));
    }
    OK(fcntl(fd, F_SETLKW, &LK(F_WRLCK, 0, 0)));
    JOIN(q);
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(lockf_of_libc) {
    int fd = fresh();
    OK(lockf(fd, F_LOCK, 0));
    pid_t p;
    CHILD(p) {
        CHECK_ERRNO(lockf(fd, F_TLOCK, 0), EAGAIN);
        CHECK_ERRNO(lockf(fd, F_TEST, 0), EACCES);
    }
    JOIN(p);
    OK(lockf(fd, F_ULOCK, 0));
}

TEST(leases_work_or_are_refused) {
    int fd = OK(open("f", O_RDONLY | O_CREAT, 0600));
    CHECK_EQ(fcntl(fd, F_GETLEASE), F_UNLCK);
    int r = fcntl(fd, F_SETLEASE, F_RDLCK);
    CHECK_V(r == 0 || errno == EAGAIN || errno == EINVAL, errno);
    if (!r) {
        CHECK_EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
        OK(fcntl(fd, F_SETLEASE, F_UNLCK));
    }
}

TEST(proc_locks_or_not) {
    int fd = fresh();
    OK(flock(fd, LOCK_EX));
    char buf[4096];
    if (read_file("/proc/locks", buf, sizeof buf) < 0) SKIP("no /proc/locks");
    CHECK(strstr(buf, "FLOCK"));
}
