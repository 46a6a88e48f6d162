// Threads: creation in numbers, thread-local storage, ids, robust lists, signals to threads.
#include "compat.h"
#include <asm/prctl.h>
#include <linux/futex.h>

static void *ret_arg(void *arg) { return arg; }

static int gate[2];
static void *wait_gate(void *arg) {
    char c;
    CHECK_EQ(read(gate[0], &c, 1), 0);
    return arg;
}

TEST(create_and_join) {
    for (long i = 0; i < 200; i++) CHECK_EQ((long)finish(start(ret_arg, (void *)i)), i);
}

TEST(two_thousand_at_once) {
    enum { N = 2000 };
    static pthread_t t[N];
    OK(pipe(gate));
    pthread_attr_t a;
    CHECK_EQ(pthread_attr_init(&a), 0);
    CHECK_EQ(pthread_attr_setstacksize(&a, 65536), 0);
    for (long i = 0; i < N; i++) {
        int e = pthread_create(&t[i], &a, wait_gate, (void *)i);
        if (e) FAIL("thread %ld: %s", i, strerrorname_np(e));
    }
    char buf[2048], *p;
    CHECK(read_file("/proc/self/status", buf, sizeof buf) > 0);
    CHECK((p = strstr(buf, "Threads:")));
    CHECK_EQ(atoi(p + 8), N + 1);
    OK(close(gate[1]));
    for (long i = 0; i < N; i++) CHECK_EQ((long)finish(t[i]), i);
}

static __thread long tls = 7;
static void *tls_thread(void *arg) {
    CHECK_EQ(tls, 7);
    for (int i = 0; i < 200; i++) {
        tls = (long)arg + i;
        sched_yield();
        CHECK_EQ(tls, (long)arg + i);
    }
    return 0;
}

TEST(thread_local_storage) {
    pthread_t t[8];
    for (long i = 0; i < 8; i++) t[i] = start(tls_thread, (void *)(i * 1000));
    for (int i = 0; i < 8; i++) finish(t[i]);
    CHECK_EQ(tls, 7);
}

static void *fpu_thread(void *arg) {
    double x = (long)arg + 0.5, sum = 0;
    for (int i = 0; i < 300; i++) {
        sum += x;
        if (i % 10 == 0) sched_yield();
    }
    CHECK(sum == x * 300);
    return 0;
}

TEST(fpu_state_is_per_thread) {
    pthread_t t[8];
    for (long i = 0; i < 8; i++) t[i] = start(fpu_thread, (void *)i);
    for (int i = 0; i < 8; i++) finish(t[i]);
}

static void *ids_thread(void *arg) {
    pid_t *out = arg;
    out[0] = getpid(), out[1] = gettid(), out[2] = getppid();
    return 0;
}

TEST(ids_of_threads) {
    pid_t a[3], b[3];
    finish(start(ids_thread, a));
    finish(start(ids_thread, b));
    CHECK_EQ(a[0], getpid());
    CHECK_EQ(b[0], getpid());
    CHECK_EQ(a[2], getppid());
    CHECK(a[1] != getpid() && b[1] != getpid() && a[1] != b[1]);
    CHECK_EQ(gettid(), getpid());
}

static void *own_tid_address(void *arg) {
    (void)arg;
    CHECK_EQ(syscall(SYS_set_tid_address, arg), gettid());
    syscall(SYS_exit, 0);
    return 0;
}

TEST(set_tid_address_is_cleared_and_woken) {
    static volatile int word = 1;
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, &a, own_tid_address, (void *)&word), 0);
    while (word) syscall(SYS_futex, &word, FUTEX_WAIT, 1, 0);
    CHECK_EQ(word, 0);
}

TEST(arch_prctl_fs_and_gs) {
    unsigned long fs = 0, gs = 1, was;
    OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
    CHECK(fs);
    OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, 0);
    unsigned long block[2] = {0x1234, 0x5678};
    OK(syscall(SYS_arch_prctl, ARCH_SET_GS, block));
    asm volatile("movq %%gs:8, %0" : "=r"(was));
    CHECK_EQ(was, 0x5678);
    OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, (uintptr_t)block);
    CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_GS, 1ul << 63), EPERM);
    CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_SET_FS, 1ul << 47), EPERM);
    CHECK_ERRNO(syscall(SYS_arch_prctl, ARCH_GET_FS, 8), EFAULT);
    CHECK_ERRNO(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
}

static void *gs_thread(void *arg) {
    unsigned long gs = 1;
    OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, (uintptr_t)arg); // a new thread inherits its maker's
    OK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x1000));
    return 0;
}

TEST(gs_base_is_per_thread) {
    static long block[2];
    OK(syscall(SYS_arch_prctl, ARCH_SET_GS, block));
    finish(start(gs_thread, block));
    unsigned long gs;
    OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, (uintptr_t)block);
}

TEST(mutex_contention) {
    static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    static long n;
    void *f(void *a) {
        for (int i = 0; i < 20000; i++) {
            pthread_mutex_lock(&m);
            n++;
            pthread_mutex_unlock(&m);
        }
        return a;
    }
    pthread_t t[4];
    for (int i = 0; i < 4; i++) t[i] = start(f, 0);
    for (int i = 0; i < 4; i++) finish(t[i]);
    CHECK_EQ(n, 80000);
}

TEST(condition_variable_ping_pong) {
    static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    static int turn;
    void *f(void *a) {
        for (int i = 0; i < 500; i++) {
            pthread_mutex_lock(&m);
            while (turn != (int)(long)a) pthread_cond_wait(&c, &m);
            turn = !turn;
            pthread_cond_broadcast(&c);
            pthread_mutex_unlock(&m);
        }
        return 0;
    }
    pthread_t a = start(f, (void *)0), b = start(f, (void *)1);
    finish(a), finish(b);
    CHECK_EQ(turn, 0);
}

TEST(barrier_and_rwlock) {
    static pthread_barrier_t b;
    static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
    static int n;
    pthread_barrier_init(&b, 0, 5);
    void *f(void *a) {
        for (int i = 0; i < 50; i++) {
            pthread_rwlock_wrlock(&rw);
            n++;
            pthread_rwlock_unlock(&rw);
            pthread_barrier_wait(&b);
            pthread_rwlock_rdlock(&rw);
            CHECK_EQ(n, 5 * (i + 1));
            pthread_rwlock_unlock(&rw);
            pthread_barrier_wait(&b);
        }
        return a;
    }
    pthread_t t[5];
    for (int i = 0; i < 5; i++) t[i] = start(f, 0);
    for (int i = 0; i < 5; i++) finish(t[i]);
}

TEST(cancel_a_blocked_thread) {
    OK(pipe(gate));
    pthread_t t = start(wait_gate, 0);
    CHECK_EQ(pthread_cancel(t), 0);
    CHECK(finish(t) == PTHREAD_CANCELED);
}

// A thread dies with locks held: the kernel walks its robust list.
struct node {
    struct robust_list list;
    int futex;
};
static struct {
    struct robust_list_head head;
    struct node a, b, pending;
} rob;

static void *dies_with_locks(void *arg) {
    (void)arg;
    rob.head.list.next = &rob.a.list;
    rob.a.list.next = &rob.b.list;
    rob.b.list.next = &rob.head.list;
    rob.head.futex_offset = offsetof(struct node, futex) - offsetof(struct node, list);
    rob.head.list_op_pending = &rob.pending.list;
    OK(syscall(SYS_set_robust_list, &rob.head, sizeof rob.head));
    rob.a.futex = gettid() | FUTEX_WAITERS;
    rob.b.futex = 1; // not ours
    rob.pending.futex = gettid();
    syscall(SYS_exit, 0);
    return 0;
}

TEST(robust_list_is_walked_at_exit) {
    finish(start(dies_with_locks, 0));
    CHECK_EQ((unsigned)rob.a.futex, FUTEX_OWNER_DIED | FUTEX_WAITERS);
    CHECK_EQ(rob.b.futex, 1);
    CHECK_EQ((unsigned)rob.pending.futex, FUTEX_OWNER_DIED);
}

TEST(robust_list_errnos) {
    struct robust_list_head *h;
    size_t n;
    CHECK_ERRNO(syscall(SYS_set_robust_list, &rob.head, 8), EINVAL);
    OK(syscall(SYS_get_robust_list, 0, &h, &n));
    CHECK(h);
    CHECK_EQ(n, sizeof rob.head);
    CHECK_ERRNO(syscall(SYS_get_robust_list, 32767, &h, &n), ESRCH);
    CHECK_ERRNO(syscall(SYS_get_robust_list, 0, 8, &n), EFAULT);
}

TEST(robust_mutex_across_processes) {
    pthread_mutex_t *m = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    CHECK_EQ(pthread_mutex_init(m, &a), 0);
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        pthread_mutex_lock(m);
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    CHECK_EQ(pthread_mutex_trylock(m), EBUSY);
    OK(kill(p, SIGKILL));
    CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
    CHECK_EQ(pthread_mutex_consistent(m), 0);
    CHECK_EQ(pthread_mutex_unlock(m), 0);
    CHECK_EQ(pthread_mutex_lock(m), 0);
    CHECK_EQ(WAIT(p), SIGKILL);
}

static pid_t handled_by;
static void note_tid(int sig) {
    (void)sig;
    handled_by = gettid();
}
static void *publish_and_pause(void *arg) {
    __atomic_store_n((pid_t *)arg, gettid(), __ATOMIC_SEQ_CST);
    pause();
    return 0;
}

TEST(tgkill_reaches_the_thread) {
    handle(SIGUSR1, note_tid, 0);
    pid_t tid = 0;
    pthread_t t = start(publish_and_pause, &tid);
    while (!__atomic_load_n(&tid, __ATOMIC_SEQ_CST)) usleep(100);
    wait_asleep(tid);
    OK(tgkill(getpid(), tid, SIGUSR1));
    finish(t);
    CHECK_EQ(handled_by, tid);
}

TEST(tgkill_errnos) {
    CHECK_ERRNO(tgkill(getpid(), 0, 0), EINVAL);
    CHECK_ERRNO(tgkill(-1, gettid(), 0), EINVAL);
    CHECK_ERRNO(tgkill(getpid(), gettid(), 65), EINVAL);
    CHECK_ERRNO(tgkill(getppid(), gettid(), 0), ESRCH);
    CHECK_ERRNO(tgkill(getpid(), 32767, 0), ESRCH);
    CHECK_ERRNO(syscall(SYS_tkill, 0, 0), EINVAL);
    OK(syscall(SYS_tkill, gettid(), 0));
}

TEST(process_signal_goes_to_a_thread_that_takes_it) {
    sigset_t set = sigs(SIGUSR1, 0, 0);
    handle(SIGUSR1, note_tid, 0);
    pid_t tid = 0;
    pthread_t t = start(publish_and_pause, &tid);
    OK(pthread_sigmask(SIG_BLOCK, &set, 0));
    while (!__atomic_load_n(&tid, __ATOMIC_SEQ_CST)) usleep(100);
    wait_asleep(tid);
    OK(kill(getpid(), SIGUSR1));
    finish(t);
    CHECK_EQ(handled_by, tid);
}

static void *mask_thread(void *arg) {
    OK(pthread_sigmask(SIG_BLOCK, 0, arg));
    return 0;
}

TEST(mask_is_inherited_and_per_thread) {
    sigset_t set = sigs(SIGUSR2, 0, 0), got;
    OK(pthread_sigmask(SIG_BLOCK, &set, 0));
    finish(start(mask_thread, &got));
    CHECK(sigismember(&got, SIGUSR2));
    OK(pthread_sigmask(SIG_UNBLOCK, &set, 0));
    finish(start(mask_thread, &got));
    CHECK(!sigismember(&got, SIGUSR2));
}

static void *altstack_thread(void *arg) {
    (void)arg;
    stack_t st;
    OK(sigaltstack(0, &st));
    CHECK_EQ(st.ss_flags, SS_DISABLE);
    return 0;
}

TEST(alternate_stack_is_not_inherited) {
    stack_t st = {.ss_sp = malloc(65536), .ss_size = 65536};
    OK(sigaltstack(&st, 0));
    finish(start(altstack_thread, 0));
}

static void *segv_thread(void *arg) {
    *(volatile int *)arg = 1;
    return 0;
}

TEST(fault_in_a_thread_kills_process) {
    pid_t p;
    CHILD(p) {
        start(segv_thread, (void *)16);
        for (;;) pause();
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

static void *exit_group_thread(void *arg) { _exit((int)(long)arg); }

TEST(exit_group_from_thread_ends_blocked_threads) {
    OK(pipe(gate));
    pid_t p;
    CHILD(p) {
        for (int i = 0; i < 10; i++) start(wait_gate, 0);
        start(exit_group_thread, (void *)44);
        for (;;) pause();
    }
    CHECK_EQ(WAIT(p), W_EXIT(44));
}

TEST(threads_share_cwd_umask_and_credentials_by_libc) {
    void *f(void *a) {
        OK(chdir("/"));
        umask(055);
        return a;
    }
    finish(start(f, 0));
    char cwd[PATH_MAX];
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK_STR(cwd, "/");
    CHECK_EQ(umask(0), 055);
}

TEST(credentials_are_per_thread_in_the_kernel) {
    NEED_ROOT();
    void *f(void *a) {
        OK(syscall(SYS_setresuid, 5, 5, 5));
        CHECK_EQ(syscall(SYS_getuid), 5);
        return a;
    }
    finish(start(f, 0));
    CHECK_EQ(syscall(SYS_getuid), 0);
}

TEST(unshare_files_and_fs_in_a_thread) {
    static int fd;
    char before[PATH_MAX], after[PATH_MAX];
    fd = OK(open("/dev/null", O_RDONLY));
    CHECK(getcwd(before, sizeof before));
    void *f(void *a) {
        OK(unshare(CLONE_FILES | CLONE_FS));
        OK(close(fd));
        OK(chdir("/"));
        return a;
    }
    finish(start(f, 0));
    CHECK_EQ(fcntl(fd, F_GETFD), 0);
    CHECK(getcwd(after, sizeof after));
    CHECK_STR(after, before);
}

TEST(names_of_threads) {
    char name[32], path[64], buf[64];
    OK(prctl(PR_SET_NAME, "a-name-that-is-too-long"));
    OK(prctl(PR_GET_NAME, name));
    CHECK_STR(name, "a-name-that-is-");
    pid_t tid = 0;
    pthread_t t = start(publish_and_pause, &tid);
    while (!__atomic_load_n(&tid, __ATOMIC_SEQ_CST)) usleep(100);
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", tid);
    CHECK(read_file(path, buf, sizeof buf) > 0);
    CHECK_STR(buf, "a-name-that-is-\n"); // inherited
    CHECK_EQ(pthread_setname_np(t, "other"), 0);
    CHECK(read_file(path, buf, sizeof buf) > 0);
    CHECK_STR(buf, "other\n");
}
