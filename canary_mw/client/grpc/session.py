"""The calls of one HTTP/2 connection (RFC 9113), without I/O: bytes in, bytes out."""

from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, NoAvailableStreamIDError
from h2.settings import SettingCodes, Settings

from canary_mw.client.grpc.call import Call, framed
from canary_mw.client.grpc.frames import CREDIT_OF_CALL, CREDIT_OF_PART, FrameSplitter, GoAway
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamProtocolError

# Calls at once on one connection, whatever the server allows.
MAX_CALLS = 100
# Calls that have ended, of which h2 knows that what still comes for them is no fault. It would keep 65,536, or 7 MB.
_MAX_ENDED = 1000
_CONFIG = H2Configuration(client_side=True, header_encoding=None)


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = _MAX_ENDED


class Session:
    """The calls of one connection. The owner sends `outgoing` after every call of a method.

    Args:
        authority: the name of the server, for messages.

    Attributes:
        calls: those that have not ended, by their streams.
        retired: it takes no new calls, and is to be closed once those that run have ended.
        error: why the connection is of no use any more, or None.
    """

    __slots__ = ("_authority", "_blocked", "_h2", "_splitter", "calls", "error", "retired")

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._splitter = FrameSplitter(authority)
        self._blocked: dict[int, Call] = {}
        self._h2 = _Connection(_CONFIG)
        self._h2.local_settings = Settings(
            client=True,
            # A pushed answer would be one to a question that nobody asked.
            initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: 65536},
        )
        self._h2.initiate_connection()
        self.calls: dict[int, Call] = {}
        self.retired = False
        self.error: UpstreamError | None = None

    @property
    def room(self) -> int:
        """How many calls may be opened now."""
        if self.retired or self.error is not None:
            return 0
        return min(self._h2.remote_settings.max_concurrent_streams, MAX_CALLS) - len(self.calls)

    def outgoing(self) -> bytes:
        """The bytes to send, once."""
        return self._h2.data_to_send()

    def open(self, call: Call) -> None:
        """Open a call."""
        if self.room <= 0:
            call.fail(UpstreamConnectError(f"{self._authority}: the connection takes no more calls"))
            return
        try:
            call.stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(call.stream, call.headers)
        except NoAvailableStreamIDError:
            self.retired = True
            call.fail(UpstreamConnectError(f"{self._authority}: the connection has no numbers left for calls"))
        except H2Error as exc:
            # The headers that were encoded before the fault may be missing in the table of the server.
            self.retired = True
            call.fail(UpstreamProtocolError(f"{self._authority}: the call cannot be sent: {exc!r}"))
        else:
            self.calls[call.stream] = call
            self._splitter.allow(CREDIT_OF_CALL)
            self._send(call)

    def push(self, call: Call, message: bytes) -> None:
        """Add a message to a stream."""
        if not call.ended:
            call.unsent = memoryview(bytes(call.unsent) + framed(message))
            self._send(call)

    def finish(self, call: Call) -> None:
        """Say that a stream has no more messages; all that were pushed are sent."""
        call.is_open = False
        if not call.ended:
            with suppress(H2Error):
                self._h2.end_stream(call.stream)

    def cancel(self, call: Call, error: UpstreamError) -> None:
        """End a call that has not ended, and tell the server."""
        if self._forget(call) and self.error is None:
            self._reset_stream(call.stream, ErrorCodes.CANCEL)
        call.fail(error)

    def receive(self, data: bytes) -> None:
        """Take received bytes. Whatever they are, nothing is raised; `error` is set where they end the connection."""
        if self.error is not None:
            return
        try:
            for part in self._splitter.feed(data):
                if isinstance(part, GoAway):
                    self._go_away(part)
                else:
                    self._receive_frames(part)
        except UpstreamError as exc:
            self.lose(exc)
        except Exception as exc:  # noqa: BLE001 - bytes of a stranger: h2, hpack and hyperframe raise many kinds
            self.lose(UpstreamProtocolError(f"{self._authority}: sent what is not HTTP/2: {exc!r}", sent=True))

    def lose(self, error: UpstreamError) -> None:
        """The connection is lost: every call ends."""
        if self.error is None:
            self.error = error
        self._blocked.clear()
        calls, self.calls = list(self.calls.values()), {}
        for call in calls:
            call.fail(self._loss_of(call, error))

    def _loss_of(self, call: Call, error: UpstreamError) -> UpstreamError:
        """An error of its own for each call, since what tries again writes into it."""
        kind = UpstreamProtocolError if call.begun else type(error)
        return kind(str(error), sent=True)

    def _receive_frames(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._settings_or_window(event)
            return
        stream = getattr(event, "stream_id", None)
        if isinstance(event, DataReceived):
            # Also of a call that has ended: the window of the connection is shared with the others.
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        call = None if stream is None else self.calls.get(stream)
        if call is None:
            return
        try:
            self._feed(call, event)
        except UpstreamProtocolError as exc:
            self.cancel(call, exc)

    def _feed(self, call: Call, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            call.take_headers(event.headers or ())
        elif isinstance(event, DataReceived):
            call.take_data(event.data or b"")
        elif isinstance(event, TrailersReceived):
            call.take_trailers(event.headers or ())
        elif isinstance(event, StreamEnded):
            if call.unsent or call.is_open:
                # It has answered before the end of the request, and wants no more of it.
                self._reset_stream(call.stream, ErrorCodes.NO_ERROR)
            self._forget(call)
            call.finish()
        elif isinstance(event, StreamReset):
            self._forget(call)
            call.fail(self._reset(event.error_code))

    def _reset_stream(self, stream: int, code: ErrorCodes) -> None:
        # The server may have reset it in the bytes that are being read.
        with suppress(H2Error):
            self._h2.reset_stream(stream, code)

    def _reset(self, code: ErrorCodes | int | None) -> UpstreamError:
        if code == ErrorCodes.REFUSED_STREAM:
            return UpstreamConnectError(f"{self._authority}: has refused the call before it began")
        name = code.name if isinstance(code, ErrorCodes) else f"code {code}"
        return UpstreamProtocolError(f"{self._authority}: has reset the call ({name})", sent=True)

    def _go_away(self, event: GoAway) -> None:
        """Calls that the server has begun go on; the others never began."""
        self.retired = True
        said = f" ({event.text})" if event.text else ""
        text = f"{self._authority}: has closed the connection before the call began, with code {event.code}{said}"
        for call in [call for stream, call in self.calls.items() if stream > event.last_stream]:
            self._forget(call)
            call.fail(UpstreamConnectError(text))

    def _settings_or_window(self, event: WindowUpdated | RemoteSettingsChanged) -> None:
        if not self._h2.remote_settings.max_concurrent_streams:
            self.retired = True
        stream = event.stream_id if isinstance(event, WindowUpdated) else 0
        blocked = [self._blocked[stream]] if stream in self._blocked else [] if stream else list(self._blocked.values())
        for call in blocked:
            self._send(call)

    def _send(self, call: Call) -> None:
        """Send as much of the request as the windows of the server allow."""
        h2, stream = self._h2, call.stream
        while call.unsent:
            size = min(h2.local_flow_control_window(stream), h2.max_outbound_frame_size)
            if size <= 0:
                self._blocked[stream] = call
                return
            part, call.unsent = call.unsent[:size], call.unsent[size:]
            self._splitter.allow(CREDIT_OF_PART)
            h2.send_data(stream, bytes(part), end_stream=not (call.unsent or call.is_open))
        self._blocked.pop(stream, None)

    def _forget(self, call: Call) -> bool:
        """Remove a call; whether it was here."""
        self._blocked.pop(call.stream, None)
        return self.calls.pop(call.stream, None) is not None
