"""Reads and writes of a socket that does not wait, made without letting go of the interpreter lock.

The standard library lets go of it around every system call. Where many threads want it, another one has it afterwards,
and to get it back costs several times what a small read or write does.
"""

import ctypes
import os
import socket
from errno import EAGAIN, EWOULDBLOCK
from threading import local
from typing import Any, NoReturn

# What one call reads or writes at most: longer ones would keep the others waiting.
MAX_READ = 65536

# The first, though these sockets never wait: one that did would halt every thread.
_RECEIVING = socket.MSG_DONTWAIT
_PEEKING = _RECEIVING | socket.MSG_PEEK
_SENDING = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_NOTHING_THERE = (EAGAIN, EWOULDBLOCK)


class _Scratch(local):
    """Where bytes come in, one for each thread."""

    def __init__(self) -> None:
        # Typed as what it is to us: slices of it are bytes, which the stubs do not know.
        self.buffer: Any = ctypes.create_string_buffer(MAX_READ)


# PyDLL, unlike CDLL, keeps the lock.
_libc = ctypes.PyDLL(None, use_errno=True)
_recv = _libc.recv
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_recv.restype = ctypes.c_ssize_t
_send = _libc.send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_scratch = _Scratch()


def receive(descriptor: int) -> bytes | None:
    """What has come, at most `MOST` bytes; b"" when the other side has ended, None when nothing has come.

    Raises:
        OSError: the connection is broken.
    """
    buffer = _scratch.buffer
    count: int = _recv(descriptor, buffer, MAX_READ, _RECEIVING)
    if count >= 0:
        data: bytes = buffer[:count]
        return data
    return None if (code := ctypes.get_errno()) in _NOTHING_THERE else _failed(code)


def nothing_to_read(descriptor: int) -> bool:
    """Whether nothing has come, no end and no error either."""
    return _recv(descriptor, _scratch.buffer, 1, _PEEKING) < 0 and ctypes.get_errno() in _NOTHING_THERE


def send(descriptor: int, data: bytes) -> int:
    """Write; how many bytes of it were taken, 0 when none can be now.

    Raises:
        OSError: the connection is broken.
    """
    count: int = _send(descriptor, data, len(data), _SENDING)
    if count >= 0:
        return count
    return 0 if (code := ctypes.get_errno()) in _NOTHING_THERE else _failed(code)


def _failed(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))
