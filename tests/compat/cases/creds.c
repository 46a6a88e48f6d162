// Credentials: user and group ids, capabilities, securebits, no_new_privs.
#include "compat.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

struct caps {
    uint64_t eff, perm, inh;
};
static struct caps getcaps(void) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    OK(syscall(SYS_capget, &h, d));
    return (struct caps){d[0].effective | (uint64_t)d[1].effective << 32, d[0].permitted | (uint64_t)d[1].permitted << 32,
                         d[0].inheritable | (uint64_t)d[1].inheritable << 32};
}
static int setcaps(struct caps c) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {{c.eff, c.perm, c.inh}, {c.eff >> 32, c.perm >> 32, c.inh >> 32}};
    return syscall(SYS_capset, &h, d);
}
#define CAP(c) (1ull << (c))

#define IDS(r, e, s)                                                                                                   \
    do {                                                                                                               \
        uid_t r_, e_, s_;                                                                                              \
        OK(getresuid(&r_, &e_, &s_));                                                                                  \
        CHECK_EQ(r_, r);                                                                                               \
        CHECK_EQ(e_, e);                                                                                               \
        CHECK_EQ(s_, s);                                                                                               \
    } while (0)

TEST(setuid_of_root_sets_all) {
    NEED_ROOT();
    OK(setuid(1000));
    IDS(1000, 1000, 1000);
    CHECK_ERRNO(setuid(0), EPERM);
    CHECK_ERRNO(setuid(1001), EPERM);
    OK(setuid(1000));
    CHECK_EQ(getcaps().perm, 0);
}

TEST(seteuid_and_back) {
    NEED_ROOT();
    OK(seteuid(1000));
    IDS(0, 1000, 0);
    CHECK_EQ(getcaps().eff, 0);
    CHECK(getcaps().perm);
    CHECK_ERRNO(seteuid(2000), EPERM);
    OK(seteuid(0));
    CHECK_EQ(getcaps().eff, getcaps().perm);
}

TEST(setreuid_rules) {
    NEED_ROOT();
    OK(setreuid(1000, 2000));
    IDS(1000, 2000, 2000); // the saved id follows when the real one is set
    OK(setreuid(2000, 1000));
    IDS(2000, 1000, 1000);
    CHECK_ERRNO(setreuid(3000, -1), EPERM);
    CHECK_ERRNO(setreuid(-1, 3000), EPERM);
    OK(setreuid(-1, -1));
    IDS(2000, 1000, 1000);
}

TEST(setresuid_rules) {
    NEED_ROOT();
    OK(setresuid(1, 2, 3));
    IDS(1, 2, 3);
    OK(setresuid(3, 1, 2));
    IDS(3, 1, 2);
    CHECK_ERRNO(setresuid(4, -1, -1), EPERM);
    CHECK_ERRNO(setresuid(-1, -1, 4), EPERM);
    OK(setresuid(-1, 3, -1));
    IDS(3, 3, 2);
    OK(setuid(2)); // one of the three: only the effective one changes
    IDS(3, 2, 2);
}

TEST(group_ids) {
    NEED_ROOT();
    gid_t r, e, s;
    OK(setresgid(11, 12, 13));
    OK(getresgid(&r, &e, &s));
    CHECK(r == 11 && e == 12 && s == 13);
    OK(setregid(21, 22));
    OK(getresgid(&r, &e, &s));
    CHECK(r == 21 && e == 22 && s == 22);
    OK(setgid(5));
    OK(getresgid(&r, &e, &s));
    CHECK(r == 5 && e == 5 && s == 5);
    OK(setuid(1000));
    CHECK_ERRNO(setgid(6), EPERM);
    OK(setgid(5));
    CHECK_ERRNO(setregid(6, -1), EPERM);
    CHECK_ERRNO(setresgid(-1, -1, 6), EPERM);
}

TEST(supplementary_groups) {
    NEED_ROOT();
    gid_t g[4] = {30, 10, 20, 10}, got[8];
    OK(setgroups(4, g));
    CHECK_EQ(getgroups(0, 0), 4);
    CHECK_EQ(getgroups(8, got), 4);
    int sum = 0;
    for (int i = 0; i < 4; i++) sum += got[i];
    CHECK_EQ(sum, 70);
    CHECK_ERRNO(getgroups(2, got), EINVAL);
    CHECK_ERRNO(getgroups(-1, got), EINVAL);
    CHECK_ERRNO(setgroups(65537, g), EINVAL);
    pid_t p;
    CHILD(p) {
        CHECK_EQ(getgroups(8, got), 4);
        OK(setuid(1000));
        CHECK_ERRNO(setgroups(0, 0), EPERM);
    }
    JOIN(p);
    OK(setgroups(0, 0));
    CHECK_EQ(getgroups(0, 0), 0);
}

TEST(setfsuid) {
    NEED_ROOT();
    OK(chmod(".", 0777));
    CHECK_EQ(setfsuid(1000), 0);
    CHECK_EQ(setfsuid(-1), 1000);
    CHECK_EQ(geteuid(), 0);
    OK(write_file("f", "x"));
    struct stat st;
    OK(stat("f", &st));
    CHECK_EQ(st.st_uid, 1000);
    CHECK_EQ(setfsgid(33), 0);
    CHECK_EQ(setfsgid(-1), 33);
    OK(seteuid(0)); // sets it back
    CHECK_EQ(setfsuid(-1), 0);
}

TEST(file_capabilities_follow_fsuid) {
    // Leaving fsuid 0 drops the file capabilities from the effective set.
    NEED_ROOT();
    uint64_t before = getcaps().eff;
    if (!(before & CAP(CAP_DAC_OVERRIDE))) SKIP("no such capability");
    setfsuid(1000);
    CHECK(!(getcaps().eff & CAP(CAP_DAC_OVERRIDE)));
    CHECK_EQ(getcaps().eff & CAP(CAP_SETUID), before & CAP(CAP_SETUID));
    setfsuid(0);
    CHECK_EQ(getcaps().eff, before);
}

TEST(capget_versions_and_errnos) {
    struct __user_cap_header_struct h = {0, 0};
    struct __user_cap_data_struct d[2];
    CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
    CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
    h.version = 0;
    OK(syscall(SYS_capget, &h, 0)); // asks for the version
    h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 999999};
    CHECK_ERRNO(syscall(SYS_capget, &h, d), ESRCH);
    h.pid = -1;
    CHECK_ERRNO(syscall(SYS_capget, &h, d), EINVAL);
    h.pid = getppid();
    OK(syscall(SYS_capget, &h, d));
    CHECK_ERRNO(syscall(SYS_capset, &h, d), EPERM); // only one's own
    CHECK_ERRNO(syscall(SYS_capget, 8, d), EFAULT);
}

TEST(capset_only_shrinks) {
    NEED_ROOT();
    struct caps c = getcaps();
    c.eff &= ~CAP(CAP_CHOWN);
    OK(setcaps(c));
    OK(write_file("f", "x"));
    CHECK_ERRNO(chown("f", 5, 5), EPERM);
    c.eff |= CAP(CAP_CHOWN);
    OK(setcaps(c));
    OK(chown("f", 5, 5));
    c.perm &= ~CAP(CAP_CHOWN);
    CHECK_ERRNO(setcaps(c), EPERM); // effective must be within permitted
    c.eff &= ~CAP(CAP_CHOWN);
    OK(setcaps(c));
    c.perm |= CAP(CAP_CHOWN);
    CHECK_ERRNO(setcaps(c), EPERM);
}

TEST(each_capability_guards_its_call) {
    NEED_ROOT();
    struct caps all = getcaps();
    OK(write_file("f", "x"));
    OK(chown("f", 1000, 1000));
    OK(chmod("f", 0));
    struct caps c = all;
    c.eff &= ~CAP(CAP_DAC_OVERRIDE);
    OK(setcaps(c));
    CHECK_ERRNO(open("f", O_WRONLY), EACCES);
    if (all.eff & CAP(CAP_DAC_READ_SEARCH)) {
        OK(open("f", O_RDONLY));
        c.eff &= ~CAP(CAP_DAC_READ_SEARCH);
        OK(setcaps(c));
    }
    CHECK_ERRNO(open("f", O_RDONLY), EACCES);
    c = all;
    c.eff &= ~CAP(CAP_FOWNER);
    OK(setcaps(c));
    CHECK_ERRNO(chmod("f", 0600), EPERM);
    c = all;
    c.eff &= ~CAP(CAP_SETUID);
    OK(setcaps(c));
    CHECK_ERRNO(setuid(5), EPERM);
    c = all;
    c.eff &= ~CAP(CAP_SETGID);
    OK(setcaps(c));
    CHECK_ERRNO(setgid(5), EPERM);
    CHECK_ERRNO(setgroups(0, 0), EPERM);
    c = all;
    c.eff &= ~CAP(CAP_SYS_CHROOT);
    OK(setcaps(c));
    CHECK_ERRNO(chroot("/"), EPERM);
    c = all;
    c.eff &= ~CAP(CAP_KILL);
    OK(setcaps(c));
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        OK(setcaps(all));
        OK(setresuid(77, 77, 77));
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    // Same user as before? No: root without CAP_KILL may not signal user 77.
    CHECK_ERRNO(kill(p, SIGTERM), EPERM);
    OK(setcaps(all));
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(bounding_set) {
    NEED_ROOT();
    CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0), 1);
    CHECK_ERRNO(prctl(PR_CAPBSET_READ, 64, 0, 0, 0), EINVAL);
    OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0));
    CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0), 0);
    CHECK(getcaps().perm & CAP(CAP_CHOWN)); // kept until exec
    pid_t p;
    CHILD(p) execl("/bin/sh", "sh", "-c", "grep -q '^CapPrm:.*[02468ace]$' /proc/self/status", (char *)0);
    JOIN(p);
    CHECK_ERRNO(prctl(PR_CAPBSET_DROP, 64, 0, 0, 0), EINVAL);
    struct caps c = getcaps();
    c.eff &= ~CAP(CAP_SETPCAP);
    OK(setcaps(c));
    CHECK_ERRNO(prctl(PR_CAPBSET_DROP, CAP_KILL, 0, 0, 0), EPERM);
}

TEST(keepcaps) {
    NEED_ROOT();
    CHECK_EQ(prctl(PR_GET_KEEPCAPS), 0);
    OK(prctl(PR_SET_KEEPCAPS, 1));
    CHECK_EQ(prctl(PR_GET_KEEPCAPS), 1);
    uint64_t perm = getcaps().perm;
    OK(setuid(1000));
    CHECK_EQ(getcaps().perm, perm);
    CHECK_EQ(getcaps().eff, 0);
    CHECK_ERRNO(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
    pid_t p;
    CHILD(p) execl("/bin/sh", "sh", "-c", "grep -q '^CapPrm:\t0000000000000000' /proc/self/status", (char *)0);
    JOIN(p);
}

TEST(ambient_set) {
    NEED_ROOT();
    OK(prctl(PR_SET_KEEPCAPS, 1));
    OK(setresgid(1000, 1000, 1000));
    OK(setresuid(1000, 1000, 1000));
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0), EPERM); // not inheritable yet
    struct caps c = getcaps();
    c.inh = CAP(CAP_KILL);
    OK(setcaps(c));
    OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 1);
    CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
    pid_t p;
    CHILD(p) execl("/bin/sh", "sh", "-c", "grep -q '^CapEff:\t0000000000000020' /proc/self/status", (char *)0);
    JOIN(p);
    OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_KILL, 0, 0));
    CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 0);
    OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0), EINVAL);
    CHECK_ERRNO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 64, 0, 0), EINVAL);
}

TEST(securebits) {
    NEED_ROOT();
    CHECK_EQ(prctl(PR_GET_SECUREBITS), 0);
    OK(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP));
    uint64_t eff = getcaps().eff;
    OK(setresuid(1000, 1000, 1000));
    CHECK_EQ(getcaps().eff, eff); // no change of capabilities
    OK(setresuid(0, 0, 0));
    OK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED));
    CHECK_ERRNO(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED), EPERM);
    pid_t p;
    CHILD(p) execl("/bin/sh", "sh", "-c", "grep -q '^CapEff:\t0000000000000000' /proc/self/status", (char *)0);
    JOIN(p); // root's exec gives nothing
    CHECK_ERRNO(prctl(PR_SET_SECUREBITS, 1 << 20), EPERM);
}

TEST(no_new_privs) {
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    CHECK_ERRNO(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    pid_t p;
    CHILD(p) CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    JOIN(p);
    CHILD(p) execl("/bin/sh", "sh", "-c", "grep -q '^NoNewPrivs:\t1' /proc/self/status", (char *)0);
    JOIN(p);
}

TEST(dumpable_changes_with_ids) {
    NEED_ROOT();
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    OK(setresuid(1000, 1000, 1000));
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 0); // /proc/sys/fs/suid_dumpable is 0
    OK(prctl(PR_SET_DUMPABLE, 1));
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 2), EINVAL);
}

TEST(exec_of_root_program_by_root_gains_all) {
    NEED_ROOT();
    // Real user 1000, effective 0: exec raises the permitted set as for root.
    OK(setresuid(1000, 0, 0));
    pid_t p;
    CHILD(p) execl("/bin/grep", "grep", "-q", "^CapEff:.*f$", "/proc/self/status", (char *)0);
    JOIN(p);
}

TEST(status_shows_ids) {
    NEED_ROOT();
    OK(setresgid(11, 12, 13));
    OK(setgroups(2, (gid_t[]){5, 6}));
    OK(setresuid(1, 2, 3));
    OK(prctl(PR_SET_DUMPABLE, 1));
    char buf[4096];
    CHECK(read_file("/proc/self/status", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "Uid:\t1\t2\t3\t2\n"));
    CHECK(strstr(buf, "Gid:\t11\t12\t13\t12\n"));
    CHECK(strstr(buf, "Groups:\t5 6 \n"));
}
