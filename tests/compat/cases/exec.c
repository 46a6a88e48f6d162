// execve, execveat: what is kept, what is reset, which errno.
#include "compat.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/personality.h>

#define RUN(...) execl(SELF, SELF, __VA_ARGS__, (char *)0)

HELPER(exit7) { return 7; }

// Prints the arguments, one in brackets each.
HELPER(show_args) {
    for (int i = 0; i < argc; i++) printf("[%s]", argv[i]);
    return 0;
}

// What a child prints; waits for it.
static void capture(char *buf, size_t size, int want, void (*f)(void *), void *arg) {
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    CHILD(p) {
        dup2(fd[1], 1);
        f(arg);
        _exit(111);
    }
    close(fd[1]);
    size_t n = 0;
    ssize_t r;
    while (n < size - 1 && (r = read(fd[0], buf + n, size - 1 - n)) > 0) n += r;
    buf[n] = 0;
    close(fd[0]);
    int s = WAIT(p);
    if (s != want) FAIL("status %#x, not %#x, output %s", s, want, buf);
}

static void make(const char *name, const char *text, mode_t mode) {
    int fd = OK(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    OK(write(fd, text, strlen(text)));
    OK(fchmod(fd, mode));
    close(fd);
}

TEST(exec_replaces_program) {
    pid_t p;
    CHILD(p) OK(RUN("--helper=exit7"));
    CHECK_EQ(WAIT(p), W_EXIT(7));
}

static void do_show(void *arg) { execv(SELF, arg); }

TEST(argv_is_passed_verbatim) {
    char out[256];
    capture(out, sizeof out, 0, do_show, (char *[]){"zero", "--helper=show_args", "", "a b", "\xff", 0});
    CHECK_STR(out, "[zero][--helper=show_args][][a b][\xff]");
}

HELPER(show_env) {
    for (char **e = environ; *e; e++) printf("%s;", *e);
    return 0;
}

static void do_env(void *arg) { execve(SELF, (char *[]){SELF, "--helper=show_env", 0}, arg); }

TEST(environment_is_passed_verbatim) {
    char out[256];
    capture(out, sizeof out, 0, do_env, (char *[]){"A=1", "noequals", "A=2", "", 0});
    CHECK_STR(out, "A=1;noequals;A=2;;");
    capture(out, sizeof out, 0, do_env, (char *[]){0});
    CHECK_STR(out, "");
}

static void do_script(void *arg) { execve(((char **)arg)[0], arg, environ); }

static void do_empty(void *arg) { execve(arg, (char *[]){0}, (char *[]){0}); }

TEST(empty_argv_becomes_one_empty_string) {
    // Since Linux 5.18. A script's name takes the place of the empty string.
    char out[256];
    make("s", "#!/bin/echo\n", 0755);
    capture(out, sizeof out, 0, do_empty, "./s");
    CHECK_STR(out, "./s\n");
}

TEST(missing_and_forbidden_files) {
    char *av[] = {"x", 0};
    make("plain", "#!/bin/sh\n", 0644);
    OK(mkdir("dir", 0755));
    CHECK_ERRNO(execv("none", av), ENOENT);
    CHECK_ERRNO(execv("", av), ENOENT);
    CHECK_ERRNO(execv("none/x", av), ENOENT);
    CHECK_ERRNO(execv("plain", av), EACCES);
    CHECK_ERRNO(execv("dir", av), EACCES);
    CHECK_ERRNO(execv("/dev/null", av), EACCES);
    CHECK_ERRNO(execv("plain/x", av), ENOTDIR);
    OK(symlink("loop", "loop"));
    CHECK_ERRNO(execv("loop", av), ELOOP);
    OK(mkfifo("fifo", 0777));
    CHECK_ERRNO(execv("fifo", av), EACCES);
    CHECK_ERRNO(execv((char *)8, av), EFAULT);
    CHECK_ERRNO(execv(SELF, (char **)8), EFAULT);
    CHECK_ERRNO(execve(SELF, (char *[]){(char *)8, 0}, environ), EFAULT);
    CHECK_ERRNO(execve(SELF, av, (char *[]){(char *)8, 0}), EFAULT);
    char longname[300];
    memset(longname, 'a', 299);
    longname[299] = 0;
    CHECK_ERRNO(execv(longname, av), ENAMETOOLONG);
}

TEST(execute_permission_of_non_root) {
    NEED_ROOT();
    make("u", "#!/bin/sh\nexit 3\n", 0100);
    make("o", "#!/bin/sh\nexit 3\n", 0755);
    pid_t p;
    CHILD(p) {
        OK(setgid(1000));
        OK(setuid(1000));
        CHECK_ERRNO(execl("u", "u", (char *)0), EACCES);
        OK(execl("o", "o", (char *)0));
    }
    CHECK_EQ(WAIT(p), W_EXIT(3));
}

TEST(unknown_format_is_enoexec) {
    char *av[] = {"x", 0};
    make("empty", "", 0755);
    make("text", "echo hello\n", 0755);
    make("elfish", "\177ELF", 0755);
    CHECK_ERRNO(execv("empty", av), ENOEXEC);
    CHECK_ERRNO(execv("text", av), ENOEXEC);
    CHECK_ERRNO(execv("elfish", av), ENOEXEC);
}

// Writes a small ELF header with one load segment, changed by `edit`.
static void make_elf(const char *name, void (*edit)(Elf64_Ehdr *, Elf64_Phdr *)) {
    struct {
        Elf64_Ehdr e;
        Elf64_Phdr p[2];
        unsigned char code[16];
    } f = {0};
    memcpy(f.e.e_ident, "\177ELF\2\1\1", 7);
    f.e.e_type = ET_EXEC, f.e.e_machine = EM_X86_64, f.e.e_version = 1;
    f.e.e_entry = 0x400000 + offsetof(__typeof__(f), code);
    f.e.e_phoff = offsetof(__typeof__(f), p), f.e.e_ehsize = sizeof f.e, f.e.e_phentsize = sizeof f.p[0], f.e.e_phnum = 1;
    f.p[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000, .p_filesz = sizeof f, .p_memsz = sizeof f, .p_align = 4096};
    // mov $60, %eax; mov $5, %edi; syscall
    memcpy(f.code, "\xb8\x3c\0\0\0\xbf\x05\0\0\0\x0f\x05", 12);
    if (edit) edit(&f.e, f.p);
    int fd = OK(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0755));
    CHECK_EQ(write(fd, &f, sizeof f), sizeof f);
    close(fd);
}

static void edit_machine(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p, e->e_machine = EM_AARCH64; }
static void edit_type(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p, e->e_type = ET_REL; }
static void edit_phentsize(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p, e->e_phentsize = 32; }
static void edit_phnum(Elf64_Ehdr *e, Elf64_Phdr *p) { (void)p, e->e_phnum = 0; }
static void edit_interp(Elf64_Ehdr *e, Elf64_Phdr *p) {
    e->e_phnum = 2;
    p[1] = p[0];
    p[0] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0, .p_filesz = 1};
}
static void edit_interp_missing(Elf64_Ehdr *e, Elf64_Phdr *p) {
    edit_interp(e, p);
    // The header's padding bytes hold the name.
    memcpy(e->e_ident + 9, "no", 3);
    p[0].p_offset = 9, p[0].p_filesz = 3;
}

TEST(minimal_elf_runs) {
    make_elf("e", 0);
    pid_t p;
    CHILD(p) OK(execl("./e", "e", (char *)0));
    CHECK_EQ(WAIT(p), W_EXIT(5));
}

TEST(bad_elf_headers) {
    char *av[] = {"x", 0};
    make_elf("e", edit_machine);
    CHECK_ERRNO(execv("./e", av), ENOEXEC);
    make_elf("e", edit_type);
    CHECK_ERRNO(execv("./e", av), ENOEXEC);
    make_elf("e", edit_phentsize);
    CHECK_ERRNO(execv("./e", av), ENOEXEC);
    make_elf("e", edit_phnum);
    CHECK_ERRNO(execv("./e", av), ENOEXEC);
    make_elf("e", edit_interp);
    CHECK_ERRNO(execv("./e", av), ENOEXEC);
    make_elf("e", edit_interp_missing);
    CHECK_ERRNO(execv("./e", av), ENOENT);
}

TEST(open_for_writing_is_etxtbsy) {
    make("s", "#!/bin/sh\nexit 0\n", 0755);
    int fd = OK(open("s", O_WRONLY));
    CHECK_ERRNO(execl("s", "s", (char *)0), ETXTBSY);
    close(fd);
    pid_t p;
    CHILD(p) OK(execl("s", "s", (char *)0));
    JOIN(p);
}

HELPER(sleeps) {
    (void)!write(1, "x", 1);
    for (;;) pause();
    return 0;
}

TEST(running_program_is_etxtbsy_for_writers) {
    int in = OK(open(SELF, O_RDONLY)), out = OK(open("copy", O_WRONLY | O_CREAT, 0755));
    char buf[65536];
    ssize_t n;
    while ((n = OK(read(in, buf, sizeof buf))) > 0) CHECK_EQ(write(out, buf, n), n);
    close(out);
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    CHILD(p) {
        dup2(fd[1], 1);
        OK(execl("./copy", "copy", "--helper=sleeps", (char *)0));
    }
    gate_wait(fd[0]);
    CHECK_ERRNO(open("copy", O_WRONLY), ETXTBSY);
    CHECK_ERRNO(truncate("copy", 0), ETXTBSY);
    OK(unlink("copy"));
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(one_argument_limit_is_128k) {
    // MAX_ARG_STRLEN: 32 pages with the terminating zero.
    char *big = malloc(131073);
    memset(big, 'a', 131072);
    big[131072] = 0;
    CHECK_ERRNO(execl(SELF, SELF, "--helper=exit7", big, (char *)0), E2BIG);
    big[131071] = 0;
    pid_t p;
    CHILD(p) OK(RUN("--helper=exit7", big));
    CHECK_EQ(WAIT(p), W_EXIT(7));
}

TEST(all_arguments_limit_is_quarter_of_stack) {
    enum { N = 64 };
    char *s = malloc(65536), *av[N + 3];
    memset(s, 'a', 65535);
    s[65535] = 0;
    av[0] = SELF, av[1] = "--helper=exit7";
    for (int i = 0; i < N; i++) av[i + 2] = s;
    av[N + 2] = 0;
    pid_t p;
    CHILD(p) {
        struct rlimit r = {8 << 20, 8 << 20};
        OK(setrlimit(RLIMIT_STACK, &r));
        CHECK_ERRNO(execv(SELF, av), E2BIG);
        av[18] = 0; // a MiB fits
        OK(execv(SELF, av));
    }
    CHECK_EQ(WAIT(p), W_EXIT(7));
}

TEST(interpreter_line_arguments) {
    char out[512];
    OK(symlink(SELF, "i"));
    make("s", "#!./i --helper=show_args\nrest", 0755);
    capture(out, sizeof out, 0, do_script, (char *[]){"./s", "a", "b", 0});
    CHECK_STR(out, "[./i][--helper=show_args][./s][a][b]");
    // Blanks are skipped before the name, between, and at the end; an argument may hold blanks.
    make("s", "#! \t ./i  \t --helper=show_args \t \n", 0755);
    capture(out, sizeof out, 0, do_script, (char *[]){"./s", 0});
    CHECK_STR(out, "[./i][--helper=show_args][./s]");
    // The argument is one string. No newline at the end of the file.
    make("s", "#!/bin/echo a b  c", 0755);
    capture(out, sizeof out, 0, do_script, (char *[]){"./s", "d", 0});
    CHECK_STR(out, "a b  c ./s d\n");
}

TEST(interpreter_argv0_is_lost) {
    char out[256];
    make("s", "#!/bin/echo\n", 0755);
    pid_t p;
    int fd[2];
    OK(pipe(fd));
    CHILD(p) {
        dup2(fd[1], 1);
        execl("./s", "othername", "x", (char *)0);
    }
    JOIN(p);
    out[OK(read(fd[0], out, sizeof out - 1))] = 0;
    CHECK_STR(out, "./s x\n");
}

TEST(nested_interpreters) {
    char out[256], text[64];
    make("s0", "#!/bin/echo\n", 0755);
    for (int i = 1; i <= 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", i);
        snprintf(text, sizeof text, "#!./s%d\n", i - 1);
        make(name, text, 0755);
    }
    capture(out, sizeof out, 0, do_script, (char *[]){"./s3", 0});
    CHECK_STR(out, "./s0 ./s1 ./s2 ./s3\n");
    capture(out, sizeof out, 0, do_script, (char *[]){"./s4", 0});
    CHECK_ERRNO(execl("./s6", "s6", (char *)0), ELOOP);
}

TEST(interpreter_errors) {
    char *av[] = {"x", 0};
    make("s", "#!/none/at/all\n", 0755);
    CHECK_ERRNO(execv("./s", av), ENOENT);
    make("s", "#!\n", 0755);
    CHECK_ERRNO(execv("./s", av), ENOEXEC);
    make("s", "#!   \t\n", 0755);
    CHECK_ERRNO(execv("./s", av), ENOEXEC);
    make("noexec", "", 0644);
    make("s", "#!./noexec\n", 0755);
    CHECK_ERRNO(execv("./s", av), EACCES);
    make("s", "#!/\n", 0755);
    CHECK_ERRNO(execv("./s", av), EACCES);
    // A name that does not end within the first 256 bytes.
    char text[400] = "#!";
    memset(text + 2, 'a', 300);
    strcpy(text + 302, "\n");
    make("s", text, 0755);
    CHECK_ERRNO(execv("./s", av), ENOEXEC);
}

HELPER(fd_is_open) { return fcntl(atoi(argv[2]), F_GETFD) < 0 ? 1 : 0; }

TEST(close_on_exec) {
    int keep = OK(open("/dev/null", O_RDONLY)), shut = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
    char a[16], b[16];
    snprintf(a, sizeof a, "%d", keep), snprintf(b, sizeof b, "%d", shut);
    pid_t p;
    CHILD(p) RUN("--helper=fd_is_open", a);
    CHECK_EQ(WAIT(p), 0);
    CHILD(p) RUN("--helper=fd_is_open", b);
    CHECK_EQ(WAIT(p), W_EXIT(1));
    OK(fcntl(keep, F_SETFD, FD_CLOEXEC));
    OK(fcntl(shut, F_SETFD, 0));
    CHILD(p) RUN("--helper=fd_is_open", a);
    CHECK_EQ(WAIT(p), W_EXIT(1));
    CHILD(p) RUN("--helper=fd_is_open", b);
    CHECK_EQ(WAIT(p), 0);
}

TEST(failed_exec_keeps_cloexec_fds) {
    int fd = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK_ERRNO(execl("none", "none", (char *)0), ENOENT);
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

HELPER(signal_state) {
    struct sigaction a;
    sigset_t set;
    stack_t st;
    OK(sigaction(SIGUSR1, 0, &a));
    CHECK(a.sa_handler == SIG_DFL); // was caught
    CHECK_EQ(a.sa_flags & ~0x04000000, 0);
    OK(sigaction(SIGUSR2, 0, &a));
    CHECK(a.sa_handler == SIG_IGN);
    OK(sigaction(SIGCHLD, 0, &a));
    CHECK(a.sa_handler == SIG_IGN);
    OK(sigprocmask(SIG_BLOCK, 0, &set));
    CHECK(sigismember(&set, SIGHUP) && !sigismember(&set, SIGINT));
    OK(sigpending(&set));
    CHECK(sigismember(&set, SIGHUP));
    OK(sigaltstack(0, &st));
    CHECK(st.ss_flags == SS_DISABLE);
    return 0;
}

TEST(signals_are_reset) {
    pid_t p;
    CHILD(p) {
        handle(SIGUSR1, (void *)_exit, SA_RESTART | SA_NODEFER);
        signal(SIGUSR2, SIG_IGN);
        signal(SIGCHLD, SIG_IGN);
        sigset_t set = sigs(SIGHUP, 0, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        raise(SIGHUP);
        stack_t st = {.ss_sp = malloc(65536), .ss_size = 65536};
        OK(sigaltstack(&st, 0));
        OK(RUN("--helper=signal_state"));
    }
    JOIN(p);
}

TEST(pid_and_parent_are_kept) {
    char out[64], want[64];
    make("s", "#!/bin/sh\necho $$ $PPID\n", 0755);
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    CHILD(p) {
        dup2(fd[1], 1);
        OK(execl("./s", "s", (char *)0));
    }
    JOIN(p);
    out[OK(read(fd[0], out, 63))] = 0;
    snprintf(want, sizeof want, "%d %d\n", p, getpid());
    CHECK_STR(out, want);
}

HELPER(attributes) {
    char cwd[PATH_MAX];
    struct itimerval it;
    struct rlimit r;
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK_STR(cwd, "/");
    CHECK_EQ(umask(0), 031);
    CHECK_EQ(getpgrp(), getpid());
    OK(getrlimit(RLIMIT_NOFILE, &r));
    CHECK_EQ(r.rlim_cur, 77);
    OK(getitimer(ITIMER_REAL, &it));
    CHECK(it.it_value.tv_sec > 100);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 5);
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    char name[16];
    OK(prctl(PR_GET_NAME, name));
    CHECK_STR(name, "copy-of-self-wi"); // the last path component, 15 characters
    int sig;
    OK(prctl(PR_GET_PDEATHSIG, &sig));
    CHECK_EQ(sig, SIGUSR1);
    return 0;
}

TEST(attributes_are_kept) {
    OK(symlink(SELF, "copy-of-self-with-a-long-name"));
    pid_t p;
    CHILD(p) {
        char path[PATH_MAX];
        CHECK(getcwd(path, sizeof path - 40));
        strcat(path, "/copy-of-self-with-a-long-name");
        OK(setpgid(0, 0));
        OK(chdir("/"));
        umask(031);
        struct rlimit r = {77, 77};
        OK(setrlimit(RLIMIT_NOFILE, &r));
        struct itimerval it = {.it_value.tv_sec = 1000};
        OK(setitimer(ITIMER_REAL, &it, 0));
        OK(setpriority(PRIO_PROCESS, 0, 5));
        OK(prctl(PR_SET_NAME, "before"));
        OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
        OK(execl(path, "argv0", "--helper=attributes", (char *)0));
    }
    JOIN(p);
}

HELPER(memory_gone) {
    unsigned char v;
    return mincore((void *)0x700000000000, 4096, &v) == -1 && errno == ENOMEM ? 0 : 1;
}

TEST(memory_is_replaced) {
    pid_t p;
    CHILD(p) {
        CHECK(mmap((void *)0x700000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED);
        OK(RUN("--helper=memory_gone"));
    }
    JOIN(p);
}

HELPER(one_thread) {
    char buf[2048];
    CHECK(read_file("/proc/self/status", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "Threads:\t1\n"));
    CHECK_EQ(getpid(), atoi(argv[2]));
    CHECK_EQ(gettid(), getpid());
    return 0;
}

static void *just_pause(void *arg) {
    for (;;) pause();
    return arg;
}

static void *exec_one_thread(void *arg) {
    RUN("--helper=one_thread", arg);
    FAIL("exec gives %s", strerrorname_np(errno));
}

TEST(exec_kills_other_threads) {
    pid_t p;
    CHILD(p) {
        char me[16];
        snprintf(me, sizeof me, "%d", getpid());
        for (int i = 0; i < 20; i++) start(just_pause, 0);
        OK(RUN("--helper=one_thread", me));
    }
    JOIN(p);
}

TEST(exec_by_other_thread_takes_the_pid) {
    pid_t p;
    CHILD(p) {
        char me[16];
        snprintf(me, sizeof me, "%d", getpid());
        for (int i = 0; i < 5; i++) start(just_pause, 0);
        start(exec_one_thread, me);
        for (;;) pause();
    }
    JOIN(p);
}

TEST(execveat_with_directory) {
    make("s", "#!/bin/sh\nexit 6\n", 0755);
    int d = OK(open(".", O_RDONLY | O_DIRECTORY));
    pid_t p;
    CHILD(p) {
        OK(chdir("/"));
        OK(execveat(d, "s", (char *[]){"s", 0}, environ, 0));
    }
    CHECK_EQ(WAIT(p), W_EXIT(6));
    CHILD(p) {
        // The script's name is below /dev/fd: not usable once that is closed by exec.
        OK(fcntl(d, F_SETFD, FD_CLOEXEC));
        CHECK_ERRNO(execveat(d, "s", (char *[]){"s", 0}, environ, 0), ENOENT);
    }
    JOIN(p);
}

TEST(execveat_empty_path) {
    int fd = OK(open(SELF, O_RDONLY | O_CLOEXEC));
    pid_t p;
    CHILD(p) OK(execveat(fd, "", (char *[]){"s", "--helper=exit7", 0}, environ, AT_EMPTY_PATH));
    CHECK_EQ(WAIT(p), W_EXIT(7));
    int path = OK(open(SELF, O_PATH));
    CHILD(p) OK(execveat(path, "", (char *[]){"s", "--helper=exit7", 0}, environ, AT_EMPTY_PATH));
    CHECK_EQ(WAIT(p), W_EXIT(7));
    CHECK_ERRNO(execveat(fd, "", (char *[]){"s", 0}, environ, 0), ENOENT);
    CHECK_ERRNO(execveat(999, "", (char *[]){"s", 0}, environ, AT_EMPTY_PATH), EBADF);
    CHECK_ERRNO(execveat(fd, "x", (char *[]){"s", 0}, environ, 0), ENOTDIR);
    CHECK_ERRNO(execveat(AT_FDCWD, SELF, (char *[]){"s", 0}, environ, 0x80), EINVAL);
    OK(symlink(SELF, "l"));
    CHECK_ERRNO(execveat(AT_FDCWD, "l", (char *[]){"s", 0}, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
}

TEST(exec_of_deleted_file_by_fd) {
    make_elf("e", 0);
    int fd = OK(open("e", O_RDONLY | O_CLOEXEC));
    OK(unlink("e"));
    pid_t p;
    CHILD(p) OK(fexecve(fd, (char *[]){"e", 0}, environ));
    CHECK_EQ(WAIT(p), W_EXIT(5));
}

TEST(exec_of_memfd) {
    make_elf("e", 0);
    char buf[512];
    int in = OK(open("e", O_RDONLY)), fd = OK(memfd_create("prog", MFD_CLOEXEC));
    ssize_t n = OK(read(in, buf, sizeof buf));
    CHECK_EQ(write(fd, buf, n), n);
    pid_t p;
    // A memfd's own description does not count as a writer.
    CHILD(p) OK(fexecve(fd, (char *[]){"e", 0}, environ));
    CHECK_EQ(WAIT(p), W_EXIT(5));
}

HELPER(auxv) {
    CHECK_EQ(getauxval(AT_PAGESZ), 4096);
    CHECK_EQ(getauxval(AT_CLKTCK), 100);
    CHECK_EQ(getauxval(AT_UID), getuid());
    CHECK_EQ(getauxval(AT_EUID), geteuid());
    CHECK_EQ(getauxval(AT_GID), getgid());
    CHECK_EQ(getauxval(AT_EGID), getegid());
    CHECK_EQ(getauxval(AT_SECURE), 0);
    CHECK_STR((char *)getauxval(AT_EXECFN), argv[2]);
    CHECK_STR((char *)getauxval(AT_PLATFORM), "x86_64");
    CHECK(getauxval(AT_RANDOM));
    CHECK(getauxval(AT_PHDR) && getauxval(AT_PHNUM) && getauxval(AT_PHENT) == sizeof(Elf64_Phdr));
    CHECK(getauxval(AT_ENTRY));
    CHECK(getauxval(AT_HWCAP));
    // At entry the stack is aligned to 16: argc lies 8 bytes below argv.
    CHECK_EQ(((uintptr_t)argv - 8) % 16, 0);
    // Then come argv, environment and auxv in this order, and the strings above.
    CHECK(argv + argc + 1 == environ);
    CHECK(argv[0] > (char *)environ);
    return 0;
}

TEST(auxiliary_vector) {
    OK(symlink(SELF, "link"));
    pid_t p;
    CHILD(p) OK(execl("./link", "name", "--helper=auxv", "./link", (char *)0));
    JOIN(p);
}

HELPER(random16) {
    CHECK_EQ(write(1, (void *)getauxval(AT_RANDOM), 16), 16);
    return 0;
}
static void do_random(void *arg) { RUN("--helper=random16", arg); }

TEST(at_random_differs) {
    int fd[2];
    OK(pipe(fd));
    char a[32];
    for (int i = 0; i < 2; i++) {
        pid_t p;
        CHILD(p) {
            dup2(fd[1], 1);
            do_random(0);
        }
        JOIN(p);
    }
    CHECK_EQ(read(fd[0], a, 32), 32);
    CHECK(memcmp(a, a + 16, 16));
}

HELPER(ids) { printf("%d %d %d %d", getuid(), geteuid(), getgid(), getegid()); return (int)getauxval(AT_SECURE); }

TEST(setuid_program) {
    NEED_ROOT();
    int in = OK(open(SELF, O_RDONLY)), out = OK(open("su", O_WRONLY | O_CREAT, 0755));
    char buf[65536];
    ssize_t n;
    while ((n = OK(read(in, buf, sizeof buf))) > 0) CHECK_EQ(write(out, buf, n), n);
    OK(fchown(out, 1234, 4321));
    OK(fchmod(out, 06755));
    close(out);
    int fd[2];
    OK(pipe(fd));
    pid_t p;
    CHILD(p) {
        dup2(fd[1], 1);
        OK(setgid(1000));
        OK(setuid(1000));
        OK(execl("./su", "su", "--helper=ids", (char *)0));
    }
    CHECK_EQ(WAIT(p), W_EXIT(1)); // AT_SECURE
    buf[OK(read(fd[0], buf, 100))] = 0;
    CHECK_STR(buf, "1000 1234 1000 4321");
    CHILD(p) {
        // no_new_privs turns the bits off.
        dup2(fd[1], 1);
        OK(setgid(1000));
        OK(setuid(1000));
        OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        OK(execl("./su", "su", "--helper=ids", (char *)0));
    }
    JOIN(p);
    buf[OK(read(fd[0], buf, 100))] = 0;
    CHECK_STR(buf, "1000 1000 1000 1000");
}

TEST(setuid_script_is_not_honoured) {
    NEED_ROOT();
    make("s", "#!/bin/sh\nexit $(id -u)\n", 0755);
    OK(chown("s", 100, 100));
    OK(chmod("s", 06755));
    pid_t p;
    CHILD(p) {
        OK(setuid(33));
        OK(execl("./s", "s", (char *)0));
    }
    CHECK_EQ(WAIT(p), W_EXIT(33));
}

TEST(exec_of_unreadable_program) {
    NEED_ROOT();
    make_elf("e", 0);
    OK(chmod("e", 0711));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        OK(execl("./e", "e", (char *)0));
    }
    CHECK_EQ(WAIT(p), W_EXIT(5));
}

TEST(proc_self_exe_follows_exec) {
    char out[PATH_MAX];
    make("s", "#!/bin/sh\nexec readlink /proc/self/exe\n", 0755);
    capture(out, sizeof out, 0, do_script, (char *[]){"./s", 0});
    CHECK(strstr(out, "readlink\n") || strstr(out, "coreutils") || strstr(out, "busybox"));
}

TEST(dynamic_program_runs) {
    pid_t p;
    CHILD(p) OK(execl("/bin/true", "true", (char *)0));
    JOIN(p);
    CHILD(p) OK(execl("/bin/false", "false", (char *)0));
    CHECK_EQ(WAIT(p), W_EXIT(1));
}

TEST(interpreter_run_directly) {
    if (access("/lib64/ld-linux-x86-64.so.2", X_OK)) SKIP("no dynamic linker here");
    pid_t p;
    CHILD(p) OK(execl("/lib64/ld-linux-x86-64.so.2", "ld", "/bin/false", (char *)0));
    CHECK_EQ(WAIT(p), W_EXIT(1));
}

HELPER(personality) { return personality(0xffffffff) & ADDR_NO_RANDOMIZE ? 3 : 4; }

TEST(personality_is_kept) {
    pid_t p;
    CHILD(p) {
        OK(personality(ADDR_NO_RANDOMIZE));
        OK(RUN("--helper=personality"));
    }
    CHECK_EQ(WAIT(p), W_EXIT(3));
}

HELPER(stack_top) { printf("%p %p", (void *)argv, sbrk(0)); return 0; }
static void do_top(void *arg) { RUN("--helper=stack_top", arg); }

TEST(addresses_are_randomized) {
    if (personality(0xffffffff) & ADDR_NO_RANDOMIZE) SKIP("randomization is off");
    char text[8];
    if (read_file("/proc/sys/kernel/randomize_va_space", text, sizeof text) > 0 && text[0] == '0') SKIP("randomization is off");
    char a[64], b[64];
    capture(a, sizeof a, 0, do_top, 0);
    capture(b, sizeof b, 0, do_top, 0);
    CHECK(strcmp(a, b));
}
