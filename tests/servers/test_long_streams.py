"""A gibibyte each way through `canary-mw serve`: whole, and without memory for it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from servers import Process, free_port, mapping, process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc"),
]

GIB = 1 << 30
CHUNK = bytes(1 << 20)
# What the issue of this promise allows.
GROWTH = 16 << 20


class Stream:
    """A buffered connection of blocking sockets, for much data and little work."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(60)
        self._sock = sock
        self._file = sock.makefile("rb")

    def head(self) -> bytes:
        """Up to the empty line, or the end of the connection."""
        head = b""
        while line := self._file.readline().strip():
            head += line.lower() + b"\r\n"
        return head

    def send(self, data: bytes) -> None:
        """All of it."""
        self._sock.sendall(data)

    def send_zeros(self, count: int) -> None:
        """So many."""
        for _ in range(count // len(CHUNK)):
            self._sock.sendall(CHUNK)

    def send_chunks(self, count: int) -> None:
        """So many zeros in chunks."""
        for _ in range(count // len(CHUNK)):
            self._sock.sendall(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
        self._sock.sendall(b"0\r\n\r\n")

    def take(self, count: int) -> None:
        """Read so many bytes."""
        buffer = memoryview(bytearray(1 << 20))
        while count:
            got = self._file.readinto1(buffer[: min(count, len(buffer))])
            assert got, f"{count} bytes are missing"
            count -= got

    def take_chunks(self) -> int:
        """Read a chunked body; its length."""
        total = 0
        while size := int(self._file.readline(), 16):
            self.take(size + 2)
            total += size
        assert self._file.readline() == b"\r\n"
        return total

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._sock.close()


@contextmanager
def upstream(serve: Callable[[Stream], object]) -> Iterator[int]:
    """A server of one thread for each connection; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def talk(sock: socket.socket) -> None:
        with closing(Stream(sock)) as stream:
            while serve(stream):
                pass

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=talk, args=(sock,)))
            threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(60)


def memory(process: Process, what: str) -> int:
    """Bytes of "VmRSS" or "VmHWM", its highest value since it was reset."""
    status = Path(f"/proc/{process.child.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what))


def growth(process: Process, work: Callable[[], object]) -> int:
    """By how many bytes the process was larger meanwhile than before."""
    before = memory(process, "VmRSS")
    Path(f"/proc/{process.child.pid}/clear_refs").write_text("5")
    work()
    return memory(process, "VmHWM") - before


def serve(stream: Stream) -> bool:
    """Take what is uploaded, and answer with as many zeros as the target asks for, in the framing of the request."""
    head = stream.head()
    if not head:
        return False
    count = int(head.split()[1].rpartition(b"/")[2])
    if b"transfer-encoding" in head:
        taken = stream.take_chunks()
        stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        stream.send_chunks(count)
        return taken >= 0
    if length := head.partition(b"content-length: ")[2].partition(b"\r\n")[0]:
        stream.take(int(length))
    stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % count)
    stream.send_zeros(count)
    return True


def up(stream: Stream, count: int, framing: bytes) -> None:
    """Upload so many bytes."""
    stream.send(b"POST /long/0 HTTP/1.1\r\nhost: long.example\r\n%b\r\n\r\n" % framing)
    if framing.startswith(b"transfer"):
        stream.send_chunks(count)
    else:
        stream.send_zeros(count)
    assert stream.head().startswith(b"http/1.1 200 ")
    if framing.startswith(b"transfer"):
        assert stream.take_chunks() == 0


def down(stream: Stream, count: int, framing: bytes) -> None:
    """Download so many bytes."""
    chunked = framing.startswith(b"transfer")
    stream.send(b"POST /long/%d HTTP/1.1\r\nhost: long.example\r\n%b\r\n\r\n" % (count, framing))
    if chunked:
        stream.send(b"0\r\n\r\n")
    assert stream.head().startswith(b"http/1.1 200 ")
    if chunked:
        assert stream.take_chunks() == count
    else:
        stream.take(count)


@pytest.mark.parametrize("framing", ["content-length", "transfer-encoding"])
def test_a_gibibyte_up_and_one_down_cost_no_memory(framing: str, tmp_path: Path) -> None:
    rules, port = tmp_path / "rules.yaml", free_port()
    rules.write_text(mapping("long", "/long/", "long", timeout_ms=0))

    def header(count: int) -> bytes:
        return b"transfer-encoding: chunked" if framing == "transfer-encoding" else b"content-length: %d" % count

    with upstream(serve) as origin:
        arguments = ["serve", "--rules", str(rules), "--port", str(port)]
        arguments += ["--upstream", f"long=http://127.0.0.1:{origin}"]
        with process(*arguments, log=tmp_path / "log", wait_for=[port]) as proxy:
            with closing(Stream(socket.create_connection(("127.0.0.1", port)))) as stream:
                up(stream, 64 << 20, header(64 << 20))
                down(stream, 64 << 20, header(0))
                grown = growth(proxy, lambda: up(stream, GIB, header(GIB)))
                grown_down = growth(proxy, lambda: down(stream, GIB, header(0)))
            assert proxy.stop() == 0
    assert grown < GROWTH
    assert grown_down < GROWTH
