# What a user tries first: packages, archives, checksums, accounts, viewers, make, threads of Perl and Go.
# root: full
cd /tmp
dpkg -l | wc -l; dpkg -S /bin/ls; dpkg-query -W -f '${Package} ${Status}\n' bash; dpkg --audit | wc -l
apt list --installed 2> /dev/null | wc -l; apt-get -s remove nginx-light 2>&1 | tail -1; apt-cache policy bash | head -2
find / -xdev -not -path '/tmp*' 2> /dev/null | wc -l; find /usr -type l | wc -l; du -s --apparent-size /usr/share/perl | wc -l
tar czf e.tgz /etc 2> /dev/null; tar tzf e.tgz | wc -l; mkdir e && tar xzf e.tgz -C e && diff -r --no-dereference /etc e/etc && echo unpacked
(cd /usr/bin && find . -type f | sort | head -200 | xargs sha256sum) | sha256sum
openssl speed -seconds 1 -bytes 1024 sha256 2>&1 | grep -c '^sha256  '; openssl speed -seconds 1 -multi 2 -bytes 1024 sha1 2>&1 | tail -1 | cut -d' ' -f1
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=localhost -days 2 2> /dev/null; openssl verify -CAfile c.pem c.pem
openssl s_server -accept 4433 -key k.pem -cert c.pem -www -quiet & p=$!
for i in $(seq 100); do curl -s --cacert c.pem https://localhost:4433/ > page && break; sleep 0.1; done; grep -c '^Ciphers supported' page; kill $p; wait $p
useradd -m -s /bin/bash someone; echo someone:secret | chpasswd; id someone; su someone -c 'id -un; echo $HOME; touch /etc/x 2> /dev/null || echo refused'
su - someone -c 'pwd; umask'; usermod -aG daemon someone; groups someone; passwd -S someone | cut -d' ' -f1,2; userdel -r someone 2> /dev/null; getent passwd someone || echo gone
printf 'a\nb\n' > v; vim.tiny -u NONE -es -c '%s/a/z/' -c wq v; cat v; script -qec 'vim.tiny -u NONE -c q' /dev/null < /dev/null > /dev/null; echo "vim $?"
less v | cat; file /bin/ls | cut -d, -f1,2; gdb --version | head -1; gdb -batch -ex 'p 6*7' | tail -1
mkdir m && cd m; for i in $(seq 20); do echo "int f$i(void) { return $i; }" > f$i.c; done
{ echo 'extern int printf(const char *, ...);'; for i in $(seq 20); do echo "int f$i(void);"; done; echo 'int main(void) { int s = 0;'; for i in $(seq 20); do echo "s += f$i();"; done; echo 'printf("%d\n", s); }'; } > main.c
printf 'OBJS = $(patsubst %%.c,%%.o,$(wildcard *.c))\nall: $(OBJS)\n\tgcc -o sum $^\n' > Makefile; make -s -j4 && ./sum; make -s -j4 -q && echo up to date; cd ..
perl -Mthreads -Mthreads::shared -e 'my $n :shared = 0; my @t = map { threads->create(sub { for (1..1000) { lock($n); $n++ } $_[0] * 2 }, $_) } 1..8; my $s = 0; $s += $_->join for @t; print "$n $s\n"'
mkdir g && cd g && cat > main.go <<'G'
package main

import ("fmt"; "runtime"; "sync"; "time")

func main() {
	fmt.Println(runtime.GOMAXPROCS(0))
	c := make(chan int)
	var wg sync.WaitGroup
	for i := 0; i < 1000; i++ {
		wg.Add(1)
		go func(i int) { defer wg.Done(); x := make([]byte, 10000); x[i] = 1; time.Sleep(time.Millisecond); c <- i }(i)
	}
	go func() { wg.Wait(); close(c) }()
	s := 0
	for i := range c { s += i; if i%100 == 0 { runtime.GC() } }
	fmt.Println(s)
}
G
GOCACHE=/tmp/gocache GO111MODULE=off CGO_ENABLED=0 go build -o prog main.go && file prog | grep -c 'statically linked' && GOMAXPROCS=4 ./prog
