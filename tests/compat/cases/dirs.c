// Reading directories.
#include "compat.h"
#include <dirent.h>

struct dirent64_raw {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

TEST(entries_have_types_and_inodes) {
    OK(write_file("file", "x"));
    OK(mkdir("dir", 0755));
    OK(symlink("x", "link"));
    OK(mkfifo("fifo", 0600));
    DIR *d = opendir(".");
    CHECK(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d)); n++) {
        struct stat st;
        OK(lstat(e->d_name, &st));
        if (strcmp(e->d_name, "..")) CHECK_EQ(e->d_ino, st.st_ino);
        if (e->d_type != DT_UNKNOWN) CHECK_EQ(DTTOIF(e->d_type), st.st_mode & S_IFMT);
    }
    CHECK_EQ(n, 6);
    closedir(d);
}

TEST(many_entries_each_once) {
    enum { N = 1000 };
    static char seen[N];
    char name[32];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "entry-%d", i);
        int fd = OK(open(name, O_CREAT | O_WRONLY, 0600));
        close(fd);
    }
    DIR *d = opendir(".");
    CHECK(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        int i = atoi(e->d_name + 6);
        CHECK_EQ(seen[i], 0);
        seen[i] = 1, n++;
    }
    CHECK_EQ(n, N);
    rewinddir(d);
    n = 0;
    while (readdir(d)) n++;
    CHECK_EQ(n, N + 2);
    closedir(d);
}

TEST(getdents_small_buffers) {
    char name[32], buf[64] __attribute__((aligned(8)));
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "%d", i);
        OK(write_file(name, ""));
    }
    int fd = OK(open(".", O_RDONLY | O_DIRECTORY)), n = 0;
    CHECK_ERRNO(syscall(SYS_getdents64, fd, buf, 10), EINVAL); // not even one fits
    long r;
    while ((r = OK(syscall(SYS_getdents64, fd, buf, sizeof buf))) > 0)
        for (long at = 0; at < r;) {
            struct dirent64_raw *e = (void *)(buf + at);
            CHECK_EQ(e->reclen % 8, 0);
            CHECK(at + e->reclen <= r);
            at += e->reclen, n++;
        }
    CHECK_EQ(n, 22);
    CHECK_EQ(syscall(SYS_getdents64, fd, buf, sizeof buf), 0);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK(syscall(SYS_getdents64, fd, buf, sizeof buf) > 0);
    CHECK_ERRNO(syscall(SYS_getdents64, fd, 16, 4096), EFAULT);
    int f = OK(open("1", O_RDONLY));
    CHECK_ERRNO(syscall(SYS_getdents64, f, buf, sizeof buf), ENOTDIR);
    CHECK_ERRNO(syscall(SYS_getdents64, 999, buf, sizeof buf), EBADF);
}

TEST(old_getdents) {
    OK(write_file("f", ""));
    int fd = OK(open(".", O_RDONLY));
    char buf[512] __attribute__((aligned(8)));
    long r = OK(syscall(SYS_getdents, fd, buf, sizeof buf)), n = 0;
    for (long at = 0; at < r; n++) {
        unsigned short len = *(unsigned short *)(buf + at + 16);
        char type = buf[at + len - 1];
        CHECK(type == DT_DIR || type == DT_REG || type == DT_UNKNOWN);
        at += len;
    }
    CHECK_EQ(n, 3);
}

TEST(telldir_seekdir) {
    char name[32];
    for (int i = 0; i < 250; i++) {
        snprintf(name, sizeof name, "e%d", i);
        OK(write_file(name, ""));
    }
    DIR *d = opendir(".");
    for (int i = 0; i < 100; i++) CHECK(readdir(d));
    long pos = telldir(d);
    char next[256];
    strcpy(next, readdir(d)->d_name);
    for (int i = 0; i < 100; i++) CHECK(readdir(d));
    seekdir(d, pos);
    CHECK_STR(readdir(d)->d_name, next);
    int n = 102;
    while (readdir(d)) n++;
    CHECK_EQ(n, 253);
}

TEST(deleting_while_reading) {
    enum { N = 600 };
    char name[32];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "e%d", i);
        int fd = OK(open(name, O_CREAT | O_WRONLY, 0600));
        close(fd);
    }
    // rm -r: delete each entry as it is read; none is missed.
    DIR *d = opendir(".");
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            OK(unlink(e->d_name));
            n++;
        }
    CHECK_EQ(n, N);
    closedir(d);
    OK(chdir("/"));
}

TEST(creating_while_reading_ends) {
    OK(write_file("a", ""));
    DIR *d = opendir(".");
    int n = 0;
    char name[32];
    while (readdir(d) && n < 5000) {
        snprintf(name, sizeof name, "new%d", n++);
        if (n < 200) OK(write_file(name, ""));
    }
    CHECK_V(n < 5000, n);
}

TEST(entries_that_stay_are_seen) {
    // Others come and go meanwhile.
    char name[32];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "%s%d", i % 2 ? "stay" : "go", i);
        OK(write_file(name, ""));
    }
    pid_t p;
    CHILD(p) for (int i = 0; i < 300; i += 2) {
        snprintf(name, sizeof name, "go%d", i);
        unlink(name);
        snprintf(name, sizeof name, "new%d", i);
        OK(write_file(name, ""));
    }
    int fd = OK(open(".", O_RDONLY)), stay = 0;
    char buf[200] __attribute__((aligned(8)));
    long r;
    while ((r = OK(syscall(SYS_getdents64, fd, buf, sizeof buf))) > 0)
        for (long at = 0; at < r;) {
            struct dirent64_raw *e = (void *)(buf + at);
            stay += !strncmp(e->name, "stay", 4);
            at += e->reclen;
        }
    CHECK_EQ(stay, 150);
    JOIN(p);
}

TEST(reading_removed_directory) {
    OK(mkdir("d", 0755));
    OK(write_file("d/f", ""));
    int fd = OK(open("d", O_RDONLY));
    OK(unlink("d/f"));
    OK(rmdir("d"));
    char buf[512];
    long r = syscall(SYS_getdents64, fd, buf, sizeof buf);
    CHECK_V(r == -1 && errno == ENOENT, r);
}

TEST(two_descriptions_have_own_positions) {
    OK(write_file("f", ""));
    char buf[4096] __attribute__((aligned(8)));
    int a = OK(open(".", O_RDONLY)), b = OK(open(".", O_RDONLY)), c = OK(dup(a));
    CHECK(syscall(SYS_getdents64, a, buf, sizeof buf) > 0);
    CHECK_EQ(syscall(SYS_getdents64, c, buf, sizeof buf), 0);
    CHECK(syscall(SYS_getdents64, b, buf, sizeof buf) > 0);
}

TEST(proc_and_dev_are_listable) {
    char self[16];
    snprintf(self, sizeof self, "%d", getpid());
    struct { const char *dir, *name; } t[] = {{"/proc", self}, {"/proc", "meminfo"}, {"/proc/self/fd", "0"}, {"/dev", "null"}, {"/proc/self/task", self}, {"/", "proc"}};
    for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
        DIR *d = opendir(t[i].dir);
        if (!d) FAIL("opendir %s", t[i].dir);
        bool found = false;
        for (struct dirent *e; (e = readdir(d));) found |= !strcmp(e->d_name, t[i].name);
        if (!found) FAIL("%s has no %s", t[i].dir, t[i].name);
        closedir(d);
    }
}
