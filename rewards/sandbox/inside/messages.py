"""Orders and events between the host, the zygote and a cell: one JSON object a packet, descriptors beside it."""

import array
import json
import socket
from collections.abc import Sequence
from typing import Any

_MOST_DESCRIPTORS = 8
_MOST_BYTES = 65536


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None when the other end is closed.

    Raises:
        BlockingIOError: nothing is there yet, on a socket that does not wait.
        ValueError: the packet is not a JSON object.
    """
    size = array.array("i").itemsize
    space = socket.CMSG_LEN(_MOST_DESCRIPTORS * size)
    try:
        text, ancillary, _, _ = channel.recvmsg(_MOST_BYTES, space)
    except ConnectionResetError:
        # The other end closed with a message of ours unread. The kernel says so once, before what it had sent.
        text, ancillary, _, _ = channel.recvmsg(_MOST_BYTES, space)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % size])
    if not text:
        return None, list(descriptors)
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("a packet that is not an object")
    return message, list(descriptors)


def send(channel: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Raises OSError when the other end is gone."""
    text = json.dumps(message).encode()
    if descriptors:
        channel.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
    else:
        channel.send(text)
