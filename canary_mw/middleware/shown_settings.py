"""The settings of a process for people: values without secrets, and where each comes from."""

import os
from collections.abc import Collection, Iterator
from collections.abc import Mapping as Dict
from dataclasses import fields

from canary_mw.admin.models.operations import SettingInForce
from canary_mw.middleware.settings import MiddlewareSettings, variable

# Files and directories of keys: whoever reads the page learns that there are some, and not where.
_SECRETS = frozenset(("admin_token_file", "header_key_file", "secrets", "ssl_keyfile"))
# Names of the settings that options of `canary-mw serve` gave. It hands all settings to its workers as variables.
OPTIONS = "_CANARY_MW_OPTIONS"


def shown_settings(
    settings: MiddlewareSettings, environ: Dict[str, str] | None = None, arguments: Collection[str] = ()
) -> list[SettingInForce]:
    """The settings in force.

    Args:
        environ: by default that of the process.
        arguments: names of those that a middleware got as arguments.
    """
    return [*_shown(settings, os.environ if environ is None else environ, frozenset(arguments))]


def _shown(
    settings: MiddlewareSettings, environ: Dict[str, str], arguments: frozenset[str]
) -> Iterator[SettingInForce]:
    options = environ.get(OPTIONS, "").split(",")
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name in arguments:
            origin = "argument"
        elif each.name in options:
            origin = "option"
        else:
            origin = "environment" if variable(each.name) in environ and value != each.default else "default"
        yield {"name": each.name, "value": _text(each.name, value), "origin": origin, "variable": variable(each.name)}


def _text(name: str, value: object) -> str:
    if value is None or value == ():
        return ""
    if name in _SECRETS:
        return "set"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
