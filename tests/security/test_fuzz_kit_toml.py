"""Damaged files of the configuration, and files of variables: kit says what is wrong, at once."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import strategies as st

from kit import config
from kit.cli import group
from kit.cli.trust import see_to_trust
from kit.config import env_file, trust
from kit.config.keys import KEYS
from kit.errors import BadInputError, KitError
from tests.security.fuzzing import ANY_JSON, damaged, fuzz, replaced

FILE = """\
image = "torch-cu126"
host = "user@gpu1"
hosts = ["local", "gpu1"]
folder = "."
remote_folder = "~/work"
gpus = "free"
port = 8888
mounts = ["/data/imagenet:/data:ro", 'link:/x', "~/y:/y"]
env_file = ".env"
logdir = "runs"
restart = "always"
transfer = true
pull = "registry.test/team"
base = "archive"
registry_mirror = "mirror.test"
index_url = "https://me:secret@mirror.test/simple"
apt_mirror = "http://mirror.test/debian"
ca_cert = "ca.pem"

[env] # of the container
WANDB_MODE = "offline"
"odd name" = 4
LINES = \"\"\"
a = [b]
\"\"\"
"""
VALUES: dict[str, Any] = {
    "image": "tf-cpu",
    "host": "gpu1",
    "hosts": ["gpu1"],
    "folder": "sub",
    "remote_folder": "~/work",
    "gpus": "2",
    "port": 8888,
    "mounts": ["sub:/data:ro", "/etc:/y"],
    "env": {"A": "b", "B": 4},
    "env_file": ".env",
    "logdir": "runs",
    "transfer": True,
    "index_url": "https://me:secret@mirror.test/simple",
    "ca_cert": "ca.pem",
}
VARIABLES = b"# of the container\nA=b\n  B = c\r\nHF_TOKEN\nLONG=" + b"x" * 500 + b"\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to("/etc")
    (folder / ".env").write_bytes(VARIABLES)
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(group.get_command(click.Context(group), "run"), "callback", lambda **_: None)
    return folder


def use(project: Path, data: bytes, place: Path) -> None:
    """Read a file of the configuration, show it, ask about it, trust it, and hand its values to `kit run`."""
    place.write_bytes(data)
    found = config.read(project)
    assert all(setting.shown.isprintable() for setting in found.settings)
    assert all(line.isprintable() for line in trust.asked(found).lines)
    assert all(isinstance(problem, KitError) for problem in found.problems)
    config.load(project)
    if found.project:
        trust.revoke(project / "kit.toml")
        for key in KEYS:
            if trust.is_needed(found, key):
                with pytest.raises(BadInputError):
                    see_to_trust(found, key)
        trust.remember(found, trust.asked(found))
        assert trust.is_trusted(found, trust.asked(config.load(project)))
    try:
        group.main(["run", "tf-cpu", "true"], prog_name="kit", standalone_mode=False)
    except click.ClickException as e:  # which the entry point prints as it prints kit's own
        e.format_message()


@pytest.mark.parametrize("whose", ["project", "user"])
def test_a_damaged_file(project, whose):
    place = project / "kit.toml" if whose == "project" else Path.home() / ".config/kit/config.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    fuzz(damaged([FILE.encode()]), lambda data: use(project, data, place))


def as_toml(value: Any) -> str:
    """A value of JSON as TOML has it; what only JSON can say is a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(str(key))} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**65:
        return "0x" + "f" * 5000
    # TOML knows no halves of a character; the control that JSON leaves as it is is escaped.
    text = json.dumps(value, ensure_ascii=False) if value is not None else '""'
    return text.encode("utf-8", "replace").decode().replace("\x7f", "\\u007f")


# Of the right kind, and of no use.
TEXTS = st.sampled_from(
    (
        *(
            "link",
            "loop",
            ".env",
            "../..",
            "~",
            "~nobody-here",
            "/dev/zero",
            "/proc/self/fd/0",
            "none",
            "sub/none",
            ":",
        ),
        *(
            "a" * 300,
            "/a" * 3000,
            "a:/x",
            ":/x",
            "sub:/x:ro:rw",
            "sub:/",
            "sub:/a,source=/",
            'sub:/"',
            "~nobody-here:/x",
        ),
        *(
            "loop:/x",
            "a" * 300 + ":/x",
            "sub:/" + "a" * 300,
            "-x",
            "2147483648",
            "http://[",
            "file://",
            "http://\u202e",
        ),
    )
)


def test_values_of_every_kind(project):
    (project / "loop").symlink_to("loop")
    value = st.one_of(ANY_JSON, TEXTS, st.lists(TEXTS, max_size=3), st.dictionaries(st.text(max_size=3), TEXTS))
    texts = st.one_of(replaced([VALUES]), st.dictionaries(st.sampled_from(list(KEYS)), value, min_size=1, max_size=2))

    def read(values: Any) -> None:
        if isinstance(values, dict):
            lines = [f"{as_toml(str(key))} = {as_toml(value)}\n" for key, value in values.items()]
            use(project, "".join(lines).encode(), project / "kit.toml")

    fuzz(texts, read)


def test_a_file_of_variables(project):
    def read(data: bytes) -> None:
        (project / ".env").write_bytes(data)
        (project / "kit.toml").write_text('env_file = ".env"\n')
        trust.asked(config.read(project))
        env_file.read(project / ".env", {"HF_TOKEN": "x"})

    fuzz(damaged([VARIABLES]), read)


# Each took seconds or minutes once, or is the longest of its kind that is still read.
LONG = {
    "a long value": 'image = "' + "a" * 250_000 + '"\n',
    "a value of spaces": 'image = "' + " =" * 120_000 + 'x"\n',
    "a long URL": 'index_url = "https://' + "a:b@" * 60_000 + '"\n',
    "variables": "[env]\n" + "".join(f'VARIABLE_{i} = "value"\n' for i in range(3000)),
    "mounts": "mounts = [" + "".join(f'"data{i}:/b{i}", ' for i in range(3000)) + "]\n",
    "unknown keys": "".join(f"k{i} = 1\n" for i in range(20_000)),
    "a key of many parts": "env." + ".".join("a" * 50_000) + " = 1\n",
    "a table of many parts": "[" + ".".join("a" * 50_000) + "]\n",
    "lists in lists": "a = " + "[" * 200_000,
    "a long number": "port = " + "9" * 200_000 + "\n",
}


@pytest.mark.parametrize("name", LONG)
def test_what_is_long_takes_no_time(project, name):
    begun = time.process_time()
    with contextlib.suppress(KitError):
        use(project, LONG[name].encode(), project / "kit.toml")
    assert time.process_time() - begun < 3
