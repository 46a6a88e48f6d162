// Interfaces: rtnetlink, ioctls, getifaddrs, /proc/net.
#include "compat.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>

static char buf[1 << 16] __attribute__((aligned(8)));

static int nl(void) {
    int s = OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    OK(bind(s, (void *)&a, sizeof a));
    return s;
}
static void ask(int s, int type, int flags, int family) {
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } q = {{NLMSG_LENGTH(sizeof(struct rtgenmsg)), type, NLM_F_REQUEST | flags, 77, 0}, {family}};
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    CHECK_EQ(sendto(s, &q, sizeof q, 0, (void *)&a, sizeof a), sizeof q);
}

// Calls `f` for each message of a dump.
static int dump(int type, int family, void (*f)(struct nlmsghdr *)) {
    int s = nl(), n = 0;
    ask(s, type, NLM_F_DUMP, family);
    for (;;) {
        ssize_t r = OK(recv(s, buf, sizeof buf, 0));
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, r); h = NLMSG_NEXT(h, r)) {
            CHECK_EQ(h->nlmsg_seq, 77);
            if (h->nlmsg_type == NLMSG_DONE) {
                close(s);
                return n;
            }
            CHECK(h->nlmsg_type != NLMSG_ERROR);
            CHECK(h->nlmsg_flags & NLM_F_MULTI);
            n++;
            f(h);
        }
    }
}

static int seen;
static void is_lo_link(struct nlmsghdr *h) {
    CHECK_EQ(h->nlmsg_type, RTM_NEWLINK);
    struct ifinfomsg *i = NLMSG_DATA(h);
    int len = IFLA_PAYLOAD(h), mtu = 0;
    const char *name = "";
    for (struct rtattr *a = IFLA_RTA(i); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        if (a->rta_type == IFLA_IFNAME) name = RTA_DATA(a);
        if (a->rta_type == IFLA_MTU) mtu = *(int *)RTA_DATA(a);
    }
    if (strcmp(name, "lo")) return;
    seen = i->ifi_index;
    CHECK(i->ifi_flags & IFF_LOOPBACK);
    CHECK(i->ifi_flags & IFF_UP);
    CHECK_EQ(i->ifi_type, 772); // ARPHRD_LOOPBACK
    CHECK_EQ(mtu, 65536);
}

TEST(dump_links) {
    CHECK(dump(RTM_GETLINK, AF_UNSPEC, is_lo_link) >= 1);
    CHECK_EQ(seen, 1);
    CHECK_EQ(if_nametoindex("lo"), 1);
    char name[IF_NAMESIZE];
    CHECK(if_indextoname(1, name));
    CHECK_STR(name, "lo");
}

static void is_lo_address(struct nlmsghdr *h) {
    CHECK_EQ(h->nlmsg_type, RTM_NEWADDR);
    struct ifaddrmsg *i = NLMSG_DATA(h);
    int len = IFA_PAYLOAD(h);
    for (struct rtattr *a = IFA_RTA(i); RTA_OK(a, len); a = RTA_NEXT(a, len))
        if (i->ifa_family == AF_INET && a->rta_type == IFA_ADDRESS && *(uint32_t *)RTA_DATA(a) == htonl(INADDR_LOOPBACK)) {
            CHECK_EQ(i->ifa_prefixlen, 8);
            CHECK_EQ(i->ifa_index, 1);
            seen = 1;
        }
}

TEST(dump_addresses) {
    CHECK(dump(RTM_GETADDR, AF_INET, is_lo_address) >= 1);
    CHECK_EQ(seen, 1);
    CHECK(dump(RTM_GETADDR, AF_UNSPEC, is_lo_address) >= 1);
}

static void is_route(struct nlmsghdr *h) {
    CHECK_EQ(h->nlmsg_type, RTM_NEWROUTE);
    struct rtmsg *r = NLMSG_DATA(h);
    CHECK_EQ(r->rtm_family, AF_INET);
}
TEST(dump_routes) { dump(RTM_GETROUTE, AF_INET, is_route); }

TEST(get_one_link) {
    int s = nl();
    struct {
        struct nlmsghdr h;
        struct ifinfomsg i;
    } q = {{sizeof q, RTM_GETLINK, NLM_F_REQUEST, 5, 0}, {.ifi_index = 1}};
    OK(send(s, &q, sizeof q, 0));
    OK(recv(s, buf, sizeof buf, 0));
    struct nlmsghdr *h = (void *)buf;
    CHECK_EQ(h->nlmsg_type, RTM_NEWLINK);
    CHECK_EQ(h->nlmsg_seq, 5);
    CHECK(!(h->nlmsg_flags & NLM_F_MULTI));
    q.i.ifi_index = 9999;
    OK(send(s, &q, sizeof q, 0));
    OK(recv(s, buf, sizeof buf, 0));
    CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
    CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, -ENODEV);
}

TEST(unknown_request_is_eopnotsupp) {
    int s = nl();
    struct {
        struct nlmsghdr h;
        struct rtgenmsg g;
    } q = {{sizeof q, 999, NLM_F_REQUEST | NLM_F_ACK, 6, 0}, {0}};
    OK(send(s, &q, sizeof q, 0));
    OK(recv(s, buf, sizeof buf, 0));
    struct nlmsghdr *h = (void *)buf;
    CHECK_EQ(h->nlmsg_type, NLMSG_ERROR);
    CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->error, -EOPNOTSUPP);
    CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA(h))->msg.nlmsg_seq, 6);
}

TEST(addresses_of_netlink_sockets) {
    int s = nl(), t = nl();
    struct sockaddr_nl a, b;
    socklen_t n = sizeof a;
    OK(getsockname(s, (void *)&a, &n));
    CHECK_EQ(n, sizeof a);
    CHECK_EQ(a.nl_family, AF_NETLINK);
    CHECK(a.nl_pid);
    OK(getsockname(t, (void *)&b, &n));
    CHECK(a.nl_pid != b.nl_pid);
    ask(s, RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC);
    OK(recvfrom(s, buf, sizeof buf, 0, (void *)&b, &n));
    CHECK_EQ(b.nl_pid, 0); // from the kernel
    CHECK_EQ(((struct nlmsghdr *)buf)->nlmsg_pid, a.nl_pid);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(socket(AF_NETLINK, SOCK_RAW, 99), EPROTONOSUPPORT);
}

TEST(peek_and_trunc) {
    int s = nl();
    ask(s, RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC);
    char small[8];
    ssize_t n = OK(recv(s, small, 8, MSG_PEEK | MSG_TRUNC));
    CHECK_V(n > 8, n);
    CHECK_EQ(recv(s, buf, sizeof buf, 0), n);
}

TEST(getifaddrs_has_loopback) {
    struct ifaddrs *list;
    OK(getifaddrs(&list));
    bool four = false, link = false;
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (strcmp(i->ifa_name, "lo") || !i->ifa_addr) continue;
        CHECK(i->ifa_flags & IFF_LOOPBACK);
        if (i->ifa_addr->sa_family == AF_INET) four |= ((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
        if (i->ifa_addr->sa_family == AF_PACKET) link = true;
    }
    CHECK(four && link);
    freeifaddrs(list);
}

TEST(interface_ioctls) {
    int s = OK(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq r = {.ifr_name = "lo"};
    OK(ioctl(s, SIOCGIFFLAGS, &r));
    CHECK((r.ifr_flags & (IFF_UP | IFF_LOOPBACK)) == (IFF_UP | IFF_LOOPBACK));
    OK(ioctl(s, SIOCGIFINDEX, &r));
    CHECK_EQ(r.ifr_ifindex, 1);
    OK(ioctl(s, SIOCGIFMTU, &r));
    CHECK_EQ(r.ifr_mtu, 65536);
    OK(ioctl(s, SIOCGIFADDR, &r));
    CHECK_EQ(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    OK(ioctl(s, SIOCGIFNETMASK, &r));
    CHECK_EQ(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, htonl(0xff000000));
    OK(ioctl(s, SIOCGIFHWADDR, &r));
    CHECK_EQ(r.ifr_hwaddr.sa_family, 772);
    r.ifr_ifindex = 1;
    memset(r.ifr_name, 0, sizeof r.ifr_name);
    OK(ioctl(s, SIOCGIFNAME, &r));
    CHECK_STR(r.ifr_name, "lo");
    strcpy(r.ifr_name, "none99");
    CHECK_ERRNO(ioctl(s, SIOCGIFFLAGS, &r), ENODEV);
    struct ifconf c = {.ifc_len = sizeof buf, .ifc_buf = buf};
    OK(ioctl(s, SIOCGIFCONF, &c));
    CHECK(c.ifc_len >= (int)sizeof r);
    CHECK_EQ(c.ifc_len % sizeof r, 0);
}

TEST(proc_net_files) {
    CHECK(read_file("/proc/net/dev", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "lo:"));
    CHECK(read_file("/proc/net/tcp", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "local_address"));
    CHECK(read_file("/proc/net/unix", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "RefCount"));
    CHECK(read_file("/proc/net/route", buf, sizeof buf) > 0);
    CHECK(strstr(buf, "Iface"));
    CHECK(read_file("/proc/self/net/udp", buf, sizeof buf) > 0);
}

TEST(proc_net_tcp_shows_a_listener) {
    int l = OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(listen(l, 1));
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    OK(getsockname(l, (void *)&a, &n));
    char want[32];
    snprintf(want, sizeof want, "00000000:%04X 00000000:0000 0A", ntohs(a.sin_port));
    CHECK(read_file("/proc/net/tcp", buf, sizeof buf) > 0);
    CHECK(strstr(buf, want));
}

TEST(changing_needs_a_capability) {
    NEED_ROOT();
    pid_t p;
    CHILD(p) {
        OK(setuid(1000));
        struct ifreq r = {.ifr_name = "lo"};
        CHECK_ERRNO(ioctl(OK(socket(AF_INET, SOCK_DGRAM, 0)), SIOCSIFFLAGS, &r), EPERM);
        int s = nl();
        struct {
            struct nlmsghdr h;
            struct ifinfomsg i;
        } q = {{sizeof q, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 5, 0}, {.ifi_index = 1}};
        OK(send(s, &q, sizeof q, 0));
        OK(recv(s, buf, sizeof buf, 0));
        CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)buf))->error, -EPERM);
        CHECK_ERRNO(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
        CHECK_ERRNO(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
    }
    JOIN(p);
}
