"""What a process asks of Linux for itself and for what it starts. Knows nothing of scripts and of the host."""

import os
import resource
import signal

try:
    import ctypes

    _prctl = ctypes.CDLL(None).prctl
except (ImportError, OSError, AttributeError):
    _prctl = None

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Rounds in which all that a process started is stopped: more than one only while something of it goes on to fork.
STOP_ROUNDS = 100


def has_prctl():
    return _prctl is not None


def die_with_parent(parent, number):
    """Lets this process get a signal when the thread that started it ends; ends now if that is gone already."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans():
    """Makes this process the parent of what its descendants leave behind."""
    if _prctl is not None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def descendants(pid):
    """Returns what a process has started, and what that has."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def kill_descendants(pid):
    """Ends what a process has started. All of it is stopped first, since what is stopped forks no more."""
    stopped = set()
    for _ in range(STOP_ROUNDS):
        fresh = set(descendants(pid)) - stopped
        if not fresh:
            break
        stopped |= fresh
        signal_all(fresh, signal.SIGSTOP)
    signal_all(stopped, signal.SIGKILL)


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass


def writable_memory():
    """Returns the writable private memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def limit(kind, value):
    """Limits this process, within what it may have at most."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > most):
        value = most
    resource.setrlimit(kind, (value, most))
