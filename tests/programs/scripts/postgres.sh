# PostgreSQL: initdb, server, pgbench.
# root: full
B=/usr/lib/postgresql/15/bin; D=/tmp/pg; mkdir $D; chown postgres $D; cd $D
run() { setpriv --reuid=postgres --regid=postgres --init-groups env LC_ALL=C "$@"; }
run $B/initdb -D $D/data -A trust -E UTF8 --no-instructions > init.log 2>&1; echo "initdb $?"
run $B/pg_ctl -D $D/data -w -t 120 -o "-k $D -h 127.0.0.1 -p 5433 -c fsync=on" -l $D/data/log start > /dev/null; echo "start $?"
q() { run psql -h $D -p 5433 -AtX -c "$1" postgres; }
q "create table t(a int primary key, b text)"; q "insert into t select i, md5(i::text) from generate_series(1,20000) i"; q "select count(*), min(b), max(b) from t"
q "create index on t(b); explain (costs off) select * from t where b='x'"
run pgbench -h 127.0.0.1 -p 5433 -i -s 1 -q postgres > /dev/null 2>&1; echo "init $?"
run pgbench -h 127.0.0.1 -p 5433 -c 4 -j 2 -t 50 postgres 2>/dev/null | grep 'actually processed'
run pgbench -h $D -p 5433 -n -c 8 -S -t 100 postgres 2>/dev/null | grep 'actually processed'
q "select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts"
q "set max_parallel_workers_per_gather=2; set parallel_setup_cost=0; set parallel_tuple_cost=0; set min_parallel_table_scan_size=0; select count(*) from pgbench_accounts"
(q "listen c; select pg_sleep(0.5); select 1" > /dev/null) & q "notify c, 'x'"; wait $!
q "select pg_backend_pid() > 0, current_setting('dynamic_shared_memory_type')"
run $B/pg_ctl -D $D/data -m immediate stop > /dev/null; echo "stop $?"
run $B/pg_ctl -D $D/data -w -t 120 -o "-k $D -h 127.0.0.1 -p 5433" -l $D/data/log start > /dev/null; echo "recovered $?"
q "select count(*) from t"
run $B/pg_ctl -D $D/data -m fast stop > /dev/null; echo "stop $?"
