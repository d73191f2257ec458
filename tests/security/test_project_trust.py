"""What a project's kit.toml says beyond the project is a question, the first time and whenever it changes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import config, paths
from kit.cli.trust import see_to_trust
from kit.config import trust
from kit.config.keys import KEYS
from kit.errors import BadInputError
from kit.spec.container import project_of

# For each key what a project may say without a question, and what it may not.
STAYS = {
    "host": ['"local"'],
    "hosts": ["[]"],
    "image": ['"tf-cpu"'],
    "folder": ['"."', '"sub"', '"inner"', '"sub/../sub"'],
    "gpus": ['"none"'],
    "port": ["8899"],
    "mounts": ['["sub:/x"]', '["inner:/x:ro"]', '["none:/x"]'],
    "env": ['{ A = "b" }'],
    "publish": ['[7860, "7861:80"]'],
    "env_file": ['"plain.env"'],
    "logdir": ['"runs"'],
    "include": ['["data/", "*.csv"]'],
    "restart": ['"always"'],
    "transfer": ["true"],
    "base": ['"archive"'],
    "environment.image": ['"tf-cpu"'],
    "environment.packages": ['["einops"]'],
    "environment.system": ['["ffmpeg"]'],
    "environment.project": ["true"],
    "environment.env": ['{ A = "b" }'],
    "environment.ports": ["[7860]"],
    "environment.check": ['"python check.py"'],
}
REACHES = {
    "host": ['"gpu1"', '"user@gpu1"'],
    "hosts": ['["gpu1"]'],
    "folder": ['".."', '"/"', '"outer"', '"outer/deep"', '"sub/../../x"', '"~"'],
    "remote_folder": ['"~/x"'],
    "mounts": ['["/:/data"]', '["~/.ssh:/x"]', '["..:/x"]', '["outer:/x"]', '["sub:/y", "outer/passwd:/x:ro"]'],
    "env": ['{ JUPYTER_TOKEN = "known-to-others" }'],
    "env_file": ['"/etc/environment"', '"taking.env"', '"outer/environment"', '"token.env"'],
    "pull": ['"registry.test/team"'],
    "registry_mirror": ['"mirror.test"'],
    "index_url": ['"https://mirror.test/simple"', '"file:///srv/simple"'],
    "apt_mirror": ['"https://mirror.test/debian"'],
    "ca_cert": ['"ca.pem"', '"/srv/ca.pem"'],
    "memory": ['"none"', '"24g"'],
    "pids_limit": ['"none"', '"99999"'],
    "cpus": ["4", '"none"'],
    "shm_size": ['"900g"'],
    "ulimits": ['{ memlock = "unlimited" }'],
    "network": ['"host"', '"theirs"'],
    "jupyter_options": ['["--ServerApp.allow_remote_access=True"]'],
    "environment.indexes": ['["https://index.test/simple"]'],
    "environment.env": ['{ JUPYTER_TOKEN = "known-to-others" }'],
}
CASES = [(key, value) for key, values in REACHES.items() for value in values]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder, a project with links in and out of it."""
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    (folder / "sub").mkdir()
    (folder / "inner").symlink_to("sub")
    (folder / "outer").symlink_to("/etc")
    (folder / "plain.env").write_text("A=b\n")
    (folder / "taking.env").write_text("A=b\nAWS_SECRET_ACCESS_KEY\n")
    (folder / "token.env").write_text("A=b\nJUPYTER_TOKEN=known-to-others\n")
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.chdir(folder)
    return folder


def say(project: Path, text: str) -> None:
    (project / "kit.toml").write_text(text)


def asked(project: Path) -> set[str]:
    """The keys whose values cannot be used before the user has said yes."""
    found = config.load(project)
    needed = {key for key in KEYS if trust.is_needed(found, key)}
    return set() if needed and trust.is_trusted(found, trust.asked(found)) else needed


def remember(project: Path) -> None:
    found = config.load(project)
    trust.remember(found, trust.asked(found))


def lines(project: Path) -> tuple[str, ...]:
    return trust.asked(config.read(project)).lines


def test_every_key_is_in_one_of_the_tables_or_both():
    assert set(STAYS) | set(REACHES) == set(KEYS)
    always = {name for name, key in KEYS.items() if key.reaches_out}
    assert always <= set(REACHES)
    assert always - {"host", "hosts"} <= set(KEYS) - set(STAYS)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in STAYS.items() for value in values])
def test_what_stays_in_the_project_needs_no_trust(project, key, value):
    say(project, f"{key} = {value}\n")
    assert asked(project) == set()


@pytest.mark.parametrize(("key", "value"), CASES)
def test_what_reaches_out_is_asked_once_and_again_when_it_changes(project, key, value):
    say(project, f"{key} = {value}\n")
    assert asked(project) == {key}
    remember(project)
    assert asked(project) == set()
    # What stays in the project may change.
    more = "" if key == "env" else 'env = { A = "b" }\n'
    say(project, f'image = "torch"\nport = 1\n{key} = {value}\n{more}')
    assert asked(project) == set()
    for other, another in CASES:
        if other != key:
            say(project, f"{key} = {value}\n{other} = {another}\n")
            assert asked(project) == {key, other}
        elif another != value:
            say(project, f"{key} = {another}\n")
            assert asked(project) == {key}
    say(project, f"{key} = {value}\n")
    assert asked(project) == set()


def test_a_link_that_leads_elsewhere_is_asked_again(project):
    say(project, 'mounts = ["outer:/x"]\nfolder = "inner"\n')
    remember(project)
    assert asked(project) == set()
    for link in ("outer", "inner"):
        (project / link).unlink()
        (project / link).symlink_to("/usr")
        assert "mounts" in asked(project)
    assert asked(project) == {"mounts", "folder"}
    assert lines(project) == (
        "mounts = outer:/x (leads to /usr)",
        f"folder = {project}/inner (leads to /usr)",
    )


@pytest.mark.parametrize("answer", [True, False])
def test_a_link_that_is_changed_while_the_question_stands_is_not_trusted(project, monkeypatch, answer):
    say(project, 'mounts = ["outer:/x"]\n')

    def change(*_: object, **__: object) -> bool:
        (project / "outer").unlink()
        (project / "outer").symlink_to("/usr")
        return answer

    monkeypatch.setattr("kit.cli.trust.ask", change)
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    with pytest.raises(BadInputError):
        see_to_trust(config.load(project), "mounts")
    assert asked(project) == {"mounts"}


def test_a_file_of_variables_that_takes_another_from_here_is_asked_again(project):
    say(project, 'env_file = "taking.env"\n')
    remember(project)
    file = project / "taking.env"
    file.write_text("AWS_SECRET_ACCESS_KEY\nA=c\nB=d\n")
    assert asked(project) == set()
    file.write_text("AWS_SECRET_ACCESS_KEY\nHF_TOKEN\n")
    assert asked(project) == {"env_file"}
    assert lines(project)[0].endswith("(takes AWS_SECRET_ACCESS_KEY, HF_TOKEN from here)")


def test_other_certificates_in_the_same_file_are_asked_again(project):
    say(project, 'ca_cert = "ca.pem"\n')
    remember(project)
    (project / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nanother\n")
    assert asked(project) == {"ca_cert"}


def test_another_password_is_asked_again_though_none_is_shown(project):
    for password in ("one", "two"):
        say(project, f'index_url = "https://me:{password}@mirror.test/simple"\n')
        assert asked(project) == {"index_url"}
        assert lines(project) == ("index_url = https://***@mirror.test/simple",)
        remember(project)


def test_a_file_elsewhere_with_the_same_words_is_another(project, tmp_path):
    say(project, 'host = "gpu1"\n')
    remember(project)
    other = tmp_path / "other"
    other.mkdir()
    say(other, 'host = "gpu1"\n')
    assert asked(other) == {"host"}
    (project / "src").mkdir()
    assert asked(project / "src") == set(), "the same file, found from below"


def test_what_a_flag_or_a_variable_replaces_is_not_asked(project, monkeypatch):
    say(project, 'host = "gpu1"\nregistry_mirror = "mirror.test"\n')
    monkeypatch.setenv("KIT_REGISTRY_MIRROR", "mine.test")
    assert asked(project) == {"host"}
    remember(project)
    monkeypatch.delenv("KIT_REGISTRY_MIRROR")
    assert asked(project) == set()


def test_what_the_users_own_file_says_is_not_asked(project):
    own = Path.home() / ".config/kit/config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('host = "gpu1"\nmounts = ["/etc:/x"]\nca_cert = "/srv/ca.pem"\n')
    say(project, 'image = "tf-cpu"\n')
    assert asked(project) == set()


names = st.text("ab./~é\n\x1b\u202e", max_size=8)


@given(target=names, source=names)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_lines(project, target, source):
    """What is asked is what is shown, whatever links and values have in them."""
    (project / "link").unlink(missing_ok=True)
    if target.strip("\0"):
        (project / "link").symlink_to(target)
    say(project, f'folder = "link"\nmounts = [{json.dumps(source + ":/x")}]\n')
    for line in lines(project):
        assert line.isprintable()


def test_what_is_remembered_is_for_the_owners_eyes(project):
    say(project, 'host = "gpu1"\n')
    remember(project)
    (record,) = (paths.state_dir() / "trust").iterdir()
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    for broken in ("", "[]", "nonsense", '{"hash": 1}', "\udcff"):
        record.write_text(broken, errors="surrogateescape")
        assert asked(project) == {"host"}


# The command, and the commands that are held up.


@pytest.mark.parametrize("words", [["-y", "ps"], ["ps"], ["-q", "--json", "ps"], ["sync"], ["run", "tf-cpu", "true"]])
def test_without_a_terminal_it_is_refused_with_the_command_to_run(kit, monkeypatch, project, words):
    say(project, 'host = "gpu1"\nfolder = "outer"\n')
    for name in ("KIT_YES", "KIT_TRUST", "CI"):
        monkeypatch.setenv(name, "1")
    result = kit(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: {project}/kit.toml reaches out of its project\n"
        "  host = gpu1\n"
        f"  folder = {project}/outer (leads to /etc)\n"
        f"hint: if it may: kit config trust {project}/kit.toml\n"
    )


@pytest.mark.parametrize(
    "words",
    [["list"], ["show", "tf-cpu"], ["config", "show"], ["config", "path"], ["matrix"], ["--host", "local", "ps"]],
)
def test_who_uses_none_of_it_is_not_held_up(kit, fake_docker, project, words):
    fake_docker.reply("ps", stdout="")
    say(project, 'host = "gpu1"\nfolder = "outer"\n')
    assert kit(*words).code == 0
    assert not (paths.state_dir() / "trust").exists()


def test_trust_is_given_listed_and_taken_back(kit, fake_docker, project):
    fake_docker.reply("ps", stdout="")
    say(project, 'hosts = ["gpu1"]\n')
    file = f"{project}/kit.toml"
    given = kit("config", "trust")
    assert (given.code, given.out, given.err) == (0, "", f"{file} is trusted with:\n  hosts = gpu1\n")
    assert kit("config", "trust", "--list").out == f"{file}\n"
    assert kit("config", "trust", "--revoke").err == f"{file} is trusted no more\n"
    assert kit("config", "trust", "--revoke", file).err == f"{file} was not trusted\n"
    assert kit("config", "trust", "--list").out == ""
    assert asked(project) == {"hosts"}
    (project / "kit.toml").unlink()
    assert kit("config", "trust").code == 2


@pytest.mark.parametrize("name", ["none.toml", "sub/kit.toml", "sub", "."])
def test_only_a_projects_file_is_trusted(kit, project, name):
    say(project, 'host = "gpu1"\n')
    result = kit("config", "trust", name)
    assert (result.code, result.out) == (2, "")
    assert "is not the file of a project" in result.err
    assert asked(project) == {"host"}


def test_a_file_that_needs_no_trust_is_not_remembered(kit, project):
    say(project, 'image = "tf-cpu"\n')
    assert kit("config", "trust").err == f"{project}/kit.toml says nothing beyond its project: it needs no trust\n"
    assert kit("config", "trust", "--list").out == ""


def on_terminal(answer: str, *words: str) -> tuple[int, str]:
    """What kit prints on a terminal, and its exit code, when somebody types this answer."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "kit", *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    printed = b""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        printed += piece
        if b"[y/N]" in printed and answer:
            os.write(ours, answer.encode())
            answer = ""
    os.close(ours)
    return child.wait(10), re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).replace("\r\n", "\n")


def test_on_a_terminal_it_is_a_question_which_yes_does_not_answer(monkeypatch, project):
    monkeypatch.setenv("PYTHONPATH", str(paths.root_dir()))
    monkeypatch.setenv("KIT_SSH", "/bin/false")
    say(project, 'host = "gpu1"\nmounts = ["outer:/x"]\n')
    question = (
        f"{project}/kit.toml reaches out of its project:\n"
        "  host = gpu1\n"
        "  mounts = outer:/x (leads to /etc)\n"
        "Do you trust it with this? kit asks again when it changes. [y/N]: "
    )
    for answer in ("n\n", "\n", "\x04"):
        code, printed = on_terminal(answer, "-y", "ps")
        assert printed.startswith(question)
        assert code in (2, 130)
        assert asked(project) == {"host", "mounts"}
    code, printed = on_terminal("y\n", "ps")
    assert printed.startswith(question)
    assert (code, asked(project)) == (19, set()), "the host is asked, which does not answer"
    assert "[y/N]" not in on_terminal("", "ps")[1]


# Whose file it is.


def own(project: Path, text: str, *, owner: int = 0, group: int = 0, mode: int = 0o644) -> None:
    say(project, text)
    os.chown(project / "kit.toml", owner, group)
    (project / "kit.toml").chmod(mode)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@as_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "why"),
    [
        (4711, 0, 0o644, "it is 4711's"),
        (0, 4711, 0o664, "the group 4711 may write to it"),
        (0, 1, 0o660, "the group 1 may write to it"),
        (0, 0, 0o646, "everybody may write to it"),
        (0, 0, 0o664, ""),
        (0, 4711, 0o644, ""),
    ],
)
@pytest.mark.parametrize("folder_mode", [0o755, 0o775])
def test_all_of_a_file_that_somebody_else_may_write_is_asked(project, owner, group, mode, why, folder_mode):
    os.chown(project, 0, 4711)
    project.chmod(folder_mode)
    own(project, 'image = "tf-cpu"\nenv = { A = "b" }\n', owner=owner, group=group, mode=mode)
    assert asked(project) == ({"image", "env"} if why else set())
    if why:
        assert config.load(project).others == why
        remember(project)
        assert asked(project) == set()
        own(project, 'image = "torch"\nenv = { A = "b" }\n', owner=owner, group=group, mode=mode)
        assert asked(project) == {"image", "env"}


@as_root
def test_a_link_of_somebody_elses_to_a_file_of_ones_own_is_asked(project, tmp_path):
    (tmp_path / "mine.toml").write_text('image = "tf-cpu"\n')
    (project / "kit.toml").symlink_to(tmp_path / "mine.toml")
    assert asked(project) == set()
    os.lchown(project / "kit.toml", 4711, 4711)
    assert asked(project) == {"image"}


@as_root
def test_root_takes_the_file_of_who_became_root_and_nobody_elses(project, monkeypatch):
    own(project, 'image = "tf-cpu"\n', owner=4711)
    monkeypatch.setenv("SUDO_GID", "4711")
    monkeypatch.setenv("SUDO_UID", "4711")
    assert asked(project) == set()
    own(project, 'image = "tf-cpu"\nhost = "gpu1"\n', owner=4711)
    assert asked(project) == {"host"}
    for other in ("4712", "abc", "", "4711\n", "4711.0"):
        monkeypatch.setenv("SUDO_UID", other)
        assert asked(project) == {"image", "host"}


@as_root
def test_somebody_else_is_not_believed_by_a_variable(project, monkeypatch):
    own(project, 'image = "tf-cpu"\n', owner=4711)
    monkeypatch.setenv("SUDO_GID", "4711")
    monkeypatch.setenv("SUDO_UID", "4711")
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    assert asked(project) == {"image"}


# From inside a container.


@pytest.mark.engine
def test_a_job_that_writes_kit_toml_does_not_reach_the_host(tf_cpu, docker, tmp_path, monkeypatch, request):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "project"
    folder.mkdir()

    def remove_volumes() -> None:
        for volume in docker.volumes.list(filters={"name": project_of(folder)}):
            volume.remove()

    request.addfinalizer(remove_volumes)

    def kit(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kit", "run", "--gpus", "none", tf_cpu, *words]
        env = {**os.environ, "PYTHONPATH": str(paths.root_dir())}
        return subprocess.run(
            command, check=False, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    job = r"""printf 'mounts = ["/:/data"]\n' > /workspace/kit.toml"""
    assert kit("sh", "-c", job).returncode == 0
    escape = kit("cat", "/data/etc/hostname")
    assert (escape.returncode, escape.stdout) == (2, "")
    assert "mounts = /:/data\n" in escape.stderr
    # What is a comma in a path stays one.
    (folder / "x").mkdir()
    (folder / "kit.toml").write_text('mounts = ["x:/data,source=/"]\n')
    assert kit("ls", "/data/etc").returncode == 2
