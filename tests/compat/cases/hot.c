// Calls made so often from one place that a platform may rewrite that place: nothing of it shows.
#include "compat.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define MANY 300

// A call site of our own, known by address. What follows the call must not be disturbed either.
long hot_call(long number, long a, long b, long c);
extern const unsigned char hot_site[];
__asm__(".pushsection .text\n"
        ".balign 4096\n"
        ".globl hot_call, hot_site\n"
        "hot_call:\n"
        "mov %rdi, %rax\n"
        "mov %rsi, %rdi\n"
        "mov %rdx, %rsi\n"
        "mov %rcx, %rdx\n"
        "hot_site:\n"
        "syscall\n"
        "cmp $-4095, %rax\n"
        "ret\n"
        ".balign 4096\n"
        ".popsection\n");

static void heat(void) {
    for (int i = 0; i < MANY; i++) hot_call(SYS_getppid, 0, 0, 0);
}

TEST(results_stay_the_same) {
    pid_t parent = getppid();
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(hot_call(SYS_getppid, 0, 0, 0), parent);
        CHECK_EQ(hot_call(SYS_getpid, 0, 0, 0), getpid());
        CHECK_EQ(hot_call(SYS_gettid, 0, 0, 0), getpid());
        CHECK_EQ(hot_call(SYS_close, -1, 0, 0), -EBADF);
        CHECK_EQ(hot_call(9999, 1, 2, 3), -ENOSYS);
        CHECK_EQ(hot_call(-1, 1, 2, 3), -ENOSYS);
    }
}

TEST(identities_change_at_once) {
    NEED_ROOT();
    heat();
    for (int i = 0; i < MANY; i++) CHECK_EQ(hot_call(SYS_getuid, 0, 0, 0), 0);
    pid_t p;
    CHILD(p) {
        CHECK_EQ(hot_call(SYS_getpid, 0, 0, 0), hot_call(SYS_gettid, 0, 0, 0));
        CHECK(hot_call(SYS_getpid, 0, 0, 0) != hot_call(SYS_getppid, 0, 0, 0));
        CHECK_EQ(hot_call(SYS_setresgid, 7, 8, 9), 0);
        CHECK_EQ(hot_call(SYS_getgid, 0, 0, 0), 7);
        CHECK_EQ(hot_call(SYS_getegid, 0, 0, 0), 8);
        CHECK_EQ(hot_call(SYS_setresuid, 5, 6, 0), 0);
        CHECK_EQ(hot_call(SYS_getuid, 0, 0, 0), 5);
        CHECK_EQ(hot_call(SYS_geteuid, 0, 0, 0), 6);
    }
    JOIN(p);
    CHECK_EQ(hot_call(SYS_getuid, 0, 0, 0), 0);
}

TEST(code_reads_as_it_was) {
    unsigned char before[16], after[16];
    memcpy(before, hot_site, sizeof before);
    heat();
    int fd = OK(open("/proc/self/mem", O_RDONLY));
    CHECK_EQ(pread(fd, after, sizeof after, (off_t)hot_site), 16);
    CHECK(memcmp(before, after, sizeof after) == 0);
    int pipes[2];
    OK(pipe(pipes));
    CHECK_EQ(write(pipes[1], hot_site, sizeof after), 16);
    CHECK_EQ(read(pipes[0], after, sizeof after), 16);
    CHECK(memcmp(before, after, sizeof after) == 0);
}

TEST(code_made_writable_is_as_it_was) {
    unsigned char before[16];
    memcpy(before, hot_site, sizeof before);
    heat();
    void *page = (void *)((long)hot_site & ~4095L);
    OK(mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
    CHECK(memcmp(before, hot_site, sizeof before) == 0);
    heat();
    OK(mprotect(page, 4096, PROT_READ | PROT_EXEC));
    heat();
}

static int mappings(void) {
    int lines = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    for (int c; (c = fgetc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
    return lines;
}

TEST(no_mapping_appears) {
    mappings();
    int before = mappings();
    heat();
    CHECK_EQ(mappings(), before);
}

TEST(anything_may_be_mapped_around_it) {
    heat();
    // All that is free within 2 GiB, in steps, in both directions.
    long code = (long)hot_site & ~0xffffffL;
    for (long step = -124; step < 124; step++) {
        long at = code + step * (16L << 20);
        if (at < 0x10000 || at + (16L << 20) > 0x7fff00000000) continue;
        void *p = mmap((void *)at, 16L << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p != MAP_FAILED && p != (void *)at) munmap(p, 16L << 20);
    }
    for (int i = 0; i < MANY; i++) CHECK_EQ(hot_call(SYS_close, -1, 0, 0), -EBADF);
}

static volatile int ticks;
static void tick(int signal) { (void)signal; ticks++; }

TEST(signals_lose_nothing) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &action, 0));
    int pipes[2];
    OK(pipe(pipes));
    struct itimerval timer = {{0, 1000}, {0, 1000}};
    OK(setitimer(ITIMER_REAL, &timer, 0));
    char out = 0, in = 0;
    for (int i = 0; i < 20000; i++) {
        out = i;
        CHECK_EQ(hot_call(SYS_write, pipes[1], (long)&out, 1), 1);
        CHECK_EQ(hot_call(SYS_read, pipes[0], (long)&in, 1), 1);
        CHECK_EQ(in, out);
    }
    timer = (struct itimerval){{0, 0}, {0, 0}};
    OK(setitimer(ITIMER_REAL, &timer, 0));
    int left = 1;
    OK(ioctl(pipes[0], FIONREAD, &left));
    CHECK_EQ(left, 0);
}

TEST(filters_hold) {
    for (int i = 0; i < MANY; i++) CHECK_EQ(hot_call(SYS_getpid, 0, 0, 0), getpid());
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
    CHECK_EQ(hot_call(SYS_getpid, 0, 0, 0), -EDOM);
    CHECK_EQ(hot_call(SYS_gettid, 0, 0, 0), syscall(SYS_gettid));
}

static void *calling(void *arg) {
    long own = syscall(SYS_gettid);
    for (int i = 0; i < 5 * MANY; i++) {
        CHECK_EQ(hot_call(SYS_gettid, 0, 0, 0), own);
        CHECK_EQ(hot_call(SYS_close, -1, 0, 0), -EBADF);
    }
    return arg;
}

TEST(threads_are_told_apart) {
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) CHECK_EQ(pthread_create(&threads[i], 0, calling, 0), 0);
    for (int i = 0; i < 6; i++) CHECK_EQ(pthread_join(threads[i], 0), 0);
    calling(0);
}

TEST(memory_changes_by_hot_calls) {
    long page = 4096;
    for (int i = 0; i < MANY; i++) {
        char *p = (char *)syscall(SYS_mmap, 0, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != MAP_FAILED);
        p[0] = p[page] = p[2 * page] = 1;
        CHECK_EQ(hot_call(SYS_mprotect, (long)p, page, PROT_READ), 0);
        CHECK_EQ(hot_call(SYS_munmap, (long)p + page, page, 0), 0);
        CHECK_EQ(hot_call(SYS_mprotect, (long)p, 2 * page, PROT_READ), -ENOMEM);
        CHECK_EQ(hot_call(SYS_madvise, (long)p + 2 * page, page, MADV_DONTNEED), 0);
        CHECK_EQ(p[0] + p[2 * page], 1);
        CHECK_EQ(hot_call(SYS_munmap, (long)p, 3 * page, 0), 0);
    }
}

static volatile int ending;
static void *busy(void *arg) {
    while (!ending) CHECK_EQ(hot_call(SYS_close, -1, 0, 0), -EBADF);
    return arg;
}

// Another thread is in the code while it becomes hot, writable, cold and hot again.
TEST(code_changes_under_a_running_thread) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, 0, busy, 0), 0);
    unsigned char before[16];
    memcpy(before, hot_site, sizeof before);
    void *page = (void *)((long)hot_site & ~4095L);
    for (int i = 0; i < 20; i++) {
        heat();
        OK(mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
        CHECK(memcmp(before, hot_site, sizeof before) == 0);
        OK(mprotect(page, 4096, PROT_READ | PROT_EXEC));
        heat();
        OK(madvise(page, 4096, MADV_DONTNEED));
        heat();
    }
    ending = 1;
    CHECK_EQ(pthread_join(thread, 0), 0);
}

// Memory that ends with the first page: the second is not there.
static char *half_mapped(void) {
    char *area = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    OK(munmap(area + 4096, 4096));
    return area;
}

TEST(strings_of_hot_calls) {
    heat();
    char *area = half_mapped();
    struct stat st;
    char *path = area + 4096 - 5;
    memcpy(path, "/tmp", 5);
    CHECK_EQ(hot_call(SYS_stat, (long)path, (long)&st, 0), 0);
    CHECK(S_ISDIR(st.st_mode));
    CHECK_EQ(hot_call(SYS_access, (long)path, 0, 0), 0);
    CHECK_EQ(hot_call(SYS_faccessat, AT_FDCWD, (long)path, 0), 0);
    memcpy(path, "/tmpx", 5);
    CHECK_EQ(hot_call(SYS_stat, (long)path, (long)&st, 0), -EFAULT);
    CHECK_EQ(hot_call(SYS_stat, (long)area + 4096, (long)&st, 0), -EFAULT);
    CHECK_EQ(hot_call(SYS_stat, 0, (long)&st, 0), -EFAULT);
    CHECK_EQ(hot_call(SYS_stat, -4096, (long)&st, 0), -EFAULT);
    CHECK_EQ(hot_call(SYS_stat, 0x800000000000, (long)&st, 0), -EFAULT);
    // Longer than what can be carried, and too long.
    char *path2 = malloc(5000);
    CHECK(path2);
    for (int len = 500; len < 530; len++) {
        memset(path2, '/', 5000);
        memcpy(path2 + len - 3, "tmp", 4);
        CHECK_EQ(hot_call(SYS_stat, (long)path2, (long)&st, 0), 0);
        memcpy(path2 + len - 3, "tmq", 4);
        CHECK_EQ(hot_call(SYS_stat, (long)path2, (long)&st, 0), -ENOENT);
    }
    memset(path2, '/', 5000);
    path2[4999] = 0;
    CHECK_EQ(hot_call(SYS_stat, (long)path2, (long)&st, 0), -ENAMETOOLONG);
    free(path2);
}

TEST(buffers_of_hot_calls) {
    static const int sizes[] = {0, 1, 7, 8, 9, 15, 16, 17, 100, 4088, 4095, 4096, 4097, 5000, 9000};
    static char from[9100], to[9100];
    heat();
    int pipes[2];
    OK(pipe(pipes));
    for (size_t i = 0; i < sizeof from; i++) from[i] = i * 7 + i / 256;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int shift = 0; shift < 9; shift += 3) {
            long size = sizes[i];
            memset(to, 0x55, sizeof to);
            CHECK_EQ(hot_call(SYS_write, pipes[1], (long)from + shift, size), size);
            if (size == 0) continue;
            CHECK_EQ(hot_call(SYS_read, pipes[0], (long)to + 8 + shift, size), size);
            CHECK(memcmp(to + 8 + shift, from + shift, size) == 0);
            CHECK(to[7 + shift] == 0x55 && to[8 + shift + size] == 0x55);
        }
    // Memory that is not there, or not all of it, or not writable.
    char *area = half_mapped();
    memset(area, 'a', 4096);
    CHECK_EQ(hot_call(SYS_write, pipes[1], (long)area + 4096, 10), -EFAULT);
    CHECK_EQ(hot_call(SYS_write, pipes[1], 8, 10), -EFAULT);
    CHECK_EQ(hot_call(SYS_write, pipes[1], (long)area + 4086, 10), 10);
    CHECK_EQ(hot_call(SYS_read, pipes[0], (long)area + 4096, 10), -EFAULT);
    OK(mprotect(area, 4096, PROT_READ));
    CHECK_EQ(hot_call(SYS_write, pipes[1], (long)area, 10), 10);
    CHECK_EQ(hot_call(SYS_read, pipes[0], (long)area, 10), -EFAULT);
    struct stat st;
    CHECK_EQ(hot_call(SYS_stat, (long)"/", (long)area, 0), -EFAULT);
    CHECK_EQ(hot_call(SYS_stat, (long)"/", (long)&st, 0), 0);
    // A file, and memory that is shared.
    int zero = OK(open("/dev/zero", O_RDONLY)), memory = OK(syscall(SYS_memfd_create, "hot", 0));
    OK(ftruncate(memory, 4096));
    char *mapped = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    CHECK(mapped != MAP_FAILED);
    memset(mapped, 1, 16);
    CHECK_EQ(hot_call(SYS_read, zero, (long)mapped, 8), 8);
    CHECK(mapped[7] == 0 && mapped[8] == 1);
    CHECK_EQ(hot_call(SYS_read, zero, (long)mapped + 4096, 8), -EFAULT);
    char *copy = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory, 0);
    CHECK(copy != MAP_FAILED);
    CHECK_EQ(hot_call(SYS_read, zero, (long)copy + 8, 4), 4);
    CHECK(copy[8] == 0 && copy[12] == 1 && mapped[8] == 1);
    CHECK_EQ(hot_call(SYS_read, zero, (long)copy + 4096, 8), -EFAULT);
}

static void *unmap_and_map(void *area) {
    for (int i = 0; i < 2000; i++) {
        munmap(area, 4096);
        mmap(area, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    return 0;
}

TEST(memory_goes_under_hot_calls) {
    heat();
    char *area = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    int zero = OK(open("/dev/zero", O_RDWR));
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, 0, unmap_and_map, area), 0);
    for (int i = 0; i < 5000; i++) {
        long done = hot_call(SYS_read, zero, (long)area, 4096);
        CHECK((done > 0 && done <= 4096) || done == -EFAULT);
        done = hot_call(SYS_write, zero, (long)area, 4096);
        CHECK((done > 0 && done <= 4096) || done == -EFAULT);
    }
    pthread_join(thread, 0);
}

// Initialized data, whose page is of the program's file, and what follows it, whose page is not.
static char data[8192] __attribute__((aligned(4096))) = {1}, zeroes[8192] __attribute__((aligned(4096)));

TEST(results_in_data) {
    heat();
    int pipes[2];
    OK(pipe(pipes));
    char *places[] = {data, data + 4095, data + 8191, zeroes - 1, zeroes, zeroes + 8190};
    for (int i = 0; i < MANY; i++) {
        char *to = places[i % 6], what[2] = {(char)i, (char)~i};
        OK(write(pipes[1], what, 2));
        CHECK_EQ(hot_call(SYS_read, pipes[0], (long)to, 2), 2);
        CHECK(memcmp(to, what, 2) == 0);
    }
}

TEST(results_in_file_mappings) {
    heat();
    int pipes[2], fd = OK(open("file", O_RDWR | O_CREAT, 0600)), waiting;
    OK(pipe(pipes));
    OK(ftruncate(fd, 6000));
    char *area = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(area != MAP_FAILED);
    for (int i = 0; i < MANY; i++) {
        // Up to the end of its last page the memory is there; what was not delivered stays in the pipe.
        int pages = i % 3;
        OK(ftruncate(fd, pages * 4096 - (pages ? 1000 : 0)));
        OK(write(pipes[1], "abc", 3));
        for (int page = 0; page < 4; page++) {
            char *to = area + page * 4096 + i;
            if (page < pages) {
                CHECK_EQ(hot_call(SYS_read, pipes[0], (long)to, 3), 3);
                CHECK(memcmp(to, "abc", 3) == 0);
                OK(write(pipes[1], "abc", 3));
            } else {
                CHECK_EQ(hot_call(SYS_read, pipes[0], (long)to, 3), -EFAULT);
            }
        }
        OK(ioctl(pipes[0], FIONREAD, &waiting));
        CHECK_EQ(waiting, 3);
        char rest[3];
        CHECK_EQ(hot_call(SYS_read, pipes[0], (long)rest, 3), 3);
    }
}

static void *cut_and_grow(void *file) {
    for (int i = 0; i < 3000; i++) {
        OK(ftruncate((int)(long)file, 0));
        OK(ftruncate((int)(long)file, 4096));
    }
    return 0;
}

TEST(files_get_shorter_under_hot_calls) {
    heat();
    int fd = OK(open("file", O_RDWR | O_CREAT, 0600)), zero = OK(open("/dev/zero", O_RDWR));
    char *area = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(area != MAP_FAILED);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, 0, cut_and_grow, (void *)(long)fd), 0);
    for (int i = 0; i < 5000; i++) {
        long done = hot_call(SYS_read, zero, (long)area, 4096);
        CHECK((done > 0 && done <= 4096) || done == -EFAULT);
    }
    pthread_join(thread, 0);
}

TEST(signals_lose_no_memory) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &action, 0));
    heat();
    int pipes[2];
    OK(pipe(pipes));
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    OK(setitimer(ITIMER_REAL, &often, 0));
    for (long i = 0; i < 20000; i++) {
        long from[40] = {i, i + 1}, to[40] = {0};
        from[39] = ~i;
        CHECK_EQ(hot_call(SYS_write, pipes[1], (long)from, sizeof from), sizeof from);
        CHECK_EQ(hot_call(SYS_read, pipes[0], (long)to, sizeof to), sizeof to);
        CHECK(memcmp(from, to, sizeof from) == 0);
    }
    OK(setitimer(ITIMER_REAL, &never, 0));
}

TEST(the_direction_flag_stays) {
    heat();
    struct stat st;
    for (int i = 0; i < MANY; i++) {
        long result, flags, number = SYS_stat, path = (long)"/tmp", out = (long)&st, none = 0;
        __asm__ volatile("std\n"
                         "call hot_call\n"
                         "pushf\n"
                         "pop %1\n"
                         "cld\n"
                         : "=a"(result), "=&r"(flags), "+D"(number), "+S"(path), "+d"(out), "+c"(none)
                         :
                         : "r11", "memory", "cc");
        CHECK_EQ(result, 0);
        CHECK(flags & 0x400);
        CHECK(S_ISDIR(st.st_mode));
    }
}
