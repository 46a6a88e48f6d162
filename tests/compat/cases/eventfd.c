// eventfd.
#include "compat.h"
#include <sys/eventfd.h>

static uint64_t v;

TEST(counter) {
    int fd = OK(eventfd(5, EFD_NONBLOCK | EFD_CLOEXEC));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(read(fd, &v, 8), 8);
    CHECK_EQ(v, 5);
    CHECK_ERRNO(read(fd, &v, 8), EAGAIN);
    v = 3;
    CHECK_EQ(write(fd, &v, 8), 8);
    CHECK_EQ(write(fd, &v, 8), 8);
    CHECK_EQ(read(fd, &v, 8), 8);
    CHECK_EQ(v, 6);
}

TEST(semaphore) {
    int fd = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(read(fd, &v, 8), 8);
        CHECK_EQ(v, 1);
    }
    CHECK_ERRNO(read(fd, &v, 8), EAGAIN);
}

TEST(limits_and_errnos) {
    int fd = OK(eventfd(0, EFD_NONBLOCK));
    v = UINT64_MAX;
    CHECK_ERRNO(write(fd, &v, 8), EINVAL);
    v = UINT64_MAX - 1;
    CHECK_EQ(write(fd, &v, 8), 8);
    v = 1;
    CHECK_ERRNO(write(fd, &v, 8), EAGAIN);
    v = 0;
    CHECK_EQ(write(fd, &v, 8), 8);
    CHECK_ERRNO(write(fd, &v, 4), EINVAL);
    CHECK_ERRNO(read(fd, &v, 4), EINVAL);
    CHECK_ERRNO(eventfd(0, 0x10), EINVAL);
    char big[16];
    CHECK_EQ(read(fd, big, 16), 8);
}

TEST(poll_states) {
    int fd = OK(eventfd(0, EFD_NONBLOCK));
    struct pollfd pf = {fd, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(pf.revents, POLLOUT);
    v = 1;
    OK(write(fd, &v, 8));
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(pf.revents, POLLIN | POLLOUT);
    OK(read(fd, &v, 8));
    v = UINT64_MAX - 1;
    OK(write(fd, &v, 8));
    CHECK_EQ(poll(&pf, 1, 0), 1);
    CHECK_EQ(pf.revents, POLLIN);
}

TEST(blocking_across_processes) {
    int a = OK(eventfd(0, 0)), b = OK(eventfd(0, 0));
    pid_t p;
    CHILD(p) for (int i = 1; i <= 200; i++) {
        CHECK_EQ(read(a, &v, 8), 8);
        CHECK_EQ(v, i);
        OK(write(b, &v, 8));
    }
    for (int i = 1; i <= 200; i++) {
        v = i;
        OK(write(a, &v, 8));
        CHECK_EQ(read(b, &v, 8), 8);
        CHECK_EQ(v, i);
    }
    JOIN(p);
}

TEST(blocked_writer_is_woken) {
    int fd = OK(eventfd(0, 0));
    v = UINT64_MAX - 1;
    OK(write(fd, &v, 8));
    pid_t p;
    CHILD(p) {
        v = 5;
        CHECK_EQ(write(fd, &v, 8), 8);
    }
    wait_asleep(p);
    CHECK_EQ(read(fd, &v, 8), 8);
    JOIN(p);
    CHECK_EQ(read(fd, &v, 8), 8);
    CHECK_EQ(v, 5);
}

TEST(fdinfo_and_link) {
    int fd = OK(eventfd(42, 0));
    char path[64], buf[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    CHECK(read_file(path, buf, sizeof buf) > 0);
    CHECK(strstr(buf, "eventfd-count:"));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = OK(readlink(path, buf, sizeof buf - 1));
    buf[n] = 0;
    CHECK_STR(buf, "anon_inode:[eventfd]");
}
