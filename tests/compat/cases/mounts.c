// Mounts, in a mount namespace of the case's own. Needs root.
#include "compat.h"
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static void enter(void) {
    NEED_ROOT();
    if (unshare(CLONE_NEWNS)) {
        if (errno == EPERM) SKIP("no right to mount");
        FAIL("unshare gives %s", strerrorname_np(errno));
    }
    OK(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0));
    OK(mkdir("m", 0755));
}

static bool mounts_have(const char *needle) {
    static char buf[1 << 16];
    CHECK(read_file("/proc/self/mounts", buf, sizeof buf) > 0);
    return strstr(buf, needle);
}

TEST(tmpfs_mount_and_umount) {
    enter();
    OK(write_file("m/under", "x"));
    struct stat a, b;
    OK(stat("m", &a));
    OK(mount("mysource", "m", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=700"));
    OK(stat("m", &b));
    CHECK(a.st_dev != b.st_dev);
    CHECK_EQ(b.st_mode & 07777, 0700);
    CHECK_ERRNO(access("m/under", F_OK), ENOENT);
    OK(write_file("m/f", "y"));
    CHECK(mounts_have("mysource"));
    CHECK(mounts_have("nosuid,nodev"));
    struct statfs s;
    OK(statfs("m", &s));
    CHECK_EQ(s.f_type, 0x01021994);
    CHECK_EQ(s.f_blocks * s.f_bsize, 1 << 20);
    OK(umount("m"));
    OK(access("m/under", F_OK));
    CHECK_ERRNO(umount("m"), EINVAL);
    CHECK_ERRNO(umount("none"), ENOENT);
}

TEST(tmpfs_size_limit) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, "size=64k"));
    int fd = OK(open("m/f", O_RDWR | O_CREAT, 0600));
    static char b[100000];
    ssize_t n = write(fd, b, sizeof b);
    CHECK_V(n > 0 && n <= 65536, n);
    CHECK_ERRNO(write(fd, b, sizeof b), ENOSPC);
    OK(ftruncate(fd, 0));
    CHECK(write(fd, b, 4096) == 4096);
    OK(mount("t", "m", 0, MS_REMOUNT, "size=128k"));
    struct statfs s;
    OK(statfs("m", &s));
    CHECK_EQ(s.f_blocks * s.f_bsize, 128 << 10);
}

TEST(tmpfs_inode_limit) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, "nr_inodes=5"));
    char name[16];
    int n = 0;
    for (; n < 10; n++) {
        snprintf(name, sizeof name, "m/%d", n);
        if (mknod(name, S_IFREG | 0600, 0)) break;
    }
    CHECK_EQ(n, 4); // the root is one
    CHECK_EQ(errno, ENOSPC);
}

TEST(readonly_mount) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, 0));
    OK(write_file("m/f", "x"));
    OK(mount("t", "m", 0, MS_REMOUNT | MS_RDONLY, 0));
    CHECK_ERRNO(open("m/f", O_WRONLY), EROFS);
    CHECK_ERRNO(open("m/g", O_WRONLY | O_CREAT, 0600), EROFS);
    CHECK_ERRNO(mkdir("m/d", 0700), EROFS);
    CHECK_ERRNO(unlink("m/f"), EROFS);
    CHECK_ERRNO(rename("m/f", "m/g"), EROFS);
    CHECK_ERRNO(chmod("m/f", 0), EROFS);
    CHECK_ERRNO(truncate("m/f", 0), EROFS);
    CHECK_ERRNO(utimensat(AT_FDCWD, "m/f", 0, 0), EROFS);
    CHECK_ERRNO(access("m/f", W_OK), EROFS);
    CHECK_ERRNO(mkdir("m/f", 0700), EEXIST);
    OK(open("m/f", O_RDONLY));
    struct statvfs v;
    OK(statvfs("m", &v));
    CHECK(v.f_flag & ST_RDONLY);
}

TEST(remount_ro_with_writer_is_busy) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, 0));
    int fd = OK(open("m/f", O_WRONLY | O_CREAT, 0600));
    CHECK_ERRNO(mount("t", "m", 0, MS_REMOUNT | MS_RDONLY, 0), EBUSY);
    OK(close(fd));
    OK(mount("t", "m", 0, MS_REMOUNT | MS_RDONLY, 0));
}

TEST(umount_busy_and_detach) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, 0));
    int fd = OK(open("m/f", O_RDWR | O_CREAT, 0600));
    CHECK_ERRNO(umount("m"), EBUSY);
    OK(umount2("m", MNT_DETACH));
    CHECK_ERRNO(access("m/f", F_OK), ENOENT);
    CHECK_EQ(write(fd, "still", 5), 5);
    CHECK_ERRNO(umount2("m", 0x100), EINVAL);
}

TEST(umount_expire_and_nofollow) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, 0));
    OK(symlink("m", "l"));
    CHECK_ERRNO(umount2("l", UMOUNT_NOFOLLOW), EINVAL);
    CHECK_ERRNO(umount2("m", MNT_EXPIRE), EAGAIN); // first marks
    OK(umount2("m", MNT_EXPIRE));
}

TEST(bind_mount) {
    enter();
    OK(mkdir("src", 0755));
    OK(write_file("src/f", "one"));
    OK(mount("src", "m", 0, MS_BIND, 0));
    char buf[8];
    CHECK(read_file("m/f", buf, sizeof buf) == 3);
    OK(write_file("m/g", "two"));
    OK(access("src/g", F_OK));
    struct stat a, b;
    OK(stat("src/f", &a)), OK(stat("m/f", &b));
    CHECK(a.st_dev == b.st_dev && a.st_ino == b.st_ino);
    CHECK_ERRNO(rename("src/f", "m/h"), EXDEV); // across mounts, even of one file system
    CHECK_ERRNO(link("src/f", "m/h"), EXDEV);
    CHECK_ERRNO(rmdir("m"), EBUSY);
    CHECK_ERRNO(rename("m", "n"), EBUSY);
    OK(umount("m"));
}

TEST(bind_of_a_file) {
    enter();
    OK(write_file("a", "A")), OK(write_file("b", "B"));
    OK(mount("a", "b", 0, MS_BIND, 0));
    char buf[8];
    CHECK(read_file("b", buf, sizeof buf) == 1 && buf[0] == 'A');
    CHECK_ERRNO(unlink("b"), EBUSY);
    OK(umount("b"));
    CHECK(read_file("b", buf, sizeof buf) == 1 && buf[0] == 'B');
    CHECK_ERRNO(mount("a", "m", 0, MS_BIND, 0), ENOTDIR);
}

TEST(bind_readonly_by_remount) {
    enter();
    OK(mkdir("src", 0755));
    OK(mount("src", "m", 0, MS_BIND, 0));
    OK(mount(0, "m", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC, 0));
    CHECK_ERRNO(open("m/f", O_WRONLY | O_CREAT, 0600), EROFS);
    OK(write_file("src/f", "x")); // the other mount is not
    OK(write_file("src/s", "#!/bin/sh\n"));
    OK(chmod("src/s", 0755));
    CHECK_ERRNO(execl("m/s", "s", (char *)0), EACCES);
    CHECK_ERRNO(access("m/s", X_OK), EACCES);
}

TEST(recursive_bind) {
    enter();
    OK(mkdir("src", 0755)), OK(mkdir("src/sub", 0755));
    OK(mount("t", "src/sub", "tmpfs", 0, 0));
    OK(write_file("src/sub/f", "x"));
    OK(mount("src", "m", 0, MS_BIND, 0));
    CHECK_ERRNO(access("m/sub/f", F_OK), ENOENT);
    OK(umount("m"));
    OK(mount("src", "m", 0, MS_BIND | MS_REC, 0));
    OK(access("m/sub/f", F_OK));
}

TEST(move_mount) {
    enter();
    OK(mkdir("n", 0755));
    OK(mount("t", "m", "tmpfs", 0, 0));
    OK(write_file("m/f", "x"));
    OK(mount("m", "n", 0, MS_MOVE, 0));
    OK(access("n/f", F_OK));
    CHECK_ERRNO(access("m/f", F_OK), ENOENT);
    CHECK_ERRNO(mount("m", "n", 0, MS_MOVE, 0), EINVAL);
}

TEST(shared_propagation) {
    enter();
    OK(mkdir("n", 0755));
    OK(mount("t", "m", "tmpfs", 0, 0));
    OK(mount(0, "m", 0, MS_SHARED, 0));
    OK(mkdir("m/d", 0755));
    OK(mount("m", "n", 0, MS_BIND, 0));
    OK(mount("u", "m/d", "tmpfs", 0, 0));
    OK(write_file("m/d/f", "x"));
    OK(access("n/d/f", F_OK)); // came over
    OK(umount("n/d"));
    CHECK_ERRNO(access("m/d/f", F_OK), ENOENT);
    OK(mount(0, "n", 0, MS_SLAVE, 0));
    OK(mount("u", "n/d", "tmpfs", 0, 0));
    OK(write_file("n/d/g", "x"));
    CHECK_ERRNO(access("m/d/g", F_OK), ENOENT); // a slave does not send
    static char buf[1 << 16];
    CHECK(read_file("/proc/self/mountinfo", buf, sizeof buf) > 0);
    CHECK(strstr(buf, " shared:") && strstr(buf, " master:"));
}

TEST(namespace_is_private) {
    enter();
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWNS));
        OK(mount("t", "m", "tmpfs", 0, 0));
        OK(write_file("m/f", "x"));
    }
    JOIN(p);
    CHECK_ERRNO(access("m/f", F_OK), ENOENT);
}

TEST(stacked_mounts) {
    enter();
    OK(mount("a", "m", "tmpfs", 0, 0));
    OK(write_file("m/first", "x"));
    OK(mount("b", "m", "tmpfs", 0, 0));
    OK(write_file("m/second", "x"));
    CHECK_ERRNO(access("m/first", F_OK), ENOENT);
    OK(umount("m"));
    OK(access("m/first", F_OK));
    OK(umount("m"));
}

TEST(mount_errnos) {
    enter();
    CHECK_ERRNO(mount("t", "none", "tmpfs", 0, 0), ENOENT);
    CHECK_ERRNO(mount("t", "m", "nosuchfs", 0, 0), ENODEV);
    CHECK_ERRNO(mount("none", "m", 0, MS_BIND, 0), ENOENT);
    CHECK_ERRNO(mount("t", "m", "tmpfs", 0, "nosuchoption=1"), EINVAL);
    CHECK_ERRNO(mount("t", "m", "tmpfs", 0, "size=x"), EINVAL);
    CHECK_ERRNO(mount(0, "m", 0, MS_REMOUNT, 0), EINVAL); // not a mount point
    CHECK_ERRNO(mount(0, "m", 0, MS_SHARED, 0), EINVAL);
    CHECK_ERRNO(mount(0, "/", 0, MS_SHARED | MS_PRIVATE, 0), EINVAL);
    OK(write_file("f", "x"));
    CHECK_ERRNO(mount("t", "f", "tmpfs", 0, 0), ENOTDIR);
    CHECK_ERRNO(mount("t", (char *)8, "tmpfs", 0, 0), EFAULT);
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(mount("t", "m", "tmpfs", 0, 0), EPERM);
        CHECK_ERRNO(umount("m"), EPERM);
    }
    JOIN(p);
}

TEST(mountinfo_lines) {
    enter();
    OK(mount("src name", "m", "tmpfs", MS_NOEXEC | MS_RDONLY, 0));
    static char buf[1 << 16];
    CHECK(read_file("/proc/self/mountinfo", buf, sizeof buf) > 0);
    char *l = strstr(buf, "src\\040name"); // blanks are escaped
    CHECK(l);
    while (l > buf && l[-1] != '\n') l--;
    int id, parent, ma, mi;
    char root[64], at[300], opts[64];
    CHECK_EQ(sscanf(l, "%d %d %d:%d %63s %299s %63s", &id, &parent, &ma, &mi, root, at, opts), 7);
    CHECK_STR(root, "/");
    CHECK_STR(opts, "ro,noexec,relatime");
    CHECK(strlen(at) > 2 && !strcmp(at + strlen(at) - 2, "/m"));
    struct stat st;
    OK(stat("m", &st));
    CHECK_EQ(makedev(ma, mi), st.st_dev);
}

TEST(pivot_root) {
    enter();
    OK(mount("t", "m", "tmpfs", 0, 0));
    OK(mkdir("m/old", 0755));
    OK(write_file("m/here", "x"));
    OK(chdir("m"));
    CHECK_ERRNO(syscall(SYS_pivot_root, "old", "."), EINVAL); // the new root is no mount
    OK(syscall(SYS_pivot_root, ".", "old"));
    OK(chdir("/"));
    OK(access("/here", F_OK));
    OK(access("/old/proc", F_OK));
    OK(umount2("/old", MNT_DETACH));
    CHECK_ERRNO(access("/old/proc", F_OK), ENOENT);
}

TEST(proc_mount_shows_pid_namespace) {
    enter();
    pid_t p, q;
    CHILD(p) {
        if (unshare(CLONE_NEWPID)) SKIP("no pid namespaces");
        CHILD(q) {
            OK(mount("proc", "m", "proc", 0, 0));
            char buf[512];
            CHECK(read_file("m/self/stat", buf, sizeof buf) > 0);
            CHECK_EQ(atoi(buf), 1);
            CHECK_ERRNO(access("m/2", F_OK), ENOENT);
        }
        JOIN(q);
    }
    int s = WAIT(p);
    if (s == W_EXIT(COMPAT_SKIPPED)) _exit(COMPAT_SKIPPED);
    CHECK_EQ(s, 0);
}

TEST(nosuid_mount_ignores_set_id) {
    enter();
    OK(mount("t", "m", "tmpfs", MS_NOSUID, 0));
    int in = OK(open("/bin/cat", O_RDONLY)), out = OK(open("m/cat", O_WRONLY | O_CREAT, 0755));
    char buf[65536];
    ssize_t n;
    while ((n = OK(read(in, buf, sizeof buf))) > 0) OK(write(out, buf, n));
    OK(fchmod(out, 04755));
    close(out);
    OK(chmod(".", 0755)), OK(chmod("m", 0755));
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    CHILD(p) {
        dup2(fd[1], 1);
        OK(setuid(1000));
        execl("m/cat", "cat", "/proc/self/status", (char *)0);
    }
    JOIN(p);
    ssize_t k = OK(read(fd[0], buf, 4000));
    buf[k] = 0;
    CHECK(strstr(buf, "Uid:\t1000\t1000\t1000\t1000"));
}

TEST(nodev_mount_refuses_devices) {
    enter();
    OK(mount("t", "m", "tmpfs", MS_NODEV, 0));
    if (mknod("m/null", S_IFCHR | 0666, 0x103)) {
        CHECK_EQ(errno, EPERM);
        SKIP("no right to make devices");
    }
    CHECK_ERRNO(open("m/null", O_RDWR), EACCES);
}

TEST(nothing_is_mounted_on_links_of_proc) {
    NEED_ROOT();
    if (unshare(CLONE_NEWNS)) SKIP("unshare: %s", strerrorname_np(errno));
    OK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    int a = OK(open("a", O_RDWR | O_CREAT, 0600));
    close(OK(open("b", O_RDWR | O_CREAT, 0600)));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", a);
    int link = OK(open(path, O_PATH | O_NOFOLLOW));
    snprintf(path, sizeof path, "/proc/self/fd/%d", link);
    if (mount("b", path, 0, MS_BIND, 0) == 0) SKIP("Linux before 6.12 does");
    CHECK_EQ(errno, ENOENT);
}
