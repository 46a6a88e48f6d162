// Calls of recent kernels that have no family of their own; what a kernel lacks is skipped.
#include "compat.h"
#include <sys/xattr.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
static char *pages(int n) { return OK(mmap(0, n * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); }

TEST(mseal) {
    char *p = pages(4);
    if (syscall(462, p + PAGE, PAGE, 0) && errno == ENOSYS) SKIP("no mseal in this kernel");
    CHECK_ERRNO(munmap(p, 4 * PAGE), EPERM);
    CHECK_ERRNO(mprotect(p + PAGE, PAGE, PROT_READ), EPERM);
    CHECK_ERRNO(mmap(p, 4 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
    CHECK_ERRNO(mremap(p + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EPERM);
    OK(madvise(p + PAGE, PAGE, MADV_DONTNEED)); // it can be written, and so be cleared
    p[PAGE] = 1;
    OK(munmap(p, PAGE));
    OK(munmap(p + 2 * PAGE, 2 * PAGE));
    char *q = pages(2);
    OK(mprotect(q, PAGE, PROT_READ));
    OK(syscall(462, q, PAGE, 0));
    CHECK_ERRNO(madvise(q, PAGE, MADV_DONTNEED), EPERM);
    CHECK_ERRNO(syscall(462, q + 1, PAGE, 0), EINVAL);
    CHECK_ERRNO(syscall(462, q, PAGE, 1), EINVAL);
    CHECK_ERRNO(syscall(462, p, 3 * PAGE, 0), ENOMEM);
    OK(syscall(462, p, 0, 0));
}

TEST(remap_file_pages) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 3 * PAGE));
    char *p = OK(mmap(0, 3 * PAGE, RW, MAP_SHARED, fd, 0));
    for (int i = 0; i < 3; i++) p[i * PAGE] = 'a' + i;
    OK(syscall(SYS_remap_file_pages, p, PAGE, 0, 2, 0));
    CHECK_EQ(p[0], 'c');
    CHECK_EQ(p[PAGE], 'b');
    CHECK_ERRNO(syscall(SYS_remap_file_pages, p, PAGE, PROT_READ, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_remap_file_pages, pages(1), PAGE, 0, 0, 0), EINVAL);
}

TEST(process_madvise) {
    int self = OK(syscall(SYS_pidfd_open, getpid(), 0));
    char *p = pages(2);
    p[0] = 1;
    struct iovec v = {p, 2 * PAGE};
    CHECK_EQ(syscall(SYS_process_madvise, self, &v, 1, MADV_COLD, 0), 2 * PAGE);
    CHECK_EQ(p[0], 1);
    CHECK_ERRNO(syscall(SYS_process_madvise, self, &v, 1, MADV_COLD, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_process_madvise, -1, &v, 1, MADV_COLD, 0), EBADF);
    CHECK_ERRNO(syscall(SYS_process_madvise, self, 8, 1, MADV_COLD, 0), EFAULT);
    pid_t c;
    CHILD(c) pause();
    int other = OK(syscall(SYS_pidfd_open, c, 0));
    CHECK_ERRNO(syscall(SYS_process_madvise, other, &v, 1, MADV_DONTNEED, 0), EINVAL);
    OK(kill(c, SIGKILL));
    WAIT(c);
    CHECK_ERRNO(syscall(SYS_process_madvise, other, &v, 1, MADV_COLD, 0), ESRCH);
}

TEST(cachestat) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char b[3 * PAGE];
    memset(b, 1, sizeof b);
    OK(write(fd, b, sizeof b));
    uint64_t range[2] = {0, 0}, st[5];
    if (syscall(451, fd, range, st, 0)) {
        if (errno == ENOSYS || errno == EOPNOTSUPP) SKIP("no cachestat here");
        FAIL("%s", strerrorname_np(errno));
    }
    CHECK_EQ(st[0], 3);
    range[0] = PAGE, range[1] = 1;
    OK(syscall(451, fd, range, st, 0));
    CHECK_EQ(st[0], 1);
    CHECK_ERRNO(syscall(451, fd, range, st, 1), EINVAL);
    CHECK_ERRNO(syscall(451, -1, range, st, 0), EBADF);
    CHECK_ERRNO(syscall(451, fd, 8, st, 0), EFAULT);
}

struct xattr_args_ {
    uint64_t value;
    uint32_t size, flags;
};
TEST(xattrs_at) {
    OK(write_file("f", "x"));
    int fd = OK(open("f", O_RDONLY));
    char value[16] = "";
    struct xattr_args_ a = {(uint64_t) "abc", 3, 0}, g = {(uint64_t)value, sizeof value, 0};
    if (syscall(463, AT_FDCWD, "f", 0, "user.k", &a, sizeof a)) {
        if (errno == ENOSYS || errno == EOPNOTSUPP) SKIP("no setxattrat here");
        FAIL("%s", strerrorname_np(errno));
    }
    CHECK_EQ(syscall(464, AT_FDCWD, "f", 0, "user.k", &g, sizeof g), 3);
    CHECK_STR(value, "abc");
    CHECK_EQ(syscall(464, fd, "", AT_EMPTY_PATH, "user.k", &g, sizeof g), 3);
    char names[64];
    CHECK(syscall(465, fd, "", AT_EMPTY_PATH, names, sizeof names) >= 7);
    g.flags = 1;
    CHECK_ERRNO(syscall(464, AT_FDCWD, "f", 0, "user.k", &g, sizeof g), EINVAL);
    CHECK_ERRNO(syscall(463, AT_FDCWD, "f", 0, "user.k", &a, 8), EINVAL);
    CHECK_ERRNO(syscall(463, AT_FDCWD, "f", 0x8000, "user.k", &a, sizeof a), EINVAL);
    OK(syscall(466, AT_FDCWD, "f", 0, "user.k"));
    CHECK_ERRNO(syscall(466, AT_FDCWD, "f", 0, "user.k"), ENODATA);
}

TEST(syslog_has_lines) {
    NEED_ROOT();
    char b[8192];
    int n = syscall(SYS_syslog, 3, b, sizeof b);
    if (n < 0 && errno == EPERM) SKIP("no CAP_SYSLOG");
    CHECK(n >= 0);
    CHECK(syscall(SYS_syslog, 10, 0, 0) >= 4096);
    CHECK_ERRNO(syscall(SYS_syslog, 99, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_syslog, 3, 0, 10), EINVAL);
    CHECK_ERRNO(syscall(SYS_syslog, 3, b, -1), EINVAL);
    CHECK_EQ(syscall(SYS_syslog, 3, b, 0), 0);
}

TEST(file_handles) {
    struct {
        unsigned bytes;
        int type;
        char f[128];
    } h = {128, 0, ""};
    int id;
    OK(write_file("f", "x"));
    long r = syscall(SYS_name_to_handle_at, AT_FDCWD, "f", &h, &id, 0);
    CHECK_V(r == 0 || errno == EOPNOTSUPP, errno);
    CHECK_ERRNO(syscall(SYS_name_to_handle_at, AT_FDCWD, "none", &h, &id, 0), ENOENT);
    CHECK_ERRNO(syscall(SYS_name_to_handle_at, AT_FDCWD, "f", &h, &id, 0x100), EINVAL);
    pid_t p;
    NEED_ROOT();
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(syscall(SYS_open_by_handle_at, AT_FDCWD, &h, O_RDONLY), EPERM);
    }
    JOIN(p);
}

TEST(ustat) {
    struct stat st;
    OK(stat("/proc", &st));
    char b[32];
    OK(syscall(SYS_ustat, (unsigned)st.st_dev, b));
    CHECK_ERRNO(syscall(SYS_ustat, 0xffff, b), EINVAL);
}

TEST(process_mrelease) {
    int self = OK(syscall(SYS_pidfd_open, getpid(), 0));
    CHECK_ERRNO(syscall(SYS_process_mrelease, self, 0), EINVAL); // it is not dying
    CHECK_ERRNO(syscall(SYS_process_mrelease, self, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_process_mrelease, -1, 0), EBADF);
}
