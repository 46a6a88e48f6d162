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
kill $s; wait $s 2> err; echo $?
# Filters that ask the tracer, a process that is stopped while it is traced, results that are made up.
strace --seccomp-bpf -f -o t -e trace=mkdir,rmdir sh -c '(mkdir d); rmdir d'; echo $?
grep -E 'mkdir|rmdir' t | sed 's/^[0-9]* *//'
sleep 100 & s=$!
strace -o t -p $s 2> err & tracer=$!
until grep -q TracerPid:.$tracer /proc/$s/status; do sleep 0.02; done
kill -STOP $s
until grep -q 'stopped by' t; do sleep 0.02; done
kill -CONT $s
until grep -q 'SIGCONT {' t; do sleep 0.02; done
kill $tracer; wait $tracer 2> err
grep -oE 'SIGSTOP \{|stopped by SIGSTOP|SIGCONT \{|detached' t
grep -E '^(State|TracerPid)' /proc/$s/status
kill $s; wait $s 2> err; echo $?
strace -o t -e inject=getppid:retval=4711 python3 -c 'import os; print(os.getppid())'
strace -o t -e inject=mkdir:error=EDOM mkdir d 2>&1
# Forks, execs, system calls and changes of a variable.
cat > q.c <<'C'
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int counter;
static void bump(int by) { counter += by; }
int main(void) {
    for (int i = 0; i < 5; i++) bump(i);
    pid_t p = fork();
    if (!p) {
        bump(100);
        execl("/bin/echo", "echo", "hello", (char *)0);
    }
    int status;
    waitpid(p, &status, 0);
    printf("%d %d\n", counter, status);
    return 3;
}
C
gcc -g -O0 -o q q.c
debug() {
    gdb -nx -batch -ex 'set confirm off' -ex 'set debuginfod enabled off' "$@" ./q 2>&1 |
        grep -E '^(Breakpoint|Catchpoint|Watchpoint|Old|New value|hello|[0-9]+ [0-9]+$|#|\$|bump|main|\[Inf)|is executing' |
        sed 's/0x[0-9a-f]*/ADDR/g; s/process [0-9]*/process N/g'
}
debug -ex 'set can-use-hw-watchpoints 0' -ex 'break main' -ex run -ex 'watch counter' -ex continue -ex continue -ex delete -ex continue
debug -ex 'set follow-fork-mode child' -ex 'break bump if by == 100' -ex run -ex bt -ex 'catch exec' -ex continue -ex delete -ex continue | grep -v '^10 0'
debug -ex 'catch syscall write' -ex run -ex continue -ex delete -ex continue
