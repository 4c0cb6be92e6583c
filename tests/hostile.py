"""Programs that attack: data for the sandbox tests and the soak.

ATTACKS: each prints PWNED when it gets what it wants. `{secret}`, `{folder}`, `{port}`, `{abstract}`,
`{victim}` are filled in by `fill`. Every one is bounded, so that it can be let loose in a plain subprocess,
where it must work. FORGERIES: wrong solutions of `solve(x) = 2 * x + 1` that talk a naive judge into a pass.
"""

from dataclasses import dataclass

PWNED = "PWNED"


@dataclass(frozen=True)
class Attack:
    source: str
    processes: int = 1
    plain: bool = True  # whether it prints PWNED when run unprotected (as root)
    statuses: str = "ok error crash memory cpu wall output"
    cpu_s: float = 1.0


def fill(attack: Attack, **facts: object) -> str:
    source = attack.source
    for name, value in facts.items():
        source = source.replace("{" + name + "}", str(value))
    return source


_SYSCALL = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def sysc(x86, arm, *a):
    number = x86 if platform.machine() == "x86_64" else arm
    return libc.syscall(number, *a)
"""

ATTACKS: dict[str, Attack] = {
    "fork bomb": Attack("""
import os, time
made = 0
for _ in range(40):
    try:
        if os.fork() == 0:
            time.sleep(3); os._exit(0)
        made += 1
    except OSError:
        break
if made >= 30: print("PWNED")
"""),
    "fork bomb where programs are allowed": Attack(
        """
import os, time
made = 0
for _ in range(60):
    try:
        if os.fork() == 0:
            time.sleep(3); os._exit(0)
        made += 1
    except OSError:
        break
if made >= 30: print("PWNED")
""",
        processes=16,
    ),
    "700 MB in one process": Attack(
        "x = bytearray(700 << 20)\nx[::4096] = b'1' * len(x[::4096])\nprint('PWNED')",
    ),
    "six children of 130 MB": Attack(
        """
import os, time
r, w = os.pipe()
stay, go = os.pipe()
for _ in range(6):
    if os.fork() == 0:
        os.close(go)
        x = bytearray(130 << 20); x[::4096] = b'1' * len(x[::4096])
        os.write(w, b'x'); os.close(w); os.read(stay, 1); os._exit(0)
os.close(w)
got = b''
while len(got) < 6 and (part := os.read(r, 6)): got += part
if len(got) == 6:
    time.sleep(0.3)  # a shorter burst passes without a cgroup
    if os.waitpid(-1, os.WNOHANG) == (0, 0): print("PWNED", flush=True)  # all six are alive
""",
        processes=16,
        cpu_s=4.0,
    ),
    "fill the disk": Attack("""
with open("big", "wb") as f:
    for _ in range(64): f.write(bytes(1 << 20))
print("PWNED")
"""),
    "use up inodes": Attack("for i in range(5000): open(f'f{i}', 'w').close()\nprint('PWNED')"),
    "infinite loop": Attack("print('PWNED', flush=True)\nwhile True: pass", plain=False, statuses="cpu"),
    "ignore signals and sleep": Attack(
        "import signal, time\nfor s in range(1, 65):\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "for _ in range(100): time.sleep(1)",
        plain=False,
        statuses="wall",
    ),
    "stop itself": Attack(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGSTOP)\nos.abort()\n",
        plain=False,
        statuses="wall crash error",
    ),
    "double-fork daemon": Attack(
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1.5)
        open("{folder}/daemon", "w").close()
    os._exit(0)
time.sleep(0.1)
""",
        processes=8,
        plain=False,  # it leaves a file instead
    ),
    "daemon holds stdout": Attack(
        "import os, time\nif os.fork() == 0:\n    time.sleep(30); os._exit(0)\nprint('done')",
        processes=8,
        plain=False,
    ),
    "read a secret file": Attack("print(open('{secret}').read() and 'PWNED')"),
    "read /etc/shadow or passwd": Attack("print(open('/etc/passwd').read() and 'PWNED')"),
    "write outside": Attack("open('{folder}/planted', 'w').write('x')\nprint('PWNED')"),
    "link to a secret": Attack(
        "import os\nos.symlink('{secret}', 'link')\nprint(open('link').read() and 'PWNED')"
    ),
    "parent's environment": Attack(
        "import os\nif open(f'/proc/{os.getppid()}/environ', 'rb').read(): print('PWNED')"
    ),
    "own environment": Attack("import os\nif os.environ.get('VERTIGYM_TEST_SECRET'): print('PWNED')"),
    "memory of another": Attack("open('/proc/{victim}/mem', 'rb').close()\nprint('PWNED')"),
    "ptrace another": Attack(
        _SYSCALL
        + """
if sysc(101, 117, 16, {victim}, 0, 0) == 0:
    os.waitpid({victim}, 0x40000000); sysc(101, 117, 17, {victim}, 0, 0); print("PWNED")
"""
    ),
    "signal another": Attack("import os\nos.kill({victim}, 0)\nprint('PWNED')"),
    "signal by descriptor owner": Attack(
        "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, {victim})\nprint('PWNED')"
    ),
    "limits of another": Attack(
        "import resource\nresource.prlimit({victim}, resource.RLIMIT_CORE)\nprint('PWNED')"
    ),
    "TCP": Attack("import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)\nprint('PWNED')"),
    "abstract socket": Attack(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0{abstract}')\nprint('PWNED')"
    ),
    "new user namespace": Attack(_SYSCALL + "if sysc(272, 97, 0x10000000) == 0: print('PWNED')"),
    "new mount namespace": Attack(_SYSCALL + "if sysc(272, 97, 0x20000) == 0: print('PWNED')"),
    "become root": Attack("import os\nos.setuid(0)\nos.setgroups([0])\nprint('PWNED')"),
    "raw devices": Attack("import os\nos.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)\nprint('PWNED')"),
    "shared memory": Attack(_SYSCALL + "if sysc(29, 194, 0x7E57, 4096, 0o1666) >= 0: print('PWNED')"),
    "message queue": Attack(_SYSCALL + "if sysc(68, 186, 0x7E57, 0o1666) >= 0: print('PWNED')"),
    "keyring": Attack(
        _SYSCALL + "if sysc(248, 217, b'user', b'vertigym-test', b'x', 1, -2) > 0: print('PWNED')", plain=False
    ),
    "perf, bpf, io_uring, userfaultfd": Attack(
        _SYSCALL
        + """
attr = ctypes.create_string_buffer(128)
calls = (sysc(425, 425, 1, attr), sysc(323, 282, 0), sysc(321, 280, 0, attr, 64), sysc(319, 279, b"x", 0))
if any(c >= 0 for c in calls): print("PWNED")
"""
    ),
    "run a shell": Attack("import os\nos.execv('/bin/sh', ['sh', '-c', 'echo PWNED'])"),
    "flood stdout": Attack(
        "import os\nline = b'PWNED' * 13000\nfor _ in range(1500): os.write(1, line)", statuses="output error"
    ),
    "huge exception": Attack("raise ValueError('PWNED' * (20 << 20))", plain=False),
    "segmentation fault": Attack(
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\n"
        "import ctypes\nctypes.string_at(0)",
        plain=False,
        statuses="crash",
    ),
    "invalid UTF-8": Attack("import os\nos.write(1, b'\\xff\\xfe\\x00')", plain=False, statuses="ok"),
    "inherited descriptors": Attack(
        """
import os, stat
for fd in range(3, 1024):
    try: state = os.fstat(fd)
    except OSError: continue
    if stat.S_ISSOCK(state.st_mode): print("PWNED")
""",
        plain=False,
    ),
}

# Each defines (or evades defining) `solve`; none computes 2 * x + 1.
FORGERIES: dict[str, str] = {
    "exit 0 on import": "import sys\nsys.exit(0)",
    "hard exit on import": "import os\nos._exit(0)",
    "hard exit when called": "import os\ndef solve(x): os._exit(0)",
    "SystemExit when called": "def solve(x): raise SystemExit(0)",
    "exit 0 at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef solve(x): return 0",
    "exit 0 in excepthook": ("import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef solve(x): return 0"),
    "print the marker": ("import os\ndef solve(x):\n    os.write(1, b'ALL TESTS PASSED\\n')\n    os._exit(0)"),
    "equal to everything": (
        "class Yes:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "def solve(x): return Yes()"
    ),
    "an int equal to everything": (
        "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def solve(x): return Yes(0)"
    ),
    "expected values from the caller's constants": """
import sys
def solve(x):
    consts = sys._getframe(1).f_code.co_consts
    numbers = [c for c in consts if isinstance(c, int) and not isinstance(c, bool)]
    return numbers[numbers.index(x) + 1]
""",
    "expected values from the collector": """
import gc, types
def solve(x):
    for o in gc.get_objects():
        if isinstance(o, types.FunctionType) and o.__name__ == "check":
            numbers = [c for c in o.__code__.co_consts if isinstance(c, int)]
            return numbers[numbers.index(x) + 1]
""",
    "nonce from the arguments": """
import os, sys
def solve(x):
    os.write(1, (sys.argv[1] + "\\nALL TESTS PASSED\\n").encode())
    os._exit(0)
""",
    "nonce from a frame": """
import os, sys
def solve(x):
    frame = sys._getframe(1)
    while frame:
        if "nonce" in frame.f_globals:
            os.write(1, (frame.f_globals["nonce"] + "\\n").encode())
            os._exit(0)
        frame = frame.f_back
""",
    "run again without asserts": """
import sys, os
if __debug__: os.execv(sys.executable, [sys.executable, "-O", *sys.orig_argv[1:]])
def solve(x): return 0
""",
    "become a program that prints the marker": (
        "import os\ndef solve(x): os.execv('/bin/echo', ['echo', 'ALL TESTS PASSED'])"
    ),
    "exit 0 in a signal handler": """
import os, signal
signal.signal(signal.SIGALRM, lambda *a: os._exit(0))
def solve(x): signal.raise_signal(signal.SIGALRM)
""",
    "trace the asserts away": """
import sys
def skip(frame, event, arg):
    if event == "exception":
        import os
        os.write(1, b"ALL TESTS PASSED\\n"); os._exit(0)
    return skip
def solve(x):
    frame = sys._getframe(1)
    frame.f_trace = skip
    sys.settrace(skip)
    return 0
""",
    "an object that unpickles as code": (
        "class Evil:\n    def __reduce__(self):\n"
        '        return (exec, ("import builtins; builtins.vertigym_pwned = 1",))\n'
        "def solve(x): return Evil()"
    ),
}
