"""The source that a text names: files and directories, and Kubernetes APIs."""

import os
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.combined import CombinedSource
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.kubernetes_url import KubernetesURL, is_kubernetes_url
from canary_mw.run_folder.folder import Folder


def source_of(
    rules: Iterable[str | os.PathLike[str]],
    *,
    may_exec: bool = False,
    cache: str | None = None,
    cache_max_age: float | None = None,
    events: bool = False,
    folder: Callable[[], Folder | None] | None = None,
) -> ConfigSource:
    """The source of paths and `k8s://` addresses, in this order.

    Args:
        may_exec: whether a kubeconfig may have a command run, if its address allows that.
        cache: directory where the last rules of an API are kept; by default `CANARY_MW_CACHE`.
        cache_max_age: seconds after which they are too old to start with, by default a day.
        events: whether Events about rules in error are written to the objects of an API.
        folder: returns the folder that the workers of this server share, so that one of them watches an API for all.

    Raises:
        ConfigError: an address is none, or names what is not there.
    """
    sources: list[ConfigSource] = []
    for of_cluster, group in groupby((os.fspath(each) for each in rules), is_kubernetes_url):
        if of_cluster:
            options = {"may_exec": may_exec, "cache_max_age": cache_max_age, "events": events, "folder": folder}
            sources += [_kubernetes(url, cache, options) for url in group]
        else:
            sources.append(FileSource(*group))
    return sources[0] if len(sources) == 1 else CombinedSource(sources)


def local_names_in(source: ConfigSource, names: Iterable[str]) -> frozenset[str]:
    """The names of the service of this process, as rules of its namespace in a cluster have them too.

    A Mapping of the namespace shop means shop-stable.shop by `service: shop-stable`; one of the namespace default means
    shop-stable.
    """
    namespace = getattr(source, "namespace", "")
    bare = [name.partition(":") for name in names if namespace not in ("", "default") and "." not in name]
    return frozenset(names) | {f"{host}.{namespace}{colon}{port}" for host, colon, port in bare}


def _kubernetes(url: str, cache: str | None, options: dict[str, Any]) -> ConfigSource:
    parsed = KubernetesURL.parse(url)
    # The API of a cluster needs httpx, which takes long to load.
    from canary_mw.control.sources.kubernetes import KubernetesSource

    return KubernetesSource(parsed, cache=cache or os.environ.get("CANARY_MW_CACHE"), **options)
