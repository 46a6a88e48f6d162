// /proc: what ps, top, shells and runtimes read.
#include "compat.h"
#include <dirent.h>
#include <sys/sysinfo.h>

static char buf[1 << 17];
static char *get(const char *path) {
    if (read_file(path, buf, sizeof buf) < 0) FAIL("%s: %s", path, strerrorname_np(errno));
    return buf;
}
// The value of a "Name:" line of the text read last.
static char *field(const char *name) {
    char *p = strstr(buf, name);
    while (p && p != buf && p[-1] != '\n') p = strstr(p + 1, name);
    if (!p) FAIL("no field %s", name);
    return p + strlen(name);
}

HELPER(sleeps) {
    (void)!write(1, "x", 1);
    for (;;) pause();
    return 0;
}
// A child that runs this program as "name".
static pid_t program(const char *name) {
    int g[2];
    OK(pipe(g));
    pid_t p;
    CHILD(p) {
        dup2(g[1], 1);
        execl(SELF, name, "--helper=sleeps", "two words", (char *)0);
    }
    gate_wait(g[0]);
    close(g[0]), close(g[1]);
    return p;
}
static void end(pid_t p) {
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(self_links) {
    char l[64], w[64];
    ssize_t n = OK(readlink("/proc/self", l, 63));
    l[n] = 0;
    CHECK_EQ(atoi(l), getpid());
    n = OK(readlink("/proc/thread-self", l, 63));
    l[n] = 0;
    snprintf(w, sizeof w, "%d/task/%d", getpid(), gettid());
    CHECK_STR(l, w);
}

TEST(stat_line) {
    get("/proc/self/stat");
    CHECK_EQ(atoi(buf), getpid());
    int spaces = 0;
    for (char *p = strrchr(buf, ')'); *p; p++) spaces += *p == ' ';
    CHECK_V(spaces == 50, spaces); // 52 fields
    CHECK(buf[strlen(buf) - 1] == '\n');
    long threads;
    unsigned long start;
    CHECK_EQ(sscanf(strrchr(buf, ')') + 2, "R %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %lu", &threads, &start), 2);
    CHECK_EQ(threads, 1);
    struct sysinfo i;
    OK(sysinfo(&i));
    CHECK_V(start / 100 <= (unsigned long)i.uptime + 1, start); // since boot
}

TEST(stat_name_with_odd_characters) {
    OK(prctl(PR_SET_NAME, "a) b (c"));
    get("/proc/self/stat");
    CHECK(strstr(buf, "(a) b (c) R "));
    get("/proc/self/status");
    CHECK(!strncmp(field("Name:\t"), "a) b (c\n", 8));
}

TEST(status_fields) {
    pid_t p = program("prog");
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", p);
    wait_asleep(p);
    get(path);
    CHECK_EQ(atoi(field("Pid:")), p);
    CHECK_EQ(atoi(field("Tgid:")), p);
    CHECK_EQ(atoi(field("PPid:")), getpid());
    CHECK_EQ(atoi(field("TracerPid:")), 0);
    CHECK_EQ(atoi(field("Uid:")), getuid());
    CHECK_EQ(atoi(field("Threads:")), 1);
    CHECK(!strncmp(field("State:"), "\tS (sleeping)\n", 14));
    CHECK(atoi(field("VmSize:")) > 0 && atoi(field("VmRSS:")) > 0 && atoi(field("VmPeak:")) >= atoi(field("VmSize:")));
    const char *names[] = {"Umask:", "Ngid:", "Gid:", "FDSize:", "Groups:", "NSpid:", "VmData:", "VmStk:", "VmExe:", "VmLib:", "SigQ:", "SigPnd:", "ShdPnd:",
                           "SigBlk:", "SigIgn:", "SigCgt:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:", "Cpus_allowed:",
                           "Cpus_allowed_list:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) field(names[i]);
    end(p);
}

TEST(status_signal_masks) {
    signal(SIGUSR1, SIG_IGN);
    handle(SIGUSR2, (void *)_exit, 0);
    sigset_t set = sigs(SIGHUP, 0, 0);
    OK(sigprocmask(SIG_BLOCK, &set, 0));
    OK(kill(getpid(), SIGHUP));
    OK(tgkill(getpid(), gettid(), SIGHUP));
    get("/proc/self/status");
    CHECK_EQ(strtoul(field("SigBlk:"), 0, 16), 1ul << (SIGHUP - 1));
    CHECK_EQ(strtoul(field("SigIgn:"), 0, 16), 1ul << (SIGUSR1 - 1));
    CHECK_EQ(strtoul(field("SigCgt:"), 0, 16), 1ul << (SIGUSR2 - 1));
    CHECK_EQ(strtoul(field("ShdPnd:"), 0, 16), 1ul << (SIGHUP - 1));
    CHECK_EQ(strtoul(field("SigPnd:"), 0, 16), 1ul << (SIGHUP - 1));
}

TEST(states_of_processes) {
    pid_t p = program("x");
    wait_asleep(p);
    CHECK_EQ(state_of(p), 'S');
    OK(kill(p, SIGSTOP));
    CHECK_EQ(waitpid(p, 0, WUNTRACED), p);
    CHECK_EQ(state_of(p), 'T');
    OK(kill(p, SIGKILL));
    siginfo_t si;
    OK(waitid(P_PID, p, &si, WEXITED | WNOWAIT));
    CHECK_EQ(state_of(p), 'Z');
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", p);
    CHECK_EQ(read_file(path, buf, sizeof buf), 0); // a zombie has none
    snprintf(path, sizeof path, "/proc/%d/exe", p);
    CHECK_ERRNO(readlink(path, buf, 64), ENOENT);
    CHECK_EQ(WAIT(p), SIGKILL);
    CHECK_EQ(state_of(p), 0);
    CHECK_EQ(state_of(getpid()), 'R');
}

TEST(cmdline_and_comm) {
    pid_t p = program("my-name");
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", p);
    ssize_t n = read_file(path, buf, sizeof buf);
    CHECK_EQ(n, 8 + 17 - 1 + 10);
    CHECK_MEM(buf, "my-name\0--helper=sleeps\0two words", 34);
    snprintf(path, sizeof path, "/proc/%d/comm", p);
    get(path);
    char want[32] = {0};
    strncpy(want, strrchr(SELF, '/') + 1, 15);
    strcat(want, "\n");
    CHECK_STR(buf, want);
    end(p);
}

TEST(cmdline_can_be_overwritten) {
    // setproctitle: the area of the arguments is the process's own memory.
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        FILE *f = fopen("/proc/self/stat", "r");
        char line[2048];
        CHECK(f && fgets(line, sizeof line, f));
        unsigned long start = 0;
        char *q = strrchr(line, ')') + 2;
        for (int i = 3; i < 48; i++) q = strchr(q, ' ') + 1;
        start = strtoul(q, 0, 10);
        CHECK(start);
        ((char *)start)[0] = '#';
        ssize_t n = read_file("/proc/self/cmdline", buf, sizeof buf);
        CHECK(n > 0);
        CHECK_EQ(buf[0], '#');
    }
    JOIN(p);
}

TEST(comm_is_writable) {
    int fd = OK(open("/proc/self/comm", O_WRONLY));
    OK(write(fd, "a-new-name-that-is-long", 23));
    char name[16];
    OK(prctl(PR_GET_NAME, name));
    CHECK_STR(name, "a-new-name-that");
    pid_t p;
    CHILD(p) for (;;) pause();
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", p);
    fd = open(path, O_WRONLY);
    if (fd >= 0) CHECK_ERRNO(write(fd, "x", 1), EINVAL); // another process
    OK(kill(p, SIGKILL));
    CHECK_EQ(WAIT(p), SIGKILL);
}

TEST(environ_is_shown) {
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        dup2(g[1], 1);
        execle(SELF, "x", "--helper=sleeps", (char *)0, (char *[]){"A=1", "B=2", 0});
    }
    gate_wait(g[0]);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", p);
    CHECK_EQ(read_file(path, buf, sizeof buf), 8);
    CHECK_MEM(buf, "A=1\0B=2", 8);
    end(p);
}

TEST(exe_cwd_root_links) {
    char l[PATH_MAX], cwd[PATH_MAX];
    ssize_t n = OK(readlink("/proc/self/exe", l, sizeof l - 1));
    l[n] = 0;
    CHECK_STR(l, SELF);
    n = OK(readlink("/proc/self/cwd", l, sizeof l - 1));
    l[n] = 0;
    CHECK(getcwd(cwd, sizeof cwd));
    CHECK_STR(l, cwd);
    n = OK(readlink("/proc/self/root", l, sizeof l - 1));
    l[n] = 0;
    CHECK_STR(l, "/");
    struct stat a, b;
    OK(stat("/proc/self/exe", &a)), OK(stat(SELF, &b));
    CHECK_EQ(a.st_ino, b.st_ino);
    OK(close(OK(open("/proc/self/cwd/f", O_CREAT | O_WRONLY, 0600))));
    OK(access("f", F_OK));
}

TEST(fd_directory) {
    int fd = OK(open("f", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    char path[64], l[PATH_MAX], cwd[PATH_MAX];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct stat st;
    OK(lstat(path, &st));
    CHECK(S_ISLNK(st.st_mode));
    CHECK_EQ(st.st_mode & 0777, 0700);
    ssize_t n = OK(readlink(path, l, sizeof l - 1));
    l[n] = 0;
    CHECK(getcwd(cwd, sizeof cwd));
    strcat(cwd, "/f");
    CHECK_STR(l, cwd);
    OK(unlink("f"));
    n = OK(readlink(path, l, sizeof l - 1));
    l[n] = 0;
    strcat(cwd, " (deleted)");
    CHECK_STR(l, cwd);
    DIR *d = opendir("/proc/self/fd");
    int seen = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') seen++;
    int open_now = 0;
    for (int i = 0; i < 1000; i++) open_now += fcntl(i, F_GETFD) >= 0;
    CHECK_EQ(seen, open_now);
    OK(close(fd));
    CHECK_ERRNO(readlink(path, l, sizeof l), ENOENT);
    OK(chdir("/"));
}

TEST(fdinfo) {
    int fd = OK(open("f", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    OK(write(fd, "12345", 5));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    get(path);
    CHECK_EQ(atoi(field("pos:")), 5);
    CHECK_EQ(strtol(field("flags:"), 0, 8) & ~0100000, O_RDWR | O_APPEND | O_CLOEXEC);
    field("mnt_id:");
}

TEST(task_directory) {
    int fd[2];
    static int g;
    OK(pipe(fd));
    g = fd[0];
    void *f(void *a) {
        char c;
        (void)!read(g, &c, 1);
        return a;
    }
    pthread_t t = start(f, 0);
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            char path[300];
            snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
            CHECK(read_file(path, buf, sizeof buf) > 0);
            CHECK_EQ(atoi(buf), atoi(e->d_name));
            n++;
        }
    CHECK_EQ(n, 2);
    OK(close(fd[1]));
    finish(t);
}

TEST(task_children) {
    pid_t p;
    CHILD(p) for (;;) pause();
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", gettid());
    if (read_file(path, buf, sizeof buf) < 0) {
        OK(kill(p, SIGKILL));
        SKIP("no children file in this kernel");
    }
    CHECK_EQ(atoi(buf), p);
    end(p);
}

TEST(mounts_and_mountinfo) {
    get("/proc/self/mounts");
    CHECK(strstr(buf, " / "));
    CHECK(strstr(buf, " /proc proc "));
    get("/proc/mounts");
    get("/proc/self/mountinfo");
    CHECK(strstr(buf, " - "));
    CHECK(strstr(buf, " /proc "));
}

TEST(meminfo) {
    get("/proc/meminfo");
    long total = atol(field("MemTotal:")), free_ = atol(field("MemFree:")), avail = atol(field("MemAvailable:"));
    CHECK(total > 0 && free_ > 0 && free_ <= total && avail <= total);
    field("Buffers:"), field("Cached:"), field("SwapTotal:"), field("SwapFree:"), field("Shmem:"), field("SReclaimable:");
    struct sysinfo i;
    OK(sysinfo(&i));
    CHECK_V(labs((long)(i.totalram * i.mem_unit / 1024) - total) < 1024, total);
}

TEST(cpuinfo) {
    get("/proc/cpuinfo");
    int n = 0;
    for (char *p = buf; (p = strstr(p, "processor\t:")); p++) n++;
    CHECK_V(n == sysconf(_SC_NPROCESSORS_ONLN), n);
    CHECK(strstr(buf, "flags\t\t:"));
    CHECK(strstr(buf, "model name\t:"));
    CHECK(strstr(buf, "cpu MHz"));
    CHECK(strstr(buf, " sse2 "));
}

TEST(system_stat) {
    get("/proc/stat");
    CHECK(!strncmp(buf, "cpu  ", 5));
    unsigned long user, nice_, sys, idle;
    CHECK_EQ(sscanf(buf, "cpu %lu %lu %lu %lu", &user, &nice_, &sys, &idle), 4);
    CHECK(strstr(buf, "\ncpu0 "));
    CHECK(strstr(buf, "\nintr "));
    CHECK(atol(field("btime ")) > 1000000);
    CHECK(atol(field("processes ")) > 0);
    CHECK(atol(field("procs_running ")) >= 1);
    field("ctxt "), field("procs_blocked ");
}

TEST(uptime_and_loadavg) {
    double up, idle, l1, l5, l15;
    int run, all, last;
    get("/proc/uptime");
    CHECK_EQ(sscanf(buf, "%lf %lf", &up, &idle), 2);
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    CHECK_V(up <= t.tv_sec + 1 && up >= t.tv_sec - 5, t.tv_sec);
    get("/proc/loadavg");
    CHECK_EQ(sscanf(buf, "%lf %lf %lf %d/%d %d", &l1, &l5, &l15, &run, &all, &last), 6);
    CHECK(run >= 1 && all >= run && last > 0);
}

TEST(version_and_filesystems) {
    get("/proc/version");
    CHECK(!strncmp(buf, "Linux version ", 14));
    get("/proc/filesystems");
    CHECK(strstr(buf, "nodev\tproc\n"));
    CHECK(strstr(buf, "nodev\ttmpfs\n"));
    get("/proc/cmdline");
    get("/proc/self/cgroup");
    get("/proc/self/oom_score_adj");
    CHECK_EQ(atoi(buf) >= -1000 && atoi(buf) <= 1000, 1);
    get("/proc/self/limits");
    get("/proc/self/statm");
    get("/proc/devices");
    CHECK(strstr(buf, "Character devices:"));
}

TEST(sysctl_files) {
    const char *numbers[] = {"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max", "/proc/sys/kernel/cap_last_cap", "/proc/sys/kernel/ngroups_max",
                             "/proc/sys/fs/file-max", "/proc/sys/fs/nr_open", "/proc/sys/fs/pipe-max-size", "/proc/sys/vm/max_map_count",
                             "/proc/sys/net/core/somaxconn"};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        get(numbers[i]);
        if (atol(buf) <= 0) FAIL("%s: %s", numbers[i], buf);
    }
    get("/proc/sys/kernel/ostype");
    CHECK_STR(buf, "Linux\n");
    get("/proc/sys/kernel/osrelease");
    CHECK(strlen(buf) > 3);
    get("/proc/sys/vm/overcommit_memory");
    get("/proc/sys/vm/mmap_min_addr");
    get("/proc/sys/kernel/randomize_va_space");
    get("/proc/sys/net/ipv4/ip_local_port_range");
    int a, b;
    CHECK_EQ(sscanf(buf, "%d %d", &a, &b), 2);
    CHECK(a < b);
    get("/proc/sys/kernel/random/boot_id");
    CHECK_EQ(strlen(buf), 37);
    char first[64];
    strcpy(first, get("/proc/sys/kernel/random/uuid"));
    CHECK(strcmp(first, get("/proc/sys/kernel/random/uuid")));
    CHECK_EQ(buf[14], '4'); // version 4
}

TEST(writing_to_read_only_files) {
    CHECK_ERRNO(open("/proc/none", O_RDONLY), ENOENT);
    CHECK_ERRNO(open("/proc/999999/stat", O_RDONLY), ENOENT);
    CHECK_ERRNO(mkdir("/proc/x", 0700), ENOENT);
    CHECK_ERRNO(unlink("/proc/self/status"), EPERM);
    CHECK_ERRNO(readlink("/proc/self/status", buf, 10), EINVAL);
}

TEST(partial_reads_and_seeks) {
    char a[64], b[64];
    int fd = OK(open("/proc/meminfo", O_RDONLY));
    CHECK_EQ(pread(fd, a, 8, 0), 8);
    CHECK_MEM(a, "MemTotal", 8);
    CHECK_EQ(pread(fd, b, 5, 3), 5);
    CHECK_MEM(b, "Total", 5);
    CHECK_EQ(read(fd, a, 3), 3);
    CHECK_EQ(read(fd, a, 5), 5);
    CHECK_MEM(a, "Total", 5);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    CHECK_EQ(read(fd, a, 3), 3);
    CHECK_MEM(a, "Mem", 3);
    CHECK_EQ(pread(fd, a, 10, 1 << 20), 0);
}

TEST(file_of_dead_process_is_esrch) {
    pid_t p;
    CHILD(p) for (;;) pause();
    char path[64], c;
    snprintf(path, sizeof path, "/proc/%d/stat", p);
    int fd = OK(open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%d", p);
    int d = OK(open(path, O_RDONLY | O_DIRECTORY));
    end(p);
    CHECK_ERRNO(read(fd, &c, 1), ESRCH);
    CHECK_ERRNO(openat(d, "stat", O_RDONLY), ESRCH);
}

TEST(permission_on_others) {
    NEED_ROOT();
    pid_t p = program("x"), q;
    CHILD(q) {
        OK(setresuid(1000, 1000, 1000));
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/status", p);
        CHECK(read_file(path, buf, sizeof buf) > 0);
        snprintf(path, sizeof path, "/proc/%d/cmdline", p);
        CHECK(read_file(path, buf, sizeof buf) > 0);
        snprintf(path, sizeof path, "/proc/%d/exe", p);
        CHECK_ERRNO(readlink(path, buf, 64), EACCES);
        snprintf(path, sizeof path, "/proc/%d/environ", p);
        CHECK_ERRNO(open(path, O_RDONLY), EACCES);
        snprintf(path, sizeof path, "/proc/%d/fd", p);
        CHECK_ERRNO(open(path, O_RDONLY), EACCES);
        snprintf(path, sizeof path, "/proc/%d/mem", p);
        CHECK_ERRNO(open(path, O_RDONLY), EACCES);
    }
    JOIN(q);
    end(p);
}

TEST(smaps_and_auxv) {
    get("/proc/self/smaps");
    CHECK(strstr(buf, "Rss:") && strstr(buf, "Private_Dirty:"));
    int fd = OK(open("/proc/self/auxv", O_RDONLY));
    unsigned long v[100];
    ssize_t n = OK(read(fd, v, sizeof v));
    bool page = false;
    for (int i = 0; i < n / 8; i += 2) page |= v[i] == 6 && v[i + 1] == 4096;
    CHECK(page);
    get("/proc/self/wchan");
    get("/proc/self/io");
    CHECK(strstr(buf, "rchar:"));
}

TEST(pagemap_or_refused) {
    int fd = open("/proc/self/pagemap", O_RDONLY);
    CHECK(fd >= 0 || errno == EACCES || errno == EPERM || errno == ENOENT);
}

TEST(sys_cpu_topology) {
    get("/sys/devices/system/cpu/online");
    CHECK(buf[0] == '0');
    get("/sys/devices/system/cpu/possible");
    CHECK_EQ(access("/sys/devices/system/cpu/cpu0", F_OK), 0);
    struct stat st;
    OK(stat("/sys/class/net/lo", &st));
    OK(access("/sys/fs/cgroup", F_OK));
}

TEST(kernel_wide_ids) {
    get("/proc/sys/kernel/pid_max");
    int max = atoi(buf);
    CHECK(getpid() < max);
    int fd = OK(open("/proc/self/oom_score_adj", O_RDWR));
    OK(write(fd, "500", 3));
    get("/proc/self/oom_score_adj");
    CHECK_STR(buf, "500\n");
    CHECK_ERRNO(write(fd, "5000", 4), EINVAL);
    CHECK_ERRNO(write(fd, "abc", 3), EINVAL);
}

TEST(truncating_means_nothing) {
    int fd = OK(open("/proc/self/comm", O_RDWR));
    OK(ftruncate(fd, 0));
    OK(ftruncate(fd, 100));
    char buf[32] = "";
    CHECK(read(fd, buf, sizeof buf) > 1);
    OK(truncate("/proc/self/comm", 0));
    int readable = OK(open("/proc/self/comm", O_RDONLY));
    CHECK_ERRNO(ftruncate(readable, 0), EINVAL);
}
