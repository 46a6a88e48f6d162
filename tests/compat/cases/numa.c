// Memory policies on whatever nodes there are; only node 0 is taken for granted.
#include "compat.h"

enum { DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL };
#define F_NODE 1
#define F_ADDR 2
#define F_MEMS 4
#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static char *pages(int n) { return OK(mmap(0, n * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); }
static void need_numa(void) {
    int mode;
    if (syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 0) && errno == ENOSYS) SKIP("no NUMA in this kernel");
}

TEST(policy_of_a_task) {
    need_numa();
    int mode = -1;
    unsigned long mask = 1, got[16];
    OK(syscall(SYS_set_mempolicy, BIND, &mask, 64));
    memset(got, 0xff, sizeof got);
    OK(syscall(SYS_get_mempolicy, &mode, got, 1024, 0, 0));
    CHECK_EQ(mode, BIND);
    CHECK_EQ(got[0], 1);
    pid_t p;
    CHILD(p) {
        OK(syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 0));
        CHECK_EQ(mode, BIND);
    }
    JOIN(p);
    OK(syscall(SYS_set_mempolicy, PREFERRED, 0, 0)); // without nodes: local
    OK(syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 0));
    CHECK_EQ(mode, LOCAL);
    OK(syscall(SYS_set_mempolicy, DEFAULT, 0, 0));
    OK(syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 0));
    CHECK_EQ(mode, DEFAULT);
}

TEST(policy_errnos) {
    need_numa();
    int mode;
    unsigned long mask = 1, none = 0;
    CHECK_ERRNO(syscall(SYS_set_mempolicy, BIND, &none, 64), EINVAL);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, BIND, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, DEFAULT, &mask, 64), EINVAL);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, LOCAL, &mask, 64), EINVAL);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, BIND | 0xc000, &mask, 64), EINVAL);
    CHECK_ERRNO(syscall(SYS_set_mempolicy, BIND, 8, 64), EFAULT);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 99), EINVAL);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, &mode, 0, 0, 4096, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, &mode, 0, 0, 0, F_NODE), EINVAL);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, &mode, 0, 0, 8, F_ADDR), EFAULT);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, 8, 0, 0, 0, 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_get_mempolicy, &mode, 0, 0, 0, F_MEMS | F_NODE), EINVAL);
    unsigned long allowed[16] = {0};
    OK(syscall(SYS_get_mempolicy, &mode, allowed, 1024, 0, F_MEMS));
    CHECK(allowed[0] & 1);
}

TEST(policy_of_a_mapping) {
    need_numa();
    int mode;
    unsigned long mask = 1;
    char *p = pages(3);
    OK(syscall(SYS_mbind, p + PAGE, PAGE, BIND, &mask, 64, 0));
    unsigned long many[16];
    OK(syscall(SYS_get_mempolicy, &mode, many, 1024, p + PAGE, F_ADDR));
    CHECK_EQ(mode, BIND);
    CHECK_EQ(many[0], 1);
    OK(syscall(SYS_get_mempolicy, &mode, 0, 0, p, F_ADDR));
    CHECK_EQ(mode, DEFAULT);
    OK(syscall(SYS_get_mempolicy, &mode, 0, 0, p + PAGE, F_ADDR | F_NODE));
    CHECK_EQ(mode, 0);
    CHECK_ERRNO(syscall(SYS_mbind, p + 1, PAGE, BIND, &mask, 64, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_mbind, p, PAGE, BIND, &mask, 64, 99), EINVAL);
    OK(munmap(p + PAGE, PAGE));
    CHECK_ERRNO(syscall(SYS_mbind, p, 3 * PAGE, BIND, &mask, 64, 0), EFAULT);
    OK(syscall(SYS_mbind, p, 3 * PAGE, DEFAULT, 0, 0, 0)); // which holes do not disturb
    OK(syscall(SYS_mbind, p, 0, BIND, &mask, 64, 0));
}

TEST(pages_are_where_they_are) {
    char *p = pages(2);
    p[0] = 1;
    void *at[2] = {p, p + PAGE};
    int status[2] = {99, 99}, node[2] = {0, 0};
    if (syscall(SYS_move_pages, 0, 2, at, 0, status, 0) && errno == ENOSYS) SKIP("no move_pages in this kernel");
    CHECK_EQ(status[0], 0);
    CHECK_EQ(status[1], -ENOENT);
    OK(syscall(SYS_move_pages, 0, 1, at, node, status, 2));
    CHECK_EQ(status[0], 0);
    node[0] = 1000;
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1, at, node, status, 2), ENODEV);
    CHECK_ERRNO(syscall(SYS_move_pages, 0, 1, at, node, status, 99), EINVAL);
    CHECK_ERRNO(syscall(SYS_move_pages, 999999, 1, at, 0, status, 0), ESRCH);
    unsigned long mask = 1;
    CHECK_EQ(syscall(SYS_migrate_pages, 0, 64, &mask, &mask), 0);
    CHECK_ERRNO(syscall(SYS_migrate_pages, 999999, 64, &mask, &mask), ESRCH);
}
