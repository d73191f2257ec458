"""Damaged answers of a registry: its challenge, its token, its manifest, its headers."""

from __future__ import annotations

import io
import json
import urllib.error
from email.message import Message
from typing import Any

import pytest
from hypothesis import strategies as st

from kit.catalog import update
from kit.catalog.update import Registry
from tests.security.fuzzing import ANY_JSON, damaged, fuzz

CHALLENGE = (
    b'Bearer realm="https://auth.example.org/token",service="registry.example.org",scope="repository:ubuntu:pull"'
)
TOKEN = json.dumps({"token": "eyJh.eyJh.x", "access_token": "eyJh", "expires_in": 300}).encode()
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": [{"digest": f"sha256:{'a' * 64}"}]}).encode()
SOUND = (CHALLENGE, TOKEN, MANIFEST, b"")


@pytest.fixture(autouse=True)
def in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "_within", lambda seconds, work: work())


class Answer(io.BytesIO):
    def __init__(self, body: bytes, **headers: str) -> None:
        super().__init__(body)
        self.headers = Message()
        for name, value in headers.items():
            self.headers.add_header(name.replace("_", "-"), value)


class Opener:
    """Gives what a registry would, without a connection."""

    def __init__(self, challenge: bytes, token: bytes, manifest: bytes, digest: bytes) -> None:
        self.challenge, self.token, self.manifest, self.digest = challenge, token, manifest, digest

    def open(self, request: Any, timeout: float) -> Answer:
        if "/manifests/" not in request.full_url:
            return Answer(self.token)
        if not request.unredirected_hdrs:
            header = self.challenge.decode("latin-1").replace("\r", "").replace("\n", "")
            raise urllib.error.HTTPError(
                request.full_url, 401, "", Answer(b"", WWW_Authenticate=header).headers, io.BytesIO()
            )
        return Answer(self.manifest, Docker_Content_Digest=self.digest.decode("latin-1"))


def use(answers: tuple[bytes, bytes, bytes, bytes]) -> None:
    registry = Registry("registry.example.org", deadline_s=5)
    registry._opener = Opener(*answers)  # type: ignore[assignment]
    digest = registry.digest("ubuntu", "24.04")
    assert len(digest) == len("sha256:") + 64


def one_of(number: int, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, bytes, bytes, bytes]]:
    return values.map(lambda value: (*SOUND[:number], value, *SOUND[number + 1 :]))


def test_a_sound_one_is_understood() -> None:
    use(SOUND)


def test_challenges() -> None:
    fuzz(one_of(0, damaged([CHALLENGE])), use)


def test_tokens() -> None:
    fuzz(one_of(1, damaged([TOKEN]) | ANY_JSON.map(lambda value: json.dumps(value).encode())), use)


def test_manifests() -> None:
    fuzz(one_of(2, damaged([MANIFEST]) | ANY_JSON.map(lambda value: json.dumps(value).encode())), use)


def test_digests() -> None:
    fuzz(one_of(3, damaged([f"sha256:{'a' * 64}".encode()])), use)
