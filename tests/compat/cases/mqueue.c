// POSIX message queues.
#include "compat.h"
#include <mqueue.h>

static char name[32];
static mqd_t fresh(int flags, long max, long size) {
    snprintf(name, sizeof name, "/compat-%d", getpid());
    mq_unlink(name);
    struct mq_attr a = {.mq_maxmsg = max, .mq_msgsize = size};
    mqd_t q = mq_open(name, O_CREAT | O_EXCL | O_RDWR | flags, 0600, &a);
    if (q == -1 && errno == ENOSYS) SKIP("no message queues in this kernel");
    OK(q);
    return q;
}
// Anonymous after this: nothing stays behind a failed check.
static mqd_t private(int flags, long max, long size) {
    mqd_t q = fresh(flags, max, size);
    OK(mq_unlink(name));
    return q;
}

TEST(priorities) {
    mqd_t q = private(0, 10, 16);
    char b[16];
    unsigned p;
    OK(mq_send(q, "low", 4, 1)), OK(mq_send(q, "high", 5, 9)), OK(mq_send(q, "low2", 5, 1)), OK(mq_send(q, "mid", 4, 5));
    const char *want[] = {"high", "mid", "low", "low2"};
    for (int i = 0; i < 4; i++) {
        OK(mq_receive(q, b, 16, &p));
        CHECK_STR(b, want[i]);
    }
    CHECK_EQ(p, 1);
}

TEST(attributes) {
    mqd_t q = private(O_NONBLOCK, 5, 100);
    struct mq_attr a, o;
    OK(mq_getattr(q, &a));
    CHECK_EQ(a.mq_maxmsg, 5);
    CHECK_EQ(a.mq_msgsize, 100);
    CHECK_EQ(a.mq_curmsgs, 0);
    CHECK_EQ(a.mq_flags, O_NONBLOCK);
    OK(mq_send(q, "x", 1, 0));
    a.mq_flags = 0;
    OK(mq_setattr(q, &a, &o));
    CHECK_EQ(o.mq_curmsgs, 1);
    OK(mq_getattr(q, &a));
    CHECK_EQ(a.mq_flags, 0);
}

TEST(errnos) {
    mqd_t q = private(O_NONBLOCK, 2, 8);
    char b[8];
    CHECK_ERRNO(mq_receive(q, b, 8, 0), EAGAIN);
    CHECK_ERRNO(mq_receive(q, b, 7, 0), EMSGSIZE);
    CHECK_ERRNO(mq_send(q, "123456789", 9, 0), EMSGSIZE);
    CHECK_ERRNO(mq_send(q, "x", 1, 32768), EINVAL);
    OK(mq_send(q, "", 0, 32767));
    OK(mq_send(q, "x", 1, 0));
    CHECK_ERRNO(mq_send(q, "x", 1, 0), EAGAIN);
    CHECK_ERRNO(mq_open("/compat-none", O_RDWR), ENOENT);
    CHECK_ERRNO(mq_open("/x/y", O_RDWR), EACCES);
    CHECK_ERRNO(mq_unlink("/compat-none"), ENOENT);
    struct mq_attr bad = {.mq_maxmsg = 0, .mq_msgsize = 8};
    CHECK_ERRNO(mq_open("/compat-bad", O_CREAT | O_RDWR, 0600, &bad), EINVAL);
    CHECK_ERRNO(mq_close(999), EBADF);
    struct timespec t = {0, 1000000000};
    OK(mq_receive(q, b, 8, 0)), OK(mq_receive(q, b, 8, 0));
    mqd_t w = private(0, 1, 8);
    CHECK_ERRNO(mq_timedreceive(w, b, 8, 0, &t), EINVAL);
}

TEST(open_by_name) {
    mqd_t q = fresh(0, 3, 8), r = mq_open(name, O_RDONLY);
    mqd_t again = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, 0);
    int e = errno;
    OK(mq_unlink(name));
    OK(r);
    CHECK(again == -1 && e == EEXIST);
    OK(mq_send(q, "x", 1, 0));
    char b[8];
    CHECK_EQ(mq_receive(r, b, 8, 0), 1);
    CHECK_ERRNO(mq_send(r, "x", 1, 0), EBADF);
    CHECK_ERRNO(mq_open(name, O_RDWR), ENOENT);
}

TEST(blocking_and_timeouts) {
    mqd_t q = private(0, 1, 8);
    char b[8];
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += 5000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    CHECK_ERRNO(mq_timedreceive(q, b, 8, 0, &t), ETIMEDOUT);
    pid_t p;
    CHILD(p) CHECK_EQ(mq_receive(q, b, 8, 0), 2);
    wait_asleep(p);
    OK(mq_send(q, "hi", 2, 0));
    JOIN(p);
    OK(mq_send(q, "a", 1, 0));
    CHILD(p) OK(mq_send(q, "b", 1, 0));
    wait_asleep(p);
    OK(mq_receive(q, b, 8, 0));
    JOIN(p);
    OK(mq_receive(q, b, 8, 0));
    CHECK_EQ(b[0], 'b');
}

TEST(notification) {
    mqd_t q = private(0, 2, 8);
    sigset_t set = sigs(SIGUSR1, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 33};
    OK(mq_notify(q, &ev));
    CHECK_ERRNO(mq_notify(q, &ev), EBUSY);
    OK(mq_send(q, "x", 1, 0));
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
    CHECK_EQ(si.si_code, SI_MESGQ);
    CHECK_EQ(si.si_value.sival_int, 33);
    OK(mq_notify(q, &ev)); // once only: may be asked again
    OK(mq_notify(q, 0));
}

TEST(poll_states) {
    mqd_t q = private(O_NONBLOCK, 1, 8);
    struct pollfd p = {q, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLOUT);
    OK(mq_send(q, "x", 1, 0));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN);
}
