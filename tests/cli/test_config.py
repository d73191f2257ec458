import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kit import cli
from kit.cli import CONFIGURED, LOCAL_COMMANDS, group
from kit.cli.defaults import ONLY_IN, ONLY_WITH_HOST, PARAMETERS, AddingOption, Defaults
from kit.cli.options import HERE, Options, host_option, is_configured
from kit.config.keys import KEYS, LOCAL
from kit.spec.gpu_request import GpuRequest
from tests.conftest import REPOSITORY


@pytest.fixture
def user_file():
    file = Path.home() / ".config/kit/config.toml"
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder, the root of a Git repository; files that settings name are there."""
    folder = tmp_path / "project"
    (folder / ".git").mkdir(parents=True)
    for name in ("user", "project", "variable", "flag"):
        (folder / name).mkdir()
        for file in ("ca.pem", "env"):
            (folder / name / file).write_text("")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def docker_ps(fake_docker):
    """An engine without containers."""
    fake_docker.reply("ps", stdout="")
    return fake_docker


# For each key: what is written in a user's file, a project's file and the environment, and given as a flag; and what
# the command gets. {p} is the project.
TEXT = {
    "folder": ("{p}/user", "{p}/project", "", "{p}/flag"),
    "remote_folder": ("/user", "/project", "", "/flag"),
    "include": (["user/"], ["project/"], "", "flag/"),
    "gpus": ("device=0", "1", "", "2"),
    "port": (1001, 1002, "", 1003),
    "mounts": (["{p}/user:/user"], ["{p}/project:/project"], "", "{p}/flag:/flag"),
    "env": ({"U": "user"}, {"P": "project"}, "", "F=flag"),
    "env_file": ("{p}/user/env", "{p}/project/env", "", "{p}/flag/env"),
    "logdir": ("user", "project", "", "flag"),
    "restart": ("always", "on-failure", "", "unless-stopped"),
    "memory": ("10g", "20g", "", "30g"),
    "pids_limit": ("100", "200", "", "300"),
    "cpus": ("1", "2.5", "", "3"),
    "shm_size": ("10g", "20g", "", "30g"),
    "ulimits": ({"stack": "1"}, {"stack": "2:3", "memlock": "unlimited"}, "", "stack=4"),
    "publish": (["7860"], ["7861:80", "7862"], "", "7863"),
    "network": ("user", "project", "", "flag"),
    "jupyter_options": (["--A.user=1"], ["--A.project=1", "--B.b=2"], "", "--A.flag=1"),
    "transfer": (True, False, "", ""),
    "pull": ("user.test/x", "project.test/x", "", "flag.test/x"),
    "base": ("registry", "archive", "registry", "archive"),
    "registry_mirror": ("user.test", "project.test", "variable.test", "flag.test"),
    "apt_mirror": ("http://user.test", "http://project.test", "", "http://flag.test"),
    "ca_cert": ("{p}/user/ca.pem", "{p}/project/ca.pem", "{p}/variable/ca.pem", "{p}/flag/ca.pem"),
}


def commands(command, words):
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, [*words, name])


def taken():
    """(words, command, parameter) of everything that has its default in the configuration."""
    for name in CONFIGURED:
        for words, command in commands(group.get_command(click.Context(group), name), [name]):
            for parameter in command.params:
                if parameter.name in PARAMETERS and words[-1] in ONLY_IN.get(parameter.name, words):
                    yield words, command, parameter


TAKEN = list(taken())


def filled(value, project):
    """A value of the table with the project in it."""
    if isinstance(value, str):
        return value.format(p=project)
    if isinstance(value, list):
        return [filled(item, project) for item in value]
    return value


def toml(key, value):
    if isinstance(value, dict):
        return f"{key} = {{ {', '.join(f'{name} = {json.dumps(text)}' for name, text in value.items())} }}\n"
    return f"{key} = {json.dumps(value)}\n"


def plain(value):
    """What a command got, to compare: paths and GPUs as they are written, several as a list."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, GpuRequest):
        return value.text
    return str(value) if isinstance(value, Path) else value


def as_parameter(key, value):
    return [f"{name}={text}" for name, text in value.items()] if key in ("env", "ulimits") else value


@pytest.mark.parametrize(
    ("words", "command", "parameter"), TAKEN, ids=[" ".join([*words, p.name]) for words, _, p in TAKEN]
)
def test_a_value_reaches_its_option_from_every_place(kit, monkeypatch, project, user_file, words, command, parameter):
    got = []
    monkeypatch.setattr(command, "callback", lambda *_, **values: got.append(plain(values[parameter.name])))
    arguments = ["tf-cpu" for p in command.params if isinstance(p, click.Argument) and p.required]
    key = PARAMETERS[parameter.name]
    by_user, by_project, by_variable, by_flag = (filled(value, project) for value in TEXT[key])

    def run(*flags):
        host = "gpu1" if parameter.name in ONLY_WITH_HOST else "local"
        result = kit("--host", host, *words, *flags, *arguments)
        assert result.code == 0, result.err
        return got.pop()

    default = run()
    user_file.write_text(toml(key, by_user))
    assert run() == as_parameter(key, by_user) != default
    (project / "kit.toml").write_text(toml(key, by_project))
    assert kit("config", "trust").code == 0
    if key in ("mounts", "env"):
        assert run() == as_parameter(key, by_user) + as_parameter(key, by_project)
    else:
        assert run() == as_parameter(key, by_project)
    if by_variable:
        assert parameter.envvar in KEYS[key].variables
        monkeypatch.setenv(parameter.envvar, by_variable)
        assert run() == by_variable
    if not parameter.is_flag:
        expected = [by_flag] if parameter.multiple else by_flag
        if isinstance(parameter, AddingOption):
            # Lists without names in them are each their file's, as a whole.
            above = [] if key == "include" else as_parameter(key, by_user)
            expected = [*above, *as_parameter(key, by_project), by_flag]
        assert run(parameter.opts[0], str(by_flag)) == expected


def test_every_key_has_a_use():
    used = {PARAMETERS[parameter.name] for _, _, parameter in TAKEN}
    assert set(PARAMETERS.values()) == set(TEXT)
    # These are asked for by name: by the global options, `kit ps --all-hosts`, `kit run` and what reaches the network.
    by_name = {"host", "hosts", "image", "index_url"}
    # And what a project's own environment is made of: kit/environment/declared.py.
    by_name |= {name for name, key in KEYS.items() if key.in_project}
    assert set(KEYS) - set(PARAMETERS.values()) == by_name
    assert used == set(PARAMETERS.values())


@pytest.mark.parametrize(("host", "expected"), [("local", [(), "", False]), ("gpu1", [("data/",), "/there", True])])
def test_what_is_said_of_a_host_counts_only_with_one(kit, monkeypatch, user_file, host, expected):
    user_file.write_text('include = ["data/"]\nremote_folder = "/there"\ntransfer = true\n')
    command = group.get_command(click.Context(group), "run")
    got = []
    monkeypatch.setattr(command, "callback", lambda *_, **values: got.append(values))
    assert kit("run", "--host", host, "tf-cpu").code == 0
    assert [got[0][name] for name in ONLY_WITH_HOST] == expected


@pytest.mark.parametrize("words", [["compose", "tf-cpu"], ["verify", "tf-cpu"], ["bench", "image", "tf-cpu"]])
def test_gpus_are_those_of_kit_run_alone(kit, monkeypatch, user_file, words):
    user_file.write_text('gpus = "free"\n')
    command = group.get_command(click.Context(group), words[0])
    for word in words[1:-1]:
        command = command.commands[word]
    got = []
    monkeypatch.setattr(command, "callback", lambda *_, **values: got.append(plain(values["gpus"])))
    assert kit(*words).code == 0
    assert kit(*words[:-1], "--gpus", "all", *words[-1:]).code == 0
    assert got == [None, "all"]


def test_a_command_can_ask_whether_a_value_is_configured(kit, monkeypatch, user_file):
    user_file.write_text('gpus = "free"\n')
    command = group.get_command(click.Context(group), "run")
    got = []
    monkeypatch.setattr(command, "callback", lambda *_, **__: got.append(is_configured("gpus")))
    for flags in ([], ["--gpus", "free"]):
        assert kit("run", *flags, "tf-cpu").code == 0
    assert got == [True, False]


def test_choices_are_those_of_the_options():
    for _, _, parameter in TAKEN:
        choices = KEYS[PARAMETERS[parameter.name]].choices
        assert isinstance(parameter.type, click.Choice) is bool(choices)
        if choices:
            assert tuple(parameter.type.choices) == choices


def test_the_word_for_this_machine_is_one():
    assert HERE == ("", LOCAL)


# Flags that add.


@pytest.fixture
def adding(monkeypatch):
    """`kit run` with two options that add, which prints what it gets."""

    @click.command("run")
    @click.option("-e", "variables", multiple=True, cls=AddingOption)
    @click.option("--mount", "mounts", multiple=True, cls=AddingOption)
    @host_option
    def command(**values):
        click.echo(json.dumps(values))

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)


@pytest.mark.parametrize(
    ("flags", "variables", "mounts"),
    [
        ([], ["A=1", "B=2"], ["{p}/user:/u", "{p}/project:/p:ro"]),
        (["-e", "C=3"], ["A=1", "B=2", "C=3"], ["{p}/user:/u", "{p}/project:/p:ro"]),
        (["-e", "A=3", "-e", "A=4"], ["B=2", "A=3", "A=4"], ["{p}/user:/u", "{p}/project:/p:ro"]),
        (["--mount", "/x:/p"], ["A=1", "B=2"], ["{p}/user:/u", "/x:/p"]),
        (["--mount", "/x:/u/:ro"], ["A=1", "B=2"], ["{p}/project:/p:ro", "/x:/u/:ro"]),
        (["--mount", "/x=:/y"], ["A=1", "B=2"], ["{p}/user:/u", "{p}/project:/p:ro", "/x=:/y"]),
        (["--mount", "wrong"], ["A=1", "B=2"], ["{p}/user:/u", "{p}/project:/p:ro", "wrong"]),
    ],
)
def test_variables_and_mounts_of_a_call_add_to_those_of_the_files(kit, adding, project, flags, variables, mounts):
    (project / "kit.toml").write_text('mounts = ["user:/u", "project:/p:ro"]\nenv = { A = "1", B = 2 }\n')
    result = kit("run", *flags)
    assert json.loads(result.out) == {"variables": variables, "mounts": filled(mounts, project)}


def test_without_files_the_flags_are_all(kit, adding, project):
    assert json.loads(kit("run", "-e", "A=b").out) == {"variables": ["A=b"], "mounts": []}


@pytest.mark.parametrize("words", [["--host", "gpu1", "run"], ["run", "--host", "gpu1"], ["run", "-e", "A=b"]])
def test_on_a_host_the_source_of_a_mount_is_a_path_there(kit, adding, project, user_file, monkeypatch, words):
    if "--host" not in words:
        monkeypatch.setenv("KIT_HOST", "gpu1")
    user_file.write_text('mounts = ["/not/here:/data:ro", "~/not-here:/more"]\n')
    assert json.loads(kit(*words).out)["mounts"] == ["/not/here:/data:ro", "~/not-here:/more"]
    user_file.write_text('mounts = ["beside:/data"]\n')
    result = kit(*words)
    assert result.code == 2
    assert result.err.startswith(f"error: {user_file}:1: `mounts`: `beside` is beside the file, which is not on gpu1\n")
    assert json.loads(kit(*words, "--mount", "/x:/data", "--host", "local").out)["mounts"] == ["/x:/data"]


def test_where_the_host_stands_among_the_options_does_not_matter(kit, adding, user_file):
    user_file.write_text('mounts = ["/not/here:/data"]\n')
    for words in (["--mount", "/x:/y", "--host", "gpu1"], ["--host", "gpu1", "--mount", "/x:/y"]):
        assert json.loads(kit("run", *words).out)["mounts"] == ["/not/here:/data", "/x:/y"]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ('mounts = ["none:/x"]', "`mounts`: there is no {p}/none"),
        ('ca_cert = "none.pem"', "`ca_cert`: there is no {p}/none.pem"),
        ('folder = "none"', "`folder`: there is no {p}/none"),
    ],
)
def test_a_path_that_is_not_there_is_refused_where_it_is_used(kit, project, text, missing):
    (project / "kit.toml").write_text(f"\n{text}\n")
    assert kit("config", "trust").code == 0
    result = kit("run", "tf-cpu", "true")
    assert result.code == 2
    assert f"error: {project}/kit.toml:2: {missing.format(p=project)}\n" in result.err
    assert kit("list").code == 0


# The host.


def asked_host(monkeypatch, kit, *words):
    """What a command that works on another machine takes for it, and what kit printed."""
    got = []

    @click.command()
    @host_option
    @click.pass_obj
    def command(options):
        got.append((options.host, options.host))

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)
    result = kit(*words)
    assert result.code == 0, result.err
    return got[0][0], result.err


@pytest.mark.parametrize(
    ("user", "project_says", "variable", "words", "host"),
    [
        ("", "", "", ["ps"], ""),
        ("u", "", "", ["ps"], "u"),
        ("u", "p", "", ["ps"], "p"),
        ("u", "local", "", ["ps"], ""),
        ("u", "p", "v", ["ps"], "v"),
        ("u", "p", "local", ["ps"], ""),
        ("u", "p", "v", ["--host", "f", "ps"], "f"),
        ("u", "p", "v", ["ps", "--host", "f"], "f"),
        ("u", "p", "v", ["--host", "f", "ps", "--host", "g"], "g"),
        ("u", "p", "v", ["--host", "local", "ps"], ""),
        ("u", "p", "v", ["--host", "", "ps"], ""),
        ("u", "p", "v", ["--host", "f", "ps", "--host", "local"], ""),
        ("u", "p", "v", ["--host", "f", "ps", "--host", ""], ""),
        ("", "", "", ["--host", "user@local", "ps"], "user@local"),
    ],
)
def test_the_host_is_the_flags_then_the_variables_then_the_files(
    kit, monkeypatch, project, user_file, user, project_says, variable, words, host
):
    user_file.write_text(f'host = "{user}"\n' if user else "")
    (project / "kit.toml").write_text(f'host = "{project_says}"\n' if project_says else "")
    if project_says:
        assert kit("config", "trust").code == 0
    monkeypatch.setenv("KIT_HOST", variable)
    assert asked_host(monkeypatch, kit, *words) == (host, "")


@pytest.mark.parametrize("name", LOCAL_COMMANDS)
def test_a_command_for_this_machine_ignores_a_configured_host_and_refuses_one_that_is_asked_for(
    kit, monkeypatch, project, name
):
    (project / "kit.toml").write_text('host = "gpu1"\n')

    @click.command()
    def command():
        click.echo("here")

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)
    for words in ([], ["--host", "local"], ["--host", ""]):
        result = kit(*words, name)
        assert (result.code, result.out, result.err) == (0, "here\n", "")
    assert kit("--host", "gpu1", name).code == 2
    monkeypatch.setenv("KIT_HOST", "gpu1")
    result = kit(name)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: `kit {name}` works on this machine only")
    monkeypatch.setenv("KIT_HOST", "local")
    assert kit(name).code == 0


# Wrong files.


@pytest.mark.parametrize("words", [["ps"], ["run", "tf-cpu", "true"], ["build", "tf-cpu"], ["doctor"]])
def test_commands_that_use_the_configuration_end_with_the_reason(kit, project, docker_ps, words):
    (project / "kit.toml").write_text("hots = 1\n")
    result = kit(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"error: {project}/kit.toml:1: unknown key `hots`\nhint: did you mean `hosts`?\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["show", "tf-cpu"],
        ["explain", "--list"],
        ["config", "path"],
        ["config", "--help"],
        *([name, "--help"] for name in CONFIGURED if name != "base"),
        ["bench", "image", "--help"],
        ["base", "make", "--help"],
    ],
)
def test_a_wrong_file_does_not_disturb_what_needs_none(kit, project, monkeypatch, words):
    help_page = kit(*words).out
    (project / "kit.toml").write_text("nonsense\n")
    monkeypatch.setenv("KIT_CONFIG", "none")
    result = kit(*words)
    if words != ["config", "path"]:
        assert (result.code, result.out) == (0, help_page)
    assert "nonsense" not in result.err


def test_help_says_the_same_whatever_is_configured(kit, project):
    before = kit("run", "--help")
    (project / "kit.toml").write_text('base = "archive"\nlogdir = "elsewhere"\nhost = "gpu1"\n')
    assert kit("run", "--help") == before


# kit config.


def test_show_lists_every_key_with_its_value_and_where_it_is_from(kit, project, user_file, monkeypatch):
    user_file.write_text('host = "gpu1"\nca_cert = "~/ca.pem"\n[env]\nA = "b"\nHF_TOKEN = "hunter2"\n')
    (project / "kit.toml").write_text('gpus = 2\nindex_url = "https://me:hunter2@mirror.test/"\ntransfer = true\n')
    monkeypatch.setenv("KIT_BASE", "archive")
    result = kit("config", "show")
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["KEY", "VALUE", "FROM"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert rows["host"] == ["gpu1", "~/.config/kit/config.toml:1"]
    assert rows["ca_cert"] == ["~/ca.pem", "~/.config/kit/config.toml:2"]
    assert rows["env.A"] == ["b", "~/.config/kit/config.toml:4"]
    assert rows["env.HF_TOKEN"] == ["***", "~/.config/kit/config.toml:5"]
    assert rows["gpus"] == ["2", f"{project}/kit.toml:1"]
    assert rows["index_url"] == ["https://***@mirror.test/", f"{project}/kit.toml:2"]
    assert rows["transfer"] == ["true", f"{project}/kit.toml:3"]
    assert rows["base"] == ["archive", "KIT_BASE"]
    assert rows["port"] == ["-", "default"]
    assert list(dict.fromkeys(name if name in KEYS else name.rpartition(".")[0] for name in rows)) == list(KEYS)


def test_show_as_json(kit, project, user_file, monkeypatch):
    user_file.write_text('hosts = ["a", "b"]\nmounts = ["/x:/y:ro"]\n[env]\nA = "https://a:hunter2@b"\n')
    (project / "kit.toml").write_text("port = 8890\ntransfer = false\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:hunter2@mirror.test/")
    for words in (["config", "show", "--json"], ["--json", "config", "show"]):
        result = kit(*words)
        assert (result.code, result.err) == (0, "")
        assert "hunter2" not in result.out
        found = json.loads(result.out)
        rows = {row["key"]: row for row in found["settings"]}
        assert (found["user_file"], found["project_file"]) == (str(user_file), f"{project}/kit.toml")
        assert (found["user_file_exists"], found["not_read"], found["problems"]) == (True, [], [])
        assert rows["hosts"] == {
            "key": "hosts",
            "value": ["a", "b"],
            "source": "user",
            "where": str(user_file),
            "line": 1,
        }
        assert rows["mounts"]["value"] == "/x:/y:ro"
        assert rows["port"]["value"] == 8890
        assert rows["transfer"] == {
            "key": "transfer",
            "value": False,
            "source": "project",
            "where": f"{project}/kit.toml",
            "line": 2,
        }
        assert (rows["index_url"]["source"], rows["index_url"]["where"]) == ("environment", "PIP_INDEX_URL")
        assert rows["image"] == {"key": "image", "value": None, "source": "default", "where": "", "line": None}


def test_show_prints_what_is_right_then_what_is_wrong(kit, project, user_file):
    user_file.write_text('image = "torch"\n')
    (project / "kit.toml").write_text("host = gpu1\n")
    result = kit("config", "show")
    assert result.code == 2
    assert ["image", "torch", "~/.config/kit/config.toml:1"] in [line.split() for line in result.out.splitlines()]
    assert result.err.startswith(f"error: {project}/kit.toml:1: not valid TOML: ")
    result = kit("config", "show", "--json")
    assert result.code == 2
    assert json.loads(result.out)["problems"][0].startswith(f"{project}/kit.toml:1: not valid TOML: ")


def test_show_says_what_the_project_has_of_its_own(kit, project):
    (project / "kit.toml").write_text(
        '[environment]\nimage = "torch"\npackages = [\n  "einops>=0.8",\n]\nproject = true\nports = [6006]\n'
        '[environment.env]\nA = "b"\nHF_TOKEN = "hunter2"\n'
    )
    result = kit("config", "show")
    assert (result.code, result.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()}
    assert rows["environment.image"] == ["torch", f"{project}/kit.toml:2"]
    assert rows["environment.packages"] == ["einops>=0.8", f"{project}/kit.toml:3"]
    assert rows["environment.project"] == ["true", f"{project}/kit.toml:6"]
    assert rows["environment.ports"] == ["6006", f"{project}/kit.toml:7"]
    assert rows["environment.env.A"] == ["b", f"{project}/kit.toml:9"]
    assert rows["environment.env.HF_TOKEN"] == ["***", f"{project}/kit.toml:10"]
    assert rows["environment.check"] == ["-", "default"]


def test_an_environment_is_of_one_project(kit, user_file):
    user_file.write_text('[environment]\nimage = "torch"\n')
    result = kit("config", "show")
    assert result.code == 2
    assert f"{user_file}:2: `environment.image` is of a project" in result.err
    assert "write it into kit.toml in the project's folder" in result.err


def test_show_says_which_file_was_passed_over(kit, monkeypatch):
    monkeypatch.chdir(Path.home())
    (Path.home() / "kit.toml").write_text('host = "gpu1"\n')
    for words in (["config", "show"], ["config", "path"]):
        result = kit(*words)
        assert result.code == 0
        assert result.err.startswith(f"not read: {Path.home()}/kit.toml: the home folder is no project")


def test_path_says_where_the_files_are(kit, project, user_file):
    assert kit("config", "path").out == f"user     {user_file}  (not there)\nproject  none\n"
    user_file.write_text("")
    (project / "kit.toml").write_text("nonsense\n")
    assert kit("config", "path").out == f"user     {user_file}\nproject  {project}/kit.toml\n"
    assert json.loads(kit("config", "path", "--json").out) == {
        "user_file": str(user_file),
        "user_file_exists": True,
        "project_file": f"{project}/kit.toml",
        "not_read": [],
    }


# Cost.


def test_without_a_file_nothing_that_reads_one_is_loaded(project):
    """Every command pays for it: what is imported must stay little."""
    code = "import sys; from kit.cli.options import Options; Options().host; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert {"kit.config", "kit.config.files"} <= loaded
    assert not {"kit.config.settings", "kit.config.keys", "tomllib", "tomli", "difflib"} & loaded


def test_options_made_by_hand_read_the_configuration_too(project, user_file):
    user_file.write_text('host = "gpu1"\n')
    assert Options().host == "gpu1"
    assert Options(asked_host="local").host == ""


def test_a_name_that_is_no_setting_has_no_default():
    with click.Context(click.Command("run"), obj=Options()):
        assert "words" not in Defaults()
        assert Defaults().get("words", 1) == 1


def test_show_has_no_secret_in_it(kit, project):
    names = ("PASSPHRASE", "PGPASS", "SSH_PRIV", "SESSION_COOKIE", "WANDB_API_KEY")
    values = {"INDEX": "https://mirror.test/x?token=hunter2", "PROXY": "http://me:p@hunter2@proxy.test"}
    lines = [f'{name} = "hunter2"' for name in names] + [f'{name} = "{value}"' for name, value in values.items()]
    (project / "kit.toml").write_text(
        'index_url = "https://me:p@hunter2@mirror.test/simple"\npull = "registry.test/x?token=hunter2"\n'
        'registry_mirror = "me:p@hunter2@mirror.test"\n[env]\n' + "\n".join(lines) + "\n"
    )
    for words in (["config", "show"], ["--json", "config", "show"], ["config", "trust"], ["run", "tf-cpu", "true"]):
        result = kit(*words)
        assert "hunter2" not in result.out + result.err
        assert "***" in result.out + result.err or words[0] == "run"
