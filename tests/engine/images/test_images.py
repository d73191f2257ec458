"""The shipped checks against every image that the engine has, up to date: what `kit verify` says of each."""

from __future__ import annotations

import pytest
from docker import DockerClient

from kit import verify
from kit.catalog import Catalog
from kit.engine import connect
from kit.image.build.inputs import current
from kit.image.build.options import BuildOptions

pytestmark = pytest.mark.engine


def test_every_image_that_is_built_is_sound(catalog: Catalog, docker: DockerClient, gpus_alone: None) -> None:
    engine = connect()
    names = {tag.rpartition("/")[2].partition(":")[0] for found in docker.images.list() for tag in found.tags}
    images = [i for i in catalog.images() if i.name in names and current(catalog, i, engine, BuildOptions())]
    if not images:
        pytest.skip("no image is built and up to date: `kit build tf-cpu` builds the smallest")
    failed = []
    for image in images:
        report = verify.verify(verify.VerifyRequest(image=image), catalog, engine)
        assert report.count("passed") > 20, report
        failed += [f"{image.name}: {c.name}: {c.detail}" for c in report.checks if c.outcome == "failed"]
        if not any(c.name == "gpu.driver" and c.outcome == "passed" for c in report.checks):
            assert all(c.outcome == "not_run" for c in report.checks if c.name.startswith("gpu.")), report
    assert not failed, "\n".join(failed)
