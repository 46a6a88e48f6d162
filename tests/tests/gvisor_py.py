"""Goes through the whole API of the PyPI package `gvisor`; prints a line for each thing that works."""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from gvisor import Error, Mount, NetworkMode, Sandbox


def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def fails(call, text):
    try:
        call()
    except Error as error:
        assert text in str(error), f"{text!r} is not in {error}"
        return
    raise AssertionError(f"no error that says {text!r}")


def processes(sandbox):
    """What runs inside, without the shell that looks."""
    return sandbox.exec("sh", "-c", "cat /proc/[0-9]*/comm")[0].split()


def done(what):
    print(what, flush=True)


with Sandbox() as box:
    same(box.exec("echo", "hi"), ("hi\n", ""))
    same(box.exec("sh", "-c", "echo out; echo err >&2"), ("out\n", "err\n"))
    done("exec")
    same(box.exec("pwd", cwd="usr")[0], "/usr\n")
    same(box.exec("sh", "-c", "echo $A", env={"A": "b c"})[0], "b c\n")
    same(box.exec("sh", "-c", "echo $A$PATH", env=["A=1"])[0], "1/bin:/usr/bin:/usr/local/bin\n")
    done("cwd and env")
    fails(lambda: box.exec("sh", "-c", "echo why >&2; exit 3"), "why")
    fails(lambda: box.exec("nonesuch"), "nonesuch")
    fails(lambda: box.exec("touch", "/x"), "Read-only")
    done("errors")
    fails(lambda: box.exec("sleep", "1000", timeout=1), "timed out")
    while processes(box).count("sleep") > 1:
        pass
    done("what timed out is gone")
    same(len(box.exec("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' a")[0]), 3000000)
    done("large output")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: box.exec("echo", str(n))[0], range(16)))
    same(results, [f"{n}\n" for n in range(16)])
    done("at the same time")
same(os.path.exists(box.bundle_dir), False)
done("closed")

data = tempfile.mkdtemp()
with open(f"{data}/f", "w") as file:
    file.write("data")
mounts = [
    Mount.bind(data, "/data"),
    Mount.bind(data, "/ro", readonly=True),
    Mount.tmpfs("/t"),
    Mount.proc("/p"),
    {"destination": "/dict", "source": data, "type": "bind"},
]
with Sandbox(env={"X": "1"}, mounts=mounts, working_dir="data", sandbox_id="my-box") as box:
    same(box.id, "my-box")
    same(box.exec("cat", "f")[0], "data")
    same(box.exec("sh", "-c", "echo $X")[0], "1\n")
    box.exec("sh", "-c", "echo new >/data/g")
    with open(f"{data}/g") as file:
        same(file.read(), "new\n")
    fails(lambda: box.exec("touch", "/ro/x"), "Read-only")
    box.exec("sh", "-c", "echo x >/t/x")
    same(box.exec("cat", "/p/1/comm")[0], "sleep\n")
    with open(f"{data}/late", "w") as file:
        file.write("late")
    same(box.exec("cat", "/dict/late")[0], "late")
done("mounts")

fails(lambda: Sandbox(mounts=[Mount.bind("/nonesuch", "/x")]), "/nonesuch")
done("a sandbox that cannot be made")

for name in sys.argv[1:]:
    with Sandbox(network=NetworkMode(name)) as box:
        assert "lo:" in box.exec("cat", "/proc/net/dev")[0]
    done(f"network {name}")
