# Coreutils, find, tar over a tree of 10 000 files.
# root: minimal
set -e
mkdir -p /tmp/t && cd /tmp/t
for d in $(seq 0 99); do mkdir d$d; done
for d in $(seq 0 99); do (cd d$d; for f in $(seq 0 99); do echo "$d $f" > f$f; done); done
find . -type f | wc -l
find . -name 'f7*' -path './d1*' | sort | sha256sum
ls -R | sha256sum
cat d*/f1 | sort -n | md5sum
du -s --apparent-size --block-size=1 d5/f* | awk '{s+=$1} END {print s}'
cp -a . ../copy; diff -r . ../copy && echo same
chmod -R g+w ../copy; find ../copy -type f -perm -g+w | wc -l
find ../copy -name 'f3?' -delete; find ../copy -type f | wc -l
tar cf ../t.tar . && tar tf ../t.tar | wc -l
mkdir ../x && tar xf ../t.tar -C ../x && diff -r . ../x && echo same
mv d0 renamed; ls -d d0 2>/dev/null || echo moved
ln -s renamed/f1 link; cat link; readlink -f link
ln d1/f1 hard; stat -c '%h %s' hard
split -n 4 ../t.tar ../part.; cat ../part.* | cmp - ../t.tar && echo joined
dd if=/dev/zero of=../zero bs=1M count=8 status=none; sha1sum < ../zero
truncate -s 1G ../sparse; stat -c %s ../sparse; test $(stat -c %b ../sparse) -lt 1000 && echo sparse
sort -S 1M -T /tmp <(seq 1 50000 | rev) | md5sum
join <(seq 1 5 | sed 's/$/ a/') <(seq 3 7 | sed 's/$/ b/')
paste -sd+ <(seq 1 100) | tr -d '\n' | wc -c
touch -d '2001-02-03 04:05:06 UTC' dated; stat -c %Y dated; date -u -r dated +%F
mktemp -u /tmp/XXXX | wc -c
test -w /dev/null && echo writable; test -x /bin/ls && echo executable
df /tmp > /dev/null && echo df
id -un; whoami; groups; uname -sm; nproc > /dev/null && echo nproc
rm -rf ../x ../copy; ls .. | sort | tr '\n' ' '; echo
tail -f d1/f2 & p=$!; sleep 0.3; echo more >> d1/f2; sleep 0.5; kill $p; wait $p || true
shuf -i 1-100 | sort -n | md5sum
sync; stat -f -c %l /tmp
