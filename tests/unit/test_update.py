"""`kit update` against a small real HTTP server that speaks the registry's protocol."""

from __future__ import annotations

import datetime
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from kit.catalog import Catalog, load_catalog
from kit.catalog.update import Registry, update
from kit.errors import BaseNotFoundError, NetworkError

MANIFEST_A, MANIFEST_B = b'{"schemaVersion": 2}', b'{"schemaVersion": 2, "manifests": []}'
A, B = (f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (MANIFEST_A, MANIFEST_B))
DAY = datetime.date(2026, 11, 21)


class Fake:
    """A registry: tags by repository, asked through a token when `needs_token`."""

    def __init__(self) -> None:
        self.tags: dict[tuple[str, str], bytes] = {}
        self.needs_token = True
        self.status = 0  # answered to everything, when set
        self.asked: list[tuple[str, str]] = []
        self.accepted: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/token?"):
                    scope = parse_qs(urlsplit(self.path).query)["scope"][0]
                    self.send(200, json.dumps({"token": f"token-for-{scope}"}).encode())
                    return
                fake.asked.append((self.command, self.path))
                fake.accepted.append(self.headers.get("Accept", ""))
                if fake.status:
                    self.send(fake.status)
                    return
                _, _, *repository, _, tag = self.path.split("/")
                name = "/".join(repository)
                if fake.needs_token and self.headers.get("Authorization") != f"Bearer token-for-repository:{name}:pull":
                    challenge = f'Bearer realm="http://{self.headers["Host"]}/token",'
                    challenge += f'service="fake",scope="repository:{name}:pull"'
                    self.send(401, **{"WWW-Authenticate": challenge})
                    return
                manifest = fake.tags.get((name, tag))
                self.send(200 if manifest else 404, manifest or b"")

            def send(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def fake() -> Iterator[Fake]:
    registry = Fake()
    thread = threading.Thread(target=registry.server.serve_forever, daemon=True)
    thread.start()
    yield registry
    registry.server.shutdown()
    registry.server.server_close()
    thread.join()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    real = load_catalog()
    for name in ("frameworks", "packages", "bases", "cuda", "gpus"):
        (tmp_path / f"{name}.toml").write_bytes((real.folder / f"{name}.toml").read_bytes())
    return load_catalog(tmp_path)


@pytest.mark.parametrize("needs_token", [True, False])
def test_digest(fake: Fake, needs_token: bool) -> None:
    fake.needs_token = needs_token
    fake.tags = {("nvidia/cuda", "12.6.3-base-ubuntu24.04"): MANIFEST_A, ("library/ubuntu", "24.04"): MANIFEST_B}
    registry = Registry(fake.host)
    assert registry.digest("nvidia/cuda", "12.6.3-base-ubuntu24.04") == A
    assert registry.digest("ubuntu", "24.04") == B  # Docker Hub keeps these under library/
    assert "application/vnd.oci.image.index.v1+json" in fake.accepted[0]
    fake.asked.clear()
    assert registry.digest("ubuntu", "24.04") == B
    assert len(fake.asked) == 1, "the token is kept"


def test_a_tag_that_is_gone(fake: Fake) -> None:
    with pytest.raises(BaseNotFoundError) as error:
        Registry(fake.host).digest("nvidia/cuda", "10.1-base")
    assert error.value.message == f"{fake.host} has no nvidia/cuda:10.1-base"
    assert "bases.toml" in error.value.hint


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_registry_that_refuses(fake: Fake, status: int) -> None:
    fake.status = status
    with pytest.raises(NetworkError, match=f"answers {status} for nvidia/cuda:tag"):
        Registry(fake.host).digest("nvidia/cuda", "tag")


def test_an_answer_without_a_digest(fake: Fake) -> None:
    fake.status = 200
    with pytest.raises(NetworkError, match="gives no digest"):
        Registry(fake.host).digest("nvidia/cuda", "tag")


def test_a_registry_that_does_not_answer(fake: Fake) -> None:
    fake.server.server_close()
    with pytest.raises(NetworkError) as error:
        Registry(fake.host).digest("nvidia/cuda", "tag")
    assert error.value.message.startswith(f"the registry {fake.host} does not answer:")
    assert "--registry-mirror" in error.value.hint


@pytest.mark.parametrize(
    ("mirror", "url"),
    [
        ("", "https://registry-1.docker.io"),
        ("mirror.example.org", "https://mirror.example.org"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://lan:5000/", "http://lan:5000"),
        ("localhost.example.org", "https://localhost.example.org"),
    ],
)
def test_where_a_mirror_is(mirror: str, url: str) -> None:
    assert Registry(mirror).url == url


def test_update_writes_pins_that_the_loader_takes(fake: Fake, catalog: Catalog) -> None:
    bases = [catalog.base_for(catalog.find(name)) for name in ("torch-cu126", "tf-cpu", "torch-cu124")]
    fake.tags = {("nvidia/cuda", bases[0].tag): MANIFEST_A, ("library/ubuntu", "24.04"): MANIFEST_B}
    lines: list[str] = []
    found, failed = update(catalog, bases, Registry(fake.host), today=DAY, progress=lines.append)
    assert [(c.base.tag, c.after) for c in found] == [(bases[0].tag, A), ("24.04", B)]
    assert found[0].before == bases[0].digest
    assert [e.message for e in failed] == [f"{fake.host} has no nvidia/cuda:{bases[2].tag}"]
    assert lines[0] == f"asking {fake.host} for nvidia/cuda:{bases[0].tag}"

    text = (catalog.folder / "pins.json").read_text()
    assert json.loads(text) == {
        "_": "Generated by `kit update`; do not edit.",
        "pins": [
            {"repository": "nvidia/cuda", "tag": bases[0].tag, "digest": A, "confirmed": "2026-11-21"},
            {"repository": "ubuntu", "tag": "24.04", "digest": B, "confirmed": "2026-11-21"},
        ],
    }
    later = load_catalog(catalog.folder)
    base = later.base_for(later.find("torch-cu126"))
    assert (base.digest, base.digest_status) == (A, "confirmed")

    # Asking again for one of them keeps the other.
    update(later, [base], Registry(fake.host), today=DAY + datetime.timedelta(days=1))
    assert [pin["confirmed"] for pin in json.loads((catalog.folder / "pins.json").read_text())["pins"]] == [
        "2026-11-22",
        "2026-11-21",
    ]


def test_nothing_is_written_when_the_registry_does_not_answer(fake: Fake, catalog: Catalog) -> None:
    fake.status = 503
    with pytest.raises(NetworkError):
        update(catalog, list(catalog.bases), Registry(fake.host), today=DAY)
    assert not (catalog.folder / "pins.json").exists()
