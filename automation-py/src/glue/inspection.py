"""What is found out about a script from its syntax tree, in plain values. Needs `syntax.py`, `signature.py` and
`lints.py`."""


def too_much(source):
    """Returns where and why the compiler must not see a source, if so."""
    if source.problem is None:
        return None
    node, reason = source.problem
    return (True, *source.place(node), reason)


def findings(source, enters_run, shared, own_place):
    """Returns what is wrong or doubtful, as tuples of whether it is an error, line, column and message, sorted by
    place; and what `run` takes, as a tuple of line, column, whether it takes more, and its arguments."""
    found, signature, doubts = [], None, lints(source, shared, own_place)
    run = find_run(source.tree) if enters_run else None
    if run is not None:
        faults = signature_faults(run)
        found += [(True, *source.place(node), message) for node, message in faults]
        if not is_guarded(source.tree):
            message = 'can\'t be run by hand: expected `if __name__ == "__main__":` that calls `run`'
            doubts.append((run, "guard", message))
        if not faults:
            arguments = list(read_arguments(source, run))
            more = bool(run.args.kwarg or run.decorator_list)
            signature = (*source.place(run), more, arguments)
    elif enters_run:
        message = 'entry is "run", expected a function `def run(ctx, **parameters)`'
        found.append((True, None, None, message))
    found += warnings_of(source, doubts)
    return sorted(found, key=lambda entry: (entry[1] or 0, entry[2] or 0)), signature


def warnings_of(source, doubts):
    allowed, unknown = allowances(source)
    for line, column, code in unknown:
        message = f"allow({code}) is unknown, expected one of {', '.join(sorted(CODES))}"
        yield False, line, column, message
    for node, code, message in doubts:
        if code not in allowed.get(node.lineno, ()):
            yield (False, *source.place(node), f"{message} [{code}]")
