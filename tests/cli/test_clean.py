import json
import os

import pytest

from kit import paths

ME = os.getuid()
IMAGES = ["kit/tf-cpu", "kit/torch-cpu", "kit/torch2.7-cu126", "kit/old", "ubuntu"]
RECORD = "kit-made-kit-tf-cpu-latest"
VOLUMES = [
    f"kit-{ME}-mnist-ab12-home",
    f"kit-{ME}-used-cd34-home",
    f"kit-{ME}1-bobs-ef56-home",
    "kit-made-kit-tf-cpu-latest",
    "db",
]


@pytest.fixture
def docker(fake_docker):
    usage = {
        "Images": [
            {"Repository": name, "Tag": "latest", "Size": "2GB", "Containers": "1" if name == "kit/torch-cpu" else "0"}
            for name in IMAGES
        ],
        "Volumes": [{"Name": name, "Size": "500MB", "Links": "1" if "used" in name else "0"} for name in VOLUMES],
        "BuildCache": [{"ID": "a", "Size": "9GB", "InUse": "false", "Shared": "false"}],
    }
    fake_docker.reply("system", "df", stdout=json.dumps(usage))
    for name, owner in (("tf-cpu", ME), ("torch-cpu", ME), ("torch2.7-cu126", 54321)):
        words = ("volume", "inspect", "--format={{json .Labels}}", f"kit-made-kit-{name}-latest")
        fake_docker.reply(*words, stdout=json.dumps({"kit.owner": str(owner)}))
    folder = paths.cache_dir() / "base"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bookworm.tar").write_bytes(b"x" * 1000)
    return fake_docker


def deleted(docker):
    return [call.args for call in docker.calls if call.args[:2] in (["image", "rm"], ["builder", "prune"])] + [
        call.args for call in docker.called("volume", "rm") if not call.args[-1].startswith("kit-made-")
    ]


def test_what_there_is_with_sizes_and_nothing_is_deleted_unasked(kit, docker):
    result = kit("clean")
    assert result.code == 2
    rows = [line.split(maxsplit=3) for line in result.out.splitlines()]
    assert rows[0] == ["WHAT", "SIZE", "NAME"]
    assert ["image", "2.0", "GB", "kit/tf-cpu:latest"] in rows
    assert ["image", "2.0", "GB", "kit/torch-cpu:latest  (a container uses it)"] in rows
    assert ["image", "2.0", "GB", "kit/torch2.7-cu126:latest  (another user's)"] in rows
    assert [
        "cache",
        "9.0",
        "GB",
        "build cache of the engine  (all users': `docker builder prune`)",
    ] in rows
    assert ["volume", "500", "MB", VOLUMES[0]] in rows
    assert not any(name in result.out for name in ("ubuntu", "bobs", "kit-made", "db\n"))
    assert "`kit --yes clean images`" in result.err
    assert deleted(docker) == []


def test_yes_leaves_volumes_and_others_things_alone(kit, docker, monkeypatch):
    monkeypatch.setattr("kit.run.clean.user_of", lambda _: f"{ME}:{ME}")
    assert kit("--yes", "clean").code == 0
    assert ["image", "rm", "kit/tf-cpu:latest"] in deleted(docker)
    names = {args[-1] for args in deleted(docker)}
    assert not names & {"kit/torch-cpu:latest", "kit/torch2.7-cu126:latest", "ubuntu:latest", *VOLUMES}
    assert ["builder", "prune", "--all", "--force"] not in deleted(docker), "others build with this engine"
    assert not paths.cache_dir().exists()


def test_volumes_and_names_are_deleted_when_they_are_named(kit, docker):
    assert kit("--yes", "clean", "volumes").code == 0
    assert deleted(docker) == [["volume", "rm", VOLUMES[0]]]
    assert kit("--yes", "clean", "tf-cpu").code == 0
    assert deleted(docker)[0] == ["image", "rm", "kit/tf-cpu:latest"]


@pytest.mark.parametrize("word", ["ubuntu", VOLUMES[2], RECORD, "nothing"])
def test_what_is_not_the_callers_is_not_there(kit, docker, word):
    result = kit("--yes", "clean", word)
    assert result.code == 2
    assert f"nothing of yours is named '{word}'" in result.err
    assert deleted(docker) == []


def test_an_image_of_nobodys_is_for_an_administrator(kit, docker, monkeypatch):
    monkeypatch.setattr("kit.engine.docker.Engine.is_rootless", False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("kit.run.clean.user_of", lambda _: "1000:1000")
    rows = json.loads(kit("--json", "clean", "images").out)
    assert next(row for row in rows if row["name"] == "kit/old:latest")["stays"].startswith("nobody knows whose")
    monkeypatch.setattr("kit.run.clean.user_of", lambda _: "0:0")
    rows = json.loads(kit("--json", "clean", "images").out)
    assert next(row for row in rows if row["name"] == "kit/old:latest")["stays"] == ""


def test_each_kind_is_asked_about(kit, docker, monkeypatch):
    asked = []
    monkeypatch.setattr("kit.cli.clean.is_terminal", lambda: True)
    monkeypatch.setattr("kit.cli.clean.ask", lambda text, *, abort: asked.append(text) or "volume" in text)
    assert kit("clean").code == 0
    assert "Delete 1 volume with what you installed and downloaded, 500 MB?" in asked
    assert deleted(docker) == [["volume", "rm", VOLUMES[0]]]


def test_what_cannot_be_deleted_is_said_and_the_rest_goes(kit, docker):
    docker.reply("image", "rm", code=1, stderr="Error: conflict: unable to delete\n")
    result = kit("--yes", "clean", "tf-cpu", "volumes")
    assert result.code == 1
    assert "conflict: unable to delete" in result.err
    assert ["volume", "rm", VOLUMES[0]] in deleted(docker)


def test_the_private_engines_build_cache_is_kits(kit, docker, monkeypatch):
    monkeypatch.setattr("kit.engine.docker.Engine.is_kits", True)
    assert kit("--yes", "clean", "cache").code == 0
    assert ["builder", "prune", "--all", "--force"] in deleted(docker)
