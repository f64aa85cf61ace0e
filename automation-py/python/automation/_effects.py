"""What a run does to the world outside its own memory: told to the host, counted, and denied where the script's
metadata says so. A tripwire against accidents, no sandbox."""

import os
import sys

TARGET_CHARS_MAX = 512
# Effects that are told of one run. Later ones are still denied and counted.
EFFECTS_MAX = 256
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Where the arguments of an audit event name what it is done to.
PLACES = {
    "subprocess": {"subprocess.Popen": 1, "os.system": 0, "os.posix_spawn": 1},
    "network": {
        "socket.connect": 1,
        "socket.sendto": 1,
        "socket.sendmsg": 1,
        "socket.bind": 1,
        "socket.getaddrinfo": 0,
        "socket.gethostbyname": 0,
    },
    "write": {
        **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), 0),
        **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 1),
    },
    "native": {"ctypes.dlopen": 0, "ctypes.dlsym": 1, "ctypes.string_at": None, "ctypes.call_function": None},
}
EVENTS = {event: (effect, place) for effect, events in PLACES.items() for event, place in events.items()}
FORKS = ("os.fork", "os.forkpty")


class Effects:
    """The effects of a run, told through `tell`."""

    def __init__(self, tell, denied, children_max):
        self.tell, self.denied, self.children_max = tell, denied, children_max
        self.children = self.told = 0
        self.last = None

    def install(self):
        """Watches from now on, for as long as this process lives."""
        sys.addaudithook(self.heard)

    def heard(self, event, arguments):
        if event == "open":
            target = written_file(arguments)
            if target is not None:
                self.note("write", target)
        elif event in EVENTS:
            effect, place = EVENTS[event]
            self.note(effect, event if place is None else shown(arguments[place]))
        elif event in FORKS:
            self.note("subprocess", event)

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


def written_file(arguments):
    """Returns the file that an `open` may change."""
    path, mode, flags = arguments
    writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else False
    if not writes and not (isinstance(flags, int) and flags & WRITES):
        return None
    path = shown(path)
    # Importing a module is no effect, though the interpreter keeps what it has compiled.
    is_cache = os.path.basename(os.path.dirname(path)) == "__pycache__" and ".pyc" in path
    return None if path == os.devnull or is_cache else path


def shown(target):
    """Returns what is written for a path, an address or a command line."""
    if isinstance(target, (bytes, os.PathLike)):
        target = os.fsdecode(target)
    elif isinstance(target, tuple) and len(target) >= 2 and isinstance(target[1], int):
        target = f"{target[0]}:{target[1]}"
    elif isinstance(target, (list, tuple)):
        target = " ".join(shown(item) for item in target[:TARGET_CHARS_MAX])
    return str(target)[:TARGET_CHARS_MAX]
