"""Non-blocking reads and writes of a socket that do not release the interpreter lock.

The standard library releases it around every system call. Where several threads have several cores, another thread
acquires it meanwhile, and acquiring it again costs several times what a small read or write does. On one core, or where
other processes want the cores, plain calls are cheaper; see docs/performance.md.
"""

import ctypes
import os
import socket
from errno import EAGAIN, EWOULDBLOCK
from threading import local
from typing import Any, NoReturn

# The variable that turns these reads and writes off.
PLAIN_SOCKETS = "CANARY_MW_PLAIN_SOCKETS"
_FALSE = frozenset({"", "0", "false", "no", "off"})

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Most bytes that one call reads or writes: longer calls would stall the other threads.
MAX_READ = 65536

# MSG_DONTWAIT although these sockets are non-blocking: a call that blocked would stop every thread.
_RECV_FLAGS = socket.MSG_DONTWAIT
_PEEK_FLAGS = _RECV_FLAGS | socket.MSG_PEEK
_SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_WOULD_BLOCK = (EAGAIN, EWOULDBLOCK)


class _ReadBuffer(local):
    """The receive buffer of each thread."""

    def __init__(self) -> None:
        # Any, because the stubs do not know that slices of it are bytes.
        self.buffer: Any = ctypes.create_string_buffer(MAX_READ)


# PyDLL, unlike CDLL, does not release the interpreter lock.
_libc = ctypes.PyDLL(None, use_errno=True)
_recv = _libc.recv
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_recv.restype = ctypes.c_ssize_t
_send = _libc.send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_local = _ReadBuffer()


def may_keep_lock(sock: socket.socket) -> bool:
    """Whether a socket may be read and written by the functions below.

    Not if it encrypts, if `socket` is patched, as by gevent, if there is one core, or if the variable
    `CANARY_MW_PLAIN_SOCKETS` is set.
    """
    if type(sock) is not socket.socket or socket.socket.__module__ != "socket":
        return False
    return _CORES > 1 and os.environ.get(PLAIN_SOCKETS, "").strip().lower() in _FALSE


def receive(descriptor: int) -> bytes | None:
    """Read at most `MAX_READ` bytes; b"" at the end of the stream, None when there is nothing to read.

    Raises:
        OSError: the connection is broken.
    """
    buffer = _local.buffer
    count: int = _recv(descriptor, buffer, MAX_READ, _RECV_FLAGS)
    if count >= 0:
        data: bytes = buffer[:count]
        return data
    return None if (code := ctypes.get_errno()) in _WOULD_BLOCK else _raise_errno(code)


def nothing_to_read(descriptor: int) -> bool:
    """Whether there is nothing to read: no bytes, no end of the stream, no error."""
    return _recv(descriptor, _local.buffer, 1, _PEEK_FLAGS) < 0 and ctypes.get_errno() in _WOULD_BLOCK


def send(descriptor: int, data: bytes) -> int:
    """Write; return the number of bytes written, 0 when the socket is not writable.

    Raises:
        OSError: the connection is broken.
    """
    count: int = _send(descriptor, data, len(data), _SEND_FLAGS)
    if count >= 0:
        return count
    return 0 if (code := ctypes.get_errno()) in _WOULD_BLOCK else _raise_errno(code)


def _raise_errno(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))
