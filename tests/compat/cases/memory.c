// Memory: mmap and its kin, limits, what /proc shows.
#include "compat.h"
#include <linux/mman.h>
#include <sys/syscall.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static char *map(size_t n, int prot) { return OK(mmap(0, n, prot, ANON, -1, 0)); }

// Whether a page can be read and written, without a signal.
static bool readable(void *p) {
    int fd[2];
    OK(pipe(fd));
    bool r = write(fd[1], p, 1) == 1;
    close(fd[0]), close(fd[1]);
    return r;
}
static bool writable(void *p) {
    int fd = OK(open("/dev/zero", O_RDONLY));
    char c = *(readable(p) ? (char *)p : "");
    bool r = read(fd, p, 1) == 1;
    close(fd);
    if (r && readable(p)) *(char *)p = c;
    return r;
}
static bool mapped(void *p) {
    unsigned char v;
    return mincore(p, 1, &v) == 0;
}

struct vma {
    unsigned long start, end, off;
    char perms[5], name[200];
};

// The entry of /proc/self/maps that holds an address.
static bool find_vma(void *addr, struct vma *v) {
    static char buf[1 << 20];
    CHECK(read_file("/proc/self/maps", buf, sizeof buf) > 0);
    for (char *l = strtok(buf, "\n"); l; l = strtok(0, "\n")) {
        unsigned long ino;
        char dev[32];
        v->name[0] = 0;
        int n = sscanf(l, "%lx-%lx %4s %lx %31s %lu %199[^\n]", &v->start, &v->end, v->perms, &v->off, dev, &ino, v->name);
        CHECK_V(n >= 6, n);
        if ((uintptr_t)addr >= v->start && (uintptr_t)addr < v->end) return true;
    }
    return false;
}

TEST(anonymous_memory_is_zero) {
    char *p = map(64 * PAGE, RW);
    for (size_t i = 0; i < 64 * PAGE; i += 512) CHECK_EQ(p[i], 0);
    memset(p, 0xff, 64 * PAGE);
    OK(munmap(p, 64 * PAGE));
    CHECK(!mapped(p));
}

TEST(mmap_errnos) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), ro = OK(open("f", O_RDONLY)), wo = OK(open("f", O_WRONLY));
    CHECK_ERRNO(mmap(0, 0, PROT_READ, ANON, -1, 0), EINVAL);
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL); // neither shared nor private
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 5), EINVAL);
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, wo, 0), EACCES);
    CHECK_ERRNO(mmap(0, PAGE, PROT_WRITE, MAP_SHARED, ro, 0), EACCES);
    CHECK_ERRNO(mmap(0, PAGE, PROT_WRITE, MAP_SHARED, wo, 0), EACCES);
    OK(mmap(0, PAGE, RW, MAP_PRIVATE, ro, 0));
    CHECK_ERRNO(mmap((void *)123, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0), EINVAL);
    CHECK_ERRNO(mmap((void *)0x7ffffffff000, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap(0, -PAGE, PROT_READ, ANON, -1, 0), ENOMEM);
    CHECK_ERRNO(mmap(0, 1ul << 47, PROT_NONE, ANON | MAP_NORESERVE, -1, 0), ENOMEM);
    int d = OK(open(".", O_RDONLY)), path = OK(open("f", O_PATH)), p[2];
    OK(pipe(p));
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, d, 0), ENODEV);
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, p[0], 0), ENODEV);
    CHECK_ERRNO(mmap(0, PAGE, PROT_READ, MAP_PRIVATE, path, 0), EBADF);
}

TEST(address_hint_is_used_if_free) {
    char *want = (char *)0x600000000000;
    CHECK(mmap(want, PAGE, RW, ANON, -1, 0) == want);
    char *p = OK(mmap(want, PAGE, RW, ANON, -1, 0));
    CHECK(p != want);
    OK(munmap(want, PAGE));
    CHECK(mmap(want + 5, PAGE, RW, ANON, -1, 0) == want); // rounded down... to a page
}

TEST(fixed_replaces) {
    char *p = map(3 * PAGE, RW);
    memset(p, 1, 3 * PAGE);
    CHECK(mmap(p + PAGE, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0) == p + PAGE);
    CHECK_EQ(p[PAGE], 0);
    CHECK_EQ(p[0] + p[2 * PAGE], 2);
    CHECK(!writable(p + PAGE));
}

TEST(fixed_noreplace_does_not) {
    char *p = map(3 * PAGE, RW);
    CHECK_ERRNO(mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    OK(munmap(p + PAGE, PAGE));
    CHECK(mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == p + PAGE);
    CHECK_ERRNO(mmap(p, 3 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
}

TEST(munmap_splits_and_errnos) {
    char *p = map(5 * PAGE, RW);
    OK(munmap(p + 2 * PAGE, PAGE));
    CHECK(mapped(p) && mapped(p + PAGE) && !mapped(p + 2 * PAGE) && mapped(p + 3 * PAGE) && mapped(p + 4 * PAGE));
    OK(munmap(p, 5 * PAGE)); // holes do not matter
    OK(munmap(p, 5 * PAGE));
    CHECK_ERRNO(munmap(p + 1, PAGE), EINVAL);
    CHECK_ERRNO(munmap(p, 0), EINVAL);
    CHECK_ERRNO(munmap(p, 1ul << 48), EINVAL);
    p = map(2 * PAGE, RW);
    OK(munmap(p, 1)); // rounded up
    CHECK(!mapped(p) && mapped(p + PAGE));
}

TEST(mprotect_splits_and_errnos) {
    char *p = map(5 * PAGE, RW);
    memset(p, 7, 5 * PAGE);
    OK(mprotect(p + PAGE, PAGE, PROT_READ));
    OK(mprotect(p + 3 * PAGE, PAGE, PROT_NONE));
    CHECK(writable(p) && !writable(p + PAGE) && readable(p + PAGE) && writable(p + 2 * PAGE) && !readable(p + 3 * PAGE) && writable(p + 4 * PAGE));
    OK(mprotect(p, 5 * PAGE, RW));
    for (int i = 0; i < 5; i++) CHECK_EQ(p[i * PAGE], 7);
    CHECK_ERRNO(mprotect(p + 1, PAGE, PROT_READ), EINVAL);
    CHECK_ERRNO(mprotect(p, PAGE, 0x100), EINVAL);
    OK(mprotect(p, 0, PROT_READ));
    OK(munmap(p + 2 * PAGE, PAGE));
    CHECK_ERRNO(mprotect(p, 5 * PAGE, PROT_READ), ENOMEM);
    CHECK(!writable(p) && !writable(p + PAGE)); // up to the hole it is done
    CHECK(writable(p + 3 * PAGE));
    int ro = OK(open("f", O_RDONLY | O_CREAT, 0600));
    p = OK(mmap(0, PAGE, PROT_READ, MAP_SHARED, ro, 0));
    CHECK_ERRNO(mprotect(p, PAGE, RW), EACCES);
    CHECK_ERRNO(mprotect(p, PAGE, PROT_READ | PROT_GROWSDOWN), EINVAL);
}

TEST(maps_shows_and_merges) {
    char *p = map(4 * PAGE, RW);
    struct vma v;
    OK(mprotect(p + PAGE, PAGE, PROT_READ));
    CHECK(find_vma(p + PAGE, &v));
    CHECK_EQ(v.start, (uintptr_t)p + PAGE);
    CHECK_EQ(v.end, (uintptr_t)p + 2 * PAGE);
    CHECK_STR(v.perms, "r--p");
    OK(mprotect(p + PAGE, PAGE, RW));
    CHECK(find_vma(p + PAGE, &v));
    CHECK(v.start <= (uintptr_t)p && v.end >= (uintptr_t)p + 4 * PAGE);
    CHECK_STR(v.perms, "rw-p");
}

TEST(maps_of_files) {
    int fd = OK(open("named file", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 4 * PAGE));
    char *p = OK(mmap(0, 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE)), cwd[PATH_MAX + 20];
    struct vma v;
    CHECK(find_vma(p, &v));
    CHECK_STR(v.perms, "r--s");
    CHECK_EQ(v.off, PAGE);
    CHECK(getcwd(cwd, PATH_MAX));
    strcat(cwd, "/named file");
    CHECK_STR(v.name, cwd);
    OK(unlink("named file"));
    CHECK(find_vma(p, &v));
    strcat(cwd, " (deleted)");
    CHECK_STR(v.name, cwd);
}

TEST(maps_names_heap_stack_vdso) {
    struct vma v;
    int local;
    CHECK(find_vma(&local, &v));
    CHECK_STR(v.name, "[stack]");
    CHECK_STR(v.perms, "rw-p");
    char *b = OK(sbrk(8192));
    CHECK(find_vma(b, &v));
    CHECK_STR(v.name, "[heap]");
    CHECK(find_vma((void *)(uintptr_t)main, &v));
    CHECK_STR(v.name, SELF);
    CHECK_STR(v.perms, "r-xp");
}

TEST(brk_grows_and_shrinks) {
    char *b = OK(sbrk(0));
    CHECK_EQ(syscall(SYS_brk, 0), (uintptr_t)b);
    CHECK_EQ(syscall(SYS_brk, b + 10 * PAGE), (uintptr_t)b + 10 * PAGE);
    memset(b, 1, 10 * PAGE);
    CHECK_EQ(syscall(SYS_brk, b + PAGE), (uintptr_t)b + PAGE);
    CHECK_EQ(syscall(SYS_brk, b + 10 * PAGE), (uintptr_t)b + 10 * PAGE);
    CHECK_EQ(b[5 * PAGE], 0); // fresh again
    CHECK_EQ(b[10], 1);
    // A break that cannot be set leaves it as it is.
    CHECK_EQ(syscall(SYS_brk, 16), (uintptr_t)b + 10 * PAGE);
    CHECK_EQ(syscall(SYS_brk, -PAGE), (uintptr_t)b + 10 * PAGE);
    char *end = (char *)(((uintptr_t)b + 10 * PAGE + 4095) & -PAGE);
    CHECK(mmap(end + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED);
    CHECK_EQ(syscall(SYS_brk, b + 30 * PAGE), (uintptr_t)b + 10 * PAGE); // in the way
}

TEST(brk_and_rlimit_data) {
    char *b = OK(sbrk(0));
    struct rlimit r = {1 << 20, RLIM_INFINITY};
    OK(setrlimit(RLIMIT_DATA, &r));
    CHECK_EQ(syscall(SYS_brk, b + (4 << 20)), (uintptr_t)b);
    CHECK_ERRNO(mmap(0, 4 << 20, RW, ANON, -1, 0), ENOMEM); // private writable memory counts since 4.7
    OK(mmap(0, 4 << 20, PROT_READ, ANON, -1, 0));
    OK(mmap(0, 4 << 20, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

TEST(rlimit_as) {
    struct rlimit r = {256 << 20, RLIM_INFINITY};
    OK(setrlimit(RLIMIT_AS, &r));
    CHECK_ERRNO(mmap(0, 300 << 20, PROT_NONE, ANON, -1, 0), ENOMEM);
    char *p = OK(mmap(0, 100 << 20, PROT_NONE, ANON, -1, 0));
    CHECK_ERRNO(mmap(0, 200 << 20, PROT_NONE, ANON, -1, 0), ENOMEM);
    CHECK_ERRNO(mremap(p, 100 << 20, 300 << 20, MREMAP_MAYMOVE), ENOMEM);
    OK(munmap(p, 100 << 20));
    OK(mmap(0, 200 << 20, PROT_NONE, ANON, -1, 0));
}

TEST(huge_reservation_without_memory) {
    char *p = OK(mmap(0, 1ul << 40, PROT_NONE, ANON | MAP_NORESERVE, -1, 0));
    OK(mprotect(p + (1ul << 39), 16 * PAGE, RW));
    p[(1ul << 39) + 5] = 1;
    CHECK_EQ(p[(1ul << 39) + PAGE], 0);
    OK(munmap(p, 1ul << 40));
    p = OK(mmap(0, 1ul << 36, RW, ANON | MAP_NORESERVE, -1, 0));
    p[1ul << 35] = 1;
    OK(munmap(p, 1ul << 36));
}

TEST(mremap_grows_in_place_and_moves) {
    char *p = map(8 * PAGE, RW);
    memset(p, 3, 2 * PAGE);
    OK(munmap(p + 2 * PAGE, 6 * PAGE));
    CHECK(mremap(p, 2 * PAGE, 4 * PAGE, 0) == p);
    CHECK_EQ(p[PAGE], 3);
    CHECK_EQ(p[3 * PAGE], 0);
    CHECK(mmap(p + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == p + 4 * PAGE);
    *(p + 4 * PAGE) = 9;
    OK(mprotect(p + 4 * PAGE, PAGE, PROT_READ));
    CHECK_ERRNO(mremap(p, 4 * PAGE, 8 * PAGE, 0), ENOMEM);
    char *q = OK(mremap(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE));
    CHECK(q != p);
    CHECK(!mapped(p));
    CHECK_EQ(q[0] + q[PAGE], 6);
    CHECK_EQ(q[7 * PAGE], 0);
}

TEST(mremap_shrinks) {
    char *p = map(4 * PAGE, RW);
    memset(p, 3, 4 * PAGE);
    CHECK(mremap(p, 4 * PAGE, PAGE, 0) == p);
    CHECK(mapped(p) && !mapped(p + PAGE));
    CHECK_EQ(*p, 3);
}

TEST(mremap_fixed) {
    char *p = map(2 * PAGE, RW), *q = map(4 * PAGE, RW);
    memset(p, 3, 2 * PAGE);
    memset(q, 4, 4 * PAGE);
    CHECK(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q + PAGE) == q + PAGE);
    CHECK(!mapped(p));
    CHECK_EQ(q[0], 4);
    CHECK_EQ(q[PAGE], 3);
    CHECK_EQ(q[2 * PAGE], 3);
    CHECK_EQ(q[3 * PAGE], 4);
}

TEST(mremap_dontunmap) {
    char *p = map(2 * PAGE, RW);
    memset(p, 3, 2 * PAGE);
    char *q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP, 5.7 */, 0);
    CHECK(q != MAP_FAILED && q != p);
    CHECK_EQ(q[PAGE], 3);
    CHECK_EQ(p[PAGE], 0);
}

TEST(mremap_of_size_zero_duplicates_shared) {
    char *p = OK(mmap(0, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    p[PAGE] = 8;
    char *q = OK(mremap(p, 0, 2 * PAGE, MREMAP_MAYMOVE));
    CHECK(q != p);
    CHECK_EQ(q[PAGE], 8);
    q[0] = 5;
    CHECK_EQ(p[0], 5);
    char *r = map(PAGE, RW);
    CHECK_ERRNO(mremap(r, 0, PAGE, MREMAP_MAYMOVE), EINVAL); // not of private memory
}

TEST(mremap_errnos) {
    char *p = map(4 * PAGE, RW);
    CHECK_ERRNO(mremap(p + 1, PAGE, PAGE, 0), EINVAL);
    CHECK_ERRNO(mremap(p, PAGE, 0, 0), EINVAL);
    CHECK_ERRNO(mremap(p, PAGE, PAGE, 8), EINVAL);
    CHECK_ERRNO(mremap(p, PAGE, PAGE, MREMAP_FIXED, p), EINVAL);
    CHECK_ERRNO(mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, p + PAGE), EINVAL); // overlap
    CHECK_ERRNO(mremap(p, PAGE, PAGE, MREMAP_FIXED | MREMAP_MAYMOVE, p + 5), EINVAL);
    OK(munmap(p + PAGE, PAGE));
    CHECK_ERRNO(mremap(p + PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    CHECK_ERRNO(mremap(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE), EFAULT);
}

TEST(mremap_moves_file_mapping) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 16 * PAGE));
    OK(pwrite(fd, "x", 1, 10 * PAGE));
    char *p = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 3 * PAGE)), *q = OK(mremap(p, PAGE, 10 * PAGE, MREMAP_MAYMOVE));
    CHECK_EQ(q[7 * PAGE], 'x');
}

TEST(shared_anonymous_across_fork) {
    char *p = OK(mmap(0, 3 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t q;
    CHILD(q) {
        p[0] = 1;
        p[2 * PAGE] = 2;
        OK(munmap(p + PAGE, PAGE));
    }
    JOIN(q);
    CHECK_EQ(p[0], 1);
    CHECK_EQ(p[2 * PAGE], 2);
    p[PAGE] = 3;
}

TEST(private_is_copied_on_write_across_fork) {
    enum { N = 500 };
    char *p = map(N * PAGE, RW);
    for (int i = 0; i < N; i++) p[i * PAGE] = i;
    pid_t q, r;
    CHILD(q) {
        for (int i = 0; i < N; i += 2) p[i * PAGE]++;
        CHILD(r) for (int i = 0; i < N; i++) CHECK_EQ(p[i * PAGE], (char)(i + !(i & 1)));
        for (int i = 0; i < N; i++) p[i * PAGE] = 0;
        JOIN(r);
    }
    for (int i = 1; i < N; i += 2) p[i * PAGE] = 'z';
    JOIN(q);
    for (int i = 0; i < N; i++) CHECK_EQ(p[i * PAGE], i & 1 ? 'z' : (char)i);
}

TEST(madvise_dontneed_zeroes) {
    char *p = map(4 * PAGE, RW);
    memset(p, 1, 4 * PAGE);
    OK(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED));
    CHECK_EQ(p[0], 1);
    CHECK_EQ(p[PAGE], 0);
    CHECK_EQ(p[2 * PAGE], 0);
    CHECK_EQ(p[3 * PAGE], 1);
}

TEST(madvise_dontneed_of_file_rereads) {
    OK(write_file("f", "abc"));
    int fd = OK(open("f", O_RDWR));
    char *p = OK(mmap(0, PAGE, RW, MAP_PRIVATE, fd, 0));
    p[0] = 'X';
    OK(madvise(p, PAGE, MADV_DONTNEED));
    CHECK_EQ(p[0], 'a');
    char *s = OK(mmap(0, PAGE, RW, MAP_SHARED, fd, 0));
    s[0] = 'Y';
    OK(madvise(s, PAGE, MADV_DONTNEED));
    CHECK_EQ(s[0], 'Y');
}

TEST(madvise_hints_and_errnos) {
    char *p = map(4 * PAGE, RW);
    memset(p, 1, 4 * PAGE);
    int hints[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTDUMP, MADV_DODUMP, MADV_COLD, MADV_PAGEOUT};
    for (unsigned i = 0; i < sizeof hints / sizeof *hints; i++) {
        OK(madvise(p, 4 * PAGE, hints[i]));
        CHECK_EQ(p[PAGE], 1);
    }
    CHECK_ERRNO(madvise(p, PAGE, 9999), EINVAL);
    CHECK_ERRNO(madvise(p + 1, PAGE, MADV_DONTNEED), EINVAL);
    OK(madvise(p, 0, MADV_DONTNEED));
    OK(munmap(p + PAGE, PAGE));
    CHECK_ERRNO(madvise(p, 4 * PAGE, MADV_DONTNEED), ENOMEM);
    CHECK_EQ(p[2 * PAGE], 0); // done where there was memory
    int v = madvise(p, PAGE, MADV_FREE);
    CHECK_EQ(v, 0);
    CHECK(*p == 0 || *p == 1);
    *p = 5;
    CHECK_EQ(*p, 5);
}

TEST(madvise_dontfork_and_wipeonfork) {
    char *p = map(3 * PAGE, RW);
    memset(p, 1, 3 * PAGE);
    OK(madvise(p, PAGE, MADV_DONTFORK));
    OK(madvise(p + PAGE, PAGE, MADV_WIPEONFORK));
    pid_t q;
    CHILD(q) {
        CHECK(!mapped(p));
        CHECK_EQ(p[PAGE], 0);
        CHECK_EQ(p[2 * PAGE], 1);
    }
    JOIN(q);
    OK(madvise(p, PAGE, MADV_DOFORK));
    OK(madvise(p + PAGE, PAGE, MADV_KEEPONFORK));
    CHILD(q) {
        CHECK_EQ(p[0], 1);
        CHECK_EQ(p[PAGE], 1);
    }
    JOIN(q);
}

TEST(madvise_remove_punches) {
    char *p = OK(mmap(0, 4 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    memset(p, 1, 4 * PAGE);
    OK(madvise(p + PAGE, PAGE, MADV_REMOVE));
    CHECK_EQ(p[0], 1);
    CHECK_EQ(p[PAGE], 0);
    CHECK_EQ(p[2 * PAGE], 1);
}

TEST(mincore_vector) {
    char *p = map(4 * PAGE, RW);
    unsigned char v[4];
    p[PAGE] = 1;
    OK(mincore(p, 4 * PAGE, v));
    CHECK(v[1] & 1);
    CHECK(!(v[3] & 1));
    CHECK_ERRNO(mincore(p + 1, PAGE, v), EINVAL);
    OK(munmap(p + 2 * PAGE, PAGE));
    CHECK_ERRNO(mincore(p, 4 * PAGE, v), ENOMEM);
    CHECK_ERRNO(mincore(p, PAGE, (void *)8), EFAULT);
}

TEST(mlock_and_limits) {
    char *p = map(64 * PAGE, RW);
    OK(mlock(p, 16 * PAGE));
    OK(munlock(p, 16 * PAGE));
    CHECK_ERRNO(mlock((void *)0x10000, PAGE), ENOMEM);
    OK(munlockall());
    pid_t q;
    NEED_ROOT();
    CHILD(q) {
        struct rlimit r = {8 * PAGE, 8 * PAGE};
        OK(setrlimit(RLIMIT_MEMLOCK, &r));
        OK(setuid(1000));
        OK(mlock(p, 8 * PAGE));
        CHECK_ERRNO(mlock(p + 8 * PAGE, PAGE), ENOMEM);
        OK(munlock(p, PAGE));
        OK(mlock(p + 8 * PAGE, PAGE));
        CHECK_ERRNO(mmap(0, 4 * PAGE, RW, ANON | MAP_LOCKED, -1, 0), EAGAIN);
        r.rlim_cur = r.rlim_max = 0;
        OK(setrlimit(RLIMIT_MEMLOCK, &r));
        CHECK_ERRNO(mlock(p, PAGE), EPERM);
        CHECK_ERRNO(mlockall(MCL_CURRENT), EPERM);
    }
    JOIN(q);
    CHECK_ERRNO(mlockall(0), EINVAL);
    CHECK_ERRNO(mlockall(16), EINVAL);
}

TEST(mlock_makes_resident_and_mlock2) {
    char *p = map(4 * PAGE, RW);
    unsigned char v[4];
    OK(mlock(p, 2 * PAGE));
    OK(mincore(p, 4 * PAGE, v));
    CHECK((v[0] & 1) && (v[1] & 1) && !(v[2] & 1));
    OK(syscall(SYS_mlock2, p, 4 * PAGE, 1 /* MLOCK_ONFAULT */));
    CHECK_ERRNO(syscall(SYS_mlock2, p, PAGE, 2), EINVAL);
}

TEST(populate) {
    unsigned char v[4];
    char *p = OK(mmap(0, 4 * PAGE, RW, ANON | MAP_POPULATE, -1, 0));
    OK(mincore(p, 4 * PAGE, v));
    CHECK(v[0] & v[1] & v[2] & v[3] & 1);
}

TEST(stack_grows_to_its_limit) {
    pid_t p;
    CHILD(p) {
        // 4 MiB of the default 8 MiB, touched from far below.
        volatile char *far = (char *)__builtin_alloca(4 << 20);
        far[0] = 1;
        far[2 << 20] = 2;
    }
    JOIN(p);
}

TEST(growsdown_mapping) {
    char *hint = (char *)0x610000000000;
    char *p = OK(mmap(hint, 4 * PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0));
    p[-1] = 1;
    p[-(long)PAGE * 3] = 2;
    struct vma v;
    CHECK(find_vma(p, &v));
    CHECK(v.start <= (uintptr_t)p - 3 * PAGE);
    OK(munmap((void *)v.start, v.end - v.start));
}

TEST(process_vm_readv_writev) {
    static char buf[100] = "original";
    int fd[2], g[2];
    OK(pipe(fd));
    OK(pipe(g));
    pid_t p;
    CHILD(p) {
        strcpy(buf, "of the child");
        gate_open(fd[1]);
        gate_wait(g[0]);
        CHECK_STR(buf, "OF THE child");
    }
    gate_wait(fd[0]);
    char a[4], b[100];
    struct iovec l[2] = {{a, 3}, {b, 50}}, r[2] = {{buf, 6}, {buf + 6, 7}};
    CHECK_EQ(process_vm_readv(p, l, 2, r, 2, 0), 13);
    CHECK_MEM(a, "of ", 3);
    CHECK_STR(b, "the child");
    CHECK_STR(buf, "original");
    l[0] = (struct iovec){"OF THE", 6};
    r[0] = (struct iovec){buf, 6};
    CHECK_EQ(process_vm_writev(p, l, 1, r, 1, 0), 6);
    r[0].iov_base = (void *)16;
    CHECK_ERRNO(process_vm_readv(p, l, 1, r, 1, 0), EFAULT);
    CHECK_ERRNO(process_vm_readv(999999, l, 1, r, 1, 0), ESRCH);
    CHECK_ERRNO(process_vm_readv(p, l, 1, r, 1, 1), EINVAL);
    gate_open(g[1]);
    JOIN(p);
}

TEST(process_vm_readv_permission) {
    NEED_ROOT();
    int fd[2];
    OK(pipe(fd));
    static char buf[8] = "abc";
    pid_t p, q;
    CHILD(p) {
        gate_open(fd[1]);
        for (;;) pause();
    }
    gate_wait(fd[0]);
    CHILD(q) {
        OK(setresuid(1000, 1000, 1000));
        char b[8];
        struct iovec l = {b, 4}, r = {buf, 4};
        CHECK_ERRNO(process_vm_readv(p, &l, 1, &r, 1, 0), EPERM);
    }
    JOIN(q);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(self_modifying_code) {
    unsigned char *p = OK(mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, ANON, -1, 0));
    for (int i = 1; i < 100; i++) {
        p[0] = 0xb8; // mov $i, %eax; ret
        memcpy(p + 1, &i, 4);
        p[5] = 0xc3;
        CHECK_EQ(((int (*)(void))p)(), i);
    }
    OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    CHECK_EQ(((int (*)(void))p)(), 99);
}

TEST(syscall_from_fresh_code) {
    // What a system call instruction is patched to, if at all, must not be seen.
    unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}; // mov $SYS_getpid, %eax; syscall; ret
    unsigned char *p = OK(mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, ANON, -1, 0));
    memcpy(p, code, sizeof code);
    for (int i = 0; i < 300; i++) CHECK_EQ(((int (*)(void))p)(), getpid());
    CHECK_MEM(p, code, sizeof code);
    p[1] = (unsigned char)SYS_gettid;
    CHECK_EQ(((int (*)(void))p)(), gettid());
    OK(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    for (int i = 0; i < 300; i++) CHECK_EQ(((int (*)(void))p)(), gettid());
    pid_t q;
    CHILD(q) for (int i = 0; i < 300; i++) CHECK_EQ(((int (*)(void))p)(), gettid());
    JOIN(q);
}

TEST(many_mappings) {
    enum { N = 3000 };
    char *p = map(2 * N * PAGE, PROT_NONE);
    for (int i = 0; i < N; i++) OK(mprotect(p + 2 * i * PAGE, PAGE, RW));
    for (int i = 0; i < N; i++) p[2 * i * PAGE] = i;
    for (int i = 0; i < N; i++) CHECK_EQ(p[2 * i * PAGE], (char)i);
    OK(mprotect(p, 2 * N * PAGE, PROT_READ));
    for (int i = 0; i < N; i++) CHECK_EQ(p[2 * i * PAGE], (char)i);
    OK(munmap(p, 2 * N * PAGE));
}

TEST(max_map_count) {
    char text[32];
    if (read_file("/proc/sys/vm/max_map_count", text, sizeof text) < 0) SKIP("no max_map_count");
    long max = atol(text), n = 0;
    if (max > 70000) SKIP("max_map_count is %ld", max);
    char *p = map(2 * (max + 100) * PAGE, PROT_NONE);
    while (n < max + 50 && !mprotect(p + 2 * n * PAGE, PAGE, PROT_READ)) n++;
    CHECK_EQ(errno, ENOMEM);
    CHECK_V(n > max / 2 - 200 && n <= max / 2, n);
}

TEST(statm_counts) {
    char buf[200];
    long size0, res0, size1, res1;
    CHECK(read_file("/proc/self/statm", buf, sizeof buf) > 0);
    CHECK_EQ(sscanf(buf, "%ld %ld", &size0, &res0), 2);
    char *p = map(4096 * PAGE, RW);
    memset(p, 1, 1024 * PAGE);
    CHECK(read_file("/proc/self/statm", buf, sizeof buf) > 0);
    CHECK_EQ(sscanf(buf, "%ld %ld", &size1, &res1), 2);
    CHECK_EQ(size1 - size0, 4096);
    CHECK_V(res1 - res0 >= 900 && res1 - res0 <= 3000, res1 - res0); // counters lag a little
}

TEST(proc_self_mem) {
    static char buf[16] = "secret";
    int fd = OK(open("/proc/self/mem", O_RDWR));
    char out[16];
    CHECK_EQ(pread(fd, out, 7, (uintptr_t)buf), 7);
    CHECK_STR(out, "secret");
    CHECK_EQ(pwrite(fd, "public", 7, (uintptr_t)buf), 7);
    CHECK_STR(buf, "public");
    CHECK_ERRNO(pread(fd, out, 7, 16), EIO);
}

TEST(mmap_of_dev_zero) {
    int fd = OK(open("/dev/zero", O_RDWR));
    char *p = OK(mmap(0, 2 * PAGE, RW, MAP_PRIVATE, fd, 0)), *s = OK(mmap(0, 2 * PAGE, RW, MAP_SHARED, fd, 0));
    CHECK_EQ(p[PAGE], 0);
    p[PAGE] = 1;
    pid_t q;
    CHILD(q) s[PAGE] = 4;
    JOIN(q);
    CHECK_EQ(s[PAGE], 4);
}

TEST(map_32bit) {
    char *p = OK(mmap(0, PAGE, RW, ANON | MAP_32BIT, -1, 0));
    CHECK((uintptr_t)p < 1ul << 31);
}

TEST(map_32bit_takes_hints) {
    char *low = (char *)0x20000000ul, *high = (char *)(1ul << 31);
    CHECK_EQ(OK(mmap(low, PAGE, RW, ANON | MAP_32BIT, -1, 0)), low);
    // Taken, then: somewhere else below 2 GiB.
    char *p = OK(mmap(low, PAGE, RW, ANON | MAP_32BIT, -1, 0));
    CHECK(p != low && (uintptr_t)p < 1ul << 31);
    p = OK(mmap(high - PAGE, 2 * PAGE, RW, ANON | MAP_32BIT, -1, 0));
    CHECK((uintptr_t)p < 1ul << 31);
}

TEST(mmap_min_addr_and_null) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(mmap(0, PAGE, RW, ANON | MAP_FIXED, -1, 0), EPERM);
    }
    JOIN(p);
}

TEST(memory_of_threads_is_shared_under_change) {
    // One thread maps and unmaps while another runs: no lost or stale pages.
    static volatile int stop;
    static volatile long done;
    void *f(void *a) {
        char *p = a;
        while (!stop) {
            p[0]++;
            done++;
        }
        return 0;
    }
    char *p = map(PAGE, RW);
    pthread_t t = start(f, p);
    for (int i = 0; i < 300; i++) {
        char *q = map(16 * PAGE, RW);
        memset(q, i, 16 * PAGE);
        CHECK_EQ(q[15 * PAGE], (char)i);
        OK(munmap(q, 16 * PAGE));
    }
    while (!done) usleep(100);
    stop = 1;
    finish(t);
}

TEST(pkeys_or_enospc) {
    int k = syscall(SYS_pkey_alloc, 0, 0);
    CHECK(k >= 0 || errno == ENOSPC || errno == EINVAL || errno == ENOSYS);
    if (k >= 0) OK(syscall(SYS_pkey_free, k));
    CHECK_ERRNO(syscall(SYS_pkey_alloc, 1, 0), EINVAL);
}

TEST(mbind_and_numa_policy) {
    int mode = -1;
    if (syscall(SYS_get_mempolicy, &mode, 0, 0, 0, 0) && errno == ENOSYS) SKIP("no NUMA in this kernel");
    CHECK_EQ(mode, 0);
    OK(syscall(SYS_set_mempolicy, 0, 0, 0));
    CHECK_ERRNO(syscall(SYS_set_mempolicy, 99, 0, 0), EINVAL);
    char *p = map(PAGE, RW);
    OK(syscall(SYS_mbind, p, PAGE, 0, 0, 0, 0));
}
