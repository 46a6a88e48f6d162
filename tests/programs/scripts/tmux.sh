# Full-screen programs on a terminal: tmux with windows and panes, vi, less, script.
# root: full
export TERM=xterm
cd /tmp
t="tmux -L s -f /dev/null"
$t new-session -d -x 80 -y 24 'bash --norc --noprofile -i'
wait_for() { for i in $(seq 100); do $t capture-pane -p | grep -q "$1" && return; sleep 0.1; done; echo "not seen: $1"; $t capture-pane -p; }
$t send-keys 'PS1=prompt:; stty size; tput cols' Enter; wait_for '^80'
$t capture-pane -p | grep -E '^[0-9 ]+$'
$t send-keys 'clear; sleep 100' Enter; sleep 0.5; $t send-keys C-c; $t send-keys 'echo code=$?' Enter; wait_for code=130; echo interrupted
$t send-keys 'sleep 100' Enter; sleep 0.5; $t send-keys C-z; wait_for Stopped; echo stopped; $t send-keys 'kill %1; clear' Enter
$t split-window -h 'cat'; $t send-keys 'typed' Enter; wait_for typed; $t list-panes -F '#{pane_width}x#{pane_height}'
$t resize-pane -L 10; $t list-panes -F '#{pane_width}'
$t send-keys C-d; for i in $(seq 50); do [ $($t list-panes | wc -l) = 1 ] && break; sleep 0.1; done; $t list-panes | wc -l
$t new-window 'vim.tiny -u NONE -N /tmp/edited'; sleep 0.5; $t send-keys i 'first line' Enter second Escape ':wq' Enter; for i in $(seq 50); do [ -s edited ] && break; sleep 0.1; done; cat edited
seq 1 100 > long; $t new-window 'less long'; wait_for '^1$'; $t send-keys G; wait_for '^100$'; echo less; $t send-keys q
$t new-window top; wait_for 'load average'; echo top; $t send-keys q
$t kill-server; echo "end $?"
script -qec 'tty > /dev/null && stty size > /dev/null && echo on a terminal' /dev/null | tr -d '\r'
