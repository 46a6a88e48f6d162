// Programs with something wrong: mutants FOLDER [SEED COUNT]
//
// Without a seed: a small program, cut at every length, and with each byte of its headers changed in several ways; then
// another whose interpreter is such a program. Each is executed in a child. Prints how each ended, one line a mutant, which
// Linux and the sandbox must agree upon. With a seed: COUNT mutants with random bytes in their headers, of which nothing is
// demanded but that they end.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CODE = 0x180, SIZE = 0x1100, BASE = 0x400000, HEADERS = 64 + 4 * 56 };

static unsigned char good[SIZE];
static const char *interpreter;

// exit(42) if the data are there and the rest of their memory is zero, else exit(1).
static const unsigned char code[] = {
    0x8b, 0x04, 0x25, 0x00, 0x20, 0x40, 0x00,       // mov eax, [0x402000]
    0x3d, 0x78, 0x56, 0x34, 0x12,                   // cmp eax, 0x12345678
    0x75, 0x17,                                     // jne bad
    0x83, 0x3c, 0x25, 0x00, 0x3f, 0x40, 0x00, 0x00, // cmp dword [0x403f00], 0
    0x75, 0x0d,                                     // jne bad
    0xbf, 0x2a, 0x00, 0x00, 0x00,                   // mov edi, 42
    0xb8, 0x3c, 0x00, 0x00, 0x00,                   // mov eax, 60
    0x0f, 0x05,                                     // syscall
    0x90,                                           //
    0xbf, 0x01, 0x00, 0x00, 0x00,                   // bad: mov edi, 1
    0xb8, 0x3c, 0x00, 0x00, 0x00,                   // mov eax, 60
    0x0f, 0x05,                                     // syscall
};

static void make(unsigned char *file, int with_interpreter) {
    memset(file, 0, SIZE);
    Elf64_Ehdr *e = (void *)file;
    memcpy(e->e_ident, ELFMAG "\2\1\1", 7);
    e->e_type = ET_EXEC;
    e->e_machine = EM_X86_64;
    e->e_version = 1;
    e->e_entry = BASE + CODE;
    e->e_phoff = 64;
    e->e_ehsize = 64;
    e->e_phentsize = 56;
    e->e_phnum = with_interpreter ? 4 : 3;
    Elf64_Phdr *p = (void *)(file + 64);
    p[0] = (Elf64_Phdr){PT_LOAD, PF_R | PF_X, 0, BASE, BASE, 0x200, 0x200, 0x1000};
    p[1] = (Elf64_Phdr){PT_LOAD, PF_R | PF_W, 0x1000, BASE + 0x2000, BASE + 0x2000, 0x100, 0x2000, 0x1000};
    p[2] = (Elf64_Phdr){PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16};
    if (with_interpreter) {
        strcpy((char *)file + 0x1f0 - 64, interpreter);
        // Somewhere between the code and the end of the first segment.
        p[3] = (Elf64_Phdr){PT_INTERP, PF_R, 0x1f0 - 64, 0, 0, strlen(interpreter) + 1, strlen(interpreter) + 1, 1};
    }
    if (!with_interpreter) memcpy(file + CODE, code, sizeof code);
    *(uint32_t *)(file + 0x1000) = 0x12345678;
}

static void put(const char *path, const unsigned char *bytes, size_t size) {
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) {
        perror(path);
        exit(1);
    }
    fchmod(fd, 0755);
    close(fd);
}

static void run(const char *path, char *out) {
    int *error = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int pid = fork(), status = 0;
    if (pid == 0) {
        struct rlimit none = {0, 0}, second = {1, 1}, few = {64, 64};
        setrlimit(RLIMIT_CORE, &none);
        setrlimit(RLIMIT_CPU, &second);
        setrlimit(RLIMIT_FSIZE, &none);
        setrlimit(RLIMIT_NPROC, &few);
        for (int i = 0; i < 64; i++) close(i);
        char *argv[] = {"mutant", 0}, *envp[] = {0};
        alarm(5);
        execve(path, argv, envp);
        *error = errno;
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (*error) sprintf(out, "%s", strerrorname_np(*error));
    else if (WIFEXITED(status)) sprintf(out, "exit %d", WEXITSTATUS(status));
    else sprintf(out, "%s", sigabbrev_np(WTERMSIG(status)));
    munmap(error, 4096);
}

int main(int argc, char **argv) {
    if (argc < 2 || chdir(argv[1]) < 0) return 64;
    setvbuf(stdout, 0, _IOLBF, 0);
    static char interpreter_path[64], program[64];
    // A short name: it has to fit.
    snprintf(interpreter_path, sizeof interpreter_path, "interp");
    interpreter = interpreter_path;
    snprintf(program, sizeof program, "./mutant");
    // Whatever the mutants do, they do it as nobody.
    chmod(".", 0777);
    setgroups(0, 0);
    if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0) {
        if (geteuid() == 0) return 1;
    }
    unsigned char file[SIZE];
    char how[64];
    make(good, 0);
    if (argc > 3) {
        uint64_t state = strtoull(argv[2], 0, 0);
        int count = atoi(argv[3]);
        for (int i = 0; i < count; i++) {
            memcpy(file, good, SIZE);
#define NEXT() (state = state * 6364136223846793005u + 1442695040888963407u, (unsigned)(state >> 33))
            for (int k = 1 + NEXT() % 6; k > 0; k--) file[NEXT() % HEADERS] = NEXT() % 3 ? 1u << NEXT() % 8 : NEXT();
            put(program, file, SIZE);
            run(program, how);
        }
        printf("%d mutants\n", count);
        return 0;
    }
    // Each length up to the end of the first segment's contents, then in steps; each with and without interpreter.
    for (int which = 0; which < 2; which++) {
        const char *what = which ? "interpreter" : "program";
        const char *cut = which ? interpreter : program;
        if (which) {
            make(file, 1);
            put(program, file, SIZE);
        }
        for (int size = 0; size <= SIZE; size += size < 0x240 ? which ? 11 : 3 : 211) {
            put(cut, good, size);
            run(program, how);
            printf("%s of %d bytes: %s\n", what, size, how);
        }
        for (int at = 0; at < HEADERS - 56; at++) {
            static const unsigned char masks[] = {0xff, 0x01, 0x80};
            // How much memory may be reserved depends on how much there is.
            int in_memsz = at - 64 - 40;
            if (in_memsz % 56 >= 3 && in_memsz % 56 <= 5) continue;
            for (int m = 0; m < 3; m++) {
                if ((at + m) % (which ? 9 : 3)) continue;
                memcpy(file, good, SIZE);
                file[at] ^= masks[m];
                put(cut, file, SIZE);
                run(program, how);
                printf("%s with byte %d ^ %#x: %s\n", what, at, masks[m], how);
            }
        }
    }
    return 0;
}
