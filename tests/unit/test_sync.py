"""What is sent and where to, without a host: git's rules as rsync's, names, places, records, and reading rsync."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.errors import BadInputError, DiskFullError, KitError, MissingProgramError, NetworkError
from kit.remote import sync
from kit.remote.ssh import Account, Connection
from kit.remote.sync import ignored, place, scripts, watch
from kit.remote.sync.place import Record, Version
from kit.remote.sync.rsync import (
    Observer,
    Rsync,
    Transfer,
    _Reader,
    check,
    escaped,
    in_bytes,
    in_line,
    unescaped,
)

needs_programs = pytest.mark.skipif(
    not (shutil.which("rsync") and shutil.which("git")), reason="needs rsync and git: install them"
)
HERE = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
CONNECTION = Connection(
    target="lab",
    address="lab",
    folder=Path("/nowhere"),
    account=Account(user="ada", uid=1000, gid=1000, home="/home/ada", hostname="server"),
)


def git(folder, *args, code=0, input=None):
    done = subprocess.run(
        ["git", *args], cwd=folder, env=HERE, capture_output=True, timeout=60, check=False, input=input
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def sent(folder):
    """The files that rsync would send, by the rules for it."""
    with ignored.read(folder) as tree, tempfile.NamedTemporaryFile() as rules:
        rules.write(b"".join(os.fsencode(rule) + b"\0" for rule in tree.rules()))
        rules.flush()
        printed = subprocess.run(
            [
                "rsync",
                "-rln",
                "--from0",
                f"--exclude-from={rules.name}",
                "--exclude=.git",
                "--out-format=%i %n",
                "./",
                "/x/",
            ],
            cwd=folder,
            env=HERE,
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout.decode()
    lines = [line.partition(" ")[2] for line in printed.splitlines() if line[:2] in ("<f", ">f", "cL")]
    return {unescaped(line.partition(" -> ")[0]) for line in lines}


TABLE = {
    "name anywhere": ({".gitignore": "x\n"}, {"x", "d/x", "d/e/x/y"}, {"xx", "d/ax"}),
    "only at the top": ({".gitignore": "/x\n"}, {"x"}, {"d/x"}),
    "only folders": ({".gitignore": "x/\n"}, {"x/a", "d/x/a"}, {"e/x"}),
    "ending": ({".gitignore": "*.pt\n"}, {"a.pt", "d/b.pt"}, {"pt", "a.ptx"}),
    "exception": ({".gitignore": "*.pt\n!keep.pt\n"}, {"a.pt"}, {"keep.pt", "d/keep.pt"}),
    "exception in an ignored folder": ({".gitignore": "d/\n!d/keep\n"}, {"d/keep", "d/x"}, {"e"}),
    "contents but one": ({".gitignore": "d/*\n!d/keep\n"}, {"d/x", "d/e/y"}, {"d/keep"}),
    "nested file": ({".gitignore": "a\n", "d/.gitignore": "!a\nb\n"}, {"a", "d/b", "e/a"}, {"d/a", "b"}),
    "double star": ({".gitignore": "a/**/z\n**/q/w\n"}, {"a/z", "a/b/c/z", "e/q/w"}, {"z", "q/x"}),
    "character class": ({".gitignore": "[ab]?.txt\n"}, {"a1.txt", "b2.txt"}, {"c1.txt", "a.txt"}),
    "escaped": ({".gitignore": "\\#x\n\\!y\nz\\ \n"}, {"#x", "!y", "z "}, {"x", "y", "z"}),
    "wildcards in names": ({".gitignore": "\\*\nq\\?/\n"}, {"*", "d/*", "q?/a"}, {"b", "qq/a", "d/x"}),
    "comments and blanks": ({".gitignore": "# x\n\nb  \n"}, {"b"}, {"x", "# x"}),
    "exclude file": ({".git/info/exclude": "secret\n"}, {"secret"}, {"other"}),
    "everything but": ({".gitignore": "*\n!*.py\n!*/\n!.gitignore\n"}, {"a.txt", "d/b.txt"}, {"a.py", "d/c.py"}),
}


@needs_programs
@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("is_repository", [True, False])
def test_what_git_ignores_is_not_sent(tmp_path, name, is_repository):
    rules, left_out, expected = TABLE[name]
    if is_repository:
        git(tmp_path, "init", "-q")
    elif any(file.startswith(".git/") for file in rules):
        pytest.skip("is of a repository")
    write(tmp_path, rules | dict.fromkeys(left_out | expected, ""))
    assert sent(tmp_path) == expected | {file for file in rules if not file.startswith(".git/")}


@needs_programs
def test_a_global_rule_counts(tmp_path):
    write(Path.home(), {".config/git/ignore": "*.swp\n"})
    write(tmp_path, {"a.swp": "", "b": ""})
    assert sent(tmp_path) == {"b"}


@needs_programs
def test_a_file_git_knows_is_sent_though_a_rule_matches_it(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, {".gitignore": "logs/\n*.pt\n", "logs/known": "", "logs/other": "", "known.pt": "", "x.pt": ""})
    git(tmp_path, "add", "-f", "logs/known", "known.pt")
    assert sent(tmp_path) == {".gitignore", "logs/known", "known.pt"}


@needs_programs
def test_a_folder_in_a_repository_has_the_rules_above_it(tmp_path):
    git(tmp_path, "init", "-q")
    write(
        tmp_path, {".gitignore": "*.log\n/sub/build/\n", "sub/a.log": "", "sub/build/x": "", "sub/b": "", "sub/d/b": ""}
    )
    assert sent(tmp_path / "sub") == {"b", "d/b"}


@needs_programs
@pytest.mark.parametrize("rule", ["*\n", "sub/\n"])
def test_a_folder_that_the_repository_around_it_ignores_has_its_own_rules(tmp_path, rule):
    git(tmp_path, "init", "-q")
    write(tmp_path, {".gitignore": rule, "sub/a": "", "sub/b.log": "", "sub/.gitignore": "*.log\n"})
    assert sent(tmp_path / "sub") == {"a", ".gitignore"}


@needs_programs
def test_repositories_in_the_folder_have_their_own_rules(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, {".gitignore": "*.log\n", "a.log": "", "deep/er/inner/.gitignore": "*.pt\n"})
    write(tmp_path, {"deep/er/inner/a.log": "", "deep/er/inner/a.pt": "", "deep/er/inner/x/b": ""})
    write(tmp_path, {"module/.gitignore": "*.pt\n", "module/a.pt": "", "module/a.log": ""})
    git(tmp_path / "deep/er/inner", "init", "-q")
    git(tmp_path / "module", "init", "-q")
    git(tmp_path / "module", "add", ".gitignore")
    git(tmp_path / "module", "-c", "user.email=a@b", "-c", "user.name=a", "commit", "-qm", "one")
    git(tmp_path, "add", "module")  # as a submodule, by its commit
    inner = {f"deep/er/inner/{name}" for name in (".gitignore", "a.log", "x/b")}
    assert sent(tmp_path) == {".gitignore", "module/.gitignore", "module/a.log", *inner}
    with ignored.read(tmp_path) as tree:
        asked = ["b.log", "deep/er/inner/b.log", "deep/er/inner/b.pt", "module/b.pt", "b.pt", "module/b.log"]
        assert tree.among(asked) == {"b.log", "deep/er/inner/b.pt", "module/b.pt"}
    shutil.rmtree(tmp_path / "module")
    write(tmp_path, {"module/new": ""})
    with ignored.read(tmp_path) as tree:
        assert tree.among(["module/b.log", "module/b"]) == set()


@needs_programs
def test_what_is_not_here_is_asked_about_too(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, {".gitignore": "runs/\n*.pt\n/only\n"})
    with ignored.read(tmp_path) as tree:
        names = ["runs/", "runs/1/a", "a.pt", "d/é\n.pt", "only", "d/only", "a", "d/"]
        assert tree.among(names) == {"runs/", "runs/1/a", "a.pt", "d/é\n.pt", "only"}
        assert tree.among([]) == set()


@needs_programs
def test_a_git_hook_s_variables_are_not_in_the_way(tmp_path, monkeypatch):
    write(tmp_path, {"other/a": "", "mine/.gitignore": "x\n", "mine/x": "", "mine/y": ""})
    git(tmp_path / "other", "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nothing"))
    assert sent(tmp_path / "mine") == {".gitignore", "y"}


@needs_programs
def test_many_ignored_files_are_few_rules(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, {".gitignore": "*.npy\n__pycache__/\nodd*\n!odd7\n- x\n", "keep.pyc": "", "d1/odd7": "", "- x": ""})
    for number in range(100):
        write(tmp_path, {f"d{number}/{number}.npy": "", f"d{number}/code.py": "", f"d{number}/__pycache__/a.pyc": ""})
        write(tmp_path, {f"d{number}/odd{number % 9}": ""})
    with ignored.read(tmp_path) as tree:
        assert len(tree.ignored) > 250
        assert len(tree.rules()) < 15
    odd = {f"d{n}/odd7" for n in range(100) if n % 9 == 7}
    assert sent(tmp_path) == {".gitignore", "keep.pyc", "d1/odd7"} | odd | {f"d{n}/code.py" for n in range(100)}


NAMES = st.sampled_from(["a", "b", "a.x", "b.x", "*", "a b", "[a]", "a\\b", "é", "?", "-x", "# c", "a\nb", " "])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PATTERNS = st.sampled_from(
    [
        "a",
        "/a",
        "a/",
        "*.x",
        "!a.x",
        "!a",
        "b/*",
        "!b/a",
        "**/a",
        "a/**",
        "\\*",
        "[ab]",
        "?",
        "!*/",
        "*",
        "\\[a\\]",
        "é",
    ]
)


@needs_programs
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.sets(PATHS, min_size=1, max_size=12),
    rules=st.lists(PATTERNS, max_size=4),
    nested=st.lists(PATTERNS, max_size=2),
    few=st.booleans(),
)
def test_any_rules_are_taken_as_git_takes_them(tmp_path_factory, monkeypatch, paths, rules, nested, few):
    monkeypatch.setattr(ignored, "FEW_RULES", 0 if few else 50)
    folder = tmp_path_factory.mktemp("any")
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("".join(f"{rule}\n" for rule in rules))
    for path in sorted(paths, key=len):
        try:
            write(folder, {path: ""})
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            continue
    if (folder / "a").is_dir():
        (folder / "a" / ".gitignore").write_text("".join(f"{rule}\n" for rule in nested))
    known = git(folder, "ls-files", "-z", "--others", "--exclude-standard").split(b"\0")
    assert sent(folder) == {os.fsdecode(name) for name in known if name}
    shutil.rmtree(folder)


def test_git_s_quoting_is_undone():
    for name in ('a"b', "tab\t", "new\nline", "é", "back\\slash", "\x01", os.fsdecode(b"\xff")):
        raw = os.fsencode(name)
        quoted = '"' + "".join(f"\\{byte:03o}" for byte in raw) + '"'
        assert ignored._unquoted(quoted) == name
    assert ignored._unquoted('"\\t\\n\\"\\\\ \\303\\251"') == '\t\n"\\ é'
    assert ignored._unquoted("plain name") == "plain name"


@given(st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw))
def test_names_survive_rsync_s_way_to_print_them(raw):
    name = os.fsdecode(raw)
    assert unescaped(escaped(name)) == name
    assert re.fullmatch(r"[ -~]+", escaped(name))
    assert in_line(name).isprintable() or "\\" in in_line(name)


def test_the_place_has_a_name_to_find_it_by(tmp_path):
    def name(folder, **changes):
        return place.find(CONNECTION, Path(folder), **changes).remote_folder

    assert re.fullmatch(r"/home/ada/kit-workspaces/project-[0-9a-f]{8}", name("/x/project"))
    assert name("/x/project") == name("/x/project") == sync.remote_folder(CONNECTION, Path("/x/project"))
    assert name("/x/project") != name("/y/project")
    for folder, shown in (
        ("/x/a b;c'd\n$e", "a-b-c-d--e"),
        ("/x/-rf", "rf"),
        ("/x/..hidden", "hidden"),
        ("/", "folder"),
    ):
        assert name(folder).rpartition("/")[2].rpartition("-")[0] == shown
    assert "/项目-" in name("/x/项目")
    assert len(os.fsencode(name("/x/" + "项" * 80).rpartition("/")[2])) < 80
    assert name("/x/" + os.fsdecode(b"\xff")).isprintable()
    assert name("/x/project", remote_folder="~/runs//1/") == "/home/ada/runs/1"
    assert place.find(CONNECTION, Path("/x/project"), "~/runs").beside != name("/x/project")


@pytest.mark.parametrize("given", ["runs", "~", "/home/ada", "/home", "//", "/home/ada/x/..", "~bob/x", "/a\nb"])
def test_a_place_that_cannot_be_meant(given):
    with pytest.raises(BadInputError):
        place.find(CONNECTION, Path("/x"), given)


def test_another_machine_of_the_same_name_has_another_place(tmp_path, monkeypatch):
    first = sync.remote_folder(CONNECTION, Path("/x/project"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert sync.remote_folder(CONNECTION, Path("/x/project")) != first


def test_the_last_line_of_a_name_counts(tmp_path, monkeypatch):
    record = Record(tmp_path / "record")
    assert record.find("a") is None
    record.add([("a", Version(size=1, changed="2026/01/01-00:00:00")), ("b a", Version(size=3, changed="x"))])
    record.add([("a", Version(size=2, changed="2026/01/02-00:00:00"))])
    assert record.find("a") == Version(size=2, changed="2026/01/02-00:00:00")
    assert record.find("b") is None
    assert record.names() == ["a", "b a"]
    monkeypatch.setattr(place, "LONG_RECORD_BYTES", 10)
    for number in range(10):
        record.add([("a", Version(size=number, changed="x"))])
    assert len((tmp_path / "record").read_text().splitlines()) < 6
    assert (record.find("a"), record.find("b a")) == (Version(size=9, changed="x"), Version(size=3, changed="x"))
    (tmp_path / "record").write_text("a\t1")  # of a process that was killed
    assert Record(tmp_path / "record").find("a") is None
    Record(None).add([("a", Version(size=1, changed="x"))])
    assert Record(None).find("a") is None


def test_what_rsync_prints_is_read():
    told = []
    observer = Observer(status=told.append, note=told.append)
    done = Transfer()
    reader = _Reader(done, observer)
    for line in (
        "@<f+++++++++ 25000 2026/11/21-17:33:54 a \\#303\\#251//",
        "@.f...p..... 5 2026/11/21-17:33:54 only its rights//",
        "@cd+++++++++ 4096 2026/11/21-17:33:54 d///",
        "@cL+++++++++ 4 2026/11/21-17:33:54 l// -> k",
        "@*deleting   0 1970/01/01-00:00:00 gone///",
        "d/x is newer",
        "\r         32768   0%    0.00kB/s    0:00:00  \r     25006  41%    7.95MB/s    0:00:02 (xfr#3, to-chk=1/4)",
        "@@kit is 0123abcd",
        "@@kit was 5 1577836800 ./d/ünder x",
        "@@kit clock 12",
        "Number of files: 4 (reg: 1, dir: 2, link: 1)",
        "Literal data: 510 bytes",
        "Total transferred file size: 25000 bytes",
        "sent 165 bytes  received 45 bytes  420.00 bytes/sec",
        "-rw-r--r--           2 2026/11/21 17:33:54 d/z",
        "",
        'rsync: [sender] send_files failed to open "/x/y": Permission denied (13)',
    ):
        reader.line(line)
    assert [(i.kind, i.is_new, i.is_sent, i.name, i.target) for i in done.items] == [
        ("f", True, True, "a \\#303\\#251", ""),
        ("f", False, False, "only its rights", ""),
        ("d", True, False, "d/", ""),
        ("L", True, True, "l", "k"),
        ("*", False, False, "gone/", ""),
    ]
    assert done.newer == ["d/x"]
    assert (done.identity, done.literal_bytes, done.transferred_bytes) == ("0123abcd", 510, 25000)
    assert done.replaced == {escaped("d/ünder x"): Version(size=5, changed="2020/01/01-00:00:00")}
    assert done.listed == {"d/z": Version(size=2, changed="2026/11/21-17:33:54")}
    assert done.complaints == ['rsync: [sender] send_files failed to open "/x/y": Permission denied (13)']
    assert told == ["0%  33 KB  0.00kB/s  0:00:00", "41%  25 KB  7.95MB/s  0:00:02", "clock 12"]


RSYNC = Rsync(connection=CONNECTION, folder=Path("/x/project"), place=place.Place(
    remote_folder="/home/ada/there", beside="/home/ada/kit-workspaces/project-0", origin="")
)  # fmt: skip
CLOSED = "rsync: connection unexpectedly closed ({} bytes received so far) [sender]"
PROBLEMS = [
    (11, 'rsync: [receiver] write failed on "/a": No space left on device (28)', DiskFullError, "on lab"),
    (23, 'rsync: [receiver] mkstemp "/a" failed: Disk quota exceeded (122)', DiskFullError, "on lab"),
    (12, "no-rsync", MissingProgramError, "on lab"),
    (3, "unmade\nmkdir: cannot create directory '/a': Permission denied", BadInputError, "cannot be made"),
    (1, "rsync: --info=stats2: unknown option (1)\n[client=3.0.9]", MissingProgramError, "here is too old"),
    (12, "rsync: --info=stats2: unknown option\n" + CLOSED.format(0), MissingProgramError, "on lab is too old"),
    (12, "client_loop: send disconnect: Broken pipe\n" + CLOSED.format(712), NetworkError, "lost while"),
    (255, "ssh: connect to host lab port 22: Connection refused\n" + CLOSED.format(0), NetworkError, "refuses"),
    (23, 'rsync: [sender] opendir "/x/project/d" failed: Permission denied (13)', KitError, "1 file could not be sent"),
    (20, "rsync error: received SIGINT", KitError, "exit code 20"),
]


@pytest.mark.parametrize(("code", "text", "kind", "said"), PROBLEMS)
def test_why_rsync_failed(code, text, kind, said):
    with pytest.raises(KitError, match=said) as caught:
        check(RSYNC, Transfer(code=code, complaints=text.splitlines()), to_host=True)
    assert type(caught.value) is kind


def test_files_that_failed_are_named_and_few():
    lines = [
        f'rsync: [sender] send_files failed to open "/x/project/d/\\#303\\#251{n}": Permission denied (13)'
        for n in range(20)
    ]
    lines += ['rsync: [receiver] mkstemp "/home/ada/there/(28).x" failed: Permission denied (13)']
    with pytest.raises(KitError, match="21 files could not be sent to lab") as caught:
        check(RSYNC, Transfer(code=23, complaints=lines), to_host=True)
    assert caught.value.details[0] == "d/é0: Permission denied"
    assert caught.value.details[-1] == "… and 13 more"
    assert "chmod" in caught.value.hint
    check(RSYNC, Transfer(code=24, complaints=["file has vanished"]), to_host=True)


@pytest.mark.parametrize("script", [scripts.RECEIVE, scripts.RECEIVE_DRY, scripts.SEND])
def test_the_scripts_suit_any_login_shell(script):
    assert "'" not in script
    assert "\n" not in script
    assert "!" not in script.replace("if ! ", "").replace("|| ! ", "")
    subprocess.run(["sh", "-n", "-c", script], check=True, timeout=20)


def test_clocks_that_differ_are_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("kit.remote.sync.watch.time.time", lambda: 10_000.0)
    seen = watch.Watch(RSYNC, None, sync.Progress(message=said.append))
    for seconds in (10_030, 9_950, 13_600, 6_400):
        seen.note(f"clock {seconds}")
    assert [re.sub(r":.*", "", line) for line in said] == [
        "the clock of lab is 60 minutes ahead",
        "the clock of lab is 60 minutes behind",
    ]


def test_a_large_first_time_is_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(watch, "LARGE_BYTES", 5)
    write(tmp_path, {"a": "123", "d/b": "456", ".git/x": "9" * 50, "out/c": "7" * 50})
    tree = ignored.Tree(
        folder=tmp_path,
        repositories=(ignored.Repository(prefix="", git=(), ignored=("out/",), known=""),),
        problem="",
    )
    rsync = Rsync(connection=CONNECTION, folder=tmp_path, place=RSYNC.place)
    watch.Watch(rsync, tree, sync.Progress(message=said.append)).note("new")
    assert said == ["6 bytes in 2 files are sent this first time; what .gitignore names stays here"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 KB"), (25_000, "25 KB"), (5e9, "5.0 GB"), (2e12, "2.0 TB")],
)
def test_sizes(size, text):
    assert in_bytes(size) == text
