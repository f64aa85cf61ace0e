"""A script's syntax tree: where its nodes are, what its names stand for, and whether the compiler can be trusted
with it. Plain Python that parses; nothing here imports or executes what it reads. No function follows the tree by
recursion, since sources nest more deeply than calls may."""

import ast
import re

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
WITHS = (ast.With, ast.AsyncWith)
TRIES = (ast.Try, getattr(ast, "TryStar", ast.Try))
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
EXITS = (ast.Return, ast.Break, ast.Continue)

# Blocks that may nest within one function: CPython refuses more, and some versions crash when a comprehension is
# among them.
BLOCKS_MAX = 20
# Nodes that the compiler may come to see. It copies what stands in `finally` to each way out of its `try`, so that a
# few nested ones grow without bound.
WEIGHT_MAX = 250_000

# Longest chain of attributes that stands for something known.
ATTRIBUTES_MAX = 8


class Source:
    """A source, its tree, and what its names stand for."""

    def __init__(self, text, tree):
        self.lines = re.split("\r\n|\r|\n", text)
        self.tree = tree
        self.problem = too_complex(self.tree)
        self.nodes = [] if self.problem else list(ast.walk(self.tree))
        self.names = imported_names(self.nodes)

    def place(self, node):
        """Returns a node's line and column in characters, both from 1."""
        before = self.lines[node.lineno - 1].encode()[: node.col_offset]
        return node.lineno, len(before.decode(errors="replace")) + 1

    def path(self, node):
        """Returns what a name, or an attribute of one, stands for, for instance `os.path.join`; `builtins.open` for
        a name that nothing in the source binds, `None` where it can't be told."""
        attributes = []
        while isinstance(node, ast.Attribute) and len(attributes) < ATTRIBUTES_MAX:
            attributes.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        root = self.names.get(node.id, "builtins." + node.id)
        return root and ".".join([root, *reversed(attributes)])


def imported_names(nodes):
    """Returns what each imported name stands for, and `None` for names that are bound otherwise too."""
    imported, bound = {}, set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                imported[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known = node.module and not node.level
                imported[alias.asname or alias.name] = known and f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler)):
            bound.add(node.name)
    return {**imported, **dict.fromkeys(bound)}


def too_complex(tree):
    """Returns the node with which a source asks too much of the compiler, and why; `None` for all others."""
    return too_nested(tree) or too_heavy(tree)


def too_nested(tree):
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > BLOCKS_MAX and hasattr(node, "lineno"):
            return node, f"blocks and comprehensions nest deeper than {BLOCKS_MAX} levels"
        for field, value in ast.iter_fields(node):
            inner = 0 if field == "body" and isinstance(node, SCOPES) else depth + added(node, field)
            waiting.extend((child, inner) for child in children(value))
    return None


def added(node, field):
    """Returns the blocks in which the compiler puts what a field of a node holds."""
    if isinstance(node, COMPREHENSIONS):
        return 1
    if isinstance(node, LOOPS):
        return field == "body"
    if isinstance(node, WITHS):
        return len(node.items) if field == "body" else 0
    if isinstance(node, TRIES):
        last = bool(node.finalbody)
        return {"body": last + bool(node.handlers), "handlers": last + 2}.get(field, last)
    return 0


def too_heavy(tree):
    weight, waiting = 0, [(tree, 1)]
    while waiting:
        node, copies = waiting.pop()
        weight += copies
        if isinstance(node, ast.Call):
            # The compiler compares each keyword with each.
            weight += copies * len(node.keywords) ** 2 // 16
        if weight > WEIGHT_MAX:
            at = node if hasattr(node, "lineno") else tree.body[0]
            return at, f"compiles to more than {WEIGHT_MAX} instructions"
        for field, value in ast.iter_fields(node):
            times = copies
            if field == "finalbody" and value:
                times *= 2 + sum(isinstance(inner, EXITS) for inner in ast.walk(node))
            waiting.extend((child, times) for child in children(value))
    return None


def children(value):
    if isinstance(value, list):
        return [item for item in value if isinstance(item, ast.AST)]
    return [value] if isinstance(value, ast.AST) else []
