"""Asks registries which digest each base tag has now, and writes pins.json; the only code that talks to registries."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import IO, Any, TypeVar

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
# The OCI distribution specification has registries take manifests of 4 MiB; a token has some thousand characters.
_MANIFEST_BYTES = 4 * 2**20
_TOKEN_BYTES = 2**20

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Changed:
    """One base tag after it was asked for."""

    base: Base
    before: str  # digest, or empty
    after: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed a few times, never to less than what was asked for; what is said beside one is not read."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _require_web(newurl, req.full_url)
        fp.close()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_web(url: str, before: str) -> None:
    """Raise ValueError for an address that is not on the web, or unencrypted where the one before it was not."""
    if not url.startswith("https://" if before.startswith("https://") else ("https://", "http://")):
        raise ValueError(f"it names `{url[:200]}`")


class Registry:
    """One registry, by the OCI distribution API; `mirror` is a host that answers for Docker Hub.

    `timeout_s` is for a connection that says nothing, `deadline_s` for all that one digest takes.
    """

    def __init__(self, mirror: str = "", *, timeout_s: float = 20, deadline_s: float = 90) -> None:
        host = re.sub(r"^https?://", "", mirror or DOCKER_HUB).rstrip("/")
        plain = mirror.startswith("http://") or re.match(r"(localhost|127\.0\.0\.1)(:|$)", host)
        self.host = host
        self.url = f"{'http' if plain else 'https'}://{host}"
        self._timeout_s, self._deadline_s = timeout_s, deadline_s
        self._opener = urllib.request.build_opener(_Redirects)
        self._tokens: dict[str, str] = {}

    def digest(self, repository: str, tag: str) -> str:
        """The digest a tag has now: that of the manifest which the registry sends.

        Raises BaseNotFoundError when the registry says that there is no such tag, NetworkError when it does not
        answer or answers something else.
        """
        name = repository if "/" in repository else f"library/{repository}"
        url = f"{self.url}/v2/{name}/manifests/{tag}"
        try:
            return _within(self._deadline_s, lambda: self._ask(url, name))
        except urllib.error.HTTPError as e:
            if e.code == 404:
                raise BaseNotFoundError(
                    f"{self.host} has no {repository}:{tag}",
                    hint="tags are deleted in time: look for the newest point release, and change "
                    "the row in kit/catalog/bases.toml",
                ) from None
            raise NetworkError(f"{self.host} answers {e.code} for {repository}:{tag}", hint=_HINT) from None
        except ValueError as e:
            raise NetworkError(f"{self.host} gives no digest for {repository}:{tag}: {e}", hint=_HINT) from None
        except (OSError, http.client.HTTPException) as e:
            reason = e.reason if isinstance(e, urllib.error.URLError) else e
            raise NetworkError(f"the registry {self.host} does not answer: {reason}", hint=_HINT) from None

    def _ask(self, url: str, name: str) -> str:
        try:
            return self._manifest_digest(url, self._tokens.get(name, ""))
        except urllib.error.HTTPError as e:
            challenge = e.headers.get("WWW-Authenticate", "")
            if e.code != 401 or not challenge.lower().startswith("bearer "):
                raise
            self._tokens[name] = self._token(challenge, name)
            return self._manifest_digest(url, self._tokens[name])

    def _manifest_digest(self, url: str, token: str) -> str:
        request = urllib.request.Request(url, headers={"Accept": _ACCEPT})
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        body, said = self._read(request, _MANIFEST_BYTES)
        if _object(body).get("schemaVersion") != 2:
            raise ValueError("what it sends is not a manifest")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if said not in ("", digest):
            raise ValueError(f"it says {said[:80]}, and what it sends has {digest}")
        return digest

    def _token(self, challenge: str, name: str) -> str:
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge[:4096]))
        query = {"service": fields.get("service", ""), "scope": fields.get("scope", f"repository:{name}:pull")}
        realm = fields.get("realm", "")
        _require_web(realm, self.url)  # urllib would also open file: and ftp:
        data = _object(self._read(urllib.request.Request(f"{realm}?{urllib.parse.urlencode(query)}"), _TOKEN_BYTES)[0])
        token = str(data.get("token") or data.get("access_token") or "")
        if not re.fullmatch(r"[!-~]*", token):
            raise ValueError("its token is not one")
        return token

    def _read(self, request: urllib.request.Request, limit: int) -> tuple[bytes, str]:
        """What is answered, and the digest that its header says. Raises ValueError for more bytes than the limit."""
        with self._opener.open(request, timeout=self._timeout_s) as answer:
            body: bytes = answer.read(limit + 1)
            if len(body) > limit:
                raise ValueError(f"it sends more than {limit} bytes")
            return body, answer.headers.get("Docker-Content-Digest", "")


def _object(text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except RecursionError:
        data = None
    if not isinstance(data, dict):
        raise ValueError("it sends JSON of another form")
    return data


def _within(seconds: float, work: Callable[[], Value]) -> Value:
    """What the work gives or raises; TimeoutError when it takes longer, however it spends its time."""
    outcome: list[tuple[Value | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as e:
            outcome.append((None, e))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no whole answer within {seconds:g} s")
    value, error = outcome[0]
    if error:
        raise error
    return value  # type: ignore[return-value]  # it is there when no error is


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
