# strace and gdb: tracing, breakpoints, single steps, threads.
# root: full
cd /tmp
export LC_ALL=C HOME=/tmp
strace -o t -e trace=mkdir,rmdir sh -c 'mkdir d; rmdir d; true'; tail -1 t
strace -f -o t -e trace=mkdir,rmdir sh -c '(mkdir d); rmdir d; exit 3'; echo $?
grep -E 'mkdir|rmdir' t | sed 's/^[0-9]* *//'
strace -c -o t true; grep -c execve t
sh -c 'strace -o t -e trace=kill sh -c "kill -USR1 \$\$"'; echo $?; tail -1 t
cat > p.c <<'C'
#include <pthread.h>
#include <stdio.h>
struct pair { int a, b; };
int add(struct pair *p) {
    int sum = p->a;
    sum += p->b;
    return sum;
}
void *body(void *x) { return (void *)(long)add(x); }
int main(void) {
    struct pair p = {20, 22};
    for (int i = 0; i < 3; i++) p.a += i;
    printf("%d\n", add(&p));
    pthread_t t;
    void *r;
    pthread_create(&t, 0, body, &p);
    pthread_join(t, &r);
    printf("%ld\n", (long)r);
    fflush(stdout);
    *(volatile int *)0 = 1;
}
C
gcc -g -O0 -pthread -o p p.c
gdb -nx -batch -ex 'set confirm off' -ex 'set debuginfod enabled off' -ex 'break add' -ex run -ex bt -ex 'print *p' \
    -ex next -ex 'print sum' -ex next -ex 'print sum' -ex 'set var sum = 99' -ex stepi -ex disable -ex 'print add(p)' -ex enable -ex finish -ex continue -ex bt -ex 'info threads' -ex continue -ex bt \
    ./p 2>&1 | grep -vE 'Thread 0x|LWP|^warning|libthread_db|0x[0-9a-f]{6,}|^$|Download' | sed 's/0x[0-9a-f]*/ADDR/g'
sleep 100 & s=$!
gdb -nx -batch -p $s -ex 'print 6 * 7' -ex detach 2>&1 | grep -E '^\$1'
kill $s; wait $s 2> /dev/null; echo $?
