// Moving data within the kernel: sendfile, copy_file_range, splice, tee, vmsplice.
#include "compat.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>

static int file_of(const char *name, const char *text) {
    OK(write_file(name, text));
    return OK(open(name, O_RDWR));
}

TEST(sendfile_between_files) {
    int in = file_of("a", "0123456789"), out = file_of("b", "");
    CHECK_EQ(sendfile(out, in, 0, 4), 4);
    CHECK_EQ(lseek(in, 0, SEEK_CUR), 4);
    off_t off = 2;
    CHECK_EQ(sendfile(out, in, &off, 100), 8);
    CHECK_EQ(off, 10);
    CHECK_EQ(lseek(in, 0, SEEK_CUR), 4);
    CHECK_EQ(sendfile(out, in, &off, 100), 0);
    char buf[32];
    CHECK(read_file("b", buf, sizeof buf) == 12);
    CHECK_STR(buf, "012323456789");
}

TEST(sendfile_to_socket_and_pipe) {
    int in = file_of("a", "hello"), s[2], p[2];
    char buf[8] = {0};
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    CHECK_EQ(sendfile(s[0], in, 0, 100), 5);
    CHECK_EQ(read(s[1], buf, 8), 5);
    CHECK_STR(buf, "hello");
    OK(pipe(p));
    off_t off = 1;
    CHECK_EQ(sendfile(p[1], in, &off, 3), 3);
    CHECK_EQ(read(p[0], buf, 8), 3);
    CHECK_MEM(buf, "ell", 3);
}

TEST(sendfile_errnos) {
    int in = file_of("a", "x"), out = file_of("b", ""), ro = OK(open("b", O_RDONLY)), wo = OK(open("a", O_WRONLY)), s[2], p[2];
    off_t neg = -1;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    OK(pipe(p));
    CHECK_ERRNO(sendfile(ro, in, 0, 1), EBADF);
    CHECK_ERRNO(sendfile(out, wo, 0, 1), EBADF);
    CHECK_ERRNO(sendfile(999, in, 0, 1), EBADF);
    CHECK_ERRNO(sendfile(out, in, &neg, 1), EINVAL);
    CHECK_ERRNO(sendfile(out, in, (off_t *)8, 1), EFAULT);
    CHECK_ERRNO(sendfile(out, s[0], 0, 1), EINVAL);
    int app = OK(open("b", O_WRONLY | O_APPEND));
    CHECK_ERRNO(sendfile(app, in, 0, 1), EINVAL);
    off_t zero = 0;
    CHECK_ERRNO(sendfile(out, p[0], &zero, 1), ESPIPE);
}

TEST(copy_file_range_copies) {
    int in = file_of("a", "0123456789"), out = file_of("b", "");
    off_t i = 2, o = 1;
    if (copy_file_range(in, &i, out, &o, 5, 0) < 0) {
        if (errno == EOPNOTSUPP || errno == EXDEV) SKIP("no copy_file_range here");
        FAIL("copy_file_range");
    }
    CHECK_EQ(i, 7);
    CHECK_EQ(o, 6);
    char buf[16];
    CHECK_EQ(pread(out, buf, 16, 0), 6);
    CHECK_MEM(buf, "\00023456", 6);
    CHECK_EQ(copy_file_range(in, 0, out, 0, 100, 0), 10);
    CHECK_EQ(lseek(in, 0, SEEK_CUR), 10);
    CHECK_EQ(copy_file_range(in, 0, out, 0, 100, 0), 0);
    // Within one file: not over itself.
    i = 0, o = 3;
    CHECK_ERRNO(copy_file_range(in, &i, in, &o, 5, 0), EINVAL);
    i = 0, o = 20;
    CHECK_EQ(copy_file_range(in, &i, in, &o, 5, 0), 5);
    CHECK_ERRNO(copy_file_range(in, 0, out, 0, 1, 1), EINVAL);
    int ro = OK(open("b", O_RDONLY)), app = OK(open("b", O_WRONLY | O_APPEND)), d = OK(open(".", O_RDONLY)), p[2];
    OK(pipe(p));
    CHECK_ERRNO(copy_file_range(in, 0, ro, 0, 1, 0), EBADF);
    CHECK_ERRNO(copy_file_range(in, 0, app, 0, 1, 0), EBADF);
    CHECK_ERRNO(copy_file_range(d, 0, out, 0, 1, 0), EISDIR);
    CHECK_ERRNO(copy_file_range(in, 0, p[1], 0, 1, 0), EINVAL);
}

TEST(splice_file_and_pipe) {
    int in = file_of("a", "0123456789"), out = file_of("b", ""), p[2];
    OK(pipe(p));
    off_t off = 3;
    CHECK_EQ(splice(in, &off, p[1], 0, 4, 0), 4);
    CHECK_EQ(off, 7);
    CHECK_EQ(splice(in, 0, p[1], 0, 2, SPLICE_F_MOVE | SPLICE_F_MORE), 2);
    off = 5;
    CHECK_EQ(splice(p[0], 0, out, &off, 100, 0), 6);
    char buf[16];
    CHECK_EQ(pread(out, buf, 16, 5), 6);
    CHECK_MEM(buf, "345601", 6);
    CHECK_ERRNO(splice(p[0], 0, out, 0, 10, SPLICE_F_NONBLOCK), EAGAIN);
    OK(close(p[1]));
    CHECK_EQ(splice(p[0], 0, out, 0, 10, 0), 0);
}

TEST(splice_errnos) {
    int in = file_of("a", "x"), out = file_of("b", ""), p[2], q[2];
    OK(pipe(p)), OK(pipe(q));
    off_t off = 0;
    CHECK_ERRNO(splice(in, 0, out, 0, 1, 0), EINVAL); // one side must be a pipe
    CHECK_ERRNO(splice(p[0], &off, out, 0, 1, 0), ESPIPE);
    CHECK_ERRNO(splice(in, 0, p[1], &off, 1, 0), ESPIPE);
    CHECK_ERRNO(splice(p[1], 0, out, 0, 1, 0), EBADF);
    CHECK_ERRNO(splice(p[0], 0, p[1], 0, 1, 0), EINVAL); // a pipe into itself
    CHECK_ERRNO(splice(in, 0, p[1], 0, 1, 0x100), EINVAL);
    CHECK_EQ(splice(in, 0, p[1], 0, 0, 0), 0);
    OK(write(p[1], "abc", 3));
    CHECK_EQ(splice(p[0], 0, q[1], 0, 2, 0), 2);
    char b[4];
    CHECK_EQ(read(q[0], b, 4), 2);
    CHECK_EQ(read(p[0], b, 4), 1);
}

TEST(splice_socket) {
    int p[2], s[2];
    char b[8] = {0};
    OK(pipe(p));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    OK(write(p[1], "data", 4));
    CHECK_EQ(splice(p[0], 0, s[0], 0, 4, 0), 4);
    CHECK_EQ(splice(s[1], 0, p[1], 0, 100, 0), 4);
    CHECK_EQ(read(p[0], b, 8), 4);
    CHECK_STR(b, "data");
}

TEST(tee_duplicates) {
    int a[2], b[2];
    char x[8] = {0};
    OK(pipe(a)), OK(pipe(b));
    OK(write(a[1], "abc", 3));
    CHECK_EQ(tee(a[0], b[1], 100, 0), 3);
    CHECK_EQ(tee(a[0], b[1], 2, 0), 2);
    CHECK_EQ(read(b[0], x, 8), 5);
    CHECK_MEM(x, "abcab", 5);
    CHECK_EQ(read(a[0], x, 8), 3);
    CHECK_ERRNO(tee(a[0], b[1], 1, SPLICE_F_NONBLOCK), EAGAIN);
    CHECK_ERRNO(tee(a[0], a[1], 1, 0), EINVAL);
    int f = file_of("f", "x");
    CHECK_ERRNO(tee(f, b[1], 1, 0), EINVAL);
}

TEST(vmsplice_both_ways) {
    int p[2];
    char x[8] = {0};
    OK(pipe(p));
    struct iovec v[2] = {{"abc", 3}, {"de", 2}}, r = {x, 8};
    CHECK_EQ(vmsplice(p[1], v, 2, 0), 5);
    CHECK_EQ(vmsplice(p[0], &r, 1, 0), 5);
    CHECK_STR(x, "abcde");
    int f = file_of("f", "x");
    CHECK_ERRNO(vmsplice(f, v, 1, 0), EBADF);
}

TEST(sendfile_large) {
    enum { N = 4 << 20 };
    unsigned *d = malloc(N), *e = malloc(N);
    for (unsigned i = 0; i < N / 4; i++) d[i] = i * 2654435761u;
    int in = OK(open("a", O_RDWR | O_CREAT, 0600)), s[2];
    CHECK_EQ(write(in, d, N), N);
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    pid_t p;
    CHILD(p) {
        off_t off = 0;
        while (off < N) OK(sendfile(s[0], in, &off, N - off));
    }
    close(s[0]);
    size_t n = 0;
    ssize_t r;
    while ((r = OK(read(s[1], (char *)e + n, N - n))) > 0) n += r;
    CHECK_EQ(n, N);
    CHECK_MEM(d, e, N);
    JOIN(p);
}

TEST(vmsplice_takes_what_fits) {
    int p[2];
    OK(pipe(p));
    int room = OK(fcntl(p[1], F_GETPIPE_SZ));
    char *data = OK(mmap(0, room * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memset(data, 'x', room * 2);
    struct iovec v = {data, room * 2};
    CHECK_EQ(vmsplice(p[1], &v, 1, 0), room);
    CHECK_ERRNO(vmsplice(p[1], &v, 1, SPLICE_F_NONBLOCK), EAGAIN);
}

TEST(splice_wants_something_to_splice) {
    int p[2], e = OK(eventfd(0, 0)), ep = OK(epoll_create1(0)), dir = OK(open(".", O_RDONLY | O_DIRECTORY));
    OK(pipe(p));
    // The pipe is empty: nothing waits for it.
    CHECK_ERRNO(splice(p[0], 0, e, 0, 1, 0), EINVAL);
    CHECK_ERRNO(splice(p[0], 0, ep, 0, 1, 0), EINVAL);
    CHECK_ERRNO(splice(e, 0, p[1], 0, 1, 0), EINVAL);
    CHECK_ERRNO(splice(dir, 0, p[1], 0, 1, 0), EINVAL);
    CHECK_ERRNO(splice(p[0], 0, dir, 0, 1, 0), EBADF);
}
