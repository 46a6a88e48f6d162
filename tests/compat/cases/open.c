// open and its flags; creation modes; O_PATH and O_TMPFILE; umask.
#include "compat.h"
#include <grp.h>

static mode_t mode_of(const char *path) {
    struct stat st;
    OK(lstat(path, &st));
    return st.st_mode & 07777;
}

TEST(missing_and_existing) {
    CHECK_ERRNO(open("f", O_RDONLY), ENOENT);
    CHECK_ERRNO(open("d/f", O_RDWR | O_CREAT, 0600), ENOENT);
    CHECK_ERRNO(open("", O_RDONLY), ENOENT);
    CHECK_ERRNO(open("", O_RDWR | O_CREAT, 0600), ENOENT);
    OK(open("f", O_RDWR | O_CREAT | O_EXCL, 0600));
    CHECK_ERRNO(open("f", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(symlink("nowhere", "l"));
    CHECK_ERRNO(open("l", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST); // does not follow
    OK(open("l", O_RDWR | O_CREAT, 0600));                           // does
    OK(access("nowhere", F_OK));
}

TEST(directories) {
    OK(mkdir("d", 0755));
    CHECK_ERRNO(open("d", O_WRONLY), EISDIR);
    CHECK_ERRNO(open("d", O_RDWR), EISDIR);
    CHECK_ERRNO(open("d", O_RDONLY | O_CREAT, 0600), EISDIR);
    CHECK_ERRNO(open("d", O_RDONLY | O_TRUNC), EISDIR);
    CHECK_ERRNO(open("d/new/", O_RDWR | O_CREAT, 0600), EISDIR);
    CHECK_ERRNO(open("d/new/", O_RDONLY), ENOENT);
    int fd = OK(open("d", O_RDONLY));
    char b;
    CHECK_ERRNO(read(fd, &b, 1), EISDIR);
    CHECK_ERRNO(write(fd, &b, 1), EBADF);
    OK(write_file("f", "x"));
    CHECK_ERRNO(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
    CHECK_ERRNO(open("f/", O_RDONLY), ENOTDIR);
    CHECK_ERRNO(open("f/x", O_RDONLY), ENOTDIR);
    CHECK_ERRNO(open("f/..", O_RDONLY), ENOTDIR);
    OK(open("d/", O_RDONLY | O_DIRECTORY));
    OK(open("d/.", O_RDONLY));
}

TEST(access_modes_are_enforced) {
    int w = OK(open("f", O_WRONLY | O_CREAT, 0600)), r = OK(open("f", O_RDONLY));
    char b = 'x';
    CHECK_ERRNO(read(w, &b, 1), EBADF);
    CHECK_ERRNO(write(r, &b, 1), EBADF);
    CHECK_EQ(write(w, &b, 1), 1);
    CHECK_EQ(read(r, &b, 1), 1);
    CHECK_ERRNO(ftruncate(r, 0), EINVAL);
    CHECK_EQ(fcntl(w, F_GETFL) & O_ACCMODE, O_WRONLY);
    // Access mode 3: neither, but ioctl only.
    int none = OK(open("f", 3));
    CHECK_ERRNO(read(none, &b, 1), EBADF);
    CHECK_ERRNO(write(none, &b, 1), EBADF);
}

TEST(creation_mode_and_umask) {
    umask(027);
    OK(open("a", O_RDONLY | O_CREAT, 0777));
    CHECK_EQ(mode_of("a"), 0750);
    int w = OK(open("b", O_WRONLY | O_CREAT, 0)); // without rights for later opens
    CHECK_EQ(write(w, "x", 1), 1);
    CHECK_EQ(mode_of("b"), 0);
    OK(open("c", O_RDONLY | O_CREAT, 07777));
    CHECK_EQ(mode_of("c"), 07750);
    OK(mkdir("d", 01777));
    CHECK_EQ(mode_of("d"), 01750);
    OK(mkdir("e", 06777));
    CHECK_EQ(mode_of("e") & 0777, 0750); // the set-id bits are not taken from mkdir
    OK(mkfifo("p", 0666));
    CHECK_EQ(mode_of("p"), 0640);
    CHECK_EQ(umask(0777777), 027);
    CHECK_EQ(umask(022), 0777);
}

TEST(trunc_and_append) {
    OK(write_file("f", "12345"));
    OK(close(OK(open("f", O_WRONLY | O_TRUNC))));
    struct stat st;
    OK(stat("f", &st));
    CHECK_EQ(st.st_size, 0);
    int a = OK(open("f", O_RDWR | O_APPEND)), b = OK(open("f", O_RDWR | O_APPEND));
    OK(write(a, "aa", 2));
    OK(write(b, "bb", 2));
    OK(lseek(a, 0, SEEK_SET));
    OK(write(a, "cc", 2));
    CHECK_EQ(lseek(a, 0, SEEK_CUR), 6);
    OK(pwrite(a, "dd", 2, 0)); // Linux appends even so
    char buf[16];
    CHECK(read_file("f", buf, sizeof buf) > 0);
    CHECK_STR(buf, "aabbccdd");
}

TEST(append_is_atomic_between_processes) {
    int fd = OK(open("f", O_WRONLY | O_CREAT | O_APPEND, 0600));
    pid_t p[4];
    for (int k = 0; k < 4; k++)
        CHILD(p[k]) {
            char line[11];
            memset(line, 'a' + k, 10);
            line[10] = '\n';
            int own = OK(open("f", O_WRONLY | O_APPEND));
            for (int i = 0; i < 50; i++) CHECK_EQ(write(own, line, 11), 11);
        }
    for (int k = 0; k < 4; k++) JOIN(p[k]);
    static char buf[4000];
    CHECK_EQ(read_file("f", buf, sizeof buf), 2200);
    for (int i = 0; i < 200; i++) {
        for (int j = 1; j < 10; j++) CHECK_EQ(buf[i * 11 + j], buf[i * 11]);
        CHECK_EQ(buf[i * 11 + 10], '\n');
    }
    close(fd);
}

TEST(nofollow) {
    OK(write_file("f", "x"));
    OK(symlink("f", "l"));
    OK(mkdir("d", 0755));
    OK(symlink("d", "ld"));
    OK(write_file("d/f", "x"));
    CHECK_ERRNO(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
    OK(open("f", O_RDONLY | O_NOFOLLOW));
    OK(open("ld/f", O_RDONLY | O_NOFOLLOW)); // only the last component counts
    CHECK_ERRNO(open("ld", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR);
    OK(open("ld/", O_RDONLY | O_NOFOLLOW | O_DIRECTORY));
    int fd = OK(open("l", O_PATH | O_NOFOLLOW));
    struct stat st;
    OK(fstat(fd, &st));
    CHECK(S_ISLNK(st.st_mode));
    char buf[8];
    CHECK_EQ(readlinkat(fd, "", buf, sizeof buf), 1);
}

TEST(path_descriptors) {
    OK(write_file("f", "data"));
    OK(mkdir("d", 0755));
    OK(write_file("d/g", "x"));
    int fd = OK(open("f", O_PATH | O_RDWR | O_TRUNC | O_CREAT | O_EXCL)); // all but a few flags are ignored
    char b[8];
    struct stat st;
    CHECK_ERRNO(read(fd, b, 1), EBADF);
    CHECK_ERRNO(write(fd, b, 1), EBADF);
    CHECK_ERRNO(lseek(fd, 0, SEEK_SET), EBADF);
    CHECK_ERRNO(ftruncate(fd, 0), EBADF);
    CHECK_ERRNO(fchmod(fd, 0600), EBADF);
    CHECK_ERRNO(fchown(fd, 0, 0), EBADF);
    CHECK_ERRNO(ioctl(fd, FIONREAD, b), EBADF);
    CHECK_ERRNO(fsync(fd), EBADF);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, 4);
    CHECK_EQ(fcntl(fd, F_GETFL), O_PATH);
    int dup = OK(fcntl(fd, F_DUPFD, 0));
    OK(close(dup));
    OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
    CHECK_ERRNO(fcntl(fd, F_SETFL, O_NONBLOCK), EBADF);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int real = OK(open(path, O_RDONLY));
    CHECK_EQ(read(real, b, 4), 4);
    int d = OK(open("d", O_PATH | O_DIRECTORY));
    OK(openat(d, "g", O_RDONLY));
    OK(fchdir(d));
    OK(access("g", F_OK));
    CHECK_ERRNO(syscall(SYS_getdents64, d, b, 8), EBADF);
    CHECK_ERRNO(open("none", O_PATH), ENOENT);
}

TEST(tmpfile) {
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    if (fd < 0 && errno == EOPNOTSUPP) SKIP("no O_TMPFILE here");
    OK(fd);
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_nlink, 0);
    CHECK_EQ(st.st_mode, S_IFREG | 0640);
    OK(write(fd, "tmp", 3));
    char path[64], buf[8];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    CHECK(read_file("named", buf, sizeof buf) == 3);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_nlink, 1);
    CHECK_ERRNO(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
    CHECK_ERRNO(open("named", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
    CHECK_ERRNO(open("none", O_TMPFILE | O_RDWR, 0600), ENOENT);
    fd = OK(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK_ERRNO(linkat(AT_FDCWD, path, AT_FDCWD, "never", AT_SYMLINK_FOLLOW), ENOENT);
}

TEST(permission_of_non_root) {
    NEED_ROOT();
    OK(write_file("r", "x"));
    OK(chmod("r", 0604));
    OK(write_file("none", "x"));
    OK(chmod("none", 0600));
    OK(mkdir("closed", 0700));
    OK(write_file("closed/f", "x"));
    OK(mkdir("nosearch", 0744));
    OK(write_file("nosearch/f", "x"));
    OK(mkdir("nolist", 0711));
    OK(write_file("nolist/f", "x"));
    OK(mkdir("own", 0755));
    OK(chown("own", 1000, 1000));
    pid_t p;
    CHILD(p) {
        OK(setgid(1000));
        OK(setuid(1000));
        OK(open("r", O_RDONLY));
        CHECK_ERRNO(open("r", O_WRONLY), EACCES);
        CHECK_ERRNO(open("r", O_RDWR), EACCES);
        CHECK_ERRNO(open("none", O_RDONLY), EACCES);
        CHECK_ERRNO(open("closed/f", O_RDONLY), EACCES);
        CHECK_ERRNO(open("nosearch/f", O_RDONLY), EACCES);
        OK(open("nosearch", O_RDONLY));
        OK(open("nolist/f", O_RDONLY));
        CHECK_ERRNO(open("nolist", O_RDONLY), EACCES);
        CHECK_ERRNO(open("new", O_WRONLY | O_CREAT, 0600), EACCES);
        CHECK_ERRNO(open("r", O_RDONLY | O_TRUNC), EACCES);
        OK(open("own/f", O_WRONLY | O_CREAT, 0));
        CHECK_ERRNO(open("own/f", O_WRONLY), EACCES);
        struct stat st;
        OK(stat("own/f", &st));
        CHECK_EQ(st.st_uid, 1000);
        CHECK_EQ(st.st_gid, 1000);
        CHECK_ERRNO(stat("closed/f", &st), EACCES);
        CHECK_ERRNO(chdir("closed"), EACCES);
        OK(open("none", O_PATH)); // needs no right to the file itself
    }
    JOIN(p);
    OK(open("none", O_RDWR)); // root may
}

TEST(group_and_owner_classes) {
    // The owner's bits alone count for the owner, even if the others' give more.
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(chown("f", 1000, 2000));
    OK(chmod("f", 0047));
    pid_t p;
    CHILD(p) {
        OK(setresgid(2000, 2000, 2000));
        OK(setresuid(1000, 1000, 1000));
        CHECK_ERRNO(open("f", O_RDONLY), EACCES);
    }
    JOIN(p);
    CHILD(p) {
        OK(setresgid(2000, 2000, 2000));
        OK(setresuid(1001, 1001, 1001));
        OK(open("f", O_RDONLY));
        CHECK_ERRNO(open("f", O_WRONLY), EACCES);
    }
    JOIN(p);
    CHILD(p) {
        gid_t g = 2000;
        OK(setgroups(1, &g));
        OK(setresgid(3000, 3000, 3000));
        OK(setresuid(1001, 1001, 1001));
        CHECK_ERRNO(open("f", O_WRONLY), EACCES);
    }
    JOIN(p);
    CHILD(p) {
        OK(setgroups(0, 0));
        OK(setresgid(3000, 3000, 3000));
        OK(setresuid(1001, 1001, 1001));
        OK(open("f", O_RDWR));
    }
    JOIN(p);
}

TEST(setgid_directory_gives_its_group) {
    NEED_ROOT();
    OK(mkdir("d", 0755));
    OK(chown("d", 0, 777));
    OK(chmod("d", 02755));
    struct stat st;
    OK(open("d/f", O_WRONLY | O_CREAT, 0644));
    OK(stat("d/f", &st));
    CHECK_EQ(st.st_gid, 777);
    OK(mkdir("d/s", 0755));
    OK(stat("d/s", &st));
    CHECK_EQ(st.st_gid, 777);
    CHECK(st.st_mode & S_ISGID);
}

TEST(descriptors_are_lowest_free) {
    int a = OK(open("/dev/null", O_RDONLY)), b = OK(open("/dev/null", O_RDONLY)), c = OK(open("/dev/null", O_RDONLY));
    CHECK(b == a + 1 && c == b + 1);
    OK(close(a)), OK(close(b));
    CHECK_EQ(open("/dev/null", O_RDONLY), a);
    CHECK_EQ(open("/dev/null", O_RDONLY), b);
}

TEST(special_files) {
    OK(mkfifo("p", 0600));
    int fd = OK(open("p", O_RDWR));
    close(fd);
    struct sockaddr_un a = {AF_UNIX, "s"};
    OK(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof a));
    CHECK_ERRNO(open("s", O_RDWR), ENXIO);
    OK(open("s", O_PATH));
    struct stat st;
    OK(stat("s", &st));
    CHECK(S_ISSOCK(st.st_mode));
    CHECK_ERRNO(mknod("d", S_IFDIR | 0755, 0), EPERM);
    CHECK_ERRNO(mknod("x", S_IFLNK | 0755, 0), EINVAL);
    OK(mknod("r", S_IFREG | 0644, 0));
    OK(mknod("r2", 0644, 0));
    OK(stat("r2", &st));
    CHECK(S_ISREG(st.st_mode));
    CHECK_ERRNO(mknod("r", S_IFREG | 0644, 0), EEXIST);
    OK(mknod("sock", S_IFSOCK | 0600, 0));
}

TEST(bad_flags) {
    OK(write_file("f", "x"));
    CHECK_ERRNO(open("f", O_RDONLY | O_DIRECTORY | O_CREAT, 0600), EINVAL);
    CHECK_ERRNO(openat(-5, "f", O_RDONLY), EBADF);
    CHECK_ERRNO(openat(999, "f", O_RDONLY), EBADF);
    int fd = OK(open("f", O_RDONLY));
    CHECK_ERRNO(openat(fd, "f", O_RDONLY), ENOTDIR);
    char cwd[PATH_MAX];
    CHECK(getcwd(cwd, sizeof cwd));
    OK(openat(999, cwd, O_RDONLY)); // an absolute path does not look at it
}

TEST(cloexec_and_status_flags) {
    int fd = OK(open("f", O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_APPEND | O_SYNC, 0600));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    int fl = fcntl(fd, F_GETFL);
    CHECK_EQ(fl & (O_ACCMODE | O_NONBLOCK | O_APPEND | O_CREAT | O_CLOEXEC), O_RDWR | O_NONBLOCK | O_APPEND);
    CHECK_EQ(fl & O_SYNC, O_SYNC);
}

TEST(noatime_is_for_owners) {
    NEED_ROOT();
    OK(write_file("f", "x"));
    OK(open("f", O_RDONLY | O_NOATIME));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(open("f", O_RDONLY | O_NOATIME), EPERM);
    }
    JOIN(p);
}

TEST(creat_and_open_race) {
    // Two creators with O_EXCL: exactly one wins.
    int *won = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < 20; i++) {
        char name[8];
        snprintf(name, sizeof name, "x%d", i);
        pid_t p[3];
        for (int k = 0; k < 3; k++)
            CHILD(p[k]) {
                if (open(name, O_CREAT | O_EXCL | O_WRONLY, 0600) >= 0) __atomic_fetch_add(won, 1, __ATOMIC_SEQ_CST);
                else CHECK_EQ(errno, EEXIST);
            }
        for (int k = 0; k < 3; k++) JOIN(p[k]);
        CHECK_EQ(*won, i + 1);
    }
}

TEST(unlinked_file_lives_on) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(unlink("f"));
    OK(write(fd, "alive", 5));
    char buf[8] = {0};
    CHECK_EQ(pread(fd, buf, 5, 0), 5);
    CHECK_STR(buf, "alive");
    struct stat st;
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_nlink, 0);
    CHECK_EQ(st.st_size, 5);
    int again = OK(open("f", O_RDWR | O_CREAT | O_EXCL, 0600));
    CHECK_EQ(pread(again, buf, 5, 0), 0);
}
