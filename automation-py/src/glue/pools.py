"""What a run's libraries start beside it, pools, threads and processes, and what they keep for the process though it
follows from a run's environment: told apart by run, and ended with it as the interpreter ends it by hand."""

import functools
from types import FunctionType


def is_runs_pool(pool):
    return pool in run_state().get("pools", ())


def record_pools(kind):
    """Notes which run has made a pool; one that a library makes when it is imported is everybody's."""
    init = kind.__init__

    @functools.wraps(init)
    def run_init(self, *arguments, **keywords):
        init(self, *arguments, **keywords)
        if in_run() and not is_importing():
            run_state().setdefault("pools", weakref.WeakSet()).add(self)

    kind.__init__ = run_init


@late_part("concurrent.futures.thread")
def install_thread_pools(module):
    record_pools(module.ThreadPoolExecutor)


@late_part("concurrent.futures.process")
def install_process_pools(module):
    record_pools(module.ProcessPoolExecutor)


def pool_of(thread):
    """Returns the pool that a thread works for, while there is one."""
    library = sys.modules.get("concurrent.futures.thread")
    if library is None or getattr(thread, "_target", None) is not library._worker:
        return None
    find = next(iter(getattr(thread, "_args", ())), None)
    return find() if isinstance(find, weakref.ref) else None


def is_of_shared_pool(thread):
    pool = pool_of(thread)
    return pool is not None and not is_runs_pool(pool)


def close_pools():
    """Lets the run's pools that nobody shut down end once they have done what they were given."""
    library = sys.modules.get("concurrent.futures.process")
    for pool in list(run_state().get("pools", ())):
        pool.shutdown(wait=library is not None and isinstance(pool, library.ProcessPoolExecutor))


def is_library_thread(function):
    """Returns whether what a thread is started with is the code of a module that everybody shares."""
    thread = getattr(function, "__self__", None)
    if isinstance(thread, threading.Thread):
        if pool_of(thread) is not None:
            return is_of_shared_pool(thread)
        function = thread_function(thread)
    function = getattr(function, "__func__", function)
    namespace = getattr(function, "__globals__", None)
    if namespace is None or is_runs_own(namespace):
        return False
    module = sys.modules.get(namespace.get("__name__"))
    return module is not None and type(module) is not RunModule and vars(module) is namespace


def thread_function(thread):
    run = type(thread).run
    if run is threading.Thread.run:
        return thread._target
    return thread.function if run is threading.Timer.run else run


class RunChildren:
    """`multiprocessing.process._children`: on a run's threads the processes that the run has started."""

    def __init__(self, shared):
        self._shared = shared

    def _set(self):
        if not in_run():
            return self._shared
        children = run_state().get("children")
        if children is None:
            children = run_state().setdefault("children", set())
            end_processes_at_exit()
        return children

    def __iter__(self):
        return iter(self._set())

    def __len__(self):
        return len(self._set())

    def __contains__(self, child):
        return child in self._set()

    def add(self, child):
        self._set().add(child)

    def discard(self, child):
        self._set().discard(child)


def end_processes_at_exit():
    """Has the run's processes ended after the functions that the script registers."""
    if not run_state().setdefault("ends_processes", []):
        run_state()["ends_processes"].append(True)
        at_exit((end_processes, (), {}))
        functions = exit_functions()
        functions.insert(0, functions.pop())


def end_processes():
    """Does for a run what `multiprocessing.util._exit_function` does for a process that ends."""
    run_finalizers(lambda priority: priority >= 0)
    children = sys.modules["multiprocessing.process"].active_children
    for child in children():
        if child.daemon:
            child._popen.terminate()
    for child in children():
        child.join()
    run_finalizers(lambda priority: True)


def run_finalizers(is_due):
    registry = sys.modules["multiprocessing.util"]._finalizer_registry
    keys = run_state().get("finalizers", ())
    for key in sorted(filter(lambda key: is_due(key[0]), keys), reverse=True):
        finalizer = registry.get(key)
        if finalizer is not None:
            try:
                finalizer()
            except Exception as error:
                sys.stderr.write(shown(error))


@late_part("multiprocessing.process")
def install_processes(module):
    module._children = RunChildren(module._children)


@late_part("multiprocessing.util")
def install_finalizers(module):
    init = module.Finalize.__init__

    @functools.wraps(init)
    def run_init(self, *arguments, **keywords):
        init(self, *arguments, **keywords)
        if in_run() and not is_importing() and self._key[0] is not None:
            run_state().setdefault("finalizers", []).append(self._key)
            end_processes_at_exit()

    module.Finalize.__init__ = run_init


def collect_young():
    """Finalises what a run's libraries have left in circles, while it still says so in the run."""
    if not {"policy", "pools", "children", "finalizers"}.isdisjoint(run_state()):
        gc.collect(1)


class RunGlobals(dict):
    """The global names of a module with some of the run's own."""

    def __init__(self, module, own):
        self._shared = vars(module)
        kept = {name: self._shared[name] for name in ("__name__", "__builtins__")}
        super().__init__(kept, **own)

    def __missing__(self, name):
        return self._shared[name]


def with_own_globals(function, module, own_names):
    """Returns a function that has some global names for itself in each run, whose first values `own_names` gives."""

    @functools.wraps(function)
    def run_function(*arguments, **keywords):
        if not in_run() or is_importing():
            return function(*arguments, **keywords)
        own = run_state().get(module.__name__)
        if own is None:
            own = run_state().setdefault(module.__name__, RunGlobals(module, own_names()))
        copy = FunctionType(function.__code__, own, function.__name__, function.__defaults__)
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy(*arguments, **keywords)

    return run_function


@late_part("urllib.request")
def install_urllib(module):
    # What was chosen for all, and not made by the first `urlopen` from the environment.
    chosen = [module._opener]
    install_opener = module.install_opener

    @functools.wraps(install_opener)
    def choose_opener(opener):
        if in_run() and not is_importing():
            return run_install_opener(opener)
        chosen[:] = [opener]
        return install_opener(opener)

    own_names = lambda: {"_opener": chosen[0]}
    run_install_opener = with_own_globals(install_opener, module, own_names)
    module.urlopen = with_own_globals(module.urlopen, module, own_names)
    module.install_opener = choose_opener


@late_part("tempfile")
def install_tempfile(module):
    name = "_gettempdir" if hasattr(module, "_gettempdir") else "gettempdir"
    find = getattr(module, name)
    found_for_all = []

    @functools.wraps(find)
    def find_for_all():
        is_found_now = module.tempdir is None
        found = find()
        if is_found_now:
            found_for_all[:] = [found]
        return found

    @functools.wraps(find)
    def run_find():
        if not in_run() or is_importing():
            return find_for_all()
        chosen = module.tempdir
        if chosen is not None and not any(chosen is found for found in found_for_all):
            return chosen
        return find_for_run()

    find_for_run = with_own_globals(find, module, lambda: {"tempdir": None})
    setattr(module, name, run_find)
