// Interval timers, POSIX timers, timerfd.
#include "compat.h"
#include <sys/timerfd.h>
#include <sys/timex.h>

static volatile int hits;
static siginfo_t last;
static void count(int sig) {
    (void)sig;
    hits++;
}
static void record(int sig, siginfo_t *si, void *uc) {
    (void)sig, (void)uc;
    last = *si;
    hits++;
}
static void burn_until(volatile int *n, int want) {
    for (int64_t t = now_ms(); *n < want && now_ms() - t < 8000;) {}
}

TEST(alarm_returns_rest) {
    CHECK_EQ(alarm(100), 0);
    unsigned r = alarm(50);
    CHECK_V(r == 100 || r == 99, r);
    r = alarm(0);
    CHECK_V(r == 50 || r == 49, r);
    CHECK_EQ(alarm(0), 0);
}

TEST(itimer_real_fires_once) {
    handle(SIGALRM, record, SA_SIGINFO);
    struct itimerval it = {.it_value.tv_usec = 5000}, got;
    OK(setitimer(ITIMER_REAL, &it, 0));
    CHECK_ERRNO(pause(), EINTR);
    CHECK_EQ(hits, 1);
    CHECK_EQ(last.si_code, SI_KERNEL);
    OK(getitimer(ITIMER_REAL, &got));
    CHECK_EQ(got.it_value.tv_sec + got.it_value.tv_usec, 0);
}

TEST(itimer_real_repeats) {
    handle(SIGALRM, count, 0);
    struct itimerval it = {{0, 3000}, {0, 3000}}, old;
    OK(setitimer(ITIMER_REAL, &it, 0));
    while (hits < 5) pause();
    memset(&it, 0, sizeof it);
    OK(setitimer(ITIMER_REAL, &it, &old));
    CHECK_EQ(old.it_interval.tv_usec, 3000);
}

TEST(itimer_errnos_and_children) {
    struct itimerval it = {.it_value.tv_usec = 1000000}, got;
    CHECK_ERRNO(setitimer(ITIMER_REAL, &it, 0), EINVAL);
    it.it_value = (struct timeval){-1, 0};
    CHECK_ERRNO(setitimer(ITIMER_REAL, &it, 0), EINVAL);
    CHECK_ERRNO(setitimer(3, &it, 0), EINVAL);
    CHECK_ERRNO(getitimer(3, &got), EINVAL);
    CHECK_ERRNO(getitimer(ITIMER_REAL, (void *)8), EFAULT);
    it.it_value = (struct timeval){1000, 0};
    OK(setitimer(ITIMER_REAL, &it, 0));
    pid_t p;
    CHILD(p) {
        OK(getitimer(ITIMER_REAL, &got));
        CHECK_EQ(got.it_value.tv_sec, 0); // not inherited by fork
    }
    JOIN(p);
}

TEST(itimer_virtual_and_prof_count_cpu_time) {
    handle(SIGVTALRM, count, 0);
    struct itimerval it = {.it_value.tv_usec = 10000};
    OK(setitimer(ITIMER_VIRTUAL, &it, 0));
    msleep(20);
    CHECK_EQ(hits, 0); // sleeping does not count
    burn_until(&hits, 1);
    CHECK_EQ(hits, 1);
    handle(SIGPROF, count, 0);
    OK(setitimer(ITIMER_PROF, &it, 0));
    burn_until(&hits, 2);
    CHECK_EQ(hits, 2);
}

TEST(timer_create_signal) {
    handle(SIGRTMIN, record, SA_SIGINFO);
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 99};
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
    struct itimerspec it = {.it_value.tv_nsec = 2000000};
    OK(timer_settime(t, 0, &it, 0));
    while (!hits) pause();
    CHECK_EQ(last.si_code, SI_TIMER);
    CHECK_EQ(last.si_value.sival_int, 99);
    CHECK_EQ(last.si_overrun, 0);
    OK(timer_delete(t));
    CHECK_ERRNO(timer_delete(t), EINVAL);
    CHECK_ERRNO(timer_settime(t, 0, &it, 0), EINVAL);
}

TEST(timer_default_event_is_sigalrm) {
    handle(SIGALRM, record, SA_SIGINFO);
    timer_t t;
    OK(timer_create(CLOCK_REALTIME, 0, &t));
    struct itimerspec it = {.it_value.tv_nsec = 2000000};
    OK(timer_settime(t, 0, &it, 0));
    while (!hits) pause();
    CHECK_EQ(last.si_code, SI_TIMER);
    CHECK_EQ(last.si_value.sival_ptr == t || last.si_value.sival_int == (int)(long)t, 1);
}

TEST(timer_overrun) {
    sigset_t set = sigs(SIGRTMIN, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
    struct itimerspec it = {{0, 1000000}, {0, 1000000}};
    OK(timer_settime(t, 0, &it, 0));
    msleep(30);
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGRTMIN);
    CHECK_V(si.si_overrun >= 10, si.si_overrun);
    CHECK_V(timer_getoverrun(t) >= 10, timer_getoverrun(t));
    struct timespec zero = {0};
    OK(timer_delete(t));
    int r = sigtimedwait(&set, 0, &zero); // at most one more was queued
    if (r > 0) CHECK_ERRNO(sigtimedwait(&set, 0, &zero), EAGAIN);
}

TEST(timer_absolute_and_gettime) {
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
    struct itimerspec it = {0}, got;
    OK(timer_gettime(t, &got));
    CHECK_EQ(got.it_value.tv_sec, 0);
    clock_gettime(CLOCK_MONOTONIC, &it.it_value);
    it.it_value.tv_sec += 100;
    it.it_interval.tv_sec = 7;
    OK(timer_settime(t, TIMER_ABSTIME, &it, 0));
    OK(timer_gettime(t, &got));
    CHECK_V(got.it_value.tv_sec >= 90 && got.it_value.tv_sec <= 100, got.it_value.tv_sec);
    CHECK_EQ(got.it_interval.tv_sec, 7);
    memset(&it, 0, sizeof it);
    OK(timer_settime(t, 0, &it, &got));
    CHECK(got.it_value.tv_sec >= 90);
    OK(timer_gettime(t, &got));
    CHECK_EQ(got.it_value.tv_sec + got.it_value.tv_nsec, 0);
}

TEST(timer_in_the_past_fires_at_once) {
    handle(SIGALRM, count, 0);
    timer_t t;
    OK(timer_create(CLOCK_REALTIME, 0, &t));
    struct itimerspec it = {.it_value.tv_sec = 1};
    OK(timer_settime(t, TIMER_ABSTIME, &it, 0));
    for (int i = 0; i < 5000 && !hits; i++) usleep(1000);
    CHECK_EQ(hits, 1);
}

TEST(timer_errnos) {
    timer_t t;
    struct sigevent ev = {.sigev_notify = 77};
    CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &ev, &t), EINVAL);
    ev = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 65};
    CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &ev, &t), EINVAL);
    CHECK_ERRNO(timer_create(99, 0, &t), EINVAL);
    OK(timer_create(CLOCK_MONOTONIC, 0, &t));
    struct itimerspec it = {.it_value.tv_nsec = 1000000000};
    CHECK_ERRNO(timer_settime(t, 0, &it, 0), EINVAL);
    it.it_value.tv_nsec = -1;
    CHECK_ERRNO(timer_settime(t, 0, &it, 0), EINVAL);
    CHECK_ERRNO(timer_getoverrun((timer_t)0x7777), EINVAL);
    CHECK_ERRNO(syscall(SYS_timer_gettime, 0x7777, &it), EINVAL);
}

static volatile pid_t got_tid;
static void note_tid(int sig) {
    (void)sig;
    got_tid = gettid();
}
static void *waits(void *arg) {
    *(volatile pid_t *)arg = gettid();
    while (!got_tid) pause();
    return 0;
}

TEST(timer_thread_id) {
    handle(SIGUSR1, note_tid, 0);
    static volatile pid_t tid;
    pthread_t th = start(waits, (void *)&tid);
    while (!tid) usleep(100);
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    ev._sigev_un._tid = tid;
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
    struct itimerspec it = {{0, 2000000}, {0, 2000000}};
    OK(timer_settime(t, 0, &it, 0));
    finish(th);
    CHECK_EQ(got_tid, tid);
    ev._sigev_un._tid = getppid();
    CHECK_ERRNO(timer_create(CLOCK_MONOTONIC, &ev, &t), EINVAL);
}

static volatile int called;
static void on_timer(union sigval v) { called = v.sival_int; }

TEST(timer_sigev_thread) {
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_timer, .sigev_value.sival_int = 41};
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, &ev, &t));
    struct itimerspec it = {.it_value.tv_nsec = 2000000};
    OK(timer_settime(t, 0, &it, 0));
    for (int i = 0; i < 5000 && !called; i++) usleep(1000);
    CHECK_EQ(called, 41);
}

TEST(timer_on_cpu_clock) {
    handle(SIGALRM, count, 0);
    timer_t t;
    OK(timer_create(CLOCK_THREAD_CPUTIME_ID, 0, &t));
    struct itimerspec it = {.it_value.tv_nsec = 10000000};
    OK(timer_settime(t, 0, &it, 0));
    msleep(20);
    CHECK_EQ(hits, 0);
    burn_until(&hits, 1);
    CHECK_EQ(hits, 1);
}

TEST(timers_are_not_inherited) {
    timer_t t;
    OK(timer_create(CLOCK_MONOTONIC, 0, &t));
    pid_t p;
    CHILD(p) {
        struct itimerspec it;
        CHECK_ERRNO(timer_gettime(t, &it), EINVAL);
    }
    JOIN(p);
}

TEST(timerfd_counts_expirations) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    uint64_t n;
    CHECK_ERRNO(read(fd, &n, 8), EAGAIN);
    CHECK_ERRNO(read(fd, &n, 7), EINVAL);
    struct itimerspec it = {{0, 1000000}, {0, 1000000}}, got;
    OK(timerfd_settime(fd, 0, &it, 0));
    msleep(20);
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_V(n >= 5, n);
    OK(timerfd_gettime(fd, &got));
    CHECK_EQ(got.it_interval.tv_nsec, 1000000);
    memset(&it, 0, sizeof it);
    OK(timerfd_settime(fd, 0, &it, &got));
    CHECK_EQ(got.it_interval.tv_nsec, 1000000);
    CHECK_ERRNO(read(fd, &n, 8), EAGAIN); // disarming drops what was not read
    CHECK_ERRNO(write(fd, &n, 8), EINVAL);
}

TEST(timerfd_blocking_read_and_poll) {
    int fd = OK(timerfd_create(CLOCK_REALTIME, 0));
    struct pollfd pf = {fd, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0);
    struct itimerspec it = {.it_value.tv_nsec = 5000000};
    OK(timerfd_settime(fd, 0, &it, 0));
    CHECK_EQ(poll(&pf, 1, 10000), 1);
    CHECK_EQ(pf.revents, POLLIN);
    uint64_t n;
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_EQ(n, 1);
    CHECK_EQ(poll(&pf, 1, 0), 0);
    OK(timerfd_settime(fd, 0, &it, 0));
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_EQ(n, 1);
}

TEST(timerfd_absolute) {
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, 0));
    struct itimerspec it = {0};
    clock_gettime(CLOCK_MONOTONIC, &it.it_value);
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, 0));
    uint64_t n;
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_EQ(n, 1);
    // One that is long past, with an interval, has expired often.
    it.it_value.tv_sec -= 1;
    it.it_interval.tv_nsec = 100000000;
    OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, 0));
    CHECK_EQ(read(fd, &n, 8), 8);
    CHECK_V(n >= 10, n);
}

TEST(timerfd_errnos) {
    struct itimerspec it = {.it_value.tv_nsec = 1000000000};
    CHECK_ERRNO(timerfd_create(99, 0), EINVAL);
    CHECK_ERRNO(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0), EINVAL);
    CHECK_ERRNO(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
    int fd = OK(timerfd_create(CLOCK_MONOTONIC, 0));
    CHECK_ERRNO(timerfd_settime(fd, 0, &it, 0), EINVAL);
    it.it_value.tv_nsec = 0;
    CHECK_ERRNO(timerfd_settime(fd, 8, &it, 0), EINVAL);
    CHECK_ERRNO(timerfd_settime(0, 0, &it, 0), EINVAL);
    CHECK_ERRNO(timerfd_gettime(999, &it), EBADF);
}

TEST(adjtimex_reads) {
    struct timex t = {0};
    int r = adjtimex(&t);
    CHECK_V(r >= 0 && r <= 5, r);
    CHECK_V(t.tick >= 9000 && t.tick <= 11000, t.tick);
}

TEST(adjtimex_checks_modes_before_rights) {
    struct timex t = {.modes = 0x8000};
    CHECK_ERRNO(adjtimex(&t), EINVAL);
    t = (struct timex){.modes = 0xa001};
    CHECK(adjtimex(&t) >= 0);
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(65534));
        t = (struct timex){.modes = 0xa001};
        CHECK(adjtimex(&t) >= 0);
        t = (struct timex){.modes = ADJ_TICK};
        CHECK_ERRNO(adjtimex(&t), EPERM);
    }
    JOIN(p);
}

// Without a clock that wakes the machine it is EOPNOTSUPP for everybody, and in sandboxes there is none.
TEST(alarm_clocks_need_hardware_and_a_capability) {
    timer_t id;
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(65534));
        CHECK(timer_create(CLOCK_BOOTTIME_ALARM, 0, &id) < 0 && (errno == EOPNOTSUPP || errno == EPERM));
        CHECK(timer_create(CLOCK_REALTIME_ALARM, 0, &id) < 0 && (errno == EOPNOTSUPP || errno == EPERM));
    }
    JOIN(p);
    if (timer_create(CLOCK_BOOTTIME_ALARM, 0, &id) < 0) CHECK_EQ(errno, EOPNOTSUPP);
}
