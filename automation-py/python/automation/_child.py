"""One run, in a process of its own: what the process is allowed, the script as a real `__main__` on the main
thread, and its end as the interpreter ends a script."""

import _thread
import atexit
import base64
import builtins
import fcntl
import faulthandler
import functools
import gc
import io
import itertools
import marshal
import math
import os
import resource
import signal
import socket
import sys
import threading
from types import BuiltinFunctionType, FunctionType, ModuleType

from . import _context, _effects, _process, _report, _result, _run_cmd, _wire

# Where the control socket is, out of the way of scripts that close descriptors by number.
CONTROL_MIN = 500
# What `select` can look at, and what a shell gives.
OPEN_FILES = 1024
# Sent by the host when the run has to end; nothing else sends it, and scripts have no use for it.
INTERRUPT = signal.SIGPWR

for ours in (_context, _effects, _result, _run_cmd, _wire):
    _report.OWN_FILES.add(ours.__file__)
_report.OWN_FILES.add(__file__)

interrupted = False


def main(wires, zygote, data):
    """Does what the host orders, and ends this process, whatever happens: what is above is not the run's."""
    try:
        serve(wires, zygote, data)
    finally:
        os._exit(1)


def serve(wires, zygote, data):
    control = settle(wires, zygote)
    order = _wire.receive(control)
    if order is None:
        os._exit(1)
    set_limits(order["limits"], data)
    faulthandler.enable()
    if order["do"] == "inspect":
        _wire.send(control, inspect(control, order))
        os._exit(0)
    run(control, order)


def settle(wires, zygote):
    """Makes this process the run's own. Returns its control socket."""
    os.setsid()
    _process.die_with_parent(zygote, signal.SIGKILL)
    _process.adopt_orphans()
    stdout, stderr, control, _ = wires
    for stream, descriptor, name in ((stdout, 1, "stdout"), (stderr, 2, "stderr")):
        os.dup2(stream, descriptor)
        opened = open_stream(descriptor, name)
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
    control = socket.socket(fileno=fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, control_number()))
    for wire in wires:
        os.close(wire)
    signal.signal(INTERRUPT, interrupt)
    return control


def control_number():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CONTROL_MIN if most == resource.RLIM_INFINITY else max(3, min(CONTROL_MIN, most - 8))


def open_stream(descriptor, name):
    """Opens a stream as the interpreter does. `print` never fails on what is no character, and a script that is
    killed has written its whole lines."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    raw.name = f"<{name}>"
    stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
    stream.mode = "w"
    return stream


def interrupt(number, frame):
    """Ends the script where it is. Steps of ours between are taken to their end."""
    global interrupted
    interrupted = True
    if is_in_script(frame):
        raise _context.RunInterrupted


def is_in_script(frame):
    """Returns whether a call of ours has called the script, or anything else that is not ours."""
    while frame.f_code is not serve.__code__:
        if frame.f_globals.get("__package__") != __package__:
            return True
        frame = frame.f_back
        if frame is None:
            return True
    return False


def set_limits(limits, data):
    """Limits this process and what it starts; `data` is the writable memory that it begins with."""
    _process.limit(resource.RLIMIT_CORE, 0)
    _process.limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    # Not the address space: threads and libraries reserve much more of that than they use.
    _process.limit(resource.RLIMIT_DATA, data + limits["memory_bytes"])
    if limits["cpu_seconds"] is not None:
        # The host ends the run before; the kernel does should the host be held up.
        _process.limit(resource.RLIMIT_CPU, math.ceil(limits["cpu_seconds"]) + 1)


def run(control, order):
    context = _context.Context(control, order)
    sys.modules["automation"] = _context.package(context)
    module = create_module(order)
    process = os.getpid()
    effects = _effects.Effects(context._effect, order["deny"], order["limits"]["children_max"])
    effects.install()
    threads = count_threads()
    ended = execute(control, order, module, context)
    attempt(threading._shutdown)
    # What is cleaned up gets the grace for it.
    signal.signal(INTERRUPT, signal.SIG_IGN)
    for step in (atexit._run_exitfuncs, lambda: empty(vars(module)), flush):
        attempt(step)
    if os.getpid() == process:
        if interrupted:
            _process.kill_descendants(process)
        try:
            used = {"children": effects.children, "threads": next(threads)}
            _wire.send(control, {**ended, **used})
        except OSError:
            # The script closed the socket: the exit code says what it can.
            pass
    os._exit(ended["exit"])


def count_threads():
    """Returns the numbers with which threads are counted that are started from here on: the next one is how many."""
    numbers = itertools.count()

    def counted(start):
        @functools.wraps(start)
        def start_counted(*arguments, **named):
            thread = start(*arguments, **named)
            next(numbers)
            return thread

        return start_counted

    # `start_new` is the old name, the joinable ones are of Python 3.13.
    names = "start_new", "start_new_thread", "start_joinable_thread"
    for module, prefix in ((_thread, ""), (threading, "_")):
        for name in (prefix + name for name in names):
            start = getattr(module, name, None)
            if start is not None:
                setattr(module, name, counted(start))
    return numbers


def create_module(order):
    """Makes the script's module, and the process look as if the script had been started by hand."""
    sys.argv = order["argv"]
    if order["folder"] is not None:
        sys.path.insert(0, order["folder"])
    module = sys.modules["__main__"] = ModuleType("__main__")
    if order["entry"] == "run":
        module = sys.modules["__automation__"] = ModuleType("__automation__")
    module.__builtins__, module.__cached__ = builtins, None
    module.__file__ = order["argv"][0]
    _report.remember_source(order["argv"][0], order["source"])
    return module


def execute(control, order, module, context):
    """Executes the script. Returns how it ended."""
    try:
        code = code_of(control, order)
        # Frames of ours are below the script's, which has as many as by hand.
        sys.setrecursionlimit(sys.getrecursionlimit() + own_depth())
        if interrupted:
            raise _context.RunInterrupted
        exec(code, vars(module))
        if order["entry"] != "run":
            return {"exit": 0}
        return returned(call_run(module, context, order), order)
    except SystemExit as error:
        return {"exit": exit_code(error)}
    except BaseException as error:
        return failed(error, order)


def own_depth():
    # Before Python 3.12 a call through C counts as well.
    frame, depth = sys._getframe(1), int(sys.version_info < (3, 12))
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def code_of(control, order):
    """Returns the script's code; tells it to the host when it is new."""
    if order["code"] is not None:
        return marshal.loads(base64.b64decode(order["code"]))
    code = compile(order["source"], order["argv"][0], "exec", 0, True)
    _wire.send(control, {"tell": "code", "code": base64.b64encode(marshal.dumps(code)).decode()})
    return code


def call_run(module, context, order):
    function = vars(module).get("run")
    if function is None:
        raise NameError('the script has entry = "run" and defines no function run')
    return function(context, **order["parameters"])


def returned(value, order):
    try:
        text = _result.written(value, _result.Limits(**order["json"]))
    except _result.Refused as refused:
        pointer, detail = refused.args
        return {"exit": 0, "pointer": pointer, "refused": detail}
    return {"exit": 0, "returned": text}


def exit_code(error):
    """Returns the code of a `SystemExit` as the operating system would show it."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(2**63) <= code < 2**63 else 255
    attempt(lambda: sys.stderr.write(f"{code}\n"))
    return 1


def failed(error, order):
    out_of_memory = isinstance(error, MemoryError)
    if out_of_memory:
        # What the traceback keeps alive is still there, and showing it needs some more.
        _process.limit(resource.RLIMIT_DATA, resource.RLIM_INFINITY)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _report.OWN_FILES:
        trace = trace.tb_next
    error.__traceback__ = trace
    show = lambda: _report.report(error, order["argv"][0], order["source"])
    # A deadline may strike while the traceback is written: once more then, since it says where the script was.
    sentence = attempt(show) or attempt(show) or "an exception that can't be shown"
    return {"exit": 1, "exception": sentence, "out_of_memory": out_of_memory}


def attempt(step):
    """Calls `step`; what it raises has nobody to go to."""
    try:
        return step()
    except BaseException:
        return None


def flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        attempt(lambda: stream.flush())


def empty(namespace):
    """Empties the script's namespace. What ends with it may still print, with the functions that it uses for that."""
    finalised = any(isinstance(value, type) and "__del__" in vars(value) for value in namespace.values())
    used = (str, ModuleType, FunctionType, BuiltinFunctionType, type, int, float, type(None))
    for name in reversed(list(namespace)):
        if not isinstance(namespace.get(name), used):
            namespace.pop(name, None)
    if finalised:
        gc.collect()
    namespace.clear()
    # Python 3.9 looks the builtins up in a function's globals, and not in the function.
    namespace["__builtins__"] = builtins
    if finalised:
        gc.collect()


def inspect(control, order):
    """Says whether a script can be compiled, without executing any of it."""
    try:
        code_of(control, order)
    except SyntaxError as error:
        return {"syntax": f"{type(error).__name__}: {error.msg}", "line": error.lineno, "column": error.offset}
    except (RecursionError, MemoryError):
        return {"problem": "nested too deeply to be compiled"}
    except Exception as error:
        return {"problem": f"can't be compiled: {_report.sentence(error)}"}
    return {}
