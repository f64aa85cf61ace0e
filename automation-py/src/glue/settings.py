"""What a run changes for the whole process: settings record it where they are set, and changed names of modules are
told from what libraries keep for themselves."""

import dis
import gc


# What each setting was before the first of the runs that are there changed it: two of them may have set the same.
setting_bases = {}


def record_setting(module, name, read, write=None, label=None, also=None):
    """Has a function that changes a setting record what a run changes with it."""
    original = getattr(module, name, None)
    if original is None:
        return
    if write is None:
        write = original
    label = label or f"{module.__name__.lstrip('_')}.{name}"

    def setter(*arguments, **keywords):
        if not in_run() or is_importing():
            # It is the base for runs from now on.
            setting_bases.pop(label, None)
            return original(*arguments, **keywords)
        before = read()
        base = setting_bases.setdefault(label, before)
        result = as_import(original, *arguments, **keywords)
        after = read()
        if after != before or after != base:
            setting_changed(label, read, write, base, after)
        return result

    setter.__name__, setter.__qualname__ = name, name
    setter.__doc__, setter.__wrapped__ = original.__doc__, original
    for holder in (module, sys.modules.get(also or module.__name__.lstrip("_"))):
        if holder is not None and getattr(holder, name, None) is original:
            setattr(holder, name, setter)


def install_settings():
    enable, disable = gc.enable, gc.disable
    set_enabled = lambda on: enable() if on else disable()
    for name in ("enable", "disable"):
        record_setting(gc, name, gc.isenabled, set_enabled, "gc.enable")
    set_threshold = gc.set_threshold
    record_setting(gc, "set_threshold", gc.get_threshold, lambda values: set_threshold(*values))
    record_setting(gc, "set_debug", gc.get_debug)
    for name in ("recursionlimit", "switchinterval", "int_max_str_digits"):
        record_setting(sys, f"set{name}", getattr(sys, f"get{name}", None))
        record_setting(sys, f"set_{name}", getattr(sys, f"get_{name}", None))
    record_setting(sys, "setdlopenflags", getattr(sys, "getdlopenflags", None))
    for kind in ("trace", "profile"):
        hook = f"_{kind}_hook"
        read = lambda hook=hook: getattr(threading, hook)
        write = lambda value, hook=hook: setattr(threading, hook, value)
        record_setting(threading, f"set{kind}", read, write)
        record_setting(threading, f"set{kind}_all_threads", read, write, f"threading.set{kind}")
    import _csv, _locale, _socket

    record_setting(_socket, "setdefaulttimeout", _socket.getdefaulttimeout)
    limit = _csv.field_size_limit
    record_setting(_csv, "field_size_limit", limit)
    setlocale = _locale.setlocale
    record_setting(
        _locale,
        "setlocale",
        lambda: setlocale(_locale.LC_ALL),
        lambda value: setlocale(_locale.LC_ALL, value),
    )


# What prepares a module for runs once it was imported.
late_parts = {}
# Threads that do so now.
preparing_threads = set()


def install_late_parts():
    """Prepares what was imported. Returns whether another thread still imports some of it."""
    is_any_left = False
    for name in list(late_parts):
        module = sys.modules.get(name)
        if module is None:
            continue
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            is_any_left = True
            continue
        install = late_parts.pop(name, None)
        if install is not None:
            try:
                preparing_threads.add(_thread.get_ident())
                install(module)
            except BaseException:
                late_parts[name] = install
                raise
            finally:
                preparing_threads.discard(_thread.get_ident())
    return is_any_left


def late_part(name):
    def keep(install):
        late_parts[name] = install
        return install

    return keep


@late_part("locale")
def install_locale(module):
    # It has its own name for the function.
    if hasattr(module, "_setlocale"):
        module._setlocale = sys.modules["_locale"].setlocale


@late_part("gettext")
def install_gettext(module):
    record_setting(module, "textdomain", lambda: module._current_domain)


# Names of modules, looked up once: whether the module's own code sets them.
kept_names = {}


def is_meant(module, key, before, after, imported):
    """Returns whether a name of a module or class that differs was changed by a script, and not by the module itself
    or, `imported`, by the import of a library."""
    if is_of_script(after):
        return True
    if imported or isinstance(after, ModuleType):
        return False
    if after is not None and before is None and belongs_to(after, module):
        return False
    return not keeps_name(module, key)


def is_of_script(value):
    homes = (getattr(value, "__module__", None), getattr(type(value), "__module__", None))
    return any(home in ("__main__", "__automation__") for home in homes)


def is_meant_beside_host(module, key, before, after, imported):
    """Stands for `is_meant` where threads of a host change things, too: only what the script has defined is surely
    its own change. The host's own `__main__` may have the same name."""
    if not is_of_script(after):
        return False
    hosts = [object.__getattribute__(dispatching_main, "__dict__")]
    if replaced_main() is not None:
        hosts.append(vars(replaced_main()))
    namespace = getattr(after, "__globals__", None)
    if namespace is not None:
        return not any(namespace is host for host in hosts)
    kind = after if isinstance(after, type) else type(after)
    return not any(kind.__qualname__.partition(".")[0] in host for host in hosts)


def belongs_to(value, module):
    home = getattr(value, "__module__", None)
    return isinstance(home, str) and home.partition(".")[0] == module.partition(".")[0]


def keeps_name(module, key):
    """Returns whether a module's own code sets one of its names."""
    names = kept_names.get(module)
    if names is None:
        kept_names[module] = names = set()
        if module in sys.modules:
            for code in codes_of(vars(sys.modules[module])):
                names.update(names_set_by(code))
    return key in names or "globals" in names


def codes_of(namespace):
    seen = set()
    values = list(namespace.values())
    for value in values:
        if isinstance(value, type) and value.__module__ == namespace.get("__name__"):
            values.extend(v for v in vars(value).values() if id(v) not in seen)
            seen.update(map(id, vars(value).values()))
        value = getattr(value, "__wrapped__", value)
        value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType):
            yield code


def names_set_by(code):
    """Yields global names that a function sets, its inner ones too; `globals` when it asks for all of them."""
    codes = [code]
    for code in codes:
        if "globals" in code.co_names:
            yield "globals"
        holder = None
        for instruction in dis.get_instructions(code):
            # An attribute of an object is none of its class.
            if instruction.opname == "STORE_ATTR" and holder != "self":
                yield instruction.argval
            elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                yield instruction.argval
            holder = instruction.argval
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
