// Mounts by descriptors: fsopen and its kin, open_tree, move_mount, mount_setattr, statmount, listmount.
#include "compat.h"
#include <linux/mount.h>

#ifndef LSMT_ROOT
#define LSMT_ROOT 0xffffffffffffffffull
#endif
#define STATX_MNT_ID_UNIQUE_ 0x4000
struct request {
    uint32_t size, spare;
    uint64_t id, param;
};

// A mount namespace of its own, with a tmpfs on ./m.
static void own_namespace(void) {
    NEED_ROOT();
    if (unshare(CLONE_NEWNS)) SKIP("no mount namespaces here");
    OK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    OK(mkdir("m", 0755));
}

static int make_tmpfs(const char *option, const char *value) {
    int fs = OK(syscall(SYS_fsopen, "tmpfs", 1));
    OK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", "here", 0));
    if (option) OK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, option, value, 0));
    OK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0));
    int mnt = OK(syscall(SYS_fsmount, fs, 1, MOUNT_ATTR_NOSUID));
    close(fs);
    return mnt;
}

TEST(new_filesystem) {
    own_namespace();
    int mnt = make_tmpfs("mode", "0700");
    // Not attached yet, but there.
    int f = OK(openat(mnt, "f", O_CREAT | O_RDWR, 0600));
    close(f);
    OK(syscall(SYS_move_mount, mnt, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
    struct stat st;
    OK(stat("m", &st));
    CHECK_EQ(st.st_mode & 07777, 0700);
    OK(stat("m/f", &st));
    char text[65536];
    CHECK(read_file("/proc/self/mountinfo", text, sizeof text) > 0);
    char *line = strstr(text, " - tmpfs here ");
    CHECK(line);
    CHECK_ERRNO(syscall(SYS_move_mount, mnt, "f", AT_FDCWD, "m", 0), EINVAL); // no mount
    OK(umount2("m", MNT_DETACH));
}

TEST(closing_gives_up_a_detached_tree) {
    own_namespace();
    int mnt = make_tmpfs(0, 0);
    OK(mkdirat(mnt, "d", 0755));
    OK(close(mnt));
    mnt = make_tmpfs(0, 0);
    CHECK_ERRNO(openat(mnt, "d", O_RDONLY), ENOENT);
}

TEST(context_errnos) {
    NEED_ROOT();
    CHECK_ERRNO(syscall(SYS_fsopen, "no-such-fs", 0), ENODEV);
    CHECK_ERRNO(syscall(SYS_fsopen, "tmpfs", 2), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsopen, 8, 0), EFAULT);
    int fs = OK(syscall(SYS_fsopen, "tmpfs", 0));
    CHECK_ERRNO(syscall(SYS_fsmount, fs, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsmount, fs, 2, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, fs, 99, 0, 0, 0), EOPNOTSUPP);
    CHECK_ERRNO(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, "ro", "x", 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, "x", 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, -1, FSCONFIG_CMD_CREATE, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, 0, FSCONFIG_CMD_CREATE, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0), EBUSY);
    OK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0));
    CHECK_ERRNO(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0), EBUSY);
    CHECK_ERRNO(syscall(SYS_fsmount, fs, 0, 0x1000000), EINVAL);
    OK(syscall(SYS_fsmount, fs, 0, 0));
    CHECK_ERRNO(syscall(SYS_fsmount, fs, 0, 0), EBUSY);
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(syscall(SYS_fsopen, "tmpfs", 0), EPERM);
        CHECK_ERRNO(syscall(SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "m", 0), EPERM);
        CHECK_ERRNO(syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE), EPERM);
    }
    JOIN(p);
}

TEST(open_tree_is_a_place_or_a_copy) {
    own_namespace();
    OK(mount("a", "m", "tmpfs", 0, 0));
    OK(mkdir("m/sub", 0755));
    OK(mount("b", "m/sub", "tmpfs", 0, 0));
    OK(mkdir("m/sub/deep", 0755));
    OK(mkdir("to", 0755));
    int place = OK(syscall(SYS_open_tree, AT_FDCWD, "m", OPEN_TREE_CLOEXEC));
    CHECK_EQ(fcntl(place, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(read(place, &place, 1), EBADF);
    int one = OK(syscall(SYS_open_tree, AT_FDCWD, "m", OPEN_TREE_CLONE));
    CHECK_ERRNO(openat(one, "sub/deep", O_RDONLY), ENOENT);
    int all = OK(syscall(SYS_open_tree, AT_FDCWD, "m", OPEN_TREE_CLONE | AT_RECURSIVE));
    close(OK(openat(all, "sub/deep", O_RDONLY)));
    OK(syscall(SYS_move_mount, all, "", AT_FDCWD, "to", MOVE_MOUNT_F_EMPTY_PATH));
    struct stat st;
    OK(stat("to/sub/deep", &st));
    CHECK_ERRNO(syscall(SYS_open_tree, AT_FDCWD, "m", AT_RECURSIVE), EINVAL);
    CHECK_ERRNO(syscall(SYS_open_tree, AT_FDCWD, "m", 0x40000000), EINVAL);
    CHECK_ERRNO(syscall(SYS_open_tree, AT_FDCWD, "none", 0), ENOENT);
    // Moving what is attached.
    OK(mkdir("else", 0755));
    OK(syscall(SYS_move_mount, AT_FDCWD, "to", AT_FDCWD, "else", 0));
    CHECK_ERRNO(stat("to/sub", &st), ENOENT);
    OK(stat("else/sub/deep", &st));
}

TEST(mount_setattr) {
    own_namespace();
    OK(mount("a", "m", "tmpfs", 0, 0));
    OK(mkdir("m/sub", 0755));
    OK(mount("b", "m/sub", "tmpfs", 0, 0));
    struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};
    OK(syscall(SYS_mount_setattr, AT_FDCWD, "m", AT_RECURSIVE, &a, sizeof a));
    CHECK_ERRNO(mkdir("m/x", 0755), EROFS);
    CHECK_ERRNO(mkdir("m/sub/x", 0755), EROFS);
    a = (struct mount_attr){.attr_clr = MOUNT_ATTR_RDONLY};
    OK(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, sizeof a));
    OK(mkdir("m/x", 0755));
    CHECK_ERRNO(mkdir("m/sub/x", 0755), EROFS);
    a = (struct mount_attr){.attr_set = MOUNT_ATTR_NOATIME};
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, sizeof a), EINVAL);
    a.attr_clr = MOUNT_ATTR__ATIME;
    OK(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, sizeof a));
    a = (struct mount_attr){.propagation = MS_SHARED};
    OK(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, sizeof a));
    a.propagation = MS_SHARED | MS_PRIVATE;
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, sizeof a), EINVAL);
    a = (struct mount_attr){.attr_set = 1ull << 40};
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, sizeof a), EINVAL);
    a = (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY};
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m/x", 0, &a, sizeof a), EINVAL); // no mount
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0, &a, 8192), E2BIG);
    CHECK_ERRNO(syscall(SYS_mount_setattr, AT_FDCWD, "m", 0x4000, &a, sizeof a), EINVAL);
}

TEST(fspick_changes_options) {
    own_namespace();
    OK(mount("a", "m", "tmpfs", 0, "size=1m"));
    int fs = OK(syscall(SYS_fspick, AT_FDCWD, "m", 0));
    OK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", "2m", 0));
    OK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0));
    OK(mkdir("m/d", 0755));
    CHECK_ERRNO(syscall(SYS_fspick, AT_FDCWD, "m/d", 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_fspick, AT_FDCWD, "m", 0x100), EINVAL);
}

TEST(statmount_and_listmount) {
    own_namespace();
    OK(mount("name", "m", "tmpfs", MS_NOEXEC, 0));
    struct request q = {24, 0, LSMT_ROOT, 0};
    uint64_t ids[1000];
    long n = syscall(458, &q, ids, 1000, 0);
    if (n < 0 && errno == ENOSYS) SKIP("no listmount in this kernel");
    CHECK(n > 0 && n < 1000);
    struct statx sx;
    OK(syscall(SYS_statx, AT_FDCWD, "m", 0, STATX_MNT_ID_UNIQUE_, &sx));
    CHECK(sx.stx_mask & STATX_MNT_ID_UNIQUE_);
    bool listed = false;
    for (int i = 0; i < n; i++) listed |= ids[i] == sx.stx_mnt_id;
    CHECK(listed);
    static union {
        struct {
            uint32_t size, opts;
            uint64_t mask;
            uint32_t major, minor;
            uint64_t magic;
            uint32_t sb_flags, type;
            uint64_t id, parent;
            uint32_t old, old_parent;
            uint64_t attr, propagation, peer, master, from;
            uint32_t root, point;
        } s;
        char b[8192];
    } st;
    q = (struct request){24, 0, sx.stx_mnt_id, 1 | 2 | 8 | 16 | 32};
    OK(syscall(457, &q, &st, sizeof st, 0));
    CHECK_EQ(st.s.mask, 1 | 2 | 8 | 16 | 32);
    CHECK_EQ(st.s.magic, 0x01021994);
    CHECK_EQ(st.s.id, sx.stx_mnt_id);
    CHECK(st.s.attr & MOUNT_ATTR_NOEXEC);
    CHECK_EQ(st.s.propagation, MS_PRIVATE);
    CHECK_STR(st.b + 512 + st.s.type, "tmpfs");
    CHECK_STR(st.b + 512 + st.s.root, "/");
    char *point = st.b + 512 + st.s.point, *end = strrchr(point, '/');
    CHECK_STR(end, "/m");
    CHECK_ERRNO(syscall(457, &q, &st, 512, 0), EOVERFLOW);
    CHECK_ERRNO(syscall(457, &q, &st, sizeof st, 1), EINVAL);
    q.size = 8;
    CHECK_ERRNO(syscall(457, &q, &st, sizeof st, 0), EINVAL);
    q = (struct request){24, 0, 12345, 1}; // a number of the old kind
    CHECK_ERRNO(syscall(457, &q, &st, sizeof st, 0), EINVAL);
    q = (struct request){24, 0, 0xffffffff, 0};
    CHECK_ERRNO(syscall(457, &q, &st, sizeof st, 0), ENOENT);
    CHECK_ERRNO(syscall(458, &q, ids, 10, 0), ENOENT);
    CHECK_ERRNO(syscall(458, &q, ids, 10, 2), EINVAL);
}
