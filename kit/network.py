"""How this machine reaches the network (proxies, an index, a private certificate authority), from its own settings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from kit import files
from kit.errors import BadInputError
from kit.frozen import dataclass

SYSTEM_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
# Where an administrator puts certificates of the company's own; what is here is in the bundle too.
LOCAL_ANCHORS = (Path("/usr/local/share/ca-certificates"), Path("/etc/pki/ca-trust/source/anchors"))
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
# Names a mirror of the index of frameworks.toml that has a framework's own wheels, in a build's steps as on the host.
FRAMEWORK_INDEX = "KIT_FRAMEWORK_INDEX"
# Of Linux; elsewhere there is neither.
ROUTES, RECEIVED = Path("/proc/net/route"), Path("/proc/net/dev")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


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

    @cached_property
    def index_url(self) -> str:
        """The Python package index to use; empty for the default one. Pip's files are read when it is asked for, which
        takes more than anything else here: `kit run` needs it for builds alone.
        """
        return self.named_index or _pip_index(self.pip_files)

    @property
    def needs_host_network(self) -> bool:
        """True when a proxy or mirror listens on this machine's loopback, where a container does not see it."""
        urls = [*(v for k, v in self.proxies.items() if k != "no_proxy"), self.index_url, self.framework_index]
        return any(_host(url) in LOOPBACK for url in urls)

    def shell_script(self) -> str:
        """The settings as a shell script to source; empty when there are none."""
        variables = {name: value for name, value in self.proxies.items()}
        variables |= {name.upper(): value for name, value in self.proxies.items()}
        if self.index_url:
            variables |= {"UV_DEFAULT_INDEX": self.index_url, "PIP_INDEX_URL": self.index_url}
        if self.framework_index:
            variables[FRAMEWORK_INDEX] = self.framework_index
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _host(url: str) -> str | None:
    from urllib.parse import urlsplit

    try:
        # `http_proxy=127.0.0.1:3128` is common, and without a scheme the host would be read as one.
        return urlsplit(url if "//" in url else f"//{url}").hostname
    except ValueError:
        return None


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


def _pip_index(files: tuple[Path, ...]) -> str:
    import configparser

    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue  # pip itself reports a broken file; kit then uses the default index
        if url := parser.get("global", "index-url", fallback=""):
            return url
    return ""
