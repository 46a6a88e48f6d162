// File mappings and memory files: coherence with read and write, truncation, msync, seals.
#include "compat.h"
#include <linux/memfd.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static int file(const char *name, size_t size) {
    int fd = OK(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600));
    OK(ftruncate(fd, size));
    return fd;
}

TEST(shared_mapping_and_read_agree) {
    int fd = file("f", 2 * PAGE);
    char *p = OK(mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0)), buf[8] = {0};
    strcpy(p + PAGE, "hello");
    CHECK_EQ(pread(fd, buf, 6, PAGE), 6);
    CHECK_STR(buf, "hello");
    CHECK_EQ(pwrite(fd, "world", 5, PAGE), 5);
    CHECK_STR(p + PAGE, "world");
    OK(munmap(p, 2 * PAGE));
    CHECK_EQ(pread(fd, buf, 6, PAGE), 6);
    CHECK_STR(buf, "world");
}

TEST(two_shared_mappings_agree) {
    int fd = file("f", PAGE), fd2 = OK(open("f", O_RDWR));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0)), *q = OK(mmap(0, PAGE, RW, MAP_SHARED, fd2, 0));
    p[7] = 1;
    CHECK_EQ(q[7], 1);
    OK(close(fd)), OK(close(fd2));
    q[8] = 2;
    CHECK_EQ(p[8], 2);
    pid_t c;
    CHILD(c) p[9] = 3;
    JOIN(c);
    CHECK_EQ(q[9], 3);
}

TEST(private_mapping_sees_file_until_written) {
    int fd = file("f", 2 * PAGE);
    char *p = OK(mmap(0, 2 * PAGE, RW, MAP_PRIVATE, fd, 0)), c;
    OK(pwrite(fd, "a", 1, 0));
    CHECK_EQ(p[0], 'a');
    p[0] = 'b';
    CHECK_EQ(pread(fd, &c, 1, 0), 1);
    CHECK_EQ(c, 'a');
    OK(pwrite(fd, "z", 1, 0));
    CHECK_EQ(p[0], 'b');
    OK(pwrite(fd, "y", 1, PAGE));
    CHECK_EQ(p[PAGE], 'y');
}

TEST(mapping_outlives_unlink_and_close) {
    int fd = file("f", PAGE);
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    OK(close(fd)), OK(unlink("f"));
    strcpy(p, "still here");
    CHECK_STR(p, "still here");
}

TEST(tail_of_last_page_is_zero_and_not_written) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(write(fd, "abc", 3));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    for (int i = 3; i < (int)PAGE; i++) CHECK_EQ(p[i], 0);
    p[100] = 'x';
    OK(msync(p, PAGE, MS_SYNC));
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 3);
}

TEST(growing_file_becomes_accessible) {
    int fd = file("f", PAGE);
    char *p = OK(mmap(0, 4 * PAGE, RW, MAP_SHARED, fd, 0));
    OK(pwrite(fd, "x", 1, 3 * PAGE));
    CHECK_EQ(p[3 * PAGE], 'x');
    CHECK_EQ(p[2 * PAGE], 0);
    OK(ftruncate(fd, 2 * PAGE));
    OK(ftruncate(fd, 4 * PAGE));
    CHECK_EQ(p[3 * PAGE], 0);
}

TEST(truncate_zeroes_rest_of_page) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(write(fd, "abcdef", 6));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    OK(ftruncate(fd, 3));
    OK(ftruncate(fd, 6));
    CHECK_MEM(p, "abc\0\0\0", 6);
}

TEST(write_by_syscall_from_own_mapping) {
    int fd = file("f", 2 * PAGE);
    char *p = OK(mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0));
    strcpy(p, "copy me");
    CHECK_EQ(pwrite(fd, p, 8, PAGE), 8);
    CHECK_STR(p + PAGE, "copy me");
    CHECK_EQ(pread(fd, p + 100, 8, PAGE), 8);
    CHECK_STR(p + 100, "copy me");
}

TEST(offset_mappings) {
    int fd = file("f", 64 * PAGE);
    for (int i = 0; i < 64; i++) OK(pwrite(fd, &i, 4, i * PAGE));
    for (int i = 0; i < 64; i += 7) {
        int *p = OK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, i * PAGE));
        CHECK_EQ(*p, i);
    }
    int *all = OK(mmap(0, 64 * PAGE, PROT_READ, MAP_SHARED, fd, 0));
    for (int i = 0; i < 64; i++) CHECK_EQ(all[i * 1024], i);
}

TEST(msync_flags_and_errnos) {
    int fd = file("f", 4 * PAGE);
    char *p = OK(mmap(0, 4 * PAGE, RW, MAP_SHARED, fd, 0));
    p[0] = 1;
    OK(msync(p, 4 * PAGE, MS_SYNC));
    OK(msync(p, PAGE, MS_ASYNC));
    OK(msync(p, PAGE, MS_INVALIDATE | MS_SYNC));
    OK(msync(p, PAGE, 0));
    CHECK_ERRNO(msync(p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
    CHECK_ERRNO(msync(p, PAGE, 8), EINVAL);
    CHECK_ERRNO(msync(p + 1, PAGE, MS_SYNC), EINVAL);
    OK(munmap(p + PAGE, PAGE));
    CHECK_ERRNO(msync(p, 4 * PAGE, MS_SYNC), ENOMEM);
}

TEST(mapping_a_read_only_file_privately_writable) {
    OK(write_file("f", "text"));
    OK(chmod("f", 0400));
    int fd = OK(open("f", O_RDONLY));
    char *p = OK(mmap(0, PAGE, RW, MAP_PRIVATE, fd, 0));
    p[0] = 'T';
    CHECK_STR(p, "Text");
}

TEST(reads_into_mapped_file) {
    int fd = file("f", PAGE);
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    int fds[2];
    OK(pipe(fds));
    OK(write(fds[1], "through a pipe", 15));
    CHECK_EQ(read(fds[0], p, 15), 15);
    char buf[16];
    CHECK_EQ(pread(fd, buf, 15, 0), 15);
    CHECK_STR(buf, "through a pipe");
}

TEST(efault_beyond_end_of_mapped_file) {
    int fd = file("f", 10), fds[2];
    char *p = OK(mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0));
    OK(pipe(fds));
    CHECK_ERRNO(write(fds[1], p + PAGE, 10), EFAULT);
    int z = OK(open("/dev/zero", O_RDONLY));
    CHECK_ERRNO(read(z, p + PAGE, 10), EFAULT);
}

TEST(mtime_changes_by_shared_mapping) {
    int fd = file("f", PAGE);
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    struct stat st;
    OK(futimens(fd, old));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    p[0] = 1;
    OK(msync(p, PAGE, MS_SYNC));
    OK(munmap(p, PAGE));
    OK(fstat(fd, &st));
    // Disk file systems update it; tmpfs (and so a sandbox on it) does not.
    CHECK(st.st_mtime >= 1000);
}

// ---- memfd and seals

TEST(memfd_basics) {
    int fd = OK(memfd_create("name", MFD_CLOEXEC));
    char path[64], link[200];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = OK(readlink(path, link, sizeof link - 1));
    link[n] = 0;
    CHECK_STR(link, "/memfd:name (deleted)");
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(S_ISREG(st.st_mode));
    CHECK_EQ(st.st_mode & 0777, 0777);
    CHECK_EQ(st.st_size, 0);
    CHECK_EQ(st.st_nlink, 0);
    OK(ftruncate(fd, 3 * PAGE));
    char *p = OK(mmap(0, 3 * PAGE, RW, MAP_SHARED, fd, 0));
    p[PAGE] = 'q';
    char c;
    CHECK_EQ(pread(fd, &c, 1, PAGE), 1);
    CHECK_EQ(c, 'q');
    int again = OK(open(path, O_RDWR));
    OK(pwrite(again, "r", 1, PAGE));
    CHECK_EQ(p[PAGE], 'r');
}

TEST(memfd_errnos) {
    char name[300];
    memset(name, 'a', sizeof name);
    name[250] = 0;
    CHECK_ERRNO(memfd_create(name, 0), EINVAL);
    name[249] = 0;
    OK(memfd_create(name, 0));
    CHECK_ERRNO(memfd_create("x", 0x8000), EINVAL);
    CHECK_ERRNO(memfd_create((char *)8, 0), EFAULT);
}

TEST(seals_need_allow_sealing) {
    int fd = OK(memfd_create("x", 0));
    CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), EPERM);
    fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, 0x1000), EINVAL);
    int null = OK(open("/dev/null", O_RDWR));
    CHECK_ERRNO(fcntl(null, F_GET_SEALS), EINVAL);
}

TEST(seal_shrink_and_grow) {
    int fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, 2 * PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    CHECK_ERRNO(ftruncate(fd, PAGE), EPERM);
    OK(ftruncate(fd, 3 * PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
    CHECK_ERRNO(ftruncate(fd, 4 * PAGE), EPERM);
    CHECK_ERRNO(pwrite(fd, "x", 1, 3 * PAGE), EPERM);
    CHECK_EQ(pwrite(fd, "x", 1, 0), 1);
    OK(ftruncate(fd, 3 * PAGE));
    CHECK_ERRNO(fallocate(fd, 0, 0, 4 * PAGE), EPERM);
}

TEST(seal_write) {
    int fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, PAGE));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY); // a writable shared mapping is there
    OK(munmap(p, PAGE));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    CHECK_ERRNO(write(fd, "x", 1), EPERM);
    CHECK_ERRNO(mmap(0, PAGE, RW, MAP_SHARED, fd, 0), EPERM);
    CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), EPERM);
    OK(mmap(0, PAGE, RW, MAP_PRIVATE, fd, 0));
    OK(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
}

TEST(seal_future_write) {
    int fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(ftruncate(fd, PAGE));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    OK(fcntl(fd, F_ADD_SEALS, 0x10 /* F_SEAL_FUTURE_WRITE */));
    p[0] = 'a'; // what is mapped stays writable
    CHECK_ERRNO(write(fd, "x", 1), EPERM);
    CHECK_ERRNO(mmap(0, PAGE, RW, MAP_SHARED, fd, 0), EPERM);
    char *q = OK(mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0));
    CHECK_EQ(q[0], 'a');
    CHECK_ERRNO(mprotect(q, PAGE, RW), EACCES);
}

TEST(seal_seal) {
    int fd = OK(memfd_create("x", MFD_ALLOW_SEALING));
    OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
    int ro;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", OK(memfd_create("y", MFD_ALLOW_SEALING)));
    ro = OK(open(path, O_RDONLY));
    CHECK_ERRNO(fcntl(ro, F_ADD_SEALS, F_SEAL_WRITE), EPERM); // only through a writable description
}

TEST(memfd_over_scm_and_fork) {
    int fd = OK(memfd_create("x", 0)), s[2];
    OK(ftruncate(fd, PAGE));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    pid_t c;
    CHILD(c) {
        char ctl[CMSG_SPACE(4)], b;
        struct iovec v = {&b, 1};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
        CHECK_EQ(recvmsg(s[1], &m, 0), 1);
        int got = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&m));
        char *q = OK(mmap(0, PAGE, RW, MAP_SHARED, got, 0));
        strcpy(q, "from child");
    }
    char ctl[CMSG_SPACE(4)] = {0};
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(4);
    *(int *)CMSG_DATA(h) = fd;
    CHECK_EQ(sendmsg(s[0], &m, 0), 1);
    JOIN(c);
    CHECK_STR(p, "from child");
}

TEST(posix_shm) {
    int fd = OK(shm_open("/compat-shm", O_RDWR | O_CREAT | O_EXCL, 0600));
    int e = 0;
    if (ftruncate(fd, PAGE)) e = 1;
    int again = shm_open("/compat-shm", O_RDWR, 0);
    OK(shm_unlink("/compat-shm"));
    CHECK_EQ(e, 0);
    OK(again);
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0)), *q = OK(mmap(0, PAGE, RW, MAP_SHARED, again, 0));
    p[5] = 5;
    CHECK_EQ(q[5], 5);
    CHECK_ERRNO(shm_open("/compat-shm", O_RDWR, 0), ENOENT);
}

TEST(large_sparse_file_mapping) {
    int fd = file("f", 1l << 32);
    char *p = OK(mmap(0, 1l << 32, RW, MAP_SHARED, fd, 0));
    p[(1l << 32) - 1] = 1;
    p[1l << 31] = 2;
    char c;
    CHECK_EQ(pread(fd, &c, 1, (1l << 32) - 1), 1);
    CHECK_EQ(c, 1);
    CHECK_EQ(pread(fd, &c, 1, 1l << 31), 1);
    CHECK_EQ(c, 2);
    CHECK_EQ(p[1l << 30], 0);
}

TEST(fork_after_private_file_mapping) {
    int fd = file("f", 8 * PAGE);
    char *p = OK(mmap(0, 8 * PAGE, RW, MAP_PRIVATE, fd, 0));
    p[0] = 1;
    pid_t c;
    CHILD(c) {
        CHECK_EQ(p[0], 1);
        p[0] = 2;
        p[PAGE] = 2;
    }
    JOIN(c);
    CHECK_EQ(p[0], 1);
    CHECK_EQ(p[PAGE], 0);
}

TEST(exec_mapping_of_file) {
    unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3};
    int fd = file("f", PAGE);
    OK(pwrite(fd, code, sizeof code, 64));
    unsigned char *p = OK(mmap(0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
    CHECK_EQ(((int (*)(void))(p + 64))(), 42);
    p = OK(mmap(0, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
    CHECK_EQ(((int (*)(void))(p + 64))(), 42);
    code[1] = 43;
    OK(pwrite(fd, code, sizeof code, 64));
    CHECK_EQ(((int (*)(void))(p + 64))(), 43);
}

TEST(shared_zeroes_keep_to_the_descriptor) {
    int fd = OK(open("/dev/zero", O_RDONLY));
    char *p = OK(mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0));
    CHECK_ERRNO(mprotect(p, 4096, PROT_READ | PROT_WRITE), EACCES);
    CHECK_ERRNO(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0, EACCES);
    CHECK_EQ(p[4095], 0);
    // A private copy is the process's own.
    char *q = OK(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0));
    OK(mprotect(q, 4096, PROT_READ | PROT_WRITE));
    q[0] = 1;
    char *w = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, OK(open("/dev/zero", O_RDWR)), 0));
    pid_t c;
    CHILD(c) w[7] = 3;
    JOIN(c);
    CHECK_EQ(w[7], 3);
}
