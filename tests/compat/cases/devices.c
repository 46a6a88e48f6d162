// Device nodes.
#include "compat.h"
#include <linux/random.h>
#include <sys/sysmacros.h>

static char b[8192];

TEST(null) {
    int fd = OK(open("/dev/null", O_RDWR));
    CHECK_EQ(read(fd, b, 10), 0);
    CHECK_EQ(write(fd, b, sizeof b), sizeof b);
    CHECK_EQ(lseek(fd, 100, SEEK_SET), 0);
    CHECK_ERRNO(ftruncate(fd, 0), EINVAL);
    OK(close(OK(open("/dev/null", O_WRONLY | O_TRUNC | O_CREAT | O_APPEND, 0600))));
    CHECK_ERRNO(mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0), ENODEV);
}

TEST(zero) {
    int fd = OK(open("/dev/zero", O_RDWR));
    memset(b, 1, sizeof b);
    CHECK_EQ(read(fd, b, sizeof b), sizeof b);
    for (unsigned i = 0; i < sizeof b; i++) CHECK_EQ(b[i], 0);
    CHECK_EQ(write(fd, b, 100), 100);
    static char big[1 << 20];
    CHECK_EQ(read(fd, big, sizeof big), sizeof big);
    CHECK_EQ(pread(fd, b, 10, 1000), 10);
}

TEST(full) {
    int fd = OK(open("/dev/full", O_RDWR));
    memset(b, 1, sizeof b);
    CHECK_EQ(read(fd, b, 100), 100);
    CHECK_EQ(b[50], 0);
    CHECK_ERRNO(write(fd, b, 1), ENOSPC);
}

TEST(random_and_urandom) {
    const char *names[] = {"/dev/random", "/dev/urandom"};
    for (int i = 0; i < 2; i++) {
        int fd = OK(open(names[i], O_RDONLY));
        char x[32], y[32];
        CHECK_EQ(read(fd, x, 32), 32);
        CHECK_EQ(read(fd, y, 32), 32);
        CHECK(memcmp(x, y, 32));
        struct pollfd p = {fd, POLLIN, 0};
        CHECK_EQ(poll(&p, 1, 0), 1);
        CHECK_EQ(lseek(fd, 5, SEEK_SET), 0);
    }
    int fd = OK(open("/dev/urandom", O_WRONLY));
    CHECK_EQ(write(fd, "seed", 4), 4);
}

TEST(numbers_and_modes) {
    struct { const char *name; int maj, min; } t[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}, {"ptmx", 5, 2}};
    for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
        char path[64];
        struct stat st;
        snprintf(path, sizeof path, "/dev/%s", t[i].name);
        OK(stat(path, &st));
        if (!S_ISCHR(st.st_mode) || (int)major(st.st_rdev) != t[i].maj || (int)minor(st.st_rdev) != t[i].min) FAIL("%s is %u,%u", path, major(st.st_rdev), minor(st.st_rdev));
        CHECK_EQ(st.st_mode & 0666, 0666);
    }
}

TEST(links) {
    struct { const char *link, *to; } t[] = {{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"}};
    for (unsigned i = 0; i < 4; i++) {
        ssize_t n = OK(readlink(t[i].link, b, sizeof b - 1));
        b[n] = 0;
        CHECK_STR(b, t[i].to);
    }
    int p[2];
    OK(pipe(p));
    dup2(p[0], 0);
    OK(write(p[1], "in", 2));
    int fd = OK(open("/dev/stdin", O_RDONLY));
    CHECK_EQ(read(fd, b, 8), 2);
}

TEST(own_nodes) {
    NEED_ROOT();
    if (mknod("n", S_IFCHR | 0666, makedev(1, 3))) {
        CHECK_EQ(errno, EPERM);
        SKIP("no right to make devices");
    }
    struct stat st;
    OK(stat("n", &st));
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(st.st_rdev, makedev(1, 3));
    int fd = open("n", O_RDWR);
    if (fd < 0) {
        CHECK(errno == EACCES || errno == EPERM); // a nodev mount
        SKIP("device nodes do not work on this mount");
    }
    CHECK_EQ(write(fd, "x", 1), 1);
    OK(mknod("none", S_IFCHR | 0666, makedev(240, 77)));
    CHECK_ERRNO(open("none", O_RDWR), ENXIO);
    pid_t p;
    CHILD(p) {
        OK(chmod(".", 0777));
        OK(setuid(1000));
        CHECK_ERRNO(mknod("m", S_IFCHR | 0666, makedev(1, 3)), EPERM);
    }
    JOIN(p);
}

TEST(shm_directory) {
    struct stat st;
    OK(stat("/dev/shm", &st));
    CHECK(S_ISDIR(st.st_mode));
    CHECK_EQ(st.st_mode & 07777, 01777);
    int fd = OK(open("/dev/shm", O_TMPFILE | O_RDWR, 0600));
    OK(write(fd, "x", 1));
}

TEST(random_devices_tell_their_entropy) {
    int fd = OK(open("/dev/urandom", O_RDONLY)), bits = 0, other = 0;
    OK(ioctl(fd, RNDGETENTCNT, &bits));
    CHECK_V(bits > 0 && bits <= 4096, bits);
    OK(ioctl(OK(open("/dev/random", O_RDONLY)), RNDGETENTCNT, &other));
    CHECK_ERRNO(ioctl(fd, RNDGETENTCNT, 0), EFAULT);
    CHECK_ERRNO(ioctl(fd, _IO('R', 99)), EINVAL);
    CHECK_ERRNO(ioctl(OK(open("/dev/null", O_RDONLY)), RNDGETENTCNT, &bits), ENOTTY);
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(65534));
        CHECK_ERRNO(ioctl(fd, RNDADDTOENTCNT, &bits), EPERM);
        CHECK_ERRNO(ioctl(fd, RNDZAPENTCNT), EPERM);
    }
    JOIN(p);
}
