"""What a script's `run` returned, as JSON text: only what means the same in both, within the limits of JSON."""

import math
from json import dumps


class Refused(Exception):
    """What can't be JSON, and the way to it."""


class Limits:
    def __init__(self, depth, nodes, size, integer):
        self.depth, self.nodes, self.size, self.integer = depth, nodes, size, integer


def written(value, limits):
    """Returns a value as JSON text.

    Raises `Refused` with a JSON pointer and a sentence that holds no value."""
    reader = Reader(limits)
    try:
        plain = reader.value(value)
    except Refused as refused:
        steps = (step.replace("~", "~0").replace("/", "~1") for step in reader.path)
        raise Refused("".join(f"/{step}" for step in steps), refused.args[0]) from None
    return dumps(plain, ensure_ascii=False)


class Reader:
    """Reads a value. Stops at the limits, since a small object may hold another one many times over."""

    def __init__(self, limits):
        self.limits = limits
        self.path = []
        self.nodes = self.size = 0

    def value(self, value):
        if len(self.path) > self.limits.depth:
            self.refuse_whole(f"nested deeper than {self.limits.depth} levels")
        self.count_node()
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return self.number(int(value))
        if isinstance(value, float):
            if not math.isfinite(value):
                raise Refused("NaN or Infinity (not JSON)")
            return float(value)
        if isinstance(value, dict):
            return {self.key(key): self.inside(key, item) for key, item in dict.items(value)}
        if isinstance(value, (list, tuple)):
            return [self.inside(str(index), item) for index, item in enumerate(value)]
        raise Refused(f"type {kind(value)}, which JSON does not have")

    def key(self, key):
        if not isinstance(key, str):
            raise Refused(f"a key of type {kind(key)}, expected str")
        self.count_node()
        return self.text(key)

    def inside(self, step, item):
        self.path.append(step)
        item = self.value(item)
        self.path.pop()
        return item

    def text(self, text):
        try:
            self.count(len(text.encode()))
        except UnicodeEncodeError:
            raise Refused("lone surrogate") from None
        return str(text)

    def number(self, number):
        if abs(number) > self.limits.integer:
            raise Refused(f"integer beyond ±{self.limits.integer} (send it as a string)")
        return number

    def count_node(self):
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            self.refuse_whole(f"more than {self.limits.nodes} values and keys")
        self.count(1)

    def count(self, size):
        self.size += size
        if self.size > self.limits.size:
            self.refuse_whole(f"longer than {self.limits.size} bytes")

    def refuse_whole(self, detail):
        self.path.clear()
        raise Refused(detail)


def kind(value):
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
