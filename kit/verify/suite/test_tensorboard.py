"""TensorBoard shows what the framework wrote."""

from __future__ import annotations

import json
import time
import urllib.parse

from kit.spec.request import Started
from kit.verify.suite.conftest import Answer, require
from kit.verify.suite.test_jupyter import address, get

# It reads event files in the background, every five seconds.
PATIENCE_S = 40


def token_of(started: Started) -> str:
    """The token in the URL of a service."""
    return urllib.parse.urlsplit(started.url).query.removeprefix("token=")


def test_token(tensorboard: Started) -> None:
    """It answers with the token, and refuses without it and with another."""
    token, url = token_of(tensorboard), f"{address(tensorboard)}/data/environment"
    require(get(url, token=token)[0] == 200, "it does not answer with its token")
    require(get(url)[0] == 403, "it answers without a token")
    require(get(url, token="0" * len(token))[0] == 403, "it answers with a wrong token")


def test_scalar(tensorboard: Started, model: Answer) -> None:
    """It answers, and shows the scalar."""
    query = urllib.parse.urlencode({"run": ".", "tag": "verify"})
    url = f"{address(tensorboard)}/data/plugin/scalars/scalars?{query}"
    status, body, end = 0, b"", time.monotonic() + PATIENCE_S
    while status != 200 and time.monotonic() < end:
        status, body = get(url, token=token_of(tensorboard))
        time.sleep(0.2)
    require(status == 200, f"it knows no such scalar: {body.decode(errors='replace')[:200]}")
    values = [point[2] for point in json.loads(body)]
    require(values == [model.value("scalar")], f"it shows {values}")
