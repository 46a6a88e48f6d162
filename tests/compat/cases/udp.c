// UDP on loopback, ICMP errors, multicast.
#include "compat.h"
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>

static struct sockaddr_in addr_of(int s) {
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    OK(getsockname(s, (void *)&a, &n));
    return a;
}
static int bound(void) {
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    OK(bind(s, (void *)&a, sizeof a));
    return s;
}
static ssize_t to(int s, const void *b, size_t n, struct sockaddr_in a) { return sendto(s, b, n, 0, (void *)&a, sizeof a); }

TEST(send_and_receive) {
    int a = bound(), b = bound();
    struct sockaddr_in from;
    socklen_t n = sizeof from;
    char buf[16] = {0};
    CHECK_EQ(to(a, "hello", 5, addr_of(b)), 5);
    CHECK_EQ(recvfrom(b, buf, 16, 0, (void *)&from, &n), 5);
    CHECK_STR(buf, "hello");
    CHECK_EQ(from.sin_port, addr_of(a).sin_port);
    CHECK_EQ(n, sizeof from);
    CHECK_EQ(to(b, "", 0, from), 0);
    CHECK_EQ(recv(a, buf, 16, 0), 0);
}

TEST(boundaries_and_truncation) {
    int a = bound(), b = bound();
    char buf[4];
    to(a, "abcdef", 6, addr_of(b)), to(a, "xy", 2, addr_of(b));
    struct iovec v = {buf, 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK_EQ(recvmsg(b, &m, 0), 4);
    CHECK(m.msg_flags & MSG_TRUNC);
    CHECK_EQ(recv(b, buf, 4, 0), 2);
    to(a, "abcdef", 6, addr_of(b));
    CHECK_EQ(recv(b, buf, 4, MSG_PEEK | MSG_TRUNC), 6);
    CHECK_EQ(recv(b, buf, 4, 0), 4);
}

TEST(connected) {
    int a = bound(), b = bound(), c = bound();
    struct sockaddr_in ab = addr_of(b), p;
    socklen_t n = sizeof p;
    char buf[8];
    OK(connect(a, (void *)&ab, sizeof ab));
    OK(getpeername(a, (void *)&p, &n));
    CHECK_EQ(p.sin_port, ab.sin_port);
    OK(write(a, "x", 1));
    CHECK_EQ(read(b, buf, 8), 1);
    to(c, "stranger", 8, addr_of(a)); // is not delivered
    to(b, "friend", 6, addr_of(a));
    CHECK_EQ(read(a, buf, 8), 6);
    CHECK_EQ(to(a, "y", 1, addr_of(c)), 1); // an address overrides
    CHECK_EQ(read(c, buf, 8), 1);
    struct sockaddr u = {.sa_family = AF_UNSPEC};
    OK(connect(a, &u, sizeof u));
    CHECK_ERRNO(getpeername(a, (void *)&p, &n), ENOTCONN);
    CHECK_ERRNO(send(a, "x", 1, 0), EDESTADDRREQ);
}

TEST(connection_refused) {
    int a = bound(), gone = bound();
    struct sockaddr_in at = addr_of(gone);
    OK(close(gone));
    OK(connect(a, (void *)&at, sizeof at));
    OK(send(a, "x", 1, 0));
    struct pollfd p = {a, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK(p.revents & POLLERR);
    char c;
    CHECK_ERRNO(recv(a, &c, 1, 0), ECONNREFUSED);
    CHECK_ERRNO(recv(a, &c, 1, MSG_DONTWAIT), EAGAIN);
    // Without a connection nobody is told.
    int b = bound();
    CHECK_EQ(to(b, "x", 1, at), 1);
    usleep(1000);
    CHECK_EQ(to(b, "x", 1, at), 1);
}

TEST(implicit_bind) {
    int a = OK(socket(AF_INET, SOCK_DGRAM, 0)), b = bound();
    CHECK_EQ(addr_of(a).sin_port, 0);
    to(a, "x", 1, addr_of(b));
    CHECK(addr_of(a).sin_port);
    int c = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in d = addr_of(b);
    OK(connect(c, (void *)&d, sizeof d));
    CHECK_EQ(addr_of(c).sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    CHECK(addr_of(c).sin_port);
}

TEST(conflicts_and_reuse) {
    int a = bound(), b = OK(socket(AF_INET, SOCK_DGRAM, 0)), on = 1;
    struct sockaddr_in at = addr_of(a);
    CHECK_ERRNO(bind(b, (void *)&at, sizeof at), EADDRINUSE);
    int c = OK(socket(AF_INET, SOCK_DGRAM, 0)), d = OK(socket(AF_INET, SOCK_DGRAM, 0));
    OK(setsockopt(c, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    OK(setsockopt(d, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    struct sockaddr_in any = {.sin_family = AF_INET};
    OK(bind(c, (void *)&any, sizeof any));
    any = addr_of(c);
    OK(bind(d, (void *)&any, sizeof any));
}

TEST(specific_address_wins) {
    int any = OK(socket(AF_INET, SOCK_DGRAM, 0)), on = 1, spec = OK(socket(AF_INET, SOCK_DGRAM, 0)), s = bound();
    OK(setsockopt(any, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    OK(setsockopt(spec, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    struct sockaddr_in a = {.sin_family = AF_INET};
    OK(bind(any, (void *)&a, sizeof a));
    a.sin_port = addr_of(any).sin_port;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    OK(bind(spec, (void *)&a, sizeof a));
    to(s, "x", 1, a);
    char c;
    CHECK_EQ(recv(spec, &c, 1, 0), 1);
    CHECK_ERRNO(recv(any, &c, 1, MSG_DONTWAIT), EAGAIN);
}

TEST(sizes) {
    int a = bound(), b = bound();
    static char big[70000], got[70000];
    for (int i = 0; i < 65507; i++) big[i] = i * 13;
    CHECK_EQ(to(a, big, 65507, addr_of(b)), 65507);
    CHECK_EQ(recv(b, got, sizeof got, 0), 65507);
    CHECK_MEM(big, got, 65507);
    CHECK_ERRNO(to(a, big, 65508, addr_of(b)), EMSGSIZE);
}

TEST(full_buffer_drops) {
    int a = bound(), b = bound(), size = 4096, n = 0;
    OK(setsockopt(b, SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
    static char d[1000];
    for (int i = 0; i < 100; i++) CHECK_EQ(to(a, d, sizeof d, addr_of(b)), 1000);
    while (recv(b, d, sizeof d, MSG_DONTWAIT) == 1000) n++;
    CHECK_V(n >= 1 && n < 100, n);
}

TEST(poll_and_ioctl) {
    int a = bound(), b = bound(), n;
    struct pollfd p = {b, POLLIN | POLLOUT, 0};
    CHECK_EQ(poll(&p, 1, 0), 1);
    CHECK_EQ(p.revents, POLLOUT);
    to(a, "abc", 3, addr_of(b)), to(a, "de", 2, addr_of(b));
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK_EQ(p.revents, POLLIN | POLLOUT);
    OK(ioctl(b, FIONREAD, &n));
    CHECK_EQ(n, 3); // the next datagram's
}

TEST(shutdown_and_blocked_reader) {
    int a = bound(), b = bound();
    struct sockaddr_in at = addr_of(b);
    OK(connect(a, (void *)&at, sizeof at));
    pid_t p;
    CHILD(p) {
        char c;
        CHECK_EQ(recv(a, &c, 1, 0), 0);
    }
    wait_asleep(p);
    OK(shutdown(a, SHUT_RD));
    JOIN(p);
    OK(shutdown(a, SHUT_WR));
    CHECK_ERRNO(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_ERRNO(shutdown(OK(socket(AF_INET, SOCK_DGRAM, 0)), SHUT_RD), ENOTCONN);
}

TEST(many_messages) {
    int a = bound(), b = bound();
    struct sockaddr_in at = addr_of(b);
    OK(connect(a, (void *)&at, sizeof at));
    struct mmsghdr m[8] = {0};
    struct iovec v[8];
    char t[8] = "01234567", buf[8][4];
    for (int i = 0; i < 8; i++) {
        v[i] = (struct iovec){t + i, 1};
        m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
    }
    CHECK_EQ(sendmmsg(a, m, 8, 0), 8);
    struct sockaddr_in from[8];
    for (int i = 0; i < 8; i++) {
        v[i] = (struct iovec){buf[i], 4};
        m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1, .msg_name = &from[i], .msg_namelen = sizeof from[i]};
    }
    CHECK_EQ(recvmmsg(b, m, 5, 0, 0), 5);
    CHECK_EQ(recvmmsg(b, m + 5, 3, MSG_WAITFORONE, 0), 3);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(m[i].msg_len, 1);
        CHECK_EQ(buf[i][0], t[i]);
        CHECK_EQ(from[i].sin_port, addr_of(a).sin_port);
    }
    CHECK_ERRNO(recvmmsg(b, m, 1, MSG_DONTWAIT, 0), EAGAIN);
}

TEST(pktinfo_and_ttl) {
    int a = bound(), b = bound(), on = 1;
    OK(setsockopt(b, IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
    OK(setsockopt(b, IPPROTO_IP, IP_RECVTTL, &on, sizeof on));
    to(a, "x", 1, addr_of(b));
    char c, ctl[256];
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
    CHECK_EQ(recvmsg(b, &m, 0), 1);
    int seen = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        CHECK_EQ(h->cmsg_level, IPPROTO_IP);
        if (h->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *i = (void *)CMSG_DATA(h);
            CHECK_EQ(i->ipi_addr.s_addr, htonl(INADDR_LOOPBACK));
            CHECK_EQ(i->ipi_ifindex, if_nametoindex("lo"));
            seen |= 1;
        } else if (h->cmsg_type == IP_TTL) {
            CHECK_EQ(*(int *)CMSG_DATA(h), 64);
            seen |= 2;
        }
    }
    CHECK_EQ(seen, 3);
}

TEST(multicast_loop) {
    int a = OK(socket(AF_INET, SOCK_DGRAM, 0)), b = OK(socket(AF_INET, SOCK_DGRAM, 0)), on = 1;
    OK(setsockopt(a, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    struct sockaddr_in any = {.sin_family = AF_INET};
    OK(bind(a, (void *)&any, sizeof any));
    struct ip_mreq r = {{inet_addr("239.1.2.3")}, {htonl(INADDR_LOOPBACK)}};
    OK(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    CHECK_ERRNO(setsockopt(a, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r), EADDRINUSE);
    struct in_addr lo = {htonl(INADDR_LOOPBACK)};
    OK(setsockopt(b, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo));
    struct sockaddr_in to_group = {.sin_family = AF_INET, .sin_port = addr_of(a).sin_port, .sin_addr = r.imr_multiaddr};
    CHECK_EQ(to(b, "multi", 5, to_group), 5);
    char c[8];
    struct pollfd p = {a, POLLIN, 0};
    CHECK_EQ(poll(&p, 1, 9000), 1);
    CHECK_EQ(recv(a, c, 8, 0), 5);
    OK(setsockopt(a, IPPROTO_IP, IP_DROP_MEMBERSHIP, &r, sizeof r));
    CHECK_ERRNO(setsockopt(a, IPPROTO_IP, IP_DROP_MEMBERSHIP, &r, sizeof r), EADDRNOTAVAIL);
    unsigned char loop = 9;
    socklen_t n = 1;
    OK(getsockopt(b, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, &n));
    CHECK_EQ(loop, 1);
    OK(getsockopt(b, IPPROTO_IP, IP_MULTICAST_TTL, &loop, &n));
    CHECK_EQ(loop, 1);
}

TEST(broadcast_needs_permission) {
    int a = bound();
    struct sockaddr_in bc = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = INADDR_BROADCAST};
    ssize_t n = to(a, "x", 1, bc);
    CHECK_V(n == -1 && (errno == EACCES || errno == ENETUNREACH), errno);
}

TEST(ipv6) {
    int a = socket(AF_INET6, SOCK_DGRAM, 0);
    if (a < 0 && errno == EAFNOSUPPORT) SKIP("no IPv6");
    struct sockaddr_in6 s = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, from;
    socklen_t n = sizeof s;
    int b = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    OK(bind(a, (void *)&s, sizeof s));
    OK(getsockname(a, (void *)&s, &n));
    CHECK_EQ(sendto(b, "six", 3, 0, (void *)&s, sizeof s), 3);
    char c[4];
    CHECK_EQ(recvfrom(a, c, 4, 0, (void *)&from, &n), 3);
    CHECK(IN6_IS_ADDR_LOOPBACK(&from.sin6_addr));
    // Mapped: an IPv6 socket talks to an IPv4 one.
    int d = bound();
    struct sockaddr_in6 m = {.sin6_family = AF_INET6, .sin6_port = addr_of(d).sin_port};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &m.sin6_addr);
    int e = OK(socket(AF_INET6, SOCK_DGRAM, 0));
    CHECK_EQ(sendto(e, "4", 1, 0, (void *)&m, sizeof m), 1);
    CHECK_EQ(recv(d, c, 4, 0), 1);
}

TEST(errnos) {
    int a = OK(socket(AF_INET, SOCK_DGRAM, 0));
    CHECK_ERRNO(send(a, "x", 1, 0), EDESTADDRREQ);
    CHECK_ERRNO(listen(a, 1), EOPNOTSUPP);
    CHECK_ERRNO(accept(a, 0, 0), EOPNOTSUPP);
    struct sockaddr_in z = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_ERRNO(to(a, "x", 1, z), EINVAL); // port 0
    CHECK_ERRNO(sendto(a, "x", 1, 0, (void *)&z, 4), EINVAL);
    z.sin_family = 77;
    CHECK_ERRNO(to(a, "x", 1, z), EAFNOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    CHECK_ERRNO(socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
}

TEST(timestamps) {
    int a = bound(), b = bound(), on = 1;
    OK(setsockopt(b, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on));
    to(a, "x", 1, addr_of(b));
    char c, ctl[128];
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof ctl};
    CHECK_EQ(recvmsg(b, &m, 0), 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    CHECK(h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_TIMESTAMP);
    struct timeval *tv = (void *)CMSG_DATA(h);
    CHECK_V(labs(tv->tv_sec - time(0)) <= 10, tv->tv_sec);
}
