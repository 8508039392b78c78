"""Where a Mapping document comes from, and the settings it is read with."""

from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.config.document import API_SCHEME
from canary_mw.config.resource import Resource
from canary_mw.rules.matchers import Regex, compile_regex
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings
from canary_mw.rules.upstream import ConsulAgent, UpstreamTLS


class DocumentOrigin(NamedTuple):
    """Where a document comes from, and what its source defines for all Mappings.

    Attributes:
        endpoints_in: the namespace of a Service that is named without one, where the resolver asks for endpoints; empty
            for that of this process, None where services are looked up by DNS.
        agent: where the service is asked for; None without a ConsulResolver.
    """

    name: str
    namespace: str
    labels: Dict[str, str]
    file: str
    line: int
    settings: ModuleSettings = DEFAULT_SETTINGS
    tls_contexts: Dict[str, UpstreamTLS] = {}
    endpoints_in: str | None = None
    agent: ConsulAgent | None = None


def compile_limited(pattern: str, origin: DocumentOrigin) -> Regex:
    """Compile a regex under the Module's size limit; the matchers compile it again, from RE2's cache."""
    return compile_regex(pattern, max_size=origin.settings.regex_max_size)


def endpoints_in(resource: Resource, file: str) -> str:
    """The namespace of a Service that a document names without one; empty for that of this process.

    A file may leave the namespace to whoever applies it; an object of an API has one.
    """
    named = resource.namespace != "default" or "namespace" in resource.lines_inside or file.startswith(API_SCHEME)
    return resource.namespace if named else ""
