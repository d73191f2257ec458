"""TensorBoard for who has the token, asked under a name of its own machine; without it anybody may read the logs.

Runs in a container, on any Python of an image and without kit: `kit.spec.container` passes this text to it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import urllib.parse
from typing import Any

VARIABLE = "JUPYTER_TOKEN"
# A page of somebody else's whose name leads here (DNS rebinding) asks under that name.
HOSTS = ("127.0.0.1", "localhost", "[::1]")


def guarded(app: Any, token: str) -> Any:
    """The WSGI application `app`, for requests that have the token as Jupyter takes it: `?token=`, `Authorization:
    token`, or a cookie, which the first two set. All others are answered with 403.
    """
    # Cookies know no ports: another TensorBoard of this machine has its own.
    cookie = "kit-tensorboard-" + hashlib.sha256(token.encode()).hexdigest()[:12]

    def has_token(given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        host = re.sub(r":\d+$", "", environ.get("HTTP_HOST", ""))
        query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        is_new = has_token(query.get("token", [""])[0]) or (scheme == "token" and has_token(given.strip()))
        kept = re.findall(rf"(?:^|;\s*){cookie}=([^;]*)", environ.get("HTTP_COOKIE", ""))
        if host not in HOSTS or not (is_new or any(map(has_token, kept))):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"the URL that kit printed has a token in it: `kit url` prints it again\n"]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            setting = ("Set-Cookie", f"{cookie}={token}; Path=/; HttpOnly; SameSite=Strict")
            return start_response(status, [*headers, setting], *rest)

        return app(environ, start if is_new else start_response)

    return answer


def main() -> None:
    """TensorBoard itself, with its own options."""
    from functools import partial

    from tensorboard import main, program  # type: ignore[import-not-found]

    token = os.environ[VARIABLE]

    class Server(program.WerkzeugServer):  # type: ignore[misc]
        def __init__(self, app: Any, flags: Any) -> None:
            super().__init__(guarded(app, token), flags)

    # How the rest begins is another in each version.
    program.TensorBoard = partial(program.TensorBoard, server_class=Server)
    main.run_main()


if __name__ == "__main__":
    main()
