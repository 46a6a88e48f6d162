// Pseudo-terminals: line discipline, signals, job control, sizes, hang-up.
#include "compat.h"
#include <pty.h>
#include <termios.h>

static int m, s;

static void pair(void) {
    m = OK(posix_openpt(O_RDWR | O_NOCTTY));
    OK(grantpt(m)), OK(unlockpt(m));
    char name[64];
    CHECK_EQ(ptsname_r(m, name, sizeof name), 0);
    s = OK(open(name, O_RDWR | O_NOCTTY));
}

static struct termios get(void) {
    struct termios t;
    OK(tcgetattr(s, &t));
    return t;
}
static void raw(void) {
    struct termios t = get();
    cfmakeraw(&t);
    OK(tcsetattr(s, TCSANOW, &t));
}
static void noecho(void) {
    struct termios t = get();
    t.c_lflag &= ~ECHO;
    OK(tcsetattr(s, TCSANOW, &t));
}
#define PUT(fd, text) CHECK_EQ(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1)
// One read; from the master as many as it takes, since what goes to it may come in pieces.
#define GET(fd, text)                                                                                                  \
    do {                                                                                                               \
        char b_[256];                                                                                                  \
        ssize_t n_ = 0, r_ = 0;                                                                                        \
        do n_ += r_ = OK(read(fd, b_ + n_, sizeof b_ - 1 - n_));                                                       \
        while (r_ > 0 && fd == m && n_ < (ssize_t)sizeof text - 1);                                                    \
        b_[n_] = 0;                                                                                                    \
        CHECK_STR(b_, text);                                                                                           \
    } while (0)
static bool readable(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

// Input passes through a worker of the kernel: it is there a little later.
static void wait_readable(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK(p.revents & POLLIN);
}

TEST(open_and_names) {
    pair();
    CHECK(isatty(m) && isatty(s));
    char name[64], self[64], link[64];
    CHECK_EQ(ttyname_r(s, name, sizeof name), 0);
    CHECK_MEM(name, "/dev/pts/", 9);
    int n;
    OK(ioctl(m, TIOCGPTN, &n));
    CHECK_EQ(atoi(name + 9), n);
    snprintf(self, sizeof self, "/proc/self/fd/%d", s);
    link[OK(readlink(self, link, 63))] = 0;
    CHECK_STR(link, name);
    struct stat st;
    OK(fstat(s, &st));
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(st.st_rdev >> 8, 136);
    OK(stat(name, &st));
}

TEST(locked_until_unlockpt) {
    int master = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    char name[64];
    CHECK_EQ(ptsname_r(master, name, sizeof name), 0);
    CHECK_ERRNO(open(name, O_RDWR | O_NOCTTY), EIO);
    OK(unlockpt(master));
    OK(open(name, O_RDWR | O_NOCTTY));
    int peer = ioctl(master, 0x5441 /* TIOCGPTPEER */, O_RDWR | O_NOCTTY);
    CHECK(peer >= 0 && isatty(peer));
}

TEST(name_vanishes_with_master) {
    pair();
    char name[64];
    CHECK_EQ(ptsname_r(m, name, sizeof name), 0);
    OK(close(m));
    CHECK_ERRNO(access(name, F_OK), ENOENT);
    char c;
    CHECK_EQ(read(s, &c, 1), 0);
    CHECK_ERRNO(write(s, "x", 1), EIO);
}

TEST(default_settings) {
    pair();
    struct termios t = get();
    CHECK_EQ(t.c_iflag, ICRNL | IXON);
    CHECK_EQ(t.c_oflag, OPOST | ONLCR);
    CHECK_EQ(t.c_cflag & (CSIZE | CREAD), CS8 | CREAD);
    CHECK_EQ(t.c_lflag, ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN);
    CHECK_EQ(t.c_cc[VINTR], 3);
    CHECK_EQ(t.c_cc[VEOF], 4);
    CHECK_EQ(t.c_cc[VERASE], 0x7f);
    CHECK_EQ(t.c_cc[VMIN], 1);
    CHECK_EQ(cfgetospeed(&t), B38400);
}

TEST(canonical_input_waits_for_newline) {
    pair();
    noecho();
    PUT(m, "hel");
    CHECK(!readable(s));
    PUT(m, "lo\nnext\n");
    wait_readable(s);
    GET(s, "hello\n"); // a line at a time
    GET(s, "next\n");
    CHECK(!readable(s));
    PUT(m, "a\r");
    GET(s, "a\n"); // ICRNL
    int n;
    PUT(m, "abc\n");
    wait_readable(s);
    OK(ioctl(s, FIONREAD, &n));
    CHECK_EQ(n, 4);
    char c[2];
    CHECK_EQ(read(s, c, 2), 2);
    GET(s, "c\n"); // the rest of the line
}

TEST(line_editing) {
    pair();
    noecho();
    PUT(m, "abx\x7f"
           "c\n");
    GET(s, "abc\n");
    PUT(m, "junk\x15kept\n"); // ^U
    GET(s, "kept\n");
    PUT(m, "one two\x17three\n"); // ^W
    GET(s, "one three\n");
    PUT(m, "a\x16\x03z\n"); // ^V quotes
    GET(s, "a\003z\n");
    PUT(m, "\x7f\x7f\x7fok\n"); // nothing to erase
    GET(s, "ok\n");
}

TEST(end_of_file_character) {
    pair();
    noecho();
    PUT(m, "part\x04");
    GET(s, "part");
    PUT(m, "\x04");
    GET(s, ""); // end of file once
    PUT(m, "more\n");
    GET(s, "more\n");
}

TEST(echo) {
    pair();
    PUT(m, "ab\n");
    GET(m, "ab\r\n");
    GET(s, "ab\n");
    PUT(m, "x\x7f");
    GET(m, "x\b \b");
    PUT(m, "\x01");
    GET(m, "^A");
    PUT(m, "\x15"); // ECHOKE: wipes the ^A
    GET(m, "\b \b\b \b");
}

TEST(output_processing) {
    pair();
    PUT(s, "line\n");
    GET(m, "line\r\n");
    struct termios t = get();
    t.c_oflag &= ~OPOST;
    OK(tcsetattr(s, TCSADRAIN, &t));
    PUT(s, "line\n");
    GET(m, "line\n");
}

TEST(raw_mode) {
    pair();
    raw();
    PUT(m, "a");
    GET(s, "a");
    PUT(m, "\x03\x04\r\x7f");
    GET(s, "\x03\x04\r\x7f");
    CHECK(!readable(m)); // no echo
    PUT(s, "\n");
    GET(m, "\n");
}

TEST(min_and_time) {
    pair();
    raw();
    struct termios t = get();
    char b[16];
    t.c_cc[VMIN] = 0, t.c_cc[VTIME] = 0;
    OK(tcsetattr(s, TCSANOW, &t));
    CHECK_EQ(read(s, b, 16), 0); // does not block
    t.c_cc[VTIME] = 1;
    OK(tcsetattr(s, TCSANOW, &t));
    int64_t t0 = now_ms();
    CHECK_EQ(read(s, b, 16), 0);
    CHECK(now_ms() - t0 >= 80);
    t.c_cc[VMIN] = 3, t.c_cc[VTIME] = 0;
    OK(tcsetattr(s, TCSANOW, &t));
    pid_t p;
    CHILD(p) CHECK_EQ(read(s, b, 16), 3);
    wait_asleep(p);
    PUT(m, "ab");
    wait_asleep(p);
    PUT(m, "c");
    JOIN(p);
}

TEST(nonblocking) {
    pair();
    noecho();
    char b[8];
    OK(fcntl(s, F_SETFL, O_NONBLOCK)), OK(fcntl(m, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(read(s, b, 8), EAGAIN);
    CHECK_ERRNO(read(m, b, 8), EAGAIN);
    PUT(m, "no newline");
    CHECK_ERRNO(read(s, b, 8), EAGAIN);
}

TEST(flush) {
    pair();
    noecho();
    PUT(m, "lost\n");
    wait_readable(s);
    OK(tcflush(s, TCIFLUSH));
    CHECK(!readable(s));
    PUT(m, "kept\n");
    wait_readable(s);
    struct termios t = get();
    OK(tcsetattr(s, TCSAFLUSH, &t)); // discards input
    CHECK(!readable(s));
    CHECK_ERRNO(tcflush(s, 99), EINVAL);
    OK(tcdrain(s));
}

TEST(window_size) {
    pair();
    struct winsize w = {24, 80, 0, 0}, g;
    OK(ioctl(s, TIOCGWINSZ, &g));
    CHECK_EQ(g.ws_row, 0);
    OK(ioctl(m, TIOCSWINSZ, &w));
    OK(ioctl(s, TIOCGWINSZ, &g));
    CHECK(g.ws_row == 24 && g.ws_col == 80);
}

// A child that is a session leader with `s` as its terminal.
#define LEADER(p) for (p = OK(fork()); p == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL), lead(), true); _exit(0))
static void lead(void) {
    OK(setsid());
    OK(ioctl(s, TIOCSCTTY, 0));
}

static volatile int got;
static void note(int sig) { got = sig; }

TEST(sigwinch_to_foreground) {
    pair();
    int g[2];
    OK(pipe(g));
    pid_t p;
    LEADER(p) {
        sigset_t set = sigs(SIGWINCH, 0, 0);
        handle(SIGWINCH, note, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        gate_open(g[1]);
        int sig;
        CHECK_EQ(sigwait(&set, &sig), 0);
        CHECK_EQ(sig, SIGWINCH);
    }
    gate_wait(g[0]);
    struct winsize w = {30, 90, 0, 0};
    OK(ioctl(m, TIOCSWINSZ, &w));
    JOIN(p);
}

TEST(control_characters_send_signals) {
    pair();
    struct { char c; int sig; } t[] = {{3, SIGINT}, {0x1c, SIGQUIT}};
    for (int i = 0; i < 2; i++) {
        int g[2];
        OK(pipe(g));
        pid_t p;
        LEADER(p) {
            gate_open(g[1]);
            for (;;) pause();
        }
        gate_wait(g[0]);
        CHECK_EQ(write(m, &t[i].c, 1), 1);
        CHECK_EQ(WAIT(p) & 0x7f, t[i].sig);
    }
}

TEST(suspend_character_stops) {
    pair();
    int g[2];
    OK(pipe(g));
    pid_t p;
    LEADER(p) {
        // A child group in the foreground, stopped by ^Z and reported to the shell.
        pid_t q;
        CHILD(q) {
            OK(setpgid(0, 0));
            signal(SIGTTOU, SIG_IGN);
            OK(tcsetpgrp(s, getpid()));
            gate_open(g[1]);
            for (;;) pause();
        }
        int st;
        CHECK_EQ(waitpid(q, &st, WUNTRACED), q);
        CHECK_EQ(st, W_STOP(SIGTSTP));
        OK(kill(q, SIGKILL));
        CHECK_EQ(WAIT(q), SIGKILL);
    }
    gate_wait(g[0]);
    PUT(m, "\x1a");
    JOIN(p);
}

TEST(signal_flushes_input_unless_noflsh) {
    pair();
    int g[2];
    OK(pipe(g));
    pid_t p;
    LEADER(p) {
        handle(SIGINT, note, 0);
        sigset_t set = sigs(SIGINT, 0, 0), none = sigs(0, 0, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        gate_open(g[1]);
        CHECK_ERRNO(sigsuspend(&none), EINTR);
        CHECK_EQ(got, SIGINT);
        noecho();
        GET(s, "clean\n");
    }
    gate_wait(g[0]);
    PUT(m, "dirty\x03");
    PUT(m, "clean\n");
    JOIN(p);
}

TEST(controlling_terminal) {
    pair();
    pid_t p;
    CHILD(p) {
        CHECK_ERRNO(ioctl(s, TIOCSCTTY, 0), EPERM); // no session leader
        OK(setsid());
        CHECK_ERRNO(tcgetpgrp(s), ENOTTY);
        OK(ioctl(s, TIOCSCTTY, 0));
        CHECK_EQ(tcgetpgrp(s), getpid());
        CHECK_EQ(tcgetsid(s), getpid());
        int t = OK(open("/dev/tty", O_RDWR));
        PUT(t, "via tty");
        struct stat st;
        OK(fstat(t, &st));
        CHECK_EQ(st.st_rdev, 0x500);
        char buf[1024];
        CHECK(read_file("/proc/self/stat", buf, sizeof buf) > 0);
        int tty, tpgid;
        CHECK_EQ(sscanf(strrchr(buf, ')') + 2, "%*c %*d %*d %*d %d %d", &tty, &tpgid), 2);
        OK(fstat(s, &st));
        CHECK_EQ(tty, st.st_rdev);
        CHECK_EQ(tpgid, getpid());
        pid_t q;
        CHILD(q) {
            OK(ioctl(s, TIOCNOTTY, 0)); // gives it up for itself
            CHECK_ERRNO(open("/dev/tty", O_RDWR), ENXIO);
        }
        JOIN(q);
        pid_t r;
        CHILD(r) {
            OK(setsid());
            CHECK_ERRNO(ioctl(s, TIOCSCTTY, 0), EPERM); // it is another session's
        }
        JOIN(r);
    }
    JOIN(p);
    GET(m, "via tty");
}

TEST(open_gives_terminal_to_leader) {
    pair();
    char name[64];
    CHECK_EQ(ttyname_r(s, name, sizeof name), 0);
    pid_t p;
    CHILD(p) {
        OK(setsid());
        int a = OK(open(name, O_RDWR | O_NOCTTY));
        CHECK_ERRNO(tcgetpgrp(a), ENOTTY);
        int b = OK(open(name, O_RDWR));
        CHECK_EQ(tcgetpgrp(b), getpid());
    }
    JOIN(p);
}

TEST(background_read_gets_sigttin) {
    pair();
    pid_t p;
    LEADER(p) {
        pid_t q;
        CHILD(q) {
            OK(setpgid(0, 0));
            char c;
            (void)!read(s, &c, 1);
        }
        int st;
        CHECK_EQ(waitpid(q, &st, WUNTRACED), q);
        CHECK_EQ(st, W_STOP(SIGTTIN));
        OK(kill(q, SIGKILL));
        CHECK_EQ(WAIT(q), SIGKILL);
        CHILD(q) {
            OK(setpgid(0, 0));
            signal(SIGTTIN, SIG_IGN);
            char c;
            CHECK_ERRNO(read(s, &c, 1), EIO);
        }
        JOIN(q);
    }
    JOIN(p);
}

TEST(background_write_with_tostop) {
    pair();
    pid_t p;
    LEADER(p) {
        pid_t q;
        CHILD(q) {
            OK(setpgid(0, 0));
            PUT(s, "free"); // without TOSTOP anybody may write
        }
        JOIN(q);
        struct termios t = get();
        t.c_lflag |= TOSTOP;
        OK(tcsetattr(s, TCSANOW, &t));
        CHILD(q) {
            OK(setpgid(0, 0));
            (void)!write(s, "x", 1);
        }
        int st;
        CHECK_EQ(waitpid(q, &st, WUNTRACED), q);
        CHECK_EQ(st, W_STOP(SIGTTOU));
        OK(kill(q, SIGKILL));
        CHECK_EQ(WAIT(q), SIGKILL);
        CHILD(q) {
            OK(setpgid(0, 0));
            struct termios u = get();
            (void)tcsetattr(s, TCSANOW, &u); // always stops in the background
        }
        CHECK_EQ(waitpid(q, &st, WUNTRACED), q);
        CHECK_EQ(st, W_STOP(SIGTTOU));
        OK(kill(q, SIGKILL));
        CHECK_EQ(WAIT(q), SIGKILL);
    }
    JOIN(p);
}

TEST(tcsetpgrp_rules) {
    pair();
    pid_t p;
    LEADER(p) {
        pid_t q;
        int g[2], h[2];
        OK(pipe(g)), OK(pipe(h));
        CHILD(q) {
            OK(setpgid(0, 0));
            gate_open(g[1]);
            gate_wait(h[0]);
        }
        gate_wait(g[0]);
        OK(tcsetpgrp(s, q));
        CHECK_EQ(tcgetpgrp(s), q);
        signal(SIGTTOU, SIG_IGN);
        OK(tcsetpgrp(s, getpid())); // from the background, ignoring SIGTTOU
        CHECK_ERRNO(tcsetpgrp(s, getppid()), EPERM);
        CHECK_ERRNO(tcsetpgrp(s, 999999), ESRCH);
        CHECK_ERRNO(tcsetpgrp(s, -1), EINVAL);
        gate_open(h[1]);
        JOIN(q);
    }
    JOIN(p);
    CHECK_ERRNO(tcsetpgrp(s, getpid()), ENOTTY);
}

TEST(hangup_when_master_closes) {
    pair();
    int g[2];
    OK(pipe(g));
    pid_t p;
    LEADER(p) {
        close(m);
        sigset_t set = sigs(SIGHUP, SIGCONT, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        gate_open(g[1]);
        int sig;
        siginfo_t si;
        CHECK_EQ(sig = sigwaitinfo(&set, &si), SIGHUP);
        char c;
        CHECK_EQ(read(s, &c, 1), 0);
        CHECK_ERRNO(write(s, "x", 1), EIO);
        struct pollfd pf = {s, POLLIN | POLLOUT, 0};
        CHECK_EQ(poll(&pf, 1, 0), 1);
        CHECK(pf.revents & POLLHUP);
    }
    gate_wait(g[0]);
    OK(close(s));
    OK(close(m));
    JOIN(p);
}

TEST(leader_exit_hangs_up_foreground) {
    pair();
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p, *q = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int g[2];
    OK(pipe(g));
    LEADER(p) {
        pid_t k = OK(fork());
        if (!k) {
            signal(SIGTTOU, SIG_IGN);
            OK(setpgid(0, 0));
            OK(tcsetpgrp(s, getpid()));
            gate_open(g[1]);
            for (;;) pause();
        }
        *q = k;
        gate_wait(g[0]);
    }
    JOIN(p);
    CHECK_EQ(WAIT(*q), SIGHUP);
}

TEST(master_sees_slave_close) {
    pair();
    PUT(s, "last");
    OK(close(s));
    struct pollfd pf = {m, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(pf.revents, POLLIN | POLLHUP);
    GET(m, "last");
    char c;
    CHECK_ERRNO(read(m, &c, 1), EIO);
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(pf.revents, POLLHUP);
    char name[64];
    CHECK_EQ(ptsname_r(m, name, sizeof name), 0);
    s = OK(open(name, O_RDWR | O_NOCTTY)); // may be opened again
    PUT(s, "back");
    GET(m, "back");
}

TEST(packet_mode) {
    pair();
    int on = 1;
    OK(ioctl(m, TIOCPKT, &on));
    PUT(s, "out");
    char b[16];
    CHECK_EQ(read(m, b, 16), 4);
    CHECK_EQ(b[0], TIOCPKT_DATA);
    OK(tcflush(s, TCIFLUSH));
    CHECK_EQ(read(m, b, 16), 1);
    CHECK_EQ(b[0], TIOCPKT_FLUSHREAD);
}

TEST(flow_control) {
    pair();
    noecho();
    PUT(m, "\x13-\n"); // ^S
    wait_readable(s);
    pid_t p;
    CHILD(p) PUT(s, "held");
    wait_asleep(p);
    CHECK(!readable(m));
    PUT(m, "\x11"); // ^Q
    JOIN(p);
    GET(m, "held");
}

TEST(large_output_blocks_until_read) {
    pair();
    raw();
    pid_t p;
    static char b[200000];
    CHILD(p) {
        memset(b, 'x', sizeof b);
        size_t n = 0;
        while (n < sizeof b) n += OK(write(s, b + n, sizeof b - n));
    }
    wait_asleep(p);
    size_t n = 0;
    while (n < sizeof b) {
        ssize_t r = OK(read(m, b, 7000));
        for (ssize_t i = 0; i < r; i++) CHECK_EQ(b[i], 'x');
        n += r;
    }
    JOIN(p);
}

TEST(forkpty_runs_a_shell) {
    int master;
    pid_t p = OK(forkpty(&master, 0, 0, 0));
    if (!p) {
        execl("/bin/sh", "sh", "-c", "test -t 0 && test -t 1 && read x && echo got $x", (char *)0);
        _exit(1);
    }
    PUT(master, "input\n");
    char out[256];
    size_t n = 0;
    ssize_t r;
    while (n < 255 && (r = read(master, out + n, 255 - n)) > 0) n += r;
    out[n] = 0;
    CHECK_STR(out, "input\r\ngot input\r\n");
    JOIN(p);
}

TEST(ioctls_of_others_are_enotty) {
    struct termios t;
    struct winsize w;
    int n = OK(open("/dev/null", O_RDWR)), p[2];
    OK(pipe(p));
    CHECK_ERRNO(tcgetattr(n, &t), ENOTTY);
    CHECK_ERRNO(ioctl(p[0], TIOCGWINSZ, &w), ENOTTY);
    CHECK_ERRNO(ioctl(n, TIOCSCTTY, 0), ENOTTY);
    CHECK(!isatty(n));
}

TEST(tiocsti_or_refused) {
    pair();
    pid_t p;
    LEADER(p) {
        noecho();
        char c = '\n';
        if (ioctl(s, TIOCSTI, &c)) CHECK_EQ(errno, EIO); // switched off in newer kernels
        else GET(s, "\n");
    }
    JOIN(p);
}
