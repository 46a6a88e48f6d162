// Scheduling: affinity, priorities, policies.
#include "compat.h"

TEST(affinity_get_and_set) {
    cpu_set_t all, one, got;
    OK(sched_getaffinity(0, sizeof all, &all));
    int n = CPU_COUNT(&all), first = 0;
    CHECK(n >= 1);
    CHECK_EQ(sysconf(_SC_NPROCESSORS_ONLN) >= n, 1);
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    OK(sched_setaffinity(0, sizeof one, &one));
    OK(sched_getaffinity(0, sizeof got, &got));
    CHECK(CPU_EQUAL(&one, &got));
    CHECK_EQ(sched_getcpu(), first);
    pid_t p;
    CHILD(p) {
        OK(sched_getaffinity(0, sizeof got, &got));
        CHECK(CPU_EQUAL(&one, &got)); // inherited
    }
    JOIN(p);
    OK(sched_setaffinity(0, sizeof all, &all));
}

TEST(affinity_errnos) {
    cpu_set_t none, got;
    CPU_ZERO(&none);
    CHECK_ERRNO(sched_setaffinity(0, sizeof none, &none), EINVAL);
    CHECK_ERRNO(sched_getaffinity(0, 0, &got), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getaffinity, 0, 3, &got), EINVAL); // not a multiple of a word
    CHECK_ERRNO(sched_getaffinity(999999, sizeof got, &got), ESRCH);
    CHECK_ERRNO(syscall(SYS_sched_setaffinity, 0, 8, 8), EFAULT);
    long n = syscall(SYS_sched_getaffinity, 0, sizeof got, &got);
    CHECK_V(n >= 8 && n % 8 == 0, n); // the bytes written
}

TEST(getcpu) {
    unsigned cpu = 99999, node = 99999;
    OK(syscall(SYS_getcpu, &cpu, &node, 0));
    CHECK(cpu < 4096 && node < 1024);
    OK(syscall(SYS_getcpu, 0, 0, 0));
    CHECK_ERRNO(syscall(SYS_getcpu, 8, 0, 0), EFAULT);
}

TEST(priorities) {
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
    CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, 0), 20); // raw: 20 less the value
    OK(setpriority(PRIO_PROCESS, 0, 7));
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 7);
    CHECK_EQ(nice(3), 10);
    OK(setpriority(PRIO_PROCESS, 0, 100)); // clamped
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 19);
    CHECK_ERRNO(getpriority(9, 0), EINVAL);
    CHECK_ERRNO(getpriority(PRIO_PROCESS, 999999), ESRCH);
    CHECK_ERRNO(setpriority(PRIO_PROCESS, 999999, 0), ESRCH);
    pid_t p;
    CHILD(p) CHECK_EQ(getpriority(PRIO_PROCESS, 0), 19);
    JOIN(p);
    char buf[1024];
    CHECK(read_file("/proc/self/stat", buf, sizeof buf) > 0);
    int prio, ni;
    CHECK_EQ(sscanf(strrchr(buf, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %d %d", &prio, &ni), 2);
    CHECK_EQ(ni, 19);
    CHECK_EQ(prio, 39);
}

TEST(lowering_nice_needs_a_right) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        struct rlimit r = {0, 0};
        OK(setrlimit(RLIMIT_NICE, &r));
        OK(setuid(1000));
        OK(setpriority(PRIO_PROCESS, 0, 5));
        CHECK_ERRNO(setpriority(PRIO_PROCESS, 0, 1), EACCES);
        CHECK_ERRNO(nice(-1), EPERM);
        CHECK_ERRNO(setpriority(PRIO_PROCESS, getppid(), 10), EPERM);
    }
    JOIN(p);
}

TEST(policies) {
    struct sched_param sp = {0};
    CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
    OK(sched_getparam(0, &sp));
    CHECK_EQ(sp.sched_priority, 0);
    OK(sched_setscheduler(0, SCHED_BATCH, &sp));
    CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
    OK(sched_setscheduler(0, SCHED_OTHER, &sp));
    sp.sched_priority = 5;
    CHECK_ERRNO(sched_setscheduler(0, SCHED_OTHER, &sp), EINVAL);
    CHECK_ERRNO(sched_setscheduler(0, 77, &sp), EINVAL);
    CHECK_ERRNO(sched_setscheduler(-1, SCHED_OTHER, &sp), EINVAL);
    CHECK_ERRNO(sched_getscheduler(999999), ESRCH);
    CHECK_EQ(sched_get_priority_max(SCHED_FIFO), 99);
    CHECK_EQ(sched_get_priority_min(SCHED_FIFO), 1);
    CHECK_EQ(sched_get_priority_max(SCHED_OTHER), 0);
    CHECK_ERRNO(sched_get_priority_max(77), EINVAL);
    OK(sched_yield());
}

TEST(realtime_policy_needs_a_right) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        struct rlimit r = {0, 0};
        OK(setrlimit(RLIMIT_RTPRIO, &r));
        OK(setuid(1000));
        struct sched_param sp = {1};
        CHECK_ERRNO(sched_setscheduler(0, SCHED_FIFO, &sp), EPERM);
        sp.sched_priority = 0;
        OK(sched_setscheduler(0, SCHED_IDLE, &sp));
    }
    JOIN(p);
}

TEST(sched_attr_calls) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a = {0};
    OK(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0));
    CHECK_EQ(a.policy, SCHED_OTHER);
    CHECK_EQ(a.size, 48);
    a.nice = 4;
    OK(syscall(SYS_sched_setattr, 0, &a, 0));
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 4);
    CHECK_ERRNO(syscall(SYS_sched_setattr, 0, &a, 1), EINVAL);
    CHECK_ERRNO(syscall(SYS_sched_getattr, 0, &a, 8, 0), EINVAL);
}

TEST(rr_interval) {
    struct timespec t = {-1, -1};
    OK(sched_rr_get_interval(0, &t));
    CHECK(t.tv_sec >= 0 && t.tv_nsec >= 0);
}

TEST(io_priority) {
    int v = syscall(SYS_ioprio_get, 1, 0);
    CHECK(v >= 0);
    OK(syscall(SYS_ioprio_set, 1, 0, (2 << 13) | 5));
    CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), (2 << 13) | 5);
    CHECK_ERRNO(syscall(SYS_ioprio_set, 9, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_ioprio_get, 1, 999999), ESRCH);
}

TEST(cpuset_of_threads_is_per_thread) {
    cpu_set_t all, one, got;
    OK(sched_getaffinity(0, sizeof all, &all));
    if (CPU_COUNT(&all) < 2) SKIP("one cpu only");
    static cpu_set_t narrow;
    int first = 0;
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    narrow = one;
    void *f(void *a) {
        OK(sched_setaffinity(0, sizeof narrow, &narrow));
        return a;
    }
    finish(start(f, 0));
    OK(sched_getaffinity(0, sizeof got, &got));
    CHECK(CPU_EQUAL(&all, &got));
}

TEST(io_priority_none_is_told_of_one_process) {
    OK(syscall(SYS_ioprio_set, 1, 0, (3 << 13)));
    CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), 3 << 13);
    OK(syscall(SYS_ioprio_set, 1, 0, 0));
    CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), 0);
    // Of a group, what it comes to.
    OK(setpgid(0, 0));
    CHECK_EQ(syscall(SYS_ioprio_get, 2, 0), (2 << 13) | (getpriority(PRIO_PROCESS, 0) + 20) / 5);
}
