"""How this machine reaches the network (proxies, an index, a private certificate authority), from its own settings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kit import files, linux
from kit.errors import BadInputError
from kit.frozen import dataclass

if TYPE_CHECKING:
    from urllib.parse import SplitResult

SYSTEM_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
# Where an administrator puts certificates of the company's own; what is here is in the bundle too.
LOCAL_ANCHORS = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
# Names a mirror of the index of frameworks.toml that has a framework's own wheels, in a build's steps as on the host.
FRAMEWORK_INDEX = "KIT_FRAMEWORK_INDEX"
# Of Linux; elsewhere there is neither.
ROUTES, RECEIVED = linux.PROC / "net/route", linux.PROC / "net/dev"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# The name that a container has for the machine of its engine.
HOST_NAME = "host.docker.internal"
# What tells pip and uv of an index, and huggingface_hub of its mirror.
INDEX_VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")
TRUSTED_HOST = "PIP_TRUSTED_HOST"
HUB = "HF_ENDPOINT"
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, kw_only=True)
class Inside:
    """The variables that tell the programs of a container how to reach the network."""

    plain: Mapping[str, str]  # those that differ from this machine's own
    secret: Mapping[str, str]  # an address may have a password in it
    uses_host: bool = False  # an address has HOST_NAME in it
    left_out: tuple[str, ...] = ()  # addresses that nothing reaches from a container, without passwords


def received_bytes() -> int | None:
    """What this machine has received since it started, over the links that lead out; None where it does not say."""
    try:
        routes = ROUTES.read_text(encoding="ascii").splitlines()[1:]
        counts = RECEIVED.read_text(encoding="ascii").splitlines()[2:]
    except (OSError, ValueError):
        return None
    # Those alone: what goes to a container passes a bridge, too.
    out = {words[0] for line in routes if len(words := line.split()) > 1 and words[1] == "00000000"}
    found = [line.partition(":") for line in counts]
    sizes = [rest.split()[0] for name, _, rest in found if name.strip() in out and rest.split()]
    return sum(map(int, sizes)) if sizes and all(size.isdecimal() for size in sizes) else None


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """What a build or a container needs to reach the network as this machine does."""

    ca_file: Path | None = None
    proxies: Mapping[str, str]
    named_index: str = ""  # of the environment or kit's configuration
    framework_index: str = ""  # a mirror of the index that a framework's own wheels are from
    pip_files: tuple[Path, ...] = ()  # where pip would look for one otherwise
    named_trust: str = ""  # hosts whose index pip takes without a certificate, as the environment names them
    hub: str = ""  # the mirror of the Hugging Face hub

    @cached_property
    def index_url(self) -> str:
        """The Python package index to use; empty for the default one. Pip's files are read when it is asked for, which
        takes more than anything else here: `kit run` needs it for builds alone.
        """
        return self.named_index or _pip_setting(self.pip_files, "index-url")

    @cached_property
    def trusted_host(self) -> str:
        """The hosts that pip trusts without a certificate, as it takes them in its variable: between spaces."""
        return " ".join((self.named_trust or _pip_setting(self.pip_files, "trusted-host")).split())

    @property
    def needs_host_network(self) -> bool:
        """True when a proxy or mirror listens on this machine's loopback, where a container does not see it."""
        urls = [*(v for k, v in self.proxies.items() if k != "no_proxy"), self.index_url, self.framework_index]
        return any(map(is_loopback, urls))

    @property
    def loopback_ports(self) -> frozenset[int]:
        """The ports of this machine's loopback that a container would need."""
        return frozenset(_port(url) for _, url in self._addresses() if is_loopback(url))

    def inside(self, host_ports: frozenset[int] | None = frozenset()) -> Inside:
        """The same for a container, whose loopback is another than this machine's.

        `host_ports` are the ports of this machine that it reaches under HOST_NAME; None: it has this machine's network.
        What it does not reach is left out, rather than that each download fails.
        """
        plain: dict[str, str] = {}
        secret: dict[str, str] = {}
        left_out: list[str] = []
        uses_host = False
        for variable, url in self._addresses():
            if host_ports is None or not is_loopback(url):
                secret[variable] = url
            elif _port(url) in host_ports:
                uses_host = True
                (secret if has_login(url) else plain)[variable] = _at_host(url)
            else:
                left_out.append(_without_login(url))
        if any(name in plain or name in secret for name in PROXY_VARIABLES):
            secret["no_proxy"] = with_loopback(self.proxies.get("no_proxy", ""))
        if self.trusted_host and (plain.keys() | secret.keys()) & set(INDEX_VARIABLES):
            secret[TRUSTED_HOST] = self.trusted_host
        return Inside(plain=plain, secret=secret, uses_host=uses_host, left_out=tuple(dict.fromkeys(left_out)))

    def _addresses(self) -> list[tuple[str, str]]:
        """The variables that have an address, but for those of this machine's files, which no container has."""
        found = [(name, url) for name, url in self.proxies.items() if name != "no_proxy"]
        if self.index_url and not self.index_url.lower().startswith("file:"):
            found += [(name, self.index_url) for name in INDEX_VARIABLES]
        return [*found, *([(HUB, self.hub)] if self.hub else [])]

    def shell_script(self) -> str:
        """The settings as a shell script to source; empty when there are none."""
        variables = {name: value for name, value in self.proxies.items()}
        variables |= {name.upper(): value for name, value in self.proxies.items()}
        if self.index_url:
            variables |= {"UV_DEFAULT_INDEX": self.index_url, "PIP_INDEX_URL": self.index_url}
        if self.framework_index:
            variables[FRAMEWORK_INDEX] = self.framework_index
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _split(url: str) -> SplitResult:
    from urllib.parse import urlsplit

    try:
        # `http_proxy=127.0.0.1:3128` is common, and without a scheme the host would be read as one.
        found = urlsplit(url if "//" in url else f"//{url}")
        found.port  # noqa: B018 (raises for one that is none)
        return found
    except ValueError:
        return urlsplit("")


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own, which another machine or a container has too."""
    host = _split(url).hostname or ""
    return host in LOOPBACK or host.startswith("127.")


def with_loopback(no_proxy: str) -> str:
    """What `no_proxy` says, and that no proxy leads to the machine itself."""
    names = [name.strip() for name in no_proxy.split(",") if name.strip()]
    if "*" in names:  # programs take it alone
        return "*"
    return ",".join([*names, *(name for name in LOOPBACK if name not in names)])


def has_login(url: str) -> bool:
    """Whether an address has a user or a password in it."""
    return "@" in _split(url).netloc


def _port(url: str) -> int:
    found = _split(url)
    return found.port or _PORTS.get(found.scheme.lower(), 80)


def _at_host(url: str) -> str:
    """An address of this machine's loopback as a container has it."""
    found = _split(url)
    login, sign, _ = found.netloc.rpartition("@")
    moved = found._replace(netloc=f"{login}{sign}{HOST_NAME}:{_port(url)}").geturl()
    return moved if "//" in url else moved.removeprefix("//")


def _without_login(url: str) -> str:
    found = _split(url)
    return found._replace(netloc=found.netloc.rpartition("@")[2], query="", fragment="").geturl().removeprefix("//")


def read_settings(
    *, ca_cert: Path | None = None, configured_index: str = "", environment: Mapping[str, str] | None = None
) -> NetworkSettings:
    """This machine's settings; `ca_cert` is the caller's choice, `configured_index` what kit's configuration says.

    Raises BadInputError when `ca_cert` is no certificate.
    """
    env = os.environ if environment is None else environment
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    home = Path(env.get("HOME", "/"))
    own = (Path(env["PIP_CONFIG_FILE"]),) if env.get("PIP_CONFIG_FILE") else ()
    return NetworkSettings(
        ca_file=ca_file(ca_cert, env),
        proxies=proxies(env),
        named_index=next((env[name] for name in names if env.get(name)), configured_index),
        framework_index=env.get(FRAMEWORK_INDEX, ""),
        named_trust=env.get("PIP_TRUSTED_HOST", ""),
        hub=env.get(HUB, ""),
        pip_files=(*own, home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")),
    )


def ca_file(
    chosen: Path | None,
    env: Mapping[str, str],
    *,
    bundles: tuple[Path, ...] = SYSTEM_BUNDLES,
    anchors: tuple[Path, ...] = LOCAL_ANCHORS,
) -> Path | None:
    """The certificates a container must be given: the chosen file, else SSL_CERT_FILE when it is not the system's own,
    else the system's bundle when an administrator added to it. None when a container's own certificates do.
    """
    if chosen is not None:
        try:
            text = files.read_text(chosen, errors="replace")
        except OSError as e:
            raise BadInputError(f"the certificate file {chosen} cannot be read: {e.strerror}") from None
        if "-----BEGIN CERT" not in text:
            raise BadInputError(f"{chosen} has no PEM certificate in it", hint="give the CA bundle in PEM form")
        return chosen
    named = Path(env["SSL_CERT_FILE"]) if env.get("SSL_CERT_FILE") else None
    if named and named.is_file() and named not in bundles:
        return named
    bundle = next((b for b in bundles if b.is_file()), None)
    is_extended = any(any(folder.glob("*.crt")) or any(folder.glob("*.pem")) for folder in anchors if folder.is_dir())
    return bundle if is_extended else None


def proxies(env: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables that are set, by their lower-case names."""
    found = {name: env.get(name) or env.get(name.upper()) or "" for name in PROXY_VARIABLES}
    return {name: value for name, value in found.items() if value}


def _pip_setting(files: tuple[Path, ...], key: str) -> str:
    import configparser

    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue  # pip itself reports a broken file; kit then uses the default index
        if value := parser.get("global", key, fallback=""):
            return value
    return ""
