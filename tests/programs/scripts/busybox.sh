# Busybox applets.
# root: minimal
cd /tmp
busybox sh -c 'for i in 1 2 3; do echo $i; done | busybox tac'
seq 1 1000 | busybox gzip | busybox gunzip | busybox md5sum
busybox dd if=/dev/zero bs=1k count=100 2>/dev/null | busybox wc -c
busybox mkdir -p a/b/c; busybox find a | busybox sort
busybox ps | busybox grep -c busybox > /dev/null && echo ps
busybox awk 'BEGIN { for (i = 0; i < 5; i++) printf "%d ", i * i; print "" }'
echo abc | busybox sed 's/b/X/'
busybox ash -c 'sleep 10 & kill $!; wait $!; echo $?'
# The server's input stays open: at its end nc shuts down, and the client may leave before it has sent anything.
busybox nc -l -p 5555 > got < <(sleep 3) & n=$!
until grep -q ':15B3 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done; echo over tcp | busybox nc 127.0.0.1 5555; wait $n; cat got
busybox stat -c %F /dev/null; busybox readlink -f /proc/self/fd/0 > /dev/null && echo link
busybox vi --help 2>&1 | head -1 | busybox cut -c1-7
busybox time busybox true 2>&1 | busybox grep -c real
