# Redis with its benchmark over loopback, persistence by fork, pub/sub, scripts.
# root: full
cd /tmp
redis-server --port 6399 --bind 127.0.0.1 --daemonize no --save '' --appendonly yes --dir /tmp > log 2>&1 & p=$!
r="redis-cli -p 6399"
for i in $(seq 100); do $r ping > /dev/null 2>&1 && break; sleep 0.1; done
$r set a 1; $r incr a; $r lpush l x y z; $r lrange l 0 -1
for i in $(seq 300); do echo "set key$i $i"; done | $r --pipe 2>&1 | tail -1
$r dbsize
redis-benchmark -p 6399 -q -n 2000 -c 20 -t set,get,lpush,mset | tr '\r' '\n' | grep -c 'requests per second'
redis-benchmark -p 6399 -q -n 5000 -P 16 -t get | tr '\r' '\n' | grep -c 'requests per second'
$r eval 'return redis.call("get", KEYS[1]) + 5' 1 a
$r bgsave; for i in $(seq 100); do [ "$($r info persistence | grep -c rdb_bgsave_in_progress:0)" = 1 ] && break; sleep 0.1; done
$r info persistence | tr -d '\r' | grep rdb_last_bgsave_status
$r bgrewriteaof; sleep 0.5
(timeout 3 $r subscribe ch | head -6 | tail -3) & s=$!; for i in $(seq 50); do [ "$($r publish ch msg)" = 1 ] && break; sleep 0.1; done; wait $s
$r set e v px 50; sleep 0.2; $r exists e
$r shutdown nosave; wait $p; echo "exit $?"
redis-server --port 6399 --bind 127.0.0.1 --daemonize no --save '' --appendonly yes --dir /tmp > log 2>&1 & p=$!
for i in $(seq 100); do $r ping > /dev/null 2>&1 && break; sleep 0.1; done
$r get key77; kill $p; wait $p; echo "exit $?"
