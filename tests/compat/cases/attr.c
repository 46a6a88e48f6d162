// Attributes: chmod, chown, times, stat, statx, statfs, access, extended attributes.
#include "compat.h"
#include <grp.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <utime.h>

static struct stat get(const char *p) {
    struct stat st;
    OK(lstat(p, &st));
    return st;
}

TEST(chmod_and_types) {
    OK(write_file("f", "x"));
    OK(chmod("f", 07777));
    CHECK_EQ(get("f").st_mode, S_IFREG | 07777);
    OK(chmod("f", 0170644)); // type bits are ignored
    CHECK_EQ(get("f").st_mode, S_IFREG | 0644);
    int fd = OK(open("f", O_RDONLY));
    OK(fchmod(fd, 0400));
    CHECK_EQ(get("f").st_mode & 07777, 0400);
    OK(fchmodat(AT_FDCWD, "f", 0600, 0));
    CHECK_ERRNO(chmod("none", 0), ENOENT);
    CHECK_ERRNO(fchmod(999, 0), EBADF);
    OK(symlink("f", "l"));
    OK(chmod("l", 0640)); // follows
    CHECK_EQ(get("f").st_mode & 07777, 0640);
}

TEST(chmod_permission_and_sgid) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(write_file("mine", "x"));
    OK(chown("mine", 1000, 2000));
    pid_t p;
    CHILD(p) {
        OK(setgroups(0, 0));
        OK(setresgid(1000, 1000, 1000));
        OK(setresuid(1000, 1000, 1000));
        CHECK_ERRNO(chmod("f", 0777), EPERM);
        OK(chmod("mine", 02755));
        CHECK_EQ(get("mine").st_mode & 07777, 0755); // not a member of its group
        CHECK_ERRNO(chown("mine", 1001, -1), EPERM);
        CHECK_ERRNO(chown("mine", -1, 3000), EPERM);
        OK(chown("mine", 1000, 1000)); // own group is allowed
        OK(chmod("mine", 02755));
        CHECK_EQ(get("mine").st_mode & 07777, 02755);
        OK(chown("mine", -1, -1));
    }
    JOIN(p);
}

TEST(chown_and_set_id_bits) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(chmod("f", 06755));
    OK(chown("f", 12, 34));
    struct stat st = get("f");
    CHECK_EQ(st.st_uid, 12);
    CHECK_EQ(st.st_gid, 34);
    CHECK_EQ(st.st_mode & 07777, 0755);
    OK(chmod("f", 06744));
    OK(chown("f", -1, 35));
    CHECK_EQ(get("f").st_uid, 12);
    CHECK_EQ(get("f").st_mode & 07777, 02744); // without group execution the bit means something else
    OK(symlink("f", "l"));
    OK(lchown("l", 5, 6));
    CHECK_EQ(get("l").st_uid, 5);
    CHECK_EQ(get("f").st_uid, 12);
    OK(fchownat(AT_FDCWD, "l", 7, 8, AT_SYMLINK_NOFOLLOW));
    CHECK_EQ(get("l").st_uid, 7);
    int fd = OK(open("f", O_RDONLY));
    OK(fchownat(fd, "", 9, 9, AT_EMPTY_PATH));
    CHECK_EQ(get("f").st_uid, 9);
    OK(mkdir("d", 02755));
    OK(chmod("d", 06755));
    OK(chown("d", 1, 1));
    CHECK_EQ(get("d").st_mode & 07777, 06755); // directories keep them
}

TEST(write_clears_set_id_bits) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(chown("f", 1000, 1000));
    OK(chmod("f", 06777));
    pid_t p;
    CHILD(p) {
        OK(setresgid(1001, 1001, 1001));
        OK(setresuid(1001, 1001, 1001));
        int fd = OK(open("f", O_WRONLY));
        OK(write(fd, "y", 1));
        CHECK_EQ(get("f").st_mode & 07777, 0777);
    }
    JOIN(p);
    OK(chmod("f", 06777));
    CHILD(p) {
        OK(setresgid(1001, 1001, 1001));
        OK(setresuid(1001, 1001, 1001));
        OK(truncate("f", 0));
        CHECK_EQ(get("f").st_mode & 07777, 0777);
    }
    JOIN(p);
}

TEST(times_of_operations) {
    struct timespec old[2] = {{1000, 5}, {2000, 6}};
    OK(write_file("f", "x"));
    OK(utimensat(AT_FDCWD, "f", old, 0));
    struct stat a = get("f"), b;
    CHECK_EQ(a.st_atim.tv_sec, 1000);
    CHECK_EQ(a.st_atim.tv_nsec, 5);
    CHECK_EQ(a.st_mtim.tv_sec, 2000);
    CHECK_EQ(a.st_mtim.tv_nsec, 6);
    CHECK(a.st_ctim.tv_sec > 1000000);
    OK(chmod("f", 0600));
    b = get("f");
    CHECK_EQ(b.st_mtim.tv_sec, 2000); // chmod does not change it
    int fd = OK(open("f", O_RDWR));
    OK(write(fd, "y", 1));
    CHECK(get("f").st_mtim.tv_sec > 1000000);
    OK(futimens(fd, old));
    OK(ftruncate(fd, 0));
    CHECK(get("f").st_mtim.tv_sec > 1000000);
    OK(mkdir("d", 0755));
    OK(utimensat(AT_FDCWD, "d", old, 0));
    OK(write_file("d/x", ""));
    CHECK(get("d").st_mtim.tv_sec > 1000000);
    OK(utimensat(AT_FDCWD, "d", old, 0));
    OK(unlink("d/x"));
    CHECK(get("d").st_mtim.tv_sec > 1000000);
}

TEST(utimensat_now_omit_and_errnos) {
    struct timespec t[2] = {{1000, 0}, {2000, 0}};
    OK(write_file("f", "x"));
    OK(utimensat(AT_FDCWD, "f", t, 0));
    t[0] = (struct timespec){0, UTIME_OMIT}, t[1] = (struct timespec){0, UTIME_NOW};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    struct stat st = get("f");
    CHECK_EQ(st.st_atime, 1000);
    CHECK(st.st_mtime > 1000000);
    t[1].tv_nsec = UTIME_OMIT;
    OK(utimensat(AT_FDCWD, "f", t, 0));
    OK(utimensat(AT_FDCWD, "none", t, 0)); // nothing to do: the name is not looked at
    t[1].tv_nsec = UTIME_NOW;
    CHECK_ERRNO(utimensat(AT_FDCWD, "none", t, 0), ENOENT);
    t[0].tv_nsec = 1000000000;
    CHECK_ERRNO(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
    t[0].tv_nsec = -1;
    CHECK_ERRNO(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
    OK(symlink("f", "l"));
    t[0] = (struct timespec){3000, 0}, t[1] = (struct timespec){4000, 0};
    OK(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
    CHECK_EQ(get("l").st_mtime, 4000);
    CHECK(get("f").st_mtime > 1000000);
    OK(utimensat(AT_FDCWD, "f", 0, 0));
    CHECK(get("f").st_atime > 1000000);
    struct utimbuf u = {11, 22};
    OK(utime("f", &u));
    CHECK_EQ(get("f").st_atime, 11);
    struct timeval tv[2] = {{1, 500000}, {2, 0}};
    OK(utimes("f", tv));
    CHECK_EQ(get("f").st_atim.tv_nsec, 500000000);
    t[0] = (struct timespec){-5, 0};
    OK(utimensat(AT_FDCWD, "f", t, 0));
    CHECK_EQ(get("f").st_atime, -5);
}

TEST(utimes_permission) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(chmod("f", 0666));
    OK(write_file("g", "x"));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        struct timespec t[2] = {{1, 0}, {1, 0}};
        OK(utimensat(AT_FDCWD, "f", 0, 0)); // writable: now is allowed
        CHECK_ERRNO(utimensat(AT_FDCWD, "f", t, 0), EPERM);
        CHECK_ERRNO(utimensat(AT_FDCWD, "g", 0, 0), EACCES);
    }
    JOIN(p);
}

TEST(stat_fields) {
    umask(022);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0640));
    static char data[10000];
    OK(write(fd, data, sizeof data));
    struct stat st, d, v;
    OK(fstat(fd, &st));
    OK(stat(".", &d));
    CHECK_EQ(st.st_mode, S_IFREG | 0640);
    CHECK_EQ(st.st_nlink, 1);
    CHECK_EQ(st.st_uid, geteuid());
    CHECK_EQ(st.st_size, 10000);
    CHECK_EQ(st.st_dev, d.st_dev);
    CHECK_EQ(st.st_rdev, 0);
    CHECK(st.st_blksize >= 512);
    OK(fsync(fd));
    OK(fstat(fd, &st));
    CHECK_V(st.st_blocks >= 20 && st.st_blocks <= 40, st.st_blocks);
    OK(stat("/dev/null", &v));
    CHECK(S_ISCHR(v.st_mode));
    CHECK_EQ(major(v.st_rdev), 1);
    CHECK_EQ(minor(v.st_rdev), 3);
    CHECK_ERRNO(stat("none", &st), ENOENT);
    CHECK_ERRNO(fstat(999, &st), EBADF);
}

TEST(inode_numbers_are_unique_and_stable) {
    char name[8];
    ino_t seen[50];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "f%d", i);
        OK(write_file(name, "x"));
        seen[i] = get(name).st_ino;
        for (int k = 0; k < i; k++) CHECK(seen[k] != seen[i]);
    }
    OK(rename("f3", "g"));
    CHECK_EQ(get("g").st_ino, seen[3]);
    int fd = OK(open("f7", O_RDONLY));
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_ino, seen[7]);
}

TEST(statx_fields) {
    OK(write_file("f", "hello"));
    struct statx x;
    struct stat st = get("f");
    memset(&x, 0xff, sizeof x);
    OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
    CHECK_EQ(x.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
    CHECK_EQ(x.stx_size, 5);
    CHECK_EQ(x.stx_mode, S_IFREG | 0644);
    CHECK_EQ(x.stx_ino, st.st_ino);
    CHECK_EQ(makedev(x.stx_dev_major, x.stx_dev_minor), st.st_dev);
    CHECK_EQ(x.stx_mtime.tv_sec, st.st_mtim.tv_sec);
    CHECK_EQ(x.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
    int fd = OK(open("f", O_RDONLY));
    OK(statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &x));
    CHECK_EQ(x.stx_size, 5);
    OK(symlink("f", "l"));
    OK(statx(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &x));
    CHECK(S_ISLNK(x.stx_mode));
    CHECK_ERRNO(statx(AT_FDCWD, "", 0, STATX_SIZE, &x), ENOENT);
    CHECK_ERRNO(statx(AT_FDCWD, "f", 0, 0x80000000u, &x), EINVAL);
    CHECK_ERRNO(statx(AT_FDCWD, "f", 0x6000 /* both sync flags */, STATX_SIZE, &x), EINVAL);
    OK(statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, &x));
    if (x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) CHECK(x.stx_attributes & STATX_ATTR_MOUNT_ROOT);
    OK(statx(AT_FDCWD, "f", 0, STATX_BTIME, &x));
    if (x.stx_mask & STATX_BTIME) CHECK(x.stx_btime.tv_sec > 1000000);
}

TEST(statfs_values) {
    struct statfs s;
    OK(statfs(".", &s));
    CHECK(s.f_bsize >= 512 && s.f_namelen == 255);
    CHECK(s.f_bavail <= s.f_bfree && s.f_bfree <= s.f_blocks);
    OK(statfs("/proc", &s));
    CHECK_EQ(s.f_type, 0x9fa0);
    OK(statfs("/sys", &s));
    CHECK_EQ(s.f_type, 0x62656572);
    OK(statfs("/dev/shm", &s));
    CHECK_EQ(s.f_type, 0x01021994);
    OK(statfs("/dev/pts", &s));
    CHECK_EQ(s.f_type, 0x1cd1);
    int p[2];
    OK(pipe(p));
    OK(fstatfs(p[0], &s));
    CHECK_EQ(s.f_type, 0x50495045);
    int k = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    OK(fstatfs(k, &s));
    CHECK_EQ(s.f_type, 0x534f434b);
    CHECK_ERRNO(statfs("none", &s), ENOENT);
    CHECK_ERRNO(fstatfs(999, &s), EBADF);
}

TEST(access_uses_real_ids) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(chmod("f", 0600));
    OK(access("f", R_OK | W_OK));
    CHECK_ERRNO(access("f", X_OK), EACCES); // root needs one execute bit
    OK(chmod("f", 0610));
    OK(access("f", X_OK));
    CHECK_ERRNO(access("f", 8), EINVAL);
    CHECK_ERRNO(access("none", F_OK), ENOENT);
    pid_t p;
    CHILD(p) {
        OK(setresuid(1000, 0, 0));
        CHECK_ERRNO(access("f", R_OK), EACCES);
        OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
        OK(open("f", O_RDONLY));
        OK(access("f", F_OK));
    }
    JOIN(p);
    CHECK_ERRNO(syscall(439 /* faccessat2 */, AT_FDCWD, "f", R_OK, 0x8000), EINVAL);
    OK(symlink("nowhere", "l"));
    CHECK_ERRNO(access("l", F_OK), ENOENT);
    OK(syscall(439, AT_FDCWD, "l", F_OK, AT_SYMLINK_NOFOLLOW));
}

TEST(user_xattrs) {
    OK(write_file("f", "x"));
    if (setxattr("f", "user.a", "value", 5, 0) && errno == EOPNOTSUPP) SKIP("no user xattrs here");
    char buf[64];
    CHECK_EQ(getxattr("f", "user.a", buf, sizeof buf), 5);
    CHECK_MEM(buf, "value", 5);
    CHECK_EQ(getxattr("f", "user.a", 0, 0), 5);
    CHECK_ERRNO(getxattr("f", "user.a", buf, 3), ERANGE);
    CHECK_ERRNO(getxattr("f", "user.b", buf, 3), ENODATA);
    CHECK_ERRNO(setxattr("f", "user.a", "v", 1, XATTR_CREATE), EEXIST);
    CHECK_ERRNO(setxattr("f", "user.b", "v", 1, XATTR_REPLACE), ENODATA);
    OK(setxattr("f", "user.a", "v2", 2, XATTR_REPLACE));
    OK(setxattr("f", "user.empty", "", 0, XATTR_CREATE));
    CHECK_EQ(getxattr("f", "user.empty", buf, 4), 0);
    ssize_t n = OK(listxattr("f", buf, sizeof buf));
    CHECK(memmem(buf, n, "user.a\0", 7) && memmem(buf, n, "user.empty\0", 11));
    CHECK_ERRNO(listxattr("f", buf, 3), ERANGE);
    OK(removexattr("f", "user.a"));
    CHECK_ERRNO(removexattr("f", "user.a"), ENODATA);
    int fd = OK(open("f", O_RDONLY));
    OK(fsetxattr(fd, "user.c", "1", 1, 0));
    CHECK_EQ(fgetxattr(fd, "user.c", buf, 8), 1);
    OK(fremovexattr(fd, "user.c"));
    CHECK_ERRNO(setxattr("f", "user.x", "1", 1, 8), EINVAL);
    CHECK_ERRNO(setxattr("f", "nonamespace", "1", 1, 0), EOPNOTSUPP);
    OK(symlink("f", "l"));
    CHECK_ERRNO(lsetxattr("l", "user.x", "1", 1, 0), EPERM);
    char name[300] = "user.";
    memset(name + 5, 'n', 260);
    CHECK_ERRNO(setxattr("f", name, "1", 1, 0), ERANGE);
    CHECK_ERRNO(setxattr("f", "user.big", buf, 65537, 0), E2BIG);
}

TEST(umask_in_proc_and_sync) {
    umask(0137);
    char buf[4096];
    CHECK(read_file("/proc/self/status", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "Umask:\t0137\n"));
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(fsync(fd));
    OK(fdatasync(fd));
    OK(syncfs(fd));
    OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    CHECK_ERRNO(fsync(999), EBADF);
    int p[2];
    OK(pipe(p));
    CHECK_ERRNO(fsync(p[0]), EINVAL);
}
