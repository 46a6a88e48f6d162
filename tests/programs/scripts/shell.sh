# Bash: pipelines, job control, traps, process substitution, here documents.
# root: minimal
set -u
seq 1 20000 | grep 7 | sort -rn | head -5 | tr '\n' ' '; echo
for i in 1 2 3 4 5; do (exit $i); echo "code $?"; done
false | true; echo "pipestatus ${PIPESTATUS[*]}"
diff <(seq 1 5) <(seq 2 6); echo "diff $?"
cat <<X | wc -c
a here document
of two lines
X
trap 'echo got USR1' USR1
kill -USR1 $$
trap 'echo leaving' EXIT
(trap 'echo sub TERM; exit 3' TERM; kill -TERM $BASHPID; sleep 5); echo "sub $?"
sleep 100 & p=$!; kill $p; wait $p; echo "killed $?"
set -m
sleep 100 & jobs -l | sed 's/[0-9]\{2,\}/PID/'
kill -STOP %1; sleep 0.2; jobs | sed 's/  */ /g'
kill -CONT %1; kill %1; wait %1; echo "job $?"
set +m
coproc tr a-z A-Z
echo hello >&"${COPROC[1]}"; exec {COPROC[1]}>&-
cat <&"${COPROC[0]}"
exec 7<>/tmp/fifo-test; echo to-seven >&7; exec 7<&-; cat /tmp/fifo-test
mkfifo /tmp/f; (echo through fifo > /tmp/f &) ; cat /tmp/f
ulimit -n 50; ulimit -n
read -t 0.1 x < <(sleep 3); echo "timeout $((($? > 128)))"
printf '%s\n' {1..3}{a..c} | xargs -n 3 echo
cat /proc/self/comm
time -p true 2>&1 | grep -c .
x=$(yes | head -c 100000 | wc -c); echo $x
find / -xdev -maxdepth 1 -name 'b*' -o -maxdepth 1 -name 'usr' | sort
env -i A=1 B=2 bash -c 'echo $A$B; set | grep -c .' | head -1
timeout 0.3 sleep 5; echo "timeout $?"
timeout -s KILL 0.3 sleep 5; echo "timeout $?"
nice -n 5 nice
(cd / && pwd); cd /usr/../usr/bin && pwd
umask 077; touch /tmp/u; stat -c %a /tmp/u
exec 3> >(cat); p=$!; echo via substitution >&3; exec 3>&-; wait $p
