// System calls with random and half plausible arguments, from many threads of many processes at once.
//
//   syscalls SEED EPOCHS [CALLS [PROCESSES [THREADS]]]
//
// Process 1 supervises. In each epoch it starts PROCESSES workers of THREADS threads that make CALLS calls each, wakes
// threads that sleep in a call, kills workers that stay there, and at the end of the epoch kills and reaps every process
// there is. It prints a line an epoch; "stuck" if something cannot be reaped; "done" at the end. What a worker does
// follows from the seed, the epoch and its number alone, but for what the other workers do at the same time.
//
// Not for the host's Linux: this tries to break things, and needs to be process 1. It refuses to run elsewhere.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <netinet/in.h>
#include <linux/netlink.h>
#include <ucontext.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;

enum { PAGE = 4096, MAX_WORKERS = 64, MAX_THREADS = 16, TOP_NUMBER = 475 };

// What the supervisor sees of a thread.
struct slot {
    volatile u64 calls;
    volatile int tid;
    volatile int over;
    volatile u64 number;
    volatile u64 args[6];
};
static struct slot (*slots)[MAX_THREADS];

struct rng {
    u64 state;
};

static u64 next(struct rng *r) {
    u64 z = (r->state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
static u64 below(struct rng *r, u64 n) { return next(r) % n; }
static int chance(struct rng *r, unsigned percent) { return below(r, 100) < percent; }
#define PICK(r, list) ((list)[below(r, sizeof(list) / sizeof((list)[0]))])

// The C library is left alone: its thread pointer and its errno may be gone.
static long raw(long n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
    long ret;
    register u64 r10 asm("r10") = d, r8 asm("r8") = e, r9 asm("r9") = f;
    asm volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return ret;
}
#define CALL(n, ...) CALL_(SYS_##n, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(n, a, b, c, d, e, f, ...) raw(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))

// ---- What threads own -----------------------------------------------------------------------------------------------

// The area that pointers point into; one for each process.
//   0..16 read and write, 16 read only, 17 nothing, 18 shared, 19 of a file that ends before it, 20 code, 21.. unmapped
enum { AREA_PAGES = 21, CHILD_STACK = 32 << 10, CHILD_STACKS = 4 };
static char *const area = (char *)0x200000000000;

struct worker {
    struct rng rng;
    struct slot *slot;
    int depth;
    char *stacks;
    unsigned next_stack;
    int threads;
};

static int file_fd = -1;
static int segv_count;

static void map_area(void) {
    const int fixed = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    CALL(mmap, area, 16 * PAGE, PROT_READ | PROT_WRITE, fixed, -1, 0);
    CALL(mmap, area + 16 * PAGE, PAGE, PROT_READ, fixed, -1, 0);
    CALL(mmap, area + 17 * PAGE, PAGE, PROT_NONE, fixed, -1, 0);
    CALL(mmap, area + 18 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (CALL(mmap, area + 19 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, file_fd, 16 * PAGE) < 0)
        CALL(mmap, area + 19 * PAGE, PAGE, PROT_READ, fixed, -1, 0);
    CALL(mmap, area + 20 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, fixed, -1, 0);
}

static void nothing(int signal) {}

// What we unmapped ourselves comes back; any other fault ends the worker sooner or later.
static void fault(int signal, siginfo_t *info, void *context) {
    if (++segv_count > 200) CALL(exit_group, 77);
    map_area();
}

// Sent by a worker to itself: goes back with a context that was tampered with.
static void tamper(int signal, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    struct rng r = {(u64)info->si_value.sival_ptr};
    unsigned char *fp = (unsigned char *)c->uc_mcontext.fpregs;
    switch (below(&r, 14)) {
    case 0: c->uc_mcontext.fpregs = (void *)(next(&r) & 0x7ffffffffff0); break;
    case 1: c->uc_mcontext.fpregs = 0; break;
    case 2: c->uc_mcontext.fpregs = (void *)(area + 16 * PAGE - below(&r, 1024)); break;
    case 3: *(u32 *)(fp + 464) = next(&r); break; // magic
    case 4: *(u32 *)(fp + 468) = next(&r) & (chance(&r, 50) ? 0xffff : ~0u); break; // extended_size
    case 5: *(u64 *)(fp + 472) = next(&r); break; // xfeatures
    case 6: *(u32 *)(fp + 480) = next(&r); break; // xstate_size
    case 7: *(u64 *)(fp + 512) = next(&r); break; // xstate_bv
    case 8: *(u64 *)(fp + 520) = next(&r); break; // xcomp_bv
    case 9: *(u32 *)(fp + 24) = next(&r); break; // mxcsr
    case 10: c->uc_mcontext.gregs[REG_CSGSFS] = next(&r); break;
    case 11: c->uc_mcontext.gregs[REG_EFL] ^= next(&r) & 0x7ff9fff; break;
    case 12: memset(&c->uc_sigmask, next(&r), 8); break;
    default: c->uc_flags = next(&r); c->uc_stack.ss_sp = (void *)next(&r); c->uc_stack.ss_flags = next(&r); c->uc_stack.ss_size = next(&r);
    }
}

static void handlers(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    action.sa_sigaction = fault;
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    action.sa_sigaction = tamper;
    sigaction(SIGUSR2, &action, 0);
    action.sa_flags = 0;
    action.sa_handler = nothing;
    static const int caught[] = {SIGALRM, SIGUSR1, SIGPIPE, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ, SIGHUP, SIGTRAP, SIGSYS, SIGURG, 34, 35, 63, 64};
    for (unsigned i = 0; i < sizeof caught / sizeof caught[0]; i++) sigaction(caught[i], &action, 0);
    signal(SIGTSTP, SIG_IGN);
    signal(SIGTTIN, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
}

// ---- Values ---------------------------------------------------------------------------------------------------------

static const char *const paths[] = {
    ".", "..", "/", "", "a", "b", "a/b", "d", "d/e", "d/../a", "link", "loop", "./././a", "d/", "a/", "fifo", "sock",
    "/tmp/fuzz/a", "/proc/self/maps", "/proc/self/mem", "/proc/self/fd/3", "/proc/self/fd", "/proc/self/exe",
    "/proc/self/stat", "/proc/self/status", "/proc/self/task", "/proc/self/oom_score_adj", "/proc/self/comm",
    "/proc/self/environ", "/proc/self/mountinfo", "/proc/meminfo", "/proc/sys/kernel/hostname", "/proc", "/sys",
    "/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/uid_map", "/proc/self/attr/current", "/proc/self/cwd",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm", "/dev/pts/0",
    "/dev/shm/a", "/bin/true", "/bin", "/etc/passwd", "/lib", "/tmp", "/tmp/fuzz", "/nothing", "/bin/sh",
    "\xff\xfe", "\001", "tmpfs", "proc", "sysfs", "overlay", "user.a", "security.capability", "trusted.x",
    "/sys/fs/cgroup", "/proc/self/pagemap", "/proc/self/smaps", "/proc/self/limits", "/proc/thread-self/comm", "#!/bin/sh\n",
};

static u64 number_of(struct rng *r) {
    static const u64 special[] = {0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 65, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 4097, 65535,
        65536, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, -1, -2, -3,
        -4095, -4096, 0x7fffffffffffe000, 0x7ffffffff000, 0x800000000000, 1000000000, 999999999, 0xfffffffffffff000,
        AT_FDCWD, 0xdeadbeef, 0x3fffffff, 0x40000000, 0x200000, 0x1ff000, 1u << 20, (16u << 20) + 1};
    switch (below(r, 6)) {
    case 0: return below(r, 16);
    case 1: return below(r, 5000);
    case 2: return 1ull << below(r, 64);
    case 3: return (1ull << below(r, 64)) - 1 + below(r, 3);
    case 4: return next(r);
    default: return PICK(r, special);
    }
}

static char *pointer(struct rng *r) {
    u64 kind = below(r, 100);
    if (kind < 60) return area + below(r, 15) * PAGE + (below(r, 512) << 3);
    if (kind < 72) return area + 16 * PAGE - below(r, 160);           // runs from writable to read only
    if (kind < 78) return area + 17 * PAGE - below(r, 160);           // runs from read only to nothing
    if (kind < 82) return area + 18 * PAGE + (below(r, 500) << 3);
    if (kind < 85) return area + 19 * PAGE - below(r, 40);            // SIGBUS
    if (kind < 87) return area + 21 * PAGE - below(r, 40);
    if (kind < 93) return 0;
    if (kind < 95) return (char *)__builtin_frame_address(0) - below(r, 4096);
    if (kind < 96) return (char *)pointer;
    return (char *)number_of(r);
}

static u64 fd_of(struct rng *r) {
    u64 kind = below(r, 100);
    if (kind < 85) return 3 + below(r, 45);
    if (kind < 90) return below(r, 300);
    if (kind < 95) return (u32)AT_FDCWD;
    return number_of(r);
}

static u64 pid_of(struct rng *r) {
    switch (below(r, 12)) {
    case 0: return 0;
    case 1: return chance(r, 5) ? -1 : 1;
    case 2: return CALL(getppid);
    case 3: return -CALL(getpgid);
    case 4: return number_of(r);
    case 5:
    case 6:
    case 7: return CALL(getpid) + below(r, 5) - 1;
    default: return CALL(gettid);
    }
}

static u64 signal_of(struct rng *r) {
    if (chance(r, 2)) return SIGKILL;
    if (chance(r, 1)) return SIGSTOP;
    static const int common[] = {0, SIGUSR1, SIGUSR2, SIGCHLD, SIGCONT, SIGALRM, SIGURG, SIGWINCH, SIGTSTP, 34, 35, 63, 64};
    if (chance(r, 95)) return PICK(r, common);
    u64 s = number_of(r);
    return s == SIGKILL || s == SIGSTOP ? SIGUSR1 : s;
}

// Some bits of a 32-bit word, mostly few.
static u64 flags_of(struct rng *r) {
    switch (below(r, 6)) {
    case 0:
    case 1: return 0;
    case 2: return 1ull << below(r, 32);
    case 3: return 1ull << below(r, 24) | 1ull << below(r, 24);
    case 4: return below(r, 16);
    default: return number_of(r);
    }
}

static u64 some_of(struct rng *r, const u64 *list, unsigned n) {
    u64 v = 0;
    for (unsigned i = 0, k = below(r, 4); i < k; i++) v |= list[below(r, n)];
    return chance(r, 4) ? v | flags_of(r) : v;
}

struct list {
    char code;
    char bits; // several of them at once
    const u64 values[96];
};

static const struct list lists[] = {
    {'O', 1, {O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_APPEND, O_NONBLOCK, O_DIRECTORY, O_NOFOLLOW,
              O_CLOEXEC, O_PATH, O_TMPFILE, O_ASYNC, O_DIRECT, O_SYNC, O_NONBLOCK | O_RDWR, O_CREAT | O_RDWR, O_NONBLOCK}},
    {'F', 0, {F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW, F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG,
              F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE, F_GETLEASE, F_NOTIFY, F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS,
              F_GET_SEALS, F_DUPFD_CLOEXEC, F_SETOWN_EX, F_GETOWN_EX, 1036, 1037, 1038, 1039, 1040}},
    {'I', 0, {0x5401, 0x5402, 0x5403, 0x5404, 0x5405, 0x5409, 0x540a, 0x540b, 0x540c, 0x540d, 0x540e, 0x540f, 0x5410, 0x5411, 0x5412,
              0x5413, 0x5414, 0x5415, 0x541b, 0x5420, 0x5421, 0x5422, 0x5423, 0x5424, 0x5425, 0x5429, 0x5450, 0x5451, 0x5452, 0x5460,
              0x80045430, 0x40045431, 0x5432, 0x5441, 0x80045438, 0x80045439, 0xb701, 0xb702, 0xb703, 0xb704, 0x8901, 0x8902, 0x8904,
              0x8905, 0x8906, 0x8907, 0x8910, 0x8912, 0x8913, 0x8915, 0x8921, 0x8927, 0x8933, 0x8942, 0x801c581f, 0x80086601, 0x40086602,
              0x40049409, 0x4020940d, 0xc0189436, 0xc020660b, 0x80045200, 0x5200, 0x5201, 0x40085203, 0x541e}},
    {'P', 1, {PROT_READ, PROT_WRITE, PROT_EXEC, PROT_READ | PROT_WRITE, PROT_NONE, 0x01000000, 0x02000000}},
    {'M', 1, {MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_ANONYMOUS | MAP_PRIVATE, MAP_ANONYMOUS | MAP_SHARED, MAP_GROWSDOWN,
              MAP_NORESERVE, MAP_LOCKED, MAP_STACK, MAP_HUGETLB, MAP_SHARED_VALIDATE, 0x100000 /* FIXED_NOREPLACE */, MAP_32BIT}},
    {'A', 0, {0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 100, 101, 102}},
    {'R', 0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 33, 34, 35, 36, 37, 38,
              39, 40, 41, 42, 47, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 65, 66, 67, 68, 0x53564d41, 0x59616d61}},
    {'Q', 0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 128, 129, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 256 | 9,
              256 | 137, 256 | 11}},
    {'D', 0, {1, 1, 1, 2, 2, 2, 10, 10, 16, 16, 17, 0, 40, 44}},
    {'T', 0, {1, 2, 3, 5, 1 | 04000, 2 | 04000, 5 | 04000, 1 | 02000000, 10, 4}},
    {'Z', 1, {MSG_PEEK, MSG_DONTWAIT, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC, MSG_CTRUNC, MSG_OOB, MSG_WAITALL, MSG_MORE, MSG_EOR,
              MSG_CMSG_CLOEXEC, MSG_ERRQUEUE, MSG_DONTROUTE}},
    {'E', 0, {1, 1, 1, 2, 3}},
    {'L', 0, {1, 1, 1, 0, 6, 17, 41, 270, 58, 255}},
    {'N', 0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 38,
              39, 40, 41, 42, 43, 44, 45, 46, 47, 49, 50, 52, 56, 59, 62, 64, 65, 66, 67, 69, 76, 77}},
    {'W', 1, {1, 2, 4, 8, 1, 1, 0x1000000, 0x20000000, 0x40000000, 0x80000000}},
    {'X', 1, {0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000}},
    {'C', 0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xfffffffe, 0xfffffffa}},
    {'B', 0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}, // small commands
    {'Y', 1, {MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE, MS_MOVE, MS_BIND}},
    {'U', 1, {0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80, 0x200, 0x400, 0x40000}},
    {'J', 0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 0x3000, IPC_CREAT}},
    {'k', 1, {0, 0, 01000, 02000, 04000, 0600, 0666, 01666, 010000, 020000, 040000}},
    {'V', 1, {0, 1, 2, 4, 8, 0x10, 0x800, 04000, 02000000}},
};

#include "signatures.h"

static u64 path_of(struct worker *w) {
    struct rng *r = &w->rng;
    if (chance(r, 5)) return (u64)pointer(r);
    if (chance(r, 2)) {
        // A long one.
        char *at = area + 4 * PAGE;
        memset(at, "a/."[below(r, 3)], 2 * PAGE);
        at[254 + below(r, 4000)] = 0;
        return (u64)at;
    }
    char *at = area + below(r, 15) * PAGE + below(r, PAGE);
    if (chance(r, 3)) at = area + 16 * PAGE - below(r, 16);
    const char *path = PICK(r, paths);
    for (size_t i = 0, n = strlen(path) + 1; i < n && at + i < area + 16 * PAGE; i++) at[i] = path[i];
    return (u64)at;
}

// Fills a piece of the area with something that a kernel may take for a structure.
static char *fill(struct worker *w, char *at) {
    struct rng *r = &w->rng;
    if (at < area || at > area + 15 * PAGE) return at;
    u64 *q = (u64 *)((u64)at & ~7);
    u32 *d = (u32 *)q;
    switch (below(r, 26)) {
    case 0: memset(q, 0, 512); break;
    case 1: memset(q, 0xff, 256); break;
    case 2: for (int i = 0; i < 32; i++) q[i] = next(r); break;
    case 3: for (int i = 0; i < 32; i++) q[i] = number_of(r); break;
    case 4: for (int i = 0; i < 64; i++) d[i] = below(r, 64); break;
    case 5: case 6: // iovecs
        for (int i = 0; i < 16; i++) {
            q[2 * i] = (u64)pointer(r);
            q[2 * i + 1] = chance(r, 90) ? below(r, 9000) : number_of(r);
        }
        break;
    case 7: case 8: // times, mostly short
        for (int i = 0; i < 4; i++) {
            q[2 * i] = chance(r, 90) ? 0 : number_of(r);
            q[2 * i + 1] = chance(r, 90) ? below(r, 3000000) : number_of(r);
        }
        break;
    case 9: { // sockaddr_un
        struct sockaddr_un *un = (void *)q;
        memset(un, 0, sizeof *un);
        un->sun_family = AF_UNIX;
        strcpy(un->sun_path + chance(r, 40), chance(r, 50) ? "sock" : "x");
        break;
    }
    case 10: { // sockaddr_in, sockaddr_in6, sockaddr_nl
        struct sockaddr_in *in = (void *)q;
        memset(in, 0, 32);
        switch (below(r, 3)) {
        case 0:
            in->sin_family = AF_INET;
            in->sin_port = htons(7000 + below(r, 4));
            in->sin_addr.s_addr = chance(r, 80) ? htonl(0x7f000001) : next(r);
            break;
        case 1:
            in->sin_family = AF_INET6;
            in->sin_port = htons(7000 + below(r, 4));
            ((char *)in)[23] = 1;
            break;
        default: in->sin_family = AF_NETLINK;
        }
        break;
    }
    case 11: case 12: { // msghdr with control data
        struct msghdr *m = (void *)q;
        memset(m, 0, 512);
        struct iovec *iov = (void *)(q + 16);
        char *control = (char *)(q + 24);
        for (int i = 0; i < 4; i++) iov[i] = (struct iovec){pointer(r), below(r, 5000)};
        m->msg_iov = chance(r, 95) ? iov : (void *)pointer(r);
        m->msg_iovlen = chance(r, 90) ? below(r, 5) : number_of(r);
        if (chance(r, 30)) { m->msg_name = pointer(r); m->msg_namelen = below(r, 130); }
        if (chance(r, 70)) {
            m->msg_control = control;
            m->msg_controllen = chance(r, 90) ? 16 + below(r, 64) : number_of(r);
            struct cmsghdr *c = (void *)control;
            for (int i = 0; i < 2; i++, c = (void *)((char *)c + 32)) {
                c->cmsg_len = chance(r, 90) ? 16 + 4 * below(r, 5) : number_of(r);
                c->cmsg_level = chance(r, 95) ? SOL_SOCKET : below(r, 20);
                c->cmsg_type = chance(r, 70) ? SCM_RIGHTS : chance(r, 50) ? SCM_CREDENTIALS : below(r, 40);
                for (int k = 0; k < 4; k++) ((u32 *)(c + 1))[k] = c->cmsg_type == SCM_RIGHTS ? fd_of(r) : below(r, 3);
            }
        }
        break;
    }
    case 13: case 14: // pollfds, epoll_events
        for (int i = 0; i < 32; i++) { d[2 * i] = fd_of(r); d[2 * i + 1] = next(r) & 0x3fff; }
        if (chance(r, 50)) { d[0] = chance(r, 60) ? below(r, 64) : next(r); q[1] = next(r); }
        break;
    case 15: // sigset, sigaction
        q[0] = chance(r, 40) ? (u64)nothing : chance(r, 70) ? below(r, 2) : (u64)pointer(r);
        q[1] = 0x04000000 | flags_of(r);
        q[2] = (u64)CALL(getpid) ? q[2] : 0;
        q[3] = flags_of(r);
        break;
    case 16: // strings
        for (int i = 0; i < 200; i++) at[i % 200] = 'a' + below(r, 26);
        at[below(r, 200)] = 0;
        break;
    case 17: // argv
        for (unsigned i = 0, n = below(r, 6); i <= n; i++) q[i] = i == n ? 0 : chance(r, 90) ? (u64)(q + 20) : (u64)pointer(r);
        memcpy(q + 20, "argument", 9);
        break;
    case 18: { // flock
        struct flock *l = (void *)q;
        *l = (struct flock){.l_type = below(r, 4), .l_whence = below(r, 4), .l_start = number_of(r), .l_len = number_of(r)};
        if (chance(r, 60)) { l->l_start = below(r, 100); l->l_len = below(r, 100); }
        break;
    }
    case 19: // netlink message
        d[0] = chance(r, 90) ? 16 + below(r, 64) : number_of(r);
        d[1] = (16 + below(r, 60)) | (1 | (chance(r, 50) ? 0x300 : flags_of(r))) << 16;
        d[2] = next(r);
        d[3] = 0;
        for (int i = 4; i < 40; i++) d[i] = below(r, 40);
        break;
    case 20: // rlimits, itimers
        for (int i = 0; i < 4; i++) q[i] = chance(r, 50) ? 4096 + below(r, 1 << 20) : number_of(r);
        break;
    case 21: // open_how, clone_args
        for (int i = 0; i < 11; i++) q[i] = chance(r, 70) ? 0 : flags_of(r);
        break;
    case 22: // sembufs, msgbuf
        for (int i = 0; i < 24; i += 3) {
            ((short *)q)[i] = below(r, 6);
            ((short *)q)[i + 1] = (short)(below(r, 5) - 2);
            ((short *)q)[i + 2] = chance(r, 50) ? 04000 : flags_of(r);
        }
        break;
    case 23: // capabilities, sigevent
        d[0] = chance(r, 50) ? 0x20080522 : next(r);
        d[1] = 0;
        for (int i = 2; i < 16; i++) d[i] = next(r);
        if (chance(r, 50)) { q[0] = next(r); d[2] = signal_of(r); d[3] = below(r, 5); d[4] = CALL(gettid); }
        break;
    case 24: // robust list, offsets
        q[0] = (u64)q;
        q[1] = (u64)(below(r, 64) - 32);
        q[2] = 0;
        break;
    default: break;
    }
    return at;
}

static u64 argument(struct worker *w, char code) {
    struct rng *r = &w->rng;
    if (code != '0' && chance(r, 3)) return number_of(r);
    switch (code) {
    case 'f': return fd_of(r);
    case 'p': return path_of(w);
    case 'b': return (u64)fill(w, pointer(r));
    case 'n': return chance(r, 60) ? below(r, 300) : chance(r, 80) ? below(r, 20000) : number_of(r);
    case 'i': return chance(r, 80) ? below(r, 40) : number_of(r);
    case 'x': return flags_of(r);
    case 's': return signal_of(r);
    case 'g': return pid_of(r);
    case 'o': return chance(r, 70) ? below(r, 200000) : number_of(r);
    case 'u': return chance(r, 60) ? below(r, 3) : number_of(r);
    case 'm': return chance(r, 70) ? next(r) & 07777 : chance(r, 70) ? (1 + below(r, 15)) << 12 | 0644 : number_of(r);
    case 'w': return chance(r, 75) ? (u64)area + below(r, AREA_PAGES + 8) * PAGE : chance(r, 50) ? (u64)pointer(r) : number_of(r);
    case 'z': return chance(r, 80) ? (1 + below(r, 6)) * PAGE : number_of(r);
    case 'h': return chance(r, 95) ? 8 : number_of(r);
    case '0': return 0;
    case '*': return number_of(r);
    default:
        for (unsigned i = 0; i < sizeof lists / sizeof lists[0]; i++) {
            if (lists[i].code != code) continue;
            unsigned n = 96;
            while (n > 1 && lists[i].values[n - 1] == 0) n--;
            return lists[i].bits ? some_of(r, lists[i].values, n) : lists[i].values[below(r, n)];
        }
        return number_of(r);
    }
}

// ---- One call -------------------------------------------------------------------------------------------------------

static void run(struct worker *w, u64 calls);

static void child(struct worker *parent, u64 seed, int forked) {
    struct worker w = {.rng = {seed}, .slot = 0, .depth = parent->depth + 1, .stacks = parent->stacks, .threads = 1};
    // A child of vfork may be given a stack that its siblings use as well: let it be short.
    run(&w, forked ? 30 : 8);
    if (forked && chance(&w.rng, 30)) CALL(exit_group, below(&w.rng, 256));
    CALL(exit, 0);
    for (;;) CALL(exit_group, 0);
}

// clone with any flags. A child that shares memory gets a stack of its own.
static void clone_somehow(struct worker *w) {
    struct rng *r = &w->rng;
    static const u64 bits[] = {CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND, CLONE_PIDFD, CLONE_VFORK, CLONE_PARENT, CLONE_THREAD, CLONE_NEWNS,
        CLONE_SYSVSEM, CLONE_SETTLS, CLONE_PARENT_SETTID, CLONE_CHILD_CLEARTID, CLONE_UNTRACED, CLONE_CHILD_SETTID, CLONE_NEWCGROUP,
        CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_IO, 0x80, 0x100000000, 0x200000000};
    static const u64 sets[] = {0, 0, 0, CLONE_VM | CLONE_VFORK, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
        CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, CLONE_VM, CLONE_FILES, CLONE_FILES | CLONE_FS};
    u64 flags = PICK(r, sets);
    if (chance(r, 40)) flags |= PICK(r, bits);
    if (chance(r, 10)) flags |= PICK(r, bits) | PICK(r, bits);
    u64 seed = next(r), stack = 0;
    if (flags & CLONE_VM) {
        stack = (u64)w->stacks + (++w->next_stack % CHILD_STACKS + 1) * CHILD_STACK - 256;
        // What the child needs, where it finds it.
        u64 *top = (u64 *)stack;
        top[0] = (u64)w;
        top[1] = seed;
    }
    if (chance(r, 70)) flags |= chance(r, 90) ? SIGCHLD : below(r, 256);
    u64 a = (u64)pointer(r), b = (u64)pointer(r), tls = (u64)pointer(r);
    long ret;
    if (chance(r, 30)) {
        u64 args[11] = {flags & ~0xffull, a, b, a, flags & CLONE_THREAD ? 0 : flags & 0xff, stack ? stack - CHILD_STACK / 2 : 0, stack ? CHILD_STACK / 2 : 0,
            tls, 0, 0, 0};
        if (chance(r, 20)) args[below(r, 11)] = number_of(r);
        if ((args[0] & CLONE_VM) && args[5] + args[6] != stack) return;
        if ((args[0] & CLONE_VM) && !stack) return;
        u64 size = chance(r, 80) ? 88 : chance(r, 50) ? 64 : number_of(r);
        register u64 r12 asm("r12") = stack;
        register u64 keep asm("r13") = 0;
        asm volatile("syscall\n test %%rax, %%rax\n jnz 1f\n test %%r12, %%r12\n jz 1f\n"
                     " mov 0(%%r12), %%rdi\n mov 8(%%r12), %%rsi\n xor %%edx, %%edx\n xor %%ebp, %%ebp\n and $-16, %%rsp\n call *%%r14\n ud2\n1:"
                     : "=a"(ret), "+r"(r12), "+r"(keep)
                     : "a"(SYS_clone3), "D"(args), "S"(size), "r"(({ register void *f asm("r14") = (void *)child; f; }))
                     : "rcx", "r11", "rdx", "memory");
    } else {
        if ((flags & CLONE_VM) && !stack) return;
        register u64 r12 asm("r12") = stack;
        register u64 r10 asm("r10") = b, r8 asm("r8") = tls;
        register void *r14 asm("r14") = (void *)child;
        asm volatile("syscall\n test %%rax, %%rax\n jnz 1f\n test %%r12, %%r12\n jz 1f\n"
                     " mov 0(%%r12), %%rdi\n mov 8(%%r12), %%rsi\n xor %%edx, %%edx\n xor %%ebp, %%ebp\n and $-16, %%rsp\n call *%%r14\n ud2\n1:"
                     : "=a"(ret), "+r"(r12)
                     : "a"(SYS_clone), "D"(flags), "S"(stack), "d"(a), "r"(r10), "r"(r8), "r"(r14)
                     : "rcx", "r11", "memory");
    }
    if (ret == 0) child(w, seed, 1);
}

// A forked process executes random bytes, with some that matter to a kernel among them.
static void random_code(struct worker *w) {
    struct rng *r = &w->rng;
    u64 seed = next(r);
    long pid = CALL(fork);
    if (pid != 0) return;
    struct rng own = {seed};
    map_area();
    static const char *const pieces[] = {"\x0f\x05", "\xcd\x80", "\x0f\x34", "\x0f\x0b", "\xf4", "\xcc", "\xf1", "\xcd\x03", "\x0f\xa2", "\x0f\x31", "\x9d",
        "\x0f\x01\xd0", "\xf3\x48\x0f\xae\xd0", "\xf3\x48\x0f\xae\xd8", "\x0f\xae\x08", "\x48\x0f\xc7\x09", "\x8e\xd8", "\x8e\xe0", "\xcb", "\x48\xcf",
        "\xfa", "\x0f\x01\xf9", "\x0f\x01\xca", "\xee", "\x0f\x30", "\x48\x31\xe4", "\x0f\x77", "\xdb\xe3", "\xd9\xf0", "\x6a\xff\x9d\x90", "\x50\x9d\x90",
        "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", "\x48\xc7\xc0\x38\x00\x00\x00\x0f\x05", "\x48\x89\xe0\x0f\x05"};
    char *code = area + 20 * PAGE;
    for (int i = 0; i < PAGE;) {
        if (chance(&own, 40)) {
            const char *piece = PICK(&own, pieces);
            size_t n = strlen(piece);
            for (size_t k = 0; k < n && i < PAGE; k++) code[i++] = piece[k];
        } else {
            code[i++] = next(&own);
        }
    }
    CALL(alarm, 1);
    char *at = code + below(&own, 2000);
    u64 sp = chance(&own, 80) ? (u64)(area + 8 * PAGE) : number_of(&own);
    u64 a = chance(&own, 50) ? below(&own, TOP_NUMBER) : (u64)pointer(&own), b = (u64)pointer(&own), c = number_of(&own);
    if (a == SYS_kill || a == SYS_fork || a == SYS_clone || a == SYS_vfork) a = SYS_getpid;
    asm volatile("mov %1, %%rsp\n jmp *%0" ::"r"(at), "r"(sp), "a"(a), "D"(b), "S"(c), "d"(b));
    __builtin_unreachable();
}

static void call_somehow(struct worker *w) {
    struct rng *r = &w->rng;
    u64 special = below(r, 1000);
    if (special < 12) {
        if (w->depth < 3) clone_somehow(w);
        return;
    }
    if (special < 14) {
        if (w->depth < 2) random_code(w);
        return;
    }
    if (special < 20) {
        siginfo_t info;
        memset(&info, 0, sizeof info);
        info.si_signo = SIGUSR2;
        info.si_code = SI_QUEUE;
        info.si_value.sival_ptr = (void *)next(r);
        long pid = CALL(getpid), tid = CALL(gettid);
        CALL(rt_tgsigqueueinfo, pid, tid, SIGUSR2, &info);
        return;
    }
    u64 number = below(r, TOP_NUMBER);
    const char *signature = signatures[number];
    // What has no signature is a call that is rarely there.
    if (!signature && chance(r, 90)) return call_somehow(w);
    if (chance(r, 1)) number = number_of(r);
    switch ((u32)number) {
    case SYS_fork: case SYS_vfork: case SYS_clone: case SYS_clone3: case SYS_rt_sigreturn: return;
    case SYS_exit: case SYS_exit_group:
        if (!chance(r, 1)) return;
        break;
    case SYS_execve: case SYS_execveat:
        if (w->depth == 0 && !chance(r, 5)) return;
        break;
    case SYS_pause: case SYS_rt_sigsuspend:
        if (!chance(r, 10)) return;
        break;
    }
    u64 args[6];
    const char *s = signature ? signature : "******";
    int wild = chance(r, 4);
    for (int i = 0; i < 6; i++) args[i] = wild || !*s ? (chance(r, 50) ? (u64)pointer(r) : number_of(r)) : argument(w, *s++);
    switch (number) {
    case SYS_setrlimit:
        // The limits that keep this program within bounds stay.
        if (args[0] == RLIMIT_FSIZE || args[0] == RLIMIT_AS) return;
        break;
    case SYS_prlimit64:
        if (args[1] == RLIMIT_FSIZE || args[1] == RLIMIT_AS) return;
        if ((int)args[0] == 1) return;
        break;
    case SYS_process_vm_writev: case SYS_ptrace:
        if ((int)args[0] == 1 || (int)args[1] == 1) return;
        break;
    case SYS_munmap: case SYS_mprotect:
        if (args[0] + args[1] < args[0] || args[1] > 64 * PAGE) args[1] = chance(r, 98) ? PAGE : args[1];
        break;
    case SYS_kill:
        if ((int)args[0] == -1 && chance(r, 99)) args[0] = 0;
        break;
    }
    struct slot *slot = w->slot;
    if (slot) {
        slot->number = number;
        for (int i = 0; i < 6; i++) slot->args[i] = args[i];
    }
    raw(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static void run(struct worker *w, u64 calls) {
    for (u64 i = 0; i < calls; i++) {
        if (w->slot) w->slot->calls++;
        if (i % 32 == 31) {
            map_area();
            handlers();
        }
        call_somehow(w);
    }
}

// ---- A worker process -----------------------------------------------------------------------------------------------

static void open_all(struct rng *r) {
    int fds[2];
    if (!chance(r, 5)) unshare(CLONE_NEWNS);
    if (chance(r, 40)) mount("fuzz", "/tmp/fuzz", "tmpfs", 0, "");
    if (chdir("/tmp/fuzz") < 0) _exit(70);
    mkdir("d", 0777);
    mkfifo("fifo", 0666);
    (void)!symlink("a", "link");
    (void)!symlink("loop", "loop");
    file_fd = open("a", O_RDWR | O_CREAT, 0666);
    (void)!ftruncate(file_fd, 5000);
    open("d", O_RDONLY | O_DIRECTORY);
    open("a", O_PATH);
    (void)!pipe2(fds, chance(r, 50) ? O_NONBLOCK : 0);
    (void)!pipe2(fds, O_DIRECT);
    open("fifo", O_RDWR | O_NONBLOCK);
    eventfd(below(r, 3), chance(r, 50) ? EFD_SEMAPHORE : 0);
    int epoll = epoll_create1(0), other = epoll_create1(0);
    timerfd_create(CLOCK_MONOTONIC, chance(r, 50) ? TFD_NONBLOCK : 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    signalfd(-1, &set, SFD_NONBLOCK);
    int in = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(in, "/tmp/fuzz", IN_ALL_EVENTS);
    (void)!ftruncate(memfd_create("m", MFD_ALLOW_SEALING), 8192);
    CALL(pidfd_open, getpid(), 0);
    socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds);
    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds);
    socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, 0);
    open("/dev/null", O_RDWR);
    open("/dev/zero", O_RDWR);
    open("/dev/urandom", O_RDWR);
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (master >= 0) {
        char name[32] = "";
        int unlock = 0, n = 0;
        CALL(ioctl, master, 0x40045431, &unlock);
        CALL(ioctl, master, 0x80045430, &n);
        snprintf(name, sizeof name, "/dev/pts/%d", n);
        open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
    }
    open("/proc/self/maps", O_RDONLY);
    open("/proc/self/mem", O_RDWR);
    open("/proc/self/ns/uts", O_RDONLY);
    open("/proc", O_RDONLY | O_DIRECTORY);
    open("/bin/true", O_RDONLY);
    for (int i = 3; i < 40; i += 1 + below(r, 3)) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | (chance(r, 50) ? EPOLLET : 0), .data.u64 = i};
        epoll_ctl(chance(r, 70) ? epoll : other, EPOLL_CTL_ADD, i, &e);
    }
}

static void thread_main(struct worker *w, u64 calls);

static void start_thread(struct worker *w, u64 calls) {
    u64 flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    u64 *top = (u64 *)(w->stacks + CHILD_STACKS * CHILD_STACK + (256 << 10) - 256);
    top[0] = (u64)w;
    top[1] = calls;
    long ret;
    register u64 r12 asm("r12") = (u64)top;
    register void *r14 asm("r14") = (void *)thread_main;
    asm volatile("xor %%r10d, %%r10d\n xor %%r8d, %%r8d\n syscall\n test %%rax, %%rax\n jnz 1f\n"
                 " mov 0(%%r12), %%rdi\n mov 8(%%r12), %%rsi\n xor %%ebp, %%ebp\n and $-16, %%rsp\n call *%%r14\n ud2\n1:"
                 : "=a"(ret)
                 : "a"(SYS_clone), "D"(flags), "S"(top), "d"(0), "r"(r12), "r"(r14)
                 : "rcx", "r11", "r10", "r8", "memory");
}

static volatile int running;

static void thread_main(struct worker *w, u64 calls) {
    w->slot->tid = CALL(gettid);
    run(w, calls);
    w->slot->over = 1;
    if (__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST) == 0) CALL(exit_group, 0);
    for (;;) CALL(exit, 0);
}

static void worker_main(u64 seed, struct slot *slot, int threads, u64 calls) {
    static struct worker workers[MAX_THREADS];
    struct rng r = {seed};
    struct rlimit small = {256 << 10, 256 << 10}, large = {1 << 30, 1 << 30}, none = {0, 0};
    setrlimit(RLIMIT_FSIZE, &small);
    setrlimit(RLIMIT_AS, &large);
    setrlimit(RLIMIT_CORE, &none);
    handlers();
    open_all(&r);
    for (int i = 0; i < 3; i++) dup2(open("/dev/null", O_RDWR), i);
    if (chance(&r, 30)) CALL(setresuid, 1000, 1000, 1000);
    map_area();
    for (int i = 0; i < threads; i++) {
        size_t size = CHILD_STACKS * CHILD_STACK + (256 << 10);
        char *stacks = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stacks == MAP_FAILED) _exit(71);
        workers[i] = (struct worker){.rng = {next(&r)}, .slot = slot + i, .stacks = stacks, .threads = threads};
    }
    running = threads;
    for (int i = 1; i < threads; i++) start_thread(&workers[i], calls);
    thread_main(&workers[0], calls);
}

// ---- The supervisor -------------------------------------------------------------------------------------------------

static u64 milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

static void show(int worker, int thread) {
    struct slot *s = &slots[worker][thread];
    printf("worker %d thread %d (tid %d) call %lu: %lu(%#lx, %#lx, %#lx, %#lx, %#lx, %#lx)%s\n", worker, thread, s->tid, s->calls, s->number,
           s->args[0], s->args[1], s->args[2], s->args[3], s->args[4], s->args[5], s->over ? " over" : "");
}

static u64 epoch(u64 seed, int processes, int threads, u64 calls) {
    pid_t pids[MAX_WORKERS];
    u64 last[MAX_WORKERS][MAX_THREADS], since[MAX_WORKERS], total = 0;
    memset(slots, 0, sizeof(*slots) * MAX_WORKERS);
    memset(last, 0, sizeof last);
    // Mounts and modes that a worker may have left behind.
    static const char *const places[] = {"/", "/tmp", "/tmp/fuzz"};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 20 && umount2(places[i], MNT_DETACH) == 0; k++) {}
        mkdir(places[i], 0777);
        chmod(places[i], 0777);
    }
    for (int i = 0; i < processes; i++) {
        pids[i] = fork();
        if (pids[i] == 0) worker_main(seed * 1000 + i, slots[i], threads, calls);
        since[i] = milliseconds();
    }
    u64 end = milliseconds() + 20000;
    int left = 1;
    while (left && milliseconds() < end) {
        int status;
        pid_t pid;
        struct timespec tick = {0, 10000000};
        nanosleep(&tick, 0);
        while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
            for (int i = 0; i < processes; i++)
                if (pids[i] == pid) {
                    pids[i] = 0;
                    if (getenv("FUZZ_VERBOSE")) {
                        printf("worker %d: status %#x\n", i, status);
                        for (int k = 0; k < threads; k++) show(i, k);
                    }
                }
        left = 0;
        for (int i = 0; i < processes; i++) {
            if (pids[i] <= 0) continue;
            left = 1;
            for (int k = 0; k < threads; k++) {
                struct slot *s = &slots[i][k];
                if (s->calls != last[i][k]) {
                    since[i] = milliseconds();
                } else if (s->tid && !s->over) {
                    CALL(tgkill, pids[i], s->tid, SIGALRM);
                }
                last[i][k] = s->calls;
            }
            if (milliseconds() - since[i] > 400) kill(pids[i], SIGKILL);
        }
    }
    for (int i = 0; i < processes; i++)
        for (int k = 0; k < threads; k++) total += slots[i][k].calls % (calls + 1);
    // Whatever they left behind goes, too.
    u64 deadline = milliseconds() + 30000;
    for (;;) {
        kill(-1, SIGKILL);
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
        if (pid < 0) break;
        if (pid == 0) {
            if (milliseconds() > deadline) {
                printf("stuck: not all processes end after SIGKILL\n");
                for (int i = 0; i < processes; i++)
                    for (int k = 0; k < threads; k++) show(i, k);
                for (int i = 2; i < 4 << 20; i++)
                    if (kill(i, 0) == 0) printf("there is still %d\n", i);
                if (getenv("FUZZ_HOLD")) sleep(1000000);
                exit(1);
            }
            usleep(2000);
        }
    }
    return total;
}

int main(int argc, char **argv) {
    struct utsname name;
    uname(&name);
    if (argc < 3) return 64;
    if (getpid() != 1 || !strstr(name.version, "runsc")) {
        fprintf(stderr, "this is for process 1 of a sandbox\n");
        return 64;
    }
    u64 seed = strtoull(argv[1], 0, 0), epochs = strtoull(argv[2], 0, 0);
    u64 calls = argc > 3 ? strtoull(argv[3], 0, 0) : 2000;
    int processes = argc > 4 ? atoi(argv[4]) : 4, threads = argc > 5 ? atoi(argv[5]) : 3;
    if (processes > MAX_WORKERS || threads > MAX_THREADS) return 64;
    setvbuf(stdout, 0, _IOLBF, 0);
    // Whatever is inherited, and nothing else, has low numbers.
    slots = mmap(0, sizeof(*slots) * MAX_WORKERS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    u64 all = 0;
    for (u64 i = 0; i < epochs; i++) {
        u64 start = milliseconds(), total = epoch(seed + i, processes, threads, calls);
        all += total;
        printf("epoch %lu: seed %lu, %lu calls in %lu ms\n", i, seed + i, total, milliseconds() - start);
    }
    printf("done: %lu calls\n", all);
    return 0;
}
