# Perl: files, processes, sockets, signals.
# root: minimal
cat > /tmp/t.pl <<'X'
use strict; use warnings; use IO::Socket; use POSIX ":sys_wait_h"; use Time::HiRes qw(sleep);
$| = 1;
my %h; $h{$_ % 97}++ for 1..100000; print scalar(keys %h), "\n";
open(my $f, '>', '/tmp/pf') or die; print $f "line $_\n" for 1..1000; close $f;
open($f, '<', '/tmp/pf') or die; my $n = 0; while (<$f>) { $n += $1 if /(\d+)/ } print "$n\n";
my @kids; for my $i (1..5) { my $p = fork(); if (!$p) { exit $i } push @kids, $p }
my $sum = 0; for (@kids) { waitpid($_, 0); $sum += $? >> 8 } print "sum $sum\n";
my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', Proto => 'tcp') or die "listen $!";
if (!fork()) { my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->sockport) or die; print $c "hello\n"; print "client got ", scalar <$c>; exit }
my $c = $s->accept; my $l = <$c>; print "server got $l"; print $c uc $l; close $c; wait;
local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; eval { select undef, undef, undef, 20 }; print "died: $@";
print `echo from a shell`; print system("sh", "-c", "exit 7") >> 8, "\n";
pipe(my $r, my $w); if (!fork()) { close $r; print $w "piped"; exit } close $w; print <$r>, "\n"; wait;
print join(",", sort map { (stat "/tmp/pf")[$_] // '' } 7), "\n";
print "ok\n" if -d '/tmp' && -e '/dev/null' && !-e '/none';
X
perl /tmp/t.pl
