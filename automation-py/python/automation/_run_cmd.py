"""`ctx.run_cmd`: runs a program for a script. Shared by both executors: the one inside a process executes it as text,
so it imports nothing of ours."""

import os
import selectors
import signal
import subprocess
import time

# What is kept of each stream; the rest is read, so that the program does not stall, and dropped.
OUTPUT_MAX = 1024 * 1024
CUT_MARK = "\n[output cut after 1 MiB]\n"
# Most of standard error that the message of a failure shows.
TAIL_MAX = 400
# Longest wait at a time: the end of a run is noticed between two.
SLICE = 0.05
# For how long a program's streams are read after its end: what it left in the background may hold them for ever.
LINGER = 0.2


class CommandFailed(subprocess.CalledProcessError):
    """That a program ended with another exit code than 0."""

    __module__ = "automation"

    def __str__(self):
        code = self.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal_name(-code)})"
        tail = self.stderr.strip()[-TAIL_MAX:]
        return f"{self.cmd[0]} ended with {how}" + (f": {tail}" if tail else " and wrote no error")


class CommandTimeout(subprocess.TimeoutExpired):
    """That a program did not end in time, and was killed."""

    __module__ = "automation"

    def __str__(self):
        return f"{self.cmd[0]} did not end within {self.timeout} s and was killed"


def run_cmd(args, *, timeout=None, check=True, input=None, env=None, cwd=None):
    """Runs a program, without a shell, and waits for its end.

    Returns a `subprocess.CompletedProcess` with `returncode`, `stdout` and `stderr` as text. What `check` raises is a
    `subprocess.CalledProcessError`, and a timeout a `subprocess.TimeoutExpired`.
    """
    args = checked(args)
    given = input.encode() if isinstance(input, str) else input
    process = subprocess.Popen(
        args,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=env,
        cwd=cwd,
    )
    try:
        stdout, stderr = exchange(process, given, args, timeout)
    except BaseException:
        # Also the end of the run, which is no Exception.
        kill_tree(process)
        raise
    finally:
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            stream.close()
    if check and process.returncode != 0:
        raise CommandFailed(process.returncode, args, stdout, stderr)
    return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)


def checked(args):
    if not isinstance(args, (list, tuple)):
        kind = type(args).__name__
        raise TypeError(f'run_cmd takes a list, for instance ["systemctl", "status", name], not {kind}: no shell reads it')
    if not args:
        raise ValueError("run_cmd takes a list that begins with a program, and this one is empty")
    for index, item in enumerate(args):
        if not isinstance(item, (str, bytes, os.PathLike)):
            raise TypeError(f"run_cmd takes a list of texts, and item {index} is of type {type(item).__name__}")
    return [os.fsdecode(item) for item in args]


def exchange(process, given, args, timeout):
    """Feeds a program and reads it until its end. Returns what it wrote, as text."""
    limit = None if timeout is None else time.monotonic() + timeout
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    left, ended = memoryview(given or b""), None
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while selector.get_map() or process.poll() is None:
            now = time.monotonic()
            if limit is not None and now >= limit and process.poll() is None:
                raise CommandTimeout(args, timeout)
            ended = ended if process.poll() is None else ended or now
            if ended and now > ended + LINGER:
                break
            for key, _ in selector.select(SLICE if selector.get_map() else SLICE / 10):
                if key.fileobj is process.stdin:
                    left = feed(selector, process.stdin, left)
                else:
                    read(selector, key.fileobj, kept[key.fileobj])
    return tuple(text(kept[stream]) for stream in (process.stdout, process.stderr))


def feed(selector, stream, left):
    try:
        left = left[os.write(stream.fileno(), left[:65536]) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:
        left = left[:0]
    if not left:
        selector.unregister(stream)
        stream.close()
    return left


def read(selector, stream, kept):
    try:
        data = os.read(stream.fileno(), 65536)
    except BlockingIOError:
        return
    if not data:
        selector.unregister(stream)
    # One byte more than is shown tells that there was more.
    kept += data[: OUTPUT_MAX + 1 - len(kept)]


def text(kept):
    cut = len(kept) > OUTPUT_MAX
    shown = bytes(kept[:OUTPUT_MAX]).decode(errors="replace")
    return shown + CUT_MARK if cut else shown


def kill_tree(process):
    """Kills a program and what it started; those whose parent is gone are out of reach."""
    found = [process.pid] if process.poll() is None else []
    for pid in found:
        found += children(pid)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def children(pid):
    """Returns the children of a process, where the system tells."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
