"""What a run does to the world outside its own memory: told to the host, counted, and denied where the script's
metadata says so. A tripwire against accidents, no sandbox. Tells the same as the executor inside a process does."""

import os
import sys
import threading

TARGET_BYTES_MAX = 512
# Effects that are told of one run. Later ones are still denied and counted.
EFFECTS_MAX = 256
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Where the interpreter's own libraries and installed packages are.
LIBRARIES = tuple(f"{prefix}/" for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix})


class Effects:
    """The effects of a run, told through `tell`."""

    def __init__(self, tell, denied, children_max):
        self.tell, self.denied, self.children_max = tell, denied, children_max
        self.children = self.told = 0
        self.last = None
        self.starting = threading.local()

    def install(self):
        """Watches from now on, for as long as this process lives."""
        sys.addaudithook(self.heard)

    def heard(self, event, arguments):
        if event not in EVENTS or self.is_announced(event, arguments):
            return
        effect, target_of = EVENTS[event]
        target = target_of(arguments)
        if target is not None:
            self.note(effect, target)

    def is_announced(self, event, arguments):
        """Returns whether `subprocess` has told already of what it now starts by another function."""
        if event == "subprocess.Popen":
            self.starting.arguments = arguments[1]
        return event == "os.posix_spawn" and getattr(self.starting, "arguments", None) is arguments[1]

    def note(self, effect, target):
        denied = effect in self.denied
        self.say(effect, target, denied)
        if denied:
            text = f'{effect} is denied ({target}): the script\'s metadata has deny = ["{effect}"]'
            raise PermissionError(1, text)
        if effect == "subprocess":
            self.count_child(target)

    def count_child(self, target):
        if self.children_max is not None and self.children >= self.children_max:
            self.say("subprocess", target, True)
            text = f"the script's metadata has children_max = {self.children_max}, and so many were started"
            raise PermissionError(1, text)
        self.children += 1

    def say(self, *effect):
        if effect != self.last and self.told < EFFECTS_MAX:
            self.last = effect
            self.told += 1
            try:
                self.tell(*effect)
            except (OSError, RuntimeError):
                # A copy that the script forked has nobody to tell, and a socket that it closed nobody hears.
                pass


def argument(place):
    return lambda arguments: text(arguments[place])


def moved(arguments):
    source, target = text(arguments[0]), text(arguments[1])
    return None if is_cache(target) else cut(f"{source} -> {target}")


def written_file(arguments):
    """Returns the file that an `open` may change."""
    path, mode, flags = arguments
    writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else False
    if not writes and not (isinstance(flags, int) and flags & WRITES):
        return None
    path = text(path)
    return None if path == os.devnull or is_cache(path) else path


def is_cache(path):
    """Returns whether the interpreter keeps a compiled module there: importing one is no effect."""
    return os.path.dirname(path).endswith("__pycache__") and ".pyc" in os.path.basename(path)


def database(arguments):
    path = text(arguments[0])
    return None if path == ":memory:" else path


def command_line(arguments):
    items = arguments[1]
    return cut(" ".join(map(text, items[:TARGET_BYTES_MAX]))) if isinstance(items, (list, tuple)) else text(items)


def address(arguments):
    whole = arguments[1]
    if isinstance(whole, tuple) and len(whole) >= 2:
        return host_and_port(whole)
    return None if whole is None else text(whole)


def host_and_port(arguments):
    host, port = arguments[:2]
    if host is None:
        return None
    host = f"[{text(host)}]" if ":" in text(host) else text(host)
    return host if port is None else cut(f"{host}:{text(port)}")


def library(arguments):
    # Without a name it is the library of this process, which `import ctypes` opens itself.
    return None if arguments[0] is None else text(arguments[0])


def foreign_module(arguments):
    path = arguments[1]
    return path if isinstance(path, str) and not path.startswith(LIBRARIES) else None


def text(item):
    """Returns what is written for a path, a name or a number."""
    if isinstance(item, bytes):
        return cut(item.decode(errors="replace"))
    if isinstance(item, (str, int, os.PathLike)):
        return cut(str(item))
    return f"<{type(item).__name__}>"


def cut(whole):
    return whole.encode(errors="surrogatepass")[:TARGET_BYTES_MAX].decode(errors="ignore")


def named(effect, target_of, family, names):
    return {f"{family}.{name}": (effect, target_of) for name in names.split()}


# Which audit event is which effect, and on what.
EVENTS = {
    "open": ("write", written_file),
    "import": ("native", foreign_module),
    "subprocess.Popen": ("subprocess", command_line),
    "os.posix_spawn": ("subprocess", command_line),
    "os.system": ("subprocess", lambda arguments: cut(f"/bin/sh -c {text(arguments[0])}")),
    "os.fork": ("subprocess", lambda arguments: "os.fork"),
    "os.forkpty": ("subprocess", lambda arguments: "os.forkpty"),
    "sqlite3.connect": ("write", database),
    "socket.getaddrinfo": ("network", host_and_port),
    "ctypes.dlopen": ("native", library),
    **named("write", argument(0), "os", "remove rmdir mkdir truncate chmod chown utime setxattr removexattr"),
    **named("write", moved, "os", "rename link symlink"),
    **named("write", argument(0), "shutil", "rmtree chown make_archive"),
    **named("write", argument(1), "shutil", "move copytree copyfile unpack_archive"),
    **named("network", address, "socket", "connect sendto sendmsg bind"),
    **named("network", argument(0), "socket", "gethostbyname gethostbyaddr"),
    **named("native", argument(1), "ctypes", "dlsym dlsym/handle"),
    **{
        f"ctypes.{name}": ("native", lambda arguments, name=name: f"ctypes.{name}")
        for name in ("call_function", "string_at", "wstring_at", "PyObj_FromPtr")
    },
}
