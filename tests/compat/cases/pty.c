// Pseudo-terminals in detail: states of both ends, sessions, requests of ioctl, devpts. See also tty.c.
#include "compat.h"
#include <asm/ioctls.h>
#include <dirent.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <termios.h>

static int m, s;

static void pair(void) {
    m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    OK(unlockpt(m));
    s = OK(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY));
}
static struct termios get(void) {
    struct termios t;
    OK(tcgetattr(s, &t));
    return t;
}
static void raw(int min, int time) {
    struct termios t = get();
    cfmakeraw(&t);
    t.c_cc[VMIN] = min, t.c_cc[VTIME] = time;
    OK(tcsetattr(s, TCSANOW, &t));
}
static void change(tcflag_t off, tcflag_t on) {
    struct termios t = get();
    t.c_lflag = (t.c_lflag & ~off) | on;
    OK(tcsetattr(s, TCSANOW, &t));
}
#define PUT(fd, text) CHECK_EQ(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1)
#define GET(fd, text)                                                                                                  \
    do {                                                                                                               \
        char b_[256];                                                                                                  \
        ssize_t n_ = 0, r_ = 0;                                                                                        \
        do n_ += r_ = OK(read(fd, b_ + n_, sizeof b_ - 1 - n_));                                                       \
        while (r_ > 0 && fd == m && n_ < (ssize_t)sizeof text - 1);                                                    \
        b_[n_] = 0;                                                                                                    \
        CHECK_STR(b_, text);                                                                                           \
    } while (0)
static short events(int fd, short asked) {
    struct pollfd p = {fd, asked, 0};
    return OK(poll(&p, 1, 0)) ? p.revents : 0;
}
// What passes through a worker of the kernel is there a little later.
static void wait_for(int fd, short what) {
    struct pollfd p = {fd, what, 0};
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK_EQ(p.revents & what, what);
}
#define ALL (POLLIN | POLLOUT | POLLPRI | POLLRDNORM | POLLWRNORM)

// A child that leads a session with `s` as its terminal, and has not the master.
#define LEADER(p) for (p = OK(fork()); p == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL), lead(), true); _exit(0))
static void lead(void) {
    OK(setsid());
    OK(ioctl(s, TIOCSCTTY, 0));
    OK(close(m));
}
static volatile int got;
static void note(int sig) { got = sig; }

TEST(before_the_first_open) {
    m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK));
    CHECK_EQ(events(m, ALL), POLLOUT | POLLWRNORM);
    char c;
    CHECK_ERRNO(read(m, &c, 1), EAGAIN);
    int locked = 0;
    OK(ioctl(m, TIOCGPTLCK, &locked));
    CHECK_EQ(locked, 1);
    OK(unlockpt(m));
    OK(ioctl(m, TIOCGPTLCK, &locked));
    CHECK_EQ(locked, 0);
    PUT(m, "early\n"); // waits for who opens it
    s = OK(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    GET(s, "early\n");
}

TEST(poll_states) {
    pair();
    CHECK_EQ(events(s, ALL), POLLOUT | POLLWRNORM);
    PUT(m, "x"); // no line yet
    GET(m, "x");
    CHECK_EQ(events(s, ALL), POLLOUT | POLLWRNORM);
    PUT(m, "\n");
    wait_for(s, POLLIN);
    CHECK_EQ(events(s, ALL), POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
    wait_for(m, POLLIN);
    CHECK_EQ(events(m, ALL), POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
    OK(close(m));
    CHECK_EQ(events(s, ALL), (ALL & ~POLLPRI) | POLLERR | POLLHUP);
}

TEST(vmin_counts_for_poll) {
    pair();
    raw(3, 0);
    PUT(m, "ab");
    OK(fcntl(s, F_SETFL, O_NONBLOCK));
    CHECK_EQ(events(s, POLLIN), 0);
    PUT(m, "c");
    wait_for(s, POLLIN);
    raw(3, 1);
    char b[8];
    CHECK_EQ(read(s, b, 8), 3);
    PUT(m, "d");
    wait_for(s, POLLIN); // with VTIME one is enough
    CHECK_EQ(read(s, b, 8), 1);
    CHECK_ERRNO(read(s, b, 8), EAGAIN);
    raw(0, 0);
    CHECK_EQ(read(s, b, 8), 0);
}

TEST(epoll_edges) {
    pair();
    raw(1, 0);
    int e = OK(epoll_create1(0));
    struct epoll_event ev = {EPOLLIN | EPOLLET, {0}};
    OK(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    CHECK_EQ(epoll_wait(e, &ev, 1, 0), 0);
    PUT(m, "a");
    CHECK_EQ(epoll_wait(e, &ev, 1, 9000), 1);
    CHECK_EQ(epoll_wait(e, &ev, 1, 0), 0);
    PUT(m, "b");
    CHECK_EQ(epoll_wait(e, &ev, 1, 9000), 1);
    OK(close(m));
    CHECK_EQ(epoll_wait(e, &ev, 1, 9000), 1);
    CHECK(ev.events & EPOLLHUP);
}

TEST(time_between_bytes) {
    pair();
    raw(5, 1);
    char b[8];
    PUT(m, "ab");
    int64_t t0 = now_ms();
    CHECK_EQ(read(s, b, 8), 2);
    CHECK(now_ms() - t0 >= 80);
}

TEST(signal_ends_read_with_what_there_is) {
    pair();
    raw(3, 0);
    handle(SIGUSR1, note, 0);
    pid_t me = getpid(), p;
    PUT(m, "ab");
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGUSR1));
    }
    char b[8];
    CHECK_EQ(read(s, b, 8), 2);
    CHECK_EQ(got, SIGUSR1);
    JOIN(p);
    CHILD(p) {
        wait_asleep(me);
        OK(kill(me, SIGUSR1));
    }
    CHECK_ERRNO(read(s, b, 8), EINTR);
    JOIN(p);
}

TEST(blocked_calls_end_when_master_closes) {
    pair();
    pid_t p, q;
    PUT(m, "\x13\n"); // ^S
    wait_for(s, POLLIN);
    GET(s, "\n");
    CHILD(p) {
        OK(close(m));
        char c;
        CHECK_ERRNO(read(s, &c, 1), EIO);
        CHECK_EQ(read(s, &c, 1), 0);
    }
    CHILD(q) {
        OK(close(m));
        CHECK_ERRNO(write(s, "x", 1), EIO);
    }
    wait_asleep(p);
    wait_asleep(q);
    OK(close(m));
    JOIN(p);
    JOIN(q);
}

TEST(requests_after_hangup) {
    pair();
    OK(close(m));
    struct termios t;
    struct winsize w;
    CHECK_ERRNO(tcgetattr(s, &t), EIO);
    CHECK_ERRNO(ioctl(s, TIOCGWINSZ, &w), EIO);
    CHECK_ERRNO(ioctl(s, TIOCSCTTY, 0), EIO);
    CHECK_ERRNO(tcsetpgrp(s, getpid()), ENOTTY);
    struct stat st;
    OK(fstat(s, &st));
    CHECK_EQ(st.st_nlink, 0);
    CHECK_EQ(major(st.st_rdev), 136);
}

TEST(vhangup_kills_open_files_only) {
    NEED_ROOT();
    pair();
    char name[64];
    CHECK_EQ(ptsname_r(m, name, sizeof name), 0);
    change(ECHO, 0);
    struct winsize w = {5, 6, 7, 8};
    OK(ioctl(s, TIOCSWINSZ, &w));
    OK(ioctl(s, TIOCVHANGUP, 0));
    char c;
    CHECK_EQ(read(s, &c, 1), 0);
    CHECK_ERRNO(write(s, "x", 1), EIO);
    OK(close(s));
    s = OK(open(name, O_RDWR | O_NOCTTY));
    CHECK(get().c_lflag & ECHO); // settings are new
    memset(&w, 0, sizeof w);
    OK(ioctl(s, TIOCGWINSZ, &w));
    CHECK_EQ(w.ws_row, 5);
    PUT(s, "again");
    GET(m, "again");
}

TEST(vhangup_of_the_own_terminal) {
    NEED_ROOT();
    pair();
    pid_t p;
    LEADER(p) {
        handle(SIGHUP, note, 0);
        OK(syscall(SYS_vhangup));
        CHECK_EQ(got, SIGHUP);
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        char c;
        CHECK_EQ(read(s, &c, 1), 0);
    }
    JOIN(p);
}

TEST(master_close_tells_the_leader_only) {
    pair();
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p, *q = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    LEADER(p) {
        sigset_t set = sigs(SIGHUP, SIGCONT, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        if (!(*q = OK(fork()))) {
            *q = getpid();
            handle(SIGTTOU, SIG_IGN, 0);
            OK(setpgid(0, 0));
            OK(tcsetpgrp(s, getpid()));
            gate_open(g[1]);
            siginfo_t si;
            // Not at the hangup, but when the leader ends.
            CHECK_EQ(sigwaitinfo(&set, &si), SIGHUP);
            CHECK_EQ(OK(read(h[0], &(char){0}, 1)), 1);
            CHECK_EQ(sigwaitinfo(&set, &si), SIGCONT);
            _exit(0);
        }
        siginfo_t si;
        CHECK_EQ(sigwaitinfo(&set, &si), SIGHUP);
        CHECK_EQ(sigwaitinfo(&set, &si), SIGCONT);
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        gate_open(h[1]);
    }
    gate_wait(g[0]);
    OK(close(m));
    JOIN(p);
    JOIN(*q);
}

TEST(orphans_get_eio) {
    pair();
    int g[2];
    OK(pipe(g));
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p, *q = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    LEADER(p) {
        pid_t k;
        CHILD(k) {
            OK(setpgid(0, 0));
            pid_t parent = getpid();
            if (!(*q = OK(fork()))) {
                *q = getpid();
                while (getppid() == parent) usleep(500);
                char c;
                CHECK_ERRNO(read(s, &c, 1), EIO);
                struct termios t = get();
                CHECK_ERRNO(tcsetattr(s, TCSANOW, &t), EIO);
                CHECK_ERRNO(tcsetpgrp(s, getpgrp()), ENOTTY);
                gate_open(g[1]);
                _exit(0);
            }
        }
        JOIN(k);
        gate_wait(g[0]);
    }
    JOIN(p);
    JOIN(*q);
}

TEST(blocked_signals_of_the_background) {
    pair();
    pid_t p, q;
    LEADER(p) {
        CHILD(q) {
            OK(setpgid(0, 0));
            sigset_t set = sigs(SIGTTIN, SIGTTOU, 0);
            OK(sigprocmask(SIG_BLOCK, &set, 0));
            char c;
            CHECK_ERRNO(read(s, &c, 1), EIO);
            struct termios t = get();
            OK(tcsetattr(s, TCSANOW, &t));
            change(0, TOSTOP);
            OK(write(s, "x", 1));
            OK(tcsetpgrp(s, getpid()));
        }
        JOIN(q);
    }
    JOIN(p);
}

TEST(stopped_background_process_goes_on) {
    pair();
    pid_t p, q;
    PUT(m, "for you\n");
    LEADER(p) {
        handle(SIGTTOU, SIG_IGN, 0);
        CHILD(q) {
            OK(setpgid(0, 0));
            char b[16];
            CHECK_EQ(read(s, b, 16), 8); // begins in the background
        }
        int st;
        CHECK_EQ(waitpid(q, &st, WUNTRACED), q);
        CHECK_EQ(st, W_STOP(SIGTTIN));
        OK(tcsetpgrp(s, q));
        OK(kill(-q, SIGCONT));
        JOIN(q);
    }
    JOIN(p);
}

TEST(terminal_belongs_to_processes) {
    pair();
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    pid_t p;
    CHILD(p) {
        OK(setsid());
        pid_t q, r;
        CHILD(q) {
            gate_wait(g[0]);
            // Its parent has got one meanwhile; it has not.
            CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
            CHECK_ERRNO(tcgetpgrp(s), ENOTTY);
            gate_open(h[1]);
        }
        OK(ioctl(s, TIOCSCTTY, 0));
        gate_open(g[1]);
        gate_wait(h[0]);
        CHILD(r) {
            OK(close(OK(open("/dev/tty", O_RDWR))));
            OK(setsid());
            CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        }
        JOIN(q);
        JOIN(r);
        CHECK_EQ(tcgetsid(s), getpid());
        CHECK_EQ(tcgetpgrp(m), getpid()); // the master tells, too
        CHECK_EQ(tcgetsid(m), getpid());
    }
    JOIN(p);
    CHECK_EQ(OK(tcgetpgrp(m)), 0);
    CHECK_ERRNO(tcgetsid(m), ENOTTY);
}

TEST(leader_gives_up_terminal) {
    pair();
    pid_t p;
    LEADER(p) {
        handle(SIGHUP, note, 0);
        pid_t q;
        int g[2];
        OK(pipe(g));
        CHILD(q) {
            sigset_t set = sigs(SIGHUP, SIGCONT, 0), none = sigs(0, 0, 0);
            OK(sigprocmask(SIG_BLOCK, &set, 0));
            gate_open(g[1]);
            int sig;
            CHECK_EQ(sigwait(&set, &sig), 0);
            CHECK_EQ(sig, SIGHUP);
            CHECK_EQ(sigwait(&set, &sig), 0);
            CHECK_EQ(sig, SIGCONT);
            CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
            (void)none;
        }
        gate_wait(g[0]);
        OK(ioctl(s, TIOCNOTTY, 0));
        CHECK_EQ(got, SIGHUP);
        CHECK_ERRNO(ioctl(s, TIOCNOTTY, 0), ENOTTY);
        CHECK_ERRNO(tcgetpgrp(s), ENOTTY);
        JOIN(q);
        OK(ioctl(s, TIOCSCTTY, 0)); // and back
        CHECK_EQ(tcgetpgrp(s), getpid());
    }
    JOIN(p);
}

TEST(stealing_a_terminal) {
    NEED_ROOT();
    pair();
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    pid_t p, q;
    LEADER(p) {
        gate_open(g[1]);
        gate_wait(h[0]);
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
    }
    gate_wait(g[0]);
    CHILD(q) {
        OK(setsid());
        CHECK_ERRNO(ioctl(s, TIOCSCTTY, 0), EPERM);
        OK(ioctl(s, TIOCSCTTY, 1));
        CHECK_EQ(tcgetsid(s), getpid());
    }
    JOIN(q);
    gate_open(h[1]);
    JOIN(p);
}

TEST(write_only_open_is_no_claim) {
    pair();
    char name[64];
    CHECK_EQ(ptsname_r(m, name, sizeof name), 0);
    pid_t p;
    CHILD(p) {
        OK(setsid());
        OK(open(name, O_WRONLY));
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        OK(open("/dev/ptmx", O_RDWR)); // a master is nobody's terminal
        CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        int t = OK(open(name, O_RDONLY));
        CHECK_EQ(tcgetpgrp(t), getpid());
    }
    JOIN(p);
}

TEST(foreground_by_number_of_a_process) {
    pair();
    pid_t p, q;
    LEADER(p) {
        int h[2];
        OK(pipe(h));
        CHILD(q) gate_wait(h[0]);
        OK(tcsetpgrp(s, q)); // leads no group
        handle(SIGTTOU, SIG_IGN, 0);
        CHECK_EQ(tcgetpgrp(s), q);
        OK(tcsetpgrp(s, getpgrp()));
        CHECK_ERRNO(ioctl(s, TIOCSPGRP, (void *)8), EFAULT);
        CHECK_ERRNO(tcsetpgrp(s, 0), ESRCH);
        gate_open(h[1]);
        JOIN(q);
    }
    JOIN(p);
}

TEST(same_size_is_no_change) {
    pair();
    pid_t p;
    int g[2], h[2];
    OK(pipe(g)), OK(pipe(h));
    struct winsize w = {10, 20, 0, 0};
    OK(ioctl(m, TIOCSWINSZ, &w));
    LEADER(p) {
        handle(SIGWINCH, note, SA_RESTART);
        gate_open(g[1]);
        gate_wait(h[0]);
        CHECK_EQ(got, 0);
        OK(ioctl(s, TIOCSWINSZ, &(struct winsize){10, 21, 0, 0}));
        CHECK_EQ(got, SIGWINCH);
    }
    gate_wait(g[0]);
    OK(ioctl(m, TIOCSWINSZ, &w));
    gate_open(h[1]);
    JOIN(p);
}

TEST(exclusive) {
    NEED_ROOT();
    pair();
    char name[64];
    CHECK_EQ(ptsname_r(m, name, sizeof name), 0);
    OK(chmod(name, 0666));
    OK(ioctl(s, TIOCEXCL, 0));
    int on = 0;
    OK(ioctl(s, TIOCGEXCL, &on));
    CHECK_EQ(on, 1);
    OK(close(OK(open(name, O_RDWR | O_NOCTTY))));
    pid_t p;
    CHILD(p) {
        OK(setresuid(31337, 31337, 31337));
        CHECK_ERRNO(open(name, O_RDWR | O_NOCTTY), EBUSY);
    }
    JOIN(p);
    OK(ioctl(s, TIOCNXCL, 0));
    CHILD(p) {
        OK(setresuid(31337, 31337, 31337));
        OK(open(name, O_RDWR | O_NOCTTY));
    }
    JOIN(p);
}

TEST(signals_from_the_master) {
    pair();
    pid_t p;
    int g[2];
    OK(pipe(g));
    LEADER(p) {
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    CHECK_ERRNO(ioctl(m, TIOCSIG, SIGTERM), EINVAL);
    CHECK_ERRNO(ioctl(s, TIOCSIG, SIGINT), ENOTTY);
    OK(ioctl(m, TIOCSIG, SIGQUIT));
    CHECK_EQ(WAIT(p) & 0x7f, SIGQUIT);
}

TEST(peer_flags) {
    pair();
    CHECK_EQ(OK(fcntl(s, F_GETFD)), 0);
    int t = OK(ioctl(m, TIOCGPTPEER, O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    CHECK_EQ(OK(fcntl(t, F_GETFD)), FD_CLOEXEC);
    CHECK_EQ(OK(fcntl(t, F_GETFL)) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
    CHECK_ERRNO(write(t, "x", 1), EBADF);
    CHECK_ERRNO(ioctl(s, TIOCGPTPEER, O_RDWR), EIO);
    int n = 0;
    CHECK_ERRNO(ioctl(s, TIOCGPTN, &n), ENOTTY);
    CHECK_ERRNO(ioctl(s, TIOCSPTLCK, &n), ENOTTY);
    CHECK_ERRNO(ioctl(s, TIOCPKT, &n), ENOTTY);
}

TEST(counts_of_bytes) {
    pair();
    change(ECHO, 0);
    int n = -1;
    PUT(m, "abc\nde\x04" "f");
    wait_for(s, POLLIN);
    for (int i = 0; i < 5000 && n != 6; i++) OK(ioctl(s, FIONREAD, &n)), usleep(1000);
    CHECK_EQ(n, 6); // whole lines only, and no end of file
    PUT(s, "output");
    wait_for(m, POLLIN);
    OK(ioctl(m, FIONREAD, &n));
    CHECK_EQ(n, 6);
    OK(ioctl(s, TIOCOUTQ, &n));
    CHECK_EQ(n, 0);
    OK(ioctl(m, TIOCOUTQ, &n));
    CHECK_EQ(n, 0);
}

TEST(settings_in_all_forms) {
    pair();
    struct { unsigned c_iflag, c_oflag, c_cflag, c_lflag; unsigned char c_line, c_cc[19]; unsigned i, o; } t2;
    OK(ioctl(s, 0x802c542a /* TCGETS2 */, &t2));
    CHECK_EQ(t2.i, 38400);
    CHECK_EQ(t2.o, 38400);
    t2.c_cflag = (t2.c_cflag & ~CBAUD) | 0010000 /* BOTHER */;
    t2.o = 12345, t2.i = 99;
    OK(ioctl(s, 0x402c542b /* TCSETS2 */, &t2));
    memset(&t2, 0, sizeof t2);
    OK(ioctl(s, 0x802c542a /* TCGETS2 */, &t2));
    CHECK_EQ(t2.o, 12345);
    CHECK_EQ(t2.i, 12345); // no speed of its own for input
    struct termios t = get();
    cfsetspeed(&t, B9600);
    t.c_cflag = (t.c_cflag & ~CSIZE) | CS5 | PARENB;
    OK(tcsetattr(s, TCSADRAIN, &t));
    CHECK_EQ(get().c_cflag & (CSIZE | PARENB), CS8); // there is no wire
    OK(ioctl(s, 0x802c542a /* TCGETS2 */, &t2));
    CHECK_EQ(t2.o, 9600);
    struct { unsigned short c_iflag, c_oflag, c_cflag, c_lflag; unsigned char c_line, c_cc[8]; } t1;
    OK(ioctl(s, 0x5405 /* TCGETA */, &t1));
    CHECK_EQ(t1.c_lflag, get().c_lflag & 0xffff);
    t1.c_lflag &= ~ECHO;
    t1.c_cc[0] = 7;
    OK(ioctl(s, 0x5406 /* TCSETA */, &t1));
    CHECK_EQ(get().c_lflag & ECHO, 0);
    CHECK_EQ(get().c_cc[VINTR], 7);
    struct termios via_master;
    OK(tcgetattr(m, &via_master));
    CHECK_EQ(via_master.c_cc[VINTR], 7);
    via_master.c_cc[VINTR] = 3;
    OK(tcsetattr(m, TCSANOW, &via_master)); // they are the terminal's
    CHECK_EQ(get().c_cc[VINTR], 3);
    CHECK_ERRNO(ioctl(s, TCSETS, (void *)8), EFAULT);
    int n = 7;
    OK(ioctl(s, TIOCGETD, &n));
    CHECK_EQ(n, 0);
    OK(ioctl(s, TIOCSETD, &n));
    n = 99;
    CHECK_ERRNO(ioctl(s, TIOCSETD, &n), EINVAL);
    CHECK_ERRNO(ioctl(s, TIOCMGET, &n), ENOTTY);
    CHECK_ERRNO(ioctl(s, 0x4b3a /* KDSETMODE */, 0), ENOTTY);
    OK(tcsendbreak(s, 0));
    unsigned dev = 0;
    OK(ioctl(m, TIOCGDEV, &dev));
    struct stat st;
    OK(fstat(s, &st));
    CHECK_EQ(dev, st.st_rdev);
}

TEST(flow_by_request) {
    pair();
    raw(1, 0);
    OK(fcntl(s, F_SETFL, O_NONBLOCK)), OK(fcntl(m, F_SETFL, O_NONBLOCK));
    OK(tcflow(s, TCOOFF));
    CHECK_ERRNO(write(s, "x", 1), EAGAIN);
    CHECK_EQ(events(s, POLLOUT), 0);
    OK(tcflow(s, TCOON));
    CHECK_EQ(write(s, "x", 1), 1);
    wait_for(m, POLLIN);
    GET(m, "x");
    OK(tcflow(s, TCIOFF));
    wait_for(m, POLLIN);
    GET(m, "\x13");
    OK(tcflow(s, TCION));
    wait_for(m, POLLIN);
    GET(m, "\x11");
    CHECK_ERRNO(tcflow(s, 9), EINVAL);
    OK(tcflow(m, TCOOFF));
    CHECK_ERRNO(write(m, "y", 1), EAGAIN);
    OK(tcflow(m, TCOON));
    CHECK_EQ(write(m, "y", 1), 1);
    wait_for(s, POLLIN);
    GET(s, "y");
}

TEST(packet_states) {
    pair();
    int on = 1;
    char b[16];
    OK(ioctl(m, TIOCPKT, &on));
    on = 0;
    OK(ioctl(m, TIOCGPKT, &on));
    CHECK_EQ(on, 1);
    OK(tcflow(s, TCOOFF));
    CHECK_EQ(events(m, POLLIN | POLLPRI), POLLIN | POLLPRI);
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_STOP);
    OK(tcflow(s, TCOON));
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_START);
    struct termios t = get();
    t.c_iflag &= ~IXON;
    OK(tcsetattr(s, TCSANOW, &t));
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_NOSTOP);
    t.c_iflag |= IXON;
    OK(tcsetattr(s, TCSANOW, &t));
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_DOSTOP);
    OK(tcflush(s, TCIOFLUSH));
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE);
    PUT(s, "ab");
    wait_for(m, POLLIN);
    CHECK_EQ(read(m, b, 2), 2);
    CHECK(b[0] == 0 && b[1] == 'a');
    CHECK_EQ(read(m, b, 16), 2);
    CHECK(b[0] == 0 && b[1] == 'b');
    on = 0;
    OK(ioctl(m, TIOCPKT, &on));
    PUT(s, "c");
    GET(m, "c");
}

TEST(editing_by_the_other_end) {
    pair();
    change(0, EXTPROC);
    int on = 1;
    OK(ioctl(m, TIOCPKT, &on));
    char b[16];
    PUT(m, "a\x7f" "b\x03\n");
    wait_for(s, POLLIN);
    GET(s, "a\x7f" "b\x03\n"); // as it is
    change(EXTPROC, 0);
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_IOCTL);
}

TEST(pushing_input) {
    pair();
    change(ECHO, 0);
    char c = '\n';
    int r = ioctl(s, TIOCSTI, &c);
    if (geteuid() == 0 && !r) GET(s, "\n");
    else CHECK(r == 0 || errno == EIO || errno == EPERM);
    if (geteuid()) return;
    pid_t p;
    CHILD(p) {
        OK(setresuid(31337, 31337, 31337));
        CHECK(ioctl(s, TIOCSTI, &c) == -1 && (errno == EIO || errno == EPERM));
    }
    JOIN(p);
}

TEST(opening_again_by_proc) {
    pair();
    char path[64], name[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", s);
    int t = OK(open(path, O_RDWR | O_NOCTTY));
    PUT(t, "same");
    GET(m, "same");
    snprintf(path, sizeof path, "/proc/self/fd/%d", m);
    int other = OK(open(path, O_RDWR | O_NOCTTY)); // a new pair
    int n = -1, k = -1;
    OK(ioctl(m, TIOCGPTN, &n));
    OK(ioctl(other, TIOCGPTN, &k));
    CHECK(n != k);
    CHECK_EQ(ttyname_r(t, name, sizeof name), 0);
    CHECK_MEM(name, "/dev/pts/", 9);
}

TEST(owner_and_mode) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setresuid(31337, 31337, 31337));
        pair();
        struct stat st;
        OK(fstat(s, &st));
        CHECK_EQ(st.st_uid, 31337);
        CHECK_EQ(st.st_mode | 0020, S_IFCHR | 0620); // 0600 or 0620, as it is mounted
        CHECK_EQ(st.st_nlink, 1);
        OK(fchmod(s, 0600));
        OK(fstat(s, &st));
        CHECK_EQ(st.st_mode, S_IFCHR | 0600);
        OK(fchown(s, -1, getegid()));
        CHECK_ERRNO(fchown(s, 0, -1), EPERM);
    }
    JOIN(p);
}

static bool listed(const char *dir, const char *name) {
    DIR *d = opendir(dir);
    CHECK(d);
    struct dirent *e;
    bool found = false;
    while ((e = readdir(d))) found |= !strcmp(e->d_name, name);
    closedir(d);
    return found;
}

static void instance(const char *options) {
    NEED_ROOT();
    if (unshare(CLONE_NEWNS)) SKIP("unshare gives %s", strerrorname_np(errno));
    OK(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0));
    OK(mkdir("pts", 0755));
    OK(mount("devpts", "pts", "devpts", 0, options));
}

TEST(an_instance_has_numbers_of_its_own) {
    instance("newinstance,ptmxmode=0666,mode=0640,gid=7,max=2");
    struct stat st;
    OK(stat("pts/ptmx", &st));
    CHECK_EQ(st.st_rdev, makedev(5, 2));
    CHECK_EQ(st.st_mode, S_IFCHR | 0666);
    OK(stat("pts", &st));
    CHECK_EQ(st.st_mode, S_IFDIR | 0755);
    CHECK_EQ(st.st_nlink, 2);
    struct statfs f;
    OK(statfs("pts", &f));
    CHECK_EQ(f.f_type, 0x1cd1);
    int a = OK(open("pts/ptmx", O_RDWR | O_NOCTTY)), b = OK(open("pts/ptmx", O_RDWR | O_NOCTTY)), n = -1;
    OK(ioctl(a, TIOCGPTN, &n));
    CHECK_EQ(n, 0);
    OK(ioctl(b, TIOCGPTN, &n));
    CHECK_EQ(n, 1);
    CHECK_ERRNO(open("pts/ptmx", O_RDWR | O_NOCTTY), ENOSPC);
    OK(stat("pts/1", &st));
    CHECK_EQ(st.st_mode, S_IFCHR | 0640);
    CHECK_EQ(st.st_gid, 7);
    CHECK_EQ(st.st_rdev, makedev(136, 1));
    CHECK(listed("pts", "0") && listed("pts", "1") && listed("pts", "ptmx") && !listed("pts", "2"));
    OK(unlockpt(a));
    int t = OK(open("pts/0", O_RDWR | O_NOCTTY));
    OK(close(a));
    CHECK_ERRNO(access("pts/0", F_OK), ENOENT);
    CHECK(!listed("pts", "0"));
    CHECK_ERRNO(open("pts/ptmx", O_RDWR | O_NOCTTY), ENOSPC); // the number is used as long as it is open
    OK(close(t));
    m = -1;
    for (int i = 0; i < 5000 && m < 0; i++) m = open("pts/ptmx", O_RDWR | O_NOCTTY), usleep(1000);
    OK(ioctl(m, TIOCGPTN, &n));
    CHECK_EQ(n, 0); // the lowest that is free
    CHECK_ERRNO(open("pts/new", O_CREAT | O_RDWR, 0600), EACCES);
    CHECK_ERRNO(mkdir("pts/new", 0700), EPERM);
    CHECK_ERRNO(unlink("pts/1"), EPERM);
    CHECK_ERRNO(open("pts/00", O_RDWR), ENOENT);
}

TEST(ptmx_beside_an_instance) {
    instance("ptmxmode=0600");
    OK(mknod("ptmx", S_IFCHR | 0666, makedev(5, 2)));
    int fd = open("ptmx", O_RDWR | O_NOCTTY), n = -1;
    if (fd < 0 && errno == EACCES) SKIP("no devices here");
    OK(fd);
    OK(ioctl(fd, TIOCGPTN, &n));
    CHECK_EQ(n, 0);
    OK(access("pts/0", F_OK));
    OK(mkdir("dir", 0755));
    OK(mknod("dir/ptmx", S_IFCHR | 0666, makedev(5, 2)));
    CHECK_ERRNO(open("dir/ptmx", O_RDWR | O_NOCTTY), ENOENT);
    OK(mkdir("dir/pts", 0755));
    CHECK_ERRNO(open("dir/ptmx", O_RDWR | O_NOCTTY), ENODEV);
    OK(mknod("terminal", S_IFCHR | 0666, makedev(136, 0)));
    CHECK_ERRNO(open("terminal", O_RDWR | O_NOCTTY), EIO); // numbers mean nothing here
    pid_t p;
    CHILD(p) {
        OK(setresuid(31337, 31337, 31337));
        CHECK_ERRNO(open("pts/ptmx", O_RDWR | O_NOCTTY), EACCES);
    }
    JOIN(p);
}

TEST(bad_options_of_devpts) {
    NEED_ROOT();
    if (unshare(CLONE_NEWNS)) SKIP("unshare gives %s", strerrorname_np(errno));
    OK(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0));
    OK(mkdir("pts", 0755));
    const char *bad[] = {"mode=x", "nonsense", "max=-1", "max=9999999", "ptmxmode=9", "gid=a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_ERRNO(mount("devpts", "pts", "devpts", 0, bad[i]), EINVAL);
    OK(mount("devpts", "pts", "devpts", 0, "max=5,uid=3,mode=604,ptmxmode=000"));
    char buf[8192], *line;
    CHECK(read_file("/proc/self/mounts", buf, sizeof buf) > 0);
    CHECK((line = strstr(buf, "/pts devpts rw,")) != 0);
    while (strstr(line + 1, "/pts devpts rw,")) line = strstr(line + 1, "/pts devpts rw,");
    CHECK(strstr(line, "uid=3,mode=604,ptmxmode=000,max=5"));
}

TEST(many_pairs) {
    int all[200];
    for (int i = 0; i < 200; i++) {
        all[i] = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
        for (int j = 0; j < i; j += 50) {
            int a = -1, b = -1;
            OK(ioctl(all[i], TIOCGPTN, &a));
            OK(ioctl(all[j], TIOCGPTN, &b));
            CHECK(a != b);
        }
    }
    for (int i = 0; i < 200; i++) OK(close(all[i]));
}

TEST(output_is_not_lost_when_the_last_closes) {
    pair();
    static char big[3000];
    memset(big, 'z', sizeof big);
    CHECK_EQ(write(s, big, sizeof big), sizeof big);
    OK(close(s));
    size_t n = 0;
    char b[700];
    ssize_t r;
    while ((r = read(m, b, sizeof b)) > 0) n += r;
    CHECK_EQ(errno, EIO);
    CHECK_EQ(n, sizeof big);
    CHECK_EQ(events(m, POLLIN | POLLOUT), POLLOUT | POLLHUP);
}

TEST(input_blocks_when_nobody_reads) {
    pair();
    raw(1, 0);
    OK(fcntl(m, F_SETFL, O_NONBLOCK));
    static char big[4096];
    size_t n = 0;
    ssize_t r;
    for (int again = 0; again < 20; again++) {
        while ((r = write(m, big, sizeof big)) > 0) n += r;
        CHECK_EQ(errno, EAGAIN);
        usleep(1000);
    }
    CHECK(n > 4096 && n < 100000);
    CHECK_EQ(events(m, POLLOUT), 0);
    size_t k = 0;
    OK(fcntl(s, F_SETFL, O_NONBLOCK));
    for (int again = 0; again < 5000 && k < n; again++) {
        while ((r = read(s, big, sizeof big)) > 0) k += r;
        usleep(1000);
    }
    CHECK_EQ(k, n);
    CHECK_EQ(events(m, POLLOUT), POLLOUT);
}
