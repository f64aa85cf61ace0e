"""The process that forks one child a run, so that a run costs a fork and not a start of the interpreter. It has
one thread, executes nothing of a script, and ends with its host.

Talks to the host through the socket that is its standard input; started by the executor, or by hand as
`python -m automation._zygote` from a program that speaks the same."""

import gc
import importlib
import os
import select
import signal
import socket
import sys

from . import _child, _process, _report, _wire

# What scripts import most, and what a child needs: each child finds them loaded. Nothing that starts a thread.
PRELOADED = (
    "argparse collections concurrent.futures contextlib csv ctypes dataclasses datetime decimal email.message enum "
    "functools glob hashlib http.client io itertools json logging math os pathlib platform random re secrets shlex "
    "shutil signal smtplib socket sqlite3 ssl stat string struct subprocess tempfile threading time traceback "
    "typing urllib.error urllib.parse urllib.request uuid warnings"
).split()
# Descriptors that come with the order to fork: standard output and error, the control socket, the warden.
WIRES = 4


def main(setup=None):
    """Serves until the host is gone. In a child, becomes a run and never returns."""
    host = take_socket()
    if setup is None:
        setup = _wire.receive(host) or {}
    _process.die_with_parent(setup.get("host", os.getppid()), signal.SIGTERM)
    become_zygote(setup)
    data = _process.writable_memory()
    _wire.send(
        host,
        {
            "version": ".".join(map(str, sys.version_info[:3])),
            "build": sys.version,
            "executable": sys.executable,
            "prefix": sys.prefix,
            "can_bind": _process.has_prctl(),
        },
    )
    zygote = Zygote(host)
    wires = zygote.serve()
    if wires is not None:
        _child.main(wires, zygote.pid, data)


def take_socket():
    """Moves the socket out of the way of scripts; standard input is empty from now on."""
    try:
        host = socket.socket(fileno=os.dup(0))
    except OSError:
        sys.exit("automation._zygote is started by an executor: its standard input is no socket")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return host


def become_zygote(setup):
    os.setsid()
    _process.adopt_orphans()
    if setup.get("path") is not None:
        sys.path[:] = setup["path"]
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    gc.collect()
    # What exists now is never garbage; looking at it would only copy its pages.
    gc.freeze()


class Zygote:
    """Forks and reaps. A child has a warden, which is the socket on which the host learns of its end, and whose
    closing ends it."""

    def __init__(self, host):
        self.host, self.pid = host, os.getpid()
        self.wake = watch_children()
        self.wardens = {}
        self.polled = select.poll()
        self.polled.register(host, select.POLLIN)
        self.polled.register(self.wake, select.POLLIN)
        signal.signal(signal.SIGTERM, self.terminate)

    def serve(self):
        """Serves until the host is gone, and returns `None` then. Returns its wires in a child."""
        while True:
            for descriptor, _ in self.polled.poll():
                if descriptor == self.wake:
                    os.read(self.wake, 4096)
                    self.reap()
                elif descriptor != self.host.fileno():
                    self.give_up(descriptor)
                else:
                    wires = self.take_order()
                    if wires is None:
                        return self.end_all()
                    if self.fork(wires):
                        return wires

    def take_order(self):
        """Returns the wires of a child to be; `None` when the host is gone, or has no further orders."""
        flags = socket.MSG_CMSG_CLOEXEC
        order, wires, _, _ = socket.recv_fds(self.host, 16, WIRES, flags)
        return wires if order == b"f" else None

    def fork(self, wires):
        """Forks. Returns whether this is the child."""
        warden = socket.socket(fileno=wires[-1])
        try:
            pid = os.fork()
        except OSError as error:
            tell(warden, {"error": str(error)})
            warden.close()
        else:
            if pid == 0:
                self.leave()
                warden.detach()
                return True
            self.wardens[pid] = warden
            self.polled.register(warden, select.POLLIN)
            tell(warden, {"pid": pid})
        for wire in wires[:-1]:
            os.close(wire)
        return False

    def leave(self):
        """Gives back, in a child, what is the zygote's."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(signal.set_wakeup_fd(-1))
        os.close(self.wake)
        for other in (self.host, *self.wardens.values()):
            other.close()

    def reap(self):
        """Tells the wardens of children that have ended how they ended."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Others were left behind by a run, and are only put to rest.
            warden = self.wardens.pop(pid, None)
            if warden is not None and warden.fileno() >= 0:
                self.polled.unregister(warden)
                tell_end(warden, status, usage)
                warden.close()

    def give_up(self, descriptor):
        """Ends a child whose warden nobody listens to any more."""
        for pid, warden in self.wardens.items():
            if warden.fileno() == descriptor:
                self.polled.unregister(warden)
                warden.close()
                end(pid)
                return

    def end_all(self):
        for pid in self.wardens:
            end(pid)

    def terminate(self, number, frame):
        """The thread that started this process is gone, and the host with it."""
        if os.getpid() == self.pid:
            self.end_all()
            os._exit(0)


def watch_children():
    """Returns a descriptor that can be read when a child has ended."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return wake


def end(pid):
    """Ends a child, which is not reaped yet, and all that it started."""
    os.kill(pid, signal.SIGSTOP)
    _process.kill_descendants(pid)
    os.kill(pid, signal.SIGKILL)


def tell_end(warden, status, usage):
    told = {
        "code": os.waitstatus_to_exitcode(status),
        "cpu_us": round((usage.ru_utime + usage.ru_stime) * 1e6),
        "resident": usage.ru_maxrss * 1024,
    }
    tell(warden, told)


def tell(warden, message):
    try:
        _wire.send(warden, message)
    except OSError:
        # Nobody listens any more.
        pass


if __name__ == "__main__":
    main()
