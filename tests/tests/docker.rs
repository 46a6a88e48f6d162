//! dockerd, with containerd's generic shim, drives `runsc`.

use std::process::Command;

use anyhow::Result;
use runsc_tests::clients::{self, Case, Daemon, Known, Place, case};

/// `d` is docker, and `box` the image. `tty` runs a command with a terminal of 33 rows and 99 columns.
const CASES: &[Case] = &[
    case("run", "d run --rm box echo hello", "hello", 0),
    case("exit-code", "d run --rm box sh -c 'exit 7'", "", 7),
    case("killed", "d run --rm box sh -c 'sh -c \"kill -9 \\$\\$\"; echo $?'", "137", 0),
    case("no-program", "d run --rm box nonesuch", "", 127),
    case("no-permission", "d run --rm box /etc/passwd", "", 126),
    case("stdin", "echo in | d run --rm -i box cat", "in", 0),
    case("stderr", "d run --rm box sh -c 'echo out; echo err >&2' 2>/dev/null", "out", 0),
    case(
        "environment",
        "d run --rm -e A=B -w /tmp -h here box sh -c 'echo $A; pwd; hostname'",
        "B\n/tmp\nhere",
        0,
    ),
    case("working-directory", "d run --rm -w /new/one box pwd", "/new/one", 0),
    case("user", "d run --rm -u bob box sh -c 'id -u; id -g; id -un'", "1000\n100\nbob", 0),
    case("user-number", "d run --rm -u 5:6 --group-add 7 box id -G", "6 7", 0),
    case("hosts", "d run --rm --add-host there:1.2.3.4 box grep there /etc/hosts", "1.2.3.4\tthere", 0),
    case("read-only", "d run --rm --read-only box touch /x 2>/dev/null", "", 1),
    case(
        "tmpfs",
        "d run --rm --tmpfs /t:size=64k box sh -c 'grep \" /t \" /proc/mounts | cut -d\" \" -f3; dd if=/dev/zero of=/t/x bs=1k count=100 2>/dev/null || echo full'",
        "tmpfs\nfull",
        0,
    ),
    case(
        "shm",
        "d run --rm --shm-size 1m box sh -c 'df -k /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2'",
        "1024",
        0,
    ),
    case(
        "volume",
        "mkdir -p v; echo 1 >v/a; d run --rm -v $PWD/v:/v box sh -c 'cat /v/a; echo 2 >/v/b'; cat v/b",
        "1\n2",
        0,
    ),
    case("volume-read-only", "mkdir -p v; d run --rm -v $PWD/v:/v:ro box touch /v/x 2>/dev/null", "", 1),
    case(
        "named-volume",
        "d run --rm -v vol:/v box sh -c 'echo kept >/v/f'; d run --rm -v vol:/v box cat /v/f; d volume rm vol",
        "kept\nvol",
        0,
    ),
    case(
        "volumes-from",
        "d run --name c1 -v /v box sh -c 'echo shared >/v/f'; d run --rm --volumes-from c1 box cat /v/f",
        "shared",
        0,
    ),
    case(
        "mount-file",
        "echo text >f; d run --rm --mount type=bind,src=$PWD/f,dst=/etc/f box cat /etc/f",
        "text",
        0,
    ),
    case(
        "capabilities",
        "d run --rm --cap-drop=all --cap-add=chown box sh -c 'grep CapEff /proc/self/status; chown 1 /tmp; chroot / true 2>/dev/null || echo no'",
        "CapEff:\t0000000000000001\nno",
        0,
    ),
    case(
        "no-new-privileges",
        "d run --rm --security-opt=no-new-privileges box grep NoNewPrivs /proc/self/status",
        "NoNewPrivs:\t1",
        0,
    ),
    case("ulimit", "d run --rm --ulimit nofile=321:400 box sh -c 'ulimit -n; ulimit -Hn'", "321\n400", 0),
    case("sysctl", "d run --rm --sysctl kernel.msgmax=9999 box cat /proc/sys/kernel/msgmax", "9999", 0),
    case("network-none", "d run --rm --network=none box sh -c 'ip -o link | wc -l'", "1", 0),
    case("entrypoint", "d run --rm --entrypoint echo box a b", "a b", 0),
    case(
        "large-output",
        "d run --rm box sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" a' | wc -c",
        "3000000",
        0,
    ),
    case(
        "logs",
        "d run -d --name c1 box sh -c 'echo one; echo two >&2' >/dev/null; d wait c1; d logs c1 2>/dev/null; d logs c1 2>&1 >/dev/null",
        "0\none\ntwo",
        0,
    ),
    case(
        "logs-large",
        "d run --name c1 box seq 1 50000 >/dev/null; d logs c1 >o; seq 1 50000 | cmp - o && echo same",
        "same",
        0,
    ),
    case(
        "logs-follow",
        "d run -d --name c1 box sh -c 'echo a; sleep 1; echo b' >/dev/null; d logs -f c1",
        "a\nb",
        0,
    ),
    case(
        "exec",
        "d run -d --name c1 box sleep 100 >/dev/null; d exec c1 echo inside; d exec c1 sh -c 'exit 5'",
        "inside",
        5,
    ),
    case(
        "exec-stdin",
        "d run -d --name c1 box sleep 100 >/dev/null; seq 1 20000 | d exec -i c1 wc -l",
        "20000",
        0,
    ),
    case(
        "exec-options",
        "d run -d --name c1 -e A=1 box sleep 100 >/dev/null; d exec -e B=2 -w /tmp -u bob c1 sh -c 'echo $A $B; pwd; id -un'",
        "1 2\n/tmp\nbob",
        0,
    ),
    case(
        "exec-no-program",
        "d run -d --name c1 box sleep 100 >/dev/null; d exec c1 nonesuch >/dev/null 2>&1",
        "",
        126,
    ),
    case(
        "exec-tty",
        "d run -d --name c1 box sleep 100 >/dev/null; tty d exec -it c1 sh -c 'tty; for i in $(seq 50); do stty size 2>/dev/null | grep . && break; sleep 0.1; done'",
        "/dev/pts/0\n33 99",
        0,
    ),
    case(
        "exec-detached",
        "d run -d --name c1 box sleep 100 >/dev/null; d exec -d c1 sh -c 'echo x >/tmp/f; sleep 50'; for i in 1 2 3 4 5 6 7 8 9 10; do d exec c1 cat /tmp/f 2>/dev/null && break; sleep 0.3; done; d exec c1 ps -o args | grep -c '^sleep'",
        "x\n2",
        0,
    ),
    case("exec-killed", "d run -d --name c1 box sleep 100 >/dev/null; d exec c1 sh -c 'kill -9 $$'", "", 137),
    case(
        "exec-large",
        "d run -d --name c1 box sleep 100 >/dev/null; d exec c1 seq 1 100000 >o; seq 1 100000 | cmp - o && echo same",
        "same",
        0,
    ),
    case("exec-stopped", "d run --name c1 box true; d exec c1 true 2>/dev/null", "", 1),
    case(
        "tty",
        "tty d run --rm -it box sh -c 'tty; for i in $(seq 50); do stty size 2>/dev/null | grep . && break; sleep 0.1; done; ls -l /dev/console | cut -c1; echo $TERM'",
        "/dev/pts/0\n33 99\nc\nxterm",
        0,
    ),
    case(
        "tty-input",
        "printf 'echo $((6*7))\\nexit 3\\n' | tty d run --rm -it box sh | grep -c '^42'; d run --rm -t box sh -c 'exit 3'",
        "1",
        3,
    ),
    case("attach", "d run -d --name c1 box sh -c 'sleep 3; echo late' >/dev/null; d attach c1", "late", 0),
    case(
        "start-attach",
        "d create --name c1 box sh -c 'echo started; exit 4' >/dev/null; d start -a c1",
        "started",
        4,
    ),
    case(
        "stop",
        "d run -d --name c1 box sh -c 'trap \"echo bye; exit 9\" TERM; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; d stop c1; d logs c1; d inspect -f '{{.State.Status}} {{.State.ExitCode}}' c1",
        "c1\nbye\nexited 9",
        0,
    ),
    case(
        "stop-by-force",
        "d run -d --name c1 box sleep 100 >/dev/null; d stop -t 1 c1; d inspect -f '{{.State.Status}} {{.State.ExitCode}}' c1",
        "c1\nexited 137",
        0,
    ),
    case(
        "kill",
        "d run -d --name c1 box sleep 100 >/dev/null; d kill c1; d wait c1; d kill c1 2>/dev/null",
        "c1\n137",
        1,
    ),
    case(
        "kill-signal",
        "d run -d --name c1 box sh -c 'trap \"exit 3\" USR1; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; d kill -s USR1 c1; d wait c1",
        "c1\n3",
        0,
    ),
    case(
        "pause",
        "d run -d --name c1 box sleep 100 >/dev/null; d pause c1; d inspect -f '{{.State.Status}}' c1; d unpause c1; d inspect -f '{{.State.Status}}' c1; d exec c1 echo alive",
        "c1\npaused\nc1\nrunning\nalive",
        0,
    ),
    case(
        "top",
        "d run -d --name c1 box sleep 100 >/dev/null; d top c1 -o pid,comm | tail -1 | tr -s ' ' | cut -d' ' -f2",
        "sleep",
        0,
    ),
    case(
        "stats",
        "d run -d --name c1 box sleep 100 >/dev/null; d stats --no-stream --format '{{.Name}}' c1",
        "c1",
        0,
    ),
    case(
        "inspect",
        "d run -d --name c1 box sleep 100 >/dev/null; d inspect -f '{{.State.Running}} {{.HostConfig.Runtime}}' c1; kill -0 $(d inspect -f '{{.State.Pid}}' c1) && echo there",
        "true tested\nthere",
        0,
    ),
    case(
        "ps",
        "d run -d --name c1 box sleep 100 >/dev/null; d ps --format '{{.Names}} {{.Command}}'",
        "c1 \"sleep 100\"",
        0,
    ),
    case(
        "restart",
        "d run -d --name c1 box sh -c 'echo up; sleep 100' >/dev/null; d restart -t 0 c1; sleep 0.5; d logs c1",
        "c1\nup\nup",
        0,
    ),
    case(
        "restart-keeps-files",
        "d run --name c1 box sh -c 'echo x >>/f; wc -l </f'; d start -a c1",
        "1\n2",
        0,
    ),
    case(
        "restart-policy",
        "d run -d --name c1 --restart=on-failure:2 box sh -c 'echo try; exit 1' >/dev/null; for i in $(seq 100); do [ \"$(d inspect -f '{{.RestartCount}} {{.State.Status}}' c1)\" = '2 exited' ] && break; sleep 0.2; done; d logs c1",
        "try\ntry\ntry",
        0,
    ),
    case(
        "rm",
        "d run -d --name c1 box sleep 100 >/dev/null; d rm c1 2>/dev/null; d rm -f c1; d ps -aq",
        "c1",
        0,
    ),
    case(
        "copy-in",
        "d run -d --name c1 box sleep 100 >/dev/null; echo data >f; d cp f c1:/tmp/f; d exec c1 cat /tmp/f",
        "data",
        0,
    ),
    case(
        "copy-out",
        "d run -d --name c1 box sh -c 'echo inside >/tmp/o; sleep 100' >/dev/null; sleep 0.5; d cp c1:/tmp/o o; cat o",
        "inside",
        0,
    ),
    case(
        "commit",
        "d run --name c1 box sh -c 'echo changed >/new'; d diff c1 | grep /new; d commit c1 box2 >/dev/null; d run --rm box2 cat /new; d rmi -f box2 >/dev/null",
        "A /new\nchanged",
        0,
    ),
    case(
        "memory",
        "d run --rm --memory 64m box sh -c 'head -c 200000000 /dev/zero | tail >/dev/null; echo $?' | grep -v Killed",
        "137",
        0,
    ),
    case(
        "memory-shown",
        "d run -d --name c1 --memory 64m box sleep 100 >/dev/null; d stats --no-stream --format '{{.MemUsage}}' c1 | cut -d/ -f2 | tr -d ' '",
        "64MiB",
        0,
    ),
    case("cpus", "d run --rm --cpus 0.5 box echo fine", "fine", 0),
    case(
        "pids-limit",
        "d run --rm --pids-limit 10 box sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; wait' 2>&1 | grep -c \"can't fork\"",
        "1",
        0,
    ),
    case(
        "update",
        "d run -d --name c1 --cpus 1 box sleep 100 >/dev/null; d update --cpus 0.5 c1 && d exec c1 echo alive",
        "c1\nalive",
        0,
    ),
    case(
        "signal-proxy",
        "d run --rm --name c1 box sh -c 'trap \"echo caught; exit 6\" TERM; echo up; while :; do sleep 0.1; done' >out & while ! grep -q up out; do sleep 0.1; done; kill -TERM $!; wait $!; echo $?; cat out",
        "6\nup\ncaught",
        0,
    ),
    case(
        "healthcheck",
        "d run -d --name c1 --health-cmd 'test -e /bin/sh' --health-interval=1s box sleep 100 >/dev/null; for i in $(seq 100); do [ \"$(d inspect -f '{{.State.Health.Status}}' c1)\" = healthy ] && break; sleep 0.2; done; d inspect -f '{{.State.Health.Status}}' c1",
        "healthy",
        0,
    ),
    case(
        "device",
        "d run --rm --device /dev/null:/dev/nothing box sh -c 'echo x >/dev/nothing; ls -l /dev/nothing | cut -c1'",
        "c",
        0,
    ),
    case("init", "d run --rm --init box echo by init", "by init", 0),
    case("export", "d run --name c1 box true; d export c1 | tar -t | grep -c '^bin/busybox$'", "1", 0),
    case(
        "join-network",
        "d run -d --name c1 box sh -c 'echo answer | nc -l -p 8080; sleep 100' >/dev/null; sleep 0.5; d exec c1 nc 127.0.0.1 8080",
        "answer",
        0,
    ),
    case(
        "build",
        "printf 'FROM box\\nRUN echo built >/made\\nCMD cat /made\\n' >Dockerfile; DOCKER_BUILDKIT=0 d build -q -t box3 -f Dockerfile image >/dev/null 2>&1; d run --rm box3; d rmi -f box3 >/dev/null",
        "built",
        0,
    ),
    case(
        "network-host",
        "echo served >f; port=$((20000 + $$ % 10000)); busybox httpd -f -p 127.0.0.1:$port -h . & sleep 0.5; d run --rm --runtime=network --network=host box wget -qO- http://127.0.0.1:$port/f; kill $!",
        "served",
        0,
    ),
    case(
        "network-host-server",
        "port=$((20000 + $$ % 10000)); d run -d --runtime=network --network=host --name c1 box sh -c \"echo answer | nc -l -p $port\" >/dev/null; for i in $(seq 100); do busybox nc 127.0.0.1 $port </dev/null && break; sleep 0.1; done 2>/dev/null",
        "answer",
        0,
    ),
    case(
        "network-own",
        "d run --rm --runtime=network --network=none box sh -c 'ip -o link | wc -l; echo answer | nc -l -p 80 & sleep 0.5; nc 127.0.0.1 80 </dev/null'",
        "1\nanswer",
        0,
    ),
];

const KNOWN: &[Known] = &[(
    "top",
    "dockerd looks the pids of the container's processes up on the host, and they are the sandbox's own",
)];

const CLEANUP: &str =
    "d rm -fv $(d ps -aq) >/dev/null 2>&1; rm -rf v f o out Dockerfile; d volume rm vol >/dev/null 2>&1";

#[test]
fn docker() -> Result<()> {
    for program in ["dockerd", "docker", "containerd", "script", "tar"] {
        if clients::find(program).is_none() {
            eprintln!("skipped: docker: there is no {program}");
            return Ok(());
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: docker: dockerd needs root");
        return Ok(());
    }
    let place = Place::new()?;
    let cgroup = place.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let image = place.image()?;
    let dir = place.path().display();
    let network: Vec<&str> = match place.flags {
        [] => Vec::new(),
        flags => flags.iter().copied().chain(["--network=host"]).collect(),
    };
    let configuration = serde_json::json!({
        "runtimes": {
            "tested": {"path": place.runtime, "runtimeArgs": place.flags},
            "network": {"path": place.runtime, "runtimeArgs": network},
        },
        "default-runtime": "tested",
        "data-root": place.path().join("data"),
        "exec-root": place.path().join("exec"),
        "pidfile": place.path().join("pid"),
        "hosts": [format!("unix://{dir}/socket")],
        "storage-driver": "vfs",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": format!("/{cgroup}"),
        "bridge": "none",
        "iptables": false,
        "ip6tables": false,
    });
    let configuration = place.write("daemon.json", &configuration.to_string())?;
    place
        .program("d", &format!("exec /usr/bin/docker --config {dir}/client -H unix://{dir}/socket \"$@\""))?;
    let mut dockerd = Command::new(clients::find("dockerd").unwrap_or_default());
    dockerd.arg("--config-file").arg(configuration);
    dockerd.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let ready = || place.run("", "d version").is_ok_and(|output| output.status.success());
    let daemon = match Daemon::start(&mut dockerd, &place.path().join("log"), ready) {
        Ok(daemon) => daemon,
        Err(error) => {
            eprintln!("skipped: docker: {error:#}");
            return Ok(());
        }
    };
    place.run("", &format!("d import {} box; mkdir -p image", image.display()))?;
    let result = place.run_cases("docker", "export TERM=xterm", CLEANUP, CASES, KNOWN);
    drop(daemon);
    // dockerd leaves these two.
    place.run("", "umount exec/netns/default data")?;
    assert_eq!(clients::cgroups_left(&cgroup, &Default::default()), Vec::<std::path::PathBuf>::new());
    place
        .run("", &format!("for c in /sys/fs/cgroup/*/{cgroup} /sys/fs/cgroup/{cgroup}; do rmdir $c; done"))?;
    assert_eq!(clients::left_behind(place.path()), Vec::<String>::new());
    result
}
