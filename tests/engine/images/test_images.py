"""The shipped checks against every image that the engine has, up to date: what `kit verify` says of each."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from docker import DockerClient

from kit import verify
from kit.catalog import Catalog
from kit.engine import connect
from kit.errors import KitError
from kit.image.build.inputs import current
from kit.image.build.options import BuildOptions, Progress
from kit.remote import sync

pytestmark = pytest.mark.engine


class Silent:
    """Shows nothing. Nothing is built or sent: the images are there."""

    def say(self, text: str) -> None:
        pass

    def failed(self, error: KitError) -> None:
        raise error

    def confirm(self, question: str) -> None:
        raise AssertionError(question)

    def building(self, image: str) -> AbstractContextManager[Progress]:
        raise AssertionError(f"{image} is there and up to date")

    def sending(self, folder: Path) -> AbstractContextManager[sync.Progress]:
        raise AssertionError(folder)

    def sent(self, done: sync.Synced) -> None:
        raise AssertionError(done)


def test_every_image_that_is_built_is_sound(catalog: Catalog, docker: DockerClient, gpus_alone: None) -> None:
    engine = connect()
    names = {tag.rpartition("/")[2].partition(":")[0] for found in docker.images.list() for tag in found.tags}
    images = [i for i in catalog.images() if i.name in names and current(catalog, i, engine, BuildOptions())]
    if not images:
        pytest.skip("no image is built and up to date: `kit build tf-cpu` builds the smallest")
    failed = []
    for image in images:
        # Named outright, and whatever this machine's driver is: that it could not run one is no reason against it.
        request = verify.VerifyRequest(name=image.name, force=True)
        report = verify.verify(verify.made_ready(request, Silent()))
        assert report.count("passed") > 20, report
        failed += [f"{image.name}: {c.name}: {c.detail}" for c in report.checks if c.outcome == "failed"]
        if not any(c.name == "gpu.driver" and c.outcome == "passed" for c in report.checks):
            assert all(c.outcome == "not_run" for c in report.checks if c.name.startswith("gpu.")), report
    assert not failed, "\n".join(failed)
