"""Names of header fields as they are written on the wire, with the form in which they are passed on."""

from collections.abc import Collection, Iterable

from canary_mw.http.headers import are_tokens

# Clients and upstreams choose what is added: a full table starts again with the common names.
_MAX_LENGTH, _MAX_KNOWN = 40, 1024
_COMMON = (
    b"Host User-Agent Accept Accept-Encoding Accept-Language Accept-Ranges Authorization Cache-Control"
    b" Content-Encoding Content-Type Cookie Date ETag Expires If-Modified-Since If-None-Match Last-Modified Location"
    b" Origin Pragma Range Referer Server Set-Cookie Traceparent Vary X-Forwarded-For X-Forwarded-Host"
    b" X-Forwarded-Proto X-Request-Id".split()
)


class Names:
    """The names that a recogniser takes.

    Args:
        refused: lower-case names that it leaves to the parser.
        common: names that are known from the start, besides those of most messages.
        ending: is put behind the lower-case names.
        underscores: whether a name may hold one.

    Attributes:
        known: the lower-case name for each spelling that was met; a name that is not there is looked at by `learn`.
    """

    def __init__(
        self,
        refused: Iterable[bytes],
        common: Iterable[bytes] = (),
        *,
        ending: bytes = b"",
        underscores: bool = False,
    ) -> None:
        self._refused = frozenset(refused)
        self._common = (*_COMMON, *common)
        self._ending = ending
        self._underscores = underscores
        self.known: dict[bytes, bytes] = {}
        self._start_again()

    def _start_again(self) -> None:
        # The same dictionary, as recognisers hold it.
        self.known.clear()
        for name in self._common:
            self.known[name.lower()] = self.known[name] = name.lower() + self._ending

    def learn(self, names: Collection[bytes]) -> bool:
        """Make names known; false when the parser has to read one of them."""
        return all(name in self.known or self._add(name) for name in names)

    def _add(self, name: bytes) -> bool:
        lower = name.lower()
        if lower in self._refused or len(name) > _MAX_LENGTH or not are_tokens((name,)):
            return False
        if b"_" in name and not self._underscores:
            return False
        if len(self.known) >= _MAX_KNOWN:
            self._start_again()
        self.known[name] = lower + self._ending
        return True
