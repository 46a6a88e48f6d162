// What the tests of robustness run inside: stress COMMAND [ARGUMENT…]
//
// Each command prints one line that says what it did, and exits with 0 if that is what it should have been.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OK(call) ({ long r_ = (long)(call); if (r_ == -1) fail(#call, __LINE__); r_; })
static void fail(const char *what, int line) {
    printf("line %d: %s: %s\n", line, what, strerror(errno));
    exit(1);
}

static int count, arrived, go_on;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *stand(void *unused) {
    pthread_mutex_lock(&mutex);
    arrived++;
    pthread_cond_broadcast(&changed);
    while (!go_on) pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    return 0;
}

// All threads are there at once; a byte on standard input lets them go.
static int threads(void) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 << 10);
    pthread_t *all = calloc(count, sizeof *all);
    for (int i = 0; i < count; i++) {
        int error = pthread_create(&all[i], &attr, stand, 0);
        if (error) {
            printf("thread %d: %s\n", i, strerror(error));
            return 1;
        }
    }
    pthread_mutex_lock(&mutex);
    while (arrived < count) pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    printf("ready\n");
    char byte;
    (void)!read(0, &byte, 1);
    pthread_mutex_lock(&mutex);
    go_on = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < count; i++) pthread_join(all[i], 0);
    printf("%d threads\n", arrived);
    return 0;
}

static int processes(void) {
    int there[2], go[2];
    OK(pipe(there));
    OK(pipe(go));
    for (int i = 0; i < count; i++) {
        if (OK(fork()) == 0) {
            char byte = 0;
            close(go[1]);
            OK(write(there[1], &byte, 1));
            (void)!read(go[0], &byte, 1);
            _exit(i % 100);
        }
    }
    for (int i = 0; i < count; i++) {
        char byte;
        if (OK(read(there[0], &byte, 1)) != 1) return 1;
    }
    printf("ready\n");
    char byte;
    (void)!read(0, &byte, 1);
    close(go[1]);
    int sum = 0, status;
    for (int i = 0; i < count; i++) {
        OK(wait(&status));
        if (WIFEXITED(status)) sum += WEXITSTATUS(status) + 1;
    }
    int expected = 0;
    for (int i = 0; i < count; i++) expected += i % 100 + 1;
    if (sum != expected || wait(0) != -1 || errno != ECHILD) return 1;
    printf("%d processes\n", count);
    return 0;
}

// An ordinary user with RLIMIT_NPROC forks in every process that it has, for ever.
static int bomb(void) {
    volatile int *forks = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct rlimit limit = {count, count};
    int father = OK(fork());
    if (father == 0) {
        OK(setpgid(0, 0));
        OK(setrlimit(RLIMIT_NPROC, &limit));
        OK(setresuid(4711, 4711, 4711));
        for (;;) {
            int pid = fork();
            if (pid >= 0) {
                __sync_fetch_and_add(&forks[0], pid != 0);
            } else if (errno == EAGAIN) {
                // Full: the bomb goes on trying, but leaves the processor to others.
                __sync_fetch_and_add(&forks[1], 1);
                usleep(1000);
            } else {
                forks[2] = errno;
            }
        }
    }
    while (forks[0] < count - 1 || forks[1] < 20) usleep(1000);
    printf("ready\n");
    char byte;
    (void)!read(0, &byte, 1);
    // Who is told apart from the bomb has room.
    int other = OK(fork());
    if (other == 0) _exit(0);
    OK(waitpid(other, 0, 0));
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int killed = 0;
    while (kill(-father, SIGKILL) == 0) {
        while (waitpid(-1, 0, WNOHANG) > 0) killed++;
        usleep(1000);
    }
    while (waitpid(-1, 0, 0) > 0) killed++;
    if (forks[2]) {
        printf("fork: %s\n", strerror(forks[2]));
        return 1;
    }
    printf("%d forks\n", forks[0] == count - 1 ? count - 1 : forks[0]);
    return forks[0] != count - 1;
}

// A child that takes memory until it gets no more: RLIMIT_AS lets it know.
static int address_space(void) {
    int pid = OK(fork()), status;
    if (pid == 0) {
        struct rlimit limit = {(rlim_t)count << 20, (rlim_t)count << 20};
        OK(setrlimit(RLIMIT_AS, &limit));
        long got = 0;
        char *block;
        while ((block = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED) {
            for (int i = 0; i < 1 << 20; i += 4096) block[i] = 1;
            got++;
        }
        _exit(errno == ENOMEM && got > count / 2 && got <= count ? 0 : 1);
    }
    OK(waitpid(pid, &status, 0));
    printf("status %#x\n", status);
    return status != 0;
}

// A child that takes memory until it is killed, beside one that has little and lives.
static int eat(void) {
    int quiet = OK(fork());
    if (quiet == 0) for (;;) pause();
    int eater = OK(fork()), status;
    if (eater == 0) {
        for (long i = 0;; i++) {
            char *block = mmap(0, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (block == MAP_FAILED) pause();
            for (int k = 0; k < 4 << 20; k += 4096) block[k] = 1;
        }
    }
    OK(waitpid(eater, &status, 0));
    int lives = kill(quiet, 0) == 0 && waitpid(quiet, 0, WNOHANG) == 0;
    kill(quiet, SIGKILL);
    OK(waitpid(quiet, 0, 0));
    printf("status %#x, the other %s\n", status, lives ? "lives" : "is dead");
    return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && lives);
}

// As many of each kind as there may be. What is printed are the errors that end it.
static void report(const char *what, long n, long most) {
    int error = errno;
    printf("%s: %s after %ld\n", what, strerrorname_np(error), n);
    if (n >= most) {
        printf("%s: no limit\n", what);
        exit(1);
    }
}

#define FILL(what, most, call) do { long n_ = 0; errno = 0; while (n_ < (most) && (long)(call) != -1) n_++; report(what, n_, most); } while (0)

static void close_all(void) { close_range(3, ~0u, 0); }

static int tables(void) {
    struct rlimit files;
    OK(getrlimit(RLIMIT_NOFILE, &files));
    struct rlimit big = {1 << 20, 1 << 20};
    if (setrlimit(RLIMIT_NOFILE, &big) == 0) files = big;
    else files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
    // Numbers of descriptors, not only descriptors, are bounded.
    if (dup2(0, 1 << 30) != -1 || dup2(0, INT_MAX) != -1) return 1;
    if (fcntl(0, F_DUPFD, 1 << 30) != -1) return 1;
    int fds[2];
    FILL("inotify instances", 100000, inotify_init());
    close_all();
    FILL("POSIX timers", 2000000, ({
        timer_t t;
        struct sigevent none = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        syscall(SYS_timer_create, CLOCK_MONOTONIC, &none, &t);
    }));
    FILL("message queues", 100000, msgget(IPC_PRIVATE, 0600));
    FILL("semaphore sets", 100000, semget(IPC_PRIVATE, 1, 0600));
    FILL("segments", 100000, shmget(IPC_PRIVATE, 4096, 0600));
    if (semget(IPC_PRIVATE, 1 << 30, 0600) != -1) return 1;
    if (shmget(IPC_PRIVATE, SIZE_MAX / 2, 0600) != -1) return 1;
    OK(pipe(fds));
    if (fcntl(fds[0], F_SETPIPE_SZ, 1 << 30) > 0 && fcntl(fds[0], F_GETPIPE_SZ) > 1 << 30) return 1;
    if (fcntl(fds[0], F_SETPIPE_SZ, INT_MAX) > 0) return 1;
    close_all();
    // A socket's buffers.
    OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds));
    int huge = INT_MAX / 2;
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &huge, sizeof huge);
    setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &huge, sizeof huge);
    static char block[60000];
    FILL("queued datagrams", 100000, send(fds[0], block, sizeof block, 0));
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &huge, sizeof huge);
    FILL("queued bytes", 100000, send(fds[0], block, sizeof block, 0));
    close_all();
    // Pending signals of one process.
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, 0);
    struct rlimit some = {1000, 1000};
    OK(setrlimit(RLIMIT_SIGPENDING, &some));
    FILL("queued signals", 2000, sigqueue(getpid(), 40, (union sigval){0}));
    // File locks: without a limit but the memory in Linux, and here.
    int file = OK(open("/tmp/locks", O_RDWR | O_CREAT, 0600));
    for (int i = 0; i < 3000; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2 * i, .l_len = 1};
        if (fcntl(file, F_SETLK, &lock) == -1) break;
    }
    close_all();
    printf("done\n");
    return 0;
}

static char state_of(pid_t pid) {
    char path[32], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    long n = read(fd, line, sizeof line - 1);
    close(fd);
    char *end = n > 0 ? strrchr(line, ')') : 0;
    return end ? end[2] : 0;
}

// Two that trace each other, and want to see each other's end: a kill ends them all the same.
static int tracers(void) {
    struct { _Atomic pid_t other; _Atomic int done; } *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        if ((pids[i] = OK(fork()))) continue;
        while (i == 0 && !shared->other) sched_yield();
        OK(ptrace(PTRACE_SEIZE, i == 0 ? shared->other : pids[0], 0, PTRACE_O_TRACEEXIT));
        shared->done++;
        for (;;) pause();
    }
    shared->other = pids[1];
    while (shared->done < 2) sched_yield();
    OK(kill(pids[0], SIGKILL));
    OK(kill(pids[1], SIGKILL));
    for (int left = 2; left > 0;) {
        if (OK(waitpid(-1, 0, WNOHANG)) > 0) left--;
        else if (state_of(pids[0]) == 't' && state_of(pids[1]) == 't') {
            printf("each waits for the other\n");
            return 1;
        }
        sched_yield();
    }
    printf("both ended\n");
    return 0;
}

// Processes in the memory of the one that makes the first of them, each made by the one before.
static __attribute__((noinline)) void nest(int depth) {
    if (depth == 0) return;
    pid_t child = OK(vfork());
    if (child == 0) {
        nest(depth - 1);
        _exit(0);
    }
    int status;
    OK(waitpid(child, &status, 0));
    if (status) _exit(1);
}

// As many processes as there may be. Each has had others in its memory, as far as there was room.
static int vforks(void) {
    enum { DEPTH = 5 };
    int there[2], go[2], made = 0;
    char byte = 0;
    OK(pipe(there));
    OK(pipe(go));
    for (pid_t child; (child = fork()) != -1; made++) {
        if (child == 0) {
            close(go[1]);
            if (count - (made + 2) >= DEPTH) nest(DEPTH);
            OK(write(there[1], &byte, 1));
            (void)!read(go[0], &byte, 1);
            _exit(0);
        }
        OK(read(there[0], &byte, 1));
    }
    if (errno != EAGAIN) fail("fork", __LINE__);
    printf("ready\n");
    (void)!read(0, &byte, 1);
    close(go[1]);
    for (int i = 0; i < made; i++) {
        int status;
        OK(wait(&status));
        if (status) return 1;
    }
    printf("%d forks\n", made);
    return 0;
}

// Forks one after the other, each with something of its own.
static int forks(void) {
    static char memory[64 << 10];
    for (int i = 0; i < count; i++) {
        int pid = OK(fork()), status;
        if (pid == 0) {
            memset(memory, i, sizeof memory);
            _exit(memory[i % sizeof memory] & 0x7f);
        }
        OK(waitpid(pid, &status, 0));
        if (status != (i & 0x7f) << 8) {
            printf("fork %d: status %#x\n", i, status);
            return 1;
        }
    }
    printf("%d forks\n", count);
    return 0;
}

static void *calls(void *number) {
    int ends[2];
    OK(pipe(ends));
    for (unsigned long i = (unsigned long)number;; i++) {
        struct stat stat;
        char byte = i;
        if (write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1 || byte != (char)i) abort();
        if (fstat(ends[0], &stat) == -1 || getppid() == 0) abort();
        if (i % 64 == 0) {
            char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            page[4096] = 1;
            munmap(page, 8192);
        }
    }
    return 0;
}

// Processes with two threads that make calls without end. One of them is killed from outside, sooner or later.
static int load(void) {
    int pids[count], status;
    for (int i = 0; i < count; i++) {
        if ((pids[i] = OK(fork())) == 0) {
            pthread_t other;
            pthread_create(&other, 0, calls, (void *)1000);
            calls(0);
        }
    }
    printf("ready\n");
    int dead = OK(waitpid(-1, &status, 0)), rest = 0;
    printf("status %#x\n", status);
    char byte;
    (void)!read(0, &byte, 1);
    for (int i = 0; i < count; i++) {
        if (pids[i] == dead) continue;
        if (waitpid(pids[i], 0, WNOHANG) == 0) rest++;
        kill(pids[i], SIGKILL);
        OK(waitpid(pids[i], &status, 0));
    }
    printf("%d others\n", rest);
    return rest != count - 1;
}

// A child that does something to itself which it may not survive. Who runs on is killed after a while.
static int survive(void (*act)(long), long argument) {
    int status = 0;
    int pid = OK(fork());
    if (pid == 0) {
        act(argument);
        _exit(0);
    }
    for (int i = 0; i < 50 && waitpid(pid, &status, WNOHANG) == 0; i++) {
        if (i == 49) {
            OK(kill(pid, SIGKILL));
            OK(waitpid(pid, &status, 0));
            break;
        }
        usleep(1000);
    }
    return status;
}

// Everything that a guest may have, and everything that there is.
#define GUEST_END 0x7ffe00000000ul
#define HOST_END 0x7ffffffff000ul

static void take_the_ground(long way) {
    unsigned long start = 0x10000, ends[] = {GUEST_END, HOST_END}, all = ends[way & 1] - start;
    switch (way >> 1) {
    case 0: syscall(SYS_munmap, start, all); break;
    case 1: syscall(SYS_mprotect, start, all, PROT_NONE); break;
    case 2: syscall(SYS_mmap, start, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0); break;
    case 3: syscall(SYS_mmap, start, all, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0); break;
    case 4: syscall(SYS_madvise, start, all, MADV_DONTNEED); break;
    case 5: syscall(SYS_madvise, start, all, MADV_REMOVE); break;
    case 6: syscall(SYS_mremap, start, all, 4096, MREMAP_MAYMOVE); break;
    case 7: syscall(SYS_mremap, start, 4096, all, MREMAP_MAYMOVE); break;
    case 8: syscall(SYS_mremap, ends[0] - 4096, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, start); break;
    case 9: syscall(SYS_brk, ends[way & 1]); break;
    case 10: syscall(SYS_remap_file_pages, start, all, 0, 0, 0); break;
    case 11: {
        int id = shmget(IPC_PRIVATE, 1 << 20, 0600);
        for (unsigned long at = ends[way & 1] - (64 << 20); at < ends[way & 1]; at += 1 << 20) shmat(id, (void *)at, SHM_REMAP);
        shmctl(id, IPC_RMID, 0);
        break;
    }
    }
    // What is left of it, if anything.
    getppid();
    syscall(SYS_mmap, start, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    fork();
}

static int unmap(void) {
    for (long way = 0; way < 24; way++) survive(take_the_ground, way);
    printf("the parent lives\n");
    return 0;
}

// As many mappings as there may be, then as many bytes.
static int mappings(void) {
    int pid = OK(fork()), status;
    if (pid == 0) {
        long got = 0;
        // Neighbours differ, so that none are joined.
        while (got < 1 << 20 && mmap(0, 4096, got & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) got++;
        if (errno != ENOMEM || got < 10000) _exit(1);
        // What is full still works, as far as it needs no more of them.
        if (getppid() == 0 || munmap((void *)&pid, 0) != -1) _exit(2);
        int child = fork();
        if (child == 0) _exit(0);
        if (child > 0) waitpid(child, 0, 0);
        _exit(0);
    }
    OK(waitpid(pid, &status, 0));
    if (status) {
        printf("mappings: status %#x\n", status);
        return 1;
    }
    if ((pid = OK(fork())) == 0) {
        long size = 1l << 46;
        while (size >= 4096) {
            if (mmap(0, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
                if (errno != ENOMEM) _exit(1);
                size /= 2;
            }
        }
        // Nothing is free.
        if (mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) _exit(2);
        pthread_t thread;
        if (pthread_create(&thread, 0, stand, 0) == 0) _exit(3);
        _exit(getppid() == 0);
    }
    OK(waitpid(pid, &status, 0));
    printf("status %#x\n", status);
    return status != 0;
}

static unsigned long random_state = 88172645463325252ul;
static unsigned long rnd(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

// Into what the sandbox has put above the guest's memory, with registers that may mean something there.
static void jump(long seed) {
    random_state += seed * 0x9e3779b97f4a7c15;
    for (int i = 0; i < 8; i++) rnd();
    unsigned long places[] = {GUEST_END + 0x10000, GUEST_END + 0x100000, GUEST_END + 0x10000000, 0, 8, 3, 0x800, ~0ul, 1ul << 47};
    unsigned long r[16];
    for (int i = 0; i < 16; i++) r[i] = places[rnd() % 9] + (rnd() % 2 ? rnd() % 0x6000 : 0);
    unsigned long at = GUEST_END + 0x10000 + (rnd() % 2 ? 0x8000 + rnd() % 0x1000 : rnd() % 0x400);
    asm volatile("mov %0, %%rax\n mov %1, %%rcx\n push %%rcx\n"
                 "mov (%%rax), %%rbx\n mov 8(%%rax), %%rcx\n mov 16(%%rax), %%rdx\n mov 24(%%rax), %%rsi\n mov 32(%%rax), %%rdi\n"
                 "mov 40(%%rax), %%r8\n mov 48(%%rax), %%r9\n mov 56(%%rax), %%r10\n mov 64(%%rax), %%r11\n mov 72(%%rax), %%r12\n"
                 "mov 80(%%rax), %%r13\n mov 88(%%rax), %%r14\n mov 96(%%rax), %%r15\n mov 104(%%rax), %%rax\n ret"
                 :: "r"(r), "r"(at) : "memory");
}

static int jumps(void) {
    for (long i = 0; i < count; i++) survive(jump, i);
    printf("%d jumps\n", count);
    return 0;
}

// The base of gs where the sandbox has its own, or where nothing can be.
static void set_gs(long seed) {
    unsigned long values[] = {0, 1, 0x10000, (unsigned long)&random_state, GUEST_END - 8, GUEST_END, GUEST_END + 0x10000, GUEST_END + 0x100000,
        GUEST_END + 0x10000000, GUEST_END + 0x10010000, GUEST_END + 0x10020000, GUEST_END + 0x10000008, GUEST_END + 0xfffff000, HOST_END - 8, HOST_END,
        0x7fffffffffff, 1ul << 47, ~0ul, 0xffff800000000000, 0xffffffffff600000};
    unsigned long value = values[(seed >> 1) % 20];
    long parent = getppid();
    if (seed & 1) {
        if (value >= 1ul << 47 && value < 0xffff800000000000) return;
        asm volatile("wrgsbase %0" :: "r"(value));
    } else {
        syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, value);
    }
    // Often enough that the sites are hot.
    for (int i = 0; i < 200; i++) {
        struct stat stat;
        if (getppid() != parent || fstat(0, &stat) == -1) _exit(1);
    }
}

static int gs(void) {
    for (long i = 0; i < 40; i++) {
        int status = survive(set_gs, i);
        if (WIFEXITED(status) && WEXITSTATUS(status)) {
            printf("value %ld: wrong results\n", i);
            return 1;
        }
    }
    printf("the parent lives\n");
    return 0;
}

static void *scribble(void *unused) {
    for (;;) {
        unsigned long at = rnd() % 4 ? GUEST_END + 0x10000000 + rnd() % 3 * 0x10000 + rnd() % 0x6000 : GUEST_END + 0x100000 + rnd() % 0x10000;
        unsigned long values[] = {0, 1, 3, 4, 5, 0x101, 0x105, rnd(), rnd() % 512, GUEST_END + 0x10000000 + rnd() % 0x20000};
        *(volatile unsigned *)(at & ~3ul) = values[rnd() % 10];
        if (rnd() % 8 == 0) sched_yield();
    }
}

// A thread overwrites what the sandbox has in the process, and others work on.
static void overwrite(long seed) {
    random_state += seed * 0x9e3779b97f4a7c15;
    pthread_t other;
    pthread_create(&other, 0, scribble, 0);
    calls(0);
}

static int overwriting(void) {
    for (long i = 0; i < count; i++) survive(overwrite, i);
    printf("%d lives\n", count);
    return 0;
}

// Nothing, until a signal comes.
static int idle(void) {
    printf("ready\n");
    for (;;) pause();
}

static int spin(void) {
    printf("ready\n");
    for (;;) {}
}

static int hello(void) {
    printf("hello\n");
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    count = argc > 2 ? atoi(argv[2]) : 0;
    static const struct {
        const char *name;
        int (*run)(void);
    } commands[] = {{"threads", threads}, {"processes", processes}, {"bomb", bomb}, {"vforks", vforks}, {"address-space", address_space}, {"eat", eat},
        {"tables", tables}, {"tracers", tracers}, {"forks", forks}, {"load", load}, {"unmap", unmap}, {"mappings", mappings},
        {"jumps", jumps}, {"gs", gs}, {"overwriting", overwriting}, {"idle", idle}, {"spin", spin}, {"hello", hello}};
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (argc > 1 && !strcmp(argv[1], commands[i].name)) return commands[i].run();
    return 64;
}
