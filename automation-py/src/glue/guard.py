"""What functions of the standard library do inside a run, where what they do otherwise would reach the whole
process: a table of names, and the few that do something else. Executed once, in a namespace of its own."""

import _thread
import builtins
import errno
import faulthandler
import fcntl
import functools
import io
import os
import signal
import subprocess
import sys
import termios
import threading
import time

import _posixsubprocess
import _signal
import posix

WHOLE_PROCESS = "it would change the whole process"
OTHER_RUNS = "it would strike the host and its other runs"

# Module, names, and why a run may not call them.
REFUSED = (
    ("os", "setuid setgid seteuid setegid setreuid setregid setresuid setresgid", WHOLE_PROCESS),
    ("os", "setgroups initgroups setsid setpgrp chroot nice setns unshare", WHOLE_PROCESS),
    ("os", "closerange", "it would close what the host has open"),
    ("signal", "alarm setitimer raise_signal", OTHER_RUNS),
    ("signal", "siginterrupt set_wakeup_fd", WHOLE_PROCESS),
    ("signal", "sigwait sigwaitinfo sigtimedwait", "the host's signals are the host's"),
    ("_thread", "interrupt_main", OTHER_RUNS),
    ("faulthandler", "dump_traceback_later register unregister", OTHER_RUNS),
    ("faulthandler", "_sigsegv _sigabrt _sigfpe _fatal_error _fatal_error_c_thread", OTHER_RUNS),
    ("faulthandler", "_read_null _stack_overflow", OTHER_RUNS),
    ("sys", "setswitchinterval setdlopenflags addaudithook", WHOLE_PROCESS),
)

# What libraries call to be helpful: inside a run nothing happens.
IGNORED = (("faulthandler", "enable disable cancel_dump_traceback_later"),)

# Functions whose first argument is a descriptor: 0, 1 and 2 are the run's own.
DESCRIPTOR = "read readv pread preadv write writev pwrite pwritev dup isatty fstat fsync fdatasync lseek ftruncate \
get_blocking set_blocking get_inheritable set_inheritable ttyname tcgetpgrp"

# The same in other modules; they also take what has a `fileno`.
DESCRIPTOR_OF = (
    ("fcntl", "fcntl ioctl flock lockf"),
    ("termios", "tcgetattr tcsetattr tcsendbreak tcdrain tcflush tcflow tcgetwinsize tcsetwinsize"),
)

# Functions whose first two arguments are descriptors.
BETWEEN = "splice copy_file_range sendfile"

# Functions that change a process, or its threads: the place of its id among their arguments. 0 is the caller.
OF_PROCESS = (
    ("sched_setaffinity", 0),
    ("sched_setscheduler", 0),
    ("sched_setparam", 0),
    ("setpgid", 0),
)

MODULES = {
    "os": (os, posix),
    "signal": (signal, _signal),
    "_thread": (_thread, threading),
    "faulthandler": (faulthandler,),
    "sys": (sys,),
    "time": (time,),
    "fcntl": (fcntl,),
    "termios": (termios,),
    "subprocess": (_posixsubprocess, subprocess),
    "open": (builtins, io, sys.modules["_io"]),
}


def install():
    for family, names, why in REFUSED:
        for name in names.split():
            inside = refusing(f"{family}.{name}", why)
            guard(family, name, lambda original, inside=inside: inside)
    for family, names in IGNORED:
        for name in names.split():
            guard(family, name, lambda original: lambda *arguments, **keywords: None)
    for name in DESCRIPTOR.split():
        guard("os", name, translating, standard=True)
    for family, names in DESCRIPTOR_OF:
        for name in names.split():
            guard(family, name, translating, standard=True)
    for name in BETWEEN.split():
        guard("os", name, translating_both)
    for name, place in OF_PROCESS:
        guard("os", name, lambda original, name=name, place=place: sparing(original, name, place))
    guard_rest()


def guard_rest():
    guard("os", "_exit", lambda original: run_exit)
    guard("os", "abort", lambda original: run_abort)
    guard("os", "umask", run_umask)
    guard("os", "close", run_close, standard=True)
    guard("os", "dup2", run_dup2)
    guard("os", "setpriority", run_setpriority)
    guard("os", "forkpty", run_forkpty)
    for name in ("posix_spawn", "posix_spawnp"):
        guard("os", name, run_spawn)
    guard("os", "system", lambda original: run_system)
    guard("open", "open", run_open, standard=True)
    for name in ("fork_exec", "_fork_exec"):
        guard("subprocess", name, run_fork_exec)
    guard("signal", "signal", run_signal)
    guard("signal", "getsignal", run_getsignal)
    guard("signal", "pthread_sigmask", run_pthread_sigmask)
    guard("signal", "pidfd_send_signal", run_pidfd_send_signal)
    guard("_thread", "stack_size", run_stack_size)
    guard("sys", "setrecursionlimit", run_setrecursionlimit)


def guard(family, name, inside, standard=False):
    """Puts what a run calls in the place of a function, wherever the library keeps it under that name."""
    made = {}
    for module in MODULES[family]:
        original = vars(module).get(name)
        if original is None:
            continue
        if original not in made:
            guarded = Guarded(original, inside(original), standard)
            made[original] = functools.update_wrapper(guarded, original)
        setattr(module, name, made[original])


def refuse(name, why):
    raise PermissionError(1, f"{name} is refused inside a run: {why}")


def refusing(name, why):
    def inside(*arguments, **keywords):
        refuse(name, why)

    return inside


def translating(original):
    def inside(*arguments, **keywords):
        if arguments:
            arguments = (own(arguments[0]), *arguments[1:])
        elif "fd" in keywords:
            keywords["fd"] = own(keywords["fd"])
        return original(*arguments, **keywords)

    return inside


def translating_both(original):
    names = ("src", "dst") if original.__name__ != "sendfile" else ("out_fd", "in_fd")

    def inside(*arguments, **keywords):
        arguments = (*map(own, arguments[:2]), *arguments[2:])
        for name in names:
            if name in keywords:
                keywords[name] = own(keywords[name])
        return original(*arguments, **keywords)

    return inside


def own(descriptor):
    """Returns the run's own descriptor for a standard one, and every other as it is."""
    mine = own_descriptor(descriptor) if isinstance(descriptor, int) and descriptor >= 0 else None
    return descriptor if mine is None else mine


def is_own(descriptor):
    return isinstance(descriptor, int) and descriptor >= 0 and own_descriptor(descriptor) is not None


def sparing(original, name, place):
    def inside(*arguments, **keywords):
        target = arguments[place] if len(arguments) > place else 0
        if target == 0 or isinstance(target, int) and is_host_process(target):
            refuse(f"os.{name}", WHOLE_PROCESS)
        return original(*arguments, **keywords)

    return inside


def run_exit(status):
    raise end_run(status)


def run_abort():
    raise end_run(128 + signal.SIGABRT)


def run_umask(umask):
    def inside(mask, /):
        before_change("os.umask")
        return umask(mask)

    return inside


def run_close(close):
    def inside(fd):
        if is_own(fd):
            refuse(f"os.close({fd})", "it is the run's output")
        return close(fd)

    return inside


def run_dup2(dup2):
    def inside(fd, fd2, inheritable=True):
        if fd2 in (0, 1, 2):
            refuse(f"os.dup2({fd}, {fd2})", "it would redirect the host's own descriptor")
        return dup2(own(fd), fd2, inheritable)

    return inside


def run_setpriority(setpriority):
    def inside(which, who, priority):
        if which == os.PRIO_PROCESS and who != 0 and not is_host_process(who):
            return setpriority(which, who, priority)
        refuse("os.setpriority", WHOLE_PROCESS)

    return inside


def run_forkpty(forkpty):
    def inside():
        keep_terminal(True)
        try:
            return forkpty()
        finally:
            keep_terminal(False)

    return inside


def run_spawn(spawn):
    def inside(path, argv, env, *, file_actions=(), **settings):
        if env is None:
            env = os.environ
        ours = [(os.POSIX_SPAWN_DUP2, own_descriptor(number), number) for number in (0, 1, 2)]
        return spawn(path, argv, env, file_actions=[*ours, *(file_actions or ())], **settings)

    return inside


def run_system(command):
    status = subprocess.call(command, shell=True)
    return status << 8 if status >= 0 else -status


def run_open(original):
    def inside(file, *arguments, **keywords):
        # A copy of the descriptor, since the file closes what it has.
        if is_own(file):
            file, arguments = os.dup(file), arguments[:5]
            keywords.pop("closefd", None)
        return original(file, *arguments, **keywords)

    return inside


# The places of a child's three descriptors among the arguments of `fork_exec`.
CHILD_DESCRIPTORS = {6: 0, 9: 1, 11: 2}


def run_fork_exec(fork_exec):
    def inside(*arguments):
        before_child(arguments[0])
        arguments = list(arguments)
        environ = changed_environ()
        if arguments[5] is None and environ is not None:
            arguments[5] = [name + b"=" + value for name, value in environ.items()]
        for place, number in CHILD_DESCRIPTORS.items():
            given = arguments[place]
            arguments[place] = own(number if given == -1 else given)
        return fork_exec(*arguments)

    return inside


def run_signal(original):
    """No signal is sent to a run. A script that says what to do then goes on, and finds it again."""

    def inside(signalnum, handler, /):
        number, known = int(signalnum), handler in (signal.SIG_DFL, signal.SIG_IGN)
        if not known and not callable(handler):
            text = "signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object"
            raise TypeError(text)
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        former = signal.getsignal(number)
        run_state().setdefault("signals", {})[number] = as_handler(handler)
        return former

    return inside


def run_getsignal(getsignal):
    def inside(signalnum, /):
        signals = run_state().get("signals", {})
        return signals[signalnum] if signalnum in signals else getsignal(signalnum)

    return inside


def as_handler(handler):
    return signal.Handlers(handler) if isinstance(handler, int) else handler


def run_pthread_sigmask(pthread_sigmask):
    def inside(how, mask):
        before_mask_change()
        return pthread_sigmask(how, mask)

    return inside


def run_pidfd_send_signal(pidfd_send_signal):
    def inside(pidfd, number, *rest):
        if number and is_host_process(pid_of(pidfd)):
            refuse("signal.pidfd_send_signal", OTHER_RUNS)
        return pidfd_send_signal(pidfd, number, *rest)

    return inside


def pid_of(pidfd):
    with open(f"/proc/self/fdinfo/{int(pidfd)}", encoding="ascii") as facts:
        found = [line.split()[1] for line in facts if line.startswith("Pid:")]
    return int(found[0]) if found else -1


def run_stack_size(stack_size):
    def inside(size=0, /):
        if size:
            refuse("threading.stack_size", "the threads of a run have stacks that bear deep recursion")
        return stack_size()

    return inside


def run_setrecursionlimit(setrecursionlimit):
    def inside(limit, /):
        setrecursionlimit(min(limit, RECURSION_MAX) if isinstance(limit, int) else limit)

    return inside
