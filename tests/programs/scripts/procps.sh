# ps, top, pgrep, kill, free, uptime, vmstat.
# root: minimal
sleep 1000 & a=$!
bash -c 'exec -a custom-name sleep 1001' & b=$!
while [ "$(ps -o args= -p $b)" != "custom-name 1001" ]; do sleep 0.05; done
ps -o stat=,nlwp=,args= -p $a,$b | sed 's/  */ /g; s/^ //'
ps -eo pid,comm | grep -c sleep
ps aux | head -1 | sed 's/  */ /g'
pgrep -f 1001 > /dev/null && echo pgrep
pgrep -P $$ sleep | wc -l
ps --ppid $$ -o comm= > /tmp/kids; sort /tmp/kids | uniq -c | sed 's/  */ /g'
ps -L -o comm= -p $a
top -bn1 -p $a | tail -1 | sed 's/  */ /g' | awk '{print $NF, $8}'
kill -STOP $a; sleep 0.2; ps -o stat= -p $a
pkill -CONT -f 'sleep 1000'; sleep 0.2; ps -o stat= -p $a
renice -n 7 $a > /dev/null; ps -o ni= -p $a | tr -d ' '
pkill -f 'sleep 100[0]'; wait $a; echo $?
kill $b; wait $b 2>/dev/null; echo $?
free -k | awk '/Mem/ {print ($2 > 0 && $3 > 0)}'
uptime | grep -c 'load average'
vmstat 1 1 | tail -1 | wc -w
w -h | wc -l
pidof nothing-like-this; echo $?
slabtop -o 2>/dev/null | head -0
sysctl -n kernel.ostype
tload --version > /dev/null && echo tload
ps -o pid= -p 1 | tr -d ' '
cat /proc/self/status | grep -c .  > /dev/null && echo status
