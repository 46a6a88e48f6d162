// User namespaces.
#include "compat.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/fsuid.h>

static bool allowed(void) {
    pid_t p;
    CHILD(p) _exit(unshare(CLONE_NEWUSER) ? 1 : 0);
    return WAIT(p) == 0;
}
#define NEED_USERNS()                                                                                                  \
    do {                                                                                                               \
        if (!allowed()) SKIP("user namespaces are not allowed here");                                                  \
    } while (0)

static int put(pid_t p, const char *file, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", p, file);
    int fd = open(path, O_WRONLY);
    if (fd < 0) return -1;
    ssize_t n = write(fd, text, strlen(text));
    int e = errno;
    close(fd);
    errno = e;
    return n < 0 ? -1 : 0;
}

// Runs `f` in a child in a new user namespace with these maps, which the parent writes.
static void inside(const char *uids, const char *gids, void (*f)(void)) {
    int up[2], down[2];
    OK(pipe(up)), OK(pipe(down));
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWUSER));
        gate_open(up[1]);
        gate_wait(down[0]);
        f();
    }
    gate_wait(up[0]);
    OK(put(p, "uid_map", uids));
    OK(put(p, "gid_map", gids));
    gate_open(down[1]);
    JOIN(p);
}

TEST(unshare_makes_everybody_nobody) {
    NEED_USERNS();
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWUSER));
        CHECK_EQ(getuid(), 65534);
        CHECK_EQ(getgid(), 65534);
        char buf[256];
        CHECK_EQ(read_file("/proc/self/uid_map", buf, sizeof buf), 0);
        struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct d[2];
        OK(syscall(SYS_capget, &h, d));
        CHECK_EQ(d[0].effective, 0xffffffffu); // all capabilities, in there
    }
    JOIN(p);
}

TEST(map_by_oneself) {
    NEED_USERNS();
    uid_t u = geteuid();
    gid_t g = getegid();
    pid_t p;
    CHILD(p) {
        char text[64];
        OK(unshare(CLONE_NEWUSER));
        snprintf(text, sizeof text, "0 %d 1", u);
        OK(put(getpid(), "uid_map", text));
        CHECK_EQ(getuid(), 0);
        OK(put(getpid(), "setgroups", "deny"));
        snprintf(text, sizeof text, "0 %d 1", g);
        OK(put(getpid(), "gid_map", text));
        CHECK_EQ(getgid(), 0);
        CHECK_ERRNO(put(getpid(), "uid_map", text), EPERM); // once only
        CHECK_ERRNO(setgroups(0, 0), EPERM);
        CHECK_ERRNO(setuid(5), EINVAL); // not mapped
        char buf[128];
        int a, b, c;
        CHECK(read_file("/proc/self/uid_map", buf, sizeof buf) > 0);
        CHECK_EQ(sscanf(buf, "%d %d %d", &a, &b, &c), 3);
        CHECK(a == 0 && b == (int)u && c == 1);
    }
    JOIN(p);
}

TEST(map_by_parent_with_ranges) {
    NEED_ROOT();
    NEED_USERNS();
    int up[2], down[2];
    OK(pipe(up)), OK(pipe(down));
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWUSER));
        gate_open(up[1]);
        gate_wait(down[0]);
        OK(setresgid(0, 0, 0));
        OK(setgroups(0, 0));
        OK(setresuid(0, 0, 0));
        CHECK_EQ(getuid(), 0);
        OK(setresuid(7, 7, 7));
        CHECK_EQ(getuid(), 7);
        CHECK_ERRNO(setuid(100), EINVAL);
        gate_open(up[1]);
        gate_wait(down[0]);
    }
    gate_wait(up[0]);
    OK(put(p, "uid_map", "0 100000 50\n1000 1000 1\n"));
    OK(put(p, "gid_map", "0 200000 50\n"));
    gate_open(down[1]);
    gate_wait(up[0]);
    char path[64], buf[4096];
    snprintf(path, sizeof path, "/proc/%d/status", p);
    CHECK(read_file(path, buf, sizeof buf) > 0);
    CHECK(strstr(buf, "Uid:\t100007\t100007\t100007\t100007\n")); // as seen from here
    CHECK(strstr(buf, "Gid:\t200000\t"));
    gate_open(down[1]);
    JOIN(p);
}

TEST(bad_maps) {
    NEED_ROOT();
    NEED_USERNS();
    const char *bad[] = {"", "x", "0 0 0", "0 0", "0 0 1 1", "0 0 1\n0 5 1", "0 10 5\n3 30 5", "0 4294967295 1", "4294967290 0 100"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        pid_t p;
        CHILD(p) {
            OK(unshare(CLONE_NEWUSER));
            int fd = OK(open("/proc/self/uid_map", O_WRONLY));
            ssize_t n = write(fd, bad[i], strlen(bad[i]));
            if (!(n == -1 && errno == EINVAL) && !(n == 0 && !*bad[i])) FAIL("map %d: %zd %d", i, n, errno);
        }
        JOIN(p);
    }
}

static void touch_files(void) {
    struct stat st;
    OK(stat("f", &st));
    CHECK_EQ(st.st_uid, 65534);
    CHECK_EQ(st.st_gid, 65534);
    OK(stat("mine", &st));
    CHECK_EQ(st.st_uid, 0);
    OK(chmod("mine", 0600));
    CHECK_ERRNO(chmod("f", 0777), EPERM); // no capability over unmapped files
    CHECK_ERRNO(open("f", O_WRONLY), EACCES);
    CHECK_ERRNO(chown("mine", 5, 5), EINVAL);
}

TEST(files_of_unmapped_owners) {
    NEED_ROOT();
    NEED_USERNS();
    OK(write_file("f", "x"));
    OK(chown("f", 4242, 4242));
    OK(write_file("mine", "x"));
    inside("0 0 1", "0 0 1", touch_files);
}

TEST(capabilities_do_not_reach_outside) {
    NEED_USERNS();
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWUSER));
        CHECK_ERRNO(sethostname("x", 1), EPERM); // the UTS namespace belongs to the parent
        OK(unshare(CLONE_NEWUTS));
        OK(sethostname("x", 1));
        struct timespec t = {1, 0};
        CHECK_ERRNO(clock_settime(CLOCK_REALTIME, &t), EPERM);
    }
    JOIN(p);
}

static void innermost(void) {
    CHECK_EQ(getuid(), 5);
    char buf[128];
    int a, b, c;
    CHECK(read_file("/proc/self/uid_map", buf, sizeof buf) > 0);
    CHECK_EQ(sscanf(buf, "%d %d %d", &a, &b, &c), 3);
    CHECK(a == 5 && b == 0 && c == 10);
}
static void middle(void) { inside("5 0 10", "5 0 10", innermost); }

TEST(nested_namespaces) {
    NEED_ROOT();
    NEED_USERNS();
    inside("0 0 100", "0 0 100", middle);
}

TEST(clone_newuser_with_others) {
    NEED_USERNS();
    pid_t p = OK(syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0));
    if (!p) {
        CHECK_EQ(getpid(), 1);
        OK(sethostname("inner", 5));
        _exit(0);
    }
    JOIN(p);
    char name[65];
    OK(gethostname(name, sizeof name));
    CHECK(strcmp(name, "inner"));
}

static void own_tmpfs(void) {
    OK(setresgid(3, 3, 3)), OK(setresuid(0, 0, 0));
    OK(unshare(CLONE_NEWNS));
    char dir[] = "/tmp/userns.XXXXXX";
    CHECK(mkdtemp(dir));
    OK(mount("mine", dir, "tmpfs", 0, "mode=700"));
    struct stat st;
    OK(stat(dir, &st));
    CHECK_EQ(st.st_uid, 0);
    CHECK_EQ(st.st_gid, 3);
    OK(umount(dir));
    OK(mount("mine", dir, "tmpfs", 0, "uid=5,gid=6"));
    OK(stat(dir, &st));
    CHECK_EQ(st.st_uid, 5);
    CHECK_EQ(st.st_gid, 6);
    OK(umount(dir));
    // An id that is not there.
    CHECK_ERRNO(mount("mine", dir, "tmpfs", 0, "uid=100"), EINVAL);
    OK(rmdir(dir));
}

// The root of a tmpfs is of who mounts it, and options name ids of their namespace.
TEST(a_tmpfs_belongs_to_who_mounts_it) {
    NEED_USERNS();
    inside("0 1000 10", "0 2000 10", own_tmpfs);
}

static void *idle(void *a) {
    for (;;) pause();
    return a;
}
TEST(unshare_newuser_of_threads_is_refused) {
    start(idle, 0);
    CHECK_ERRNO(unshare(CLONE_NEWUSER), EINVAL);
}

TEST(setns_back_is_refused) {
    NEED_ROOT();
    NEED_USERNS();
    int self = OK(open("/proc/self/ns/user", O_RDONLY));
    CHECK_ERRNO(setns(self, CLONE_NEWUSER), EINVAL); // already in it
    CHECK_ERRNO(setns(self, CLONE_NEWNET), EINVAL);
    pid_t p;
    CHILD(p) {
        OK(unshare(CLONE_NEWUSER));
        CHECK_ERRNO(setns(self, 0), EPERM);
    }
    JOIN(p);
}
