"""Which system calls a sandboxed program may make: an allow-list, compiled to a seccomp filter.

The filter is installed once, in the fork-server, and every job inherits it, so that it costs a job nothing.
It therefore also allows the few calls the fork-server itself makes (`_SERVER`). In a job those lead nowhere:
it has no capabilities, holds no socket, and no descriptor of another process.

Landlock guards what a file holds, not its mode, times and locks. So the calls that change those are allowed
only where a job has files of its own and can reach no other's (`writable`), and locks only where it may start
programs.

Numbers are for x86-64 and arm64 (`name:x86:arm`, `-` where an architecture has no such call).
Runs inside the sandbox: standard library only.
"""

import platform
import struct
from collections.abc import Iterable

_PLAIN = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
preadv2:327:286 pwritev2:328:287 close:3:57 close_range:436:436 lseek:8:62 fstat:5:80 newfstatat:262:79
statx:332:291 stat:4:- lstat:6:- access:21:- faccessat:269:48 faccessat2:439:439 open:2:- openat:257:56
openat2:437:437 readlink:89:- readlinkat:267:78 getcwd:79:17 chdir:80:49 fchdir:81:50 mkdir:83:- mkdirat:258:34
rmdir:84:- unlink:87:- unlinkat:263:35 rename:82:- renameat:264:38 renameat2:316:276 symlink:88:-
symlinkat:266:36 link:86:- linkat:265:37 truncate:76:45 ftruncate:77:46 fallocate:285:47 getdents:78:-
getdents64:217:61 statfs:137:43 fstatfs:138:44 fsync:74:82 fdatasync:75:83 sync_file_range:277:84
fadvise64:221:223 umask:95:166 getxattr:191:8 lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11
llistxattr:195:12 flistxattr:196:13 dup:32:23 dup2:33:- dup3:292:24 pipe:22:- pipe2:293:59 select:23:-
pselect6:270:72 poll:7:- ppoll:271:73 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:-
epoll_pwait:281:22 eventfd2:290:19 copy_file_range:326:285 sendfile:40:71 mmap:9:222 mprotect:10:226
munmap:11:215 brk:12:214 mremap:25:216 madvise:28:233 mincore:27:232 msync:26:227 membarrier:324:283
rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigtimedwait:128:137
rt_sigsuspend:130:133 sigaltstack:131:132 pause:34:- restart_syscall:219:128 alarm:37:- getitimer:36:102
setitimer:38:103 nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114
gettimeofday:96:169 time:201:- times:100:153 timerfd_create:283:85 timerfd_settime:286:86 timerfd_gettime:287:87
getpid:39:172 gettid:186:178 getppid:110:173 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177
getresuid:118:148 getresgid:120:150 getgroups:115:158 getpgrp:111:- getpgid:121:155 getsid:124:156
getrusage:98:165 getrlimit:97:163 setrlimit:160:164 getpriority:140:141 sched_yield:24:124
sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 uname:63:160 sysinfo:99:179 getrandom:318:278 getcpu:309:168 futex:202:98
set_robust_list:273:99 set_tid_address:218:96 rseq:334:293 arch_prctl:158:- exit:60:93 exit_group:231:94
"""
_METADATA = """
chmod:90:- fchmod:91:52 fchmodat:268:53 utime:132:- utimes:235:- futimesat:261:- utimensat:280:88
"""
_SERVER = """
wait4:61:260 waitid:247:95 recvmsg:47:212 sendmsg:46:211 sendto:44:206 setresuid:117:147 setresgid:119:149
capset:126:91 pidfd_send_signal:424:424 seccomp:317:277 landlock_restrict_self:446:446
"""
_SIGNALS = """
kill:62:129 tkill:200:130 tgkill:234:131 rt_sigqueueinfo:129:138
"""
_PROCESSES = """
fork:57:- vfork:58:- execve:59:221 execveat:322:281 setpgid:109:154 setsid:112:157
"""
_OTHER = """
fcntl:72:25 clone:56:220 clone3:435:435 socketpair:53:199
ioctl:16:29 prctl:157:167 prlimit64:302:261 unshare:272:97
landlock_create_ruleset:444:444 landlock_add_rule:445:445 mount:165:40 umount2:166:39 pivot_root:155:41
mount_setattr:442:442
"""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000  # x86-64 system calls in their 32-bit-pointer form: none is needed

EPERM, ENOSYS, ENOTTY = 1, 38, 25
SIGCHLD = 17
CLONE_PIDFD = 0x1000
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
_CLONE_NEW = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWNET

# Terminal queries and descriptor flags; the numbers are the same on both architectures.
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS WINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_PRCTLS = (3, 15, 16)  # GET_DUMPABLE, SET_NAME, GET_NAME
# DUPFD GETFD SETFD GETFL SETFL DUPFD_CLOEXEC GETPIPE_SZ: what touches one's own descriptors only. The
# others lock or lease a file that is not one's own, or make the kernel send signals to anyone.
_FCNTLS = (0, 1, 2, 3, 4, 1030, 1032)
_FCNTL_LOCKS = (5, 6, 7, 36, 37, 38)  # GETLK SETLK SETLKW, and those of open file descriptions
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_AF_UNIX = 1

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH = 0, 4

Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether this machine's system call numbers are known here."""
    return platform.machine() in _ARCHITECTURES


def number(name: str) -> int:
    """The system call's number on this machine.

    Raises:
        KeyError: the architecture is not known, or has no such call.
    """
    return _numbers()[name]


def job_filter(*, processes: bool, writable: bool, clone_flags: int) -> bytes:
    """The filter of a fork-server that makes its jobs with `clone_flags`. With `processes`, jobs may start
    programs and threads, which need record locks; without, no system call can make a second one. `writable`:
    they have files of their own, whose modes and times they may change."""
    code = _prologue()
    for name in _PLAIN.split() + (_METADATA.split() if writable else []) + _SERVER.split() + _SIGNALS.split():
        code += _when(name, [_return(_ALLOW)])
    code += _when("ioctl", _allow_values(1, _IOCTLS, ENOTTY))
    code += _when("prctl", _prctl())
    code += _when("fcntl", _allow_values(1, _FCNTLS + (_FCNTL_LOCKS if processes else ()), EPERM))
    code += _when("prlimit64", _allow_values(0, (0,), EPERM))  # only one's own limits
    code += _when("socketpair", _allow_values(0, (_AF_UNIX,), EPERM))
    code += _when(
        "clone3", [_return(_ERRNO | ENOSYS)]
    )  # its flags are out of a filter's sight; libc falls back
    if processes:
        for name in _PROCESSES.split():
            code += _when(name, [_return(_ALLOW)])
        code += _when("clone", _no_bits(0, _CLONE_NEW))
    else:
        code += _when("clone", _allow_values(0, (clone_flags,), EPERM))
    return _assemble([*code, _return(_ERRNO | EPERM)])


def closing_filter() -> bytes:
    """What a job adds where no process namespace encloses it: no new process, and no signals."""
    code = _prologue()
    for name in ("clone", "pidfd_send_signal", *(entry.partition(":")[0] for entry in _SIGNALS.split())):
        code += _when(name, [_return(_ERRNO | EPERM)])
    return _assemble([*code, _return(_ALLOW)])


def _numbers() -> dict[str, int]:
    column, _ = _ARCHITECTURES[platform.machine()]
    found = {}
    for entry in f"{_PLAIN} {_METADATA} {_SERVER} {_SIGNALS} {_PROCESSES} {_OTHER}".split():
        name, *numbers = entry.split(":")
        if numbers[column] != "-":
            found[name] = int(numbers[column])
    return found


def _prologue() -> list[Instruction]:
    """Another architecture's calls kill; then the call's number is loaded."""
    column, arch = _ARCHITECTURES[platform.machine()]
    code = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, arch), _return(_KILL), (_LOAD, 0, 0, _NUMBER)]
    if column == 0:
        code += [(_JUMP_GREATER_EQUAL, 0, 1, _X32), _return(_ERRNO | ENOSYS)]
    return code


def _when(entry: str, block: list[Instruction]) -> list[Instruction]:
    """`block`, which always returns, for one system call; nothing where the machine lacks it."""
    found = _numbers().get(entry.partition(":")[0])
    return [] if found is None else [(_JUMP_EQUAL, 0, len(block), found), *block]


def _allow_values(index: int, allowed: Iterable[int], errno: int) -> list[Instruction]:
    """Allow the call when its argument `index` is one of `allowed`."""
    code = [_argument(index)]
    for value in allowed:
        code += [(_JUMP_EQUAL, 0, 1, value), _return(_ALLOW)]
    return [*code, _return(_ERRNO | errno)]


def _no_bits(index: int, bits: int) -> list[Instruction]:
    """Allow the call when its argument `index` has none of `bits`."""
    return [_argument(index), (_JUMP_SET, 0, 1, bits), _return(_ERRNO | EPERM), _return(_ALLOW)]


def _prctl() -> list[Instruction]:
    """The harmless options, and asking to die with one's parent (never taking that back)."""
    die = [_argument(1), (_JUMP_EQUAL, 0, 1, _SIGKILL), _return(_ALLOW), _return(_ERRNO | EPERM)]
    ask = [_argument(0), (_JUMP_EQUAL, 0, len(die), _PR_SET_PDEATHSIG), *die]
    return ask + _allow_values(0, _PRCTLS, EPERM)


def _argument(index: int) -> Instruction:
    """Load the low half of an argument (both architectures are little-endian)."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _return(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


def _assemble(code: list[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
