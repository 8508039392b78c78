"""Credentials from a command, as clusters of cloud providers want them (client.authentication.k8s.io).

A command runs only in programs of this package, and only where the operator allows it; see `kubeconfig.py`.
"""

import json
import os
import subprocess
from datetime import UTC, datetime
from typing import Any

from canary_mw.kubernetes.credentials import ClientCertificate

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")

# Seconds that the command has.
_TIMEOUT = 30.0


class ExecPlugin:
    """The credentials that a command prints, kept until they expire.

    Args:
        command: the program; a relative path with a slash is one of the kubeconfig's directory already.
        api_version: one of `VERSIONS`.
        extra: variables for the command.
    """

    def __init__(self, command: str, arguments: list[str], api_version: str, extra: dict[str, str]) -> None:
        self._argv = [command, *arguments]
        self._api_version = api_version
        self._extra = extra
        self._status: dict[str, Any] | None = None

    def token(self) -> str | None:
        """The token.

        Raises:
            OSError: the command failed.
        """
        token = self._current().get("token")
        return token if isinstance(token, str) else None

    def certificate(self) -> ClientCertificate | None:
        """The client certificate.

        Raises:
            OSError: the command failed.
        """
        status = self._current()
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        if not isinstance(certificate, str) or not isinstance(key, str):
            return None
        return ClientCertificate(certificate.encode(), key.encode())

    def renew(self) -> None:
        """Run the command again for the next request."""
        self._status = None

    def _current(self) -> dict[str, Any]:
        if self._status is None or _is_expired(self._status):
            self._status = self._run()
        return self._status

    def _run(self) -> dict[str, Any]:
        info = {"apiVersion": self._api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        environ = {**os.environ, **self._extra, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            done = subprocess.run(
                self._argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"{self._argv[0]} printed no credentials within {_TIMEOUT:.0f} s") from None
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise OSError(f"{self._argv[0]} ended with status {done.returncode}: {''.join(last)}")
        return self._read(done.stdout)

    def _read(self, output: bytes) -> dict[str, Any]:
        try:
            printed = json.loads(output)
            status = printed["status"]
            if printed["apiVersion"] != self._api_version or not isinstance(status, dict):
                raise KeyError
        except (ValueError, KeyError, TypeError):
            raise OSError(f"{self._argv[0]} printed no ExecCredential of {self._api_version}") from None
        return status


def _is_expired(status: dict[str, Any]) -> bool:
    try:
        return datetime.fromisoformat(status["expirationTimestamp"]) <= datetime.now(UTC)
    except (KeyError, TypeError, ValueError):
        return False
