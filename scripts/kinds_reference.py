"""Write docs/kinds-reference.md from the models and the descriptions; `--check` only reports whether it is current.

Run it after an attribute has changed: python scripts/kinds_reference.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from mapping_reference import row, table_head, write
from pydantic import BaseModel

from canary_mw.config.ambassador.kinds import EDGE_STACK_KINDS, REQUIRED
from canary_mw.config.filters.auth_schema import AuthServiceV0, AuthServiceV3
from canary_mw.config.filters.rate_limit_service import RateLimitServiceV3
from canary_mw.config.reference.attribute_doc import AttributeDoc
from canary_mw.config.reference.filters import AUTH_SERVICE_ATTRIBUTES, RATE_LIMIT_SERVICE_ATTRIBUTES
from canary_mw.config.reference.services import (
    CONSUL_RESOLVER_ATTRIBUTES,
    LOG_SERVICE_ATTRIBUTES,
    TCP_MAPPING_ATTRIBUTES,
    TRACING_SERVICE_ATTRIBUTES,
)
from canary_mw.config.services.consul_resolver import ConsulResolverModel
from canary_mw.config.services.log_service import LogServiceModel
from canary_mw.config.services.tcp_mapping import TCPMappingModel
from canary_mw.config.services.tracing_service import TracingServiceModel

PAGE = Path(__file__).parent.parent / "docs" / "kinds-reference.md"

INTRODUCTION = """\
# AuthService, RateLimitService, TCPMapping, LogService, TracingService, ConsulResolver: reference

This page is generated from the models that read the documents: `python scripts/kinds_reference.py`. Their form is that
of a Mapping, and types are written as in [mapping-reference.md](mapping-reference.md). What a kind is for, with an
example: [filters.md](filters.md) for AuthService, RateLimitService, LogService and TracingService, [tcp.md](tcp.md),
[kubernetes.md](kubernetes.md) for the resolvers.
"""

# The model of v3alpha1 first.
KINDS: dict[str, tuple[dict[str, AttributeDoc], tuple[type[BaseModel], ...]]] = {
    "AuthService": (AUTH_SERVICE_ATTRIBUTES, (AuthServiceV3, AuthServiceV0)),
    "RateLimitService": (RATE_LIMIT_SERVICE_ATTRIBUTES, (RateLimitServiceV3,)),
    "TCPMapping": (TCP_MAPPING_ATTRIBUTES, (TCPMappingModel,)),
    "LogService": (LOG_SERVICE_ATTRIBUTES, (LogServiceModel,)),
    "TracingService": (TRACING_SERVICE_ATTRIBUTES, (TracingServiceModel,)),
    "ConsulResolver": (CONSUL_RESOLVER_ATTRIBUTES, (ConsulResolverModel,)),
}


def tables() -> Iterator[str]:
    """A table for each kind."""
    for kind, (attributes, models) in KINDS.items():
        yield from table_head(kind, "attribute")
        yield "\n".join(row(name, text, *models) for name, text in attributes.items()) + "\n"


def others() -> Iterator[str]:
    """The kinds without attributes, and without effect."""
    yield "## KubernetesEndpointResolver and KubernetesServiceResolver\n"
    yield "Each has a name, for `resolver`, and no more.\n"
    yield "## Kinds without effect\n"
    yield "Checked for required attributes, and ignored with a notice:\n"
    yield "| kind | requires |\n|---|---|"
    for kind, required in REQUIRED.items():
        yield f"| `{kind}` | {', '.join(f'`{name}`' for name in required) or 'nothing'} |"
    names = ", ".join(f"`{name}`" for name in sorted(EDGE_STACK_KINDS))
    yield f"\nKinds of Edge Stack, ignored with a notice in each version: {names}. Kinds of other API groups"
    yield "are passed over in silence, and so are files of a directory that hold no rules."
    yield ""


def page() -> str:
    """The text of the page."""
    return "\n".join([INTRODUCTION, *tables(), *others()])


if __name__ == "__main__":
    sys.exit(write(PAGE, page()))
