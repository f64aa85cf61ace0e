"""Looks whether the interpreter still does what everything relies on, after a run was refused memory. Executed in the
namespace of `glue.py`."""

SOUNDNESS_SCRIPT = """
import json, re, threading, collections, functools, datetime, decimal, traceback, io

class Node:
    def __init__(self, value, parent=None):
        self.value, self.parent = value, parent

@functools.lru_cache(maxsize=8)
def depth(node):
    return 0 if node.parent is None else 1 + depth(node.parent)

node = None
for value in range(20):
    node = Node(value, node)
assert depth(node) == 19

def squares(count):
    for number in range(count):
        yield number * number

assert sum(squares(10)) == 285
try:
    [][1]
except IndexError as error:
    assert "list index" in "".join(traceback.format_exception(type(error), error, None))
else:
    raise AssertionError("no exception")
text = json.dumps({"a": [1, 2.5, None, "\\u00e9"], "b": {"c": True}}, sort_keys=True)
assert json.loads(text)["a"][3] == "\\u00e9"
assert re.sub(r"(\\w+) (\\w+)", r"\\2 \\1", "hello world") == "world hello"
assert str(decimal.Decimal("0.1") + decimal.Decimal("0.2")) == "0.3"
assert collections.Counter("abca").most_common(1) == [("a", 2)]
assert datetime.date(2024, 2, 29).isoformat() == "2024-02-29"
assert {str(number): number for number in range(300)}["299"] == 299
with threading.Lock():
    io.StringIO("x").read()
"""


def check_soundness():
    """Raises what is wrong."""
    code = compile(SOUNDNESS_SCRIPT, __file__, "exec", dont_inherit=True)
    exec(code, {"__name__": "__soundness__", "__builtins__": __builtins__})
