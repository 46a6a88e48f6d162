// File size and space: truncate, fallocate, holes.
#include "compat.h"
#include <linux/falloc.h>

static off_t size_of(int fd) {
    struct stat st;
    OK(fstat(fd, &st));
    return st.st_size;
}

TEST(truncate_both_ways) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    char b[8];
    OK(write(fd, "abcdef", 6));
    OK(ftruncate(fd, 3));
    CHECK_EQ(size_of(fd), 3);
    OK(truncate("f", 6));
    CHECK_EQ(pread(fd, b, 8, 0), 6);
    CHECK_MEM(b, "abc\0\0\0", 6);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6); // position stays
    OK(ftruncate(fd, 1l << 40));
    CHECK_EQ(size_of(fd), 1l << 40);
    CHECK_EQ(pread(fd, b, 4, 1l << 39), 4);
    CHECK_EQ(b[0], 0);
}

TEST(truncate_errnos) {
    OK(mkdir("d", 0755));
    OK(write_file("f", "x"));
    CHECK_ERRNO(truncate("f", -1), EINVAL);
    CHECK_ERRNO(truncate("none", 0), ENOENT);
    CHECK_ERRNO(truncate("d", 0), EISDIR);
    int r = OK(open("f", O_RDONLY)), p[2];
    CHECK_ERRNO(ftruncate(r, 0), EINVAL);
    OK(pipe(p));
    CHECK_ERRNO(ftruncate(p[1], 0), EINVAL);
    CHECK_ERRNO(ftruncate(999, 0), EBADF);
    OK(mkfifo("fifo", 0600));
    CHECK_ERRNO(truncate("fifo", 0), EINVAL);
}

TEST(fallocate_extends) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    if (fallocate(fd, 0, 0, 10000) && errno == EOPNOTSUPP) SKIP("no fallocate here");
    CHECK_EQ(size_of(fd), 10000);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(st.st_blocks * 512 >= 10000);
    OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
    CHECK_EQ(size_of(fd), 10000);
    OK(pwrite(fd, "x", 1, 5));
    OK(fallocate(fd, 0, 0, 100)); // changes no data
    char b[2];
    CHECK_EQ(pread(fd, b, 1, 5), 1);
    CHECK_EQ(b[0], 'x');
    CHECK_EQ(size_of(fd), 10000);
    CHECK_EQ(posix_fallocate(fd, 0, 20000), 0);
    CHECK_EQ(size_of(fd), 20000);
}

TEST(punch_hole_and_zero_range) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    static char a[16384], b[16384];
    memset(a, 'x', sizeof a);
    OK(write(fd, a, sizeof a));
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4000, 5000)) {
        if (errno == EOPNOTSUPP) SKIP("no holes here");
        FAIL("fallocate");
    }
    memset(a + 4000, 0, 5000);
    CHECK_EQ(pread(fd, b, sizeof b, 0), sizeof b);
    CHECK_MEM(a, b, sizeof a);
    CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
    OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096)); // beyond the end
    CHECK_EQ(size_of(fd), 16384);
}

TEST(fallocate_errnos) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), r = OK(open("f", O_RDONLY)), d = OK(open(".", O_RDONLY)), p[2];
    CHECK_ERRNO(fallocate(fd, 0, -1, 10), EINVAL);
    CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
    CHECK_ERRNO(fallocate(fd, 0x8000, 0, 10), EOPNOTSUPP);
    CHECK_ERRNO(fallocate(r, 0, 0, 10), EBADF);
    CHECK_ERRNO(fallocate(d, 0, 0, 10), EBADF); // not open for writing
    OK(pipe(p));
    CHECK_ERRNO(fallocate(p[1], 0, 0, 10), ESPIPE);
    CHECK_ERRNO(fallocate(fd, 0, INT64_MAX, 10), EFBIG);
}

TEST(seek_data_and_hole) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(pwrite(fd, "x", 1, 1 << 20));
    off_t end = size_of(fd);
    CHECK_EQ(lseek(fd, end - 1, SEEK_DATA), end - 1);
    off_t d = OK(lseek(fd, 0, SEEK_DATA));
    CHECK_V(d <= 1 << 20, d); // a file system without holes says 0
    off_t h = OK(lseek(fd, end - 1, SEEK_HOLE));
    CHECK_EQ(h, end);
    CHECK_ERRNO(lseek(fd, end, SEEK_DATA), ENXIO);
    CHECK_ERRNO(lseek(fd, end, SEEK_HOLE), ENXIO);
    CHECK_ERRNO(lseek(fd, -1, SEEK_DATA), ENXIO);
    OK(ftruncate(fd, 2 << 20));
    off_t after = lseek(fd, (1 << 20) + 65536, SEEK_DATA);
    CHECK_V((after == -1 && errno == ENXIO) || after == (1 << 20) + 65536, after);
}

TEST(sparse_file_uses_little) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 1l << 30));
    OK(pwrite(fd, "x", 1, 1l << 29));
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_V(st.st_blocks < 1 << 14, st.st_blocks);
}

TEST(write_beyond_end_leaves_zeroes) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(write(fd, "abc", 3));
    OK(pwrite(fd, "z", 1, 100000));
    static char b[100001];
    CHECK_EQ(pread(fd, b, sizeof b, 0), 100001);
    for (int i = 3; i < 100000; i++) CHECK_EQ(b[i], 0);
}

TEST(truncate_and_rewrite_has_no_old_data) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    static char a[20000], b[20000];
    memset(a, 'o', sizeof a);
    OK(write(fd, a, sizeof a));
    OK(ftruncate(fd, 100));
    OK(pwrite(fd, "n", 1, 19999));
    CHECK_EQ(pread(fd, b, sizeof b, 0), 20000);
    for (int i = 0; i < 100; i++) CHECK_EQ(b[i], 'o');
    for (int i = 100; i < 19999; i++) CHECK_EQ(b[i], 0);
}
