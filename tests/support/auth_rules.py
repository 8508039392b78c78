"""Rules with an AuthService, and an auth service that answers as a test tells it."""

from upstream import Peer, Seen

AUTH = "apiVersion: getambassador.io/v3alpha1\nkind: AuthService\nname: auth\nauth_service: auth\nproto: http\n"


def auth_service(version: str = "v3alpha1", name: str = "auth", service: str = "auth", **attributes: object) -> str:
    """An AuthService document; values as YAML writes them."""
    lines = [f"{key}: {value}" for key, value in attributes.items()]
    start = f"---\napiVersion: getambassador.io/{version}\nkind: AuthService\nname: {name}\nauth_service: {service}\n"
    return start + "".join(line + "\n" for line in lines)


class AuthService:
    """An auth service.

    Attributes:
        answers: what it answers next, each a status line with header lines and a body; at the end 200 to everything.
        seen: the calls.
    """

    def __init__(self, *answers: tuple[bytes, list[bytes], bytes]) -> None:
        self.answers = list(answers)
        self.seen: list[Seen] = []

    async def __call__(self, peer: Peer) -> None:
        """A script for an upstream."""
        while True:
            self.seen.append(await peer.request())
            status, headers, body = self.answers.pop(0) if self.answers else (b"200 OK", [], b"")
            await peer.answer(body, *headers, status=status)


def headers_of(seen: Seen) -> dict[str, str]:
    """The headers of a request by name; repeated ones joined by " | "."""
    found: dict[str, str] = {}
    for line in seen.headers:
        name, _, value = line.decode("latin-1").partition(": ")
        found[name.lower()] = f"{found[name.lower()]} | {value}" if name.lower() in found else value
    return found
