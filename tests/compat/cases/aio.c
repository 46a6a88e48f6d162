// Linux's own asynchronous I/O (io_submit and its kin), without libaio.
#include "compat.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>

static aio_context_t ctx;
static void setup(void) {
    ctx = 0;
    if (syscall(SYS_io_setup, 8, &ctx) && errno == ENOSYS) SKIP("no aio in this kernel");
    CHECK(ctx);
}
static long submit(struct iocb *one) { return syscall(SYS_io_submit, ctx, 1, &one); }
static struct io_event get(void) {
    struct io_event e = {0};
    CHECK_EQ(syscall(SYS_io_getevents, ctx, 1, 1, &e, 0), 1);
    return e;
}

TEST(write_and_read) {
    setup();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char out[] = "hello", in[8] = {0};
    struct iocb w = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uint64_t)out, .aio_nbytes = 5,
                     .aio_offset = 3, .aio_data = 77};
    CHECK_EQ(submit(&w), 1);
    struct io_event e = get();
    CHECK_EQ(e.data, 77);
    CHECK_EQ(e.obj, (uint64_t)&w);
    CHECK_EQ(e.res, 5);
    struct iovec iov[2] = {{in, 2}, {in + 2, 3}};
    struct iocb r = {.aio_lio_opcode = IOCB_CMD_PREADV, .aio_fildes = fd, .aio_buf = (uint64_t)iov, .aio_nbytes = 2,
                     .aio_offset = 3};
    struct iocb s = {.aio_lio_opcode = IOCB_CMD_FSYNC, .aio_fildes = fd};
    struct iocb *both[2] = {&r, &s};
    CHECK_EQ(syscall(SYS_io_submit, ctx, 2, both), 2);
    struct io_event two[2];
    CHECK_EQ(syscall(SYS_io_getevents, ctx, 2, 2, two, 0), 2);
    CHECK_STR(in, "hello");
    CHECK_EQ(two[0].res + two[1].res, 5);
    struct timespec none = {0, 0};
    CHECK_EQ(syscall(SYS_io_getevents, ctx, 1, 2, two, &none), 0);
    OK(syscall(SYS_io_destroy, ctx));
    CHECK_ERRNO(syscall(SYS_io_destroy, ctx), EINVAL);
}

TEST(errors_are_results_or_of_the_call) {
    setup();
    int fd = OK(open("f", O_RDONLY | O_CREAT, 0600)), p[2];
    OK(pipe(p));
    char b[8];
    struct iocb c = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = 8, .aio_nbytes = 4};
    OK(truncate("f", 100));
    long r = submit(&c); // where it cannot be written: a result, or an error at once
    if (r == 1) CHECK_EQ(get().res, -EFAULT);
    else CHECK_EQ(errno, EFAULT);
    c.aio_buf = (uint64_t)b;
    c.aio_lio_opcode = IOCB_CMD_PWRITE;
    CHECK_ERRNO(submit(&c), EBADF); // not open for writing
    c.aio_fildes = 999;
    CHECK_ERRNO(submit(&c), EBADF);
    c.aio_fildes = fd;
    c.aio_lio_opcode = 99;
    CHECK_ERRNO(submit(&c), EINVAL);
    c.aio_lio_opcode = IOCB_CMD_PREAD;
    c.aio_reserved2 = 1;
    CHECK_ERRNO(submit(&c), EINVAL);
    c.aio_reserved2 = 0;
    c.aio_flags = IOCB_FLAG_RESFD;
    c.aio_resfd = fd;
    CHECK_ERRNO(submit(&c), EINVAL); // no eventfd
    CHECK_ERRNO(syscall(SYS_io_submit, ctx, -1l, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_submit, ctx, 1, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_io_submit, 12345, 1, 0), EINVAL);
    struct io_event e;
    CHECK_ERRNO(syscall(SYS_io_getevents, ctx, 2, 1, &e, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_getevents, 12345, 0, 1, &e, 0), EINVAL);
    aio_context_t other = 1;
    CHECK_ERRNO(syscall(SYS_io_setup, 8, &other), EINVAL);
    other = 0;
    CHECK_ERRNO(syscall(SYS_io_setup, 0, &other), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_setup, 0x7fffffff, &other), EINVAL);
    CHECK_ERRNO(syscall(SYS_io_setup, 0x200000, &other), EAGAIN);
    CHECK_ERRNO(syscall(SYS_io_cancel, ctx, &c, &e), EINVAL);
}

TEST(an_eventfd_is_told) {
    setup();
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), ev = OK(eventfd(0, EFD_NONBLOCK));
    struct iocb c = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uint64_t) "x", .aio_nbytes = 1,
                     .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = ev};
    CHECK_EQ(submit(&c), 1);
    struct pollfd p = {.fd = ev, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 5000), 1);
    uint64_t n;
    CHECK_EQ(read(ev, &n, 8), 8);
    CHECK_EQ(n, 1);
    CHECK_EQ(get().res, 1);
}

TEST(a_context_is_the_memorys) {
    setup();
    pid_t p;
    struct io_event e;
    CHILD(p) CHECK_ERRNO(syscall(SYS_io_getevents, ctx, 0, 1, &e, 0), EINVAL); // not inherited
    JOIN(p);
}

static void nothing(int s) { (void)s; }
TEST(waiting_ends_by_timeout_or_signal) {
    setup();
    struct io_event e;
    struct timespec t = {0, 5000000};
    CHECK_EQ(syscall(SYS_io_getevents, ctx, 1, 1, &e, &t), 0);
    handle(SIGALRM, nothing, 0);
    struct itimerval it = {.it_value = {0, 20000}};
    OK(setitimer(ITIMER_REAL, &it, 0));
    CHECK_ERRNO(syscall(SYS_io_getevents, ctx, 1, 1, &e, 0), EINTR);
}
