// Pid, UTS and other namespaces; setns; hostname.
#include "compat.h"
#include <sys/utsname.h>

static void allowed(int flag) {
    pid_t p;
    CHILD(p) _exit(unshare(flag) ? 1 : 0);
    if (WAIT(p)) SKIP("this namespace is not allowed here");
}

static ino_t ns(const char *name) {
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    OK(stat(path, &st));
    return st.st_ino;
}

TEST(ns_links) {
    const char *names[] = {"ipc", "mnt", "net", "pid", "user", "uts"};
    for (unsigned i = 0; i < 6; i++) {
        char path[64], link[64], want[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        ssize_t n = OK(readlink(path, link, 63));
        link[n] = 0;
        snprintf(want, sizeof want, "%s:[%lu]", names[i], ns(names[i]));
        CHECK_STR(link, want);
    }
    ino_t a = ns("uts");
    pid_t p;
    CHILD(p) CHECK_EQ(ns("uts"), a);
    JOIN(p);
}

TEST(pid_namespace_first_process_is_1) {
    allowed(CLONE_NEWPID);
    pid_t p;
    CHILD(p) {
        pid_t me = getpid(), q;
        OK(unshare(CLONE_NEWPID));
        CHECK_EQ(getpid(), me); // only children are in it
        CHILD(q) {
            CHECK_EQ(getpid(), 1);
            CHECK_EQ(getppid(), 0);
            pid_t r;
            CHILD(r) {
                CHECK_EQ(getpid(), 2);
                CHECK_EQ(getppid(), 1);
            }
            CHECK_EQ(r, 2);
            JOIN(r);
        }
        CHECK(q > 2);
        JOIN(q);
        CHECK_ERRNO(fork(), ENOMEM); // its init is gone
    }
    JOIN(p);
}

TEST(pid_namespace_init_dies_all_die) {
    allowed(CLONE_NEWPID);
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWPID));
        pid_t q;
        CHILD(q) {
            for (int i = 0; i < 3; i++)
                if (!OK(fork())) {
                    close(fd[0]);
                    for (;;) pause();
                }
            _exit(7);
        }
        CHECK_EQ(WAIT(q), W_EXIT(7));
    }
    close(fd[1]);
    JOIN(p);
    char c;
    CHECK_EQ(read(fd[0], &c, 1), 0); // none of them holds the pipe
}

TEST(pid_namespace_orphans_go_to_its_init) {
    allowed(CLONE_NEWPID);
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWPID));
        pid_t q;
        CHILD(q) {
            int g[2];
            OK(pipe(g));
            pid_t r;
            CHILD(r) {
                if (!OK(fork())) {
                    gate_wait(g[0]);
                    CHECK_EQ(getppid(), 1);
                    _exit(3);
                }
            }
            JOIN(r);
            gate_open(g[1]);
            CHECK_EQ(WAIT(-1 == 0 ? 0 : 3), W_EXIT(3)); // pid 3, adopted
        }
        JOIN(q);
    }
    JOIN(p);
}

TEST(pid_namespace_init_ignores_signals) {
    allowed(CLONE_NEWPID);
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWPID));
        pid_t q;
        int g[2];
        OK(pipe(g));
        CHILD(q) {
            kill(1, SIGTERM); // from inside: no handler, no effect
            kill(1, SIGKILL);
            pid_t r;
            CHILD(r) {
                OK(kill(1, SIGKILL));
                OK(kill(1, SIGTERM));
            }
            JOIN(r);
            gate_open(g[1]);
            for (;;) pause();
        }
        gate_wait(g[0]);
        OK(kill(q, SIGTERM)); // also from outside
        usleep(2000);
        CHECK_EQ(waitpid(q, 0, WNOHANG), 0);
        OK(kill(q, SIGKILL)); // but this works from outside
        CHECK_EQ(WAIT(q), SIGKILL);
    }
    JOIN(p);
}

TEST(pid_namespace_hides_outside) {
    allowed(CLONE_NEWPID);
    pid_t p, outer = getpid();
    CHILD(p) {
        OK(unshare(CLONE_NEWPID));
        pid_t q;
        CHILD(q) {
            CHECK_ERRNO(kill(outer, 0), ESRCH);
            CHECK_ERRNO(getpgid(outer), ESRCH);
            CHECK_EQ(getpgrp(), 0); // a group from outside has no number here
            OK(setsid());
            CHECK_EQ(getpgrp(), 1);
        }
        JOIN(q);
    }
    JOIN(p);
}

TEST(siginfo_pid_is_translated) {
    allowed(CLONE_NEWPID);
    pid_t p;
    CHILD(p) {
        sigset_t set = sigs(SIGUSR1, SIGCHLD, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        pid_t outer = getpid();
        OK(unshare(CLONE_NEWPID));
        pid_t q;
        siginfo_t si;
        CHILD(q) {
            set = sigs(SIGUSR1, 0, 0);
            CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
            CHECK_EQ(si.si_pid, 0); // the sender is not visible here
            _exit(outer & 1);
        }
        OK(kill(q, SIGUSR1));
        set = sigs(SIGCHLD, 0, 0);
        CHECK_EQ(sigwaitinfo(&set, &si), SIGCHLD);
        CHECK_EQ(si.si_pid, q);
    }
    JOIN(p);
}

TEST(hostname_and_uts) {
    allowed(CLONE_NEWUTS);
    struct utsname before, u;
    OK(uname(&before));
    CHECK_STR(before.sysname, "Linux");
    CHECK_STR(before.machine, "x86_64");
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("new-name", 8));
        OK(setdomainname("new.domain", 10));
        OK(uname(&u));
        CHECK_STR(u.nodename, "new-name");
        CHECK_STR(u.domainname, "new.domain");
        char buf[80], n65[66];
        CHECK(read_file("/proc/sys/kernel/hostname", buf, sizeof buf) > 0);
        CHECK_STR(buf, "new-name\n");
        memset(n65, 'a', 65);
        CHECK_ERRNO(sethostname(n65, 65), EINVAL);
        OK(sethostname(n65, 64));
        CHECK_ERRNO(sethostname(n65, -1), EINVAL);
        CHECK_ERRNO(sethostname((char *)8, 5), EFAULT);
    }
    JOIN(p);
    OK(uname(&u));
    CHECK_STR(u.nodename, before.nodename);
}

TEST(sethostname_needs_a_capability) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(sethostname("x", 1), EPERM);
        CHECK_ERRNO(setdomainname("x", 1), EPERM);
        CHECK_ERRNO(unshare(CLONE_NEWUTS), EPERM);
        CHECK_ERRNO(unshare(CLONE_NEWNS), EPERM);
    }
    JOIN(p);
}

TEST(setns_to_another_uts) {
    allowed(CLONE_NEWUTS);
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    pid_t p, q;
    CHILD(p) {
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("theirs", 6));
        gate_open(g[1]);
        gate_wait(h[0]);
    }
    gate_wait(g[0]);
    CHILD(q) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/uts", p);
        int fd = OK(open(path, O_RDONLY)), null = OK(open("/dev/null", O_RDONLY));
        CHECK_ERRNO(setns(fd, CLONE_NEWIPC), EINVAL);
        OK(setns(fd, CLONE_NEWUTS));
        struct utsname u;
        OK(uname(&u));
        CHECK_STR(u.nodename, "theirs");
        CHECK_ERRNO(setns(null, 0), EINVAL);
        CHECK_ERRNO(setns(999, 0), EBADF);
    }
    JOIN(q);
    gate_open(h[1]);
    JOIN(p);
}

TEST(ipc_namespace_separates) {
    allowed(CLONE_NEWIPC);
    int key = 0x4321000 + (getpid() & 0xfff);
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWIPC));
        int id = OK(syscall(SYS_shmget, key, 4096, 01000 | 0600));
        CHECK_EQ(syscall(SYS_shmget, key, 4096, 0), id);
        if (!OK(fork())) _exit(syscall(SYS_shmget, key, 4096, 0) == id ? 0 : 1);
        int s;
        OK(wait(&s));
        CHECK_EQ(s, 0);
    }
    JOIN(p);
    CHECK_ERRNO(syscall(SYS_shmget, key, 4096, 0), ENOENT);
}

TEST(unshare_errnos) {
    CHECK_ERRNO(unshare(0x1), EINVAL);
    CHECK_ERRNO(unshare(CLONE_VFORK), EINVAL);
    OK(unshare(0));
    OK(unshare(CLONE_FS | CLONE_FILES | CLONE_SYSVSEM));
}

TEST(an_init_outlives_what_its_processes_send) {
    allowed(CLONE_NEWPID);
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWPID));
        pid_t init;
        CHILD(init) {
            pid_t inside;
            CHILD(inside) {
                // The sender's number is whatever it says; 0 is what a sender from outside would have.
                siginfo_t info = {0};
                info.si_signo = SIGKILL;
                info.si_code = SI_QUEUE;
                OK(syscall(SYS_rt_sigqueueinfo, 1, SIGKILL, &info));
                info.si_signo = SIGSTOP;
                OK(syscall(SYS_rt_sigqueueinfo, 1, SIGSTOP, &info));
                OK(kill(1, SIGKILL));
                OK(syscall(SYS_tkill, 1, SIGKILL));
                timer_t timer;
                struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
                OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
            }
            JOIN(inside);
            // One that does it to itself, by way of a timer and of a file.
            timer_t timer;
            struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
            OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
            struct itimerspec soon = {.it_value = {0, 1}};
            OK(syscall(SYS_timer_settime, timer, 0, &soon, 0));
            usleep(20000);
            // A child's last signal is its parent's death, or it would be.
            pid_t last = OK(syscall(SYS_clone, SIGKILL, 0, 0, 0, 0));
            if (last == 0) _exit(0);
            OK(waitpid(last, 0, __WALL));
            usleep(20000);
        }
        JOIN(init);
    }
    JOIN(p);
}

TEST(a_namespace_whose_first_fork_fails_has_no_processes) {
    allowed(CLONE_NEWPID);
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWPID));
        // There is nowhere to write the descriptor.
        CHECK_ERRNO(syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, (int *)1, 0, 0), EFAULT);
        CHECK_ERRNO(fork(), ENOMEM);
        CHECK_ERRNO(fork(), ENOMEM);
    }
    JOIN(p);
}
