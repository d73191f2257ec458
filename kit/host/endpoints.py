"""What a machine must reach to build images."""

from __future__ import annotations

from collections.abc import Mapping

from kit import redact
from kit.catalog.update import Registry
from kit.facts.host import Endpoint
from kit.network import read_settings


def build_endpoints(environment: Mapping[str, str], *, mirror: str = "", index: str = "") -> tuple[Endpoint, ...]:
    """What a build would ask: Docker Hub, and the registry mirror and package index that the environment names, else
    these.
    """
    found = [Endpoint(kind="registry", url=Registry().url)]
    if mirror := environment.get("KIT_REGISTRY_MIRROR") or mirror:
        found.append(Endpoint(kind="mirror", url=redact.without_users(Registry(mirror).url)))
    if index := read_settings(configured_index=index, environment=environment).index_url:
        found.append(Endpoint(kind="index", url=redact.without_users(index)))
    return tuple(found)
