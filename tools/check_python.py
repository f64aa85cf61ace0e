"""Says whether the Python that runs this file can be embedded: exit code 0 and its path, or 1 and what is missing."""

import os
import sys
import sysconfig


def missing():
    """Returns what this Python lacks, in a sentence, or None."""
    if sys.version_info < (3, 9):
        return "it is older than 3.9"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it is a free-threaded build, which is not supported"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return "it was built without a shared library (configure with --enable-shared)"
    library = os.path.join(
        sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or "libpython"
    )
    if not os.path.exists(library):
        return f"its shared library {library} is absent (Debian: apt-get install libpython3-dev)"
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(header):
        return f"its header {header} is absent (Debian: apt-get install python3-dev)"
    return None


if __name__ == "__main__":
    lack = missing()
    # A version manager puts a wrapper on PATH; the build needs the real interpreter. A venv has no headers of its own.
    base = os.path.join(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    real = base if sys.prefix != sys.base_prefix and os.path.exists(base) else sys.executable
    print(lack or real)
    sys.exit(1 if lack else 0)
