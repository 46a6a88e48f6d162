# sqlite3: journal modes, locking between processes, a large table.
# root: full
cd /tmp
sqlite3 db 'create table t(a integer primary key, b text); with recursive c(x) as (select 1 union all select x+1 from c where x<50000) insert into t select x, hex(x) from c; select count(*), sum(a), max(b) from t;'
sqlite3 db 'create index i on t(b); select a from t where b = hex(777); pragma integrity_check;'
sqlite3 db 'pragma journal_mode=wal;'
for i in 1 2 3 4; do (for k in $(seq 20); do sqlite3 -cmd '.timeout 60000' db "insert into t(b) values('p$i-$k');"; done) & done; wait
sqlite3 db "select count(*) from t where b like 'p%'; vacuum; pragma integrity_check;"
sqlite3 db 'pragma mmap_size=100000000; select sum(length(b)) from t;'
sqlite3 db .dump | sqlite3 db2 && sqlite3 db2 'select count(*) from t'
