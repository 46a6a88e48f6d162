// Pipes and fifos.
#include "compat.h"

static int p[2];
static void make(int flags) { OK(pipe2(p, flags)); }

TEST(bytes_go_through_in_order) {
    make(0);
    char b[16];
    OK(write(p[1], "abc", 3)), OK(write(p[1], "def", 3));
    CHECK_EQ(read(p[0], b, 4), 4);
    CHECK_MEM(b, "abcd", 4);
    CHECK_EQ(read(p[0], b, 16), 2);
    CHECK_MEM(b, "ef", 2);
}

TEST(end_of_file_when_writers_are_gone) {
    make(0);
    int w2 = OK(dup(p[1]));
    char b;
    OK(write(w2, "x", 1));
    OK(close(p[1])), OK(close(w2));
    CHECK_EQ(read(p[0], &b, 1), 1);
    CHECK_EQ(read(p[0], &b, 1), 0);
    CHECK_EQ(read(p[0], &b, 1), 0);
}

static volatile int hits;
static void count(int sig) {
    (void)sig;
    hits++;
}

TEST(epipe_and_sigpipe) {
    make(0);
    OK(close(p[0]));
    handle(SIGPIPE, count, 0);
    CHECK_ERRNO(write(p[1], "x", 1), EPIPE);
    CHECK_EQ(hits, 1);
    pid_t c;
    CHILD(c) {
        signal(SIGPIPE, SIG_DFL);
        (void)!write(p[1], "x", 1);
    }
    CHECK_EQ(WAIT(c), SIGPIPE);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO(write(p[1], "x", 1), EPIPE);
}

TEST(wrong_directions) {
    make(0);
    char b;
    CHECK_ERRNO(read(p[1], &b, 1), EBADF);
    CHECK_ERRNO(write(p[0], &b, 1), EBADF);
}

TEST(nonblocking) {
    make(O_NONBLOCK | O_CLOEXEC);
    static char b[70000];
    CHECK_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(read(p[0], b, 1), EAGAIN);
    CHECK_EQ(write(p[1], b, sizeof b), 65536);
    CHECK_ERRNO(write(p[1], b, 1), EAGAIN);
    CHECK_EQ(read(p[0], b, 4095), 4095);
    CHECK_ERRNO(write(p[1], b, 4096), EAGAIN); // up to PIPE_BUF all or nothing
    CHECK_EQ(read(p[0], b, 1), 1);
    CHECK_EQ(write(p[1], b, 5000), 4096);
}

TEST(blocking_write_waits_for_space) {
    make(0);
    static char b[200000];
    pid_t c;
    CHILD(c) {
        close(p[0]);
        for (unsigned i = 0; i < sizeof b; i++) b[i] = i * 7;
        CHECK_EQ(write(p[1], b, sizeof b), sizeof b);
    }
    close(p[1]);
    wait_asleep(c);
    size_t n = 0;
    ssize_t r;
    while ((r = OK(read(p[0], b + n, 10000))) > 0) n += r;
    CHECK_EQ(n, sizeof b);
    for (unsigned i = 0; i < sizeof b; i++) CHECK_EQ(b[i], (char)(i * 7));
    JOIN(c);
}

TEST(small_writes_are_atomic) {
    make(0);
    pid_t c[3];
    for (int k = 0; k < 3; k++)
        CHILD(c[k]) {
            char b[512];
            memset(b, 'a' + k, sizeof b);
            for (int i = 0; i < 300; i++) CHECK_EQ(write(p[1], b, sizeof b), sizeof b);
        }
    close(p[1]);
    static char all[3 * 300 * 512];
    size_t n = 0;
    ssize_t r;
    while ((r = OK(read(p[0], all + n, sizeof all - n))) > 0) n += r;
    CHECK_EQ(n, sizeof all);
    for (size_t i = 0; i < n; i += 512)
        for (int j = 1; j < 512; j++) CHECK_EQ(all[i + j], all[i]);
    for (int k = 0; k < 3; k++) JOIN(c[k]);
}

TEST(poll_states) {
    make(0);
    struct pollfd f[2] = {{p[0], POLLIN | POLLOUT, 0}, {p[1], POLLIN | POLLOUT, 0}};
    CHECK_EQ(poll(f, 2, 0), 1);
    CHECK_EQ(f[0].revents, 0);
    CHECK_EQ(f[1].revents, POLLOUT);
    static char b[65536];
    OK(write(p[1], b, sizeof b));
    CHECK_EQ(poll(f, 2, 0), 1);
    CHECK_EQ(f[0].revents, POLLIN);
    CHECK_EQ(f[1].revents, 0);
    int w = p[1];
    OK(dup2(w, 100));
    OK(close(w)), OK(close(100));
    CHECK_EQ(poll(f, 1, 0), 1);
    CHECK_EQ(f[0].revents, POLLIN | POLLHUP);
    OK(read(p[0], b, sizeof b));
    CHECK_EQ(poll(f, 1, 0), 1);
    CHECK_EQ(f[0].revents, POLLHUP);
    make(0);
    OK(close(p[0]));
    f[1].fd = p[1];
    CHECK_EQ(poll(f + 1, 1, 0), 1);
    CHECK_EQ(f[1].revents, POLLOUT | POLLERR);
}

TEST(packet_mode) {
    if (pipe2(p, O_DIRECT) && errno == EINVAL) SKIP("no packet pipes");
    char b[16];
    OK(write(p[1], "abc", 3)), OK(write(p[1], "de", 2));
    CHECK_EQ(read(p[0], b, 16), 3);
    CHECK_EQ(read(p[0], b, 1), 1); // the rest of the packet is lost
    OK(write(p[1], "f", 1));
    CHECK_EQ(read(p[0], b, 16), 1);
    CHECK_EQ(b[0], 'f');
}

TEST(pipe2_errnos) {
    CHECK_ERRNO(pipe2(p, 0x1), EINVAL);
    CHECK_ERRNO(pipe2((int *)8, 0), EFAULT);
}

TEST(stat_of_a_pipe) {
    make(0);
    struct stat a, b;
    OK(fstat(p[0], &a)), OK(fstat(p[1], &b));
    CHECK(S_ISFIFO(a.st_mode));
    CHECK_EQ(a.st_mode & 0777, 0600);
    CHECK_EQ(a.st_ino, b.st_ino);
    char path[64], link[64], want[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", p[0]);
    ssize_t n = OK(readlink(path, link, 63));
    link[n] = 0;
    snprintf(want, sizeof want, "pipe:[%lu]", a.st_ino);
    CHECK_STR(link, want);
}

TEST(reopening_a_nameless_pipe_never_blocks) {
    // What a shell's <(command) does: opened by /dev/fd, perhaps after the writer has gone.
    make(0);
    char path[64], b[8];
    snprintf(path, sizeof path, "/dev/fd/%d", p[0]);
    OK(write(p[1], "left", 4));
    OK(close(p[1]));
    int r = OK(open(path, O_RDONLY));
    CHECK_EQ(read(r, b, 8), 4);
    CHECK_EQ(read(r, b, 8), 0);
    int w = OK(open(path, O_WRONLY)); // either way, whatever the descriptor was open for
    OK(write(w, "new", 3));
    CHECK_EQ(read(r, b, 8), 3);
    make(0);
    OK(close(p[0]));
    snprintf(path, sizeof path, "/dev/fd/%d", p[1]);
    r = OK(open(path, O_RDONLY));
    OK(write(p[1], "x", 1));
    CHECK_EQ(read(r, b, 8), 1);
}

TEST(fifo_open_blocks_for_the_other_side) {
    OK(mkfifo("f", 0600));
    pid_t c;
    CHILD(c) {
        int w = OK(open("f", O_WRONLY));
        OK(write(w, "hello", 5));
    }
    wait_asleep(c);
    int r = OK(open("f", O_RDONLY));
    char b[8] = {0};
    CHECK_EQ(read(r, b, 8), 5);
    CHECK_EQ(read(r, b, 8), 0);
    JOIN(c);
    CHILD(c) OK(open("f", O_RDONLY));
    close(r);
    OK(open("f", O_WRONLY));
    JOIN(c);
}

TEST(fifo_nonblocking_open) {
    OK(mkfifo("f", 0600));
    CHECK_ERRNO(open("f", O_WRONLY | O_NONBLOCK), ENXIO);
    int r = OK(open("f", O_RDONLY | O_NONBLOCK));
    char b[8];
    CHECK_EQ(read(r, b, 8), 0); // no writer yet: end of file, not EAGAIN
    struct pollfd pf = {r, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0); // and no hang-up either
    int w = OK(open("f", O_WRONLY | O_NONBLOCK));
    CHECK_ERRNO(read(r, b, 8), EAGAIN);
    OK(write(w, "x", 1));
    OK(close(w));
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(pf.revents, POLLIN | POLLHUP);
    CHECK_EQ(read(r, b, 8), 1);
    CHECK_EQ(read(r, b, 8), 0);
}

TEST(fifo_read_write_open) {
    OK(mkfifo("f", 0600));
    int fd = OK(open("f", O_RDWR)); // never blocks
    char b[4];
    OK(write(fd, "abc", 3));
    CHECK_EQ(read(fd, b, 4), 3);
    CHECK_ERRNO(lseek(fd, 0, SEEK_SET), ESPIPE);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 0);
}

TEST(fifo_is_shared_by_name_until_all_close) {
    OK(mkfifo("f", 0600));
    OK(link("f", "g"));
    int a = OK(open("f", O_RDWR)), b = OK(open("g", O_RDWR));
    char c[4];
    OK(write(a, "x", 1));
    CHECK_EQ(read(b, c, 4), 1);
    OK(write(a, "y", 1));
    OK(close(a)), OK(close(b));
    a = OK(open("f", O_RDONLY | O_NONBLOCK));
    CHECK_EQ(read(a, c, 4), 0); // what was not read is lost
}

TEST(reader_is_woken_by_close_and_data) {
    make(0);
    pid_t c;
    CHILD(c) {
        close(p[1]);
        char b[4];
        CHECK_EQ(read(p[0], b, 4), 1);
        CHECK_EQ(read(p[0], b, 4), 0);
    }
    wait_asleep(c);
    OK(write(p[1], "x", 1));
    wait_asleep(c);
    OK(close(p[1]));
    JOIN(c);
}

TEST(many_pipes_ping_pong) {
    int q[2];
    make(0);
    OK(pipe(q));
    pid_t c;
    CHILD(c) for (int i = 0; i < 1000; i++) {
        gate_wait(p[0]);
        gate_open(q[1]);
    }
    for (int i = 0; i < 1000; i++) {
        gate_open(p[1]);
        gate_wait(q[0]);
    }
    JOIN(c);
}
