"""The Python half of a run's containment: classes that Python itself must subclass, and functions that are
shorter here than in Rust. Executed once, in a namespace that also holds the native functions it names."""

import _thread
import atexit
import builtins
import importlib.metadata
import os
import sys
import threading
import weakref
from types import ModuleType


class ModuleKind(type):
    """The kind of the classes of `sys` and `threading`. Many take `type(sys)` for the class of every module,
    `importlib` among them: it stays that."""

    def __call__(cls, *arguments, **keywords):
        return ModuleType(*arguments, **keywords)

    def __instancecheck__(cls, instance):
        return isinstance(instance, ModuleType)


class RunModule(ModuleType):
    """`sys.modules["__main__"]`: on a run's threads the run's own module, elsewhere the host's."""

    def __getattribute__(self, name):
        module = forwarded(self)
        if module is None:
            return ModuleType.__getattribute__(self, name)
        return getattr(module, name)

    def __setattr__(self, name, value):
        module = forwarded(self)
        if module is None:
            ModuleType.__setattr__(self, name, value)
        else:
            setattr(module, name, value)

    def __delattr__(self, name):
        module = forwarded(self)
        if module is None:
            ModuleType.__delattr__(self, name)
        else:
            delattr(module, name)

    def __dir__(self):
        module = forwarded(self)
        return ModuleType.__dir__(self) if module is None else dir(module)

    def __repr__(self):
        module = forwarded(self)
        return ModuleType.__repr__(self) if module is None else repr(module)


# The one object that is `sys.modules["__main__"]`.
dispatching_main = None
# Returns what the host has put in its place since, while that lives: `runpy` puts the other back when it ends.
replaced_main = lambda: None


def forwarded(dispatching):
    """Returns the module that a dispatching one stands for; `None` when it stands for itself."""
    if type(dispatching) is FolderModule:
        return folder_module_for(dispatching)
    module = run_module()
    if module is None and in_run():
        # A thread that its run has left behind sees nobody else's.
        return ModuleType(object.__getattribute__(dispatching, "__dict__")["__name__"])
    if module is None and dispatching is dispatching_main:
        return replaced_main()
    return module


def restore_main():
    """Puts the dispatching module back where somebody has replaced it."""
    global replaced_main
    other = sys.modules.get("__main__")
    replaced_main = weakref.ref(other) if isinstance(other, ModuleType) else lambda: None
    sys.modules["__main__"] = dispatching_main


class RunEnviron(type(os.environ)):
    """`os.environ`: on a run's threads its own view, which `putenv` never sees."""

    @property
    def _data(self):
        return environ_to_read(self.__dict__["_data"])

    def __setitem__(self, key, value):
        data = environ_to_write(self.__dict__["_data"])
        if data is None:
            super().__setitem__(key, value)
            return
        key, value = self.encodekey(key), self.encodevalue(value)
        if not key or b"=" in key:
            raise OSError(22, "Invalid argument")
        if b"\0" in key or b"\0" in value:
            raise ValueError("embedded null byte")
        data[key] = value

    def __delitem__(self, key):
        data = environ_to_write(self.__dict__["_data"])
        if data is None:
            super().__delitem__(key)
            return
        try:
            del data[self.encodekey(key)]
        except KeyError:
            raise KeyError(key) from None

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()


def install_environ():
    putenv, unsetenv, execv = os.putenv, os.unsetenv, os.execv

    def run_putenv(name, value, /):
        if not in_run():
            putenv(name, value)
        else:
            os.environb[os.fsencode(name)] = os.fsencode(value)

    def run_unsetenv(name, /):
        if not in_run():
            unsetenv(name)
        else:
            os.environb.pop(os.fsencode(name), None)

    def run_execv(path, argv, /):
        # What `os` has besides, `spawnvp` for instance, comes here too.
        environ = changed_environ()
        if environ is None:
            execv(path, argv)
        else:
            os.execve(path, argv, environ)

    os.environ.__class__ = os.environb.__class__ = RunEnviron
    os.putenv, os.unsetenv, os.execv = run_putenv, run_unsetenv, run_execv


def install_threads():
    names = ("start_new_thread", "start_new", "start_joinable_thread")
    for module in (_thread, threading):
        for name in (*names, *(f"_{name}" for name in names)):
            original = getattr(module, name, None)
            if original is not None:
                setattr(module, name, ThreadStart(original))


def install_atexit():
    register, unregister = atexit.register, atexit.unregister

    def run_register(func, /, *args, **kwargs):
        # A library that a script happens to import first registers for the process, the script for its run.
        caller = sys._getframe(1).f_globals
        if not in_run() or not is_runs_own(caller):
            return register(func, *args, **kwargs)
        # Of a run that is over nothing is called any more.
        if run_module() is not None:
            at_exit((func, args, kwargs))
        return func

    def run_unregister(func, /):
        functions = exit_functions() or []
        functions[:] = [entry for entry in functions if entry[0] != func]
        unregister(func)

    atexit.register, atexit.unregister = run_register, run_unregister


def is_runs_own(namespace):
    """Returns whether a namespace is that of this thread's script, or of one of its modules."""
    module = run_module()
    if module is None:
        return namespace.get("__name__") in ("__main__", "__automation__")
    own = (module, *run_modules().values())
    return any(namespace is getattr(module, "__dict__", None) for module in own)


def install_fork():
    os.register_at_fork(before=prepare_fork, after_in_child=adopt_copy)


def adopt_copy():
    """Makes the only thread of a copy that a run forked what the main thread is by hand: before Python 3.13
    `multiprocessing` relies on its lock."""
    mark_forked()
    thread = threading.current_thread()
    if in_run() and getattr(thread, "_tstate_lock", thread) is None:
        thread._set_tstate_lock()


def install_modules():
    global dispatching_main
    dispatching_main = sys.modules.setdefault("__main__", ModuleType("__main__"))
    dispatching_main.__class__ = RunModule
    sys.modules["__automation__"] = RunModule("__automation__")


def mark_initialized():
    """Spares `import sys` and its like an exception that CPython raises and swallows each time: it looks for a
    mark that the modules of its own start lack."""
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and not hasattr(spec, "_initializing"):
            spec._initializing = False


def call_exit_functions():
    """Calls what the script registered, last first, as the interpreter does when it ends."""
    functions = exit_functions()
    while functions:
        function, args, kwargs = functions.pop()
        try:
            function(*args, **kwargs)
        except BaseException as error:
            sys.stderr.write(shown(error))


def adopt_worker():
    """Makes this thread what the main thread is by hand: threads that it starts are no daemons unless asked for."""
    threading.current_thread()._daemonic = False


def begin_thread():
    """Called first on a thread that a script starts: it has a place for its first frames afterwards, which nothing
    can refuse it."""


def join_threads():
    """Waits for the threads that the script left, as the interpreter does before it ends."""
    while True:
        own = run_threads()
        left = [t for t in threading.enumerate() if t.ident in own and not t.daemon]
        if all(map(is_of_shared_pool, left)):
            return
        close_pools()
        wait_for_threads(len(own))


def collect_children():
    """Lets the libraries note which programs have ended that a run gave up: nobody can ask for them later."""
    for name in ("subprocess", "multiprocessing.process"):
        library = sys.modules.get(name)
        if library is not None:
            library._cleanup()


def meet_interruption():
    """Catches the interruption that may wait in this thread, or one of our own: the interpreter takes no other way
    for it to be done with."""
    try:
        interrupt_this_thread()
        for _ in range(1000):
            pass
    except BaseException:
        pass


def meet_waiting_interruption():
    """Catches the interruption that may wait in this thread."""
    try:
        for _ in range(10):
            pass
    except BaseException:
        pass


IMPORT_FILES = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


def importing_threads(all_of_them):
    """Returns the threads that execute the import machinery; with `all_of_them` also those in a module that it
    imports."""
    # What prepares a module for runs is a part of its import.
    found = set(preparing_threads)
    for ident, frame in sys._current_frames().items():
        while frame is not None:
            if frame.f_code.co_filename in IMPORT_FILES:
                found.add(ident)
                break
            frame = frame.f_back if all_of_them else None
    return found


def forget_event_loop():
    """Forgets the event loop that an interrupted `asyncio` left as this thread's running one."""
    events = sys.modules.get("asyncio.events")
    if events is not None:
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)


def absent(requirements):
    """Returns the requirements that no installed package satisfies, each with what is there instead, or why it is no
    requirement."""
    parse = requirement_parser()
    found = []
    for text in requirements:
        try:
            name, is_wanted, accepts = parse(text)
        except ValueError as error:
            found.append((text, None, str(error).partition("\n")[0]))
            continue
        if not is_wanted:
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append((text, None, None))
            continue
        if not accepts(version):
            found.append((text, version, None))
    return found


parser_import = threading.Lock()


def requirement_parser():
    """Returns a function from a requirement (PEP 508) to its name, whether it applies here, and what accepts a
    version. Without a library that knows the grammar only names are looked at."""
    for library in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            # One at a time: what the latter imports goes in circles, and a second thread may find it half made.
            with parser_import:
                Requirement = importlib.import_module(library).Requirement
        except ImportError:
            continue

        def parse(text):
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            accepts = lambda version: requirement.specifier.contains(version, prereleases=True)
            return requirement.name, wanted, accepts

        return parse

    def parse_name(text):
        length = next(
            (at for at, c in enumerate(text) if not (c.isalnum() or c in "._-")), len(text)
        )
        return text[:length], ";" not in text, lambda version: True

    return parse_name
