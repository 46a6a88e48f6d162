# Go: build and run, race of goroutines, HTTP over loopback.
# root: full
set -e
export HOME=/tmp GOCACHE=/tmp/gocache GOFLAGS=-mod=mod GOTOOLCHAIN=local GO111MODULE=on
mkdir -p /tmp/g && cd /tmp/g
cat > go.mod <<'X'
module t
go 1.19
X
cat > main.go <<'X'
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func main() {
	fmt.Println(runtime.GOOS, runtime.GOARCH, runtime.NumCPU() > 0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for i := 0; i < 10000; i++ {
		wg.Add(1)
		go func() { defer wg.Done(); mu.Lock(); n++; mu.Unlock() }()
	}
	wg.Wait()
	fmt.Println(n)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { panic(err) }
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b, _ := io.ReadAll(r.Body); fmt.Fprintf(w, "%s %d", r.URL.Path, len(b)) }))
	sum := 0
	for i := 0; i < 100; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			r, err := http.Get(fmt.Sprintf("http://%s/%d", l.Addr(), i))
			if err != nil { panic(err) }
			b, _ := io.ReadAll(r.Body)
			mu.Lock(); sum += len(b); mu.Unlock()
		}(i)
	}
	wg.Wait()
	fmt.Println(sum)
	out, err := exec.Command("sh", "-c", "echo child; exit 2").Output()
	fmt.Printf("%q %v\n", out, err)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-c)
	t := time.NewTicker(time.Millisecond)
	for i := 0; i < 20; i++ { <-t.C }
	os.WriteFile("/tmp/gofile", make([]byte, 1<<20), 0o600)
	st, _ := os.Stat("/tmp/gofile")
	fmt.Println(st.Size(), st.Mode())
	// Preemption by signals: a busy loop does not stop the others.
	go func() { for { } }()
	runtime.GC()
	fmt.Println("done")
}
X
go build -o prog . && ./prog
cat > x_test.go <<'X'
package main
import "testing"
func TestX(t *testing.T) { if 1+1 != 2 { t.Fatal() } }
X
go test -vet=off . | sed 's/[0-9.]*s$//; s/(cached)//'
go vet . && echo vetted
