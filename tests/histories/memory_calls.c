// memory_calls FROM TO: random histories of memory calls, one for each seed, in a window of addresses that nothing else uses.
// Prints every call with its result, and now and then what each page of the window is like: m mapped, r readable,
// w writable, and its eighth byte. Two kernels that agree print the same.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 48, STEPS = 150 };
static const uint64_t BASE = 0x200000000000;

static uint64_t seed;
static int channel[2]; // a pipe, to have the kernel read and write memory that may not be there

static uint32_t below(uint32_t n) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(seed >> 33) % n;
}

static long call(long number, long a, long b, long c, long d, long e, long f) {
    long r = syscall(number, a, b, c, d, e, f);
    return r == -1 ? -errno : r;
}

static uint64_t address(void) {
    uint64_t a = BASE + below(PAGES) * PAGE;
    return below(40) ? a : a + below(PAGE);
}

// Mostly some pages; now and then nothing, an odd number, or far too much.
static uint64_t length(void) {
    switch (below(30)) {
    case 0: return 0;
    case 1: return below(PAGE * 3);
    case 2: return ~0ull;
    case 3: return 1ull << 48;
    default: return (1 + below(7)) * PAGE;
    }
}

static int put(const void *p) { return write(channel[1], p, 1) == 1; }

static int get(void *p) {
    if (read(channel[0], p, 1) == 1) return 1;
    char lost;
    read(channel[0], &lost, 1);
    return 0;
}

static void print_state(void) {
    for (int i = 0; i < PAGES + 10; i++) {
        char *p = (char *)BASE + (uint64_t)i * PAGE, c = 0;
        unsigned char resident;
        int mapped = !mincore(p, PAGE, &resident), readable = put(p + 7), writable = 0;
        if (readable) {
            get(&c);
            put(&c);
            writable = get(p + 7);
        }
        printf("%c%c%c%02x ", mapped ? 'm' : '-', readable ? 'r' : '-', writable ? 'w' : '-', (unsigned char)c);
    }
    puts("");
}

static void step(const int files[3]) {
    static const int advice[] = {0, 1, 2, 3, 4, 4, 4, 8, 9, 10, 10, 11, 11, 14, 15, 16, 17, 18, 18, 19, 22, 23, 24, 99};
    uint64_t a = address(), l = length();
    int prot = below(4) | (below(8) ? 0 : PROT_EXEC);
    long r;
    switch (below(16)) {
    case 0:
    case 1:
    case 2: {
        int flags = below(10) ? MAP_FIXED : MAP_FIXED_NOREPLACE, which = below(6), fd = -1;
        long offset = 0;
        if (which < 3) {
            flags |= MAP_ANONYMOUS;
        } else {
            fd = files[which - 3];
            offset = below(24) * PAGE + (below(20) ? 0 : 8);
        }
        flags |= below(2) ? MAP_SHARED : MAP_PRIVATE;
        if (!below(12)) flags |= MAP_NORESERVE;
        if (!below(20)) flags |= MAP_GROWSDOWN;
        if (!below(20)) flags &= ~MAP_TYPE;
        if (!below(12) && !(flags & MAP_GROWSDOWN)) flags |= MAP_POPULATE;
        r = call(SYS_mmap, a, l, prot, flags, fd, offset);
        printf("mmap %lx %lx %d %x %d %lx = %ld\n", a - BASE, l, prot, flags, which, offset, r < 0 ? r : r - (long)BASE);
        break;
    }
    case 3: r = call(SYS_munmap, a, l, 0, 0, 0, 0), printf("munmap %lx %lx = %ld\n", a - BASE, l, r); break;
    case 4:
    case 5:
        prot |= (below(30) ? 0 : PROT_GROWSDOWN) | (below(50) ? 0 : 0x40);
        r = call(SYS_mprotect, a, l, prot, 0, 0, 0);
        printf("mprotect %lx %lx %x = %ld\n", a - BASE, l, prot, r);
        break;
    case 6:
    case 7: {
        uint64_t new_length = length(), to = address();
        int flags = below(3) ? MREMAP_MAYMOVE | MREMAP_FIXED : 0;
        if (!below(6)) flags |= MREMAP_DONTUNMAP;
        if (!below(10)) flags = below(8);
        if (!(flags & MREMAP_FIXED)) flags &= ~MREMAP_MAYMOVE; // where it goes is not comparable
        if (!below(12)) l = 0;
        r = call(SYS_mremap, a, l, new_length, flags, to, 0);
        printf("mremap %lx %lx %lx %x %lx = %ld\n", a - BASE, l, new_length, flags, to - BASE, r < 0 ? r : r - (long)BASE);
        break;
    }
    case 8:
    case 9: {
        int what = advice[below(sizeof advice / sizeof *advice)];
        if (l == 1ull << 48) l = 3 * PAGE; // would discard everything above, and this program with it
        r = call(SYS_madvise, a, l, what, 0, 0, 0), printf("madvise %lx %lx %d = %ld\n", a - BASE, l, what, r);
        break;
    }
    case 10:
        r = call(below(2) ? SYS_mlock : SYS_munlock, a, l, 0, 0, 0, 0), printf("lock %lx %lx = %ld\n", a - BASE, l, r);
        break;
    case 11: {
        int flags = below(9);
        r = call(SYS_msync, a, l, flags, 0, 0, 0), printf("msync %lx %lx %d = %ld\n", a - BASE, l, flags, r);
        break;
    }
    case 12: {
        unsigned char resident[8];
        r = call(SYS_mincore, a, l, (long)resident, 0, 0, 0), printf("mincore %lx %lx = %ld\n", a - BASE, l, r);
        break;
    }
    default: {
        char c = 'A' + below(26);
        put(&c);
        printf("write %lx %c = %d\n", a - BASE, c, get((char *)a));
    }
    }
}

int main(int argc, char **argv) {
    if (argc < 3 || pipe(channel)) return 2;
    for (int n = atoi(argv[1]); n < atoi(argv[2]); n++) {
        seed = (uint64_t)n * 77777 + 5;
        printf("seed %d\n", n);
        // A file that can be written, the same file read-only, and a memfd.
        char name[64], page[PAGE];
        snprintf(name, sizeof name, "/dev/shm/histories.%d", getpid());
        int files[3] = {open(name, O_RDWR | O_CREAT | O_TRUNC, 0600), open(name, O_RDONLY), memfd_create("m", 0)};
        unlink(name);
        for (int i = 0; i < 20; i++) {
            memset(page, 'a' + i, PAGE);
            write(files[0], page, PAGE);
        }
        write(files[0], page, 100);
        ftruncate(files[2], 10 * PAGE);
        munmap((void *)BASE, 2 * PAGES * PAGE);
        for (int k = 0; k < STEPS; k++) {
            step(files);
            if (k % 5 == 4) print_state();
        }
        for (int i = 0; i < 3; i++) close(files[i]);
        munlockall();
    }
    return 0;
}
