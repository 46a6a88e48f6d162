// Processes: fork, clone, vfork, wait, exit, reparenting.
#include "compat.h"
#include <linux/sched.h>
#include <sys/pidfd.h>

static long clone3(struct clone_args *a) { return syscall(SYS_clone3, a, sizeof *a); }

TEST(fork_returns_pid_of_child) {
    int fd[2];
    OK(pipe(fd));
    pid_t p, me = getpid(), seen[2];
    CHILD(p) {
        seen[0] = getpid(), seen[1] = getppid();
        CHECK_EQ(write(fd[1], seen, sizeof seen), sizeof seen);
    }
    CHECK_EQ(read(fd[0], seen, sizeof seen), sizeof seen);
    CHECK_EQ(seen[0], p);
    CHECK_EQ(seen[1], me);
    JOIN(p);
}

TEST(exit_code_is_low_byte) {
    int codes[] = {0, 1, 127, 255, 256, 0x1ff, -1};
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
        pid_t p;
        CHILD(p) _exit(codes[i]);
        CHECK_EQ(WAIT(p), (codes[i] & 255) << 8);
    }
}

TEST(fork_copies_memory) {
    static int data = 1;
    int *heap = malloc(sizeof *heap), stack = 3;
    *heap = 2;
    pid_t p;
    CHILD(p) {
        CHECK_EQ(data + *heap + stack, 6);
        data = *heap = stack = 100;
        CHECK_EQ(data + *heap + stack, 300);
    }
    JOIN(p);
    CHECK_EQ(data + *heap + stack, 6);
}

TEST(fork_shares_file_offset) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(write(fd, "abcdef", 6));
    OK(lseek(fd, 1, SEEK_SET));
    pid_t p;
    CHILD(p) OK(lseek(fd, 2, SEEK_CUR));
    JOIN(p);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3);
}

TEST(fork_has_own_fd_table) {
    int fd = OK(open("/dev/null", O_RDONLY));
    pid_t p;
    CHILD(p) OK(close(fd));
    JOIN(p);
    CHECK(fcntl(fd, F_GETFD) == 0);
}

TEST(fork_tree) {
    // A binary tree of depth 6: every process adds one to a shared word.
    int *n = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int depth = 0;
    pid_t kids[2];
again:
    __atomic_fetch_add(n, 1, __ATOMIC_SEQ_CST);
    int made = 0;
    if (depth < 6)
        for (; made < 2; made++)
            if (!(kids[made] = OK(fork()))) {
                depth++;
                goto again;
            }
    for (int i = 0; i < made; i++) JOIN(kids[i]);
    if (depth) _exit(0);
    CHECK_EQ(*n, 127);
}

TEST(many_processes_at_once) {
    enum { N = 300 };
    static pid_t p[N];
    int go[2];
    OK(pipe(go));
    for (int i = 0; i < N; i++)
        CHILD(p[i]) {
            close(go[1]);
            char c;
            CHECK_EQ(read(go[0], &c, 1), 0);
            _exit(i & 127);
        }
    close(go[1]);
    for (int i = 0; i < N; i++) CHECK_EQ(WAIT(p[i]), (i & 127) << 8);
}

TEST(vfork_shares_memory_and_suspends_parent) {
    static volatile int v;
    pid_t p = vfork();
    if (!p) {
        v = 42;
        _exit(7);
    }
    CHECK(p > 0);
    CHECK_EQ(v, 42);
    CHECK_EQ(WAIT(p), W_EXIT(7));
}

TEST(vfork_ends_at_exec) {
    int64_t t = now_ms();
    pid_t p = vfork();
    if (!p) {
        execl("/bin/sleep", "sleep", "30", (char *)0);
        _exit(1);
    }
    CHECK(p > 0);
    CHECK(now_ms() - t < 20000);
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

static int clone_set(void *arg) {
    *(volatile int *)arg = 5;
    return 3;
}

TEST(clone_vm_shares_memory) {
    static char stack[65536] __attribute__((aligned(16)));
    volatile int v = 0;
    pid_t p = OK(clone(clone_set, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)&v));
    CHECK_EQ(WAIT(p), W_EXIT(3));
    CHECK_EQ(v, 5);
}

static int clone_closes(void *arg) {
    close(*(int *)arg);
    return 0;
}

TEST(clone_files_shares_fd_table) {
    static char stack[65536] __attribute__((aligned(16)));
    int fd = OK(open("/dev/null", O_RDONLY));
    pid_t p = OK(clone(clone_closes, stack + sizeof stack, CLONE_FILES | SIGCHLD, &fd));
    JOIN(p);
    CHECK_ERRNO(fcntl(fd, F_GETFD), EBADF);
}

static int clone_chdir(void *arg) {
    (void)arg;
    umask(0);
    return chdir("/") ? 1 : 0;
}

TEST(clone_fs_shares_cwd_and_umask) {
    static char stack[65536] __attribute__((aligned(16)));
    umask(027);
    pid_t p = OK(clone(clone_chdir, stack + sizeof stack, SIGCHLD, 0));
    JOIN(p);
    char cwd[PATH_MAX];
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK(strcmp(cwd, "/"));
    p = OK(clone(clone_chdir, stack + sizeof stack, CLONE_FS | SIGCHLD, 0));
    JOIN(p);
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK_STR(cwd, "/");
    CHECK_EQ(umask(022), 0);
}

TEST(clone_flag_combinations_refused) {
    // A thread needs CLONE_SIGHAND, which needs CLONE_VM; a new mount namespace cannot share the fs state.
    CHECK_ERRNO(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, 0, 0, 0, 0), EINVAL);
}

TEST(clone_parent_and_child_settid) {
    int *tids = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t p = OK(syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0, tids, tids + 1, 0));
    if (!p) {
        CHECK_EQ(tids[1], getpid());
        _exit(0);
    }
    CHECK_EQ(tids[0], p);
    JOIN(p);
    CHECK_EQ(tids[1], p);
}

static int clone_nothing(void *arg) {
    (void)arg;
    usleep(10000);
    return 0;
}

TEST(clone_child_cleartid_wakes_futex) {
    int *tid = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    *tid = -1;
    static char stack[65536] __attribute__((aligned(16)));
    pid_t p = OK(clone(clone_nothing, stack + sizeof stack, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, 0, 0, 0, tid));
    while (*(volatile int *)tid) syscall(SYS_futex, tid, 0 /* FUTEX_WAIT */, -1, 0);
    JOIN(p);
}

TEST(clone_other_exit_signal) {
    // Such a child is waited for only with __WCLONE or __WALL.
    signal(SIGUSR1, SIG_IGN);
    pid_t p = OK(syscall(SYS_clone, SIGUSR1, 0, 0, 0, 0));
    if (!p) _exit(4);
    CHECK_ERRNO(waitpid(p, 0, 0), ECHILD);
    int s;
    CHECK_EQ(waitpid(p, &s, __WCLONE), p);
    CHECK_EQ(s, W_EXIT(4));
    p = OK(syscall(SYS_clone, 0, 0, 0, 0, 0));
    if (!p) _exit(5);
    CHECK_EQ(waitpid(p, &s, __WALL), p);
    CHECK_EQ(s, W_EXIT(5));
}

TEST(clone_exit_signal_is_sent) {
    sigset_t set = sigs(SIGUSR2, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    pid_t p = OK(syscall(SYS_clone, SIGUSR2, 0, 0, 0, 0));
    if (!p) _exit(4);
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR2);
    CHECK_EQ(si.si_code, CLD_EXITED);
    CHECK_EQ(si.si_pid, p);
    CHECK_EQ(si.si_status, 4);
    CHECK_EQ(waitpid(p, 0, __WALL), p);
}

TEST(clone_parent_makes_sibling) {
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    CHILD(p) {
        pid_t q = OK(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
        if (!q) _exit(9);
        CHECK_EQ(write(fd[1], &q, sizeof q), sizeof q);
        CHECK_ERRNO(waitpid(q, 0, 0), ECHILD);
    }
    pid_t q;
    CHECK_EQ(read(fd[0], &q, sizeof q), sizeof q);
    JOIN(p);
    CHECK_EQ(WAIT(q), W_EXIT(9));
}

TEST(clone3_basics) {
    struct clone_args a = {.exit_signal = SIGCHLD};
    pid_t p = OK(clone3(&a));
    if (!p) _exit(6);
    CHECK_EQ(WAIT(p), W_EXIT(6));
}

TEST(clone3_errnos) {
    struct clone_args a = {.exit_signal = SIGCHLD};
    CHECK_ERRNO(syscall(SYS_clone3, &a, 8), EINVAL);
    CHECK_ERRNO(syscall(SYS_clone3, &a, 5000), E2BIG);
    CHECK_ERRNO(syscall(SYS_clone3, (void *)8, sizeof a), EFAULT);
    a.exit_signal = 65;
    CHECK_ERRNO(clone3(&a), EINVAL);
    a = (struct clone_args){.exit_signal = SIGCHLD, .stack = 0x1000};
    CHECK_ERRNO(clone3(&a), EINVAL);
    a = (struct clone_args){.exit_signal = SIGCHLD, .stack_size = 0x1000};
    CHECK_ERRNO(clone3(&a), EINVAL);
    a = (struct clone_args){.exit_signal = SIGCHLD, .flags = CLONE_DETACHED};
    CHECK_ERRNO(clone3(&a), EINVAL);
    a = (struct clone_args){.exit_signal = SIGCHLD, .flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM};
    CHECK_ERRNO(clone3(&a), EINVAL);
}

TEST(clone3_unknown_tail_is_e2big) {
    struct {
        struct clone_args a;
        uint64_t more;
    } x = {.a.exit_signal = SIGCHLD, .more = 1};
    CHECK_ERRNO(syscall(SYS_clone3, &x, sizeof x), E2BIG);
    x.more = 0;
    pid_t p = OK(syscall(SYS_clone3, &x, sizeof x));
    if (!p) _exit(0);
    JOIN(p);
}

TEST(clone3_pidfd) {
    int fd = -1;
    struct clone_args a = {.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (uintptr_t)&fd};
    pid_t p = OK(clone3(&a));
    if (!p) _exit(8);
    CHECK(fd >= 0);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct pollfd pf = {fd, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 10000), 1);
    CHECK(pf.revents & POLLIN);
    siginfo_t si = {0};
    OK(waitid(P_PIDFD, fd, &si, WEXITED));
    CHECK_EQ(si.si_pid, p);
    CHECK_EQ(si.si_status, 8);
}

TEST(clone3_clear_sighand) {
    signal(SIGUSR1, SIG_IGN);
    handle(SIGUSR2, (void *)_exit, 0);
    struct clone_args a = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    pid_t p = OK(clone3(&a));
    if (!p) {
        struct sigaction s;
        OK(sigaction(SIGUSR1, 0, &s));
        CHECK(s.sa_handler == SIG_IGN);
        OK(sigaction(SIGUSR2, 0, &s));
        CHECK(s.sa_handler == SIG_DFL);
        _exit(0);
    }
    JOIN(p);
}

TEST(clone3_set_tid) {
    NEED_ROOT();
    // A pid far above those in use.
    pid_t want = 31999;
    struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&want, .set_tid_size = 1};
    pid_t p = OK(clone3(&a));
    if (!p) _exit(0);
    CHECK_EQ(p, want);
    CHECK_ERRNO(clone3(&a), EEXIST);
    JOIN(p);
    want = 0;
    CHECK_ERRNO(clone3(&a), EINVAL);
}

TEST(pidfd_open_and_send_signal) {
    pid_t p;
    CHILD(p) pause();
    int fd = OK(pidfd_open(p, 0));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    OK(pidfd_send_signal(fd, 0, 0, 0));
    OK(pidfd_send_signal(fd, SIGTERM, 0, 0));
    CHECK_EQ(WAIT(p), SIGTERM);
    CHECK_ERRNO(pidfd_send_signal(fd, SIGTERM, 0, 0), ESRCH);
    CHECK_ERRNO(pidfd_open(p, 0), ESRCH);
    CHECK_ERRNO(pidfd_open(0, 0), EINVAL);
    CHECK_ERRNO(pidfd_open(-1, 0), EINVAL);
    CHECK_ERRNO(pidfd_open(getpid(), 0x1), EINVAL);
    CHECK_ERRNO(pidfd_send_signal(0, 0, 0, 0), EBADF);
}

TEST(pidfd_send_signal_by_directory_of_proc) {
    pid_t p = fork();
    if (p == 0) for (;;) pause();
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", p);
    int dir = OK(open(path, O_RDONLY | O_DIRECTORY));
    OK(pidfd_send_signal(dir, 0, 0, 0));
    CHECK_ERRNO(pidfd_send_signal(dir, 100, 0, 0), EINVAL);
    int tasks = OK(openat(dir, "task", O_RDONLY | O_DIRECTORY)), fds = OK(openat(dir, "fd", O_RDONLY | O_DIRECTORY));
    CHECK_ERRNO(pidfd_send_signal(tasks, 0, 0, 0), EBADF);
    CHECK_ERRNO(pidfd_send_signal(fds, 0, 0, 0), EBADF);
    OK(pidfd_send_signal(dir, SIGTERM, 0, 0));
    int status;
    CHECK_EQ(waitpid(p, &status, 0), p);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    CHECK_ERRNO(pidfd_send_signal(dir, SIGTERM, 0, 0), ESRCH);
}

TEST(pidfd_send_signal_to_a_process_group) {
    pid_t leader = fork();
    if (leader == 0) for (;;) pause();
    OK(setpgid(leader, leader));
    pid_t member = fork();
    if (member == 0) for (;;) pause();
    OK(setpgid(member, leader));
    int fd = OK(pidfd_open(leader, 0));
    if (pidfd_send_signal(fd, 0, 0, 4) < 0 && errno == EINVAL) SKIP("no PIDFD_SIGNAL_PROCESS_GROUP before Linux 6.9");
    CHECK_ERRNO(pidfd_send_signal(fd, 0, 0, 3), EINVAL);
    CHECK_ERRNO(pidfd_send_signal(fd, 0, 0, 8), EINVAL);
    OK(pidfd_send_signal(fd, SIGTERM, 0, 4));
    int status;
    CHECK_EQ(waitpid(leader, &status, 0), leader);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    CHECK_EQ(waitpid(member, &status, 0), member);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(pidfd_getfd_takes_a_copy) {
    int out[2], in[2];
    OK(pipe(out));
    OK(pipe(in));
    pid_t p;
    CHILD(p) {
        int fd = OK(open("in-child", O_RDWR | O_CREAT, 0600));
        OK(write(fd, "hi", 2));
        CHECK_EQ(write(out[1], &fd, sizeof fd), sizeof fd);
        gate_wait(in[0]);
        CHECK_EQ(lseek(fd, 0, SEEK_CUR), 1);
    }
    int there;
    CHECK_EQ(read(out[0], &there, sizeof there), sizeof there);
    int pf = OK(pidfd_open(p, 0)), fd = OK(pidfd_getfd(pf, there, 0));
    CHECK_EQ(lseek(fd, 1, SEEK_SET), 1);
    char c;
    CHECK_EQ(pread(fd, &c, 1, 1), 1);
    CHECK_EQ(c, 'i');
    CHECK_ERRNO(pidfd_getfd(pf, 999, 0), EBADF);
    gate_open(in[1]);
    JOIN(p);
}

TEST(wait4_without_children) {
    CHECK_ERRNO(wait4(-1, 0, 0, 0), ECHILD);
    CHECK_ERRNO(wait4(getpid(), 0, 0, 0), ECHILD);
    CHECK_ERRNO(wait4(1, 0, WNOHANG, 0), ECHILD);
    CHECK_ERRNO(wait4(INT_MIN, 0, 0, 0), ESRCH);
    CHECK_ERRNO(wait4(-1, 0, 0x10, 0), EINVAL);
}

TEST(wait4_nohang) {
    int g[2];
    OK(pipe(g));
    pid_t p;
    CHILD(p) gate_wait(g[0]);
    int s = 77;
    CHECK_EQ(waitpid(p, &s, WNOHANG), 0);
    CHECK_EQ(s, 77);
    gate_open(g[1]);
    JOIN(p);
    CHECK_ERRNO(waitpid(p, 0, WNOHANG), ECHILD);
}

TEST(wait4_by_process_group) {
    pid_t a, b;
    int g[2];
    OK(pipe(g));
    CHILD(a) {
        OK(setpgid(0, 0));
        gate_open(g[1]);
        _exit(1);
    }
    gate_wait(g[0]);
    CHILD(b) _exit(2);
    int s;
    CHECK_EQ(waitpid(0, &s, 0), b);
    CHECK_EQ(s, W_EXIT(2));
    CHECK_EQ(waitpid(-a, &s, 0), a);
    CHECK_EQ(s, W_EXIT(1));
    CHECK_ERRNO(waitpid(-a, &s, 0), ECHILD);
}

TEST(wait4_rusage) {
    pid_t p;
    CHILD(p) {
        struct rusage r;
        do OK(getrusage(RUSAGE_SELF, &r));
        while (!r.ru_utime.tv_sec && r.ru_utime.tv_usec + r.ru_stime.tv_usec < 30000);
    }
    struct rusage r;
    int s;
    CHECK_EQ(wait4(p, &s, 0, &r), p);
    CHECK_EQ(s, 0);
    CHECK(r.ru_utime.tv_sec * 1000000 + r.ru_utime.tv_usec + r.ru_stime.tv_usec >= 20000);
    CHECK(r.ru_maxrss > 0);
    struct rusage c;
    OK(getrusage(RUSAGE_CHILDREN, &c));
    CHECK(c.ru_utime.tv_sec * 1000000 + c.ru_utime.tv_usec + c.ru_stime.tv_usec >= 20000);
}

TEST(wait4_stopped_and_continued) {
    pid_t p;
    CHILD(p) for (;;) pause();
    int s;
    OK(kill(p, SIGSTOP));
    CHECK_EQ(waitpid(p, &s, WUNTRACED), p);
    CHECK_EQ(s, W_STOP(SIGSTOP));
    CHECK_EQ(waitpid(p, &s, WUNTRACED | WNOHANG), 0); // reported once
    OK(kill(p, SIGCONT));
    CHECK_EQ(waitpid(p, &s, WCONTINUED), p);
    CHECK_EQ(s, 0xffff);
    CHECK_EQ(waitpid(p, &s, WCONTINUED | WNOHANG), 0);
    OK(kill(p, SIGTERM));
    CHECK_EQ(WAIT(p), SIGTERM);
}

TEST(waitid_exited) {
    pid_t p;
    CHILD(p) _exit(0x123);
    siginfo_t si = {0};
    OK(waitid(P_PID, p, &si, WEXITED));
    CHECK_EQ(si.si_signo, SIGCHLD);
    CHECK_EQ(si.si_code, CLD_EXITED);
    CHECK_EQ(si.si_pid, p);
    CHECK_EQ(si.si_uid, getuid());
    CHECK_EQ(si.si_status, 0x23);
}

TEST(waitid_killed) {
    pid_t p;
    CHILD(p) for (;;) pause();
    OK(kill(p, SIGKILL));
    siginfo_t si = {0};
    OK(waitid(P_PID, p, &si, WEXITED));
    CHECK_EQ(si.si_code, CLD_KILLED);
    CHECK_EQ(si.si_status, SIGKILL);
}

TEST(waitid_nowait_leaves_zombie) {
    pid_t p;
    CHILD(p) _exit(3);
    siginfo_t si = {0};
    for (int i = 0; i < 3; i++) {
        OK(waitid(P_ALL, 0, &si, WEXITED | WNOWAIT));
        CHECK_EQ(si.si_pid, p);
    }
    CHECK_EQ(state_of(p), 'Z');
    OK(kill(p, SIGKILL)); // a zombie can be signalled
    CHECK_EQ(WAIT(p), W_EXIT(3));
    CHECK_ERRNO(kill(p, 0), ESRCH);
}

TEST(waitid_nohang_zeroes_pid) {
    pid_t p;
    CHILD(p) for (;;) pause();
    siginfo_t si;
    memset(&si, 0x55, sizeof si);
    OK(waitid(P_PID, p, &si, WEXITED | WNOHANG));
    CHECK_EQ(si.si_pid, 0);
    CHECK_EQ(si.si_signo, 0);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(waitid_stop_and_continue) {
    pid_t p;
    CHILD(p) for (;;) pause();
    siginfo_t si = {0};
    OK(kill(p, SIGSTOP));
    OK(waitid(P_PID, p, &si, WSTOPPED | WNOWAIT));
    CHECK_EQ(si.si_code, CLD_STOPPED);
    CHECK_EQ(si.si_status, SIGSTOP);
    OK(waitid(P_PID, p, &si, WSTOPPED));
    OK(kill(p, SIGCONT));
    OK(waitid(P_PID, p, &si, WCONTINUED));
    CHECK_EQ(si.si_code, CLD_CONTINUED);
    CHECK_EQ(si.si_status, SIGCONT);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(waitid_errnos) {
    siginfo_t si;
    CHECK_ERRNO(waitid(P_ALL, 0, &si, 0), EINVAL);
    CHECK_ERRNO(waitid(P_ALL, 0, &si, WNOHANG), EINVAL);
    CHECK_ERRNO(waitid(9, 0, &si, WEXITED), EINVAL);
    CHECK_ERRNO(waitid(P_PID, 0, &si, WEXITED), EINVAL);
    CHECK_ERRNO(waitid(P_PID, -5, &si, WEXITED), EINVAL);
    CHECK_ERRNO(waitid(P_ALL, 0, &si, WEXITED), ECHILD);
    CHECK_ERRNO(waitid(P_PIDFD, 9999, &si, WEXITED), EBADF);
    CHECK_ERRNO(waitid(P_ALL, 0, &si, WEXITED | 0x100), EINVAL);
}

TEST(sigchld_siginfo) {
    sigset_t set = sigs(SIGCHLD, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    pid_t p;
    CHILD(p) _exit(12);
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGCHLD);
    CHECK_EQ(si.si_code, CLD_EXITED);
    CHECK_EQ(si.si_pid, p);
    CHECK_EQ(si.si_status, 12);
    CHECK_EQ(WAIT(p), W_EXIT(12));
}

TEST(sigchld_ignored_reaps_by_itself) {
    signal(SIGCHLD, SIG_IGN);
    pid_t p;
    CHILD(p) _exit(0);
    CHECK_ERRNO(waitpid(p, 0, 0), ECHILD);
    CHECK_ERRNO(kill(p, 0), ESRCH);
}

TEST(sa_nocldwait_reaps_by_itself) {
    struct sigaction a = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    OK(sigaction(SIGCHLD, &a, 0));
    pid_t p;
    CHILD(p) _exit(0);
    CHECK_ERRNO(wait(0), ECHILD);
}

TEST(sa_nocldstop_suppresses_stop_signal) {
    sigset_t set = sigs(SIGCHLD, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    struct sigaction a = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};
    OK(sigaction(SIGCHLD, &a, 0));
    pid_t p;
    CHILD(p) for (;;) pause();
    OK(kill(p, SIGSTOP));
    CHECK_EQ(waitpid(p, 0, WUNTRACED), p);
    struct timespec zero = {0};
    CHECK_ERRNO(sigtimedwait(&set, 0, &zero), EAGAIN);
    a.sa_flags = 0;
    OK(sigaction(SIGCHLD, &a, 0));
    OK(kill(p, SIGCONT));
    siginfo_t si;
    CHECK_EQ(sigwaitinfo(&set, &si), SIGCHLD);
    CHECK_EQ(si.si_code, CLD_CONTINUED);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(orphan_goes_to_subreaper) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int on = 0;
    OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
    CHECK_EQ(on, 1);
    int fd[2], g[2];
    OK(pipe(fd));
    OK(pipe(g));
    pid_t p, q;
    CHILD(p) {
        OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
        CHECK_EQ(on, 0); // not inherited
        pid_t parent = getpid();
        q = OK(fork());
        if (!q) {
            gate_wait(g[0]);
            CHECK(getppid() != parent);
            pid_t now = getppid();
            CHECK_EQ(write(fd[1], &now, sizeof now), sizeof now);
            _exit(17);
        }
        CHECK_EQ(write(fd[1], &q, sizeof q), sizeof q);
    }
    CHECK_EQ(read(fd[0], &q, sizeof q), sizeof q);
    JOIN(p);
    gate_open(g[1]);
    pid_t parent;
    CHECK_EQ(read(fd[0], &parent, sizeof parent), sizeof parent);
    CHECK_EQ(parent, getpid());
    CHECK_EQ(WAIT(q), W_EXIT(17));
}

TEST(orphan_zombie_goes_to_subreaper) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p, q, *shared = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHILD(p) {
        CHILD(q) _exit(5);
        *shared = q;
        siginfo_t si;
        OK(waitid(P_PID, q, &si, WEXITED | WNOWAIT));
    }
    JOIN(p);
    CHECK_EQ(WAIT(*shared), W_EXIT(5));
}

TEST(pdeathsig_is_sent) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p, *q = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHILD(p) {
        int g[2];
        OK(pipe(g));
        pid_t kid = OK(fork());
        if (kid) *q = kid;
        else {
            OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
            int sig;
            OK(prctl(PR_GET_PDEATHSIG, &sig));
            CHECK_EQ(sig, SIGUSR1);
            gate_open(g[1]);
            for (;;) pause();
        }
        gate_wait(g[0]);
    }
    JOIN(p);
    CHECK_EQ(WAIT(*q), SIGUSR1);
}

TEST(pdeathsig_errnos) {
    CHECK_ERRNO(prctl(PR_SET_PDEATHSIG, 65), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_PDEATHSIG, -1), EINVAL);
    CHECK_ERRNO(prctl(PR_GET_PDEATHSIG, 8), EFAULT);
}

TEST(orphaned_stopped_group_gets_hup_and_cont) {
    // The group of a stopped process becomes orphaned when the last parent outside of it in the session exits.
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p, *q = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    CHILD(p) {
        OK(setsid());
        pid_t kid = OK(fork());
        if (kid) *q = kid;
        else {
            OK(setpgid(0, 0));
            for (;;) pause();
        }
        setpgid(*q, *q);
        OK(kill(*q, SIGSTOP));
        int s;
        CHECK_EQ(waitpid(*q, &s, WUNTRACED), *q);
        CHECK_EQ(s, W_STOP(SIGSTOP));
    }
    JOIN(p);
    CHECK_EQ(WAIT(*q), SIGHUP);
}

TEST(exit_within_orphaned_group_with_stopped_member_signals_nobody) {
    // A group that is orphaned already does not become so by an exit of a member whose parent is a member, too.
    pid_t p;
    CHILD(p) {
        OK(setsid());
        pid_t stopped, other;
        CHILD(stopped) for (;;) pause();
        OK(kill(stopped, SIGSTOP));
        int s;
        CHECK_EQ(waitpid(stopped, &s, WUNTRACED), stopped);
        for (int i = 0; i < 3; i++) {
            CHILD(other) {}
            JOIN(other);
        }
        CHECK_EQ(state_of(stopped), 'T');
        CHECK_EQ(waitpid(stopped, &s, WNOHANG | WCONTINUED), 0);
        OK(kill(stopped, SIGKILL));
        CHECK_EQ(WAIT(stopped), SIGKILL);
    }
    JOIN(p);
}

TEST(orphaned_group_ignores_sigtstp) {
    // Job-control stop signals do nothing to a process in an orphaned group.
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t p;
    CHILD(p) {
        OK(setsid());
        raise(SIGTSTP);
        raise(SIGTTIN);
        raise(SIGTTOU);
        _exit(4);
    }
    CHECK_EQ(WAIT(p), W_EXIT(4));
}

static void *exit_thread(void *arg) {
    (void)arg;
    syscall(SYS_exit, 9);
    return 0;
}

TEST(exit_of_main_thread_leaves_others) {
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        extern void *late_exit(void *);
        start(late_exit, &g[0]);
        syscall(SYS_exit, 1);
    }
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    for (int i = 0; i < 5000 && state_of(p) != 'Z'; i++) usleep(1000);
    CHECK_EQ(state_of(p), 'Z');
    CHECK_EQ(waitpid(p, 0, WNOHANG), 0);
    gate_open(g[1]);
    CHECK_EQ(WAIT(p), W_EXIT(33));
}

void *late_exit(void *arg) {
    gate_wait(*(int *)arg);
    _exit(33);
}

TEST(exit_of_a_thread_leaves_process) {
    pthread_t t = start(exit_thread, 0);
    finish(t);
    pid_t p;
    CHILD(p) {
        finish(start(exit_thread, 0));
        _exit(3);
    }
    CHECK_EQ(WAIT(p), W_EXIT(3));
}

static void *wait_thread(void *arg) { return (void *)(long)waitpid((long)arg, 0, 0); }
static void *wait_nothread(void *arg) { return (void *)(long)waitpid((long)arg, 0, __WNOTHREAD); }

TEST(any_thread_may_wait_unless_wnothread) {
    pid_t p;
    CHILD(p) _exit(0);
    CHECK_EQ((long)finish(start(wait_nothread, (void *)(long)p)), -1);
    CHECK_EQ((long)finish(start(wait_thread, (void *)(long)p)), p);
}

static void *sleeper(void *arg) {
    for (;;) pause();
    return arg;
}

TEST(fork_in_thread_copies_only_it) {
    start(sleeper, 0);
    pid_t p;
    CHILD(p) {
        char path[64], buf[2048];
        snprintf(path, sizeof path, "/proc/%d/status", getpid());
        CHECK(read_file(path, buf, sizeof buf) > 0);
        CHECK(strstr(buf, "Threads:\t1\n"));
        CHECK_EQ(gettid(), getpid());
    }
    JOIN(p);
}

TEST(pending_signals_not_inherited) {
    sigset_t set = sigs(SIGUSR1, 0, 0), got;
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    raise(SIGUSR1);
    pid_t p;
    CHILD(p) {
        OK(sigpending(&got));
        CHECK(!sigismember(&got, SIGUSR1));
        OK(sigprocmask(SIG_BLOCK, 0, &got));
        CHECK(sigismember(&got, SIGUSR1));
    }
    JOIN(p);
    OK(sigpending(&got));
    CHECK(sigismember(&got, SIGUSR1));
}

TEST(getppid_of_killed_parent_changes) {
    OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int fd[2];
    OK(pipe(fd));
    pid_t p, q;
    CHILD(p) {
        if (!OK(fork())) {
            pid_t id[2] = {getpid(), getppid()};
            CHECK_EQ(write(fd[1], id, sizeof id), sizeof id);
            while (getppid() == id[1]) usleep(500);
            _exit(21);
        }
        for (;;) pause();
    }
    pid_t id[2];
    CHECK_EQ(read(fd[0], id, sizeof id), sizeof id);
    CHECK_EQ(id[1], p);
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
    q = id[0];
    CHECK_EQ(WAIT(q), W_EXIT(21));
}

TEST(pids_are_not_reused_at_once) {
    pid_t a, b;
    CHILD(a) _exit(0);
    JOIN(a);
    CHILD(b) _exit(0);
    JOIN(b);
    CHECK(a != b);
}

TEST(times_and_cutime) {
    struct tms { clock_t u, s, cu, cs; } t;
    pid_t p;
    CHILD(p) {
        struct rusage r;
        do OK(getrusage(RUSAGE_SELF, &r));
        while (!r.ru_utime.tv_sec && r.ru_utime.tv_usec + r.ru_stime.tv_usec < 40000);
    }
    JOIN(p);
    CHECK(syscall(SYS_times, &t) > 0);
    CHECK(t.cu + t.cs >= 2);
    CHECK_EQ(sysconf(_SC_CLK_TCK), 100);
}

TEST(kill_zero_pgrp_reaches_own_group) {
    pid_t p;
    CHILD(p) {
        OK(setpgid(0, 0));
        pid_t q;
        CHILD(q) for (;;) pause();
        signal(SIGTERM, SIG_IGN);
        OK(kill(0, SIGTERM));
        CHECK_EQ(WAIT(q), SIGTERM);
    }
    JOIN(p);
}

TEST(clone3_into_a_cgroup) {
    NEED_ROOT();
    if (unshare(CLONE_NEWNS)) SKIP("unshare: %s", strerrorname_np(errno));
    OK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    OK(mkdir("cg", 0700));
    if (mount("none", "cg", "cgroup2", 0, 0)) SKIP("no cgroup2: %s", strerrorname_np(errno));
    char name[64], procs[96], text[64];
    snprintf(name, sizeof name, "cg/compat-%d", getpid());
    snprintf(procs, sizeof procs, "%s/cgroup.procs", name);
    OK(mkdir(name, 0755));
    int dir = OK(open(name, O_RDONLY | O_DIRECTORY)), gate[2];
    OK(pipe(gate));
    struct clone_args a = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = dir};
    pid_t p = clone3(&a);
    if (p == 0) {
        gate_wait(gate[0]);
        _exit(0);
    }
    bool inside = p > 0 && read_file(procs, text, sizeof text) > 0 && atoi(text) == p;
    gate_open(gate[1]);
    if (p > 0) JOIN(p);
    // Whatever came of it, the host keeps no group.
    OK(rmdir(name));
    CHECK(p > 0);
    CHECK(inside);
    a.cgroup = OK(open("/", O_RDONLY | O_DIRECTORY));
    CHECK_ERRNO(clone3(&a), EBADF);
    a.cgroup = 999;
    CHECK_ERRNO(clone3(&a), EBADF);
    OK(umount2("cg", MNT_DETACH));
}
