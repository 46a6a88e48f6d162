// TCP on loopback.
#include "compat.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static struct sockaddr_in at; // where the last listener is
static int listen_on(int backlog) {
    socklen_t n = sizeof at;
    at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int l = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(bind(l, (void *)&at, sizeof at));
    OK(listen(l, backlog));
    OK(getsockname(l, (void *)&at, &n));
    return l;
}
static int dial(int flags) {
    int c = OK(socket(AF_INET, SOCK_STREAM | flags, 0));
    if (connect(c, (void *)&at, sizeof at) && errno != EINPROGRESS) {
        int e = errno;
        close(c);
        errno = e;
        return -1;
    }
    return c;
}
static int sv[2];
static void pair(void) {
    int l = listen_on(5);
    sv[0] = OK(dial(0));
    sv[1] = OK(accept(l, 0, 0));
    close(l);
}
// A port that nobody listens on.
static void closed_port(void) { close(listen_on(1)); }

static bool wait_event(int fd, short events, short *revents) {
    struct pollfd p = {fd, events, 0};
    int r = poll(&p, 1, 9000);
    if (revents) *revents = p.revents;
    return r == 1;
}
static int option(int s, int level, int name) {
    int v = -1;
    socklen_t n = sizeof v;
    OK(getsockopt(s, level, name, &v, &n));
    CHECK_EQ(n, 4);
    return v;
}
static void set(int s, int level, int name, int v) { OK(setsockopt(s, level, name, &v, sizeof v)); }

TEST(connect_accept_names) {
    int l = listen_on(5), c = OK(dial(0));
    struct sockaddr_in a, b;
    socklen_t n = sizeof a;
    int s = OK(accept4(l, (void *)&a, &n, SOCK_CLOEXEC | SOCK_NONBLOCK));
    CHECK_EQ(n, sizeof a);
    CHECK_EQ(fcntl(s, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(s, F_GETFL) & O_NONBLOCK);
    OK(getsockname(c, (void *)&b, &n));
    CHECK(a.sin_port == b.sin_port && a.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    OK(getpeername(c, (void *)&b, &n));
    CHECK_EQ(b.sin_port, at.sin_port);
    OK(getsockname(s, (void *)&b, &n));
    CHECK_EQ(b.sin_port, at.sin_port);
    OK(getpeername(s, (void *)&b, &n));
    CHECK_EQ(b.sin_port, a.sin_port);
    CHECK_ERRNO(getpeername(l, (void *)&b, &n), ENOTCONN);
}

TEST(port_zero_picks_one) {
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    OK(getsockname(s, (void *)&a, &n));
    CHECK_EQ(a.sin_port, 0);
    OK(bind(s, (void *)&a, sizeof a));
    OK(getsockname(s, (void *)&a, &n));
    CHECK(a.sin_port);
    // listen without bind picks one, too.
    int t = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(listen(t, 1));
    OK(getsockname(t, (void *)&a, &n));
    CHECK(a.sin_port);
    CHECK_EQ(a.sin_addr.s_addr, 0);
    at = a;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(dial(0));
}

TEST(data_both_ways) {
    pair();
    char b[8] = {0};
    OK(write(sv[0], "ping", 4));
    CHECK_EQ(read(sv[1], b, 8), 4);
    CHECK_STR(b, "ping");
    OK(send(sv[1], "pong", 4, 0));
    CHECK_EQ(recv(sv[0], b, 8, 0), 4);
    CHECK_ERRNO(recv(sv[0], b, 8, MSG_DONTWAIT), EAGAIN);
}

TEST(bind_conflicts) {
    int l = listen_on(1), s = OK(socket(AF_INET, SOCK_STREAM, 0));
    CHECK_ERRNO(bind(s, (void *)&at, sizeof at), EADDRINUSE);
    struct sockaddr_in any = at, far = at;
    any.sin_addr.s_addr = 0;
    CHECK_ERRNO(bind(s, (void *)&any, sizeof any), EADDRINUSE);
    far.sin_addr.s_addr = inet_addr("8.8.8.8");
    CHECK_ERRNO(bind(s, (void *)&far, sizeof far), EADDRNOTAVAIL);
    far = at;
    far.sin_addr.s_addr = inet_addr("127.0.0.2");
    OK(bind(s, (void *)&far, sizeof far)); // another address of 127/8
    CHECK_ERRNO(bind(s, (void *)&far, sizeof far), EINVAL);
    CHECK_ERRNO(bind(OK(socket(AF_INET, SOCK_STREAM, 0)), (void *)&at, 8), EINVAL);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    CHECK_ERRNO(bind(OK(socket(AF_INET, SOCK_STREAM, 0)), (void *)&six, sizeof six), EAFNOSUPPORT);
    close(l);
}

TEST(reuseaddr) {
    // A closed connection in TIME_WAIT blocks the port unless SO_REUSEADDR is set.
    // Both users of the port must have set it.
    int l = listen_on(5);
    set(l, SOL_SOCKET, SO_REUSEADDR, 1);
    int c = OK(dial(0)), s = OK(accept(l, 0, 0));
    OK(close(s)); // closes first: TIME_WAIT is on this side
    char b;
    CHECK_EQ(read(c, &b, 1), 0);
    OK(close(c)), OK(close(l));
    int t = OK(socket(AF_INET, SOCK_STREAM, 0));
    set(t, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_EQ(option(t, SOL_SOCKET, SO_REUSEADDR), 1);
    OK(bind(t, (void *)&at, sizeof at));
    OK(listen(t, 1));
    int u = OK(socket(AF_INET, SOCK_STREAM, 0));
    set(u, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK_ERRNO(bind(u, (void *)&at, sizeof at), EADDRINUSE); // not over a listener
}

TEST(reuseport) {
    int a = OK(socket(AF_INET, SOCK_STREAM, 0)), b = OK(socket(AF_INET, SOCK_STREAM, 0));
    set(a, SOL_SOCKET, SO_REUSEPORT, 1);
    set(b, SOL_SOCKET, SO_REUSEPORT, 1);
    at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    OK(bind(a, (void *)&at, sizeof at));
    OK(getsockname(a, (void *)&at, &n));
    OK(bind(b, (void *)&at, sizeof at));
    OK(listen(a, 64)), OK(listen(b, 64));
    for (int i = 0; i < 20; i++) OK(dial(0));
    int got = 0;
    OK(fcntl(a, F_SETFL, O_NONBLOCK)), OK(fcntl(b, F_SETFL, O_NONBLOCK));
    while (accept(a, 0, 0) >= 0) got++;
    while (accept(b, 0, 0) >= 0) got++;
    CHECK_EQ(got, 20);
    int c = OK(socket(AF_INET, SOCK_STREAM, 0));
    CHECK_ERRNO(bind(c, (void *)&at, sizeof at), EADDRINUSE);
}

TEST(connection_refused) {
    closed_port();
    CHECK_ERRNO(dial(0), ECONNREFUSED);
    int c = OK(dial(SOCK_NONBLOCK));
    short ev;
    CHECK(wait_event(c, POLLOUT, &ev));
    CHECK_EQ(ev, POLLOUT | POLLERR | POLLHUP);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), 0); // cleared by reading
}

TEST(nonblocking_connect) {
    int l = listen_on(5), c = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    int r = connect(c, (void *)&at, sizeof at);
    CHECK_V(r == 0 || errno == EINPROGRESS, errno);
    short ev;
    CHECK(wait_event(c, POLLIN | POLLOUT, &ev));
    CHECK_EQ(ev, POLLOUT);
    CHECK_EQ(option(c, SOL_SOCKET, SO_ERROR), 0);
    r = connect(c, (void *)&at, sizeof at); // the first one after reports success once
    CHECK_V(r == 0 || errno == EISCONN, errno);
    CHECK_ERRNO(connect(c, (void *)&at, sizeof at), EISCONN);
    CHECK(wait_event(l, POLLIN, 0));
    OK(accept(l, 0, 0));
}

TEST(connect_to_any_is_loopback) {
    int l = listen_on(5);
    at.sin_addr.s_addr = 0;
    OK(dial(0));
    OK(accept(l, 0, 0));
}

TEST(accept_states) {
    int l = listen_on(5);
    OK(fcntl(l, F_SETFL, O_NONBLOCK));
    CHECK_ERRNO(accept(l, 0, 0), EAGAIN);
    struct pollfd p = {l, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&p, 1, 0), 0);
    int c = OK(dial(0));
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK_EQ(p.revents, POLLIN);
    CHECK_EQ(option(l, SOL_SOCKET, SO_ACCEPTCONN), 1);
    int s = OK(accept(l, 0, 0));
    CHECK_EQ(fcntl(s, F_GETFL) & O_NONBLOCK, 0); // not inherited
    CHECK_ERRNO(accept(c, 0, 0), EINVAL);
    CHECK_ERRNO(accept(0, 0, 0), ENOTSOCK);
    CHECK_ERRNO(read(l, &p, 1), ENOTCONN);
    CHECK_ERRNO(accept4(l, 0, 0, 0x1), EINVAL);
    CHECK_ERRNO(connect(l, (void *)&at, sizeof at), EISCONN);
    OK(listen(l, 10)); // changes the backlog
}

TEST(accept_wakes_up) {
    int l = listen_on(5);
    pid_t p;
    CHILD(p) OK(accept(l, 0, 0));
    wait_asleep(p);
    OK(dial(0));
    JOIN(p);
}

TEST(shutdown_of_a_listener) {
    int l = listen_on(5);
    pid_t p;
    CHILD(p) CHECK_ERRNO(accept(l, 0, 0), EINVAL);
    wait_asleep(p);
    OK(shutdown(l, SHUT_RDWR));
    JOIN(p);
    CHECK_ERRNO(dial(0), ECONNREFUSED);
    OK(listen(l, 5)); // and again: the port was the kernel's choice, and may be another one now
    socklen_t n = sizeof at;
    OK(getsockname(l, (void *)&at, &n));
    OK(dial(0));
}

TEST(half_close) {
    pair();
    char b[8];
    short ev;
    OK(shutdown(sv[0], SHUT_WR));
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_EQ(read(sv[1], b, 8), 0);
    CHECK(wait_event(sv[1], POLLIN | POLLRDHUP, &ev));
    CHECK_EQ(ev, POLLIN | POLLRDHUP);
    OK(write(sv[1], "later", 5));
    CHECK_EQ(read(sv[0], b, 8), 5);
    OK(shutdown(sv[1], SHUT_WR));
    CHECK_EQ(read(sv[0], b, 8), 0);
    CHECK(wait_event(sv[0], POLLIN | POLLOUT | POLLRDHUP, &ev));
    CHECK_EQ(ev, POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    CHECK_ERRNO(shutdown(sv[0], 7), EINVAL);
    CHECK_ERRNO(shutdown(OK(socket(AF_INET, SOCK_STREAM, 0)), SHUT_WR), ENOTCONN);
}

TEST(shutdown_read) {
    pair();
    char b[8];
    OK(shutdown(sv[0], SHUT_RD));
    CHECK_EQ(read(sv[0], b, 8), 0);
    OK(write(sv[1], "abc", 3)); // is accepted all the same
    CHECK(wait_event(sv[0], POLLIN, 0));
}

TEST(close_with_unread_data_resets) {
    pair();
    char b[8];
    OK(write(sv[0], "unread", 6));
    CHECK(wait_event(sv[1], POLLIN, 0));
    OK(close(sv[1]));
    short ev;
    CHECK(wait_event(sv[0], POLLIN, &ev));
    CHECK_EQ(ev & (POLLERR | POLLHUP), POLLERR | POLLHUP);
    CHECK_ERRNO(read(sv[0], b, 8), ECONNRESET);
    CHECK_EQ(read(sv[0], b, 8), 0); // the error is reported once
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
}

TEST(write_after_peer_closed) {
    pair();
    OK(close(sv[1]));
    char b;
    CHECK_EQ(read(sv[0], &b, 1), 0);
    CHECK_EQ(send(sv[0], "x", 1, MSG_NOSIGNAL), 1); // the first one goes out, and is answered by a reset
    for (int i = 0; i < 2000 && !wait_event(sv[0], POLLERR, 0); i++) {}
    CHECK_ERRNO(send(sv[0], "x", 1, MSG_NOSIGNAL), EPIPE);
    pid_t p;
    CHILD(p) {
        signal(SIGPIPE, SIG_DFL);
        (void)!write(sv[0], "x", 1);
    }
    CHECK_EQ(WAIT(p), SIGPIPE);
}

TEST(linger_zero_resets) {
    pair();
    struct linger l = {1, 0};
    OK(setsockopt(sv[1], SOL_SOCKET, SO_LINGER, &l, sizeof l));
    OK(close(sv[1]));
    char b;
    CHECK(wait_event(sv[0], POLLIN, 0));
    CHECK_ERRNO(read(sv[0], &b, 1), ECONNRESET);
    struct linger g;
    socklen_t n = sizeof g;
    OK(getsockopt(sv[0], SOL_SOCKET, SO_LINGER, &g, &n));
    CHECK_EQ(g.l_onoff, 0);
}

TEST(data_survives_close) {
    pair();
    OK(write(sv[0], "the end", 7));
    OK(close(sv[0]));
    char b[16];
    CHECK_EQ(recv(sv[1], b, 7, MSG_WAITALL), 7);
    CHECK_EQ(read(sv[1], b, 8), 0);
}

TEST(unaccepted_connection_closes) {
    int l = listen_on(5), c = OK(dial(0));
    OK(write(c, "x", 1));
    OK(close(l));
    char b;
    CHECK(wait_event(c, POLLIN, 0));
    CHECK_ERRNO(read(c, &b, 1), ECONNRESET);
}

TEST(client_that_left_is_accepted) {
    int l = listen_on(5), c = OK(dial(0));
    OK(write(c, "hello", 5));
    OK(close(c));
    int s = OK(accept(l, 0, 0));
    char b[8];
    CHECK_EQ(recv(s, b, 5, MSG_WAITALL), 5);
    CHECK_EQ(read(s, b, 8), 0);
}

TEST(peek_waitall_trunc) {
    pair();
    char b[8] = {0};
    OK(write(sv[0], "abc", 3));
    CHECK(wait_event(sv[1], POLLIN, 0));
    CHECK_EQ(recv(sv[1], b, 8, MSG_PEEK), 3);
    CHECK_EQ(recv(sv[1], b, 1, 0), 1);
    CHECK_EQ(recv(sv[1], 0, 1, MSG_TRUNC), 1); // thrown away
    pid_t p;
    CHILD(p) {
        CHECK_EQ(recv(sv[1], b, 4, MSG_WAITALL), 4);
        CHECK_MEM(b, "cdef", 4);
    }
    wait_asleep(p);
    OK(write(sv[0], "def", 3));
    JOIN(p);
}

TEST(urgent_data) {
    pair();
    char b[8];
    OK(send(sv[0], "ab", 2, 0));
    OK(send(sv[0], "U", 1, MSG_OOB));
    OK(send(sv[0], "cd", 2, 0));
    struct pollfd p = {sv[1], POLLPRI, 0};
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK_EQ(p.revents, POLLPRI);
    CHECK_EQ(recv(sv[1], b, 1, MSG_OOB), 1);
    CHECK_EQ(b[0], 'U');
    CHECK_EQ(recv(sv[1], b, 8, 0), 2); // stops at the mark
    int mark = 0;
    OK(ioctl(sv[1], SIOCATMARK, &mark));
    CHECK_EQ(mark, 1);
    CHECK_EQ(recv(sv[1], b, 8, 0), 2);
    CHECK_MEM(b, "cd", 2);
    CHECK_ERRNO(recv(sv[1], b, 1, MSG_OOB), EINVAL);
}

TEST(option_defaults) {
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    CHECK_EQ(option(s, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    CHECK_EQ(option(s, SOL_SOCKET, SO_DOMAIN), AF_INET);
    CHECK_EQ(option(s, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    CHECK_EQ(option(s, SOL_SOCKET, SO_KEEPALIVE), 0);
    CHECK_EQ(option(s, SOL_SOCKET, SO_BROADCAST), 0);
    CHECK_EQ(option(s, SOL_SOCKET, SO_REUSEADDR), 0);
    CHECK_EQ(option(s, SOL_SOCKET, SO_ACCEPTCONN), 0);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_NODELAY), 0);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_CORK), 0);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_KEEPIDLE), 7200);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_KEEPINTVL), 75);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_KEEPCNT), 9);
    CHECK_EQ(option(s, IPPROTO_IP, IP_TTL), 64);
    CHECK_EQ(option(s, IPPROTO_IP, IP_TOS), 0);
    CHECK(option(s, SOL_SOCKET, SO_RCVBUF) > 10000);
    CHECK(option(s, SOL_SOCKET, SO_SNDBUF) > 10000);
}

TEST(option_changes) {
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    set(s, SOL_SOCKET, SO_KEEPALIVE, 5);
    CHECK_EQ(option(s, SOL_SOCKET, SO_KEEPALIVE), 1);
    set(s, IPPROTO_TCP, TCP_NODELAY, 1);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_NODELAY), 1);
    set(s, IPPROTO_TCP, TCP_KEEPIDLE, 100);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_KEEPIDLE), 100);
    set(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_USER_TIMEOUT), 5000);
    set(s, SOL_SOCKET, SO_RCVBUF, 20000);
    CHECK_EQ(option(s, SOL_SOCKET, SO_RCVBUF), 40000);
    set(s, SOL_SOCKET, SO_SNDBUF, 1);
    CHECK(option(s, SOL_SOCKET, SO_SNDBUF) >= 2048); // a minimum
    set(s, IPPROTO_IP, IP_TTL, 33);
    CHECK_EQ(option(s, IPPROTO_IP, IP_TTL), 33);
    set(s, IPPROTO_IP, IP_TOS, 0x10);
    CHECK_EQ(option(s, IPPROTO_IP, IP_TOS), 0x10);
    int v = 1;
    CHECK_ERRNO(setsockopt(s, IPPROTO_TCP, 9999, &v, 4), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(s, 9999, 1, &v, 4), ENOPROTOOPT);
    CHECK_ERRNO(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &v, 2), EINVAL);
    CHECK_ERRNO(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, (void *)8, 4), EFAULT);
    v = 0;
    CHECK_ERRNO(setsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &v, 4), EINVAL);
    v = 300;
    CHECK_ERRNO(setsockopt(s, IPPROTO_IP, IP_TTL, &v, 4), EINVAL);
    v = SOCK_STREAM;
    CHECK_ERRNO(setsockopt(s, SOL_SOCKET, SO_TYPE, &v, 4), ENOPROTOOPT);
}

TEST(options_pass_to_accepted) {
    int l = listen_on(5);
    set(l, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(l, IPPROTO_TCP, TCP_NODELAY, 1);
    OK(dial(0));
    int s = OK(accept(l, 0, 0));
    CHECK_EQ(option(s, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_EQ(option(s, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_EQ(option(s, SOL_SOCKET, SO_ACCEPTCONN), 0);
}

TEST(tcp_info_states) {
    int l = listen_on(5);
    struct tcp_info i;
    socklen_t n = sizeof i;
    OK(getsockopt(l, IPPROTO_TCP, TCP_INFO, &i, &n));
    CHECK_EQ(i.tcpi_state, TCP_LISTEN);
    int c = OK(dial(0)), s = OK(accept(l, 0, 0));
    n = sizeof i;
    OK(getsockopt(c, IPPROTO_TCP, TCP_INFO, &i, &n));
    CHECK_EQ(i.tcpi_state, TCP_ESTABLISHED);
    CHECK(i.tcpi_snd_mss > 0);
    OK(close(s));
    char b;
    CHECK_EQ(read(c, &b, 1), 0);
    n = sizeof i;
    OK(getsockopt(c, IPPROTO_TCP, TCP_INFO, &i, &n));
    CHECK_EQ(i.tcpi_state, TCP_CLOSE_WAIT);
    int f = OK(socket(AF_INET, SOCK_STREAM, 0));
    n = 4; // cut
    OK(getsockopt(f, IPPROTO_TCP, TCP_INFO, &i, &n));
    CHECK_EQ(i.tcpi_state, TCP_CLOSE);
    CHECK_EQ(n, 4);
}

TEST(timeouts) {
    pair();
    struct timeval tv = {0, 20000}, got;
    socklen_t n = sizeof got;
    char b;
    OK(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    OK(getsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &got, &n));
    CHECK(got.tv_sec == 0 && got.tv_usec >= 20000 && got.tv_usec <= 30000);
    int64_t t = now_ms();
    CHECK_ERRNO(recv(sv[0], &b, 1, 0), EAGAIN);
    CHECK(now_ms() - t >= 15);
    OK(setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    static char big[1 << 20];
    ssize_t r;
    for (int i = 0; i < 200 && (r = send(sv[0], big, sizeof big, 0)) > 0; i++) {}
    CHECK_EQ(r, -1);
    CHECK_EQ(errno, EAGAIN);
    int l = listen_on(1);
    OK(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    CHECK_ERRNO(accept(l, 0, 0), EAGAIN);
}

TEST(nonblocking_send_fills_then_drains) {
    pair();
    static char b[1 << 16];
    OK(fcntl(sv[0], F_SETFL, O_NONBLOCK)), OK(fcntl(sv[1], F_SETFL, O_NONBLOCK));
    size_t sent = 0, got = 0;
    ssize_t r;
    while ((r = write(sv[0], b, sizeof b)) > 0) sent += r;
    CHECK_EQ(errno, EAGAIN);
    CHECK_V(sent > 50000 && sent < 64 << 20, sent);
    while (got < sent) {
        CHECK(wait_event(sv[1], POLLIN, 0));
        while ((r = read(sv[1], b, sizeof b)) > 0) got += r;
    }
    CHECK_EQ(got, sent);
    CHECK(wait_event(sv[0], POLLOUT, 0));
    CHECK(write(sv[0], b, sizeof b) > 0);
}

TEST(large_transfer_checksum) {
    pair();
    enum { TOTAL = 64 << 20, CHUNK = 1 << 18 };
    pid_t p;
    static unsigned buf[CHUNK / 4];
    CHILD(p) {
        close(sv[1]);
        unsigned x = 1;
        for (size_t n = 0; n < TOTAL; n += CHUNK) {
            for (unsigned i = 0; i < CHUNK / 4; i += 64) buf[i] = x = x * 1664525 + 1013904223;
            for (size_t k = 0; k < CHUNK;) k += OK(write(sv[0], (char *)buf + k, CHUNK - k));
        }
    }
    close(sv[0]);
    unsigned x = 1;
    size_t total = 0;
    for (;;) {
        size_t n = 0;
        ssize_t r;
        while (n < CHUNK && (r = OK(read(sv[1], (char *)buf + n, CHUNK - n))) > 0) n += r;
        if (!n) break;
        CHECK_EQ(n, CHUNK);
        for (unsigned i = 0; i < CHUNK / 4; i += 64) {
            x = x * 1664525 + 1013904223;
            CHECK_EQ(buf[i], x);
        }
        total += n;
    }
    CHECK_EQ(total, TOTAL);
    JOIN(p);
}

TEST(many_connections_at_once) {
    int l = listen_on(200), c[150], s[150];
    for (int i = 0; i < 150; i++) c[i] = OK(dial(0));
    for (int i = 0; i < 150; i++) s[i] = OK(accept(l, 0, 0));
    for (int i = 0; i < 150; i++) OK(write(s[i], &i, 4));
    int sum = 0, v;
    for (int i = 0; i < 150; i++) {
        CHECK_EQ(recv(c[i], &v, 4, MSG_WAITALL), 4);
        CHECK_EQ(v, i); // accepted in the order of connecting
        sum += v;
    }
    CHECK_EQ(sum, 149 * 75);
}

TEST(ping_pong_across_processes) {
    pair();
    pid_t p;
    CHILD(p) for (int i = 0; i < 1000; i++) {
        char b;
        CHECK_EQ(read(sv[1], &b, 1), 1);
        CHECK_EQ(write(sv[1], &b, 1), 1);
    }
    for (int i = 0; i < 1000; i++) {
        char b = i, r;
        CHECK_EQ(write(sv[0], &b, 1), 1);
        CHECK_EQ(read(sv[0], &r, 1), 1);
        CHECK_EQ(r, b);
    }
    JOIN(p);
}

TEST(connect_unspec_disconnects) {
    pair();
    struct sockaddr a = {.sa_family = AF_UNSPEC};
    OK(connect(sv[0], &a, sizeof a));
    struct sockaddr_in b;
    socklen_t n = sizeof b;
    CHECK_ERRNO(getpeername(sv[0], (void *)&b, &n), ENOTCONN);
}

TEST(simultaneous_and_self_connect) {
    // A socket connected to its own address is its own peer.
    int s = OK(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    OK(bind(s, (void *)&a, sizeof a));
    OK(getsockname(s, (void *)&a, &n));
    OK(connect(s, (void *)&a, sizeof a));
    char b[8];
    OK(write(s, "self", 4));
    CHECK_EQ(read(s, b, 8), 4);
}

TEST(inq_outq) {
    pair();
    int n;
    OK(write(sv[0], "abcde", 5));
    CHECK(wait_event(sv[1], POLLIN, 0));
    OK(ioctl(sv[1], SIOCINQ, &n));
    CHECK_EQ(n, 5);
    OK(ioctl(sv[1], FIONREAD, &n));
    CHECK_EQ(n, 5);
    int l = listen_on(1);
    CHECK_ERRNO(ioctl(l, SIOCINQ, &n), EINVAL);
}

TEST(ipv6_loopback) {
    int l = socket(AF_INET6, SOCK_STREAM, 0);
    if (l < 0 && errno == EAFNOSUPPORT) SKIP("no IPv6");
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, p;
    socklen_t n = sizeof a;
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 5));
    OK(getsockname(l, (void *)&a, &n));
    CHECK_EQ(n, sizeof a);
    int c = OK(socket(AF_INET6, SOCK_STREAM, 0));
    OK(connect(c, (void *)&a, sizeof a));
    int s = OK(accept(l, (void *)&p, &n));
    CHECK_EQ(p.sin6_family, AF_INET6);
    CHECK(IN6_IS_ADDR_LOOPBACK(&p.sin6_addr));
    char b[4];
    OK(write(c, "six", 3));
    CHECK_EQ(read(s, b, 4), 3);
    CHECK_ERRNO(bind(OK(socket(AF_INET6, SOCK_STREAM, 0)), (void *)&a, 20), EINVAL);
}

TEST(dual_stack) {
    int l = socket(AF_INET6, SOCK_STREAM, 0);
    if (l < 0 && errno == EAFNOSUPPORT) SKIP("no IPv6");
    set(l, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6}, p;
    socklen_t n = sizeof a;
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 5));
    OK(getsockname(l, (void *)&a, &n));
    at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = a.sin6_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    OK(dial(0));
    OK(accept(l, (void *)&p, &n));
    CHECK(IN6_IS_ADDR_V4MAPPED(&p.sin6_addr));
    CHECK_EQ(p.sin6_addr.s6_addr32[3], htonl(INADDR_LOOPBACK));
    CHECK_ERRNO(bind(OK(socket(AF_INET, SOCK_STREAM, 0)), (void *)&at, sizeof at), EADDRINUSE);
    // From the other side: an IPv6 socket to an IPv4 listener.
    int l4 = listen_on(5), c = OK(socket(AF_INET6, SOCK_STREAM, 0));
    struct sockaddr_in6 m = {.sin6_family = AF_INET6, .sin6_port = at.sin_port};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &m.sin6_addr);
    OK(connect(c, (void *)&m, sizeof m));
    OK(accept(l4, 0, 0));
}

TEST(v6only) {
    int l = socket(AF_INET6, SOCK_STREAM, 0);
    if (l < 0 && errno == EAFNOSUPPORT) SKIP("no IPv6");
    set(l, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    CHECK_EQ(option(l, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6};
    socklen_t n = sizeof a;
    OK(bind(l, (void *)&a, sizeof a));
    OK(listen(l, 5));
    OK(getsockname(l, (void *)&a, &n));
    at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = a.sin6_port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_ERRNO(dial(0), ECONNREFUSED);
    // The port is free there (unless an old connection happens to have it).
    int four = OK(socket(AF_INET, SOCK_STREAM, 0));
    set(four, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(four, (void *)&at, sizeof at)) {
        CHECK_EQ(errno, EADDRINUSE);
        test_v6only();
        return;
    }
    int v = 0;
    CHECK_ERRNO(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &v, 4), EINVAL); // too late
}

TEST(splice_and_sendfile_to_tcp) {
    pair();
    OK(write_file("f", "file data"));
    int fd = OK(open("f", O_RDONLY)), p[2];
    CHECK_EQ(syscall(SYS_sendfile, sv[0], fd, 0, 100), 9);
    char b[16];
    CHECK_EQ(recv(sv[1], b, 9, MSG_WAITALL), 9);
    CHECK_MEM(b, "file data", 9);
    OK(pipe(p));
    OK(write(p[1], "piped", 5));
    CHECK_EQ(splice(p[0], 0, sv[0], 0, 5, 0), 5);
    CHECK(wait_event(sv[1], POLLIN, 0));
    CHECK_EQ(splice(sv[1], 0, p[1], 0, 100, 0), 5);
    CHECK_EQ(read(p[0], b, 16), 5);
}

TEST(privileged_ports) {
    NEED_ROOT();
    char text[16];
    int first = 1024;
    if (read_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", text, sizeof text) > 0) first = atoi(text);
    if (first < 2) SKIP("all ports are unprivileged");
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(first - 1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        CHECK_ERRNO(bind(OK(socket(AF_INET, SOCK_STREAM, 0)), (void *)&a, sizeof a), EACCES);
    }
    JOIN(p);
}
