"""Asks registries which digest each base tag has now, and writes pins.json; the only code that talks to registries."""

from __future__ import annotations

import datetime
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from kit import paths
from kit.catalog import PINS_FILE, Catalog, Pin
from kit.catalog.rows import Base
from kit.errors import BaseNotFoundError, KitError, NetworkError
from kit.frozen import dataclass

DOCKER_HUB = "registry-1.docker.io"
# An index (one digest for all platforms) before a single manifest: the image must build on each of its platforms.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Changed:
    """One base tag after it was asked for."""

    base: Base
    before: str  # digest, or empty
    after: str


class Registry:
    """One registry, by the OCI distribution API; `mirror` is a host that answers for Docker Hub."""

    def __init__(self, mirror: str = "", *, timeout_s: float = 20) -> None:
        host = re.sub(r"^https?://", "", mirror or DOCKER_HUB).rstrip("/")
        plain = mirror.startswith("http://") or re.match(r"(localhost|127\.0\.0\.1)(:|$)", host)
        self.host = host
        self.url = f"{'http' if plain else 'https'}://{host}"
        self._timeout_s = timeout_s
        self._tokens: dict[str, str] = {}

    def digest(self, repository: str, tag: str) -> str:
        """The digest a tag has now.

        Raises BaseNotFoundError when the registry says that there is no such tag, NetworkError when it does not
        answer or answers something else.
        """
        name = repository if "/" in repository else f"library/{repository}"
        url = f"{self.url}/v2/{name}/manifests/{tag}"
        try:
            digest = self._ask(url, name)
        except urllib.error.HTTPError as e:
            if e.code == 404:
                raise BaseNotFoundError(
                    f"{self.host} has no {repository}:{tag}",
                    hint="tags are deleted in time: look for the newest point release, and change "
                    "the row in kit/catalog/bases.toml",
                ) from None
            raise NetworkError(f"{self.host} answers {e.code} for {repository}:{tag}", hint=_HINT) from None
        except (OSError, http.client.HTTPException, ValueError) as e:
            reason = e.reason if isinstance(e, urllib.error.URLError) else e
            raise NetworkError(f"the registry {self.host} does not answer: {reason}", hint=_HINT) from None
        if not _DIGEST.fullmatch(digest):
            raise NetworkError(f"{self.host} gives no digest for {repository}:{tag}", hint=_HINT)
        return digest

    def _ask(self, url: str, name: str) -> str:
        try:
            return self._head(url, self._tokens.get(name, ""))
        except urllib.error.HTTPError as e:
            challenge = e.headers.get("WWW-Authenticate", "")
            if e.code != 401 or not challenge.lower().startswith("bearer "):
                raise
            self._tokens[name] = self._token(challenge, name)
            return self._head(url, self._tokens[name])

    def _head(self, url: str, token: str) -> str:
        request = urllib.request.Request(url, method="HEAD", headers={"Accept": _ACCEPT})
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
            return str(answer.headers.get("Docker-Content-Digest", ""))

    def _token(self, challenge: str, name: str) -> str:
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {"service": fields.get("service", ""), "scope": fields.get("scope", f"repository:{name}:pull")}
        realm = fields.get("realm", "")
        if not realm.startswith(("https://", "http://")):  # urllib would also open file: and ftp:
            raise ValueError(f"it asks for a login at `{realm}`")
        url = f"{realm}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=self._timeout_s) as answer:
            data: dict[str, Any] = json.load(answer)
        return str(data.get("token") or data.get("access_token") or "")


_HINT = "give a registry that can be reached from here: `kit update --registry-mirror HOST`"


def update(
    catalog: Catalog,
    bases: Iterable[Base],
    registry: Registry,
    *,
    today: datetime.date,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Changed], list[KitError]]:
    """Ask for the digest of each base and write pins.json whole, sorted; returns what was found and what failed.

    A tag that is gone is an error of its own and the others are still asked; a registry that does not answer ends it,
    and nothing is written then.
    """
    pins = {(pin.repository, pin.tag): pin for pin in catalog.pins}
    known = {(base.repository, base.tag) for base in catalog.bases}
    found: list[Changed] = []
    failed: list[KitError] = []
    for base in bases:
        progress(f"asking {registry.host} for {base.repository}:{base.tag}")
        try:
            digest = registry.digest(base.repository, base.tag)
        except BaseNotFoundError as e:
            failed.append(e)
            continue
        found.append(Changed(base=base, before=base.digest, after=digest))
        pins[base.repository, base.tag] = Pin(
            repository=base.repository, tag=base.tag, digest=digest, confirmed=today.isoformat()
        )
    # A pin whose row is gone would be dead weight that nobody reads.
    kept = [pin for key, pin in sorted(pins.items()) if key in known]
    text = json.dumps({"_": "Generated by `kit update`; do not edit.", "pins": [asdict(pin) for pin in kept]}, indent=2)
    if found:
        paths.write_text(catalog.folder / PINS_FILE, text + "\n")
    return found, failed
