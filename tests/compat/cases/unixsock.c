// AF_UNIX: streams, datagrams, sequenced packets; names; passing descriptors and credentials.
#include "compat.h"
#include <linux/sockios.h>

static int sv[2];
static void pair(int type) { OK(socketpair(AF_UNIX, type, 0, sv)); }

static socklen_t addr(struct sockaddr_un *a, const char *name) {
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (name[0] == '@') { // abstract
        memcpy(a->sun_path + 1, name + 1, strlen(name) - 1);
        return offsetof(struct sockaddr_un, sun_path) + strlen(name);
    }
    strcpy(a->sun_path, name);
    return sizeof *a;
}
static int listener(const char *name, int type, int backlog) {
    struct sockaddr_un a;
    int s = OK(socket(AF_UNIX, type, 0));
    OK(bind(s, (void *)&a, addr(&a, name)));
    OK(listen(s, backlog));
    return s;
}
static int connect_to(const char *name, int type) {
    struct sockaddr_un a;
    int s = OK(socket(AF_UNIX, type, 0));
    socklen_t n = addr(&a, name);
    if (connect(s, (void *)&a, n)) {
        int e = errno;
        close(s);
        errno = e;
        return -1;
    }
    return s;
}

// Sends descriptors with one byte.
static ssize_t send_fds(int s, const int *fds, int n) {
    char ctl[CMSG_SPACE(300 * 4)] = {0};
    struct iovec v = {"f", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = CMSG_SPACE(n * 4)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(n * 4);
    memcpy(CMSG_DATA(h), fds, n * 4);
    return sendmsg(s, &m, 0);
}
static int recv_fds(int s, int *fds, int max, int flags, int *mflags) {
    char ctl[CMSG_SPACE(300 * 4)], b;
    struct iovec v = {&b, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = CMSG_SPACE(max * 4)};
    CHECK_EQ(OK(recvmsg(s, &m, flags)), 1);
    if (mflags) *mflags = m.msg_flags;
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    if (!h) return 0;
    CHECK_EQ(h->cmsg_level, SOL_SOCKET);
    CHECK_EQ(h->cmsg_type, SCM_RIGHTS);
    int n = (h->cmsg_len - CMSG_LEN(0)) / 4;
    memcpy(fds, CMSG_DATA(h), n * 4);
    return n;
}

TEST(stream_pair) {
    pair(SOCK_STREAM);
    char b[8] = {0};
    OK(write(sv[0], "abc", 3)), OK(send(sv[0], "de", 2, 0));
    CHECK_EQ(read(sv[1], b, 8), 5); // no boundaries
    CHECK_STR(b, "abcde");
    OK(write(sv[1], "x", 1));
    CHECK_EQ(read(sv[0], b, 8), 1);
    OK(close(sv[0]));
    CHECK_EQ(read(sv[1], b, 8), 0);
    CHECK_ERRNO(send(sv[1], "x", 1, MSG_NOSIGNAL), EPIPE);
}

TEST(dgram_pair_keeps_boundaries) {
    pair(SOCK_DGRAM);
    char b[8];
    OK(send(sv[0], "abc", 3, 0)), OK(send(sv[0], "", 0, 0)), OK(send(sv[0], "defgh", 5, 0));
    CHECK_EQ(recv(sv[1], b, 8, 0), 3);
    CHECK_EQ(recv(sv[1], b, 8, 0), 0); // an empty one
    CHECK_EQ(recv(sv[1], b, 2, MSG_TRUNC), 5); // its real length
    CHECK_ERRNO(recv(sv[1], b, 8, MSG_DONTWAIT), EAGAIN); // the rest is gone
    OK(close(sv[1]));
    CHECK_ERRNO(send(sv[0], "x", 1, 0), ECONNREFUSED);
}

TEST(seqpacket_pair) {
    pair(SOCK_SEQPACKET);
    char b[8];
    OK(send(sv[0], "abc", 3, 0)), OK(send(sv[0], "de", 2, 0));
    struct iovec v = {b, 2};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK_EQ(recvmsg(sv[1], &m, 0), 2);
    CHECK(m.msg_flags & MSG_TRUNC);
    v.iov_len = 8;
    CHECK_EQ(recvmsg(sv[1], &m, 0), 2);
    CHECK(!(m.msg_flags & MSG_TRUNC));
    OK(close(sv[0]));
    CHECK_EQ(recv(sv[1], b, 8, 0), 0);
}

TEST(connect_accept_by_path) {
    int l = listener("sock", SOCK_STREAM, 5), c = OK(connect_to("sock", SOCK_STREAM));
    struct sockaddr_un a;
    socklen_t n = sizeof a;
    int s = OK(accept4(l, (void *)&a, &n, SOCK_CLOEXEC | SOCK_NONBLOCK));
    CHECK_EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(s, F_GETFL) & O_NONBLOCK);
    CHECK_EQ(n, 2); // the client has no name
    CHECK_EQ(a.sun_family, AF_UNIX);
    n = sizeof a;
    OK(getsockname(s, (void *)&a, &n));
    CHECK_STR(a.sun_path, "sock");
    CHECK_EQ(n, 2 + 5);
    n = sizeof a;
    OK(getpeername(c, (void *)&a, &n));
    CHECK_STR(a.sun_path, "sock");
    OK(write(c, "hi", 2));
    char b[4];
    CHECK_EQ(read(s, b, 4), 2);
}

TEST(bind_errnos) {
    int s = OK(socket(AF_UNIX, SOCK_STREAM, 0)), t = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un a;
    OK(bind(s, (void *)&a, addr(&a, "s")));
    CHECK_ERRNO(bind(t, (void *)&a, addr(&a, "s")), EADDRINUSE);
    CHECK_ERRNO(bind(s, (void *)&a, addr(&a, "other")), EINVAL); // has a name
    CHECK_ERRNO(bind(t, (void *)&a, addr(&a, "none/s")), ENOENT);
    CHECK_ERRNO(bind(t, (void *)&a, 200), EINVAL);
    a.sun_family = AF_INET;
    CHECK_ERRNO(bind(t, (void *)&a, sizeof a), EINVAL);
    struct stat st;
    OK(stat("s", &st));
    CHECK(S_ISSOCK(st.st_mode));
    CHECK_EQ(st.st_mode & 0777, 0755);
    OK(unlink("s"));
    OK(bind(t, (void *)&a, addr(&a, "s")));
    // A full-length path needs no terminator.
    memset(&a, 'p', sizeof a);
    a.sun_family = AF_UNIX;
    OK(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof a));
}

TEST(connect_errnos) {
    OK(write_file("file", "x"));
    CHECK_ERRNO(connect_to("none", SOCK_STREAM), ENOENT);
    CHECK_ERRNO(connect_to("file", SOCK_STREAM), ECONNREFUSED);
    CHECK_ERRNO(connect_to("@compat-none", SOCK_STREAM), ECONNREFUSED);
    int l = listener("s", SOCK_STREAM, 5);
    CHECK_ERRNO(connect_to("s", SOCK_DGRAM), EPROTOTYPE);
    CHECK_ERRNO(connect_to("s", SOCK_SEQPACKET), EPROTOTYPE);
    int c = OK(connect_to("s", SOCK_STREAM));
    struct sockaddr_un a;
    socklen_t n = addr(&a, "s");
    CHECK_ERRNO(connect(c, (void *)&a, n), EISCONN);
    OK(close(l));
    CHECK_ERRNO(connect_to("s", SOCK_STREAM), ECONNREFUSED);
    CHECK_ERRNO(listen(c, 5), EINVAL);
    CHECK_ERRNO(accept(c, 0, 0), EINVAL);
    int d = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    CHECK_ERRNO(listen(d, 5), EOPNOTSUPP);
    CHECK_ERRNO(accept(d, 0, 0), EOPNOTSUPP);
    CHECK_ERRNO(send(OK(socket(AF_UNIX, SOCK_STREAM, 0)), "x", 1, 0), ENOTCONN);
    CHECK_ERRNO(recv(OK(socket(AF_UNIX, SOCK_STREAM, 0)), &a, 1, 0), EINVAL);
}

TEST(permission_to_connect) {
    NEED_ROOT();
    listener("s", SOCK_STREAM, 5);
    OK(chmod("s", 0755));
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        CHECK_ERRNO(connect_to("s", SOCK_STREAM), EACCES);
    }
    JOIN(p);
    OK(chmod("s", 0777));
    CHILD(p) {
        OK(setuid(1000));
        OK(connect_to("s", SOCK_STREAM));
    }
    JOIN(p);
}

TEST(abstract_names) {
    int l = listener("@compat-abs", SOCK_STREAM, 5);
    struct sockaddr_un a;
    socklen_t n = sizeof a;
    OK(getsockname(l, (void *)&a, &n));
    CHECK_EQ(n, 2 + 11);
    CHECK_EQ(a.sun_path[0], 0);
    OK(connect_to("@compat-abs", SOCK_STREAM));
    CHECK_ERRNO(connect_to("@compat-ab", SOCK_STREAM), ECONNREFUSED);
    int t = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_ERRNO(bind(t, (void *)&a, addr(&a, "@compat-abs")), EADDRINUSE);
    OK(close(l));
    OK(bind(t, (void *)&a, addr(&a, "@compat-abs"))); // freed by close
}

TEST(autobind) {
    int s = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    OK(bind(s, (void *)&a, sizeof(sa_family_t)));
    socklen_t n = sizeof a;
    OK(getsockname(s, (void *)&a, &n));
    CHECK_EQ(n, 2 + 6); // a zero and five hexadecimal digits
    for (int i = 1; i < 6; i++) CHECK(strchr("0123456789abcdef", a.sun_path[i]));
}

TEST(shutdown_halves) {
    pair(SOCK_STREAM);
    char b[4];
    OK(shutdown(sv[0], SHUT_WR));
    CHECK_EQ(read(sv[1], b, 4), 0);
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    OK(write(sv[1], "back", 4));
    CHECK_EQ(read(sv[0], b, 4), 4);
    OK(shutdown(sv[0], SHUT_RD));
    CHECK_EQ(read(sv[0], b, 4), 0);
    CHECK_ERRNO(send(sv[1], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_ERRNO(shutdown(sv[0], 9), EINVAL);
    OK(shutdown(OK(socket(AF_UNIX, SOCK_STREAM, 0)), SHUT_RD)); // also unconnected, unlike TCP
}

TEST(backlog_limits) {
    int l = listener("s", SOCK_STREAM, 1);
    struct sockaddr_un a;
    socklen_t n = addr(&a, "s");
    int c, ok = 0;
    do {
        c = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
        if (connect(c, (void *)&a, n)) break;
    } while (++ok < 10);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(ok, 2);
    OK(accept(l, 0, 0));
    OK(connect(c, (void *)&a, n));
    struct pollfd pf = {l, POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 1);
    // A blocking connect waits.
    pid_t p;
    CHILD(p) OK(connect_to("s", SOCK_STREAM));
    wait_asleep(p);
    OK(accept(l, 0, 0));
    JOIN(p);
}

TEST(pending_data_before_accept_and_close) {
    int l = listener("s", SOCK_STREAM, 5), c = OK(connect_to("s", SOCK_STREAM));
    OK(write(c, "early", 5));
    OK(close(c));
    int s = OK(accept(l, 0, 0));
    char b[8];
    CHECK_EQ(read(s, b, 8), 5);
    CHECK_EQ(read(s, b, 8), 0);
}

TEST(close_with_unread_data_is_reset) {
    pair(SOCK_STREAM);
    char b[8];
    OK(write(sv[0], "unread", 6));
    OK(close(sv[1]));
    CHECK_ERRNO(read(sv[0], b, 8), ECONNRESET);
    CHECK_EQ(read(sv[0], b, 8), 0);
}

TEST(closing_listener_resets_pending) {
    int l = listener("s", SOCK_STREAM, 5), c = OK(connect_to("s", SOCK_STREAM));
    OK(close(l));
    char b;
    CHECK_ERRNO(read(c, &b, 1), ECONNRESET);
}

TEST(peek_waitall_dontwait) {
    pair(SOCK_STREAM);
    char b[8] = {0};
    OK(write(sv[0], "abc", 3));
    CHECK_EQ(recv(sv[1], b, 8, MSG_PEEK), 3);
    CHECK_EQ(recv(sv[1], b, 2, MSG_PEEK), 2);
    pid_t p;
    CHILD(p) {
        CHECK_EQ(recv(sv[1], b, 6, MSG_WAITALL), 6);
        CHECK_STR(b, "abcdef");
    }
    wait_asleep(p);
    OK(write(sv[0], "def", 3));
    JOIN(p);
    CHECK_ERRNO(recv(sv[1], b, 1, MSG_DONTWAIT), EAGAIN);
    OK(write(sv[0], "xy", 2));
    OK(shutdown(sv[0], SHUT_WR));
    CHECK_EQ(recv(sv[1], b, 6, MSG_WAITALL), 2); // ends early at the end
}

TEST(nonblocking_stream_fills) {
    pair(SOCK_STREAM | SOCK_NONBLOCK);
    static char b[1 << 16];
    size_t n = 0;
    ssize_t r;
    while ((r = write(sv[0], b, sizeof b)) > 0) n += r;
    CHECK_EQ(errno, EAGAIN);
    CHECK_V(n >= 32768 && n < 4 << 20, n);
    struct pollfd pf = {sv[0], POLLOUT, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0);
    size_t got = 0;
    while ((r = read(sv[1], b, sizeof b)) > 0) got += r;
    CHECK_EQ(got, n);
    CHECK_EQ(poll(&pf, 1, 0), 1);
}

TEST(large_stream_is_intact) {
    pair(SOCK_STREAM);
    enum { N = 4 << 20 };
    pid_t p;
    unsigned *d = malloc(N);
    CHILD(p) {
        close(sv[1]);
        for (unsigned i = 0; i < N / 4; i++) d[i] = i * 2654435761u;
        CHECK_EQ(write(sv[0], d, N), N);
    }
    close(sv[0]);
    size_t n = 0;
    ssize_t r;
    while ((r = OK(read(sv[1], (char *)d + n, N - n))) > 0) n += r;
    CHECK_EQ(n, N);
    for (unsigned i = 0; i < N / 4; i++) CHECK_EQ(d[i], i * 2654435761u);
    JOIN(p);
}

TEST(dgram_by_name) {
    struct sockaddr_un a, from;
    int r = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), s = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    socklen_t n = addr(&a, "r");
    OK(bind(r, (void *)&a, n));
    OK(sendto(s, "anon", 4, 0, (void *)&a, n));
    char buf[8];
    socklen_t fn = sizeof from;
    CHECK_EQ(recvfrom(r, buf, 8, 0, (void *)&from, &fn), 4);
    CHECK_EQ(fn, 0);
    struct sockaddr_un b;
    OK(bind(s, (void *)&b, addr(&b, "s")));
    OK(sendto(s, "named", 5, 0, (void *)&a, n));
    fn = sizeof from;
    CHECK_EQ(recvfrom(r, buf, 8, 0, (void *)&from, &fn), 5);
    CHECK_STR(from.sun_path, "s");
    CHECK_ERRNO(send(s, "x", 1, 0), ENOTCONN);
    OK(connect(s, (void *)&a, n));
    CHECK_EQ(send(s, "c", 1, 0), 1);
    // A connected receiver takes only from its peer.
    int t = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    n = addr(&b, "s");
    OK(connect(r, (void *)&b, n));
    n = addr(&a, "r");
    CHECK_ERRNO(connect(t, (void *)&a, n), EPERM);
    CHECK_ERRNO(sendto(t, "x", 1, 0, (void *)&a, n), EPERM);
}

TEST(dgram_limits) {
    pair(SOCK_DGRAM);
    static char big[1 << 20];
    CHECK_ERRNO(send(sv[0], big, sizeof big, MSG_DONTWAIT), EMSGSIZE);
    int n = 0;
    while (send(sv[0], big, 100, MSG_DONTWAIT) == 100) n++;
    CHECK_EQ(errno, EAGAIN);
    CHECK_V(n >= 10, n);
}

TEST(pass_a_descriptor) {
    pair(SOCK_STREAM);
    int fd = OK(open("f", O_RDWR | O_CREAT, 0600)), got[4];
    OK(write(fd, "hello", 5));
    CHECK_EQ(send_fds(sv[0], &fd, 1), 1);
    OK(close(fd)), OK(unlink("f"));
    CHECK_EQ(recv_fds(sv[1], got, 4, MSG_CMSG_CLOEXEC, 0), 1);
    CHECK_EQ(fcntl(got[0], F_GETFD), FD_CLOEXEC);
    CHECK_EQ(lseek(got[0], 0, SEEK_CUR), 5); // the same description
    char b[8] = {0};
    CHECK_EQ(pread(got[0], b, 5, 0), 5);
    CHECK_STR(b, "hello");
}

TEST(pass_many_descriptors) {
    pair(SOCK_SEQPACKET);
    int fds[254], got[254];
    for (int i = 0; i < 254; i++) fds[i] = 0;
    CHECK_EQ(send_fds(sv[0], fds, 253), 1);
    CHECK_EQ(recv_fds(sv[1], got, 253, 0, 0), 253);
    for (int i = 0; i < 253; i++) OK(close(got[i]));
    CHECK_ERRNO(send_fds(sv[0], fds, 254), EINVAL);
    fds[0] = 999;
    CHECK_ERRNO(send_fds(sv[0], fds, 1), EBADF);
}

TEST(truncated_control_data) {
    pair(SOCK_STREAM);
    int fds[3] = {0, 1, 2}, got[3], flags;
    CHECK_EQ(send_fds(sv[0], fds, 3), 1);
    int before = OK(dup(0));
    close(before);
    int n = recv_fds(sv[1], got, 1, 0, &flags);
    CHECK(flags & MSG_CTRUNC);
    CHECK_V(n >= 1 && n <= 2, n); // CMSG_SPACE has room for two
    // Those that did not fit are closed, not leaked.
    CHECK_EQ(OK(dup(0)), before + n);
    CHECK_EQ(send_fds(sv[0], fds, 3), 1);
    char b;
    CHECK_EQ(read(sv[1], &b, 1), 1); // plain read drops them
}

TEST(descriptors_do_not_merge_messages) {
    pair(SOCK_STREAM);
    int fd = 0, got[2];
    OK(write(sv[0], "ab", 2));
    CHECK_EQ(send_fds(sv[0], &fd, 1), 1);
    OK(write(sv[0], "cd", 2));
    char b[8];
    ssize_t n = OK(read(sv[1], b, 8)); // may take in the byte with the descriptors, but not go past it
    CHECK_V(n == 2 || n == 3, n);
    if (n == 2) CHECK_EQ(recv_fds(sv[1], got, 2, 0, 0), 1);
    CHECK_EQ(read(sv[1], b, 8), 2);
    CHECK_MEM(b, "cd", 2);
}

TEST(pass_a_socket_through_itself) {
    pair(SOCK_STREAM);
    int got[2];
    CHECK_EQ(send_fds(sv[0], &sv[1], 1), 1);
    CHECK_EQ(recv_fds(sv[1], got, 2, 0, 0), 1);
    OK(write(sv[0], "x", 1));
    char b;
    CHECK_EQ(read(got[0], &b, 1), 1);
    // In flight in a cycle, then abandoned: nothing may leak or hang.
    for (int i = 0; i < 50; i++) {
        int s[2];
        OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
        CHECK_EQ(send_fds(s[0], &s[1], 1), 1);
        CHECK_EQ(send_fds(s[1], &s[0], 1), 1);
        OK(close(s[0])), OK(close(s[1]));
    }
}

TEST(peek_duplicates_descriptors) {
    pair(SOCK_STREAM);
    int fd = 0, a[1], b[1];
    CHECK_EQ(send_fds(sv[0], &fd, 1), 1);
    CHECK_EQ(recv_fds(sv[1], a, 1, MSG_PEEK, 0), 1);
    CHECK_EQ(recv_fds(sv[1], b, 1, 0, 0), 1);
    CHECK(a[0] != b[0]);
}

TEST(closing_in_flight_releases) {
    int p[2];
    OK(pipe(p));
    pair(SOCK_STREAM);
    CHECK_EQ(send_fds(sv[0], &p[1], 1), 1);
    OK(close(p[1]));
    struct pollfd pf = {p[0], POLLIN, 0};
    CHECK_EQ(poll(&pf, 1, 0), 0); // still a writer, in flight
    OK(close(sv[0])), OK(close(sv[1]));
    CHECK_EQ(poll(&pf, 1, 9000), 1);
    CHECK(pf.revents & POLLHUP);
}

TEST(credentials_message) {
    pair(SOCK_DGRAM);
    int on = 1;
    OK(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    char ctl[256], b[8];
    struct iovec v = {b, 8};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
    pid_t p;
    CHILD(p) OK(send(sv[0], "x", 1, 0)); // filled in by the kernel
    CHECK_EQ(recvmsg(sv[1], &m, 0), 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h);
    CHECK_EQ(h->cmsg_type, SCM_CREDENTIALS);
    struct ucred c;
    memcpy(&c, CMSG_DATA(h), sizeof c);
    CHECK_EQ(c.pid, p);
    CHECK_EQ(c.uid, getuid());
    JOIN(p);
}

TEST(credentials_cannot_be_forged) {
    NEED_ROOT();
    pair(SOCK_DGRAM);
    struct { struct ucred c; bool ok; } t[] = {{{getpid(), 0, 0}, true}, {{getpid(), 5, 5}, true}, {{1, 0, 0}, true}};
    for (int root = 1; root >= 0; root--) {
        pid_t p;
        CHILD(p) {
            if (!root) OK(setresuid(1000, 1000, 1000));
            for (unsigned i = 0; i < 3; i++) {
                char ctl[CMSG_SPACE(sizeof(struct ucred))] = {0};
                struct iovec v = {"x", 1};
                struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
                struct cmsghdr *h = CMSG_FIRSTHDR(&m);
                h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_CREDENTIALS, h->cmsg_len = CMSG_LEN(sizeof(struct ucred));
                memcpy(CMSG_DATA(h), &t[i].c, sizeof(struct ucred));
                if (root) CHECK_EQ(sendmsg(sv[0], &m, 0), 1);
                else CHECK_ERRNO(sendmsg(sv[0], &m, 0), EPERM);
            }
        }
        JOIN(p);
    }
}

TEST(so_peercred) {
    pair(SOCK_STREAM);
    struct ucred c;
    socklen_t n = sizeof c;
    OK(getsockopt(sv[0], SOL_SOCKET, SO_PEERCRED, &c, &n));
    CHECK_EQ(c.pid, getpid());
    int l = listener("s", SOCK_STREAM, 5);
    pid_t p;
    int g[2];
    OK(pipe(g));
    CHILD(p) {
        int fd = OK(connect_to("s", SOCK_STREAM));
        OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n));
        CHECK_EQ(c.pid, getppid());
        gate_wait(g[0]);
    }
    int s = OK(accept(l, 0, 0));
    OK(getsockopt(s, SOL_SOCKET, SO_PEERCRED, &c, &n));
    CHECK_EQ(c.pid, p);
    CHECK_EQ(c.gid, getgid());
    gate_open(g[1]);
    JOIN(p);
}

TEST(socket_options) {
    pair(SOCK_STREAM);
    int v;
    socklen_t n = sizeof v;
    OK(getsockopt(sv[0], SOL_SOCKET, SO_TYPE, &v, &n));
    CHECK_EQ(v, SOCK_STREAM);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_DOMAIN, &v, &n));
    CHECK_EQ(v, AF_UNIX);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_PROTOCOL, &v, &n));
    CHECK_EQ(v, 0);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_ERROR, &v, &n));
    CHECK_EQ(v, 0);
    OK(getsockopt(sv[0], SOL_SOCKET, SO_ACCEPTCONN, &v, &n));
    CHECK_EQ(v, 0);
    v = 10000;
    OK(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
    OK(getsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &v, &n));
    CHECK_EQ(v, 20000); // doubled
    CHECK_ERRNO(getsockopt(sv[0], SOL_SOCKET, 9999, &v, &n), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &v, 1), EINVAL);
    n = 2;
    OK(getsockopt(sv[0], SOL_SOCKET, SO_TYPE, &v, &n));
    CHECK_EQ(n, 2); // cut to what fits
    int p[2];
    OK(pipe(p));
    CHECK_ERRNO(getsockopt(p[0], SOL_SOCKET, SO_TYPE, &v, &n), ENOTSOCK);
    CHECK_ERRNO(getsockopt(999, SOL_SOCKET, SO_TYPE, &v, &n), EBADF);
}

TEST(receive_timeout) {
    pair(SOCK_STREAM);
    struct timeval tv = {0, 20000};
    char b;
    OK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    int64_t t = now_ms();
    CHECK_ERRNO(recv(sv[0], &b, 1, 0), EAGAIN);
    CHECK(now_ms() - t >= 15);
    tv = (struct timeval){0, 2000000};
    CHECK_ERRNO(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), EDOM);
}

TEST(poll_states) {
    pair(SOCK_STREAM);
    struct pollfd p = {sv[0], POLLIN | POLLOUT | POLLRDHUP, 0};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLOUT);
    OK(write(sv[1], "x", 1));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN | POLLOUT);
    OK(close(sv[1]));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    p.fd = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLOUT | POLLHUP); // unconnected
}

TEST(message_vectors_and_sizes) {
    pair(SOCK_DGRAM);
    struct iovec v[3] = {{"ab", 2}, {"", 0}, {"cd", 2}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
    CHECK_EQ(sendmsg(sv[0], &m, 0), 4);
    char a[1], b[10];
    struct iovec r[2] = {{a, 1}, {b, 10}};
    m = (struct msghdr){.msg_iov = r, .msg_iovlen = 2};
    CHECK_EQ(recvmsg(sv[1], &m, 0), 4);
    CHECK_MEM(b, "bcd", 3);
    m.msg_iovlen = 1025;
    CHECK_ERRNO(sendmsg(sv[0], &m, 0), EMSGSIZE);
    CHECK_ERRNO(sendmsg(sv[0], (void *)8, 0), EFAULT);
    struct mmsghdr mm[3] = {{{.msg_iov = v, .msg_iovlen = 1}, 0}, {{.msg_iov = v + 2, .msg_iovlen = 1}, 0}, {{.msg_iov = v, .msg_iovlen = 3}, 0}};
    CHECK_EQ(sendmmsg(sv[0], mm, 3, 0), 3);
    CHECK_EQ(mm[2].msg_len, 4);
    struct iovec w[3] = {{b, 2}, {b + 2, 2}, {b + 4, 6}};
    struct mmsghdr rr[3] = {{{.msg_iov = w, .msg_iovlen = 1}, 0}, {{.msg_iov = w + 1, .msg_iovlen = 1}, 0}, {{.msg_iov = w + 2, .msg_iovlen = 1}, 0}};
    CHECK_EQ(recvmmsg(sv[1], rr, 3, 0, 0), 3);
    CHECK_MEM(b, "abcdabcd", 8);
}

TEST(socket_creation_errnos) {
    CHECK_ERRNO(socket(AF_UNIX, 99, 0), EINVAL);
    CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM, 77), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(9999, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(socketpair(AF_INET, SOCK_STREAM, 0, sv), EOPNOTSUPP);
    CHECK_ERRNO(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8), EFAULT);
    int s = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    CHECK_EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(lseek(s, 0, SEEK_SET), ESPIPE);
}

TEST(inq_and_outq) {
    pair(SOCK_STREAM);
    int n;
    OK(write(sv[0], "abcde", 5));
    OK(ioctl(sv[1], SIOCINQ, &n));
    CHECK_EQ(n, 5);
    OK(ioctl(sv[0], SIOCOUTQ, &n));
    CHECK(n > 0);
    char b[8];
    OK(read(sv[1], b, 8));
    OK(ioctl(sv[0], SIOCOUTQ, &n));
    CHECK_EQ(n, 0);
}

TEST(rename_and_unlink_of_bound_socket) {
    int l = listener("s", SOCK_STREAM, 5);
    OK(rename("s", "t"));
    OK(connect_to("t", SOCK_STREAM));
    OK(link("t", "u"));
    OK(connect_to("u", SOCK_STREAM));
    OK(unlink("t")), OK(unlink("u"));
    CHECK_ERRNO(connect_to("t", SOCK_STREAM), ENOENT);
    OK(accept(l, 0, 0));
}

TEST(out_of_band_or_refused) {
    pair(SOCK_STREAM);
    if (send(sv[0], "o", 1, MSG_OOB) == -1) {
        CHECK_EQ(errno, EOPNOTSUPP);
        SKIP("no out-of-band data on unix sockets");
    }
    char b;
    CHECK_EQ(recv(sv[1], &b, 1, MSG_OOB), 1);
    CHECK_EQ(b, 'o');
    CHECK_ERRNO(recv(sv[1], &b, 1, MSG_OOB), EINVAL);
    CHECK_ERRNO(send(sv[0], "", 0, MSG_OOB), EOPNOTSUPP);
    // The last byte is out of band, and reads end before it.
    char t[16] = "";
    CHECK_EQ(send(sv[0], "abc", 3, MSG_OOB), 3);
    CHECK_EQ(send(sv[0], "de", 2, 0), 2);
    struct pollfd p = {.fd = sv[1], .events = POLLPRI};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(recv(sv[1], t, 16, 0), 2);
    CHECK_MEM(t, "ab", 2);
    int mark = 0;
    OK(ioctl(sv[1], 0x8905 /* SIOCATMARK */, &mark));
    CHECK_EQ(mark, 1);
    CHECK_EQ(recv(sv[1], &b, 1, MSG_OOB | MSG_PEEK), 1);
    CHECK_EQ(recv(sv[1], &b, 1, MSG_OOB), 1);
    CHECK_EQ(b, 'c');
    CHECK_EQ(recv(sv[1], t, 16, 0), 2);
    CHECK_MEM(t, "de", 2);
    // One that nobody asks for is lost, or with SO_OOBINLINE a byte like others.
    CHECK_EQ(send(sv[0], "x", 1, MSG_OOB), 1);
    CHECK_EQ(send(sv[0], "y", 1, 0), 1);
    CHECK_EQ(recv(sv[1], t, 16, 0), 1);
    CHECK_EQ(t[0], 'y');
    int one = 1;
    OK(setsockopt(sv[1], SOL_SOCKET, SO_OOBINLINE, &one, sizeof one));
    CHECK_EQ(send(sv[0], "x", 1, MSG_OOB), 1);
    CHECK_ERRNO(recv(sv[1], &b, 1, MSG_OOB), EINVAL);
    CHECK_EQ(recv(sv[1], &b, 1, 0), 1);
    CHECK_EQ(b, 'x');
}

TEST(peeking_at_several_messages) {
    // Each too long to be gathered with another.
    pair(SOCK_STREAM);
    char big[3000], t[16384];
    for (int i = 0; i < 3; i++) {
        memset(big, 'a' + i, sizeof big);
        CHECK_EQ(send(sv[0], big, sizeof big, 0), sizeof big);
    }
    CHECK_EQ(recv(sv[1], t, sizeof t, MSG_PEEK), 9000);
    CHECK_EQ(t[0], 'a');
    CHECK_EQ(t[3000], 'b');
    CHECK_EQ(t[8999], 'c');
    CHECK_EQ(recv(sv[1], t, sizeof t, 0), 9000);
}

TEST(many_connections) {
    int l = listener("s", SOCK_STREAM, 128);
    pid_t p;
    CHILD(p) for (int i = 0; i < 300; i++) {
        int c = OK(connect_to("s", SOCK_STREAM));
        OK(write(c, &i, 4));
        int back;
        CHECK_EQ(read(c, &back, 4), 4);
        CHECK_EQ(back, i + 1);
        close(c);
    }
    for (int i = 0; i < 300; i++) {
        int s = OK(accept(l, 0, 0)), v;
        CHECK_EQ(read(s, &v, 4), 4);
        v++;
        OK(write(s, &v, 4));
        close(s);
    }
    JOIN(p);
}
