// Names: link, unlink, rename, symlink, mkdir, rmdir.
#include "compat.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

static bool exists(const char *p) {
    struct stat st;
    return lstat(p, &st) == 0;
}
static ino_t ino(const char *p) {
    struct stat st;
    OK(lstat(p, &st));
    return st.st_ino;
}
static nlink_t nlink(const char *p) {
    struct stat st;
    OK(lstat(p, &st));
    return st.st_nlink;
}

TEST(link_counts_and_shares) {
    OK(write_file("a", "x"));
    OK(link("a", "b"));
    CHECK_EQ(ino("a"), ino("b"));
    CHECK_EQ(nlink("a"), 2);
    OK(write_file("b", "yz"));
    char buf[8];
    CHECK(read_file("a", buf, sizeof buf) == 2);
    OK(unlink("a"));
    CHECK_EQ(nlink("b"), 1);
    CHECK(!exists("a"));
}

TEST(link_errnos) {
    OK(write_file("a", "x"));
    OK(write_file("b", "x"));
    OK(mkdir("d", 0755));
    CHECK_ERRNO(link("a", "b"), EEXIST);
    CHECK_ERRNO(link("none", "c"), ENOENT);
    CHECK_ERRNO(link("d", "e"), EPERM);
    CHECK_ERRNO(link("a", "none/c"), ENOENT);
    CHECK_ERRNO(link("a", "b/c"), ENOTDIR);
    CHECK_ERRNO(link("a", "d"), EEXIST);
    CHECK_ERRNO(link("a", ""), ENOENT);
    CHECK_ERRNO(link("a", "/dev/compat-x"), EXDEV);
    CHECK_ERRNO(linkat(AT_FDCWD, "a", AT_FDCWD, "c", 0x80), EINVAL);
}

TEST(linkat_follows_only_if_asked) {
    OK(write_file("f", "x"));
    OK(symlink("f", "l"));
    OK(linkat(AT_FDCWD, "l", AT_FDCWD, "h", 0));
    CHECK_EQ(ino("h"), ino("l"));
    OK(linkat(AT_FDCWD, "l", AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
    CHECK_EQ(ino("g"), ino("f"));
}

TEST(linkat_empty_path) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    int fd = OK(open("f", O_RDONLY));
    OK(linkat(fd, "", AT_FDCWD, "g", AT_EMPTY_PATH));
    CHECK_EQ(ino("g"), ino("f"));
    CHECK_ERRNO(linkat(fd, "", AT_FDCWD, "h", 0), ENOENT);
}

TEST(unlink_errnos) {
    OK(mkdir("d", 0755));
    OK(write_file("f", "x"));
    CHECK_ERRNO(unlink("d"), EISDIR);
    CHECK_ERRNO(unlink("none"), ENOENT);
    CHECK_ERRNO(unlink("f/"), ENOTDIR);
    CHECK_ERRNO(unlink("f/x"), ENOTDIR);
    CHECK_ERRNO(unlink(""), ENOENT);
    CHECK_ERRNO(unlinkat(AT_FDCWD, "f", 0x1), EINVAL);
    CHECK_ERRNO(unlinkat(AT_FDCWD, "f", AT_REMOVEDIR), ENOTDIR);
    CHECK_ERRNO(unlinkat(AT_FDCWD, "d", 0), EISDIR);
    OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
    CHECK_ERRNO(unlink("/"), EISDIR);
    OK(symlink("f", "l"));
    OK(unlink("l"));
    CHECK(exists("f"));
}

TEST(rmdir_errnos) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/e", 0755));
    OK(write_file("f", "x"));
    OK(symlink("d/e", "l"));
    CHECK_ERRNO(rmdir("d"), ENOTEMPTY);
    CHECK_ERRNO(rmdir("f"), ENOTDIR);
    CHECK_ERRNO(rmdir("none"), ENOENT);
    CHECK_ERRNO(rmdir("l"), ENOTDIR);
    CHECK_ERRNO(rmdir("d/."), EINVAL);
    CHECK_ERRNO(rmdir("d/e/.."), ENOTEMPTY);
    CHECK_ERRNO(rmdir("/"), EBUSY);
    OK(rmdir("d/e/"));
    OK(rmdir("d"));
}

TEST(mkdir_errnos_and_links) {
    OK(mkdir("d", 0755));
    CHECK_ERRNO(mkdir("d", 0755), EEXIST);
    CHECK_ERRNO(mkdir("d/", 0755), EEXIST);
    CHECK_ERRNO(mkdir(".", 0755), EEXIST);
    CHECK_ERRNO(mkdir("/", 0755), EEXIST);
    CHECK_ERRNO(mkdir("x/y", 0755), ENOENT);
    OK(write_file("f", ""));
    CHECK_ERRNO(mkdir("f/y", 0755), ENOTDIR);
    CHECK_ERRNO(mkdir("f", 0755), EEXIST);
    OK(symlink("nowhere", "l"));
    CHECK_ERRNO(mkdir("l", 0755), EEXIST);
    OK(mkdir("e/", 0755));
    CHECK_EQ(nlink("d"), 2);
    OK(mkdir("d/a", 0755));
    OK(mkdir("d/b", 0755));
    CHECK_EQ(nlink("d"), 4);
    OK(rmdir("d/a"));
    CHECK_EQ(nlink("d"), 3);
}

TEST(rename_files) {
    OK(write_file("a", "A"));
    OK(write_file("b", "B"));
    ino_t i = ino("a");
    OK(rename("a", "c"));
    CHECK(!exists("a"));
    CHECK_EQ(ino("c"), i);
    OK(rename("c", "b")); // replaces
    CHECK_EQ(ino("b"), i);
    char buf[4];
    CHECK(read_file("b", buf, sizeof buf) == 1 && buf[0] == 'A');
    OK(rename("b", "b"));
    OK(link("b", "h"));
    OK(rename("b", "h")); // two names of one file: nothing happens
    CHECK(exists("b") && exists("h"));
}

TEST(rename_directories) {
    OK(mkdir("a", 0755));
    OK(write_file("a/f", "x"));
    OK(mkdir("b", 0755));
    OK(rename("a", "b")); // over an empty one
    CHECK(exists("b/f") && !exists("a"));
    OK(mkdir("c", 0755));
    CHECK_ERRNO(rename("c", "b"), ENOTEMPTY);
    OK(mkdir("p", 0755));
    OK(mkdir("q", 0755));
    OK(rename("b", "p/b"));
    CHECK_EQ(nlink("p"), 3);
    OK(rename("p/b", "q/b"));
    CHECK_EQ(nlink("p"), 2);
    CHECK_EQ(nlink("q"), 3);
    struct stat a, b;
    OK(stat("q/b/..", &a));
    OK(stat("q", &b));
    CHECK_EQ(a.st_ino, b.st_ino);
}

TEST(rename_errnos) {
    OK(mkdir("d", 0755));
    OK(mkdir("d/sub", 0755));
    OK(write_file("f", "x"));
    CHECK_ERRNO(rename("none", "x"), ENOENT);
    CHECK_ERRNO(rename("f", "none/x"), ENOENT);
    CHECK_ERRNO(rename("f", "d"), EISDIR);
    CHECK_ERRNO(rename("d", "f"), ENOTDIR);
    CHECK_ERRNO(rename("d", "d/sub/x"), EINVAL);
    CHECK_ERRNO(rename("d", "d/x"), EINVAL);
    CHECK_ERRNO(rename("d/sub", "d"), ENOTEMPTY);
    CHECK_ERRNO(rename("d/.", "x"), EBUSY);
    CHECK_ERRNO(rename("d", "."), EBUSY);
    CHECK_ERRNO(rename("d/..", "x"), EBUSY);
    CHECK_ERRNO(rename("f/", "x"), ENOTDIR);
    CHECK_ERRNO(rename("f", "x/"), ENOTDIR);
    CHECK_ERRNO(rename("f", "/proc/x"), EXDEV);
    CHECK_ERRNO(rename("", "x"), ENOENT);
    OK(rename("d/", "e/"));
    CHECK(exists("e/sub"));
}

TEST(rename_moves_symlink_itself) {
    OK(write_file("f", "x"));
    OK(symlink("f", "l"));
    OK(rename("l", "m"));
    CHECK(!exists("l") && exists("f"));
    char buf[8];
    CHECK_EQ(readlink("m", buf, 8), 1);
    OK(write_file("g", "y"));
    OK(rename("g", "m")); // replaces the link, not its target
    CHECK(read_file("f", buf, 8) == 1 && buf[0] == 'x');
    CHECK(read_file("m", buf, 8) == 1 && buf[0] == 'y');
}

TEST(rename_noreplace) {
    OK(write_file("a", "A"));
    OK(write_file("b", "B"));
    CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
    CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "b", RENAME_NOREPLACE), EEXIST);
    CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_NOREPLACE | RENAME_EXCHANGE), EINVAL);
    CHECK_ERRNO(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", 0x100), EINVAL);
}

TEST(rename_exchange) {
    OK(write_file("a", "A"));
    OK(mkdir("d", 0755));
    OK(mkdir("d/s", 0755));
    ino_t ia = ino("a"), is = ino("d/s");
    OK(renameat2(AT_FDCWD, "a", AT_FDCWD, "d/s", RENAME_EXCHANGE));
    CHECK_EQ(ino("a"), is);
    CHECK_EQ(ino("d/s"), ia);
    CHECK_EQ(nlink("d"), 2);
    CHECK_ERRNO(renameat2(AT_FDCWD, "a", AT_FDCWD, "none", RENAME_EXCHANGE), ENOENT);
    CHECK_ERRNO(renameat2(AT_FDCWD, "d", AT_FDCWD, "d/s", RENAME_EXCHANGE), EINVAL);
}

TEST(rename_over_open_file) {
    OK(write_file("a", "new"));
    OK(write_file("b", "old"));
    int fd = OK(open("b", O_RDONLY));
    OK(rename("a", "b"));
    char buf[4] = {0};
    CHECK_EQ(read(fd, buf, 3), 3);
    CHECK_STR(buf, "old");
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_nlink, 0);
}

TEST(sticky_directory) {
    NEED_ROOT();
    OK(mkdir("t", 0777));
    OK(chmod("t", 01777));
    OK(write_file("t/root", "x"));
    OK(write_file("t/own", "x"));
    OK(chown("t/own", 1000, 1000));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(unlink("t/root"), EPERM);
        CHECK_ERRNO(rename("t/root", "t/x"), EPERM);
        CHECK_ERRNO(rename("t/own", "t/root"), EPERM);
        OK(rename("t/own", "t/mine"));
        OK(unlink("t/mine"));
    }
    JOIN(p);
}

TEST(directory_permissions) {
    NEED_ROOT();
    OK(mkdir("d", 0755));
    OK(write_file("d/f", "x"));
    OK(chown("d/f", 1000, 1000));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(unlink("d/f"), EACCES);
        CHECK_ERRNO(mkdir("d/x", 0755), EACCES);
        CHECK_ERRNO(symlink("x", "d/x"), EACCES);
        CHECK_ERRNO(link("d/f", "d/x"), EACCES);
        CHECK_ERRNO(rename("d/f", "d/x"), EACCES);
        CHECK_ERRNO(mkfifo("d/x", 0600), EACCES);
        CHECK_ERRNO(mkdir("d/f/x", 0755), ENOTDIR);
        CHECK_ERRNO(mkdir("d", 0755), EEXIST);
    }
    JOIN(p);
}

TEST(symlinks) {
    char buf[16], big[5000];
    OK(symlink("target/not/there", "l"));
    struct stat st;
    OK(lstat("l", &st));
    CHECK(S_ISLNK(st.st_mode));
    CHECK_EQ(st.st_size, 16);
    CHECK_EQ(st.st_mode & 0777, 0777);
    CHECK_EQ(readlink("l", buf, 6), 6); // cut, not terminated
    CHECK_MEM(buf, "target", 6);
    CHECK_ERRNO(readlink("l", buf, 0), EINVAL);
    CHECK_ERRNO(readlink(".", buf, 16), EINVAL);
    CHECK_ERRNO(readlink("none", buf, 16), ENOENT);
    CHECK_ERRNO(symlink("x", "l"), EEXIST);
    CHECK_ERRNO(symlink("", "m"), ENOENT);
    CHECK_ERRNO(symlink("x", "none/m"), ENOENT);
    memset(big, 'a', sizeof big);
    big[4096] = 0;
    CHECK_ERRNO(symlink(big, "m"), ENAMETOOLONG);
    big[4095] = 0;
    CHECK_ERRNO(stat("l", &st), ENOENT);
    CHECK_ERRNO(symlink("x", "m/"), ENOENT);
    OK(symlinkat("y", AT_FDCWD, "n"));
}

TEST(symlink_loops) {
    OK(symlink("b", "a"));
    OK(symlink("a", "b"));
    CHECK_ERRNO(open("a", O_RDONLY), ELOOP);
    CHECK_ERRNO(chdir("a/x"), ELOOP);
    // 40 are followed, 41 are not.
    char name[8], to[8];
    OK(write_file("s0", "x"));
    for (int i = 1; i <= 41; i++) {
        snprintf(name, sizeof name, "s%d", i), snprintf(to, sizeof to, "s%d", i - 1);
        OK(symlink(to, name));
    }
    OK(open("s40", O_RDONLY));
    CHECK_ERRNO(open("s41", O_RDONLY), ELOOP);
}

TEST(unlink_while_directory_open) {
    OK(mkdir("d", 0755));
    int d = OK(open("d", O_RDONLY));
    OK(rmdir("d"));
    CHECK_ERRNO(openat(d, "f", O_CREAT | O_WRONLY, 0600), ENOENT);
    CHECK_ERRNO(mkdirat(d, "x", 0755), ENOENT);
    struct stat st;
    OK(fstat(d, &st));
    CHECK_EQ(st.st_nlink, 0);
    OK(fchdir(d));
    char cwd[PATH_MAX];
    CHECK(!getcwd(cwd, sizeof cwd) && errno == ENOENT);
    OK(chdir(".."));
}

TEST(name_length_limits) {
    char n[300];
    memset(n, 'a', sizeof n);
    n[255] = 0;
    OK(write_file(n, "x"));
    OK(unlink(n));
    n[255] = 'a', n[256] = 0;
    CHECK_ERRNO(open(n, O_RDWR | O_CREAT, 0600), ENAMETOOLONG);
    CHECK_ERRNO(mkdir(n, 0700), ENAMETOOLONG);
    CHECK_ERRNO(unlink(n), ENAMETOOLONG);
    static char path[5000];
    for (int i = 0; i < 4094; i += 2) memcpy(path + i, "./", 2);
    strcpy(path + 4094, ".");
    CHECK_EQ(strlen(path), 4095);
    OK(access(path, F_OK));
    strcat(path, "/");
    CHECK_ERRNO(access(path, F_OK), ENAMETOOLONG);
}

TEST(odd_names) {
    const char *names[] = {" ", "\n", "...", "-", "\xff\xfe", "a\\b", "*", "caf\xc3\xa9"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        OK(write_file(names[i], names[i]));
        char buf[16];
        CHECK(read_file(names[i], buf, sizeof buf) > 0);
        CHECK_STR(buf, names[i]);
    }
}

TEST(deep_tree_by_relative_steps) {
    // Deeper than PATH_MAX: getcwd still works, up to its buffer.
    char name[101];
    memset(name, 'd', 100);
    name[100] = 0;
    for (int i = 0; i < 50; i++) {
        OK(mkdir(name, 0755));
        OK(chdir(name));
    }
    static char buf[8192];
    long n = syscall(SYS_getcwd, buf, sizeof buf);
    CHECK_V((n == -1 && errno == ENAMETOOLONG) || n > 5000, n);
    for (int i = 0; i < 50; i++) {
        OK(chdir(".."));
        OK(rmdir(name));
    }
}

TEST(rename_parallel) {
    // Renames back and forth by several processes lose nothing.
    OK(mkdir("x", 0755)), OK(mkdir("y", 0755));
    pid_t p[3];
    for (int k = 0; k < 3; k++) {
        char a[16], b[16];
        snprintf(a, sizeof a, "x/%d", k), snprintf(b, sizeof b, "y/%d", k);
        OK(write_file(a, "z"));
        CHILD(p[k]) for (int i = 0; i < 100; i++) {
            OK(rename(a, b));
            OK(rename(b, a));
        }
    }
    for (int k = 0; k < 3; k++) JOIN(p[k]);
    CHECK(exists("x/0") && exists("x/1") && exists("x/2"));
}
