"""What a script does that is refused in a run, reaches other runs, or lets its parameters become commands: found in the
syntax tree, each with a code by which a line can allow it. Needs `syntax.py`."""

# What raises an exception in a run: what to do instead, and by which names.
REFUSED = (
    (
        "expected subprocess.run",
        "os.execl os.execle os.execlp os.execlpe os.execv os.execve os.execvp os.execvpe",
    ),
    (
        "expected ctx.remaining() or a timeout",
        "signal.alarm signal.setitimer signal.raise_signal signal.sigwait signal.sigwaitinfo signal.sigtimedwait"
        " faulthandler.dump_traceback_later",
    ),
    (
        "expected a program that is started as somebody else",
        "os.setuid os.setgid os.seteuid os.setegid os.setreuid os.setregid os.setresuid os.setresgid"
        " os.setgroups os.initgroups os.chroot",
    ),
    (
        'expected isolation = "process" in the metadata block',
        "os.nice os.closerange resource.setrlimit sys.addaudithook sys.setswitchinterval sys.setdlopenflags",
    ),
)
# Refused too where threads have no working directory and mask of their own.
PLACE = {path: "expected whole paths and os.chmod" for path in ("os.chdir", "os.fchdir", "os.umask", "contextlib.chdir")}
HINTS = {path: hint for hint, paths in REFUSED for path in paths.split()}
# Fine where a program is started with it, and refused where a run calls it.
CALLED = ("os.setsid", "os.setpgrp")

# What reaches other runs, by code: what it does, what to do instead, and by which names.
REACHING = {
    "fork": (
        "copies a process with many threads, which may wait for ever, expected subprocess.run or threads",
        "os.fork os.forkpty pty.fork pty.spawn multiprocessing.Process multiprocessing.Pool"
        " multiprocessing.Manager multiprocessing.pool.Pool concurrent.futures.ProcessPoolExecutor",
    ),
    "process-state": (
        'changes all runs until the script ends, expected isolation = "process" in the metadata block',
        "gc.disable gc.freeze gc.set_threshold gc.set_debug gettext.textdomain locale.setlocale logging.shutdown"
        " os.register_at_fork socket.setdefaulttimeout sys.setrecursionlimit threading.settrace threading.setprofile",
    ),
    "terminal": (
        "reads from a terminal, and a run's standard input is empty, expected a parameter",
        "builtins.input builtins.breakpoint getpass.getpass pdb.set_trace code.interact",
    ),
}
PATHS = {path: code for code, (_, paths) in REACHING.items() for path in paths.split()}

FOREIGN = ("ctypes", "_ctypes", "cffi")
SHELLS = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
WITH_SHELL = tuple(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen"))
QUOTED = ("shlex.quote", "shlex.join", "pipes.quote")
# Attributes of shared modules of which each run has its own.
OWN = {
    f"sys.{name}"
    for name in ("argv", "path", "stdin", "stdout", "stderr", "excepthook", "unraisablehook")
} | {"threading.excepthook", "warnings.filters"}

# These concern the script wherever it runs; the others only what shares a process with it.
EVERYWHERE = ("terminal", "shell-injection", "swallow")
CODES = {*REACHING, *EVERYWHERE, "foreign-code", "guard", "patch", "refused"}

ALLOW = re.compile(r"#\s*automation:\s*allow\(([^()]*)\)\s*$")


def lints(source, shared, own_place):
    """Returns what is doubtful in a source as triples of node, code and message. `shared` says whether the script
    runs in the host's process, and `own_place` whether it has its own working directory there."""
    found = []
    built = built_names(source)
    hints = HINTS if own_place else {**HINTS, **PLACE}
    for node in source.nodes:
        found += references(source, node, hints)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += foreign_imports(node)
        elif isinstance(node, ast.Call):
            found += calls(source, node, built)
        elif isinstance(node, LOOPS):
            found += swallowed(source, node)
        found += patches(source, node)
    return [entry for entry in found if shared or entry[1] in EVERYWHERE]


def references(source, node, hints):
    """Finds names that are doubtful however they are used: called, passed on, or kept."""
    if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
        path = source.path(node)
        if path in hints:
            yield refused(node, path, hints[path])
        elif path in PATHS:
            yield node, PATHS[path], f"{path.replace('builtins.', '')} {REACHING[PATHS[path]][0]}"


def refused(node, what, hint):
    return node, "refused", f"{what} is refused in a run, {hint}"


def foreign_imports(node):
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    for module in modules:
        root = module.partition(".")[0]
        if root in FOREIGN:
            message = f'{root} can crash all runs and wait past the deadline, expected isolation = "process" in the metadata block'
            yield node, "foreign-code", message


def calls(source, node, built):
    path = source.path(node.func) or ""
    first = node.args[0] if node.args else None
    if path in ("os.kill", "os.killpg") and is_ourselves(source, first):
        yield refused(node, f"{path} of the own process", "expected sys.exit")
    elif path == "os.close" and is_stream(first):
        yield refused(node, "os.close of 0, 1 or 2", "they are the run's output")
    elif path == "os.dup2" and len(node.args) > 1 and is_stream(node.args[1]):
        yield refused(node, "os.dup2 onto 0, 1 or 2", "expected contextlib.redirect_stdout or stdout= of subprocess")
    elif path == "threading.stack_size" and first is not None:
        yield refused(node, path, "the threads of a run have large stacks")
    elif path in CALLED:
        yield refused(node, path, "expected start_new_session= of subprocess")
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
    """Finds handlers directly in a loop that catch everything and let it go on: a deadline ends such a loop by force
    or, where Python is a host's, not at all."""
    for node in own_nodes(loop.body):
        if isinstance(node, TRIES):
            for handler in node.handlers:
                if catches_all(source, handler.type) and not leaves(handler):
                    message = "catches the end of the run and goes on, so that it is ended by force, expected `except Exception`"
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
        yield at, "patch", f"{path} is changed for all runs until the script ends, since they share its module"


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
