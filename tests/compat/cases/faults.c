// Synchronous signals: which signal, si_code and si_addr for each kind of fault.
#include "compat.h"
#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf back;
static siginfo_t si;
static unsigned long rip, trapno, err;

static void catch(int sig, siginfo_t *info, void *arg) {
    (void)sig;
    ucontext_t *uc = arg;
    si = *info;
    rip = uc->uc_mcontext.gregs[REG_RIP];
    trapno = uc->uc_mcontext.gregs[REG_TRAPNO];
    err = uc->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

// Runs what faults; fails if it does not.
#define FAULT(sig, what)                                                                                               \
    do {                                                                                                               \
        handle(sig, catch, SA_SIGINFO);                                                                                \
        memset(&si, 0, sizeof si);                                                                                     \
        if (!sigsetjmp(back, 1)) {                                                                                     \
            what;                                                                                                      \
            FAIL("no fault");                                                                                          \
        }                                                                                                              \
        CHECK_EQ(si.si_signo, sig);                                                                                    \
    } while (0)

static volatile char *map(size_t n, int prot) { return OK(mmap(0, n, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)); }

TEST(unmapped_read_is_maperr) {
    volatile char *p = map(4096, PROT_READ);
    OK(munmap((void *)p, 4096));
    FAULT(SIGSEGV, (void)p[123]);
    CHECK_EQ(si.si_code, SEGV_MAPERR);
    CHECK(si.si_addr == (void *)(p + 123));
    CHECK_EQ(trapno, 14);
    CHECK_EQ(err & 7, 4); // a read by user of what is not present
}

TEST(null_pointer) {
    FAULT(SIGSEGV, *(volatile int *)0 = 1);
    CHECK_EQ(si.si_code, SEGV_MAPERR);
    CHECK(si.si_addr == 0);
    CHECK_EQ(err & 7, 6);
}

TEST(write_to_readonly_is_accerr) {
    volatile char *p = map(4096, PROT_READ);
    FAULT(SIGSEGV, p[5] = 1);
    CHECK_EQ(si.si_code, SEGV_ACCERR);
    CHECK(si.si_addr == (void *)(p + 5));
}

TEST(read_of_prot_none_is_accerr) {
    volatile char *p = map(4096, PROT_NONE);
    FAULT(SIGSEGV, (void)p[0]);
    CHECK_EQ(si.si_code, SEGV_ACCERR);
}

TEST(execute_of_data_is_accerr) {
    volatile char *p = map(4096, PROT_READ | PROT_WRITE);
    p[0] = (char)0xc3;
    FAULT(SIGSEGV, ((void (*)(void))p)());
    CHECK_EQ(si.si_code, SEGV_ACCERR);
    CHECK(si.si_addr == (void *)p);
    CHECK_EQ(rip, (uintptr_t)p);
}

TEST(jump_to_unmapped_is_maperr) {
    volatile char *p = map(4096, PROT_READ);
    OK(munmap((void *)p, 4096));
    FAULT(SIGSEGV, ((void (*)(void))p)());
    CHECK_EQ(si.si_code, SEGV_MAPERR);
    CHECK(si.si_addr == (void *)p);
}

TEST(noncanonical_address_is_si_kernel) {
    FAULT(SIGSEGV, *(volatile int *)0x8000000000000000 = 1);
    CHECK_EQ(si.si_code, SI_KERNEL);
    CHECK(si.si_addr == 0);
    CHECK_EQ(trapno, 13);
}

TEST(kernel_address_is_segv) {
    FAULT(SIGSEGV, (void)*(volatile int *)0xffffffff81000000);
    CHECK_EQ(si.si_code, SEGV_MAPERR);
    CHECK(si.si_addr == (void *)0xffffffff81000000);
}

TEST(privileged_instruction_is_si_kernel) {
    FAULT(SIGSEGV, asm volatile("hlt"));
    CHECK_EQ(si.si_code, SI_KERNEL);
    FAULT(SIGSEGV, asm volatile("cli"));
    FAULT(SIGSEGV, asm volatile("inb %%dx, %%al" ::"d"(0x80) : "rax"));
}

TEST(divide_by_zero) {
    volatile int zero = 0, one = 1;
    FAULT(SIGFPE, one = one / zero);
    CHECK_EQ(si.si_code, FPE_INTDIV);
    CHECK(si.si_addr == (void *)rip);
    volatile int min = INT_MIN, minus = -1;
    FAULT(SIGFPE, min = min / minus);
    CHECK_EQ(si.si_code, FPE_INTDIV);
}

TEST(sse_exceptions) {
    unsigned mx = 0x1f80 & ~0x200; // divide by zero unmasked
    volatile double zero = 0, one = 1;
    FAULT(SIGFPE, { asm volatile("ldmxcsr %0" ::"m"(mx)); one = one / zero; });
    CHECK_EQ(si.si_code, FPE_FLTDIV);
    mx = 0x1f80 & ~0x80; // invalid
    one = 0;
    FAULT(SIGFPE, { asm volatile("ldmxcsr %0" ::"m"(mx)); one = one / zero; });
    CHECK_EQ(si.si_code, FPE_FLTINV);
}

TEST(x87_exception) {
    unsigned short cw = 0x37b; // zero divide unmasked
    FAULT(SIGFPE, asm volatile("fldcw %0; fldz; fld1; fdivp; fwait" ::"m"(cw)));
    CHECK_EQ(si.si_code, FPE_FLTDIV);
}

TEST(undefined_instruction) {
    FAULT(SIGILL, asm volatile("ud2"));
    CHECK_EQ(si.si_code, ILL_ILLOPN);
    CHECK(si.si_addr == (void *)rip);
    CHECK_EQ(*(uint16_t *)rip, 0x0b0f);
}

static void step_over(int sig, siginfo_t *info, void *arg) {
    (void)sig, (void)arg;
    si = *info;
    rip = ((ucontext_t *)arg)->uc_mcontext.gregs[REG_RIP];
}

TEST(breakpoint) {
    handle(SIGTRAP, step_over, SA_SIGINFO);
    asm volatile("int3");
    CHECK_EQ(si.si_signo, SIGTRAP);
    CHECK_EQ(si.si_code, SI_KERNEL);
    CHECK_EQ(((unsigned char *)rip)[-1], 0xcc); // after the instruction
}

static int steps;
static void single_step(int sig, siginfo_t *info, void *arg) {
    (void)sig;
    si = *info;
    if (++steps >= 5) ((ucontext_t *)arg)->uc_mcontext.gregs[REG_EFL] &= ~0x100ul;
}

TEST(trap_flag_single_steps) {
    handle(SIGTRAP, single_step, SA_SIGINFO);
    asm volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop; nop; nop; nop; nop; nop; nop" ::: "memory", "cc");
    CHECK_EQ(steps, 5);
    CHECK_EQ(si.si_code, TRAP_TRACE);
}

TEST(bus_error_beyond_end_of_file) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 100));
    volatile char *p = OK(mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    p[200] = 1; // the rest of the last page is there
    FAULT(SIGBUS, (void)p[4096 + 7]);
    CHECK_EQ(si.si_code, BUS_ADRERR);
    CHECK(si.si_addr == (void *)(p + 4096 + 7));
    FAULT(SIGBUS, p[4096] = 1);
    OK(ftruncate(fd, 8192));
    CHECK_EQ(p[4096], 0);
    OK(ftruncate(fd, 0));
    FAULT(SIGBUS, (void)p[0]);
}

TEST(bus_error_private_mapping) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600));
    OK(ftruncate(fd, 4096));
    volatile char *p = OK(mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    FAULT(SIGBUS, p[4096] = 1);
    CHECK_EQ(si.si_code, BUS_ADRERR);
}

TEST(misaligned_with_alignment_check) {
    static char buf[16] __attribute__((aligned(16)));
    FAULT(SIGBUS, asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; movl $1, 1(%0)" ::"r"(buf) : "memory", "cc"));
    CHECK_EQ(si.si_code, BUS_ADRALN);
    asm volatile("pushfq; andq $~0x40000, (%%rsp); popfq" ::: "memory", "cc");
}

TEST(misaligned_sse_is_general_protection) {
    static char buf[32] __attribute__((aligned(16)));
    FAULT(SIGSEGV, asm volatile("movaps (%0), %%xmm0" ::"r"(buf + 1) : "xmm0"));
    CHECK_EQ(si.si_code, SI_KERNEL);
}

TEST(blocked_fault_kills) {
    pid_t p;
    CHILD(p) {
        handle(SIGSEGV, catch, SA_SIGINFO);
        sigset_t set = sigs(SIGSEGV, 0, 0);
        OK(sigprocmask(SIG_BLOCK, &set, 0));
        *(volatile int *)8 = 1;
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

TEST(ignored_fault_kills) {
    pid_t p;
    CHILD(p) {
        signal(SIGSEGV, SIG_IGN);
        *(volatile int *)8 = 1;
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
    CHILD(p) {
        signal(SIGSEGV, SIG_IGN);
        raise(SIGSEGV); // sent, not a fault: ignored
        _exit(4);
    }
    CHECK_EQ(WAIT(p), W_EXIT(4));
}

TEST(fault_in_handler_of_same_signal_kills) {
    pid_t p;
    CHILD(p) {
        void f(int sig) {
            (void)sig;
            *(volatile int *)8 = 1;
        }
        handle(SIGSEGV, f, 0);
        *(volatile int *)8 = 1;
    }
    CHECK_EQ(WAIT(p), SIGSEGV);
}

TEST(handler_repairs_mapping_and_retries) {
    static volatile char *p;
    static int n;
    void f(int sig, siginfo_t *info, void *uc) {
        (void)sig, (void)uc;
        n++;
        OK(mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE));
    }
    p = map(64 * 4096, PROT_NONE);
    handle(SIGSEGV, f, SA_SIGINFO);
    for (int i = 0; i < 64; i++) p[i * 4096 + i] = i;
    CHECK_EQ(n, 64);
    for (int i = 0; i < 64; i++) CHECK_EQ(p[i * 4096 + i], i);
}

TEST(int_0x80_is_refused_or_compat) {
    // Linux with 32-bit emulation takes it as a 32-bit call (20 is getpid there), without it it is SIGSEGV.
    pid_t p;
    CHILD(p) {
        long r = 20;
        asm volatile("int $0x80" : "+a"(r)::"memory", "r8", "r9", "r10", "r11");
        CHECK_EQ(r, getpid());
    }
    int s = WAIT(p);
    CHECK_V(s == 0 || s == SIGSEGV, s);
}

TEST(vsyscall_page) {
    // Emulated (xonly) or absent (none): gettimeofday at its fixed address.
    pid_t p;
    CHILD(p) {
        struct timeval a, b;
        int (*f)(struct timeval *, void *) = (void *)0xffffffffff600000;
        CHECK_EQ(f(&a, 0), 0);
        OK(gettimeofday(&b, 0));
        CHECK(b.tv_sec - a.tv_sec <= 10 && b.tv_sec >= a.tv_sec);
    }
    int s = WAIT(p);
    CHECK_V(s == 0 || s == SIGSEGV, s);
}

TEST(bad_pointers_give_efault_not_signals) {
    char *ro = (char *)map(4096, PROT_READ), *none = (char *)map(4096, PROT_NONE);
    int fd = OK(open("/dev/zero", O_RDWR)), fds[2];
    OK(pipe(fds));
    CHECK_ERRNO(read(fd, ro, 10), EFAULT);
    CHECK_ERRNO(read(fd, none, 10), EFAULT);
    CHECK_ERRNO(write(fds[1], none, 10), EFAULT);
    CHECK_ERRNO(write(fds[1], (void *)0x8000000000000000, 10), EFAULT);
    CHECK_ERRNO(write(fds[1], (void *)0xffffffffff600000, 10), EFAULT);
    CHECK_ERRNO(open((char *)16, O_RDONLY), EFAULT);
    CHECK_ERRNO(stat("/", (void *)16), EFAULT);
    CHECK_ERRNO(pipe((int *)16), EFAULT);
    CHECK_ERRNO(syscall(SYS_clock_gettime, CLOCK_REALTIME, 16), EFAULT);
    CHECK_ERRNO(syscall(SYS_uname, ro), EFAULT);
    OK(write(fd, none, 10)); // /dev/zero and /dev/null do not look
}

TEST(partial_transfer_at_a_hole) {
    char *p = (char *)map(8192, PROT_READ | PROT_WRITE);
    OK(munmap(p + 4096, 4096));
    int fd[2];
    OK(pipe(fd));
    CHECK_EQ(write(fd[1], p + 4000, 96), 96);
    ssize_t n = write(fd[1], p + 4000, 200);
    CHECK_V(n == 96 || (n == -1 && errno == EFAULT), n);
    int z = OK(open("/dev/zero", O_RDONLY));
    n = read(z, p + 4000, 200);
    CHECK_V(n == 96 || (n == -1 && errno == EFAULT), n);
}

TEST(string_at_end_of_mapping) {
    char *p = (char *)map(8192, PROT_READ | PROT_WRITE);
    OK(munmap(p + 4096, 4096));
    strcpy(p + 4096 - 10, "/dev/null");
    OK(open(p + 4096 - 10, O_RDONLY));
    memset(p + 4096 - 10, 'x', 10);
    CHECK_ERRNO(open(p + 4096 - 10, O_RDONLY), EFAULT);
}
