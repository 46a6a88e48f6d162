# Python: a bit of everything outside of its own tests.
# root: minimal
cat > /tmp/t.py <<'X'
import asyncio, concurrent.futures, hashlib, json, mmap, multiprocessing, os, select, signal, socket, sqlite3, struct, subprocess, sys, tempfile, threading, time
def work(n): return sum(i * i for i in range(n))
def main():
    print(sys.version_info[:2], sys.platform)
    with concurrent.futures.ThreadPoolExecutor(4) as e: print(list(e.map(work, [10, 100, 1000])))
    with multiprocessing.Pool(3) as p: print(p.map(work, [10, 100, 1000]))
    q = multiprocessing.Queue(); p = multiprocessing.Process(target=q.put, args=(42,)); p.start(); print(q.get()); p.join()
    print(subprocess.run(['sh', '-c', 'cat; exit 3'], input=b'in', capture_output=True))
    with tempfile.TemporaryDirectory() as d:
        with open(d + '/f', 'w+b') as f:
            f.truncate(8192); m = mmap.mmap(f.fileno(), 0); m[5000:5005] = b'hello'; m.flush(); f.seek(5000); print(f.read(5))
        print(sorted(os.listdir(d)), os.stat(d + '/f').st_size)
        db = sqlite3.connect(d + '/db'); db.execute('create table t(a)'); db.executemany('insert into t values(?)', [(i,) for i in range(1000)]); db.commit(); print(db.execute('select sum(a) from t').fetchone())
    async def echo():
        async def h(r, w): w.write((await r.readline()).upper()); await w.drain(); w.close()
        s = await asyncio.start_server(h, '127.0.0.1', 0)
        port = s.sockets[0].getsockname()[1]
        async def c(i): r, w = await asyncio.open_connection('127.0.0.1', port); w.write(b'msg %d\n' % i); x = await r.readline(); w.close(); return x
        print(await asyncio.gather(*(c(i) for i in range(20))))
        p = await asyncio.create_subprocess_exec('echo', 'sub', stdout=subprocess.PIPE); print(await p.communicate())
    asyncio.run(echo())
    hits = []; signal.signal(signal.SIGALRM, lambda *a: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    while len(hits) < 5: time.sleep(1)
    signal.setitimer(signal.ITIMER_REAL, 0); print('signals')
    a, b = socket.socketpair(); a.send(b'x'); print(select.select([b], [], [], 1)[0] == [b])
    print(hashlib.sha256(b'a' * 10000000).hexdigest()[:16], len(os.urandom(100)))
    pid = os.fork()
    if not pid: os._exit(9)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    t = [threading.Thread(target=work, args=(20000,)) for _ in range(50)]; [x.start() for x in t]; [x.join() for x in t]; print('threads')
    print(os.cpu_count() > 0, os.getloadavg() is not None, os.uname().sysname)
if __name__ == '__main__': main()
X
python3 /tmp/t.py
