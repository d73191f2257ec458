"""Checks of what the machine reaches: registries, mirrors, the package index, through proxies and with which trust."""

from __future__ import annotations

from collections.abc import Iterator

from kit.decide.doctor import fixes
from kit.decide.doctor.report import Finding, HostReport, joined, note, warn
from kit.facts.host import Endpoint, EndpointKind

CERTIFICATE = "certificate"


def proxy_engine(report: HostReport) -> Iterator[Finding]:
    """A proxy in the shell that the engine, a service of its own, knows nothing of."""
    host = report.host
    names = [name for name in host.shell_proxies if name.lower() != "no_proxy"]
    # An engine without a service takes the shell's.
    if not names or host.engine.has_proxy or not report.has_engine or not host.engine.features.has_service:
        return
    if host.engine.is_private:
        fix = f"`{fixes.restart(host)}` in this shell"
    elif host.engine.is_desktop:
        fix = "enter it in Docker Desktop under Settings, Resources, Proxies"
    else:
        file = fixes.engine_config(host.engine)
        fix = f'add `"proxies": {{"http-proxy": …, "https-proxy": …}}` to {file}, then `{fixes.restart(host)}`'
    yield warn(
        f"{joined(names)} {'is' if len(names) == 1 else 'are'} set in your shell, but the engine has no proxy: "
        "it pulls images without",
        fix,
    )


def registry_unreachable(report: HostReport) -> Iterator[Finding]:
    """Docker Hub does not answer: a mirror may, and a base can be made without any registry."""
    for endpoint in _failed(report, "registry"):
        mirrors = [e.url for e in report.host.endpoints if e.kind == "mirror" and e.is_reachable]
        said = f"the registry {endpoint.url} does not answer{_why(endpoint)}"
        if mirrors:
            yield note(f"{said}; the mirror {mirrors[0]} does", "nothing, the mirror stands in")
        else:
            yield warn(
                f"{said}; most images can be built without any: `--base archive`",
                "set KIT_REGISTRY_MIRROR to a registry that answers for it, or build with `--base archive`",
            )


def mirror_unreachable(report: HostReport) -> Iterator[Finding]:
    """A registry mirror does not answer."""
    for endpoint in _failed(report, "mirror"):
        is_engines = endpoint.url.rstrip("/") in [url.rstrip("/") for url in report.engine.mirrors]
        yield warn(
            f"the registry mirror {endpoint.url} does not answer{_why(endpoint)}: each pull waits for it first",
            f"take it out of `registry-mirrors` in {fixes.engine_config(report.engine)}, then "
            f"`{fixes.restart(report.host)}`"
            if is_engines
            else "set KIT_REGISTRY_MIRROR to one that answers, or unset it",
        )


def index_unreachable(report: HostReport) -> Iterator[Finding]:
    """The Python package index does not answer: images that are built still run, none can be built."""
    for endpoint in _failed(report, "index"):
        yield warn(
            f"the package index {endpoint.url} does not answer{_why(endpoint)}: no image can be built",
            "set UV_DEFAULT_INDEX to a mirror of PyPI that answers",
        )


def ca_missing(report: HostReport) -> Iterator[Finding]:
    """Certificates that this machine does not trust, as behind a proxy that opens TLS."""
    refused = [e.url for e in report.host.endpoints if e.is_reachable is False and e.problem == CERTIFICATE]
    if not refused:
        return
    host = report.host
    have = "a proxy with a certificate authority of its own is likely in between"
    if host.has_private_ca:
        have = "the certificate authorities added to this system are not theirs"
    yield warn(
        f"the certificate of {joined(refused)} is not trusted here: {have}",
        # Only a service would have to read them anew.
        fixes.trust_ca(host)
        + (f", then `{fixes.restart(host)}`" if host.engine.features.has_service else "")
        + "; kit's builds take it from there",
    )


def _failed(report: HostReport, kind: EndpointKind) -> list[Endpoint]:
    """Those that were asked and did not answer, but for their certificate, which is a finding of its own."""
    return [e for e in report.host.endpoints if e.kind == kind and e.is_reachable is False and e.problem != CERTIFICATE]


def _why(endpoint: Endpoint) -> str:
    words = {"timeout": " in time", "name": " (its name is not known)", "refused": " (connection refused)", "": ""}
    return words.get(endpoint.problem, f" ({endpoint.problem})")
