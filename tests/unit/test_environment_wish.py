"""What `[environment] image` wishes for, and the image it becomes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kit.catalog import load_catalog
from kit.decide.compat import declared_host
from kit.environment.wish import admits, choose_for, newest_for_gpus
from kit.errors import BadInputError, IncompatibleError, NoSuchImageError
from kit.facts.host import Host

CATALOG = load_catalog()
CPU = Host(platform="linux/amd64", driver="", gpus=())


def rtx() -> Host:
    return declared_host(CATALOG, driver="580.65.06", gpus=("RTX 4090",), platform="linux/amd64")


def nobody() -> Host:
    raise AssertionError("the host was asked")


@pytest.mark.parametrize(
    ("wish", "host", "image"),
    [
        ("torch", lambda: CPU, "torch-cpu"),
        ("tf", lambda: CPU, "tf-cpu"),
        ("torch>=2.6", rtx, CATALOG.find("torch").name),
        ("torch>=2.6,<2.7", rtx, "torch2.6-cu124"),
        ("torch ~= 2.6.0", rtx, "torch2.6-cu124"),
        ("tf<2.16", rtx, "tf2.15-cu122"),
        ("torch-cu126", nobody, "torch2.7-cu126"),
        ("torch-cu126>=2.6", nobody, "torch2.7-cu126"),
        ("torch2.6-cu124-devel", nobody, "torch2.6-cu124-devel"),
        ("torch-cpu", nobody, "torch-cpu"),
    ],
)
def test_a_wish_becomes_the_newest_image_that_it_admits(wish: str, host: Callable[[], Host], image: str) -> None:
    assert choose_for(CATALOG, wish, host)[0].name == image
    assert admits(wish, CATALOG.find(image))


def test_what_it_admits() -> None:
    image = CATALOG.find("torch2.7-cu126")
    for wish in ("torch", "torch>=2.6", "torch2.7", "torch-cu126", "torch!=2.6.0", "torch2.7-cu126"):
        assert admits(wish, image), wish
    for wish in ("tf", "torch<2.7", "torch2.6", "torch-cu124", "torch-devel", "torch-cu126<2", "python"):
        assert not admits(wish, image), wish


def test_wishes_that_nothing_is() -> None:
    with pytest.raises(BadInputError, match="is not a version"):
        choose_for(CATALOG, "torch>=x", nobody)
    with pytest.raises(NoSuchImageError):
        choose_for(CATALOG, "pyton", nobody)
    with pytest.raises(NoSuchImageError, match="no image for `torch-cu126<2`"):
        choose_for(CATALOG, "torch-cu126<2", nobody)
    with pytest.raises(IncompatibleError, match="no image for `torch>99`") as caught:
        choose_for(CATALOG, "torch>99", rtx)
    assert "works here" in caught.value.hint


def test_the_image_to_write_for_a_gpu() -> None:
    found = newest_for_gpus(CATALOG, "torch<2.7")
    assert found is not None
    assert found.name == "torch2.6-cu124"
    assert newest_for_gpus(CATALOG, "torch-cpu") is None
