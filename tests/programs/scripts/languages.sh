# Interpreters and compilers beyond those with a script of their own.
# root: more
cd /tmp
ruby -e 'puts 10.times.map { |i| Thread.new { i * i } }.map(&:value).sum; puts Process.wait2(fork { exit 3 })[1].exitstatus; r, w = IO.pipe; w.puts "piped"; puts r.gets; puts `echo sh`
require "socket"; s = TCPServer.new("127.0.0.1", 0); Thread.new { c = s.accept; c.puts "hi"; c.close }; puts TCPSocket.new("127.0.0.1", s.addr[1]).gets
require "timeout"; begin; Timeout.timeout(0.2) { sleep }; rescue Timeout::Error; puts "timeout"; end; require "pty"; PTY.spawn("tty > /dev/null && echo tty") { |o, i, pid| puts o.gets }'
zsh -fc 'print ${(j:,:)${(s: :):-a b c}}; (sleep 0.1; exit 3) & wait $!; print $?; print -l /b*(N) | head -2'
lua5.4 -e 'print(string.format("%d", 2^31)) print(io.popen("echo p"):read("a"))'
php -r 'echo PHP_OS, " ", array_sum(range(1, 100)), "\n"; $p = proc_open("cat", [["pipe", "r"], ["pipe", "w"]], $q); fwrite($q[0], "x\n"); fclose($q[0]); echo stream_get_contents($q[1]); echo proc_close($p), "\n";'
echo 'puts [exec echo hi]; set s [socket -server acc 0]; proc acc {c a p} { puts $c hello; close $c }; set port [lindex [fconfigure $s -sockname] 2]; set c [socket 127.0.0.1 $port]; fileevent $c readable { puts [gets $c]; set done 1 }; vwait done' | tclsh
guile -c '(use-modules (ice-9 threads)) (display (par-map (lambda (x) (* x x)) (list 1 2 3))) (newline)' 2> /dev/null
# Takes addresses below 2 GiB, and handles SIGSEGV of its own write barrier.
sbcl --noinform --non-interactive --eval '(progn (print (loop for i below 100 sum i)) (gc :full t) (print (handler-case (car (list* 3 4)) (type-error () "type error"))) (terpri))' 2> /dev/null
sbcl --noinform --non-interactive --eval '(print (mapcar (function sb-thread:join-thread) (loop for i below 4 collect (let ((i i)) (sb-thread:make-thread (lambda () (loop repeat 100000 do (cons 1 2)) i))))))'; echo
erl -noshell -eval 'P = self(), [spawn(fun() -> P ! N end) || N <- lists:seq(1, 1000)], io:format("~p~n", [lists:sum([receive X -> X end || _ <- lists:seq(1, 1000)])]), halt().'
echo 'use std::thread; fn main() { let t: Vec<_> = (0..8).map(|i| thread::spawn(move || i * i)).collect(); println!("{}", t.into_iter().map(|t| t.join().unwrap()).sum::<i32>()); println!("{}", std::panic::catch_unwind(|| { panic!("p") }).is_err()); }' > r.rs; rustc -C debuginfo=0 r.rs -o r && ./r 2> /dev/null
mkdir cm; printf 'cmake_minimum_required(VERSION 3.10)\nproject(p C)\nadd_executable(p p.c)\n' > cm/CMakeLists.txt; echo 'int main(void) { return 4; }' > cm/p.c; cmake -S cm -B cmb > /dev/null 2>&1; echo $?; make -s -j4 -C cmb > /dev/null 2>&1; cmb/p; echo $?
emacs -Q --batch --eval '(progn (princ (+ 1 2)) (terpri) (princ (shell-command-to-string "echo sh")))'
expect -c 'spawn -noecho bash --norc; send "echo \$((6*7))\r"; expect "\n42"; send "exit 3\r"; expect eof; puts "code [lindex [wait] 3]"' | tail -1
printf '#include <stdlib.h>\nint main(void) { return malloc(10) == 0; }\n' > vg.c; gcc -g vg.c -o vg && valgrind -q --leak-check=full --error-exitcode=9 ./vg > vglog 2>&1; echo $?; grep -c 'definitely lost' vglog
