"""How the exceptions are shown that a script does not catch. Shared by the executor inside a process and the one
that forks: the first executes it as text, so it imports nothing of ours."""

import io
import linecache
import sys
import traceback

# The files whose frames are ours and are never shown.
OWN_FILES = {__file__}


def remember_source(path, source):
    """Lets tracebacks show the lines that ran, whatever is in the file now."""
    lines = io.StringIO(source, newline=None).readlines()
    linecache.cache[path] = (len(source), None, lines, path)


def shown(error):
    """Returns a traceback as the interpreter writes it, without frames of ours."""
    rendered = traceback.TracebackException(type(error), error, error.__traceback__)
    drop_own_frames(rendered)
    if isinstance(error, SyntaxError) and not rendered.stack:
        return "".join(rendered.format_exception_only())
    return "".join(rendered.format())


def drop_own_frames(rendered):
    parts = [rendered]
    while parts:
        part = parts.pop()
        if part is not None:
            part.stack[:] = [frame for frame in part.stack if frame.filename not in OWN_FILES]
            parts += [part.__cause__, part.__context__]
            parts += getattr(part, "exceptions", None) or ()


def sentence(error):
    """Returns an exception's type and message, as the last line of its traceback has them."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__", "__automation__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except Exception:
        text = "<exception str() failed>"
    whole = f"{name}: {text}" if text else name
    return whole.encode("utf-8", "backslashreplace").decode()


def report(error, path, source):
    """Shows an uncaught exception on the run's standard error. Returns it as a sentence."""
    remember_source(path, source)
    hook = sys.excepthook
    if hook is not sys.__excepthook__:
        try:
            hook(type(error), error, error.__traceback__)
            return sentence(error)
        except Exception as failure:
            sys.stderr.write("Error in sys.excepthook:\n" + shown(failure))
            sys.stderr.write("\nOriginal exception was:\n")
    sys.stderr.write(shown(error))
    return sentence(error)
