// System V IPC: shared memory, semaphores, message queues.
#include "compat.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static pid_t owner; // the process of the case
static key_t key(int i) { return 0x52000000 + (owner & 0xffff) * 16 + i; }

// Identifiers to remove at the end, whatever happens.
static int shms[8], sems[8], msgs[8], nshm, nsem, nmsg;
static void cleanup(void) {
    for (int i = 0; i < nshm; i++) shmctl(shms[i], IPC_RMID, 0);
    for (int i = 0; i < nsem; i++) semctl(sems[i], 0, IPC_RMID);
    for (int i = 0; i < nmsg; i++) msgctl(msgs[i], IPC_RMID, 0);
}
// The case proper runs in a child, so that a failed check leaves nothing behind.
#define CASE(n)                                                                                                        \
    static void case_##n(void);                                                                                        \
    TEST(n) {                                                                                                          \
        int *share = OK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));                     \
        ids = share;                                                                                                   \
        pid_t p;                                                                                                       \
        CHILD(p) {                                                                                                     \
            owner = getpid();                                                                                          \
            case_##n();                                                                                                \
        }                                                                                                              \
        int s = WAIT(p);                                                                                               \
        for (int i = 0; i < ids[0]; i++) shms[nshm++] = ids[1 + i];                                                    \
        for (int i = 0; i < ids[100]; i++) sems[nsem++] = ids[101 + i];                                                \
        for (int i = 0; i < ids[200]; i++) msgs[nmsg++] = ids[201 + i];                                                \
        cleanup();                                                                                                     \
        if (s) _exit(s >> 8 ? s >> 8 : COMPAT_FAILED);                                                                 \
    }                                                                                                                  \
    static void case_##n(void)
static int *ids;
static int note(int base, int id) {
    if (ids[base] < 8) ids[base + 1 + ids[base]++] = id;
    return id;
}
#define SHM(...) note(0, OK(shmget(__VA_ARGS__)))
#define SEM(...) note(100, OK(semget(__VA_ARGS__)))
#define MSG(...) note(200, OK(msgget(__VA_ARGS__)))

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

CASE(shm_create_and_attach) {
    int id = SHM(key(0), 10000, IPC_CREAT | IPC_EXCL | 0640);
    CHECK_EQ(shmget(key(0), 0, 0), id);
    CHECK_ERRNO(shmget(key(0), 10000, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_ERRNO(shmget(key(0), 20000, 0), EINVAL);
    CHECK_ERRNO(shmget(key(1), 100, 0), ENOENT);
    CHECK_ERRNO(shmget(key(1), 0, IPC_CREAT), EINVAL);
    char *a = OK(shmat(id, 0, 0)), *b = OK(shmat(id, 0, 0));
    CHECK(a != b);
    strcpy(a + 5000, "shared");
    CHECK_STR(b + 5000, "shared");
    struct shmid_ds ds;
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_segsz, 10000);
    CHECK_EQ(ds.shm_nattch, 2);
    CHECK_EQ(ds.shm_perm.mode & 0777, 0640);
    CHECK_EQ(ds.shm_cpid, getpid());
    OK(shmdt(a));
    CHECK_ERRNO(shmdt(a), EINVAL);
    CHECK_ERRNO(shmdt(b + 1), EINVAL);
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 1);
}

CASE(shm_across_fork_and_removal) {
    int id = SHM(IPC_PRIVATE, 4096, 0600);
    char *a = OK(shmat(id, 0, 0));
    pid_t p;
    CHILD(p) a[0] = 7;
    JOIN(p);
    CHECK_EQ(a[0], 7);
    OK(shmctl(id, IPC_RMID, 0));
    a[1] = 8; // lives until the last detach
    char *b = OK(shmat(id, 0, 0)); // and can be attached by id on Linux
    CHECK_EQ(b[1], 8);
    OK(shmdt(a)), OK(shmdt(b));
    CHECK_ERRNO(shmat(id, 0, 0), EINVAL);
}

CASE(shm_flags) {
    int id = SHM(IPC_PRIVATE, 8192, 0600);
    char *r = OK(shmat(id, 0, SHM_RDONLY));
    int fd = OK(open("/dev/zero", O_RDONLY));
    CHECK_ERRNO(read(fd, r, 1), EFAULT);
    char *want = (char *)0x620000000000;
    CHECK(shmat(id, want, 0) == want);
    CHECK_ERRNO(shmat(id, want + 100, 0), EINVAL);
    OK(shmdt(want));
    CHECK(shmat(id, want + 100, SHM_RND) == want);
    CHECK_ERRNO(shmat(id, want, 0), EINVAL); // in use
    CHECK(shmat(id, want, SHM_REMAP) == want);
    struct shmid_ds ds;
    OK(shmctl(id, IPC_STAT, &ds));
    ds.shm_perm.mode = 0644;
    OK(shmctl(id, IPC_SET, &ds));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_perm.mode & 0777, 0644);
    CHECK_ERRNO(shmctl(id, 9999, &ds), EINVAL);
    CHECK_ERRNO(shmat(-1, 0, 0), EINVAL);
}

CASE(shm_permission) {
    NEED_ROOT();
    int id = SHM(key(2), 4096, IPC_CREAT | 0600);
    pid_t p;
    CHILD(p) {
        OK(setresuid(1000, 1000, 1000));
        CHECK_ERRNO(shmget(key(2), 4096, 0600), EACCES);
        CHECK_ERRNO(shmat(id, 0, 0), EACCES);
        CHECK_ERRNO(shmctl(id, IPC_RMID, 0), EPERM);
        struct shmid_ds ds;
        CHECK_ERRNO(shmctl(id, IPC_STAT, &ds), EACCES);
    }
    JOIN(p);
}

CASE(sem_operations) {
    int id = SEM(IPC_PRIVATE, 3, 0600);
    union semun u = {.val = 5};
    OK(semctl(id, 1, SETVAL, u));
    CHECK_EQ(semctl(id, 1, GETVAL), 5);
    struct sembuf b[2] = {{1, -2, 0}, {2, 3, 0}};
    OK(semop(id, b, 2));
    CHECK_EQ(semctl(id, 1, GETVAL), 3);
    CHECK_EQ(semctl(id, 2, GETVAL), 3);
    CHECK_EQ(semctl(id, 2, GETPID), getpid());
    // All or nothing.
    struct sembuf c[2] = {{2, 1, 0}, {1, -9, IPC_NOWAIT}};
    CHECK_ERRNO(semop(id, c, 2), EAGAIN);
    CHECK_EQ(semctl(id, 2, GETVAL), 3);
    unsigned short v[3] = {1, 2, 3}, w[3];
    u.array = v;
    OK(semctl(id, 0, SETALL, u));
    u.array = w;
    OK(semctl(id, 0, GETALL, u));
    CHECK_MEM(v, w, sizeof v);
    struct semid_ds ds;
    u.buf = &ds;
    OK(semctl(id, 0, IPC_STAT, u));
    CHECK_EQ(ds.sem_nsems, 3);
}

CASE(sem_blocks_and_wakes) {
    int id = SEM(IPC_PRIVATE, 1, 0600);
    pid_t p;
    CHILD(p) OK(semop(id, &(struct sembuf){0, -2, 0}, 1));
    wait_asleep(p);
    CHECK_EQ(semctl(id, 0, GETNCNT), 1);
    OK(semop(id, &(struct sembuf){0, 1, 0}, 1));
    wait_asleep(p);
    CHECK_EQ(semctl(id, 0, GETNCNT), 1);
    OK(semop(id, &(struct sembuf){0, 1, 0}, 1));
    JOIN(p);
    // Waiting for zero.
    union semun u = {.val = 1};
    OK(semctl(id, 0, SETVAL, u));
    CHILD(p) OK(semop(id, &(struct sembuf){0, 0, 0}, 1));
    wait_asleep(p);
    CHECK_EQ(semctl(id, 0, GETZCNT), 1);
    OK(semop(id, &(struct sembuf){0, -1, 0}, 1));
    JOIN(p);
}

CASE(sem_undo) {
    int id = SEM(IPC_PRIVATE, 1, 0600);
    union semun u = {.val = 3};
    OK(semctl(id, 0, SETVAL, u));
    pid_t p;
    CHILD(p) OK(semop(id, &(struct sembuf){0, -2, SEM_UNDO}, 1));
    JOIN(p);
    CHECK_EQ(semctl(id, 0, GETVAL), 3);
}

CASE(sem_removal_and_timeouts) {
    int id = SEM(IPC_PRIVATE, 1, 0600);
    pid_t p;
    CHILD(p) CHECK_ERRNO(semop(id, &(struct sembuf){0, -1, 0}, 1), EIDRM);
    wait_asleep(p);
    struct timespec t = {0, 5000000};
    CHECK_ERRNO(semtimedop(id, &(struct sembuf){0, -1, 0}, 1, &t), EAGAIN);
    OK(semctl(id, 0, IPC_RMID));
    JOIN(p);
    CHECK_ERRNO(semop(id, &(struct sembuf){0, 1, 0}, 1), EINVAL);
}

CASE(sem_errnos) {
    int id = SEM(key(3), 2, IPC_CREAT | 0600);
    CHECK_ERRNO(semget(key(3), 3, 0), EINVAL);
    CHECK_EQ(semget(key(3), 0, 0), id);
    CHECK_ERRNO(semget(key(3), 2, IPC_CREAT | IPC_EXCL), EEXIST);
    CHECK_ERRNO(semget(key(4), 0, IPC_CREAT), EINVAL);
    CHECK_ERRNO(semop(id, &(struct sembuf){2, 1, 0}, 1), EFBIG);
    CHECK_ERRNO(semop(id, &(struct sembuf){0, 1, 0}, 0), EINVAL);
    CHECK_ERRNO(semop(-1, &(struct sembuf){0, 1, 0}, 1), EINVAL);
    CHECK_ERRNO(semctl(id, 2, GETVAL), EINVAL);
    union semun u = {.val = 40000};
    CHECK_ERRNO(semctl(id, 0, SETVAL, u), ERANGE);
    u.val = 32767;
    OK(semctl(id, 0, SETVAL, u));
    CHECK_ERRNO(semop(id, &(struct sembuf){0, 1, 0}, 1), ERANGE);
}

struct m {
    long type;
    char text[64];
};

CASE(msg_types_and_order) {
    int id = MSG(IPC_PRIVATE, 0600);
    struct m m;
    const char *texts[] = {"one", "two", "three", "again-two"};
    long types[] = {1, 2, 3, 2};
    for (int i = 0; i < 4; i++) {
        m.type = types[i];
        strcpy(m.text, texts[i]);
        OK(msgsnd(id, &m, strlen(texts[i]) + 1, 0));
    }
    CHECK_EQ(msgrcv(id, &m, 64, 2, 0), 4);
    CHECK_STR(m.text, "two");
    CHECK_EQ(m.type, 2);
    CHECK_EQ(msgrcv(id, &m, 64, -2, 0), 4); // the lowest type up to 2
    CHECK_STR(m.text, "one");
    CHECK_EQ(msgrcv(id, &m, 64, 3, MSG_EXCEPT), 10);
    CHECK_STR(m.text, "again-two");
    CHECK_EQ(msgrcv(id, &m, 64, 0, 0), 6);
    CHECK_ERRNO(msgrcv(id, &m, 64, 0, IPC_NOWAIT), ENOMSG);
}

CASE(msg_sizes_and_errnos) {
    int id = MSG(IPC_PRIVATE, 0600);
    struct m m = {1, "0123456789"};
    OK(msgsnd(id, &m, 10, 0));
    CHECK_ERRNO(msgrcv(id, &m, 5, 0, 0), E2BIG);
    CHECK_EQ(msgrcv(id, &m, 5, 0, MSG_NOERROR), 5);
    m.type = 0;
    CHECK_ERRNO(msgsnd(id, &m, 1, 0), EINVAL);
    m.type = 1;
    CHECK_ERRNO(msgsnd(id, &m, -1, 0), EINVAL);
    CHECK_ERRNO(msgsnd(id, &m, 1 << 20, 0), EINVAL);
    CHECK_ERRNO(msgsnd(-1, &m, 1, 0), EINVAL);
    OK(msgsnd(id, &m, 0, 0));
    CHECK_EQ(msgrcv(id, &m, 0, 0, 0), 0);
    struct msqid_ds ds;
    OK(msgctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.msg_qnum, 0);
    CHECK_EQ(ds.msg_lspid, getpid());
    CHECK(ds.msg_qbytes > 0);
}

CASE(msg_blocks) {
    int id = MSG(IPC_PRIVATE, 0600);
    struct m m;
    pid_t p;
    CHILD(p) {
        CHECK_EQ(msgrcv(id, &m, 64, 7, 0), 3);
        CHECK_STR(m.text, "go");
    }
    wait_asleep(p);
    m = (struct m){6, "no"};
    OK(msgsnd(id, &m, 3, 0));
    wait_asleep(p);
    m = (struct m){7, "go"};
    OK(msgsnd(id, &m, 3, 0));
    JOIN(p);
    // A full queue.
    static struct { long type; char text[8192]; } big = {1, ""};
    int n = 0;
    while (!msgsnd(id, &big, 4096, IPC_NOWAIT) && n < 1000) n++;
    CHECK_EQ(errno, EAGAIN);
    CHILD(p) OK(msgsnd(id, &big, 4096, 0));
    wait_asleep(p);
    OK(msgrcv(id, &big, 8192, 1, 0));
    JOIN(p);
    CHILD(p) CHECK_ERRNO(msgrcv(id, &m, 64, 99, 0), EIDRM);
    wait_asleep(p);
    OK(msgctl(id, IPC_RMID, 0));
    JOIN(p);
}

CASE(proc_sysvipc_or_not) {
    int id = SHM(key(5), 12345, IPC_CREAT | 0600);
    char buf[8192], want[32];
    if (read_file("/proc/sysvipc/shm", buf, sizeof buf) < 0) SKIP("no /proc/sysvipc");
    snprintf(want, sizeof want, " %d ", id);
    CHECK(strstr(buf, want));
    CHECK(strstr(buf, " 12345 "));
}

TEST(msgmni_limits_queues) {
    NEED_ROOT();
    if (unshare(CLONE_NEWIPC)) SKIP("unshare: %s", strerrorname_np(errno));
    CHECK(write_file("/proc/sys/kernel/msgmni", "2") >= 0);
    int a = OK(msgget(IPC_PRIVATE, 0600)), b = OK(msgget(IPC_PRIVATE, 0600));
    CHECK_ERRNO(msgget(IPC_PRIVATE, 0600), ENOSPC);
    OK(msgctl(a, IPC_RMID, 0));
    int c = OK(msgget(IPC_PRIVATE, 0600));
    CHECK(c != a && c != b);
    CHECK_ERRNO(msgctl(a, IPC_RMID, 0), EINVAL);
    struct msginfo info;
    OK(msgctl(0, IPC_INFO, (struct msqid_ds *)&info));
    CHECK_EQ(info.msgmni, 2);
}

TEST(next_ids_can_be_chosen) {
    NEED_ROOT();
    if (unshare(CLONE_NEWIPC)) SKIP("unshare: %s", strerrorname_np(errno));
    char text[32];
    if (read_file("/proc/sys/kernel/msg_next_id", text, sizeof text) < 0) SKIP("no kernel.msg_next_id");
    CHECK_STR(text, "-1\n");
    CHECK(write_file("/proc/sys/kernel/msg_next_id", "98311") >= 0); // sequence 3, index 7
    CHECK_EQ(OK(msgget(IPC_PRIVATE, 0600)), 98311);
    CHECK(read_file("/proc/sys/kernel/msg_next_id", text, sizeof text) > 0);
    CHECK_STR(text, "-1\n");
    CHECK(write_file("/proc/sys/kernel/shm_next_id", "12") >= 0);
    CHECK_EQ(OK(shmget(IPC_PRIVATE, 4096, 0600)), 12);
    CHECK(write_file("/proc/sys/kernel/sem_next_id", "5") >= 0);
    CHECK_EQ(OK(semget(IPC_PRIVATE, 1, 0600)), 5);
    CHECK(OK(semget(IPC_PRIVATE, 1, 0600)) != 5);
}

TEST(attachments_are_counted_for_children) {
    int id = OK(shmget(IPC_PRIVATE, 4096, 0600)), gate[2];
    char *p = shmat(id, 0, 0);
    CHECK(p != (char *)-1);
    OK(shmctl(id, IPC_RMID, 0));
    struct shmid_ds ds;
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 1);
    OK(pipe(gate));
    pid_t a;
    CHILD(a) gate_wait(gate[0]);
    pid_t b;
    CHILD(b) gate_wait(gate[0]);
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 3);
    OK(shmdt(p));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_nattch, 2);
    gate_open(gate[1]);
    gate_open(gate[1]);
    JOIN(a);
    JOIN(b);
    CHECK_ERRNO(shmctl(id, IPC_STAT, &ds), EINVAL);
}

TEST(shm_lock_shows) {
    int id = OK(shmget(IPC_PRIVATE, 4096, 0600));
    struct shmid_ds ds;
    OK(shmctl(id, SHM_LOCK, 0));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_perm.mode, 0600 | SHM_LOCKED);
    OK(shmctl(id, SHM_UNLOCK, 0));
    OK(shmctl(id, IPC_STAT, &ds));
    CHECK_EQ(ds.shm_perm.mode, 0600);
    if (geteuid() == 0) {
        pid_t p;
        CHILD(p) {
            OK(setuid(65534));
            CHECK_ERRNO(shmctl(id, SHM_LOCK, 0), EPERM);
        }
        JOIN(p);
    }
    OK(shmctl(id, IPC_RMID, 0));
}

TEST(stat_of_an_index_takes_ids) {
    struct semid_ds ds;
    for (int i = 0; i < 3; i++) {
        int id = OK(semget(IPC_PRIVATE, 1, 0600));
        CHECK_EQ(semctl(id, 0, SEM_STAT, &ds), id);
        CHECK_EQ(semctl(id & 0x7fff, 0, SEM_STAT, &ds), id);
        OK(semctl(id, 0, IPC_RMID));
    }
}
