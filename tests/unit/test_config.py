import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import config, paths, redact
from kit.config import files
from kit.config.keys import KEYS, FolderMount
from kit.config.settings import Setting, merged
from kit.environment.declared import declared
from kit.errors import BadInputError


@pytest.fixture
def user_file():
    file = Path.home() / ".config/kit/config.toml"
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def project(tmp_path):
    """A Git repository in a folder of somebody's, with no kit.toml yet."""
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    return folder


def error_of(project, text):
    (project / "kit.toml").write_text(text)
    with pytest.raises(BadInputError) as raised:
        config.load(project)
    return raised.value


# Which of several places counts.

PLACES = ("default", "user", "project", "environment")
# A key with a variable, and what is written for it in the user's file, the project's file and the environment.
WRITTEN = {
    "host": ("local", "by-user", "by-project", "by-environment"),
    "base": ("auto", "registry", "archive", "registry"),
    "registry_mirror": ("", "user.test", "project.test", "environment.test"),
    "index_url": ("", "https://user.test", "https://project.test", "https://environment.test"),
    "ca_cert": (None, Path("/user.pem"), Path("/project.pem"), Path("/environment.pem")),
}


def test_the_keys_with_a_variable_are_all_in_this_table():
    assert set(WRITTEN) == {name for name, key in KEYS.items() if key.variables}


@pytest.mark.parametrize("key", WRITTEN)
@pytest.mark.parametrize("chosen", range(8))
def test_the_environment_counts_before_the_project_and_the_project_before_the_user(project, user_file, key, chosen):
    said = {place: bool(chosen >> bit & 1) for bit, place in enumerate(PLACES[1:])}
    values = dict(zip(PLACES, WRITTEN[key], strict=True))
    for place, file in (("user", user_file), ("project", project / "kit.toml")):
        file.write_text(f'{key} = "{values[place]}"\n' if said[place] else "")
    variable = KEYS[key].variables[-1]
    environment = {**os.environ, **({variable: str(values["environment"])} if said["environment"] else {})}
    highest = next((place for place in reversed(PLACES[1:]) if said[place]), "default")
    found = config.load(project, environment)
    (setting,) = found.of(key)
    where = {"default": "", "user": f"{user_file}:1", "project": f"{project}/kit.toml:1", "environment": variable}
    assert (found.value(key), setting.source, setting.place) == (values[highest], highest, where[highest])


names = st.sampled_from(["A", "B", "C", "D"])
layers = st.lists(st.dictionaries(names, st.text(max_size=3), max_size=4), max_size=4)


@given(tables=layers)
def test_variables_of_all_places_add_up_and_the_highest_of_a_name_counts(tables):
    settings = [[Setting(key="env", part=name, value=value) for name, value in table.items()] for table in tables]
    expected: dict[str, str] = {}
    for table in tables:
        expected |= table
    found = config.read(environment={"KIT_CONFIG": os.devnull, "HOME": "/"})
    assert type(found)(settings=merged(settings)).value("env") == expected


@given(hosts=st.lists(st.none() | st.sampled_from(["a", "b", "c"]), max_size=4))
def test_a_single_value_is_that_of_the_highest_place_that_has_one(hosts):
    settings = [[Setting(key="host", value=host)] if host else [] for host in hosts]
    (found,) = [setting.value for setting in merged(settings) if setting.key == "host"]
    assert found == next((host for host in reversed(hosts) if host), "local")


def test_an_empty_variable_is_like_none(project):
    (project / "kit.toml").write_text('host = "gpu1"\n')
    assert config.load(project, {**os.environ, "KIT_HOST": ""}).value("host") == "gpu1"


def test_a_wrong_variable_disturbs_only_who_uses_it(project):
    found = config.load(project, {**os.environ, "KIT_BASE": "magic", "PIP_INDEX_URL": "not a URL"})
    assert (found.value("base"), found.value("index_url")) == ("magic", "not a URL")


def test_mounts_of_both_files_add_up_by_their_target(project, user_file):
    user_file.write_text('mounts = ["/u/data:/data", "cache:/cache:ro"]\n')
    (project / "kit.toml").write_text('mounts = ["data:/data/"]\n')
    found = config.load(project).value("mounts")
    assert [mount.on_this_machine() for mount in found] == [
        f"{project}/data:/data/",
        f"{user_file.parent}/cache:/cache:ro",
    ]
    assert [str(mount) for mount in found] == ["data:/data/", "cache:/cache:ro"]


# Where the files are.


def test_without_files_everything_is_its_default(project):
    found = config.load(project, {"HOME": str(Path.home())})
    assert not config.is_there()
    assert {setting.source for setting in found.settings} == {"default"}
    assert [setting.key for setting in found.settings] == list(KEYS)


@pytest.mark.parametrize("deep", ["", "src", "src/a/b"])
def test_the_project_file_is_the_nearest_above(project, deep):
    (project / "kit.toml").write_text('image = "far"\n')
    folder = project / deep
    folder.mkdir(parents=True, exist_ok=True)
    assert config.load(folder).value("image") == "far"
    (folder / "kit.toml").write_text('image = "near"\n')
    assert config.load(folder).value("image") == "near"


@pytest.mark.parametrize("git", ["folder", "file"])
def test_the_search_ends_at_the_root_of_a_git_repository(project, git):
    (project / "kit.toml").write_text('image = "outer"\n')
    inner = project / "inner"
    (inner / "src").mkdir(parents=True)
    assert config.load(inner / "src").value("image") == "outer"
    if git == "folder":
        (inner / ".git").mkdir()
    else:  # a submodule or a worktree
        (inner / ".git").write_text("gitdir: elsewhere\n")
    assert config.load(inner / "src").value("image") is None
    (inner / "kit.toml").write_text('image = "inner"\n')
    assert config.load(inner / "src").value("image") == "inner"


@pytest.mark.parametrize("deep", ["", "work", "work/project"])
def test_a_file_in_the_home_is_no_projects(deep, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "people/alice"))
    folder = Path.home() / deep
    folder.mkdir(parents=True, exist_ok=True)
    (Path.home() / "kit.toml").write_text('host = "gpu1"\n')
    (Path.home().parent / "kit.toml").write_text('host = "gpu2"\n')
    found = config.load(folder)
    assert (found.project_file, found.value("host")) == (None, "local")
    assert [line.partition(":")[0] for line in found.passed_over] == [f"{Path.home()}/kit.toml"]


def test_a_project_file_is_found_through_a_link_to_the_folder(project, tmp_path, monkeypatch):
    (project / "kit.toml").write_text('image = "x"\n')
    (tmp_path / "link").symlink_to(project)
    monkeypatch.chdir(tmp_path / "link")
    assert config.load().project_file == project / "kit.toml"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    ("mode", "folder_owner", "is_taken"),
    [(0o1777, 0, False), (0o777, 0, False), (0o755, 0, True), (0o1777, 4711, True)],
)
def test_a_file_that_anybody_could_have_put_there_is_not_taken(tmp_path, mode, folder_owner, is_taken):
    shared = tmp_path / "tmp"
    (shared / "work").mkdir(parents=True)
    shared.chmod(mode)
    (shared / "kit.toml").write_text('host = "theirs"\n')
    os.chown(shared / "kit.toml", 4711, 4711)
    os.chown(shared, folder_owner, folder_owner)
    found = config.load(shared / "work")
    assert (found.value("host") == "theirs") is is_taken
    assert bool(found.passed_over) is not is_taken
    # Who became root by sudo works among their own files.
    assert config.load(shared / "work", {**os.environ, "SUDO_UID": "4711", "SUDO_GID": "1"}).value("host") == "theirs"


def test_a_folder_that_was_deleted_has_no_project(tmp_path, monkeypatch, user_file):
    user_file.write_text('host = "gpu1"\n')
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert config.is_there()
    assert config.load().value("host") == "gpu1"


@pytest.mark.parametrize(("value", "is_used"), [("{tmp}/xdg", True), ("xdg", False), ("./xdg", False), ("", False)])
def test_only_an_absolute_xdg_config_home_is_used(tmp_path, monkeypatch, user_file, value, is_used):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", value.replace("{tmp}", str(tmp_path)))
    user_file.write_text('image = "home"\n')
    (tmp_path / "xdg/kit").mkdir(parents=True)
    (tmp_path / "xdg/kit/config.toml").write_text('image = "xdg"\n')
    assert config.load().value("image") == ("xdg" if is_used else "home")


def test_kit_config_replaces_the_users_file(tmp_path, monkeypatch, user_file):
    monkeypatch.chdir(tmp_path)
    user_file.write_text('image = "home"\n')
    (tmp_path / "other.toml").write_text('image = "other"\nca_cert = "ca.pem"\n')
    for name in ("other.toml", str(tmp_path / "other.toml")):
        monkeypatch.setenv("KIT_CONFIG", name)
        assert config.load().value("image") == "other"
        assert config.load().value("ca_cert") == tmp_path / "ca.pem"
    monkeypatch.setenv("KIT_CONFIG", os.devnull)
    assert config.load().value("image") is None


def test_kit_config_must_name_a_file_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_CONFIG", str(tmp_path / "none"))
    for ask in (config.load, config.is_there):
        with pytest.raises(BadInputError, match=r"KIT_CONFIG=.*/none: there is no such file"):
            ask()


def test_an_account_without_a_home_has_no_user_file(monkeypatch, project):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    (project / "kit.toml").write_text('image = "x"\n')
    found = config.load(project)
    assert (found.user_file, found.value("image")) == (None, "x")


# What is wrong in a file.


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("hots", "hosts"),
        ("hst", "host"),
        ("ports", "port"),
        ("mount", "mounts"),
        ("env-file", "env_file"),
        ("envfile", "env_file"),
        ("Image", "image"),
        ("registry-mirror", "registry_mirror"),
        ("zzz", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(project, written, nearest):
    error = error_of(project, f'image = "x"\n\n{written} = 1\n')
    assert error.message == f"{project}/kit.toml:3: unknown key `{written}`"
    assert error.exit_code == 2
    assert error.hint.startswith(f"did you mean `{nearest}`?" if nearest else "there are: host, hosts, image")


def test_an_unknown_table_is_refused(project):
    assert error_of(project, 'image = "x"\n[run]\nport = 1\n').message.endswith("kit.toml:2: unknown key `run`")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port = 0", "`port`: must be a whole number from 1 to 65535, not 0"),
        ("port = 65536", "not 65536"),
        ('port = "8888"', "not '8888'"),
        ("port = true", "not True"),
        ("port = 88.0", "not 88.0"),
        ("host = 1", "`host`: must be the name of a machine, in quotes"),
        ('host = ""', "it is empty"),
        ('host = "-oProxyCommand=x"', "as `ssh` takes it"),
        ('host = "a\\u001b[2Kb"', "a character in it that cannot be printed"),
        ('image = "a\\u202eb"', "a character in it that cannot be printed"),
        ('hosts = "a"', "`hosts`: must be a list"),
        ("hosts = [1]", "`hosts`: must be the name of a machine"),
        ("gpus = 0", "`gpus`: must be"),
        ("gpus = true", "`gpus`: must be"),
        *((f"{key} = 0x" + "f" * 5000, f"`{key}`: a number that is too large") for key in ("gpus", "port", "restart")),
        ("env = { A = 0x" + "f" * 5000 + " }", "`env`: a number that is too large"),
        ("mounts = [[0x" + "f" * 5000 + "]]", "`mounts`: must be a list of SOURCE"),
        ("mounts = {}", "`mounts`: must be a list of SOURCE:TARGET"),
        ('mounts = "/a:/b"', "`mounts`: must be a list"),
        ('mounts = ["/a"]', "`/a` is not SOURCE:TARGET[:ro]"),
        ('mounts = ["/a:b"]', "`/a:b` is not SOURCE:TARGET[:ro]"),
        ('mounts = ["/a:/b:rx"]', "is not SOURCE:TARGET[:ro]"),
        ('mounts = [":/b"]', "is not SOURCE:TARGET[:ro]"),
        ('mounts = ["/a:/b", "/c:/b/"]', "two mounts at /b"),
        ('mounts = ["~nobody-here/a:/b"]', "`~nobody-here` stands for no folder here"),
        ('env = ["A=b"]', "`env`: must be a table"),
        ("env = { A = true }", "`env.A`: must be a text in quotes, or a whole number"),
        ("env = { A = 1.5 }", "`env.A`: must be a text in quotes, or a whole number"),
        ('env = { "A B" = "x" }', "`env.A B`: a variable's name has a space"),
        ('env = { "A=B" = "x" }', "a variable's name has a space"),
        ('env = { "" = "x" }', "a variable without a name"),
        ('env = { A = "a\\u0000b" }', "a NUL character"),
        ('restart = "sometimes"', '`restart`: must be one of "no", "on-failure", "unless-stopped", "always", not'),
        ("restart = false", '`restart`: must be one of "no"'),
        ('base = "magic"', "not 'magic'"),
        ('transfer = "yes"', "`transfer`: must be true or false, not 'yes'"),
        ('index_url = "mirror.test/simple"', "`index_url`: must be a URL that begins with http"),
        ('remote_folder = "work"', "`remote_folder`: must be a path on the host, from / or ~/ on"),
        ('ca_cert = "~nobody-here/ca.pem"', "`ca_cert`: `~nobody-here` stands for no folder here"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line_and_what_it_should_be(project, text, problem):
    error = error_of(project, f"# a comment\n\n{text}\n")
    assert error.message.startswith(f"{project}/kit.toml:3: `")
    assert problem in error.message
    assert error.message.isprintable()


def test_everything_that_is_wrong_is_said_at_once(project, user_file):
    user_file.write_text("port = 0\n")
    error = error_of(project, 'hots = "a"\nport = 1\nbase = "b"\n')
    assert error.message.startswith(f"{user_file}:1: `port`")
    assert [line.partition(": ")[0] for line in error.details] == [f"{project}/kit.toml:{n}" for n in (1, 3)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("host = gpu1\n", 1),
        ('image = "x"\nhost = "a"\nhost = "b"\n', 3),
        ('image = "x"\nmounts = [\n', 2),
        ("= 1", 1),
        ("a = " + "[" * 5000, 1),
        ("port = " + "9" * 5000, 1),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_line(project, text, line):
    error = error_of(project, text)
    assert error.message.startswith(f"{project}/kit.toml:{line}: not valid TOML: ")
    assert "(at " not in error.message


def test_a_file_that_is_not_utf_8_is_refused(project):
    (project / "kit.toml").write_bytes(b'image = "\xff"\n')
    with pytest.raises(BadInputError, match="is not UTF-8 text"):
        config.load(project)


def test_the_mark_that_windows_editors_put_first_is_taken(project):
    (project / "kit.toml").write_bytes(b'\xef\xbb\xbfimage = "x"\r\n')
    assert config.load(project).value("image") == "x"


@pytest.fixture
def nobody():
    """A folder that everybody can reach, and the process without root's right to read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder, before = Path(name), os.geteuid()
        folder.chmod(0o755)
        (folder / "kit").mkdir()
        (folder / "kit/config.toml").write_text('image = "x"\n')
        if before == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(before)
        (folder / "kit").chmod(0o755)


@pytest.mark.parametrize("closed", ["kit/config.toml", "kit"])
def test_a_file_that_may_not_be_read_is_an_error_and_one_behind_a_closed_folder_is_none(nobody, monkeypatch, closed):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(nobody))
    monkeypatch.chdir(nobody)
    assert config.load().value("image") == "x"
    me = os.geteuid()
    os.seteuid(os.getuid())
    (nobody / closed).chmod(0)
    os.seteuid(me)
    if closed == "kit":
        assert not config.is_there()
        assert config.load().value("image") is None
        return
    assert config.is_there()
    with pytest.raises(BadInputError, match=r"config.toml cannot be read: Permission denied"):
        config.load()


def test_a_project_file_that_may_not_be_read_is_an_error(nobody, monkeypatch):
    me = os.geteuid()
    os.seteuid(os.getuid())
    (nobody / "kit.toml").touch(0)
    os.seteuid(me)
    with pytest.raises(BadInputError, match=r"kit.toml cannot be read: Permission denied"):
        config.load(nobody)


def test_a_folder_in_place_of_the_users_file_is_an_error(user_file):
    user_file.mkdir()
    with pytest.raises(BadInputError, match=r"config.toml cannot be read: Is a directory"):
        config.load()


def test_what_can_be_read_is_there_beside_what_is_wrong(project, user_file):
    user_file.write_text('image = "x"\n')
    (project / "kit.toml").write_text("nonsense\n")
    found = config.read(project)
    assert found.value("image") == "x"
    assert [problem.message.partition(": ")[0] for problem in found.problems] == [f"{project}/kit.toml:1"]


@pytest.mark.parametrize(
    ("text", "key", "part", "line"),
    [
        ('a = 1\nhost = "x"', "host", "", 2),
        ('"host" = "x"', "host", "", 1),
        ('# host = "y"\n  host="x"', "host", "", 2),
        ('[env]\nA = "x"\nB = "y"', "env", "B", 3),
        ('env.A = "x"\nenv.B = "y"', "env", "B", 2),
        ('image = "B"\nenv = { A = "x", B = "y" }', "env", "B", 2),
        ('mounts = [\n  "a:/a",\n  "b:/b:ro",\n]\nimage = "b:/b:ro"', "mounts", "b:/b:ro", 3),
        ("mounts = ['a:/a']", "mounts", "a:/a", 1),
        ('image = "x"', "host", "", 0),
    ],
)
def test_the_line_of_a_value(text, key, part, line):
    assert files.Lines(text).of(key, part) == line


# Values.


def test_paths_are_relative_to_their_file_and_the_home_is_expanded(project, user_file):
    user_file.write_text('ca_cert = "../ca.pem"\nenv_file = "~/secrets"\n')
    (project / "kit.toml").write_text('folder = "."\nmounts = ["~/data:/data", "/abs:/abs:ro", "a/../b:/b:rw"]\n')
    (project / "src").mkdir()
    found = config.load(project / "src")
    assert found.value("ca_cert") == user_file.parent.parent / "ca.pem"
    assert found.value("env_file") == Path.home() / "secrets"
    assert found.value("folder") == project
    assert [mount.on_this_machine() for mount in found.value("mounts")] == [
        f"{Path.home()}/data:/data",
        "/abs:/abs:ro",
        f"{project}/b:/b:rw",
    ]


@pytest.mark.parametrize(("text", "value"), [("2", "2"), ('"free"', "free"), ('"0,3"', "0,3"), ('"none"', "none")])
def test_gpus_are_a_number_or_a_text(project, text, value):
    (project / "kit.toml").write_text(f"gpus = {text}\n")
    assert config.load(project).value("gpus") == value


def test_variables_are_texts_or_whole_numbers(project):
    (project / "kit.toml").write_text('[env]\nA = "b c"\nOMP_NUM_THREADS = 4\nLINES = """a\nb"""\n')
    assert config.load(project).value("env") == {"A": "b c", "OMP_NUM_THREADS": "4", "LINES": "a\nb"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@mirror.test/simple", "https://***@mirror.test/simple"),
        ("https://token@mirror.test/simple", "https://***@mirror.test/simple"),
        ("HTTP://token@mirror.test", "HTTP://***@mirror.test"),
        ("user:secret@mirror.test", "***@mirror.test"),
        ("user@gpu1", "user@gpu1"),
        ("ssh://user@gpu1:22", "ssh://user@gpu1:22"),
        ("ssh://user:secret@gpu1:22", "ssh://***@gpu1:22"),
        ("mirror.test:5000/team", "mirror.test:5000/team"),
    ],
)
def test_passwords_are_not_shown(text, shown):
    assert redact.text(text) == shown


@pytest.mark.parametrize(
    ("name", "is_hidden"),
    [
        ("WANDB_API_KEY", True),
        ("HF_TOKEN", True),
        ("MY_PASSWORD", True),
        ("aws_secret_access_key", True),
        ("APIKEY", True),
        ("GITHUB_PAT", True),
        ("WANDB_MODE", False),
        ("PYTHONPATH", False),
        ("KEYBOARD", False),
    ],
)
def test_variables_that_are_secret_by_their_name_are_not_shown(name, is_hidden):
    assert (Setting(key="env", part=name, value="hunter2").shown == "***") is is_hidden


def test_what_is_shown_has_no_escape_sequences():
    assert Setting(key="env", part="A", value="a\n\x1b[2Kb").shown == "a\\n\\x1b[2Kb"


# Files of variables.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"A=b\n", {"A": "b"}),
        (b"A=b", {"A": "b"}),
        (b"A=\n", {"A": ""}),
        (b"A=b=c\n", {"A": "b=c"}),
        (b"A= b \n", {"A": " b "}),
        (b"A=\"b\" 'c'\n", {"A": "\"b\" 'c'"}),
        (b"A=b # no comment\n", {"A": "b # no comment"}),
        (b"# A=b\n\n   \n  # x\nB=c\n", {"B": "c"}),
        (b"  A=b\n", {"A": "b"}),
        (b"A=b\r\nB=c\r\n", {"A": "b", "B": "c"}),
        (b"\xef\xbb\xbfA=b\n", {"A": "b"}),
        (b"A=1\nB=2\nA=3\n", {"A": "3", "B": "2"}),
        (b"HERE\nNOT_HERE\nEMPTY\n", {"HERE": "value", "EMPTY": ""}),
        (b"a.b-c=d\n", {"a.b-c": "d"}),
        ("NAME=grüße\n".encode(), {"NAME": "grüße"}),
        (b"", {}),
    ],
)
def test_a_file_of_variables(tmp_path, text, expected):
    (tmp_path / "env").write_bytes(text)
    found = config.read_env_file(tmp_path / "env", {"HERE": "value", "EMPTY": ""})
    assert dict(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"A=b\nexport SECRET=hunter2\n", ":2: a variable's name has a space"),
        (b"A =hunter2\n", ":1: a variable's name has a space"),
        (b"my hunter2\n", ":1: a variable's name has a space"),
        (b"=hunter2\n", ":1: a variable without a name"),
        (b"A=b\n\nB=hunter2\0\n", ":3: a NUL character in the value"),
        (b"A\x1b=hunter2\n", ":1: a variable's name has a space"),
        (b"A=\xff hunter2\n", "is not UTF-8 text"),
    ],
)
def test_a_wrong_file_of_variables_is_refused_without_saying_what_is_in_it(tmp_path, text, problem):
    (tmp_path / "env").write_bytes(text)
    with pytest.raises(BadInputError) as raised:
        config.read_env_file(tmp_path / "env")
    assert problem in raised.value.message
    assert "hunter2" not in f"{raised.value.message} {raised.value.hint}"
    assert ("leave out `export`" in raised.value.hint) is text.startswith(b"A=b\nexport")


@pytest.mark.parametrize(("name", "problem"), [("none", "No such file"), (".", "Is a directory")])
def test_a_file_of_variables_that_cannot_be_read(tmp_path, name, problem):
    with pytest.raises(BadInputError, match=f"cannot be read: {problem}"):
        config.read_env_file(tmp_path / name)


values = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), max_size=20)


@given(variables=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), values, max_size=5))
def test_what_is_written_is_what_is_read(tmp_path_factory, variables):
    file = tmp_path_factory.mktemp("env") / "env"
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()), encoding="utf-8")
    assert dict(config.read_env_file(file, {})) == variables


# The page about it.

PAGE = (paths.root_dir() / "docs/configuration.md").read_text(encoding="utf-8")


def test_the_page_has_every_key_and_no_other():
    table = PAGE.partition("## Keys")[2].partition("\n\nAn unknown key")[0]
    assert re.findall(r"^\| `([\w.]+)`", table, re.MULTILINE) == list(KEYS)
    for name, key in KEYS.items():
        (row,) = re.findall(rf"^\| `{name}` .*", table, re.MULTILINE)
        for word in (*key.variables, *(f'"{choice}"' for choice in key.choices)):
            assert f"`{word}`" in row


def test_the_page_names_what_reaches_out():
    told = PAGE.partition("What reaches out: ")[2].partition("; a")[0]
    assert set(re.findall(r"`([\w.]+)`", told)) == {name for name, key in KEYS.items() if key.reaches_out}


def test_the_example_of_the_page_is_right(project):
    (project / "kit.toml").write_text(PAGE.partition("```toml\n")[2].partition("```")[0])
    found = config.load(project)
    assert found.value("mounts") == (FolderMount(source="/data/imagenet", target="/data", mode="ro", folder=project),)
    assert found.value("env") == {"WANDB_MODE": "offline"}


def test_the_example_of_an_environment_is_right(project):
    (project / "kit.toml").write_text(PAGE.partition("## Environment")[2].partition("```toml\n")[2].partition("```")[0])
    found = declared(config.load(project))
    assert (found.image, found.system, found.project) == ("torch>=2.6", ("ffmpeg",), True)
    assert found.packages[1:] == ("transformers[torch]>=4.50", "triton ; platform_machine == 'x86_64'")
    assert found.env == (("TOKENIZERS_PARALLELISM", "false"),)
