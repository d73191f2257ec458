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


def test_scalar(tensorboard: Started, model: Answer) -> None:
    """It answers, and shows the scalar."""
    query = urllib.parse.urlencode({"run": ".", "tag": "verify"})
    url = f"{address(tensorboard)}/data/plugin/scalars/scalars?{query}"
    status, body, end = 0, b"", time.monotonic() + PATIENCE_S
    while status != 200 and time.monotonic() < end:
        status, body = get(url)
        time.sleep(0.2)
    require(status == 200, f"it knows no such scalar: {body.decode(errors='replace')[:200]}")
    values = [point[2] for point in json.loads(body)]
    require(values == [model.value("scalar")], f"it shows {values}")
