# The C and C++ compilers, and a threaded program.
# root: full
set -e
cd /tmp
cat > t.c <<'X'
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
static atomic_long n;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static long k;
static void *f(void *a) { for (int i = 0; i < 100000; i++) { n++; if (i % 10 == 0) { pthread_mutex_lock(&m); k++; pthread_mutex_unlock(&m); } } return a; }
int main(void) { pthread_t t[8]; for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, f, 0); for (int i = 0; i < 8; i++) pthread_join(t[i], 0); printf("%ld %ld\n", n, k); }
X
gcc -O2 -Wall -pthread t.c -o t && ./t
gcc -static -O2 -pthread t.c -o ts && ./ts
cat > t.cc <<'X'
#include <future>
#include <iostream>
#include <map>
#include <stdexcept>
int main() { std::map<int, int> m; for (int i = 0; i < 1000; i++) m[i % 7] += i; for (auto &[a, b] : m) std::cout << a << '=' << b << ' ';
  try { throw std::runtime_error("thrown"); } catch (std::exception &e) { std::cout << e.what(); }
  std::cout << ' ' << std::async(std::launch::async, [] { return 6 * 7; }).get() << std::endl; }
X
g++ -O1 -std=c++17 -pthread t.cc -o tc && ./tc
for i in 1 2 3 4 5 6; do echo "int f$i(int x) { return x * $i; }" > m$i.c; done
printf 'prog: %s\n\tgcc -shared -fPIC -o libm6.so $^\n\ttouch prog\n%%.o: %%.c\n\tgcc -fPIC -c $<\n' "m1.o m2.o m3.o m4.o m5.o m6.o" > Makefile
make -s -j4 && nm -D libm6.so | grep -c ' T f'
echo 'int main(void) { volatile int y = 5, z = 0; return y / z; }' | gcc -x c - -o z 2>/dev/null; (./z || echo "code $?") 2>/dev/null
echo '#error no' | gcc -c -x c - 2>&1 | grep -c error
