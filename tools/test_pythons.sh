#!/usr/bin/env bash
# Tests automation-py, its Rust tests and those of the Python module, on every CPython from 3.9 to 3.13 that can be
# embedded and is here: on PATH, or installed by pyenv. Names those that are absent. Fails if any fails.
# Usage: tools/test_pythons.sh [WORD...]   Words are given to `cargo test`, for instance: --test ladder
#   MINORS="12 13"   tests these minor versions only
#   KEEP=1           keeps what was built (2 GB a version); else it is removed, unless its tests failed
set -euo pipefail
cd "$(dirname "$0")/.."
minors=${MINORS:-9 10 11 12 13}
target=${CARGO_TARGET_DIR:-target}
# Built once and thrown away: smaller without what speeds up the next build or shows variables in a debugger.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only

say() { printf 'test-pythons: %s\n' "$*"; }

# Prints the first program of a minor version that can be embedded.
find_python() {
    local candidate answer
    for candidate in "python3.$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$1".*/bin/python3; do
        command -v "$candidate" >/dev/null || continue
        # A shim of pyenv is a program and may still lead nowhere.
        if answer=$("$candidate" -I tools/check_python.py 2>/dev/null); then
            printf '%s\n' "$answer"
            return 0
        fi
    done
    return 1
}

# Tests with one interpreter. What is built for one is of no use for another, so each has a folder of its own.
test_with() {
    local python=$1 name=$2
    shift 2
    export PYO3_PYTHON=$python CARGO_TARGET_DIR=$target/python-$name
    cargo test --locked -p automation-py --all-features "$@" || return 1
    [ $# = 0 ] || return 0
    local venv=$CARGO_TARGET_DIR/venv
    if [ ! -x "$venv/bin/pytest" ]; then
        "$python" -m venv "$venv" &&
            "$venv/bin/python" -m pip install -q --disable-pip-version-check \
                -r automation-py/pytests/requirements.txt || return 1
    fi
    cargo build --locked -p automation-py && tools/stage_module.sh debug || return 1
    PYTHONPATH=$PWD/target/module "$venv/bin/python" -m pytest -q --rootdir=. --timeout=120 automation-py/pytests
}

passed="" failed="" absent=""
for minor in $minors; do
    if ! python=$(find_python "$minor"); then
        absent="$absent 3.$minor"
        continue
    fi
    version=$("$python" -c 'import platform; print(platform.python_version())')
    say "Python $version of $python"
    # `if` in a subshell: errexit is off in there, so each step says by itself what is to come of its failure.
    if (test_with "$python" "$version" "$@"); then
        passed="$passed $version"
        [ -n "${KEEP:-}" ] || rm -rf "$target/python-$version"
    else
        failed="$failed $version"
    fi
done
say "passed:${passed:- none}; failed:${failed:- none}; absent:${absent:- none}"
[ -z "$failed" ] && [ -n "$passed" ]
