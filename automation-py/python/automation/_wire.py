"""Messages between the host and the processes that it isolates scripts in: JSON, cut into packets of a
`SOCK_SEQPACKET` socket. A packet says whether it begins and whether it ends a message, so that one that was
interrupted is dropped and never taken for the beginning of the next."""

# Scripts may put something else into their place in `json`.
from json import dumps, loads

PACKET_BYTES = 60_000
BEGINS, ENDS = 1, 2


def send(wire, message):
    data = dumps(message, separators=(",", ":")).encode()
    mark = BEGINS
    while len(data) > PACKET_BYTES:
        wire.send(bytes([mark]) + data[:PACKET_BYTES])
        data = data[PACKET_BYTES:]
        mark = 0
    wire.send(bytes([mark | ENDS]) + data)


def receive(wire):
    """Returns the next message; `None` when the other end is gone."""
    parts = []
    while True:
        packet = wire.recv(PACKET_BYTES + 1)
        if not packet:
            return None
        if packet[0] & BEGINS:
            parts.clear()
        parts.append(packet[1:])
        if packet[0] & ENDS:
            return loads(b"".join(parts))
