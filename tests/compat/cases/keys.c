// Keys and keyrings (add_key, request_key, keyctl).
#include "compat.h"
#include <linux/keyctl.h>

static long keyctl(int op, ...) {
    va_list v;
    va_start(v, op);
    long a = va_arg(v, long), b = va_arg(v, long), c = va_arg(v, long), d = va_arg(v, long);
    va_end(v);
    return syscall(SYS_keyctl, op, a, b, c, d);
}
#define KEYCTL(op, ...) keyctl(op, ##__VA_ARGS__, 0l, 0l, 0l, 0l)
static long add(const char *type, const char *name, const char *data, long ring) {
    return syscall(SYS_add_key, type, name, data, data ? strlen(data) : 0, ring);
}
static void need_keys(void) {
    long r = KEYCTL(KEYCTL_JOIN_SESSION_KEYRING, 0l);
    if (r < 0 && (errno == ENOSYS || errno == EPERM)) SKIP("no keys here");
    OK(r);
}

TEST(a_key_is_made_found_and_read) {
    need_keys();
    long key = OK(add("user", "k", "secret", KEY_SPEC_SESSION_KEYRING));
    CHECK(key > 0);
    char b[64] = "";
    CHECK_EQ(KEYCTL(KEYCTL_READ, key, (long)b, 64l), 6);
    CHECK_STR(b, "secret");
    CHECK_EQ(KEYCTL(KEYCTL_READ, key, 0l, 0l), 6);
    CHECK_EQ(syscall(SYS_request_key, "user", "k", 0, 0), key);
    CHECK_EQ(KEYCTL(KEYCTL_SEARCH, (long)KEY_SPEC_SESSION_KEYRING, (long)"user", (long)"k", 0l), key);
    CHECK_ERRNO(syscall(SYS_request_key, "user", "none", 0, 0), ENOKEY);
    // The same name is the same key.
    CHECK_EQ(add("user", "k", "other", KEY_SPEC_SESSION_KEYRING), key);
    CHECK_EQ(KEYCTL(KEYCTL_READ, key, (long)b, 64l), 5);
    OK(KEYCTL(KEYCTL_UPDATE, key, (long)"xyz", 3l));
    CHECK_EQ(KEYCTL(KEYCTL_READ, key, (long)b, 64l), 3);
    CHECK_MEM(b, "xyz", 3);
    int n = OK(KEYCTL(KEYCTL_DESCRIBE, key, (long)b, 64l));
    char want[64];
    snprintf(want, sizeof want, "user;%d;%d;3f010000;k", getuid(), getgid());
    CHECK_STR(b, want);
    CHECK_EQ(n, strlen(want) + 1);
    OK(KEYCTL(KEYCTL_UNLINK, key, (long)KEY_SPEC_SESSION_KEYRING));
    // Gone, or about to be.
    CHECK_EQ(KEYCTL(KEYCTL_UNLINK, key, (long)KEY_SPEC_SESSION_KEYRING), -1);
    CHECK_V(errno == ENOENT || errno == ENOKEY, errno);
}

TEST(session_keyring) {
    need_keys();
    long first = OK(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_SESSION_KEYRING, 0l));
    pid_t p;
    CHILD(p) {
        CHECK_EQ(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_SESSION_KEYRING, 0l), first);
        long own = OK(KEYCTL(KEYCTL_JOIN_SESSION_KEYRING, 0l));
        CHECK(own != first);
        CHECK_EQ(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_SESSION_KEYRING, 0l), own);
    }
    JOIN(p);
    CHECK_EQ(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_SESSION_KEYRING, 0l), first);
    // As runc does it.
    long named = OK(KEYCTL(KEYCTL_JOIN_SESSION_KEYRING, (long)"_ses.test"));
    char b[128];
    OK(KEYCTL(KEYCTL_DESCRIBE, named, (long)b, 128l));
    char *perm = strrchr(b, ';');
    *perm = 0;
    unsigned mask = strtoul(strrchr(b, ';') + 1, 0, 16);
    OK(KEYCTL(KEYCTL_SETPERM, named, (long)(mask | 0x80000)));
    CHECK_ERRNO(KEYCTL(KEYCTL_SETPERM, named, 0xffffffffl), EINVAL);
}

TEST(keyrings_of_thread_and_process) {
    need_keys();
    CHECK_ERRNO(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_THREAD_KEYRING, 0l), ENOKEY);
    long t = OK(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_THREAD_KEYRING, 1l));
    long p = OK(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_PROCESS_KEYRING, 1l));
    CHECK(t != p);
    long key = OK(add("user", "k", "v", KEY_SPEC_PROCESS_KEYRING));
    CHECK_EQ(syscall(SYS_request_key, "user", "k", 0, 0), key);
    pid_t c;
    CHILD(c) {
        CHECK_ERRNO(KEYCTL(KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_PROCESS_KEYRING, 0l), ENOKEY);
        CHECK_ERRNO(syscall(SYS_request_key, "user", "k", 0, 0), ENOKEY);
    }
    JOIN(c);
    long ring = OK(add("keyring", "r", 0, KEY_SPEC_THREAD_KEYRING));
    OK(KEYCTL(KEYCTL_LINK, key, ring));
    int serial;
    CHECK_EQ(KEYCTL(KEYCTL_READ, ring, (long)&serial, 4l), 4);
    CHECK_EQ(serial, key);
    CHECK_ERRNO(KEYCTL(KEYCTL_LINK, t, ring), EDEADLK);
    OK(KEYCTL(KEYCTL_CLEAR, ring));
    CHECK_EQ(KEYCTL(KEYCTL_READ, ring, 0l, 0l), 0);
    CHECK_ERRNO(KEYCTL(KEYCTL_CLEAR, key), ENOTDIR);
}

TEST(key_errnos) {
    need_keys();
    long s = KEY_SPEC_SESSION_KEYRING;
    CHECK_ERRNO(add("no-such-type", "k", "v", s), ENODEV);
    CHECK_ERRNO(add("user", "k", 0, s), EINVAL);
    CHECK_ERRNO(add("keyring", "k", "v", s), EINVAL);
    CHECK_ERRNO(add("keyring", ".k", 0, s), EPERM);
    CHECK_ERRNO(add(".user", "k", "v", s), EPERM);
    CHECK_ERRNO(add("logon", "nocolon", "v", s), EINVAL);
    CHECK_ERRNO(add("user", "k", "v", -99), EINVAL);
    CHECK_ERRNO(add("user", "k", "v", 0x3ffffff0), ENOKEY);
    CHECK_ERRNO(add((char *)8, "k", "v", s), EFAULT);
    long logon = OK(add("logon", "a:b", "v", s));
    CHECK_ERRNO(KEYCTL(KEYCTL_READ, logon, 0l, 0l), EOPNOTSUPP);
    long key = OK(add("user", "k", "v", s));
    CHECK_ERRNO(add("user", "x", "v", key), ENOTDIR);
    OK(KEYCTL(KEYCTL_REVOKE, key));
    CHECK_ERRNO(KEYCTL(KEYCTL_READ, key, 0l, 0l), EKEYREVOKED);
    CHECK_ERRNO(KEYCTL(KEYCTL_GET_KEYRING_ID, -6l, 0l), EINVAL);
    CHECK_ERRNO(KEYCTL(9999, 0l), EOPNOTSUPP);
}

TEST(keys_of_others) {
    NEED_ROOT();
    need_keys();
    long key = OK(add("user", "k", "v", KEY_SPEC_SESSION_KEYRING));
    pid_t p;
    CHILD(p) {
        OK(setresgid(1000, 1000, 1000));
        OK(setresuid(1000, 1000, 1000));
        OK(KEYCTL(KEYCTL_JOIN_SESSION_KEYRING, 0l)); // no longer possessed
        CHECK_ERRNO(KEYCTL(KEYCTL_READ, key, 0l, 0l), EACCES);
        CHECK_ERRNO(KEYCTL(KEYCTL_UPDATE, key, (long)"x", 1l), EACCES);
    }
    JOIN(p);
}
