# Servers beyond those with a script of their own: memcached, MariaDB, HAProxy, OpenSSH with rsync, socat, PHP's.
# root: more
cd /tmp; export LC_ALL=C
until_up() { for i in $(seq 200); do "$@" > /dev/null 2>&1 && return; sleep 0.1; done; echo "not up: $*"; }
memcached -u root -p 11311 -U 0 -l 127.0.0.1 & p=$!; until_up nc -z 127.0.0.1 11311
printf 'set a 0 0 3\r\nabc\r\nget a\r\nquit\r\n' | nc 127.0.0.1 11311 | tr -d '\r'; kill $p; wait $p; echo $?
mkdir my; chown mysql my; mariadb-install-db --user=mysql --datadir=/tmp/my > /dev/null 2>&1; echo $?
mariadbd --user=mysql --datadir=/tmp/my --socket=/tmp/my.sock --skip-networking > log 2>&1 & p=$!; until_up mariadb-admin -S my.sock ping
mariadb -S my.sock -e 'create database d; use d; create table t(a int primary key) engine=innodb; insert into t select seq from seq_1_to_5000; select sum(a) from t'; mariadb-admin -S my.sock shutdown; wait $p; echo $?
printf 'global\n nbthread 2\ndefaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\nfrontend f\n bind 127.0.0.1:8090\n default_backend b\nbackend b\n server s 127.0.0.1:8001\n' > ha.cfg
php -S 127.0.0.1:8001 -t /usr/share/doc/bash > /dev/null 2>&1 & q=$!; until_up nc -z 127.0.0.1 8001; haproxy -f ha.cfg 2> /dev/null & p=$!; until_up nc -z 127.0.0.1 8090
for i in 1 2 3; do curl -s http://127.0.0.1:8090/copyright | md5sum; done; kill $p $q; wait $p; echo $?
mkdir -p /run/sshd ~/.ssh; ssh-keygen -A > /dev/null; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys; /usr/sbin/sshd -p 2222 -o ListenAddress=127.0.0.1 -E sshd.log; until_up nc -z 127.0.0.1 2222
printf 'Host *\n Port 2222\n StrictHostKeyChecking no\n LogLevel ERROR\n' > ~/.ssh/config
ssh 127.0.0.1 'echo over ssh; id -u; tty'; echo $?; ssh -tt 127.0.0.1 'tty > /dev/null && echo on a terminal' < /dev/null | tr -d '\r'
dd if=/dev/zero bs=1M count=20 status=none | ssh 127.0.0.1 'wc -c'; scp -q 127.0.0.1:/etc/passwd h && cmp h /etc/passwd && echo copied; rsync -a 127.0.0.1:/usr/share/doc/bash/ rs && diff -r rs /usr/share/doc/bash && echo synchronised; kill $(cat /run/sshd.pid)
socat TCP-LISTEN:7778,reuseaddr,fork EXEC:'tr a-z A-Z' & p=$!; until_up nc -z 127.0.0.1 7778; echo socat | socat -t5 - TCP:127.0.0.1:7778; socat -u EXEC:'echo on a pty',pty,stderr - | tr -d '\r'; kill $p
