"""What a script's `run` takes, from the syntax tree: its annotations as JSON Schema, its defaults as JSON. Needs
`syntax.py`."""

SIMPLE = {
    "builtins.str": "string",
    "builtins.int": "integer",
    "builtins.float": "number",
    "builtins.bool": "boolean",
    "builtins.list": "array",
    "builtins.dict": "object",
    "typing.List": "array",
    "typing.Dict": "object",
}
EXPECTED = (
    "expected str, int, float, bool, list[...], dict[str, ...], Literal[...], Optional[...], "
    "a union of these with |, Any, or no annotation"
)
# Longest annotation that is written as a text: parsing it again must stay cheap.
TEXT_MAX = 200


class Unmapped(Exception):
    """That something can't be said in JSON; says what is expected."""


def find_run(tree):
    """Returns the last function `run` of a module, which is the one that counts."""
    found = [node for node in tree.body if isinstance(node, FUNCTIONS) and node.name == "run"]
    return found[-1] if found else None


def is_guarded(tree):
    """Returns whether a module asks under which name it runs, as one does that can be started by hand."""
    tests = [node.test for node in tree.body if isinstance(node, ast.If)]
    names = (node for test in tests for node in ast.walk(test) if isinstance(node, ast.Name))
    return any(node.id == "__name__" for node in names)


def signature_faults(run):
    """Returns the nodes by which `run` can't be called as `run(ctx, name=value, ...)`, each with the reason."""
    arguments, faults = run.args, []
    positional = arguments.posonlyargs + arguments.args
    if isinstance(run, ast.AsyncFunctionDef):
        faults.append((run, "run is `async def`, expected `def run(ctx, ...)`, which may call `asyncio.run`"))
    if not positional or not (positional[0].arg == "ctx" or positional[0].arg.startswith("_")):
        at = positional[0] if positional else run
        faults.append((at, "run takes no context, expected `def run(ctx, ...)`"))
    for argument in arguments.posonlyargs[1:]:
        reason = "is positional only, expected it after the `/`: parameters are given by name"
        faults.append((argument, f"argument {argument.arg}: {reason}"))
    if arguments.vararg:
        reason = "takes what is given by position, expected `*`: parameters are given by name"
        faults.append((arguments.vararg, f"argument *{arguments.vararg.arg}: {reason}"))
    return faults


def named_arguments(run):
    """Returns what `run` takes by name beside its context, each with the node of its default or `None`."""
    arguments = run.args
    positional = arguments.posonlyargs + arguments.args
    missing = [None] * (len(positional) - len(arguments.defaults))
    pairs = list(zip(positional, missing + arguments.defaults))
    return pairs[1:] + list(zip(arguments.kwonlyargs, arguments.kw_defaults))


def read_arguments(source, run):
    """Returns each argument's name, line, column, whether it is required, its schema, and why it has none."""
    for argument, default in named_arguments(run):
        schema, problem = None, None
        try:
            schema = schema_of(source, argument.annotation)
            if default is not None:
                schema["default"] = literal(default)
        except Unmapped as reason:
            schema, problem = None, str(reason)
        yield (argument.arg, *source.place(argument), default is None, schema, problem)


def schema_of(source, annotation):
    if annotation is None:
        return {}
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = quoted(annotation.value)
    members = []
    while isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        members.append(annotation.right)
        annotation = annotation.left
    if members:
        members.append(annotation)
        return union([schema_of(source, member) for member in reversed(members)], annotation)
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return {"type": "null"}
    if isinstance(annotation, ast.Subscript):
        return generic(source, annotation)
    return named(source, annotation)


def quoted(text):
    try:
        if len(text) <= TEXT_MAX:
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        pass
    raise Unmapped(f"an annotation in quotes that is no annotation, {EXPECTED}")


def named(source, annotation):
    path = typing_path(source, annotation)
    if path == "typing.Any":
        return {}
    if path in SIMPLE:
        return {"type": SIMPLE[path]}
    raise unmapped(annotation)


def typing_path(source, node):
    path = source.path(node) or ""
    return path.replace("typing_extensions.", "typing.", 1)


def generic(source, annotation):
    path = typing_path(source, annotation.value)
    items = annotation.slice
    items = items.elts if isinstance(items, ast.Tuple) else [items]
    if path == "typing.Literal":
        return choices(items)
    if path == "typing.Union" or (path == "typing.Optional" and len(items) == 1):
        schemas = [schema_of(source, item) for item in items]
        return union(schemas + [{"type": "null"}] * (path == "typing.Optional"), annotation)
    if SIMPLE.get(path) == "array" and len(items) == 1:
        return with_inner({"type": "array"}, "items", schema_of(source, items[0]))
    if SIMPLE.get(path) == "object" and len(items) == 2:
        if schema_of(source, items[0]) != {"type": "string"}:
            raise Unmapped("the keys of a dict, expected str: JSON has no other keys")
        return with_inner({"type": "object"}, "additionalProperties", schema_of(source, items[1]))
    raise unmapped(annotation)


def with_inner(schema, keyword, inner):
    return {**schema, keyword: inner} if inner else schema


def choices(items):
    values = []
    for item in items:
        value = literal(item)
        if isinstance(value, (list, dict, float)):
            raise Unmapped("a Literal, expected texts, whole numbers, booleans or None in it")
        values.append(value)
    kinds = {type(value): kind_of(value) for value in values}
    return {"type": single(list(kinds.values())), "enum": values}


def kind_of(value):
    kinds = {str: "string", bool: "boolean", int: "integer"}
    return kinds.get(type(value), "null")


def single(kinds):
    return kinds[0] if len(kinds) == 1 else kinds


def union(schemas, annotation):
    """Returns one schema for several, which JSON Schema takes apart by their types alone."""
    if not all(schemas):
        return {}
    kinds, merged = [], {}
    valued = [schema for schema in schemas if schema["type"] != "null"]
    for schema in schemas:
        listed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        kinds += [kind for kind in listed if kind not in kinds]
    for keyword in ("items", "additionalProperties", "enum"):
        found = [schema[keyword] for schema in valued if keyword in schema]
        if len(found) > 1 or (found and keyword == "enum" and len(valued) > 1):
            raise Unmapped(f"a union whose members can't be told apart by their type, {EXPECTED}")
        if found:
            merged[keyword] = found[0]
    if "enum" in merged and "null" in kinds and None not in merged["enum"]:
        merged["enum"] = merged["enum"] + [None]
    return {"type": single(kinds), **merged}


def literal(node):
    """Returns the value of a literal that JSON has too."""
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if negative else node
    if isinstance(inner, ast.Constant):
        value = inner.value
        if type(value) in (int, float):
            return -value if negative else value
        if not negative and (value is None or type(value) in (str, bool)):
            return value
    if isinstance(node, ast.List):
        return [literal(item) for item in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [literal(key) for key in node.keys]
        if all(isinstance(key, str) for key in keys):
            return dict(zip(keys, map(literal, node.values)))
    raise Unmapped(f"{shown(node)} is no JSON literal, expected a text, a number, True, False, None, [...] or {{...}}")


def unmapped(annotation):
    return Unmapped(f"annotation {shown(annotation)} is not known, {EXPECTED}")


def shown(node):
    try:
        text = ast.unparse(node)
    except RecursionError:
        text = "..."
    return text if len(text) <= 60 else text[:60] + "..."
