// Sessions and process groups (without a terminal).
#include "compat.h"

TEST(setsid_makes_leader) {
    pid_t p;
    CHILD(p) {
        pid_t me = getpid();
        CHECK_EQ(setsid(), me);
        CHECK_EQ(getsid(0), me);
        CHECK_EQ(getpgrp(), me);
        CHECK_ERRNO(setsid(), EPERM); // a group leader already
        pid_t q;
        CHILD(q) {
            CHECK_EQ(getsid(0), me);
            CHECK_EQ(getpgrp(), me);
        }
        JOIN(q);
    }
    JOIN(p);
}

TEST(setpgid_rules) {
    pid_t p, q;
    int g[2];
    OK(pipe(g));
    CHILD(p) gate_wait(g[0]);
    OK(setpgid(p, p));
    CHECK_EQ(getpgid(p), p);
    CHILD(q) gate_wait(g[0]);
    OK(setpgid(q, p)); // joins
    CHECK_EQ(getpgid(q), p);
    OK(setpgid(q, 0)); // its own
    CHECK_EQ(getpgid(q), q);
    CHECK_ERRNO(setpgid(q, 999999), EPERM);
    CHECK_ERRNO(setpgid(q, -1), EINVAL);
    CHECK_ERRNO(setpgid(999999, 0), ESRCH);
    CHECK_ERRNO(setpgid(getppid(), 0), ESRCH); // not a child
    gate_open(g[1]), gate_open(g[1]);
    JOIN(p);
    JOIN(q);
}

HELPER(waits) {
    gate_open(1);
    char c;
    return read(0, &c, 1) != 0;
}

TEST(setpgid_after_exec_is_eacces) {
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    pid_t p;
    CHILD(p) {
        dup2(g[1], 1), dup2(h[0], 0);
        close(h[1]);
        execl(SELF, SELF, "--helper=waits", (char *)0);
    }
    gate_wait(g[0]);
    CHECK_ERRNO(setpgid(p, p), EACCES);
    close(h[1]);
    JOIN(p);
}

TEST(setpgid_of_other_session_is_eperm) {
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    pid_t p;
    CHILD(p) {
        OK(setsid());
        gate_open(g[1]);
        gate_wait(h[0]);
    }
    gate_wait(g[0]);
    CHECK_ERRNO(setpgid(p, 0), EPERM);
    CHECK_ERRNO(setpgid(0, p), EPERM);
    CHECK_EQ(getsid(p), p);
    gate_open(h[1]);
    JOIN(p);
}

TEST(group_lives_while_it_has_members) {
    pid_t p, q;
    int g[2];
    OK(pipe(g));
    CHILD(p) gate_wait(g[0]);
    OK(setpgid(p, p));
    CHILD(q) for (;;) pause();
    OK(setpgid(q, p));
    gate_open(g[1]);
    JOIN(p); // the leader is gone
    CHECK_EQ(getpgid(q), p);
    OK(kill(-p, SIGTERM));
    CHECK_EQ(WAIT(q), SIGTERM);
    CHECK_ERRNO(kill(-p, 0), ESRCH);
}

TEST(getters_errnos) {
    CHECK_ERRNO(getpgid(999999), ESRCH);
    CHECK_ERRNO(getsid(999999), ESRCH);
    CHECK_ERRNO(getpgid(-1), ESRCH);
    CHECK_EQ(getpgid(0), getpgrp());
    CHECK_EQ(getsid(getpid()), getsid(0));
}

TEST(leader_exit_keeps_session) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p;
    int fd[2];
    OK(pipe(fd));
    CHILD(p) {
        pid_t sid = OK(setsid());
        if (!OK(fork())) {
            while (getppid() == sid) usleep(500);
            pid_t s = getsid(0);
            OK(write(fd[1], &s, sizeof s));
            _exit(0);
        }
    }
    JOIN(p);
    pid_t s;
    CHECK_EQ(read(fd[0], &s, sizeof s), sizeof s);
    CHECK_EQ(s, p);
    CHECK(wait(0) > 0);
}

TEST(kill_minus_one_spares_itself) {
    NEED_ROOT();
    // As another user: reaches only that user's processes.
    pid_t p;
    CHILD(p) {
        OK(setresuid(31337, 31337, 31337));
        pid_t q;
        int g[2];
        OK(pipe(g));
        CHILD(q) {
            gate_open(g[1]);
            for (;;) pause();
        }
        gate_wait(g[0]);
        OK(kill(-1, SIGUSR1));
        CHECK_EQ(WAIT(q), SIGUSR1);
        OK(kill(-1, SIGUSR1)); // others are there, if out of reach: no error
    }
    JOIN(p);
}

TEST(proc_stat_shows_ids) {
    pid_t p;
    CHILD(p) {
        OK(setsid());
        char buf[1024];
        CHECK(read_file("/proc/self/stat", buf, sizeof buf) > 0);
        int ppid, pgrp, sid, tty, tpgid;
        char st;
        CHECK_EQ(sscanf(strrchr(buf, ')') + 2, "%c %d %d %d %d %d", &st, &ppid, &pgrp, &sid, &tty, &tpgid), 6);
        CHECK_EQ(ppid, getppid());
        CHECK_EQ(pgrp, getpid());
        CHECK_EQ(sid, getpid());
        CHECK_EQ(tty, 0);
        CHECK_EQ(tpgid, -1);
    }
    JOIN(p);
}

TEST(dev_tty_without_terminal) {
    pid_t p;
    CHILD(p) {
        OK(setsid());
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
    }
    JOIN(p);
}
