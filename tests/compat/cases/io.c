// Reading and writing: positions, vectors, flags, limits.
#include "compat.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

TEST(positions) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char b[8] = {0};
    CHECK_EQ(write(fd, "0123456789", 10), 10);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
    CHECK_EQ(read(fd, b, 4), 0);
    CHECK_EQ(lseek(fd, -4, SEEK_END), 6);
    CHECK_EQ(read(fd, b, 8), 4);
    CHECK_STR(b, "6789");
    CHECK_EQ(lseek(fd, 100, SEEK_SET), 100);
    CHECK_EQ(read(fd, b, 4), 0);
    CHECK_EQ(write(fd, "x", 1), 1);
    CHECK_EQ(pread(fd, b, 2, 50), 2);
    CHECK_EQ(b[0] | b[1], 0);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 101);
    CHECK_ERRNO(lseek(fd, -1, SEEK_SET), EINVAL);
    CHECK_ERRNO(lseek(fd, -200, SEEK_CUR), EINVAL);
    CHECK_ERRNO(lseek(fd, 0, 99), EINVAL);
    CHECK_ERRNO(lseek(999, 0, SEEK_SET), EBADF);
    int p[2];
    OK(pipe(p));
    CHECK_ERRNO(lseek(p[0], 0, SEEK_CUR), ESPIPE);
    CHECK_ERRNO(pread(p[0], b, 1, 0), ESPIPE);
    CHECK_ERRNO(pwrite(p[1], b, 1, 0), ESPIPE);
}

TEST(pread_and_pwrite_keep_position) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char b[4] = {0};
    OK(write(fd, "abc", 3));
    OK(lseek(fd, 1, SEEK_SET));
    CHECK_EQ(pwrite(fd, "XY", 2, 5), 2);
    CHECK_EQ(pread(fd, b, 3, 4), 3);
    CHECK_MEM(b, "\0XY", 3);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1);
    CHECK_ERRNO(pread(fd, b, 1, -1), EINVAL);
    CHECK_ERRNO(pwrite(fd, b, 1, -1), EINVAL);
}

TEST(zero_length) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), r = OK(open("f", O_RDONLY));
    CHECK_EQ(read(fd, 0, 0), 0);
    CHECK_EQ(write(fd, 0, 0), 0);
    CHECK_ERRNO(write(r, 0, 0), EBADF);
    CHECK_ERRNO(read(999, 0, 0), EBADF);
    CHECK_EQ(readv(fd, 0, 0), 0);
}

TEST(vectors) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char a[3], b[1], c[10];
    struct iovec w[4] = {{"ab", 2}, {0, 0}, {"cdef", 4}, {"g", 1}}, r[3] = {{a, 3}, {b, 1}, {c, 10}};
    CHECK_EQ(writev(fd, w, 4), 7);
    OK(lseek(fd, 0, SEEK_SET));
    CHECK_EQ(readv(fd, r, 3), 7);
    CHECK_MEM(a, "abc", 3);
    CHECK_EQ(b[0], 'd');
    CHECK_MEM(c, "efg", 3);
    CHECK_EQ(preadv(fd, r, 2, 2), 4);
    CHECK_MEM(a, "cde", 3);
    CHECK_EQ(pwritev(fd, w, 1, 5), 2);
    CHECK_EQ(pread(fd, c, 2, 5), 2);
    CHECK_MEM(c, "ab", 2);
}

TEST(vector_limits) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    static struct iovec v[1025];
    static char b[1025];
    for (int i = 0; i < 1025; i++) v[i] = (struct iovec){b + i, 1};
    CHECK_EQ(writev(fd, v, 1024), 1024);
    CHECK_ERRNO(writev(fd, v, 1025), EINVAL);
    CHECK_ERRNO(writev(fd, v, -1), EINVAL);
    CHECK_ERRNO(readv(fd, (void *)8, 1), EFAULT);
    struct iovec bad = {b, -1};
    CHECK_ERRNO(writev(fd, &bad, 1), EINVAL);
    struct iovec sum[2] = {{b, 10}, {b, SSIZE_MAX}};
    ssize_t n = writev(fd, sum, 2); // cut to MAX_RW_COUNT; then the memory ends
    CHECK_V(n > 0 || errno == EFAULT || errno == EINVAL, n);
}

TEST(preadv2_flags) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char b[8];
    struct iovec v = {"hello", 5}, r = {b, 5};
    CHECK_EQ(pwritev2(fd, &v, 1, -1, 0), 5); // -1: at the position
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
    CHECK_EQ(preadv2(fd, &r, 1, 0, 0), 5);
    CHECK_EQ(pwritev2(fd, &v, 1, 0, 0x10 /* RWF_APPEND */), 5);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 10);
    CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_DSYNC), 5);
    CHECK_ERRNO(preadv2(fd, &r, 1, 0, 0x40000000), EOPNOTSUPP);
    ssize_t n = preadv2(fd, &r, 1, 0, RWF_NOWAIT);
    CHECK_V(n == 5 || errno == EAGAIN || errno == EOPNOTSUPP, n);
}

TEST(large_io) {
    enum { N = 8 << 20 };
    unsigned *a = malloc(N), *b = malloc(N);
    for (unsigned i = 0; i < N / 4; i++) a[i] = i * 2654435761u;
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    CHECK_EQ(write(fd, a, N), N);
    CHECK_EQ(pread(fd, b, N, 0), N);
    CHECK_MEM(a, b, N);
    CHECK_EQ(pread(fd, b, N, 4), N - 4);
    CHECK_MEM(a + 1, b, N - 4);
}

TEST(fsize_limit_and_sigxfsz) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    pid_t p;
    CHILD(p) {
        struct rlimit r = {10, RLIM_INFINITY};
        OK(setrlimit(RLIMIT_FSIZE, &r));
        signal(SIGXFSZ, SIG_IGN);
        CHECK_EQ(write(fd, "12345678", 8), 8);
        CHECK_EQ(write(fd, "12345678", 8), 2); // cut at the limit
        CHECK_ERRNO(write(fd, "1", 1), EFBIG);
        CHECK_ERRNO(ftruncate(fd, 11), EFBIG);
        CHECK_ERRNO(pwrite(fd, "1", 1, 10), EFBIG);
        OK(pwrite(fd, "1", 1, 9));
        OK(ftruncate(fd, 5));
        signal(SIGXFSZ, SIG_DFL);
        pwrite(fd, "1", 1, 10);
    }
    CHECK_EQ(WAIT(p) & 0x7f, SIGXFSZ);
}

TEST(maximum_offset) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    CHECK_ERRNO(pwrite(fd, "xx", 2, INT64_MAX), EINVAL); // the end overflows
    ssize_t n = pwrite(fd, "x", 1, 1l << 62);
    CHECK(n == 1 || errno == EFBIG);
    CHECK_EQ(pread(fd, &(char){0}, 1, 1l << 61), n == 1 ? 1 : 0);
}

TEST(dup_shares_position_open_does_not) {
    int a = OK(open("f", O_RDWR | O_CREAT, 0600)), b = OK(dup(a)), c = OK(open("f", O_RDWR));
    OK(write(a, "abc", 3));
    CHECK_EQ(lseek(b, 0, SEEK_CUR), 3);
    CHECK_EQ(lseek(c, 0, SEEK_CUR), 0);
}

TEST(concurrent_writes_share_the_position) {
    // A description's position is advanced atomically: nothing is lost.
    static int fd;
    fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    void *f(void *a) {
        for (int i = 0; i < 200; i++) CHECK_EQ(write(fd, "0123456789", 10), 10);
        return a;
    }
    pthread_t t[3];
    for (int i = 0; i < 3; i++) t[i] = start(f, 0);
    for (int i = 0; i < 3; i++) finish(t[i]);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 6000);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6000);
}

TEST(fadvise_and_readahead) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), p[2];
    OK(write(fd, "abc", 3));
    for (int a = POSIX_FADV_NORMAL; a <= POSIX_FADV_NOREUSE; a++) CHECK_EQ(posix_fadvise(fd, 0, 0, a), 0);
    CHECK_EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
    CHECK_EQ(posix_fadvise(999, 0, 0, 0), EBADF);
    OK(pipe(p));
    CHECK_EQ(posix_fadvise(p[0], 0, 0, 0), ESPIPE);
    OK(readahead(fd, 0, 100));
}

TEST(ioctl_fionread_and_unknown) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), n, p[2];
    OK(write(fd, "abcdef", 6));
    OK(lseek(fd, 2, SEEK_SET));
    OK(ioctl(fd, FIONREAD, &n));
    CHECK_EQ(n, 4);
    CHECK_ERRNO(ioctl(fd, TCGETS, &n), ENOTTY);
    CHECK_ERRNO(ioctl(fd, 0x12345678, &n), ENOTTY);
    OK(pipe(p));
    OK(write(p[1], "abc", 3));
    OK(ioctl(p[0], FIONREAD, &n));
    CHECK_EQ(n, 3);
    int on = 1;
    OK(ioctl(p[0], FIONBIO, &on));
    CHECK(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    OK(ioctl(p[0], FIOCLEX));
    CHECK_EQ(fcntl(p[0], F_GETFD), FD_CLOEXEC);
    OK(ioctl(p[0], FIONCLEX));
    CHECK_EQ(fcntl(p[0], F_GETFD), 0);
    CHECK_ERRNO(ioctl(999, FIONREAD, &n), EBADF);
}

TEST(readahead_wants_pages) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(readahead(fd, 0, 4096));
    int e = OK(eventfd(0, 0)), ep = OK(epoll_create1(0)), t = OK(timerfd_create(CLOCK_MONOTONIC, 0)), p[2];
    OK(pipe(p));
    CHECK_ERRNO(readahead(e, 0, 4096), EINVAL);
    CHECK_ERRNO(readahead(ep, 0, 4096), EINVAL);
    CHECK_ERRNO(readahead(t, 0, 4096), EINVAL);
    CHECK_ERRNO(readahead(p[0], 0, 4096), EINVAL);
    CHECK_ERRNO(readahead(-1, 0, 4096), EBADF);
}
