//! Podman, with conmon, drives `runsc`.

use anyhow::Result;
use runsc_tests::clients::{self, Case, Known, Place, case};

/// `p` is podman, and `box` the image. `tty` runs a command with a terminal of 33 rows and 99 columns.
const CASES: &[Case] = &[
    case("run", "p run --rm box echo hello", "hello", 0),
    case("exit-code", "p run --rm box sh -c 'exit 7'", "", 7),
    case("killed", "p run --rm box sh -c 'sh -c \"kill -9 \\$\\$\"; echo $?'", "137", 0),
    case("no-program", "p run --rm box nonesuch", "", 127),
    case("no-permission", "p run --rm box /etc/passwd", "", 126),
    case("stdin", "echo in | p run --rm -i box cat", "in", 0),
    case("stderr", "p run --rm box sh -c 'echo out; echo err >&2' 2>/dev/null", "out", 0),
    case(
        "environment",
        "p run --rm -e A=B -w /tmp -h here box sh -c 'echo $A; pwd; hostname'",
        "B\n/tmp\nhere",
        0,
    ),
    case("user", "p run --rm -u bob box id", "uid=1000(bob) gid=100(users) groups=100(users),10(wheel)", 0),
    case("user-number", "p run --rm -u 5:6 box sh -c 'id -u; id -g'", "5\n6", 0),
    case("read-only", "p run --rm --read-only --read-only-tmpfs=false box touch /x 2>/dev/null", "", 1),
    case(
        "tmpfs",
        "p run --rm --tmpfs /t:size=64k box sh -c 'grep \" /t \" /proc/mounts | cut -d\" \" -f3; dd if=/dev/zero of=/t/x bs=1k count=100 2>/dev/null || echo full'",
        "tmpfs\nfull",
        0,
    ),
    case(
        "volume",
        "mkdir -p v; echo 1 >v/a; p run --rm -v ./v:/v box sh -c 'cat /v/a; echo 2 >/v/b'; cat v/b",
        "1\n2",
        0,
    ),
    case("volume-read-only", "mkdir -p v; p run --rm -v ./v:/v:ro box touch /v/x 2>/dev/null", "", 1),
    case(
        "named-volume",
        "p volume create vol >/dev/null; p run --rm -v vol:/v box sh -c 'echo kept >/v/f'; p run --rm -v vol:/v box cat /v/f; p volume rm vol >/dev/null",
        "kept",
        0,
    ),
    case(
        "capabilities",
        "p run --rm --cap-drop=all --cap-add=chown box sh -c 'grep CapEff /proc/self/status; chown 1 /tmp; chroot / true 2>/dev/null || echo no'",
        "CapEff:\t0000000000000001\nno",
        0,
    ),
    case(
        "no-new-privileges",
        "p run --rm --security-opt=no-new-privileges box grep NoNewPrivs /proc/self/status",
        "NoNewPrivs:\t1",
        0,
    ),
    case(
        "ulimit",
        "p run --rm --ulimit nofile=321:400 --ulimit nproc=9999:9999 box sh -c 'ulimit -n; ulimit -Hn'",
        "321\n400",
        0,
    ),
    case("sysctl", "p run --rm --sysctl kernel.msgmax=9999 box cat /proc/sys/kernel/msgmax", "9999", 0),
    case("network-none", "p run --rm --network=none box sh -c 'ip -o link | wc -l'", "1", 0),
    case("entrypoint", "p run --rm --entrypoint '[\"echo\",\"a\"]' box b", "a b", 0),
    case(
        "large-output",
        "p run --rm box sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" a' | wc -c",
        "3000000",
        0,
    ),
    case(
        "logs",
        "p run -d --name c box sh -c 'echo one; echo two >&2' >/dev/null; p wait c; p logs c 2>/dev/null; p logs c 2>&1 >/dev/null",
        "0\none\ntwo",
        0,
    ),
    case(
        "logs-large",
        "p run --name c box seq 1 50000 >/dev/null; p logs c >o; seq 1 50000 | cmp - o && echo same",
        "same",
        0,
    ),
    case(
        "logs-follow",
        "p run -d --name c box sh -c 'echo a; sleep 1; echo b' >/dev/null; p logs -f c",
        "a\nb",
        0,
    ),
    case(
        "exec",
        "p run -d --name c box sleep 100 >/dev/null; p exec c echo inside; p exec c sh -c 'exit 5'",
        "inside",
        5,
    ),
    case(
        "exec-stdin",
        "p run -d --name c box sleep 100 >/dev/null; seq 1 20000 | p exec -i c wc -l",
        "20000",
        0,
    ),
    case(
        "exec-options",
        "p run -d --name c -e A=1 box sleep 100 >/dev/null; p exec -e B=2 -w /tmp -u bob c sh -c 'echo $A $B; pwd; id -un'",
        "1 2\n/tmp\nbob",
        0,
    ),
    case(
        "exec-no-program",
        "p run -d --name c box sleep 100 >/dev/null; p exec c nonesuch 2>/dev/null",
        "",
        127,
    ),
    case(
        "exec-tty",
        "p run -d --name c box sleep 100 >/dev/null; tty p exec -it c sh -c 'tty; for i in $(seq 50); do stty size 2>/dev/null | grep . && break; sleep 0.1; done'",
        "/dev/pts/0\n33 99",
        0,
    ),
    case(
        "exec-detached",
        "p run -d --name c box sleep 100 >/dev/null; p exec -d c sh -c 'echo x >/tmp/f; sleep 50' >/dev/null; for i in 1 2 3 4 5 6 7 8 9 10; do p exec c cat /tmp/f 2>/dev/null && break; sleep 0.3; done; p exec c ps -o args | grep -c '^sleep'",
        "x\n2",
        0,
    ),
    case("exec-killed", "p run -d --name c box sleep 100 >/dev/null; p exec c sh -c 'kill -9 $$'", "", 137),
    case(
        "exec-large",
        "p run -d --name c box sleep 100 >/dev/null; p exec c seq 1 100000 >o; seq 1 100000 | cmp - o && echo same",
        "same",
        0,
    ),
    case("exec-stopped", "p run --name c box true; p exec c true 2>/dev/null", "", 255),
    case(
        "tty",
        "tty p run --rm -it box sh -c 'tty; for i in $(seq 50); do stty size 2>/dev/null | grep . && break; sleep 0.1; done; ls -l /dev/console | cut -c1; echo $TERM'",
        "/dev/pts/0\n33 99\nc\nxterm",
        0,
    ),
    case(
        "tty-input",
        "printf 'echo $((6*7))\\nexit 3\\n' | tty p run --rm -it box sh | grep -c '^42'; p run --rm -t box sh -c 'exit 3'",
        "1",
        3,
    ),
    case(
        "attach",
        "p run -d -i --name c box sh -c 'read x; echo got $x' >/dev/null; (sleep 1; echo line) | p attach c",
        "got line",
        0,
    ),
    case(
        "start-attach",
        "p create --name c box sh -c 'echo started; exit 4' >/dev/null; p start -a c",
        "started",
        4,
    ),
    case(
        "stop",
        "p run -d --name c box sh -c 'trap \"echo bye; exit 9\" TERM; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; p stop c; p logs c; p inspect -f '{{.State.Status}} {{.State.ExitCode}}' c",
        "c\nbye\nexited 9",
        0,
    ),
    case(
        "stop-by-force",
        "p run -d --name c box sleep 100 >/dev/null; p stop -t 1 c; p inspect -f '{{.State.Status}} {{.State.ExitCode}}' c",
        "c\nexited 137",
        0,
    ),
    case(
        "kill",
        "p run -d --name c box sleep 100 >/dev/null; p kill c; p wait c; p kill c 2>/dev/null",
        "c\n137",
        125,
    ),
    case(
        "kill-signal",
        "p run -d --name c box sh -c 'trap \"exit 3\" USR1; while :; do sleep 0.1; done' >/dev/null; sleep 0.5; p kill -s USR1 c; p wait c",
        "c\n3",
        0,
    ),
    case(
        "pause",
        "p run -d --name c box sh -c 'i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.05; done' >/dev/null; p pause c; p inspect -f '{{.State.Status}}' c; p unpause c; p inspect -f '{{.State.Status}}' c; p exec c test -s /tmp/n",
        "c\npaused\nc\nrunning",
        0,
    ),
    case("top", "p run -d --name c box sleep 100 >/dev/null; p top c args | tail -n +2", "sleep 100", 0),
    case(
        "top-columns",
        "p run -d --name c -u bob box sh -c 'sleep 100 & exec sleep 101' >/dev/null; sleep 0.5; p exec -d c sleep 102 >/dev/null; p top c user args comm | tail -n +2 | sort -k3 | tr -s ' ' | sed 's/ $//'; p top c pid hpid huser | tail -n 1 | grep -c '?'",
        "bob sleep 100 sleep\nbob sleep 101 sleep\nbob sleep 102 sleep\n1",
        0,
    ),
    case("top-ps", "p run -d --name c box sleep 100 >/dev/null; p top c -ef | grep -c 'sleep 100'", "1", 0),
    case(
        "stats",
        "p run -d --name c box sleep 100 >/dev/null; p stats --no-stream --format '{{.Name}}' c",
        "c",
        0,
    ),
    case(
        "inspect",
        "p run -d --name c box sleep 100 >/dev/null; p inspect -f '{{.State.Running}} {{.OCIRuntime}}' c | sed \"s|$RUNTIME|R|\"; kill -0 $(p inspect -f '{{.State.Pid}}' c) && echo there",
        "true R\nthere",
        0,
    ),
    case(
        "ps",
        "p run -d --name c box sleep 100 >/dev/null; p ps --format '{{.Names}} {{.Command}}'",
        "c sleep 100",
        0,
    ),
    case(
        "restart",
        "p run -d --name c box sh -c 'echo up; sleep 100' >/dev/null; p restart -t 0 c; sleep 0.5; p logs c",
        "c\nup\nup",
        0,
    ),
    case("restart-keeps-files", "p run --name c box sh -c 'echo x >>/f; wc -l </f'; p start -a c", "1\n2", 0),
    case(
        "restart-policy",
        "p run -d --name c --restart=on-failure:2 box sh -c 'echo try; exit 1' >/dev/null; sleep 4; p logs c",
        "try\ntry\ntry",
        0,
    ),
    case(
        "rm",
        "p run -d --name c box sleep 100 >/dev/null; p rm c 2>/dev/null; p rm -f -t 0 c; p ps -aq",
        "c",
        0,
    ),
    case(
        "copy-in",
        "p run -d --name c box sleep 100 >/dev/null; echo data >f; p cp f c:/tmp/f; p exec c cat /tmp/f",
        "data",
        0,
    ),
    case(
        "copy-out",
        "p run -d --name c box sh -c 'echo inside >/tmp/o; sleep 100' >/dev/null; sleep 0.5; p cp c:/tmp/o o; cat o",
        "inside",
        0,
    ),
    case(
        "copy-directory",
        "mkdir -p v/d; echo x >v/d/f; chmod 640 v/d/f; ln -s d/f v/l; mkfifo v/fifo; p run -d --name c box sleep 100 >/dev/null; p cp v c:/tmp/; p exec c sh -c 'cd /tmp/v; stat -c \"%a %U %n\" d/f; readlink l; cat l; echo y >d/f'; p cp c:/tmp/v o; readlink o/l; cat o/l; stat -c %F o/fifo; rm -rf o",
        "640 root d/f\nd/f\nx\nd/f\ny\nfifo",
        0,
    ),
    case(
        "copy-owner",
        "echo x >f; p run -d --name c -u bob box sleep 100 >/dev/null; p cp f c:/tmp/f; p exec -u root c sh -c 'stat -c %U /tmp/f; chown 7:8 /tmp/f; stat -c %u:%g /tmp/f'; p cp c:/tmp/f - | tar -tvf - --numeric-owner | cut -d' ' -f2",
        // On the way out, all is the user's.
        "bob\n7:8\n1000/100",
        0,
    ),
    case(
        "copy-mounts",
        "mkdir -p v; echo 1 >v/a; echo 2 >f; p run -d --name c --tmpfs /t -v ./v:/v box sleep 100 >/dev/null; p cp f c:/t/f; p exec c cat /t/f; p exec c sh -c 'echo 3 >/t/g; ln -s /t/g /tmp/link'; p cp c:/tmp/link o; cat o; p cp c:/v/a o; cat o; p cp f c:/v/b; cat v/b",
        "2\n3\n1\n2",
        0,
    ),
    case(
        "copy-large",
        "head -c 20000000 /dev/urandom >f; p run -d --name c box sleep 100 >/dev/null; p cp f c:/tmp/f; p cp c:/tmp/f o; cmp f o && echo same",
        "same",
        0,
    ),
    case(
        "copy-nothing",
        "p run -d --name c box sleep 100 >/dev/null; p cp c:/nonesuch o 2>/dev/null; ls o 2>/dev/null",
        "",
        2,
    ),
    case(
        "copy-pod",
        "p pod create --name pod --infra-image box --infra-command 'sleep 1000' >/dev/null && p run -d --pod pod --name c box sleep 100 >/dev/null; echo x >f; p cp f c:/tmp/f-of-c; ls /tmp/f-of-c 2>/dev/null; p exec c cat /tmp/f-of-c; p top c args | tail -n +2; p pod rm -f -t 0 pod >/dev/null",
        "x\nsleep 100",
        0,
    ),
    case(
        "copy-stopped",
        "echo data >f; p create --name c box cat /tmp/f >/dev/null; p cp f c:/tmp/f; p start -a c; p cp c:/tmp/f o; cat o",
        "data\ndata",
        0,
    ),
    // Without `podman diff`: with the vfs driver it misses changes at times, with runc as well.
    case(
        "commit",
        "p run --name c box sh -c 'echo changed >/new'; p commit -q c box2 >/dev/null; p run --rm box2 cat /new; p rmi -f box2 >/dev/null",
        "changed",
        0,
    ),
    case(
        "memory",
        "p run --rm --memory 64m box sh -c 'head -c 200000000 /dev/zero | tail >/dev/null; echo $?' | grep -v Killed",
        "137",
        0,
    ),
    case(
        "memory-shown",
        "p run -d --name c --memory 64m box sleep 100 >/dev/null; p stats --no-stream --format '{{.MemUsage}}' c | cut -d/ -f2",
        "67.11MB",
        0,
    ),
    case("cpus", "p run --rm --cpus 0.5 box sh -c 'echo fine'", "fine", 0),
    case(
        "pids-limit",
        "p run --rm --pids-limit 10 box sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; wait' 2>&1 | grep -c \"can't fork\"",
        "1",
        0,
    ),
    case(
        "update",
        "p run -d --name c --cpus 1 box sleep 100 >/dev/null; p update --cpus 0.5 c >/dev/null && p exec c echo alive",
        "alive",
        0,
    ),
    case(
        "signal-proxy",
        "p run --rm --name c box sh -c 'trap \"echo caught; exit 6\" TERM; echo up; while :; do sleep 0.1; done' >out & sleep 1; while ! grep -q up out; do sleep 0.1; done; kill -TERM $!; wait $!; echo $?; cat out",
        "6\nup\ncaught",
        0,
    ),
    case(
        "healthcheck",
        "p run -d --name c --health-cmd 'test -e /bin/sh' --health-interval=disable box sleep 100 >/dev/null; p healthcheck run c; echo $?",
        "0",
        0,
    ),
    case("hooks", "p run --rm --annotation org.example.key=v box true; echo $?", "0", 0),
    case(
        "device",
        "p run --rm --device /dev/null:/dev/nothing box sh -c 'echo x >/dev/nothing; ls -l /dev/nothing | cut -c1'",
        "c",
        0,
    ),
    case("privileged", "p run --rm --privileged box grep -c CapEff /proc/self/status", "1", 0),
    case("timeout", "p run --rm --timeout 1 box sleep 100; echo $?", "255", 0),
    case("export", "p run --name c box true; p export c | tar -t | grep -c '^bin/busybox$'", "1", 0),
    case(
        "pod",
        "p pod create --name pod --infra-image box --infra-command 'sleep 1000' >/dev/null && p run --rm --pod pod box hostname && p run -d --pod pod --name c box sleep 100 >/dev/null && p exec c hostname; p pod ps --format '{{.Name}} {{.Status}}'; p pod rm -f -t 0 pod >/dev/null",
        "pod\npod\npod Running",
        0,
    ),
    case(
        "pod-network",
        "p pod create --name pod --infra-image box --infra-command 'sleep 1000' >/dev/null && p run -d --pod pod --name s box sh -c 'echo answer | nc -l -p 8080' >/dev/null && sleep 1 && p run --rm --pod pod box nc 127.0.0.1 8080; p pod rm -f -t 0 pod >/dev/null",
        "answer",
        0,
    ),
    case(
        "pod-stop",
        "p pod create --name pod --infra-image box --infra-command 'sleep 1000' >/dev/null && p run -d --pod pod --name c box sleep 100 >/dev/null; p pod stop -t 1 pod >/dev/null; p inspect -f '{{.State.Status}}' c; p pod start pod >/dev/null; p exec c echo again; p pod rm -f -t 0 pod >/dev/null",
        "exited\nagain",
        0,
    ),
];

const KNOWN: &[Known] = &[];

const CLEANUP: &str = "p pod rm -fa -t 0 >/dev/null 2>&1; p rm -fa -t 0 >/dev/null 2>&1; rm -rf v f o out";

/// Makes the programs `p` and `tty`, and returns what scripts begin with.
fn prelude(place: &Place) -> Result<String> {
    let dir = place.path().display();
    let flags: String =
        place.flags.iter().map(|flag| format!(" --runtime-flag {}", flag.trim_start_matches('-'))).collect();
    let storage = place.write(
        "storage.conf",
        &format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{dir}/run\"\ngraphroot = \"{dir}/root\"\n"),
    )?;
    let conf = place.write(
        "containers.conf",
        // The limits that Podman would set need CAP_SYS_RESOURCE, which a machine's root may lack.
        "[containers]\nnetns = \"none\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=10000:10000\"]\n",
    )?;
    place.program(
        "p",
        &format!(
            "exec podman{flags} --root {dir}/root --runroot {dir}/run --tmpdir {dir}/tmp --storage-driver=vfs \
             --cgroup-manager=cgroupfs --events-backend=file --log-level=error --runtime {} \"$@\"",
            place.runtime.display()
        ),
    )?;
    Ok(format!(
        "export CONTAINERS_CONF={} CONTAINERS_STORAGE_CONF={} XDG_RUNTIME_DIR={dir}/xdg RUNTIME={} TERM=xterm\n\
         mkdir -p xdg",
        conf.display(),
        storage.display(),
        place.runtime.display(),
    ))
}

#[test]
fn podman() -> Result<()> {
    for program in ["podman", "conmon", "script", "tar"] {
        if clients::find(program).is_none() {
            eprintln!("skipped: podman: there is no {program}");
            return Ok(());
        }
    }
    let _groups = clients::NewCgroups::of(&["libpod_parent"]);
    let place = Place::new()?;
    let cgroups = clients::cgroups("libpod_parent");
    let image = place.image()?;
    let prelude = prelude(&place)?;
    let output = place.run(&prelude, &format!("p import -q {} box", image.display()))?;
    if !output.status.success() {
        eprintln!("skipped: podman cannot work here: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Ok(());
    }
    let result = place.run_cases("podman", &prelude, CLEANUP, CASES, KNOWN);
    place.run(&prelude, "p system reset -f")?;
    assert_eq!(clients::cgroups_left("libpod_parent", &cgroups), Vec::<std::path::PathBuf>::new());
    assert_eq!(clients::left_behind(place.path()), Vec::<String>::new());
    result
}

/// Without root, by a user who has no line in /etc/subuid.
const ROOTLESS: &[Case] = &[
    case("run", "p run --rm box sh -c 'id -u; exit 6'", "0", 6),
    case(
        "exec",
        "p run -d --name c box sleep 100 >/dev/null; p exec c sh -c 'echo inside; exit 5'",
        "inside",
        5,
    ),
    case("exec-tty", "p run -d --name c box sleep 100 >/dev/null; p exec -it c tty", "/dev/pts/0", 0),
    case(
        "logs-and-kill",
        "p run -d --name c box sh -c 'echo up; exec sleep 100' >/dev/null; until p logs c | grep up; do sleep 0.1; done; p kill c; p wait c",
        "up\nc\n137",
        0,
    ),
];

#[test]
fn podman_rootless() -> Result<()> {
    for program in ["podman", "conmon", "setpriv", "tar"] {
        if clients::find(program).is_none() {
            eprintln!("skipped: podman, rootless: there is no {program}");
            return Ok(());
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: podman, rootless: needs root to become another user");
        return Ok(());
    }
    let mut place = Place::new()?;
    let image = place.image()?;
    // Where that user may go.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
    };
    open(place.path(), 0o777)?;
    let binary = place.path().join("bin/runtime");
    // By a process of its own: a file that another thread's child has open for writing cannot be executed.
    std::process::Command::new("cp").arg(&place.runtime).arg(&binary).status()?;
    place.runtime = binary;
    let prelude = prelude(&place)?;
    std::fs::rename(place.path().join("bin/p"), place.path().join("bin/podman-here"))?;
    place.program("p", "exec setpriv --reuid=1999 --regid=1999 --clear-groups podman-here \"$@\"")?;
    place.write(
        "storage.conf",
        "[storage]\ndriver = \"vfs\"\n[storage.options.vfs]\nignore_chown_errors = \"true\"\n",
    )?;
    let prelude = format!("{prelude}; export HOME=$PWD/home; mkdir -p home; chown 1999:1999 home xdg");
    let output = place.run(&prelude, &format!("p import -q {} box", image.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        eprintln!("skipped: podman, rootless: it cannot work here: {}", said.trim());
        return Ok(());
    }
    let result = place.run_cases("podman, rootless", &prelude, CLEANUP, ROOTLESS, &[]);
    place.run(&prelude, "p system reset -f")?;
    assert_eq!(clients::left_behind(place.path()), Vec::<String>::new());
    result
}
