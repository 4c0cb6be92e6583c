"""A seeded grammar of hostile programs; `hostile_judge` counts what they get.

A program is made of one to four attacks of random kinds, each at a random place (on import, in the call, at
exit, in a destructor, a signal handler or another thread), around a wrong solution of `solve(x) = 2 * x + 1`.
`{folder}`, `{lock}`, `{port}`, `{abstract}` and `{victim}` are facts of the machine that it is let loose on.
"""

import random
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

# What a program tries, by kind. `?a|b?` is a choice, drawn anew each time it occurs.
ATTACKS: Mapping[str, Sequence[str]] = {
    "forge rows": (
        'os.write(4, b\'["value","?7|true|21|{{\\"opaque\\":\\"x\\"}}?"]\\n\' * ?1|3|2000?)',
        'os.write(4, b\'["loaded"]\\n["value","?7|null?"]\\n\')\nos._exit(0)',
        'os.write(4, b\'["raised","","?x|?"]\\n\' * 9)',
        "os.lseek(4, 0, ?0|2?)\nos.ftruncate(4, ?0|9999?)",
        "os.write(4, b'?\\n|[|{{|\"|1?' * 16000)",
    ),
    "forge the channel": (
        "m = b'{{\"tuple\":[\"value\",?true|7|21|null?]}}'\nos.write(5, struct.pack('<I', len(m)) + m)",
        "os.write(5, b'\\xff' * ?4|100?)",
        "os.write(5, struct.pack('<I', ?0|5|2000000?))\nos.close(5)",
        "os.set_blocking(5, False)\nos.read(5, 1 << 16)",
    ),
    "end the process": (
        "os._exit(?0|1|86?)",
        "sys.exit(?0|'x'|1?)",
        "raise ?SystemExit(0)|KeyboardInterrupt|GeneratorExit|MemoryError|RecursionError?",
        "os.kill(os.getpid(), signal.?SIGKILL|SIGSTOP|SIGTERM|SIGSEGV?)",
        "os.abort()",
        "ctypes.string_at(0)",
    ),
    "steer with exceptions": (
        "raise ?StopIteration|StopAsyncIteration|AssertionError|AttributeError|IndexError|KeyError?(?7|21|?)",
        "raise type('?StopIteration|RemoteError|?', (?StopIteration|Exception|BaseException?,), {{}})",
        "raise type('E', (Exception,), {{'__str__': lambda self: ?1 / 0|'\\ud800\\0\\x0b'|'x' * 10**7?}})",
        "raise ExceptionGroup('?x|\\ud800?', [?ValueError()|StopIteration()?])",
    ),
    "signals": (
        "for s in signal.valid_signals() - {{9, 19, 32, 33}}: signal.signal(s, signal.SIG_IGN)",
        "os.kill(?-1|1|{victim}|os.getppid()?, ?0|9|19?)",
        "os.killpg(?0|{victim}?, 9)",
        "signal.setitimer(signal.ITIMER_?REAL|PROF|VIRTUAL?, 0.001, 0.001)",
        "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {victim})",
    ),
    "change files": (
        "os.chmod('?{folder}/file|/dev/null|/usr/lib?', 0o?4777|0?)",
        "os.chown('{folder}/file', 1, 1)",
        "os.utime('?{folder}/file|{folder}?', (1, 1))",
        "os.truncate('{folder}/file', ?0|1000?)",
        "os.setxattr('{folder}/file', 'user.x', b'x')",
        "os.?rename|link|symlink?('{folder}/file', '{folder}/new')",
        "os.?unlink|rmdir|remove?('{folder}/file')",
        "open('{folder}/?file|new?', '?w|a|r+?').write('PWNED')",
        "os.mkfifo('{folder}/new')",
        "shutil.rmtree('{folder}')",
        "os.open('{folder}/file', os.O_RDONLY | os.O_TRUNC)",
    ),
    "lock files": (
        "fcntl.flock(open('?{lock}|{folder}/file?'), fcntl.LOCK_?EX|SH?)\ntime.sleep(0.05)",
        "fcntl.lockf(open('{lock}'), fcntl.LOCK_SH)",
        "fcntl.fcntl(open('{lock}'), ?1024|1026|37|6?, bytes(32))",
    ),
    "read what is secret": (
        "print(open('{folder}/secret').read())",
        "print(open('/proc/?self|{victim}|1?/?environ|mem|maps|cmdline?', 'rb').read(4096))",
        "print(os.environ)",
        "os.symlink('{folder}/secret', 'link')\nprint(open('link').read())",
        "print([open(e.path).read() for e in os.scandir('{folder}')])",
        "for d in range(3, 256):\n    try: print(os.pread(d, 4096, 0))\n    except OSError: pass",
    ),
    "reach out": (
        "socket.create_connection(('127.0.0.1', {port}), 0.2)",
        "socket.socket(socket.AF_UNIX).connect('\\0{abstract}')",
        "ctypes.CDLL(None).syscall(?29|68|101|248|272|319|321|323|425|165?, ?0|16|1 << 28?, {victim}, 0, 0)",
        "resource.prlimit({victim}, resource.RLIMIT_?NOFILE|CPU?, (1, 1))",
        "os.setuid(?0|{victim}?)",
        "os.nice(-5)",
    ),
    "multiply": (
        "for _ in range(?2|40?):\n    if os.fork() == 0: ?time.sleep(9)|os.setsid()|pass?; os._exit(0)",
        "while True: os.fork()",
        "for _ in range(50): threading.Thread(target=time.sleep, args=(9,)).start()",
        "subprocess.Popen(['?sleep|/bin/sh|python3?', '9'])",
        "os.execv('/bin/?true|echo?', ['true', 'PWNED'])",
    ),
    "flood": (
        "for _ in range(?10|2000?): os.write(?1|2?, b'?x|\\n|\\xff|\\0?' * 8192)",
        "print('?\\ud800|\\u2028|\\x0b|\\x1b[31m|7?' * ?1|5000?)",
        "for i in range(3000): open(f'f{{i}}', 'w').close()",
        "open('big', 'wb').write(bytes(1 << 26))",
        "held = bytearray(1 << ?28|30|40?)",
        "held = [bytes(1 << 20) for _ in range(2000)]",
        "x = '?[|(|{{?' * 100000\neval(x)",
    ),
    "hang": (
        "time.sleep(9)",
        "while True: pass",
        "sys.stdin.read()\nos.read(?0|3|5?, 1 << 20)",
        "threading.Lock().acquire() or 1\nl = threading.Lock(); l.acquire(); l.acquire()",
        "signal.pause()",
    ),
    "replace the tools": (
        "json.?dumps|loads? = lambda *a, **k: '?7|true|\\n?'",
        "os.?write|read|_exit|close? = lambda *a: ?0|len(a[-1])|b''?",
        "builtins.?len|exec|compile|isinstance|type|print|open? = lambda *a, **k: ?True|7?",
        "sys.modules['?json|os|builtins|vertigym|traceback?'] = ?None|sys?",
        "sys.meta_path.insert(0, type('F', (), {{'find_spec': lambda *a: ?None|1 / 0?}})())",
        "sys.stdout = sys.stderr = ?None|open('/dev/full', 'w')|type('O', (), {{}})()?",
        "sys.?excepthook|displayhook|unraisablehook? = lambda *a: os._exit(0)",
        "sys.setrecursionlimit(?5|10**9?)",
        "sys.settrace(lambda *a: ?os._exit(0)|None?)",
    ),
    "reach the harness": (
        "f = sys._getframe()\nwhile f: f.f_globals.update(?emit=print|describe=id|RESULT=1?); f = f.f_back",
        "for o in gc.get_objects():\n    if getattr(o, '__name__', '') in ('emit', 'dumps', '_call', 'send'):"
        "\n        o.__code__ = (lambda *a, **k: ?True|0?).__code__",
        "for m in list(sys.modules.values()): m.Reply = m.same = m.emit = lambda *a: True",
        "ctypes.memset(id(?7|21|True?) + 24, ?1|0?, 4)",
        "for d in range(?0|3?, 9):\n    try: os.?close(d)|dup2(1, d)?\n    except OSError: pass",
    ),
}

# Results of a wrong solution: values that are hostile to whoever decodes, compares or prints them.
WRONG = r"""
x
0
None
-1
'7'
?7.0|complex(7, 0)|float('nan')|float('inf')?
?[7]|b'7'|(7,)|[2 * x + 1]?
True
2 * x
?1 << 20000|-(1 << 30000)|1 << 200000?
'?\ud800|\0\x0b\u2028|\x1b[31m?'
'x' * 10**?3|6?
eval('[' * ?90|150? + ']' * 150)
functools.reduce(lambda a, _: [a], range(?300|5000?), 7)
(lambda l: l.append(l) or l)([])
?itertools.count()|(i for i in [7])|range(10**9)|range(7, 8)?
{{(2**61 - 1) * i for i in range(?500|3000?)}}
{{x: {{x: x}}}}
list(range(?10|9000?))
type('Yes', (?object|int|float|list|str?,), YES | {{'__?bool|len|iter|int|class?__': lambda s: ?True|7?}})()
type('O', (), {{'__getattr__': lambda s, n: s, '__call__': lambda s, *a: s, '__class__': int}})()
type('L', (?list|dict|set|tuple?,), {{'__iter__': lambda s: iter([7])}})()
type('\ud800\n', (), {{}})()
?EVIL()|Box(EVIL())|lambda *a, **k: EVIL()|iter([EVIL()])|[EVIL(), 7]?
sys._getframe(?1|2?).f_code.co_consts
exec('raise StopIteration')
""".strip().splitlines()

PLACES: Mapping[str, str] = {
    "import": "{attack}",
    "call": "def _hook():\n{indented}",
    "exit": "def _leave():\n{indented}\natexit.register(_leave)",
    "destructor": "class _Last:\n    def __del__(self):\n{twice}\n_last = _Last()",
    "handler": "def _on(*_):\n{indented}\nsignal.signal(signal.SIGALRM, _on)\nsignal.setitimer(0, 0.002)",
    "thread": "def _beside():\n{indented}\ntry: _thread.start_new_thread(_beside, ())\nexcept Exception: pass",
    "tried": "try:\n{indented}\nexcept BaseException: pass",
}

HEAD = """
import _thread, atexit, builtins, ctypes, fcntl, functools, gc, itertools, json, os, random, resource, shutil
import signal, socket, struct, subprocess, sys, threading, time
_hook = lambda: None
YES = {{'__eq__': lambda s, o: True, '__ne__': lambda s, o: False, '__hash__': id, '__repr__': lambda s: 1 / 0}}
"""
# A class, a callback, changed arguments, a generator, a coroutine around `solve`; an object that says yes.
BESIDE = """
class Box:
    def __init__(self, x): self.x = x
    def value(self): return solve(self.x)
    def __eq__(self, other): return self.value() == (other.value() if isinstance(other, Box) else other)
    def __enter__(self): return self
    def __exit__(self, *error): return True
    async def __aenter__(self): return self
    async def __aexit__(self, *error): return True
class Refused(Exception): pass
class EVIL(Box):
    def __init__(self): self.x = 3
    def __getattr__(self, name): return lambda *a, **k: True
    __call__ = __abs__ = __sub__ = __rsub__ = __add__ = __neg__ = lambda s, *a, **k: s
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = lambda s, *a: True
    __ne__ = lambda s, o: False
    __hash__ = lambda s: 7
    __index__ = __int__ = __len__ = lambda s: 7
    __float__ = lambda s: 7.0
    __iter__ = lambda s: iter([7, 21])
    __getitem__ = lambda s, i: 7
def refuse(x): raise Refused(solve(x))
def into(xs): xs.append(solve(xs[0]))
def each(function, xs): return [function(solve(x)) for x in xs]
def yields(x): yield solve(x)
async def later(x): return solve(x)
async def awaits(function, xs): return [await function(solve(x)) for x in xs]
"""
TAIL = """
def solve(x):
    try: _hook()
    except ?Exception|()|ZeroDivisionError?: pass
    return {wrong}
{beside}
if __name__ == "__main__":
    for line in sys.stdin: print(?solve(int(line))|'7'|'\\uff17'|line * 2|''?)
"""


def program(seed: int) -> str:
    """The program number `seed`; facts of the machine are still to be filled in."""
    draw = random.Random(f"hostile {seed}")
    parts = [HEAD]
    for _ in range(draw.randint(1, 4)):
        attack = _chosen(draw, draw.choice(ATTACKS[draw.choice(list(ATTACKS))]))
        place = PLACES[draw.choice(["tried", "tried", "tried", *PLACES])]
        indented = textwrap.indent(attack, "    ")
        parts.append(
            place.replace("{attack}", attack)
            .replace("{indented}", indented)
            .replace("{twice}", textwrap.indent(indented, "    "))
        )
    wrong = _chosen(draw, draw.choice(WRONG))
    parts.append(_chosen(draw, TAIL.replace("{wrong}", wrong)).replace("{beside}", BESIDE))
    return "\n".join(parts)


def _chosen(draw: random.Random, template: str) -> str:
    """`template` with one of the alternatives in each `?a|b?`."""
    pieces = template.split("?")
    return "".join(draw.choice(piece.split("|")) if i % 2 else piece for i, piece in enumerate(pieces))


def fill(source: str, facts: Mapping[str, Any]) -> str:
    """The program for this machine."""
    for name, value in facts.items():
        source = source.replace("{" + name + "}", str(value))
    return source.replace("{{", "{").replace("}}", "}")
