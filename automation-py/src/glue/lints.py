"""What a script does that will harm the process it runs in, or let its parameters become commands: found in the
syntax tree, each with a code by which a line can allow it. Needs `syntax.py`."""

# What harms every run of the process, by code: what it does, what to do instead, and by which names.
HARMFUL = {
    "exit-process": (
        "ends the host with all its runs, expected sys.exit",
        "os._exit os.abort",
    ),
    "replace-process": (
        "replaces the host with another program, expected subprocess.run",
        "os.execl os.execle os.execlp os.execlpe os.execv os.execve os.execvp os.execvpe",
    ),
    "fork": (
        "forks the host, whose threads and locks the copy lacks, expected subprocess.run or threads",
        "os.fork os.forkpty pty.fork pty.spawn multiprocessing.Process multiprocessing.Pool"
        " multiprocessing.Manager multiprocessing.pool.Pool concurrent.futures.ProcessPoolExecutor",
    ),
    "timer": (
        "ends or interrupts the host and not the run, expected ctx.remaining() or a timeout",
        "signal.alarm signal.setitimer signal.raise_signal faulthandler.dump_traceback_later",
    ),
    "working-directory": (
        "changes the folder or the mask of a process that is shared, expected whole paths and os.chmod",
        "os.chdir os.fchdir os.umask os.chroot contextlib.chdir",
    ),
    "identity": (
        "changes as whom the host runs, expected a program that is started as somebody else",
        "os.setuid os.setgid os.seteuid os.setegid os.setreuid os.setregid os.setresuid os.setresgid"
        " os.setgroups os.initgroups os.setsid os.setpgid os.setpgrp",
    ),
    "process-state": (
        "changes the host and all its runs",
        "gc.disable gc.freeze gc.set_threshold gc.set_debug locale.setlocale logging.disable logging.shutdown"
        " resource.setrlimit socket.setdefaulttimeout sys.addaudithook sys.setswitchinterval threading.settrace"
        " threading.setprofile threading.stack_size os.nice os.register_at_fork",
    ),
    "terminal": (
        "waits for a terminal, which a run does not have, expected a parameter",
        "builtins.input builtins.breakpoint getpass.getpass pdb.set_trace code.interact",
    ),
}
PATHS = {path: code for code, (_, paths) in HARMFUL.items() for path in paths.split()}

FOREIGN = ("ctypes", "_ctypes", "cffi")
SHELLS = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
WITH_SHELL = tuple(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen"))
QUOTED = ("shlex.quote", "shlex.join", "pipes.quote")
# Attributes of shared modules of which each run has its own.
OWN = {
    f"sys.{name}"
    for name in ("argv", "path", "stdin", "stdout", "stderr", "excepthook", "unraisablehook")
} | {"threading.excepthook"}
RECURSION_MAX = 10_000

# These concern the script, wherever it runs; the others only who shares a process with it.
EVERYWHERE = ("terminal", "shell-injection", "swallow")
CODES = {*HARMFUL, "close-stream", "foreign-code", "guard", "kill-host", "patch", "recursion-limit"}
CODES |= {*EVERYWHERE}

ALLOW = re.compile(r"#\s*automation:\s*allow\(([^()]*)\)\s*$")


def lints(source, shared):
    """Returns what is harmful in a source as triples of node, code and message. `shared` says whether the script
    runs in the host's process."""
    found = []
    built = built_names(source)
    for node in source.nodes:
        found += references(source, node)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += foreign_imports(node)
        elif isinstance(node, ast.Call):
            found += calls(source, node, built)
        elif isinstance(node, LOOPS):
            found += swallowed(source, node)
        found += patches(source, node)
    return [entry for entry in found if shared or entry[1] in EVERYWHERE]


def references(source, node):
    """Finds names that are harmful however they are used: called, passed on, or kept."""
    if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
        path = source.path(node)
        if path in PATHS:
            yield node, PATHS[path], f"{path.replace('builtins.', '')} {HARMFUL[PATHS[path]][0]}"


def foreign_imports(node):
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    for module in modules:
        root = module.partition(".")[0]
        if root in FOREIGN:
            message = f'{root} can corrupt the host, expected isolation = "process" in the metadata block'
            yield node, "foreign-code", message


def calls(source, node, built):
    path = source.path(node.func) or ""
    first = node.args[0] if node.args else None
    if path in ("os.kill", "os.killpg") and is_ourselves(source, first):
        yield node, "kill-host", f"{path} of this process or its group ends the host, expected sys.exit"
    elif path == "os.close" and is_stream(first):
        yield node, "close-stream", "os.close of 0, 1 or 2 closes a stream of the host"
    elif path == "os.dup2" and len(node.args) > 1 and is_stream(node.args[1]):
        yield node, "close-stream", "os.dup2 onto 0, 1 or 2 replaces a stream of the host"
    elif path == "sys.setrecursionlimit" and is_number(first) and first.value > RECURSION_MAX:
        message = f"sys.setrecursionlimit of more than {RECURSION_MAX} lets the host's stack overflow"
        yield node, "recursion-limit", message
    elif path == "builtins.setattr" and len(node.args) == 3:
        yield from patched(source, node, first, node.args[1])
    if has_shell(path, node) and first is not None and is_built(source, first, built):
        message = f"{path} gives a shell a text that was put together, expected a list of arguments or shlex.quote"
        yield node, "shell-injection", message


def is_number(node):
    return isinstance(node, ast.Constant) and type(node.value) is int


def is_stream(node):
    return is_number(node) and node.value in (0, 1, 2)


def is_ourselves(source, node):
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return is_number(node.operand) and node.operand.value == 1
    if is_number(node):
        return node.value in (0, 1)
    known = ("os.getpid", "os.getppid", "os.getpgrp", "os.getpgid")
    return isinstance(node, ast.Call) and source.path(node.func) in known


def has_shell(path, node):
    if path in SHELLS:
        return True
    shell = (keyword.value for keyword in node.keywords if keyword.arg == "shell")
    on = any(not isinstance(value, ast.Constant) or value.value for value in shell)
    return on and path in WITH_SHELL


def built_names(source):
    """Returns the names that are given a text which is put together anywhere in the source."""
    found = set()
    for node in source.nodes:
        if isinstance(node, ast.Assign) and is_built(source, node.value, ()):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            if not is_safe(source, node.value) and isinstance(node.op, ast.Add):
                found.add(node.target.id)
    return found


def is_built(source, node, built):
    """Returns whether an expression puts a text together of parts that a shell would read."""
    if isinstance(node, ast.Name):
        return node.id in built
    if isinstance(node, (ast.JoinedStr, ast.BinOp)) or is_formatted(node):
        return not all(is_safe(source, part) for part in parts(node))
    return False


def is_formatted(node):
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return node.func.attr in ("format", "join") and isinstance(node.func.value, ast.Constant)


def parts(node):
    """Returns what a text is put together of."""
    found, waiting = [], [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.JoinedStr):
            waiting += node.values
        elif isinstance(node, ast.FormattedValue):
            waiting.append(node.value)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
            waiting += [node.left, node.right]
        elif is_formatted(node):
            waiting += node.args + [keyword.value for keyword in node.keywords]
        elif isinstance(node, ast.Tuple):
            waiting += node.elts
        else:
            found.append(node)
    return found


def is_safe(source, node):
    if isinstance(node, ast.Call):
        return source.path(node.func) in QUOTED
    return isinstance(node, ast.Constant)


def swallowed(source, loop):
    """Finds handlers directly in a loop that catch everything and let it go on: no deadline ends such a loop."""
    for node in own_nodes(loop.body):
        if isinstance(node, TRIES):
            for handler in node.handlers:
                if catches_all(source, handler.type) and not leaves(handler):
                    message = "catches the end of the run and goes on, expected `except Exception`"
                    yield handler, "swallow", message


def own_nodes(body):
    """Returns the nodes of a loop's body without those of inner loops and functions."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*LOOPS, *SCOPES)):
            waiting += [child for child in ast.iter_child_nodes(node)]


def catches_all(source, kind):
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(source.path(kind) == "builtins.BaseException" for kind in kinds)


def leaves(handler):
    exits = (ast.Raise, ast.Return, ast.Break)
    for node in own_nodes(handler.body):
        if isinstance(node, exits):
            return True
        if isinstance(node, ast.Attribute) and node.attr in ("exit", "_exit"):
            return True
    return False


def patches(source, node):
    targets = []
    if isinstance(node, (ast.Assign, ast.Delete)):
        targets = node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    for target in targets:
        if isinstance(target, ast.Attribute):
            yield from patched(source, target, target.value, target.attr)


def patched(source, at, owner, name):
    """Finds a change of what a module of everybody's holds; `name` is a text or a node."""
    root = owner
    while isinstance(root, ast.Attribute):
        root = root.value
    if not (isinstance(root, ast.Name) and source.names.get(root.id)):
        return
    name = name.value if isinstance(name, ast.Constant) else name
    path = f"{source.path(owner)}.{name}" if isinstance(name, str) else source.path(owner)
    if path not in OWN and not path.startswith("automation."):
        yield at, "patch", f"{path} is changed for the host and all its runs, which share its modules"


def allowances(source):
    """Returns the codes that each line allows, by line, and the places where a code is unknown."""
    allowed, unknown = {}, []
    for number, line in enumerate(source.lines, 1):
        match = ALLOW.search(line)
        if not match:
            continue
        codes = {code.strip() for code in match[1].split(",")}
        allowed[number] = codes
        unknown += [(number, match.start() + 1, code) for code in sorted(codes - CODES)]
    return allowed, unknown
