// Path walk: *at calls, "..", chroot, getcwd, openat2.
#include "compat.h"
#include <linux/openat2.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
static long openat2(int d, const char *p, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how h = {flags, mode, resolve};
    return syscall(SYS_openat2, d, p, &h, sizeof h);
}

TEST(dotdot_at_root_stays) {
    struct stat a, b;
    OK(stat("/", &a));
    OK(stat("/../../..", &b));
    CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
}

TEST(slashes_and_dots) {
    OK(mkdir("d", 0755));
    OK(write_file("d/f", "x"));
    OK(access("d//f", F_OK));
    OK(access("./d/./f", F_OK));
    OK(access("d/../d/f", F_OK));
    OK(access("d///", F_OK));
    CHECK_ERRNO(access("d/f/", F_OK), ENOTDIR);
    CHECK_ERRNO(access("d/f/.", F_OK), ENOTDIR);
    CHECK_ERRNO(access("nx/../d/f", F_OK), ENOENT); // no lexical shortcut
}

TEST(symlink_to_directory_and_dotdot) {
    OK(mkdir("a", 0755)), OK(mkdir("a/b", 0755)), OK(mkdir("c", 0755));
    OK(symlink("../a/b", "c/l"));
    OK(write_file("a/in-a", "x"));
    OK(access("c/l/../in-a", F_OK)); // physical parent
    OK(symlink("/", "root"));
    OK(access("root/dev/null", F_OK));
    OK(symlink("c/l/", "slash"));
    struct stat st;
    OK(lstat("slash/", &st)); // a slash at the end follows
    CHECK(S_ISDIR(st.st_mode));
    OK(lstat("slash", &st));
    CHECK(S_ISLNK(st.st_mode));
}

TEST(at_calls_use_directory) {
    OK(mkdir("d", 0755));
    int d = OK(open("d", O_RDONLY | O_DIRECTORY));
    OK(close(OK(openat(d, "f", O_CREAT | O_WRONLY, 0644))));
    OK(mkdirat(d, "s", 0755));
    OK(symlinkat("f", d, "l"));
    OK(mkfifoat(d, "p", 0600));
    OK(linkat(d, "f", d, "h", 0));
    OK(renameat(d, "h", AT_FDCWD, "moved"));
    OK(faccessat(d, "f", R_OK, 0));
    OK(fchmodat(d, "f", 0600, 0));
    struct stat st;
    OK(fstatat(d, "f", &st, 0));
    CHECK_EQ(st.st_mode & 0777, 0600);
    OK(fstatat(d, "l", &st, AT_SYMLINK_NOFOLLOW));
    CHECK(S_ISLNK(st.st_mode));
    OK(fstatat(d, "", &st, AT_EMPTY_PATH));
    CHECK(S_ISDIR(st.st_mode));
    CHECK_ERRNO(fstatat(d, "", &st, 0), ENOENT);
    CHECK_ERRNO(fstatat(d, "f", &st, 0x8000000), EINVAL);
    char buf[4];
    CHECK_EQ(readlinkat(d, "l", buf, 4), 1);
    OK(unlinkat(d, "s", AT_REMOVEDIR));
    OK(unlinkat(d, "f", 0));
    OK(access("moved", F_OK));
}

TEST(directory_fd_survives_rename) {
    OK(mkdir("d", 0755));
    int d = OK(open("d", O_RDONLY));
    OK(rename("d", "e"));
    OK(close(OK(openat(d, "f", O_CREAT | O_WRONLY, 0644))));
    OK(access("e/f", F_OK));
    CHECK_ERRNO(faccessat(d, "../d", F_OK, 0), ENOENT);
}

TEST(chdir_and_getcwd) {
    char a[PATH_MAX], b[PATH_MAX];
    CHECK(getcwd(a, sizeof a));
    OK(mkdir("d", 0755));
    OK(chdir("d"));
    CHECK(getcwd(b, sizeof b));
    strcat(a, "/d");
    CHECK_STR(b, a);
    OK(rename("../d", "../e"));
    CHECK(getcwd(b, sizeof b));
    a[strlen(a) - 1] = 'e';
    CHECK_STR(b, a);
    CHECK_ERRNO(syscall(SYS_getcwd, b, 3), ERANGE);
    CHECK_EQ(syscall(SYS_getcwd, b, sizeof b), (long)strlen(a) + 1);
    CHECK_ERRNO(chdir("none"), ENOENT);
    OK(write_file("f", ""));
    CHECK_ERRNO(chdir("f"), ENOTDIR);
    int fd = OK(open("f", O_RDONLY));
    CHECK_ERRNO(fchdir(fd), ENOTDIR);
    CHECK_ERRNO(fchdir(999), EBADF);
}

TEST(proc_self_cwd_of_deleted) {
    OK(mkdir("d", 0755));
    OK(chdir("d"));
    OK(rmdir("../d"));
    char b[PATH_MAX];
    ssize_t n = OK(readlink("/proc/self/cwd", b, sizeof b - 1));
    b[n] = 0;
    CHECK(n > 12 && !strcmp(b + n - 12, "/d (deleted)"));
    CHECK_ERRNO(open("x", O_CREAT | O_WRONLY, 0600), ENOENT);
    CHECK_ERRNO(open("f", O_RDONLY), ENOENT);
    OK(open(".", O_RDONLY));
}

TEST(chroot_confines) {
    NEED_ROOT();
    OK(mkdir("jail", 0755));
    OK(mkdir("jail/in", 0755));
    OK(write_file("jail/f", "x"));
    OK(write_file("outside", "x"));
    OK(symlink("/f", "jail/abs"));
    OK(symlink("../../../../f", "jail/in/rel"));
    pid_t p;
    CHILD(p) {
        OK(chroot("jail"));
        CHECK_ERRNO(access("/outside", F_OK), ENOENT);
        OK(chdir("/"));
        char cwd[PATH_MAX];
        CHECK(getcwd(cwd, sizeof cwd));
        CHECK_STR(cwd, "/");
        OK(access("/../../f", F_OK));
        OK(access("/abs", F_OK));
        OK(access("in/rel", F_OK));
        CHECK_ERRNO(access("/proc", F_OK), ENOENT);
    }
    JOIN(p);
    CHILD(p) {
        // A working directory outside of the root is "(unreachable)".
        OK(chroot("jail"));
        char cwd[PATH_MAX];
        OK(syscall(SYS_getcwd, cwd, sizeof cwd));
        CHECK_MEM(cwd, "(unreachable)", 13);
        OK(access("outside", F_OK));
    }
    JOIN(p);
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(chroot("jail"), EPERM);
    }
    JOIN(p);
    CHECK_ERRNO(chroot("none"), ENOENT);
    CHECK_ERRNO(chroot("outside"), ENOTDIR);
}

TEST(openat2_basics_and_errnos) {
    OK(write_file("f", "x"));
    OK(openat2(AT_FDCWD, "f", O_RDONLY, 0, 0));
    CHECK_ERRNO(openat2(AT_FDCWD, "f", O_RDONLY, 0644, 0), EINVAL); // a mode without O_CREAT
    CHECK_ERRNO(openat2(AT_FDCWD, "g", O_CREAT | O_RDWR, 0200000, 0), EINVAL);
    CHECK_ERRNO(openat2(AT_FDCWD, "f", 1ull << 40, 0, 0), EINVAL);
    CHECK_ERRNO(openat2(AT_FDCWD, "f", O_RDONLY, 0, 0x8000), EINVAL);
    CHECK_ERRNO(openat2(AT_FDCWD, "f", O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT), EINVAL);
    struct { struct open_how h; uint64_t more; } x = {{O_RDONLY, 0, 0}, 0};
    OK(syscall(SYS_openat2, AT_FDCWD, "f", &x, sizeof x));
    x.more = 1;
    CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "f", &x, sizeof x), E2BIG);
    CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "f", &x, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_openat2, AT_FDCWD, "f", &x, 5000), E2BIG);
}

TEST(openat2_beneath) {
    OK(mkdir("d", 0755)), OK(mkdir("d/s", 0755));
    OK(write_file("f", "x")), OK(write_file("d/f", "x"));
    OK(symlink("../f", "d/out")), OK(symlink("s/../f", "d/in")), OK(symlink("/", "d/abs"));
    int d = OK(open("d", O_RDONLY));
    OK(openat2(d, "f", O_RDONLY, 0, RESOLVE_BENEATH));
    OK(openat2(d, "s/../f", O_RDONLY, 0, RESOLVE_BENEATH));
    OK(openat2(d, "in", O_RDONLY, 0, RESOLVE_BENEATH));
    CHECK_ERRNO(openat2(d, "../f", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    CHECK_ERRNO(openat2(d, "out", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    CHECK_ERRNO(openat2(d, "/f", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    CHECK_ERRNO(openat2(d, "abs", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
    CHECK_ERRNO(openat2(d, "s/../../d/f", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
}

TEST(openat2_in_root) {
    OK(mkdir("d", 0755));
    OK(write_file("d/f", "x"));
    OK(symlink("/f", "d/abs")), OK(symlink("../../../f", "d/up"));
    int d = OK(open("d", O_RDONLY));
    OK(openat2(d, "/f", O_RDONLY, 0, RESOLVE_IN_ROOT));
    OK(openat2(d, "abs", O_RDONLY, 0, RESOLVE_IN_ROOT));
    OK(openat2(d, "up", O_RDONLY, 0, RESOLVE_IN_ROOT));
    OK(openat2(d, "../../f", O_RDONLY, 0, RESOLVE_IN_ROOT));
    CHECK_ERRNO(openat2(d, "/etc/passwd", O_RDONLY, 0, RESOLVE_IN_ROOT), ENOENT);
}

TEST(openat2_no_symlinks_no_magic_no_xdev) {
    OK(write_file("f", "x"));
    OK(symlink("f", "l"));
    OK(mkdir("d", 0755)), OK(symlink("d", "ld")), OK(write_file("d/f", "x"));
    CHECK_ERRNO(openat2(AT_FDCWD, "l", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), ELOOP);
    CHECK_ERRNO(openat2(AT_FDCWD, "ld/f", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), ELOOP);
    OK(openat2(AT_FDCWD, "l", O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS));
    CHECK_ERRNO(openat2(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS), ELOOP);
    OK(openat2(AT_FDCWD, "l", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
    int root = OK(open("/", O_RDONLY));
    CHECK_ERRNO(openat2(root, "proc/self/stat", O_RDONLY, 0, RESOLVE_NO_XDEV), EXDEV);
    OK(openat2(AT_FDCWD, "d/f", O_RDONLY, 0, RESOLVE_NO_XDEV));
}

TEST(magic_links_open_the_file) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), p[2];
    OK(write(fd, "abc", 3));
    OK(unlink("f"));
    char path[64], buf[4] = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = OK(open(path, O_RDONLY)); // a deleted file, by its description's inode
    CHECK_EQ(read(again, buf, 3), 3);
    CHECK_STR(buf, "abc");
    OK(pipe(p));
    snprintf(path, sizeof path, "/dev/fd/%d", p[1]);
    int w = OK(open(path, O_WRONLY));
    OK(write(w, "x", 1));
    CHECK_EQ(read(p[0], buf, 1), 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", OK(socket(AF_UNIX, SOCK_STREAM, 0)));
    CHECK_ERRNO(open(path, O_RDWR), ENXIO);
}

TEST(mount_points_and_st_dev) {
    struct stat a, b;
    OK(stat("/proc", &a));
    OK(stat("/", &b));
    CHECK(a.st_dev != b.st_dev);
    OK(stat("/proc/..", &a));
    CHECK(a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}
