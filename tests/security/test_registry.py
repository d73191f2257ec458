"""What a registry, a mirror, or whoever answers in its place can send to `kit update`."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request

import pytest

from kit.catalog.update import Registry, _Redirects
from kit.errors import NetworkError

MANIFEST = b'{"schemaVersion": 2, "manifests": []}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
# What the operating system keeps between the two ends.
BUFFERS = 16 * 2**20

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    answers: dict[str, Answer]
    sent: list[int]

    def do_GET(self) -> None:
        self.answers.get(self.path.partition("?")[0], asks_for_a_token)(self)

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def pour(self, piece: bytes, pause_s: float = 0.0) -> None:
        """Send pieces without end, until the other one has had enough."""
        try:
            while sum(self.sent) < 2**30:
                self.wfile.write(piece)
                self.sent.append(len(piece))
                time.sleep(pause_s)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


def asks_for_a_token(handler: Handler) -> None:
    if handler.headers.get("Authorization"):
        handler.say(200, MANIFEST, Docker_Content_Digest=DIGEST)
    else:
        realm = f"http://{handler.headers['Host']}/token"
        handler.say(401, WWW_Authenticate=f'Bearer realm="{realm}",service="x"')


@pytest.fixture
def serve() -> Iterator[Callable[..., Registry]]:
    """A registry that answers so; `/token` gives the tokens, everything else is the manifest."""
    servers = []

    def start(deadline_s: float = 20, **answers: Answer) -> Registry:
        handler = type("Own", (Handler,), {"answers": {f"/{k}": v for k, v in answers.items()}, "sent": []})
        if "manifest" in answers:
            handler.answers["/v2/library/ubuntu/manifests/24.04"] = answers["manifest"]
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry = Registry(f"127.0.0.1:{server.server_port}", timeout_s=5, deadline_s=deadline_s)
        registry.sent = handler.sent  # type: ignore[attr-defined]
        return registry

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refused(registry: Registry, says: str) -> None:
    start = time.monotonic()
    with pytest.raises(NetworkError, match=says):
        registry.digest("ubuntu", "24.04")
    assert time.monotonic() - start < 15
    assert sum(registry.sent) < BUFFERS  # type: ignore[attr-defined]


def token(text: bytes) -> Answer:
    return lambda handler: handler.say(200, text)


def to(place: str) -> Answer:
    return lambda handler: handler.say(302, Location=place)


def test_an_honest_registry_is_understood(serve: Callable[..., Registry]) -> None:
    assert serve(token=token(b'{"token": "t"}')).digest("ubuntu", "24.04") == DIGEST


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.pour(b" " * 2**16)


def endless_beside_a_redirect(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.end_headers()
    handler.pour(b" " * 2**16)


def endless_refusal(handler: Handler) -> None:
    handler.send_response(500)
    handler.end_headers()
    handler.pour(b" " * 2**16)


@pytest.mark.parametrize("answer", [endless, endless_beside_a_redirect, endless_refusal])
@pytest.mark.parametrize("place", ["token", "manifest"])
def test_an_answer_without_end_is_left(serve: Callable[..., Registry], place: str, answer: Answer) -> None:
    if answer is endless_beside_a_redirect and place == "manifest":
        assert serve(manifest=answer, elsewhere=token(MANIFEST)).digest("ubuntu", "24.04") == DIGEST
    else:
        refused(serve(**{place: answer}), "more than|gives no digest|answers 500|answers 401")


def drips(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.pour(b" ", pause_s=0.1)


def drips_headers(handler: Handler) -> None:
    handler.send_response(200)
    handler.flush_headers()
    handler.pour(b"X", pause_s=0.1)


@pytest.mark.parametrize("answer", [drips, drips_headers])
@pytest.mark.parametrize("place", ["token", "manifest"])
def test_an_answer_that_never_ends_is_left_after_a_time(
    serve: Callable[..., Registry], place: str, answer: Answer
) -> None:
    refused(serve(deadline_s=1, **{place: answer}), "no whole answer within 1 s")


@pytest.mark.parametrize(
    "text",
    [
        *(b"[1, 2]", b"null", b"1", b'"t"', b"", b"\xff", b"{", b"NaN", b"[" * 100_000, b'{"a":' * 100_000),
        *(b'{"token": "a\\r\\nX-Y: z"}', b'{"token": "\\u2028"}', b"1" * 10_000),
    ],
)
def test_a_token_of_another_form_is_an_error(serve: Callable[..., Registry], text: bytes) -> None:
    refused(serve(token=token(text)), "gives no digest")


@pytest.mark.parametrize("text", [b"", b"<html>", b"{}", b"[]", b'{"schemaVersion": 1}', b"[" * 100_000])
def test_what_is_not_a_manifest_has_no_digest(serve: Callable[..., Registry], text: bytes) -> None:
    refused(serve(manifest=lambda handler: handler.say(200, text, Docker_Content_Digest=DIGEST)), "gives no digest")


def test_a_digest_that_the_manifest_does_not_have_is_an_error(serve: Callable[..., Registry]) -> None:
    other = f"sha256:{'a' * 64}"
    refused(
        serve(manifest=lambda handler: handler.say(200, MANIFEST, Docker_Content_Digest=other)), "it says sha256:aa"
    )


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/v2/library/ubuntu/manifests/24.04"])
def test_redirects_lead_to_the_web_and_end(serve: Callable[..., Registry], place: str) -> None:
    refused(serve(manifest=to(place)), "gives no digest|answers 302")


def test_a_redirect_takes_no_token_along(serve: Callable[..., Registry]) -> None:
    seen: list[str | None] = []

    def note(handler: Handler) -> None:
        seen.append(handler.headers.get("Authorization"))
        handler.say(200, MANIFEST)

    def send_on(handler: Handler) -> None:
        if handler.headers.get("Authorization"):
            handler.say(307, Location=f"http://localhost:{handler.server.server_port}/elsewhere")  # type: ignore[attr-defined]
        else:
            asks_for_a_token(handler)

    registry = serve(manifest=send_on, elsewhere=note, token=token(json.dumps({"token": "secret"}).encode()))
    assert registry.digest("ubuntu", "24.04") == DIGEST
    assert seen == [None]


def test_encryption_is_never_left() -> None:
    request = Request("https://example.org/v2/")
    with pytest.raises(ValueError, match="it names"):
        _Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/v2/")  # type: ignore[arg-type]


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "ftp://x/", "gopher://x/", ""])
def test_a_login_elsewhere_than_on_the_web_is_refused(serve: Callable[..., Registry], realm: str) -> None:
    def ask(handler: Handler) -> None:
        handler.say(401, WWW_Authenticate=f'Bearer realm="{realm}"')

    refused(serve(manifest=ask), "gives no digest")
