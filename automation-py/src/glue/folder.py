"""The modules of the scripts folder: each run has its own. What is in `sys.modules` under their names meanwhile is
an object that stands for the module of the run that looks, and elsewhere for what was there before."""

import importlib
import time
from importlib import _bootstrap
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, resolve_name
from types import CodeType

# Names that are never a script's: Python has imported them before it looks at the folder.
RESERVED_NAMES = frozenset(
    """__main__ __automation__ automation abc codecs encodings genericpath io ntpath os posixpath site stat
    _collections_abc""".split()
).union(sys.builtin_module_names)
# A folder that changed later than this before it was listed may have changed once more in the same tick of the clock.
SETTLED_NS = 100_000_000

# The names in each folder, and what the folder was like then.
folder_listings = {}
# The code of each module, and what its file was like then.
folder_codes = {}
# What stands in `sys.modules`, by name, and which runs need each: the ids of their dictionaries of modules.
folder_modules = {}
# A thread may come here again while it holds it, from a `__del__` that imports, and may be interrupted at any point: each
# step is one that can be done twice.
folder_lock = _thread.RLock()


class FolderModule(RunModule):
    """`sys.modules["helper"]`, while a run has a `helper` of its own."""


def folder_module_for(dispatching):
    fields = object.__getattribute__(dispatching, "__dict__")
    own = run_modules().get(fields["__name__"]) if in_run() else None
    return fields.get("former") if own is None else own


def folder_names(folder):
    """Returns the names of the modules and packages in a folder."""
    try:
        status = os.stat(folder)
        stamp = (status.st_mtime_ns, status.st_ino)
        kept = folder_listings.get(folder)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        with os.scandir(folder) as entries:
            names = frozenset(filter(None, map(module_name, entries))) - RESERVED_NAMES
    except OSError:
        return frozenset()
    if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
        folder_listings[folder] = stamp, names
    return names


def module_name(entry):
    name, extension = os.path.splitext(entry.name)
    if not name.isidentifier() or name == "__pycache__":
        return None
    if extension == ".py":
        return name
    return name if not extension and entry.is_dir() and is_package(entry) else None


def is_package(folder):
    if os.path.exists(os.path.join(folder.path, "__init__.py")):
        return True
    # Without it, it counts only where the import path has nothing better.
    spec = PathFinder.find_spec(folder.name)
    return spec is None or spec.origin is None


def imports_from_folder(code, folder):
    """Returns whether a script's code may import what is in its folder; names that mean something else count, too."""
    names = folder_names(folder)
    codes = [code]
    for code in codes:
        if any(name.partition(".")[0] in names for name in code.co_names):
            return True
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    return False


def is_own(name):
    """Returns whether a top-level name means a module of the run's folder."""
    folder = run_folder()
    if folder is None or name not in folder_names(folder):
        return False
    # What a script puts there itself, a stand-in for a test perhaps, came from no file.
    other = sys.modules.get(name)
    if other is None or isinstance(other, FolderModule) or name in run_modules():
        return True
    return getattr(other, "__spec__", None) is not None


def run_import(name, globals=None, locals=None, fromlist=(), level=0):
    """Stands for `__import__` in runs that import from their folder."""
    absolute = absolute_name(name, globals, level)
    if absolute is None or not is_own(absolute.partition(".")[0]):
        return elsewhere(absolute or name, as_import, plain_import, name, globals, locals, fromlist, level)
    module = own_module(absolute)
    if fromlist:
        import_members(module, absolute, fromlist)
        return module
    return module if level else run_modules()[absolute.partition(".")[0]]


def absolute_name(name, globals, level):
    package = (globals or {}).get("__package__")
    if not level:
        return name
    if not package or package.count(".") < level - 1:
        return None
    base = package.rsplit(".", level - 1)[0]
    return f"{base}.{name}" if name else base


def import_members(package, absolute, members):
    if not hasattr(package, "__path__"):
        return
    for member in members:
        if member == "*":
            import_members(package, absolute, getattr(package, "__all__", ()))
        elif not hasattr(package, member):
            try:
                own_module(f"{absolute}.{member}")
            except ModuleNotFoundError as error:
                if error.name != f"{absolute}.{member}":
                    raise


def own_module(name):
    """Returns a module of the run's folder; executes it when the run has none yet."""
    use_folder()
    modules = run_modules()
    parent, _, child = name.rpartition(".")
    path = [run_folder()]
    if parent and name not in modules:
        package = own_module(parent)
        path = getattr(package, "__path__", None)
        if path is None:
            message = f"No module named {name!r}; {parent!r} is not a package"
            raise ModuleNotFoundError(message, name=name)
    if name in modules:
        return initialized(modules[name])
    module = load_module(find_module(name, path), modules)
    if parent:
        setattr(modules[parent], child, module)
    return module


def find_module(name, path):
    spec = PathFinder.find_spec(name, path)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return spec


def load_module(spec, modules):
    fresh = module_from_spec(spec)
    spec._initializing, spec._lock = True, _bootstrap._ModuleLock(spec.name)
    with held(spec._lock):
        module = modules.setdefault(spec.name, fresh)
        if module is fresh:
            show_module(spec.name, modules)
            try:
                execute_module(spec, module)
            except BaseException:
                modules.pop(spec.name, None)
                hide_modules(modules, [spec.name])
                raise
            finally:
                spec._initializing = False
            return replaced_module(spec.name, modules)
    return initialized(module)


class held:
    """Holds a module's lock; a circle of imports is let through, as the interpreter does."""

    def __init__(self, lock):
        self.lock = lock

    def __enter__(self):
        try:
            self.lock.acquire()
        except _bootstrap._DeadlockError:
            self.lock = None

    def __exit__(self, *_):
        if self.lock is not None:
            self.lock.release()


def initialized(module):
    """Waits until another thread of the run has executed a module."""
    spec = getattr(module, "__spec__", None)
    if getattr(spec, "_initializing", False):
        with held(spec._lock):
            pass
    return module


def execute_module(spec, module):
    if isinstance(spec.loader, SourceFileLoader):
        execute_own(module_code(spec.origin, spec.loader), module.__dict__)
    elif spec.loader is not None:
        spec.loader.exec_module(module)


def module_code(path, loader):
    """Returns a module's code, compiled anew where its file has changed."""
    status = os.stat(path)
    stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    kept = folder_codes.get(path)
    if kept is not None and kept[0] == stamp:
        return kept[1]
    code = compile(loader.get_data(path), path, "exec", 0, True)
    linecache.cache.pop(path, None)
    if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
        folder_codes[path] = stamp, code
    return code


def replaced_module(name, modules):
    """Returns what a module has put in its own place in `sys.modules`, or itself."""
    other = sys.modules.get(name)
    if other is not None and not isinstance(other, FolderModule):
        modules[name] = other
        with folder_lock:
            sys.modules[name] = folder_modules[name][0]
    return modules[name]


def show_module(name, modules):
    """Makes a name in `sys.modules` stand for the modules of runs."""
    with folder_lock:
        kept = folder_modules.get(name)
        if kept is None:
            kept = folder_modules.setdefault(name, (FolderModule(name), set()))
        kept[1].add(id(modules))
        count_folder_modules(len(folder_modules))
        put_up(name, kept[0])


def hide_modules(modules, names=None):
    """Notes that the run with these modules needs them, or some names of them, no longer."""
    with folder_lock:
        for name in list(modules if names is None else names):
            kept = folder_modules.get(name)
            if kept is None:
                continue
            kept[1].discard(id(modules))
            if not kept[1]:
                put_back(name, kept[0])
                folder_modules.pop(name, None)
        count_folder_modules(len(folder_modules))


def put_up(name, dispatching):
    former = sys.modules.get(name)
    if former is not dispatching:
        object.__getattribute__(dispatching, "__dict__")["former"] = former
        sys.modules[name] = dispatching


def put_back(name, dispatching):
    if sys.modules.get(name) is dispatching:
        former = object.__getattribute__(dispatching, "__dict__").get("former")
        if former is None:
            del sys.modules[name]
        else:
            sys.modules[name] = former


# Times that an import is tried when other runs put their own modules in the place meanwhile.
TRIES_MAX = 10


def elsewhere(absolute, function, *arguments):
    """Imports what is not in the run's folder, as if no other run had a module of that name."""
    top = absolute.partition(".")[0]
    for _ in range(TRIES_MAX):
        # Found out beforehand, so that what is there need not be taken away for it.
        if top in folder_modules and not exists_elsewhere(top):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        module = without_folder_modules(top, function, arguments)
        if type(module) is not FolderModule:
            break
    return module


def without_folder_modules(top, function, arguments):
    with folder_lock:
        displaced = [
            (name, kept[0])
            for name, kept in list(folder_modules.items())
            if name == top or name.startswith(f"{top}.")
        ]
        for name, dispatching in displaced:
            put_back(name, dispatching)
    try:
        return function(*arguments)
    finally:
        with folder_lock:
            for name, dispatching in displaced:
                if name in folder_modules:
                    put_up(name, folder_modules[name][0])


def exists_elsewhere(name):
    kept = folder_modules.get(name)
    former = kept and object.__getattribute__(kept[0], "__dict__").get("former")
    return former is not None or _bootstrap._find_spec(name, None) is not None


class FolderFinder:
    """Finds modules of the run's folder for imports that are not statements."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None and in_run() and is_own(name):
            return ModuleSpec(name, FolderLoader())
        return None


class FolderLoader:
    def create_module(self, spec):
        module = own_module(spec.name)
        self.spec = getattr(module, "__spec__", None)
        return module

    def exec_module(self, module):
        # The machinery has put the module itself there, and its own idea of where it came from.
        name = module.__spec__.name
        module.__spec__ = self.spec
        with folder_lock:
            sys.modules[name] = folder_modules[name][0]


def install_folder():
    import_module, reload = importlib.import_module, importlib.reload

    def run_import_module(name, package=None):
        absolute = name
        if name.startswith(".") and package:
            absolute = resolve_name(name, package)
        if in_run() and is_own(absolute.partition(".")[0]):
            return own_module(absolute)
        return elsewhere(absolute, as_import, import_module, name, package)

    def run_reload(module):
        name = getattr(getattr(module, "__spec__", None), "name", None)
        own = run_modules().get(name) if in_run() else None
        if own is None:
            return reload(module)
        spec = find_module(name, [run_folder()] if "." not in name else parent_path(name))
        execute_module(spec, own)
        return run_modules()[name]

    importlib.import_module, importlib.reload = run_import_module, run_reload
    sys.meta_path.insert(0, FolderFinder)


def parent_path(name):
    return run_modules()[name.rpartition(".")[0]].__path__
