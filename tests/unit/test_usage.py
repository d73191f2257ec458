import json

import pytest

from kit.engine.usage import Stored, of_docker, size_of

# Docker 28.5's own, cut down.
PRINTED = {
    "Images": [
        {"Repository": "kit/tf-cpu", "Tag": "latest", "Size": "1.61GB", "Containers": "1"},
        {"Repository": "<none>", "Tag": "<none>", "Size": "N/A", "Containers": "N/A"},
    ],
    "Volumes": [{"Name": "kit-1000-x-home", "Size": "12.5kB", "Links": "0"}],
    "BuildCache": [
        {"ID": "a", "Size": "2GB", "InUse": "false", "Shared": "false"},
        {"ID": "b", "Size": "3GB", "InUse": "false", "Shared": "true"},
        {"ID": "c", "Size": "4GB", "InUse": "true", "Shared": "false"},
    ],
}


def test_what_docker_keeps() -> None:
    found = of_docker(json.dumps(PRINTED))
    assert found.images == (
        Stored(name="kit/tf-cpu:latest", size=1_610_000_000, is_used=True),
        Stored(name="<none>:<none>", size=None, is_used=False),
    )
    assert found.volumes == (Stored(name="kit-1000-x-home", size=12_500, is_used=False),)
    assert found.build_cache == 2_000_000_000, "what is shared or in use cannot be freed"


@pytest.mark.parametrize(
    "printed", ["", "null", "[]", '{"Images": 3, "Volumes": [1], "BuildCache": {"a": 1}}', "[" * 9999]
)
def test_what_is_no_answer_is_nothing(printed: str) -> None:
    assert not of_docker(printed).images
    assert not of_docker(printed).build_cache


@pytest.mark.parametrize(
    ("said", "size"),
    [("0B", 0), ("1.5kB", 1500), ("10MB", 10**7), ("2TB", 2 * 10**12), ("N/A", None), ("-1B", None), (5, None)],
)
def test_sizes(said: object, size: int | None) -> None:
    assert size_of(said) == size
