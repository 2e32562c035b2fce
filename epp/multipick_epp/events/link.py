"""A ZMQ socket that keeps one connection up, its monitor, and how much of a message that isn't whole has come over it.

ZMQ bounds what has arrived by messages, and the size of each of their parts; but it keeps the parts of a message until
the last is there, however many come. A publisher that sends parts without an end would fill the memory of the whole
process, so somebody has to look now and then at what its connection has brought: see `overlong`.
"""

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

from multipick_epp.events.decode import MAX_PAYLOAD_BYTES

QUEUED_MESSAGES = 64
"""By one socket: ZMQ counts messages, not bytes, and each may have MAX_MESSAGE_BYTES."""
MAX_FRAMES = 8  # of one message; vLLM sends 4 at most
MAX_MESSAGE_BYTES = 2 * MAX_PAYLOAD_BYTES
"""With its frames' sizes, and the last of the message before, which ZMQ may not have handed over yet. Of frames without
content that is 4 million, for which ZMQ takes 260 MB.
"""
_RECONNECT_MS = (100, 5000)  # first pause, longest pause
_HEARTBEAT_MS = (5000, 15000)  # interval, silence after which the connection counts as broken
_WATCHED = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_INFO_BYTES = 136
_RECEIVED = struct.Struct("@Q")
_RECEIVED_AT = 128  # tcpi_bytes_received in Linux' struct tcp_info, since 4.1
_COUNT = struct.Struct("@i")

Context = zmq.Context[zmq.Socket[bytes]]


class Link:
    """To be closed."""

    def __init__(self, context: Context, kind: int, address: str) -> None:
        """Raises zmq.ZMQError for a bad address, or without a socket."""
        self._monitor: zmq.Socket[bytes] | None = None
        self._connection: socket.socket | None = None
        self.given_up = False  # by ZMQ, which does not connect again to who broke its protocol
        self._whole = False  # a message was received since the last look
        self._seen_bytes = 0  # of the connection, at the last look that found whole messages
        self._socket = context.socket(kind)
        try:
            self._set_options()
            self._monitor = self._socket.get_monitor_socket(_WATCHED)
            self._socket.connect(address)
        except BaseException:
            self.close()
            raise

    def _set_options(self) -> None:
        set_option = self._socket.setsockopt
        if self._socket.type == zmq.SUB:
            set_option(zmq.SUBSCRIBE, b"")
        set_option(zmq.RCVHWM, QUEUED_MESSAGES)
        set_option(zmq.LINGER, 0)
        set_option(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)  # of a frame
        set_option(zmq.IPV6, 1)
        set_option(zmq.RECONNECT_IVL, _RECONNECT_MS[0])
        set_option(zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1])
        set_option(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS[0])
        set_option(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_MS[1])

    @property
    def descriptor(self) -> int:
        """Readable once after something changed: then all messages have to be received."""
        return int(self._socket.FD)

    @property
    def descriptor_of_changes(self) -> int:
        """The same, for `changes`."""
        assert self._monitor is not None
        return int(self._monitor.FD)

    @property
    def closed(self) -> bool:
        """By us."""
        return self._socket.closed

    def receive(self) -> list[bytes]:
        """The frames of one message. Raises zmq.Again where there is none, ValueError for more than a message may have:
        the rest of them goes with the socket.
        """
        frames = [self._socket.recv(zmq.NOBLOCK)]
        while self._socket.getsockopt(zmq.RCVMORE):
            if len(frames) == MAX_FRAMES:
                raise ValueError(f"a message of more than {MAX_FRAMES} frames")
            frames.append(self._socket.recv(zmq.NOBLOCK))
        self._whole = True
        return frames

    def send(self, frames: Sequence[bytes]) -> None:
        """Raises zmq.ZMQError where it can't be kept until the connection is there."""
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def changes(self) -> Iterator[bool]:
        """True for each time that the connection was made, False for each that it was lost, since the last call."""
        assert self._monitor is not None
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            said = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
            event = said["event"]
            self.given_up = event == zmq.EVENT_DISCONNECTED  # else it says at once that it tries again
            if event == zmq.EVENT_CONNECTED:
                self._hold(said["value"])
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                yield True
            elif event == zmq.EVENT_DISCONNECTED:
                self._let_go()
                yield False

    def overlong(self) -> bool:
        """More has come of a message than one may have. To be asked now and then, after `changes`."""
        came = self._came_bytes()
        if self._whole:
            self._whole, self._seen_bytes = False, came
            return False
        if came - self._seen_bytes <= MAX_MESSAGE_BYTES:
            return False
        return not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN  # else it is whole, and waits for us

    def close(self) -> None:
        """At once. Never raises."""
        self._let_go()
        if not self._socket.closed:
            with suppress(zmq.ZMQError):
                self._socket.disable_monitor()
        for each in (self._monitor, self._socket):
            if each is not None:
                each.close(linger=0)

    def _hold(self, descriptor: int) -> None:
        """Keep hold of the connection, by a descriptor of our own: ZMQ's may be another connection's by now."""
        self._let_go()
        with suppress(OSError):  # no `socket.dup`: that would make ZMQ's own descriptor one that blocks
            self._connection = socket.socket(fileno=os.dup(descriptor))
        self._seen_bytes = 0

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _came_bytes(self) -> int:
        """That ZMQ has read from its connection; 0 where there is none, or the system doesn't say."""
        if self._connection is None:
            return 0
        try:  # by another name, or none, where the system isn't Linux
            info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
            waits = fcntl.ioctl(self._connection, termios.FIONREAD, bytes(_COUNT.size))
            return int(_RECEIVED.unpack_from(info, _RECEIVED_AT)[0]) - int(_COUNT.unpack(waits)[0])
        except (OSError, AttributeError, struct.error):
            return 0
