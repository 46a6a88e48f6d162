// Futexes: every operation, private and shared.
#include "compat.h"
#include <linux/futex.h>

static long futex(void *a, int op, unsigned v, const struct timespec *t, void *b, unsigned v3) {
    return syscall(SYS_futex, a, op, v, t, b, v3);
}
#define FUTEX2(a, op, v, n, b, v3) syscall(SYS_futex, a, op, v, (long)(n), b, v3)
#define PRIV FUTEX_PRIVATE_FLAG

struct waiter {
    int *word;
    int op;
    unsigned val, bits;
    volatile pid_t tid;
    long result;
    int err;
    pthread_t t;
};

static void *waits(void *arg) {
    struct waiter *w = arg;
    w->tid = gettid();
    w->result = futex(w->word, w->op, w->val, 0, 0, w->bits);
    w->err = errno;
    return 0;
}

// A thread that is asleep on the word.
static void begin(struct waiter *w) {
    w->tid = 0;
    w->t = start(waits, w);
    while (!w->tid) usleep(100);
    wait_asleep(w->tid);
}

static bool asleep(struct waiter *w) {
    for (int i = 0; i < 20; i++) {
        if (state_of(w->tid) != 'S') return false;
        usleep(500);
    }
    return true;
}

TEST(wait_returns_eagain_on_other_value) {
    int w = 1;
    CHECK_ERRNO(futex(&w, FUTEX_WAIT, 0, 0, 0, 0), EAGAIN);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT | PRIV, 2, 0, 0, 0), EAGAIN);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT_BITSET | PRIV, 2, 0, 0, 1), EAGAIN);
}

TEST(wake_without_waiters) {
    int w = 1;
    CHECK_EQ(futex(&w, FUTEX_WAKE, 1, 0, 0, 0), 0);
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, INT_MAX, 0, 0, 0), 0);
}

TEST(wake_counts_threads) {
    int w = 5;
    struct waiter a[4];
    for (int i = 0; i < 4; i++) {
        a[i] = (struct waiter){&w, FUTEX_WAIT | PRIV, 5};
        begin(&a[i]);
    }
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 1);
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 2, 0, 0, 0), 2);
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 100, 0, 0, 0), 1);
    for (int i = 0; i < 4; i++) {
        finish(a[i].t);
        CHECK_EQ(a[i].result, 0);
    }
}

TEST(wake_zero_wakes_one) {
    // The count is checked after the first wake.
    int w = 0;
    struct waiter a = {&w, FUTEX_WAIT | PRIV, 0};
    begin(&a);
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 0, 0, 0, 0), 1);
    finish(a.t);
}

TEST(wake_order_is_fifo) {
    int w = 0;
    struct waiter a[3];
    for (int i = 0; i < 3; i++) {
        a[i] = (struct waiter){&w, FUTEX_WAIT | PRIV, 0};
        begin(&a[i]);
    }
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 1);
        finish(a[i].t);
        for (int j = i + 1; j < 3; j++) CHECK(asleep(&a[j]));
    }
}

TEST(private_and_shared_are_different) {
    int w = 0;
    struct waiter a = {&w, FUTEX_WAIT | PRIV, 0};
    begin(&a);
    CHECK_EQ(futex(&w, FUTEX_WAKE, 1, 0, 0, 0), 0);
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 1);
    finish(a.t);
}

TEST(alignment_and_faults) {
    int w[2] = {0};
    CHECK_ERRNO(futex((char *)w + 1, FUTEX_WAIT, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(futex((char *)w + 2, FUTEX_WAKE, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(futex((void *)16, FUTEX_WAIT, 0, 0, 0, 0), EFAULT);
    CHECK_ERRNO(futex((void *)16, FUTEX_WAKE, 1, 0, 0, 0), EFAULT);
    CHECK_EQ(futex((void *)16, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 0); // not touched
    CHECK_ERRNO(futex((void *)16, FUTEX_WAIT | PRIV, 0, 0, 0, 0), EFAULT);
    CHECK_ERRNO(futex((void *)0x8000000000000000, FUTEX_WAKE | PRIV, 1, 0, 0, 0), EFAULT);
    CHECK_ERRNO(futex(w, FUTEX_WAIT, 0, (void *)8, 0, 0), EFAULT);
    CHECK_ERRNO(futex(w, 99, 0, 0, 0, 0), ENOSYS);
    CHECK_ERRNO(futex(w, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, 0, 0, 0), ENOSYS);
    CHECK_ERRNO(futex(w, FUTEX_FD, 1, 0, 0, 0), ENOSYS);
}

TEST(wait_timeout_is_relative) {
    int w = 0;
    struct timespec t = {0, 20000000}, bad = {0, 1000000000}, neg = {-1, 0};
    int64_t t0 = now_ms();
    CHECK_ERRNO(futex(&w, FUTEX_WAIT | PRIV, 0, &t, 0, 0), ETIMEDOUT);
    CHECK(now_ms() - t0 >= 19);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT | PRIV, 0, &bad, 0, 0), EINVAL);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT | PRIV, 0, &neg, 0, 0), EINVAL);
    t = (struct timespec){0};
    CHECK_ERRNO(futex(&w, FUTEX_WAIT | PRIV, 0, &t, 0, 0), ETIMEDOUT);
}

TEST(wait_bitset_timeout_is_absolute) {
    int w = 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT_BITSET | PRIV, 0, &t, 0, ~0u), ETIMEDOUT);
    clock_gettime(CLOCK_REALTIME, &t);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT_BITSET | PRIV | FUTEX_CLOCK_REALTIME, 0, &t, 0, ~0u), ETIMEDOUT);
    t.tv_nsec += 30000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    CHECK_ERRNO(futex(&w, FUTEX_WAIT_BITSET | PRIV | FUTEX_CLOCK_REALTIME, 0, &t, 0, ~0u), ETIMEDOUT);
    struct timespec n;
    clock_gettime(CLOCK_REALTIME, &n);
    CHECK(n.tv_sec > t.tv_sec || (n.tv_sec == t.tv_sec && n.tv_nsec >= t.tv_nsec));
}

TEST(bitsets_select_waiters) {
    int w = 0;
    struct waiter a = {&w, FUTEX_WAIT_BITSET | PRIV, 0, 1}, b = {&w, FUTEX_WAIT_BITSET | PRIV, 0, 2},
                  c = {&w, FUTEX_WAIT | PRIV, 0};
    begin(&a), begin(&b), begin(&c);
    CHECK_EQ(futex(&w, FUTEX_WAKE_BITSET | PRIV, 10, 0, 0, 4), 1); // c waits for all bits
    finish(c.t);
    CHECK_EQ(futex(&w, FUTEX_WAKE_BITSET | PRIV, 10, 0, 0, 2), 1);
    finish(b.t);
    CHECK_EQ(futex(&w, FUTEX_WAKE_BITSET | PRIV, 10, 0, 0, 3), 1);
    finish(a.t);
    CHECK_ERRNO(futex(&w, FUTEX_WAKE_BITSET | PRIV, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(futex(&w, FUTEX_WAIT_BITSET | PRIV, 0, 0, 0, 0), EINVAL);
}

TEST(requeue_moves_waiters) {
    int x = 0, y = 0;
    struct waiter a[3];
    for (int i = 0; i < 3; i++) {
        a[i] = (struct waiter){&x, FUTEX_WAIT | PRIV, 0};
        begin(&a[i]);
    }
    CHECK_EQ(FUTEX2(&x, FUTEX_REQUEUE | PRIV, 1, 10, &y, 0), 3); // one woken, two moved
    finish(a[0].t);
    CHECK_EQ(futex(&x, FUTEX_WAKE | PRIV, 10, 0, 0, 0), 0);
    CHECK_EQ(futex(&y, FUTEX_WAKE | PRIV, 10, 0, 0, 0), 2);
    finish(a[1].t), finish(a[2].t);
}

TEST(cmp_requeue_checks_value) {
    int x = 3, y = 0;
    struct waiter a = {&x, FUTEX_WAIT | PRIV, 3}, b = a;
    begin(&a), begin(&b);
    CHECK_ERRNO(FUTEX2(&x, FUTEX_CMP_REQUEUE | PRIV, 1, 10, &y, 4), EAGAIN);
    CHECK_EQ(FUTEX2(&x, FUTEX_CMP_REQUEUE | PRIV, 0, 1, &y, 3), 1);
    CHECK_EQ(futex(&y, FUTEX_WAKE | PRIV, 10, 0, 0, 0), 1);
    CHECK_EQ(futex(&x, FUTEX_WAKE | PRIV, 10, 0, 0, 0), 1);
    finish(a.t), finish(b.t);
    CHECK_ERRNO(FUTEX2(&x, FUTEX_CMP_REQUEUE | PRIV, -1, 1, &y, 3), EINVAL);
    CHECK_ERRNO(FUTEX2(&x, FUTEX_CMP_REQUEUE | PRIV, 1, -1, &y, 3), EINVAL);
}

TEST(wake_op) {
    int x = 0, y = 5;
    struct waiter a = {&x, FUTEX_WAIT | PRIV, 0}, b = {&y, FUTEX_WAIT | PRIV, 5};
    begin(&a), begin(&b);
    // y += 3; wake one of x; and one of y as the old y was > 4.
    CHECK_EQ(FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_GT, 4)), 2);
    finish(a.t), finish(b.t);
    CHECK_EQ(y, 8);
    b = (struct waiter){&y, FUTEX_WAIT | PRIV, 8};
    begin(&b);
    CHECK_EQ(FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 7)), 0);
    CHECK_EQ(y, 1);
    CHECK(asleep(&b));
    CHECK_EQ(FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(FUTEX_OP_OR, 6, FUTEX_OP_CMP_NE, 7)), 1);
    finish(b.t);
    CHECK_EQ(y, 7);
    FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(FUTEX_OP_ANDN, 2, FUTEX_OP_CMP_LT, 0));
    CHECK_EQ(y, 5);
    FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(FUTEX_OP_XOR, 15, FUTEX_OP_CMP_LE, 0));
    CHECK_EQ(y, 10);
    FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP((FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT), 8, FUTEX_OP_CMP_GE, 0));
    CHECK_EQ(y, 256);
    CHECK_ERRNO(FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, 16, FUTEX_OP(FUTEX_OP_SET, 1, 0, 0)), EFAULT);
    CHECK_ERRNO(FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(7, 1, 0, 0)), ENOSYS);
}

TEST(wake_op_is_atomic) {
    static int x, y;
    void *f(void *a) {
        for (int i = 0; i < 2000; i++) FUTEX2(&x, FUTEX_WAKE_OP | PRIV, 1, 1, &y, FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_LT, -1));
        return a;
    }
    pthread_t t[3];
    for (int i = 0; i < 3; i++) t[i] = start(f, 0);
    for (int i = 0; i < 2000; i++) __atomic_fetch_add(&y, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 3; i++) finish(t[i]);
    CHECK_EQ(y, 8000);
}

TEST(shared_between_processes_by_anonymous_mapping) {
    int *w = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t p;
    CHILD(p) {
        while (__atomic_load_n(w, __ATOMIC_SEQ_CST) == 0) futex(w, FUTEX_WAIT, 0, 0, 0, 0);
        CHECK_EQ(*w, 9);
    }
    wait_asleep(p);
    CHECK_EQ(futex(w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 0);
    *w = 9;
    CHECK_EQ(futex(w, FUTEX_WAKE, 1, 0, 0, 0), 1);
    JOIN(p);
}

TEST(shared_by_file_at_other_addresses) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 8192));
    int *a = OK(mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    pid_t p;
    CHILD(p) {
        int *b = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096));
        CHECK(b != a + 1024);
        CHECK_EQ(futex(b + 2, FUTEX_WAIT, 0, 0, 0, 0), 0);
    }
    wait_asleep(p);
    CHECK_EQ(futex(a + 2, FUTEX_WAKE, 1, 0, 0, 0), 0);
    CHECK_EQ(futex(a + 1026, FUTEX_WAKE, 1, 0, 0, 0), 1);
    JOIN(p);
}

TEST(forked_private_memory_is_another_futex) {
    static int w;
    pid_t p;
    CHILD(p) {
        struct timespec t = {0, 30000000};
        CHECK_ERRNO(futex(&w, FUTEX_WAIT, 0, &t, 0, 0), ETIMEDOUT);
    }
    wait_asleep(p);
    CHECK_EQ(futex(&w, FUTEX_WAKE, 1, 0, 0, 0), 0);
    JOIN(p);
}

TEST(readonly_mapping_can_wait) {
    int *w = OK(mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct timespec t = {0, 1000000};
    CHECK_ERRNO(futex(w, FUTEX_WAIT | PRIV, 0, &t, 0, 0), ETIMEDOUT);
    CHECK_EQ(futex(w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 0);
}

static void nothing(int sig) { (void)sig; }

TEST(signal_gives_eintr_without_restart) {
    int w = 0;
    handle(SIGUSR1, nothing, 0);
    struct waiter a = {&w, FUTEX_WAIT | PRIV, 0};
    begin(&a);
    OK(tgkill(getpid(), a.tid, SIGUSR1));
    finish(a.t);
    CHECK_EQ(a.result, -1);
    CHECK_EQ(a.err, EINTR);
}

TEST(signal_restarts_with_sa_restart) {
    int w = 0;
    handle(SIGUSR1, nothing, SA_RESTART);
    struct waiter a = {&w, FUTEX_WAIT | PRIV, 0};
    begin(&a);
    for (int i = 0; i < 5; i++) {
        OK(tgkill(getpid(), a.tid, SIGUSR1));
        usleep(1000);
    }
    wait_asleep(a.tid);
    CHECK_EQ(futex(&w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 1);
    finish(a.t);
    CHECK_EQ(a.result, 0);
}

// ---- priority inheritance

TEST(lock_pi_uncontended) {
    unsigned w = 0;
    OK(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    CHECK_EQ(w, gettid());
    CHECK_ERRNO(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0), EDEADLK);
    CHECK_ERRNO(futex(&w, FUTEX_TRYLOCK_PI | PRIV, 0, 0, 0, 0), EDEADLK);
    OK(futex(&w, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
    CHECK_EQ(w, 0);
    CHECK_ERRNO(futex(&w, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0), EPERM);
}

static void *lock_pi(void *arg) {
    struct waiter *w = arg;
    w->tid = gettid();
    w->result = futex(w->word, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
    if (!w->result) {
        CHECK_EQ(*w->word & FUTEX_TID_MASK, gettid());
        CHECK_EQ(futex(w->word, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0), 0);
    }
    return 0;
}

TEST(lock_pi_hands_over) {
    int w = 0;
    OK(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    struct waiter a = {.word = &w};
    a.t = start(lock_pi, &a);
    while (!a.tid) usleep(100);
    wait_asleep(a.tid);
    CHECK_EQ(w, gettid() | (int)FUTEX_WAITERS);
    OK(futex(&w, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
    finish(a.t);
    CHECK_EQ(a.result, 0);
    CHECK_EQ(w & FUTEX_TID_MASK, 0);
}

TEST(lock_pi_timeout_and_errnos) {
    static int w;
    OK(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    void *f(void *a) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t); // absolute
        CHECK_ERRNO(futex(&w, FUTEX_LOCK_PI | PRIV, 0, &t, 0, 0), ETIMEDOUT);
        CHECK_ERRNO(futex(&w, FUTEX_TRYLOCK_PI | PRIV, 0, 0, 0, 0), EAGAIN);
        CHECK_ERRNO(futex(&w, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0), EPERM);
        return a;
    }
    finish(start(f, 0));
    int none = 31998; // no such thread
    CHECK_ERRNO(futex(&none, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0), ESRCH);
}

TEST(pi_mutex_of_libc) {
    static pthread_mutex_t m;
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    CHECK_EQ(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT), 0);
    CHECK_EQ(pthread_mutex_init(&m, &a), 0);
    static long n;
    void *f(void *x) {
        for (int i = 0; i < 300; i++) {
            CHECK_EQ(pthread_mutex_lock(&m), 0);
            n++;
            if (i % 16 == 0) sched_yield();
            CHECK_EQ(pthread_mutex_unlock(&m), 0);
        }
        return x;
    }
    pthread_t t[3];
    for (int i = 0; i < 3; i++) t[i] = start(f, 0);
    for (int i = 0; i < 3; i++) finish(t[i]);
    CHECK_EQ(n, 900);
}

TEST(condition_variable_with_pi_mutex) {
    static pthread_mutex_t m;
    static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    static int ready;
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&m, &a);
    void *f(void *x) {
        pthread_mutex_lock(&m);
        while (!ready) pthread_cond_wait(&c, &m);
        pthread_mutex_unlock(&m);
        return x;
    }
    pthread_t t = start(f, 0);
    pthread_mutex_lock(&m);
    ready = 1;
    pthread_cond_broadcast(&c);
    pthread_mutex_unlock(&m);
    finish(t);
}

// FUTEX_WAIT_REQUEUE_PI: what a condition variable with priority inheritance uses.
static void *wait_requeue_pi(void *arg) {
    int **w = arg;
    *(volatile pid_t *)w[2] = gettid();
    long r = futex(w[0], FUTEX_WAIT_REQUEUE_PI | PRIV, 0, 0, w[1], 0);
    CHECK_EQ(r, 0);
    CHECK_EQ(*w[1] & FUTEX_TID_MASK, gettid());
    CHECK_EQ(futex(w[1], FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0), 0);
    return 0;
}

TEST(cmp_requeue_pi) {
    int cond = 0, lock = 0, tid = 0;
    int *w[3] = {&cond, &lock, &tid};
    pthread_t t = start(wait_requeue_pi, w);
    while (!*(volatile int *)&tid) usleep(100);
    wait_asleep(tid);
    OK(futex(&lock, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    CHECK_EQ(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 0, &lock, 0), 1);
    CHECK_ERRNO(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 2, 0, &lock, 0), EINVAL);
    OK(futex(&lock, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
    finish(t);
}

TEST(robust_pi_owner_dies) {
    pthread_mutex_t *m = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    CHECK_EQ(pthread_mutex_init(m, &a), 0);
    int g[2];
    OK(pipe(g));
    pid_t p;
    CHILD(p) {
        pthread_mutex_lock(m);
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    pid_t q;
    CHILD(q) {
        CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
        CHECK_EQ(pthread_mutex_consistent(m), 0);
        CHECK_EQ(pthread_mutex_unlock(m), 0);
    }
    wait_asleep(q);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
    JOIN(q);
}

// ---- futex_waitv (5.16)

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
static long waitv(struct futex_waitv *v, unsigned n, unsigned flags, struct timespec *t, int clock) {
    return syscall(SYS_futex_waitv, v, n, flags, t, clock);
}

TEST(waitv_errnos) {
    int x = 1;
    struct futex_waitv v[2] = {{.uaddr = (uintptr_t)&x, .val = 0, .flags = FUTEX_32 | PRIV}};
    CHECK_ERRNO(waitv(v, 1, 0, 0, 0), EAGAIN);
    CHECK_ERRNO(waitv(v, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(waitv(v, 129, 0, 0, 0), EINVAL);
    CHECK_ERRNO(waitv(v, 1, 1, 0, 0), EINVAL);
    CHECK_ERRNO(waitv(0, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(waitv((void *)8, 1, 0, 0, 0), EFAULT);
    v[0].__reserved = 1;
    CHECK_ERRNO(waitv(v, 1, 0, 0, 0), EINVAL);
    v[0] = (struct futex_waitv){.uaddr = (uintptr_t)&x, .val = 1, .flags = PRIV};
    CHECK_ERRNO(waitv(v, 1, 0, 0, 0), EINVAL); // no size
    v[0].flags = FUTEX_32 | PRIV;
    struct timespec t = {0};
    CHECK_ERRNO(waitv(v, 1, 0, &t, CLOCK_MONOTONIC), ETIMEDOUT);
    CHECK_ERRNO(waitv(v, 1, 0, &t, 7), EINVAL);
}

static struct futex_waitv wv[3];
static volatile pid_t wv_tid;
static void *waitv_thread(void *arg) {
    wv_tid = gettid();
    return (void *)waitv(arg, 3, 0, 0, 0);
}

TEST(waitv_returns_index_of_woken) {
    int x[3] = {0};
    for (int i = 0; i < 3; i++) wv[i] = (struct futex_waitv){.uaddr = (uintptr_t)&x[i], .val = 0, .flags = FUTEX_32 | PRIV};
    pthread_t t = start(waitv_thread, wv);
    while (!wv_tid) usleep(100);
    wait_asleep(wv_tid);
    CHECK_EQ(futex(&x[1], FUTEX_WAKE | PRIV, 1, 0, 0, 0), 1);
    CHECK_EQ((long)finish(t), 1);
    CHECK_EQ(futex(&x[0], FUTEX_WAKE | PRIV, 1, 0, 0, 0), 0); // no longer queued
}

// ---- priority inheritance: what goes wrong

static int pi_locks[2];
static void *lock_both(void *arg) {
    struct waiter *w = arg;
    CHECK_EQ(futex(&pi_locks[1], FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0), 0);
    w->tid = gettid();
    w->result = futex(&pi_locks[0], FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0);
    w->err = errno;
    CHECK_EQ(futex(&pi_locks[0], FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0), 0);
    CHECK_EQ(futex(&pi_locks[1], FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0), 0);
    return 0;
}

TEST(lock_pi_in_a_circle_is_edeadlk) {
    OK(futex(&pi_locks[0], FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    struct waiter a = {0};
    a.t = start(lock_both, &a);
    while (!a.tid) usleep(100);
    wait_asleep(a.tid);
    CHECK_ERRNO(futex(&pi_locks[1], FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0), EDEADLK);
    OK(futex(&pi_locks[0], FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
    finish(a.t);
    CHECK_EQ(a.result, 0);
}

TEST(lock_pi_falls_to_heir_when_owner_ends) {
    int *w = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int g[2];
    OK(pipe(g));
    pid_t p, q;
    CHILD(p) {
        OK(futex(w, FUTEX_LOCK_PI, 0, 0, 0, 0));
        gate_open(g[1]);
        for (;;) pause();
    }
    gate_wait(g[0]);
    CHECK_EQ(*w, p);
    CHILD(q) {
        OK(futex(w, FUTEX_LOCK_PI, 0, 0, 0, 0));
        CHECK_EQ(*w, getpid() | (int)FUTEX_WAITERS | FUTEX_OWNER_DIED);
        OK(futex(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
        CHECK_EQ(*w, 0);
    }
    wait_asleep(q);
    CHECK_EQ(*w, p | (int)FUTEX_WAITERS);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
    JOIN(q);
    // Without a waiter at the time of death nobody takes over: the word names a thread that is gone.
    *w = p;
    CHECK_ERRNO(futex(w, FUTEX_LOCK_PI, 0, 0, 0, 0), ESRCH);
    CHECK_EQ(*w, p | (int)FUTEX_WAITERS);
    // With the mark of a dead owner and no thread it can be taken.
    *w = FUTEX_OWNER_DIED;
    OK(futex(w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    CHECK_EQ(*w, gettid() | FUTEX_OWNER_DIED);
}

TEST(pi_and_plain_waiters_do_not_mix) {
    int w = 0;
    OK(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    struct waiter a = {.word = &w};
    a.t = start(lock_pi, &a);
    while (!a.tid) usleep(100);
    wait_asleep(a.tid);
    CHECK_ERRNO(futex(&w, FUTEX_WAKE | PRIV, 1, 0, 0, 0), EINVAL);
    int other = 0;
    CHECK_ERRNO(FUTEX2(&w, FUTEX_REQUEUE | PRIV, 0, 1, &other, 0), EINVAL);
    // The word contradicts what the kernel knows.
    int good = w;
    w = getppid() | FUTEX_WAITERS;
    CHECK_ERRNO(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0), EINVAL);
    w = good;
    OK(futex(&w, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
    finish(a.t);

    int plain = 1;
    struct waiter b = {&plain, FUTEX_WAIT | PRIV, 1};
    begin(&b);
    CHECK_ERRNO(futex(&plain, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(FUTEX2(&plain, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 0, &other, 1), EINVAL);
    CHECK_EQ(futex(&plain, FUTEX_WAKE | PRIV, 1, 0, 0, 0), 1);
    finish(b.t);
}

TEST(lock_pi_signal_restarts) {
    int w = 0;
    handle(SIGUSR1, nothing, 0); // also without SA_RESTART
    OK(futex(&w, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    struct waiter a = {.word = &w};
    a.t = start(lock_pi, &a);
    while (!a.tid) usleep(100);
    wait_asleep(a.tid);
    OK(tgkill(getpid(), a.tid, SIGUSR1));
    msleep(2);
    wait_asleep(a.tid);
    OK(futex(&w, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
    finish(a.t);
    CHECK_EQ(a.result, 0);
}

TEST(lock_pi2_takes_the_monotonic_clock) {
    static int w;
    OK(futex(&w, FUTEX_LOCK_PI2 | PRIV, 0, 0, 0, 0));
    void *f(void *a) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += 2000000;
        if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
        CHECK_ERRNO(futex(&w, FUTEX_LOCK_PI2 | PRIV, 0, &t, 0, 0), ETIMEDOUT);
        clock_gettime(CLOCK_REALTIME, &t);
        CHECK_ERRNO(futex(&w, FUTEX_LOCK_PI2 | FUTEX_CLOCK_REALTIME | PRIV, 0, &t, 0, 0), ETIMEDOUT);
        CHECK_ERRNO(futex(&w, FUTEX_LOCK_PI | FUTEX_CLOCK_REALTIME | PRIV, 0, &t, 0, 0), ENOSYS);
        return a;
    }
    finish(start(f, 0));
}

TEST(wait_requeue_pi_errnos) {
    int cond = 0, lock = 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    CHECK_ERRNO(futex(&cond, FUTEX_WAIT_REQUEUE_PI | PRIV, 0, &t, &lock, 0), ETIMEDOUT);
    CHECK_ERRNO(futex(&cond, FUTEX_WAIT_REQUEUE_PI | PRIV, 1, &t, &lock, 0), EAGAIN);
    CHECK_ERRNO(futex(&cond, FUTEX_WAIT_REQUEUE_PI | PRIV, 0, &t, &cond, 0), EINVAL);
    CHECK_EQ(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 1, &lock, 0), 0); // nobody waits
    CHECK_ERRNO(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 1, &cond, 0), EINVAL);
    CHECK_ERRNO(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 0, 1, &lock, 0), EINVAL);
    CHECK_ERRNO(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 1, &lock, 7), EAGAIN);
}

TEST(cmp_requeue_pi_moves_the_rest) {
    int cond = 0, lock = 0, tids[3] = {0};
    int *w[3][3];
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        w[i][0] = &cond;
        w[i][1] = &lock;
        w[i][2] = &tids[i];
        t[i] = start(wait_requeue_pi, w[i]);
        while (!*(volatile int *)&tids[i]) usleep(100);
        wait_asleep(tids[i]);
    }
    // The waiters are there to be moved to that lock, and to be woken by nothing else.
    int other = 0;
    CHECK_ERRNO(futex(&cond, FUTEX_WAKE | PRIV, 1, 0, 0, 0), EINVAL);
    CHECK_ERRNO(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 9, &other, 0), EINVAL);
    // The lock is free: the first gets it at once, and the others wait for it.
    CHECK_EQ(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 9, &lock, 0), 3);
    for (int i = 0; i < 3; i++) finish(t[i]);
    CHECK_EQ(lock & FUTEX_TID_MASK, 0);
}

TEST(cmp_requeue_pi_then_signal) {
    int cond = 0, lock = 0;
    static volatile pid_t tid;
    static long result;
    static int err, *words[2];
    words[0] = &cond;
    words[1] = &lock;
    handle(SIGUSR1, nothing, SA_RESTART);
    void *f(void *a) {
        tid = gettid();
        result = futex(words[0], FUTEX_WAIT_REQUEUE_PI | PRIV, 0, 0, words[1], 0);
        err = errno;
        return a;
    }
    OK(futex(&lock, FUTEX_LOCK_PI | PRIV, 0, 0, 0, 0));
    pthread_t t = start(f, 0);
    while (!tid) usleep(100);
    wait_asleep(tid);
    // Not moved yet: the call goes on after the handler.
    OK(tgkill(getpid(), tid, SIGUSR1));
    msleep(2);
    wait_asleep(tid);
    CHECK_EQ(FUTEX2(&cond, FUTEX_CMP_REQUEUE_PI | PRIV, 1, 0, &lock, 0), 1);
    msleep(2);
    OK(tgkill(getpid(), tid, SIGUSR1));
    finish(t);
    CHECK_EQ(result, -1);
    CHECK_EQ(err, EAGAIN);
    OK(futex(&lock, FUTEX_UNLOCK_PI | PRIV, 0, 0, 0, 0));
}

// ---- futex_wake, futex_wait and futex_requeue (6.7)

#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#define SYS_futex_wait 455
#define SYS_futex_requeue 456
#endif

static void *wait2(void *arg) {
    struct waiter *w = arg;
    w->tid = gettid();
    w->result = syscall(SYS_futex_wait, w->word, w->val, w->bits, FUTEX_32 | PRIV, 0, 0);
    w->err = errno;
    return 0;
}

TEST(calls_of_6_7) {
    int x = 0, y = 0;
    if (syscall(SYS_futex_wake, &x, 1, 1, FUTEX_32 | PRIV) < 0 && errno == ENOSYS) SKIP("no futex_wake");
    CHECK_ERRNO(syscall(SYS_futex_wake, &x, 0, 1, FUTEX_32 | PRIV), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wake, &x, 1, 1, PRIV), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wake, &x, 1l << 32, 1, FUTEX_32 | PRIV), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wake, (char *)&x + 1, 1, 1, FUTEX_32 | PRIV), EINVAL);
    struct timespec t = {0};
    CHECK_ERRNO(syscall(SYS_futex_wait, &x, 1, 1, FUTEX_32 | PRIV, 0, 0), EAGAIN);
    CHECK_ERRNO(syscall(SYS_futex_wait, &x, 0, 0, FUTEX_32 | PRIV, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wait, &x, 0, 1, FUTEX_32 | PRIV, &t, 7), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_wait, &x, 0, 1, FUTEX_32 | PRIV, &t, CLOCK_MONOTONIC), ETIMEDOUT);
    CHECK_ERRNO(syscall(SYS_futex_wait, &x, 0, 1, FUTEX_32 | PRIV, &t, CLOCK_REALTIME), ETIMEDOUT);
    struct waiter a[2];
    for (int i = 0; i < 2; i++) {
        a[i] = (struct waiter){&x, 0, 0, 2};
        a[i].t = start(wait2, &a[i]);
        while (!a[i].tid) usleep(100);
        wait_asleep(a[i].tid);
    }
    CHECK_EQ(syscall(SYS_futex_wake, &x, 1, 9, FUTEX_32 | PRIV), 0); // other bits
    CHECK_EQ(syscall(SYS_futex_wake, &x, 2, 0, FUTEX_32 | PRIV), 0); // none is none
    struct futex_waitv v[2] = {{.uaddr = (uintptr_t)&x, .val = 1, .flags = FUTEX_32 | PRIV},
                               {.uaddr = (uintptr_t)&y, .val = 0, .flags = FUTEX_32 | PRIV}};
    CHECK_ERRNO(syscall(SYS_futex_requeue, v, 0, 1, 1), EAGAIN);
    v[0].val = 0;
    CHECK_ERRNO(syscall(SYS_futex_requeue, v, 1, 1, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_futex_requeue, v, 0, -1, 1), EINVAL);
    CHECK_EQ(syscall(SYS_futex_requeue, v, 0, 0, 1), 1);
    CHECK_EQ(syscall(SYS_futex_wake, &x, 2, 9, FUTEX_32 | PRIV), 1);
    CHECK_EQ(syscall(SYS_futex_wake, &y, 2, 9, FUTEX_32 | PRIV), 1);
    for (int i = 0; i < 2; i++) {
        finish(a[i].t);
        CHECK_EQ(a[i].result, 0);
    }
}

TEST(shared_futexes_need_a_readable_page) {
    char *gone = OK(mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *none = gone + 4096;
    OK(mprotect(none, 4096, PROT_NONE));
    OK(munmap(gone, 4096));
    CHECK_ERRNO(syscall(SYS_futex, gone, FUTEX_WAKE, 1, 0, 0, 0), EFAULT);
    CHECK_ERRNO(syscall(SYS_futex, none, FUTEX_WAKE, 1, 0, 0, 0), EFAULT);
    // A private one is but an address.
    CHECK_EQ(syscall(SYS_futex, gone, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0, 0, 0), 0);
    int word = 5;
    CHECK_ERRNO(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 1, 1, gone, 5), EFAULT);
    CHECK_ERRNO(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 1, 1, none, 5), EFAULT);
    // A page beyond the end of its file is not there.
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 4096));
    int *page = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    CHECK_EQ(syscall(SYS_futex, page, FUTEX_WAKE, 1, 0, 0, 0), 0);
    OK(ftruncate(fd, 0));
    CHECK_ERRNO(syscall(SYS_futex, page, FUTEX_WAKE, 1, 0, 0, 0), EFAULT);
}
