// Clocks and sleeping.
#include "compat.h"
#include <sys/times.h>
#include <sys/timex.h>
#include <utime.h>

static int64_t ns(struct timespec t) { return t.tv_sec * 1000000000ll + t.tv_nsec; }
static int64_t clock_ns(clockid_t c) {
    struct timespec t;
    OK(clock_gettime(c, &t));
    CHECK(t.tv_nsec >= 0 && t.tv_nsec < 1000000000);
    return ns(t);
}

TEST(all_clocks_are_readable) {
    clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
                       CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
        CHECK(clock_ns(ids[i]) > 0);
        struct timespec t; // also not by the vDSO
        OK(syscall(SYS_clock_gettime, ids[i], &t));
    }
    struct timespec t;
    CHECK_ERRNO(clock_gettime(10, &t), EINVAL);
    CHECK_ERRNO(clock_gettime(99, &t), EINVAL);
    CHECK_ERRNO(clock_gettime(-99, &t), EINVAL);
}

TEST(vdso_and_syscall_agree) {
    clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW};
    for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++)
        for (int k = 0; k < 50; k++) {
            struct timespec a, b, c;
            OK(clock_gettime(ids[i], &a));
            OK(syscall(SYS_clock_gettime, ids[i], &b));
            OK(clock_gettime(ids[i], &c));
            CHECK_V(ns(a) <= ns(b), ids[i]);
            CHECK_V(ns(b) <= ns(c), ids[i]);
        }
}

TEST(monotonic_never_goes_back) {
    int64_t last = 0;
    for (int i = 0; i < 20000; i++) {
        int64_t t = clock_ns(CLOCK_MONOTONIC);
        CHECK(t >= last);
        last = t;
    }
}

static void *monotonic_thread(void *arg) {
    volatile int64_t *shared = arg;
    for (int i = 0; i < 20000; i++) {
        int64_t before = __atomic_load_n(shared, __ATOMIC_SEQ_CST), t = clock_ns(CLOCK_MONOTONIC);
        CHECK_V(t >= before, before - t);
        while (before < t && !__atomic_compare_exchange_n(shared, &before, t, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    }
    return 0;
}
TEST(monotonic_across_threads) {
    int64_t shared = 0;
    pthread_t a = start(monotonic_thread, &shared), b = start(monotonic_thread, &shared);
    finish(a), finish(b);
}

TEST(realtime_sources_agree) {
    struct timeval tv;
    int64_t a = clock_ns(CLOCK_REALTIME);
    OK(gettimeofday(&tv, 0));
    int64_t b = tv.tv_sec * 1000000000ll + tv.tv_usec * 1000ll;
    time_t t = time(0);
    int64_t c = clock_ns(CLOCK_REALTIME);
    CHECK(b >= a / 1000 * 1000 && b <= c);
    CHECK_V(t >= a / 1000000000 - 1 && t <= c / 1000000000, t);
    CHECK_EQ(syscall(SYS_time, &t), t);
    struct timezone tz = {1, 1};
    OK(gettimeofday(0, &tz));
}

TEST(boottime_is_not_less_than_monotonic) { CHECK(clock_ns(CLOCK_BOOTTIME) + 1000000000 >= clock_ns(CLOCK_MONOTONIC)); }

TEST(coarse_clocks_are_near) {
    int64_t a = clock_ns(CLOCK_MONOTONIC), c = clock_ns(CLOCK_MONOTONIC_COARSE), b = clock_ns(CLOCK_MONOTONIC);
    CHECK_V(c <= b && c >= a - 100000000, a - c);
}

TEST(resolutions) {
    struct timespec t;
    OK(clock_getres(CLOCK_MONOTONIC, &t));
    CHECK_EQ(ns(t), 1);
    OK(clock_getres(CLOCK_REALTIME, &t));
    CHECK_EQ(ns(t), 1);
    OK(clock_getres(CLOCK_PROCESS_CPUTIME_ID, &t));
    CHECK_EQ(ns(t), 1);
    OK(clock_getres(CLOCK_MONOTONIC_COARSE, &t));
    CHECK(ns(t) >= 1000000 && ns(t) <= 10000000);
    OK(clock_getres(CLOCK_MONOTONIC, 0));
    CHECK_ERRNO(clock_getres(99, &t), EINVAL);
}

TEST(cpu_clocks_stand_still_in_sleep) {
    int64_t a = clock_ns(CLOCK_PROCESS_CPUTIME_ID), b = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    msleep(100);
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - a < 60000000);
    CHECK(clock_ns(CLOCK_THREAD_CPUTIME_ID) - b < 60000000);
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - b < 20000000) {}
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - a >= 15000000);
}

static void *burn(void *arg) {
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < 20000000) {}
    return arg;
}
TEST(process_clock_sums_threads) {
    int64_t p = clock_ns(CLOCK_PROCESS_CPUTIME_ID), t = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    pthread_t a = start(burn, 0), b = start(burn, 0);
    finish(a), finish(b);
    CHECK(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - p >= 35000000);
    CHECK(clock_ns(CLOCK_THREAD_CPUTIME_ID) - t < 35000000);
}

TEST(cpu_clock_of_another_process) {
    pid_t p;
    CHILD(p) {
        for (;;) {}
    }
    clockid_t c;
    CHECK_EQ(clock_getcpuclockid(p, &c), 0);
    int64_t end = now_ms() + 8000;
    while (clock_ns(c) < 10000000 && now_ms() < end) usleep(1000);
    CHECK(clock_ns(c) >= 10000000);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
    CHECK_EQ(clock_getcpuclockid(999999, &c), ESRCH);
}

TEST(getrusage_and_clock_agree) {
    struct rusage r;
    int64_t end = clock_ns(CLOCK_PROCESS_CPUTIME_ID) + 50000000;
    while (clock_ns(CLOCK_PROCESS_CPUTIME_ID) < end) {}
    OK(getrusage(RUSAGE_SELF, &r));
    int64_t u = (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000ll + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000ll;
    CHECK_V(u >= 40000000, u);
    OK(getrusage(RUSAGE_THREAD, &r));
    CHECK_ERRNO(getrusage(5, &r), EINVAL);
    CHECK_ERRNO(getrusage(RUSAGE_SELF, (void *)8), EFAULT);
}

TEST(nanosleep_sleeps_at_least) {
    int64_t a = clock_ns(CLOCK_MONOTONIC);
    struct timespec t = {0, 5000000};
    OK(nanosleep(&t, 0));
    CHECK(clock_ns(CLOCK_MONOTONIC) - a >= 5000000);
    t = (struct timespec){0, 1000000000};
    CHECK_ERRNO(nanosleep(&t, 0), EINVAL);
    t = (struct timespec){-1, 0};
    CHECK_ERRNO(nanosleep(&t, 0), EINVAL);
    t = (struct timespec){0, 0};
    OK(nanosleep(&t, 0));
    CHECK_ERRNO(nanosleep((void *)8, 0), EFAULT);
}

TEST(clock_nanosleep_absolute_and_past) {
    struct timespec t;
    OK(clock_gettime(CLOCK_REALTIME, &t));
    t.tv_nsec += 5000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0), 0);
    CHECK(clock_ns(CLOCK_REALTIME) >= ns(t));
    CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0), 0);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){0, 0}, 0), 0);
    CHECK_EQ(clock_nanosleep(CLOCK_BOOTTIME, 0, &(struct timespec){0, 1000000}, 0), 0);
}

TEST(clock_nanosleep_errnos) {
    struct timespec t = {0, 1000};
    CHECK_EQ(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &t, 0), -1);
    CHECK_EQ(errno, EOPNOTSUPP);
    CHECK_EQ(clock_nanosleep(99, 0, &t, 0), EINVAL);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC_RAW, 0, &t, 0), EOPNOTSUPP);
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC_COARSE, 0, &t, 0), EOPNOTSUPP);
    t.tv_nsec = -1;
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0), EINVAL);
}

TEST(clock_settime_errnos) {
    struct timespec t = {0, 1000000000};
    CHECK_ERRNO(clock_settime(CLOCK_MONOTONIC, &t), EINVAL);
    CHECK_ERRNO(clock_settime(CLOCK_REALTIME, &t), EINVAL);
    CHECK_ERRNO(clock_settime(99, &t), EINVAL);
    pid_t p;
    if (geteuid()) return;
    CHILD(p) {
        OK(setuid(1000));
        OK(clock_gettime(CLOCK_REALTIME, &t));
        CHECK_ERRNO(clock_settime(CLOCK_REALTIME, &t), EPERM);
        struct timeval tv = {t.tv_sec, 0};
        CHECK_ERRNO(settimeofday(&tv, 0), EPERM);
    }
    JOIN(p);
}

TEST(times_ticks) {
    struct tms t;
    clock_t a = OK(times(&t));
    msleep(50);
    clock_t b = OK(times(&t));
    CHECK_V(b - a >= 4, b - a);
    CHECK_ERRNO(syscall(SYS_times, 8), EFAULT);
}

TEST(file_times_follow_the_clock) {
    struct stat st;
    int64_t a = clock_ns(CLOCK_REALTIME);
    OK(write_file("f", "x"));
    int64_t b = clock_ns(CLOCK_REALTIME);
    OK(stat("f", &st));
    // File times come from the coarse clock: they may lie a tick before.
    CHECK(ns(st.st_mtim) >= a - 100000000 && ns(st.st_mtim) <= b);
}
