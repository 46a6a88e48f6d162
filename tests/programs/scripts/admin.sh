# What administrators use: sudo, keys, locales, manuals, screens, namespaces, mounts, a stress test of everything.
# root: more
cd /tmp; export TERM=xterm
useradd -m -s /bin/bash u1; echo '127.0.0.1 programs' >> /etc/hosts; sudo -u u1 id -un; echo 'u1 ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/u1; su u1 -c 'sudo id -u'
ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -lf key | awk '{print $1, $NF}'
echo 'de_DE.UTF-8 UTF-8' > /etc/locale.gen; locale-gen 2>&1 | tail -1; LC_ALL=de_DE.UTF-8 date -d 2020-01-01 +%A
man -w ls 2>&1 | head -1; mandb --version | cut -d' ' -f1; systemd-detect-virt > virt; [ -s virt ] && echo detected
ulimit -n 5000; screen -dmS x sh -c 'echo in screen > scr.out; sleep 5'; for i in $(seq 100); do [ -s scr.out ] && break; sleep 0.1; done; cat scr.out; screen -ls | grep -c Detached; screen -S x -X quit
script -qec 'timeout 2 htop -d 5' /dev/null < /dev/null | grep -aoc Tasks; script -qec 'timeout 2 mc -u' /dev/null < /dev/null 2>&1 | wc -c | awk '{print $1 > 500}'
rsync -a /usr/share/doc/bash/ rs/ && diff -r /usr/share/doc/bash rs && echo rsync; zip -qr e.zip /usr/share/doc/bash && unzip -tq e.zip | cut -d' ' -f1-3; tar -C /usr/share/doc --zstd -cf e.zst bash && zstd -tq e.zst && echo zstd
sleep 50 < /etc/passwd & p=$!; lsof -p $p 2> /dev/null | awk '$4 ~ /^[0-2]/ {print $4, $5}' | head -1; kill $p
ping -c 2 -i 0.2 127.0.0.1 | tail -2 | head -1 | cut -d, -f1-3
unshare -m sh -c 'mount -t tmpfs x /mnt && touch /mnt/a && ls /mnt'; ls /mnt | wc -l; unshare -pf --mount-proc ps ax | wc -l; unshare -n ip -o link | wc -l; nsenter -t 1 -m true; echo $?; chroot / true; echo $?
mount -t tmpfs tmpfs /mnt && df /mnt | tail -1 | cut -d' ' -f1; mount --bind /etc /mnt && ls /mnt | wc -l; umount /mnt; findmnt -n -o FSTYPE /mnt; umount /mnt; mountpoint /proc; mountpoint /mnt
flock lk true; echo $?; setarch -R true; echo $?; fallocate -l 1M fa && stat -c %s fa; setsid -w echo setsid; getconf PAGESIZE; prlimit --nofile | wc -l; taskset -p $$ | wc -l; stty size 2>&1 | tail -1; cal 2> /dev/null | wc -l
fio --name=a --filename=/tmp/fio --size=8M --rw=randrw --ioengine=psync --verify=crc32c --minimal > /dev/null 2>&1; echo $?; fio --name=a --filename=/tmp/fio --size=8M --rw=randrw --ioengine=mmap --minimal > /dev/null 2>&1; echo $?
# Each checks its own results. What fails prints its name.
stress-ng --quiet --cpu 2 --vm 2 --vm-bytes 16M --fork 2 --pipe 2 --switch 2 --futex 1 --timer 1 --sigq 1 -t 3; echo $?
for k in sock poll epoll eventfd dentry dir rename link symlink flock lockf fifo msg sem shm mq sigfd sigsegv pthread clone vfork exec memfd mremap madvise mincore splice sendfile inotify timerfd getdent fcntl fallocate xattr zombie kill wait get procfs pty dup itimer rlimit; do timeout -k 3 60 stress-ng --quiet --$k 1 --$k-ops 5 -t 2 > st.log 2>&1 || echo "$k $? $(grep -m1 -o 'fail.*' st.log)"; done; echo stressed
