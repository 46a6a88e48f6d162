// inotify: every event, masks, overflow rules.
#include "compat.h"
#include <sys/inotify.h>

static int in;
static char buf[65536] __attribute__((aligned(8)));
static size_t have, at;

static void watch_start(void) { in = OK(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)); }

// The next event, or null.
static struct inotify_event *next(void) {
    if (at == have) {
        ssize_t n = read(in, buf, sizeof buf);
        if (n < 0) {
            CHECK_EQ(errno, EAGAIN);
            return 0;
        }
        have = n, at = 0;
    }
    struct inotify_event *e = (void *)(buf + at);
    at += sizeof *e + e->len;
    return e;
}
#define EXPECT(w, m, n)                                                                                                \
    do {                                                                                                               \
        struct inotify_event *e_ = next();                                                                             \
        CHECK(e_);                                                                                                     \
        CHECK_EQ(e_->mask, m);                                                                                         \
        CHECK_EQ(e_->wd, w);                                                                                           \
        CHECK_STR(e_->len ? e_->name : "", n);                                                                         \
    } while (0)
#define NOTHING()                                                                                                      \
    do {                                                                                                               \
        struct inotify_event *e_ = next();                                                                             \
        if (e_) FAIL("unexpected event %#x %s", e_->mask, e_->len ? e_->name : "");                                    \
    } while (0)

TEST(file_life_in_directory) {
    watch_start();
    int w = OK(inotify_add_watch(in, ".", IN_ALL_EVENTS));
    int fd = OK(open("f", O_WRONLY | O_CREAT, 0600));
    EXPECT(w, IN_CREATE, "f");
    EXPECT(w, IN_OPEN, "f");
    OK(write(fd, "x", 1));
    EXPECT(w, IN_MODIFY, "f");
    OK(close(fd));
    EXPECT(w, IN_CLOSE_WRITE, "f");
    fd = OK(open("f", O_RDONLY));
    EXPECT(w, IN_OPEN, "f");
    char c;
    OK(read(fd, &c, 1));
    EXPECT(w, IN_ACCESS, "f");
    OK(close(fd));
    EXPECT(w, IN_CLOSE_NOWRITE, "f");
    OK(chmod("f", 0644));
    EXPECT(w, IN_ATTRIB, "f");
    OK(truncate("f", 0));
    EXPECT(w, IN_MODIFY, "f");
    OK(unlink("f"));
    EXPECT(w, IN_DELETE, "f");
    NOTHING();
}

TEST(directories_links_and_moves) {
    OK(mkdir("a", 0755)), OK(mkdir("b", 0755));
    watch_start();
    int wa = OK(inotify_add_watch(in, "a", IN_CREATE | IN_DELETE | IN_MOVE | IN_ATTRIB)), wb = OK(inotify_add_watch(in, "b", IN_CREATE | IN_DELETE | IN_MOVE));
    OK(mkdir("a/d", 0755));
    EXPECT(wa, IN_CREATE | IN_ISDIR, "d");
    OK(symlink("x", "a/l"));
    EXPECT(wa, IN_CREATE, "l");
    OK(mkfifo("a/p", 0600));
    EXPECT(wa, IN_CREATE, "p");
    OK(rename("a/l", "b/m"));
    struct inotify_event *e = next();
    CHECK(e);
    CHECK_EQ(e->mask, IN_MOVED_FROM);
    CHECK_EQ(e->wd, wa);
    uint32_t cookie = e->cookie;
    CHECK(cookie);
    e = next();
    CHECK(e);
    CHECK_EQ(e->mask, IN_MOVED_TO);
    CHECK_EQ(e->wd, wb);
    CHECK_EQ(e->cookie, cookie);
    CHECK_STR(e->name, "m");
    OK(rmdir("a/d"));
    EXPECT(wa, IN_DELETE | IN_ISDIR, "d");
    OK(unlink("b/m"));
    EXPECT(wb, IN_DELETE, "m");
    NOTHING();
}

TEST(watching_a_file) {
    OK(write_file("f", "x"));
    watch_start();
    int w = OK(inotify_add_watch(in, "f", IN_ALL_EVENTS));
    OK(rename("f", "g"));
    EXPECT(w, IN_MOVE_SELF, "");
    OK(link("g", "h"));
    EXPECT(w, IN_ATTRIB, ""); // the link count
    OK(unlink("h"));
    EXPECT(w, IN_ATTRIB, "");
    OK(unlink("g"));
    EXPECT(w, IN_ATTRIB, "");
    EXPECT(w, IN_DELETE_SELF, "");
    EXPECT(w, IN_IGNORED, "");
    NOTHING();
    CHECK_ERRNO(inotify_rm_watch(in, w), EINVAL);
}

TEST(deletion_waits_for_last_close) {
    OK(write_file("f", "x"));
    watch_start();
    int w = OK(inotify_add_watch(in, "f", IN_DELETE_SELF | IN_ATTRIB));
    int fd = OK(open("f", O_RDONLY));
    OK(unlink("f"));
    EXPECT(w, IN_ATTRIB, "");
    NOTHING();
    OK(close(fd));
    EXPECT(w, IN_DELETE_SELF, "");
    EXPECT(w, IN_IGNORED, "");
}

TEST(watched_directory_is_removed) {
    OK(mkdir("d", 0755));
    watch_start();
    int w = OK(inotify_add_watch(in, "d", IN_ALL_EVENTS));
    OK(rmdir("d"));
    EXPECT(w, IN_DELETE_SELF, "");
    EXPECT(w, IN_IGNORED, "");
    NOTHING();
}

TEST(rm_watch_gives_ignored) {
    watch_start();
    int w = OK(inotify_add_watch(in, ".", IN_CREATE));
    OK(inotify_rm_watch(in, w));
    EXPECT(w, IN_IGNORED, "");
    OK(write_file("f", ""));
    NOTHING();
    int v = OK(inotify_add_watch(in, ".", IN_CREATE));
    CHECK(v != w); // not reused at once
}

TEST(add_watch_replaces_or_adds_mask) {
    watch_start();
    int w = OK(inotify_add_watch(in, ".", IN_CREATE));
    CHECK_EQ(inotify_add_watch(in, ".", IN_DELETE), w);
    OK(write_file("f", ""));
    NOTHING();
    CHECK_EQ(inotify_add_watch(in, ".", IN_CREATE | IN_MASK_ADD), w);
    OK(unlink("f"));
    EXPECT(w, IN_DELETE, "f");
    OK(write_file("f", ""));
    EXPECT(w, IN_CREATE, "f");
    CHECK_ERRNO(inotify_add_watch(in, ".", IN_CREATE | IN_MASK_CREATE), EEXIST);
}

TEST(oneshot_and_onlydir) {
    OK(write_file("f", "x"));
    watch_start();
    CHECK_ERRNO(inotify_add_watch(in, "f", IN_CREATE | IN_ONLYDIR), ENOTDIR);
    int w = OK(inotify_add_watch(in, "f", IN_MODIFY | IN_ONESHOT));
    OK(truncate("f", 0));
    EXPECT(w, IN_MODIFY, "");
    EXPECT(w, IN_IGNORED, "");
    OK(write_file("f", "y"));
    NOTHING();
}

TEST(dont_follow) {
    OK(write_file("f", "x"));
    OK(symlink("f", "l"));
    watch_start();
    int w = OK(inotify_add_watch(in, "l", IN_ALL_EVENTS)), v = OK(inotify_add_watch(in, "l", IN_ALL_EVENTS | IN_DONT_FOLLOW));
    CHECK(w != v);
    OK(chmod("f", 0600));
    EXPECT(w, IN_ATTRIB, "");
    OK(unlink("l"));
    EXPECT(v, IN_ATTRIB, "");
    EXPECT(v, IN_DELETE_SELF, "");
}

TEST(identical_events_merge) {
    OK(write_file("f", "x"));
    watch_start();
    int w = OK(inotify_add_watch(in, "f", IN_MODIFY));
    int fd = OK(open("f", O_WRONLY));
    for (int i = 0; i < 10; i++) OK(write(fd, "x", 1));
    EXPECT(w, IN_MODIFY, "");
    NOTHING();
}

TEST(reading_rules) {
    watch_start();
    OK(inotify_add_watch(in, ".", IN_CREATE));
    char small[8];
    int n;
    CHECK_ERRNO(read(in, buf, sizeof buf), EAGAIN);
    struct pollfd pf = {in, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0);
    OK(close(OK(open("name", O_CREAT | O_WRONLY, 0600))));
    CHECK_EQ(poll(&pf, 1, 0), 1);
    OK(ioctl(in, FIONREAD, &n));
    CHECK_EQ(n, sizeof(struct inotify_event) + 16); // the name is padded
    CHECK_ERRNO(read(in, small, sizeof small), EINVAL);
    CHECK_EQ(read(in, buf, sizeof buf), n);
    CHECK_ERRNO(write(in, "x", 1), EBADF);
}

TEST(blocking_read_is_woken) {
    in = OK(inotify_init1(0));
    OK(inotify_add_watch(in, ".", IN_CREATE));
    pid_t p, me = getpid();
    CHILD(p) {
        wait_asleep(me);
        OK(mkdir("d", 0755));
    }
    CHECK(read(in, buf, sizeof buf) > 0);
    JOIN(p);
}

TEST(errnos) {
    watch_start();
    CHECK_ERRNO(inotify_add_watch(in, "none", IN_CREATE), ENOENT);
    CHECK_ERRNO(inotify_add_watch(in, ".", 0), EINVAL);
    CHECK_ERRNO(inotify_add_watch(0, ".", IN_CREATE), EINVAL);
    CHECK_ERRNO(inotify_add_watch(999, ".", IN_CREATE), EBADF);
    CHECK_ERRNO(inotify_rm_watch(in, 99), EINVAL);
    CHECK_ERRNO(inotify_init1(1), EINVAL);
    CHECK_ERRNO(inotify_add_watch(in, ".", IN_CREATE | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
}

TEST(queue_overflow) {
    char text[32];
    if (read_file("/proc/sys/fs/inotify/max_queued_events", text, sizeof text) < 0) SKIP("no limit shown");
    int max = atoi(text);
    if (max > 20000) SKIP("max_queued_events is %d", max);
    OK(write_file("a", "")), OK(write_file("b", ""));
    watch_start();
    OK(inotify_add_watch(in, ".", IN_ATTRIB));
    for (int i = 0; i < max + 20; i++) OK(chmod(i % 2 ? "a" : "b", 0600));
    int n = 0;
    bool over = false;
    for (struct inotify_event *e; (e = next());) {
        n++;
        if (e->mask & IN_Q_OVERFLOW) {
            CHECK_EQ(e->wd, -1);
            over = true;
        }
    }
    CHECK(over);
    CHECK_EQ(n, max + 1);
}

TEST(mmap_rename_over_and_hardlink_events) {
    OK(write_file("a", "x")), OK(write_file("b", "y"));
    watch_start();
    int w = OK(inotify_add_watch(in, ".", IN_MOVE | IN_CREATE | IN_DELETE)), wb = OK(inotify_add_watch(in, "b", IN_DELETE_SELF | IN_ATTRIB));
    OK(rename("a", "b"));
    EXPECT(w, IN_MOVED_FROM, "a");
    EXPECT(w, IN_MOVED_TO, "b");
    EXPECT(wb, IN_ATTRIB, "");
    EXPECT(wb, IN_DELETE_SELF, "");
    EXPECT(wb, IN_IGNORED, "");
    OK(link("b", "c"));
    EXPECT(w, IN_CREATE, "c");
    NOTHING();
}
