// What the benchmark measures inside a guest and natively: prints "NAME BEST MEDIAN" in nanoseconds an operation.
//
//   guest [NAME…]      a NAME chooses those that begin with it
//   guest --true       exits at once (what fork+exec executes)
//   guest --sleep      does nothing for ever
//
// Files are made in $BENCH_DIR, or /tmp.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}
static void must(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "guest: %s: %s\n", what, strerror(errno));
    exit(1);
}
#define MUST(e) must(e, #e)

static char self[4096], file[4096], fresh[4096], buf[1 << 16];
static int fd, p[2], q[2];

// Each runs an operation n times.
static void getpid_call(long n) {
    while (n--) syscall(SYS_getpid);
}
static void getppid_call(long n) {
    while (n--) syscall(SYS_getppid);
}
static void clock_vdso(long n) {
    while (n--) now();
}
static void clock_call(long n) {
    struct timespec t;
    while (n--) syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
}
static void open_zero(void) { MUST((fd = open("/dev/zero", O_RDWR)) >= 0); }
static void read_1(long n) {
    while (n--) MUST(read(fd, buf, 1) == 1);
}
static void read_64k(long n) {
    while (n--) MUST(read(fd, buf, 65536) == 65536);
}
static void open_file(void) {
    MUST((fd = open(file, O_RDWR | O_CREAT, 0600)) >= 0);
    MUST(write(fd, buf, sizeof buf) == sizeof buf);
}
static void pread_4k(long n) {
    while (n--) MUST(pread(fd, buf, 4096, 4096) == 4096);
}
static void pwrite_4k(long n) {
    while (n--) MUST(pwrite(fd, buf, 4096, 4096) == 4096);
}
static void pwrite_1(long n) {
    while (n--) MUST(pwrite(fd, buf, 1, 77) == 1);
}
static void open_close(long n) {
    while (n--) {
        int f = open(file, O_RDONLY);
        MUST(f >= 0);
        close(f);
    }
}
static void create_unlink(long n) {
    while (n--) {
        int f = open(fresh, O_WRONLY | O_CREAT | O_EXCL, 0600);
        MUST(f >= 0);
        close(f);
        MUST(!unlink(fresh));
    }
}
static void stat_etc(long n) {
    struct stat st;
    while (n--) MUST(!stat("/etc/passwd", &st));
}
static void stat_tmp(long n) {
    struct stat st;
    while (n--) MUST(!stat(file, &st));
}
static void mmap_munmap(long n) {
    while (n--) {
        char *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(m != MAP_FAILED);
        *m = 1;
        munmap(m, 4096);
    }
}
static void fault(long n) {
    // In pieces, so that memory stays small.
    while (n > 0) {
        size_t k = n < 4096 ? n : 4096;
        char *m = mmap(0, k * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(m != MAP_FAILED);
        madvise(m, k * 4096, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < k; i++) m[i * 4096] = 1;
        munmap(m, k * 4096);
        n -= k;
    }
}
static void mmap_1m(long n) {
    while (n--) {
        char *m = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(m != MAP_FAILED);
        for (size_t i = 0; i < 256; i++) m[i * 4096] = 1;
        munmap(m, 1 << 20);
    }
}
static void touch_256m(long n) {
    while (n--) {
        char *m = mmap(0, 256 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        MUST(m != MAP_FAILED);
        for (size_t i = 0; i < 65536; i++) m[i * 4096] = 1;
        munmap(m, 256 << 20);
    }
}
static void malloc_1m(long n) {
    while (n--) {
        char *m = malloc(1 << 20);
        MUST(m);
        for (size_t i = 0; i < 256; i++) ((volatile char *)m)[i * 4096] = 1;
        free(m);
    }
}
static char *prot;
static void map_prot(void) { prot = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void mprotect_pair(long n) {
    while (n--) {
        mprotect(prot, 4096, PROT_READ);
        mprotect(prot, 4096, PROT_READ | PROT_WRITE);
    }
}
static void fork_wait(long n) {
    while (n--) {
        pid_t c = fork();
        MUST(c >= 0);
        if (!c) _exit(0);
        waitpid(c, 0, 0);
    }
}
static char *dirty;
static void dirty_memory(void) {
    dirty = malloc(16 << 20);
    memset(dirty, 1, 16 << 20);
}
static void dirty_more(void) {
    dirty = malloc(64 << 20);
    memset(dirty, 1, 64 << 20);
}
static void clean_memory(void) { free(dirty); }
static void fork_exec(long n) {
    while (n--) {
        pid_t c = fork();
        MUST(c >= 0);
        if (!c) {
            execl(self, "true", "--true", (char *)0);
            _exit(1);
        }
        waitpid(c, 0, 0);
    }
}
static void vfork_exec(long n) {
    while (n--) {
        pid_t c = vfork();
        MUST(c >= 0);
        if (!c) {
            execl(self, "true", "--true", (char *)0);
            _exit(1);
        }
        waitpid(c, 0, 0);
    }
}
static void *nothing(void *a) { return a; }
static void thread_create(long n) {
    pthread_t t;
    while (n--) {
        MUST(!pthread_create(&t, 0, nothing, 0));
        pthread_join(t, 0);
    }
}

// n pieces of work, each by as many threads at once as the name says.
static long share;
static void *compute(void *p) {
    volatile unsigned long x = 1;
    for (long i = 0; i < share * 1000; i++) x = x * 3 + 1;
    return p;
}
static void *call_often(void *p) {
    for (long i = 0; i < share; i++) syscall(SYS_getppid);
    return p;
}
static void together(int threads, void *(*work)(void *), long n) {
    pthread_t t[4];
    share = n / threads + 1;
    for (int i = 0; i < threads; i++) MUST(!pthread_create(&t[i], 0, work, 0));
    for (int i = 0; i < threads; i++) pthread_join(t[i], 0);
}
static void compute_1(long n) { together(1, compute, n); }
static void compute_4(long n) { together(4, compute, n); }
static void calls_1(long n) { together(1, call_often, n); }
static void calls_4(long n) { together(4, call_often, n); }

static pid_t echo_child;
static void echo_start(int in, int out, int close_in, int close_out) {
    MUST((echo_child = fork()) >= 0);
    if (echo_child) return;
    close(close_in), close(close_out);
    char c;
    while (read(in, &c, 1) == 1 && write(out, &c, 1) == 1) {}
    _exit(0);
}
static void pipes(void) {
    MUST(!pipe(p) && !pipe(q));
    echo_start(p[0], q[1], p[1], q[0]);
}
static void pipe_pong(long n) {
    char c = 0;
    while (n--) MUST(write(p[1], &c, 1) == 1 && read(q[0], &c, 1) == 1);
}
static void pipes_end(void) {
    close(p[0]), close(p[1]), close(q[0]), close(q[1]);
    waitpid(echo_child, 0, 0);
}
static void pipe_one(long n) {
    char c = 0;
    while (n--) MUST(write(p[1], &c, 1) == 1 && read(p[0], &c, 1) == 1);
}
static void pipe_only(void) { MUST(!pipe(p)); }
static void pipe_close(void) { close(p[0]), close(p[1]); }
static void unix_pair(void) {
    MUST(!socketpair(AF_UNIX, SOCK_STREAM, 0, p));
    echo_start(p[1], p[1], p[0], -1);
}
static void socket_pong(long n) {
    char c = 0;
    while (n--) MUST(write(p[0], &c, 1) == 1 && read(p[0], &c, 1) == 1);
}
static void socket_end(void) {
    close(p[0]), close(p[1]);
    waitpid(echo_child, 0, 0);
}
static void tcp_pair(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    MUST(!bind(l, (void *)&a, n) && !listen(l, 1) && !getsockname(l, (void *)&a, &n));
    p[0] = socket(AF_INET, SOCK_STREAM, 0);
    MUST(!connect(p[0], (void *)&a, n));
    MUST((p[1] = accept(l, 0, 0)) >= 0);
    setsockopt(p[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(p[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(l);
    echo_start(p[1], p[1], p[0], -1);
}

static int word[2];
static pthread_t partner;
static long fx(int *w, int op, int v) { return syscall(SYS_futex, w, op | FUTEX_PRIVATE_FLAG, v, 0, 0, 0); }
static void hand(int *w, int to) {
    __atomic_store_n(w, to, __ATOMIC_SEQ_CST);
    fx(w, FUTEX_WAKE, 1);
}
static void await(int *w, int not) {
    while (__atomic_load_n(w, __ATOMIC_SEQ_CST) == not) fx(w, FUTEX_WAIT, not);
}
static void *futex_echo(void *a) {
    for (int i = 1;; i++) {
        await(&word[0], i - 1);
        if (word[0] < 0) return a;
        hand(&word[1], i);
    }
}
static int futex_turn;
static void futex_start(void) {
    word[0] = word[1] = futex_turn = 0;
    MUST(!pthread_create(&partner, 0, futex_echo, 0));
}
static void futex_pong(long n) {
    while (n--) {
        futex_turn++;
        hand(&word[0], futex_turn);
        await(&word[1], futex_turn - 1);
    }
}
static void futex_end(void) {
    hand(&word[0], -1);
    pthread_join(partner, 0);
}
static void yield(long n) {
    while (n--) sched_yield();
}
static void on_signal(int sig) { (void)sig; }
static void signal_start(void) { signal(SIGUSR1, on_signal); }
static void signal_self(long n) {
    pid_t me = getpid(), t = gettid();
    while (n--) tgkill(me, t, SIGUSR1);
}
static void segv_handler(int sig, siginfo_t *si, void *uc) {
    (void)sig, (void)uc;
    mprotect((void *)((uintptr_t)si->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}
static void segv_start(void) {
    struct sigaction a = {.sa_sigaction = segv_handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &a, 0);
    map_prot();
}
static void segv(long n) {
    while (n--) {
        mprotect(prot, 4096, PROT_NONE);
        *(volatile char *)prot = 1;
    }
}
static int ep;
static void epoll_start(void) {
    MUST(!pipe(p) && (ep = epoll_create1(0)) >= 0);
    struct epoll_event e = {.events = EPOLLIN};
    MUST(!epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e) && write(p[1], "x", 1) == 1);
}
static void epoll_ready(long n) {
    struct epoll_event e;
    while (n--) MUST(epoll_wait(ep, &e, 1, -1) == 1);
}
static void epoll_end(void) {
    close(ep);
    pipe_close();
}
static void fd_close(void) { close(fd); }

static const struct {
    const char *name;
    void (*run)(long);
    void (*setup)(void), (*end)(void);
} list[] = {
    {"getpid", getpid_call, 0, 0},
    {"getppid", getppid_call, 0, 0},
    {"clock_gettime-vdso", clock_vdso, 0, 0},
    {"clock_gettime-call", clock_call, 0, 0},
    {"read-zero-1", read_1, open_zero, fd_close},
    {"read-zero-64k", read_64k, open_zero, fd_close},
    {"pread-4k", pread_4k, open_file, fd_close},
    {"pwrite-4k", pwrite_4k, open_file, fd_close},
    {"pwrite-1", pwrite_1, open_file, fd_close},
    {"open-close", open_close, open_file, fd_close},
    {"create-unlink", create_unlink, 0, 0},
    {"stat-tmp", stat_tmp, open_file, fd_close},
    {"stat-root", stat_etc, 0, 0},
    {"mmap-touch-munmap", mmap_munmap, 0, 0},
    {"mmap-touch-munmap-1m", mmap_1m, 0, 0},
    {"malloc-free-1m", malloc_1m, 0, 0},
    {"touch-256m", touch_256m, 0, 0},
    {"page-fault", fault, 0, 0},
    {"mprotect-pair", mprotect_pair, map_prot, 0},
    {"fork-wait", fork_wait, 0, 0},
    {"fork-wait-16m", fork_wait, dirty_memory, clean_memory},
    {"fork-wait-64m", fork_wait, dirty_more, clean_memory},
    {"fork-exec", fork_exec, 0, 0},
    {"vfork-exec", vfork_exec, 0, 0},
    {"thread-create", thread_create, 0, 0},
    {"compute-1-thread", compute_1, 0, 0},
    {"compute-4-threads", compute_4, 0, 0},
    {"calls-1-thread", calls_1, 0, 0},
    {"calls-4-threads", calls_4, 0, 0},
    {"pipe-self", pipe_one, pipe_only, pipe_close},
    {"pipe-pong", pipe_pong, pipes, pipes_end},
    {"unix-pong", socket_pong, unix_pair, socket_end},
    {"tcp-pong", socket_pong, tcp_pair, socket_end},
    {"futex-pong", futex_pong, futex_start, futex_end},
    {"epoll-ready", epoll_ready, epoll_start, epoll_end},
    {"sched-yield", yield, 0, 0},
    {"signal-self", signal_self, signal_start, 0},
    {"segv-handler", segv, segv_start, 0},
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--true")) return 0;
    if (argc > 1 && !strcmp(argv[1], "--sleep"))
        for (;;) pause();
    const char *dir = getenv("BENCH_DIR") ? getenv("BENCH_DIR") : "/tmp";
    snprintf(file, sizeof file, "%s/bench-file", dir);
    snprintf(fresh, sizeof fresh, "%s/bench-new", dir);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) snprintf(self, sizeof self, "%s", argv[0]);
    for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
        int wanted = argc == 1;
        for (int k = 1; k < argc; k++) wanted |= !strncmp(list[i].name, argv[k], strlen(argv[k]));
        if (!wanted) continue;
        fflush(stdout);
        if (list[i].setup) list[i].setup();
        // As many operations as take 10 ms, seven times.
        long count = 1;
        int64_t took;
        for (;;) {
            int64_t t = now();
            list[i].run(count);
            took = now() - t;
            if (took > 10000000 || count > 1 << 24) break;
            count *= took < 1000000 ? 8 : 2;
        }
        double r[7];
        for (int k = 0; k < 7; k++) {
            int64_t t = now();
            list[i].run(count);
            r[k] = (double)(now() - t) / count;
        }
        if (list[i].end) list[i].end();
        qsort(r, 7, sizeof *r, by_value);
        printf("%s %.1f %.1f\n", list[i].name, r[0], r[3]);
    }
    unlink(file);
    return 0;
}
