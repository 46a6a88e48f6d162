// POSIX message queues.
#include "compat.h"
#include <mqueue.h>
#include <sys/statfs.h>

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

static volatile int told;
static void tell(union sigval v) { told = v.sival_int; }

TEST(notification_by_thread) {
    mqd_t q = private(0, 2, 8);
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = tell, .sigev_value.sival_int = 7};
    OK(mq_notify(q, &ev));
    OK(mq_send(q, "x", 1, 0));
    for (int i = 0; i < 5000 && !told; i++) usleep(1000);
    CHECK_EQ(told, 7);
}

TEST(no_notification_while_somebody_receives) {
    mqd_t q = private(0, 2, 8);
    sigset_t set = sigs(SIGUSR1, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    OK(mq_notify(q, &ev));
    pid_t p;
    char b[8];
    CHILD(p) CHECK_EQ(mq_receive(q, b, 8, 0), 1);
    wait_asleep(p);
    OK(mq_send(q, "x", 1, 0));
    JOIN(p);
    struct timespec t = {0, 1000000};
    CHECK_ERRNO(sigtimedwait(&set, 0, &t), EAGAIN);
    CHECK_ERRNO(mq_notify(q, &ev), EBUSY); // still registered
    OK(mq_send(q, "x", 1, 0));
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR1);
    CHECK_EQ(si.si_pid, getpid());
    // Registered by another process: a mere second message tells nobody, and closing withdraws.
    CHILD(p) {
        OK(mq_notify(q, &ev));
        OK(mq_send(q, "y", 1, 0));
        struct timespec z = {0};
        CHECK_ERRNO(sigtimedwait(&set, 0, &z), EAGAIN);
    }
    JOIN(p);
    OK(mq_notify(q, &ev));
}

TEST(threads_are_served_in_order) {
    static mqd_t q;
    static volatile pid_t tid;
    static char got[3];
    q = private(0, 1, 1);
    void *f(void *arg) {
        tid = gettid();
        OK(mq_receive(q, arg, 1, 0));
        return 0;
    }
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        tid = 0;
        t[i] = start(f, &got[i]);
        while (!tid) usleep(100);
        wait_asleep(tid);
    }
    OK(mq_send(q, "1", 1, 0)), OK(mq_send(q, "2", 1, 9)), OK(mq_send(q, "3", 1, 5));
    for (int i = 0; i < 3; i++) finish(t[i]);
    CHECK_MEM(got, "123", 3);
}

TEST(signal_interrupts_receive) {
    static mqd_t q;
    q = private(0, 1, 1);
    void h(int s) { (void)s; }
    handle(SIGALRM, h, 0);
    struct itimerval it = {.it_value.tv_usec = 5000};
    OK(setitimer(ITIMER_REAL, &it, 0));
    char b;
    CHECK_ERRNO(mq_receive(q, &b, 1, 0), EINTR);
    OK(mq_send(q, "x", 1, 0));
    OK(setitimer(ITIMER_REAL, &it, 0));
    CHECK_ERRNO(mq_send(q, "x", 1, 0), EINTR);
}

TEST(permissions_and_modes) {
    NEED_ROOT();
    umask(022);
    mqd_t q = fresh(0, 1, 8);
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(mq_open(name, O_RDONLY), EACCES);
        CHECK_ERRNO(mq_unlink(name), EACCES); // sticky: EPERM, which the libc turns into this
        mqd_t own = OK(mq_open("/compat-own", O_CREAT | O_RDWR, 0666, 0));
        struct stat s;
        OK(fstat(own, &s));
        CHECK_EQ(s.st_uid, 1000);
        CHECK_EQ(s.st_mode, S_IFREG | 0644);
        CHECK_EQ(s.st_size, 80);
        struct mq_attr big = {.mq_maxmsg = 11, .mq_msgsize = 8};
        mq_unlink("/compat-own");
        CHECK_ERRNO(mq_open("/compat-own", O_CREAT | O_RDWR, 0666, &big), EINVAL); // over msg_max
    }
    int s = WAIT(p);
    mq_unlink(name);
    mq_unlink("/compat-own");
    CHECK_EQ(s, 0);
    CHECK_EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
}

TEST(budget_of_bytes) {
    NEED_ROOT(); // to be a user without other queues
    pid_t p;
    CHILD(p) {
        OK(setuid(70000 + getpid()));
        struct rlimit r = {20000, 20000};
        OK(setrlimit(RLIMIT_MSGQUEUE, &r));
        struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = 2000};
        CHECK_ERRNO(mq_open("/compat-large", O_CREAT | O_RDWR, 0600, &a), EMFILE);
        a.mq_msgsize = 1000;
        mqd_t q = OK(mq_open("/compat-large", O_CREAT | O_RDWR, 0600, &a));
        OK(mq_unlink("/compat-large"));
        OK(mq_close(q));
    }
    JOIN(p);
}

TEST(filesystem_of_names) {
    NEED_ROOT();
    if (unshare(CLONE_NEWIPC | CLONE_NEWNS)) SKIP("unshare: %s", strerrorname_np(errno));
    OK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    OK(mkdir("m", 0755));
    OK(mount("q", "m", "mqueue", 0, 0));
    mqd_t q = OK(mq_open("/one", O_CREAT | O_RDWR | O_NONBLOCK, 0600, 0));
    struct stat s, t;
    OK(stat("m/one", &s));
    OK(fstat(q, &t));
    CHECK(s.st_ino == t.st_ino && s.st_dev == t.st_dev);
    OK(mq_send(q, "four", 4, 0));
    char buf[200];
    CHECK(read_file("m/one", buf, sizeof buf) > 0);
    CHECK_STR(buf, "QSIZE:4          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
    int fd = OK(open("m/two", O_CREAT | O_RDWR, 0600)); // made by the filesystem, with the default size
    mqd_t two = OK(mq_open("/two", O_RDONLY));
    struct mq_attr a;
    OK(mq_getattr(two, &a));
    CHECK_EQ(a.mq_maxmsg, 10);
    CHECK_EQ(a.mq_msgsize, 8192);
    CHECK_ERRNO(write(fd, "x", 1), EINVAL);
    CHECK_ERRNO(mkdir("m/d", 0755), EPERM);
    OK(unlink("m/one"));
    CHECK_ERRNO(mq_open("/one", O_RDWR), ENOENT);
    OK(mq_send(q, "x", 1, 0));
    OK(mkdir("n", 0755));
    OK(mount("q", "n", "mqueue", 0, 0)); // the same one
    OK(stat("n/two", &s));
    CHECK_EQ(s.st_dev, t.st_dev);
    struct statfs f;
    OK(statfs("n", &f));
    CHECK_EQ(f.f_type, 0x19800202);
    // Another namespace has other queues.
    OK(unshare(CLONE_NEWIPC));
    CHECK_ERRNO(mq_open("/two", O_RDONLY), ENOENT);
}
