"""What git would ignore in a folder, asked of git itself: nested files, exceptions and global rules count as in git.

A repository's own configuration can make git run programs and read any file, and a stranger or a job may have written
it. So git is shown a git directory of kit's, with the repository's index and exclude file, and no configuration.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit import files, process
from kit.errors import BadInputError, CommandError, MissingProgramError
from kit.frozen import dataclass

TIMEOUT_S = 300
TIMED_OUT = 124
# When git takes longer than this, it may be waiting for a pipe.
PATIENCE_S = 10.0
# More rules than this are worth the time it takes to make fewer of them: rsync tries each on each file.
FEW_RULES = 50
# Set where a git hook runs; they would make git look at another folder.
_GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX")
_ENVIRONMENT = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
_C_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository in the folder (or around it), or what stands for one: where, and how git is asked."""

    prefix: str  # of its files in the folder, ending in "/"; empty for the folder's own
    git: tuple[str, ...]
    ignored: tuple[str, ...]  # all paths are relative to the folder synced; those of folders end in "/"
    known: str  # what git printed of the files that it knows or would take

    def kept(self) -> Iterator[str]:
        return (_known(self.prefix, line)[0] for line in self.known.splitlines())


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A folder with the repositories in it, the innermost last."""

    folder: Path
    repositories: tuple[Repository, ...]
    problem: str  # why git does not take the folder for a repository although it looks like one; empty when all is well

    @property
    def ignored(self) -> list[str]:
        return [path for repository in self.repositories for path in repository.ignored]

    def rules(self) -> list[str]:
        """rsync's exclude rules for what is ignored: no more and no less than that, in this folder as it is now."""
        ignored = self.ignored
        if len(ignored) <= FEW_RULES:
            return [anchored(path) for path in ignored]
        return _fewer(ignored, (path for repository in self.repositories for path in repository.kept()))

    def among(self, names: Sequence[str]) -> set[str]:
        """Those of these paths, which need not exist here, that git would ignore; folders end in "/"."""
        found: set[str] = set()
        left = list(names)
        for repository in reversed(self.repositories):
            mine = [name for name in left if name.startswith(repository.prefix)]
            left = [name for name in left if not name.startswith(repository.prefix)]
            found |= _among(self.folder, repository, mine)
        return found


@contextlib.contextmanager
def read(folder: Path) -> Iterator[Tree | None]:
    """What git ignores in a folder, which need not be a repository; None where git is not installed.

    Raises BadInputError when a pipe or a device stands where git, or rsync in its place, would read.
    """
    with files.scratch("git") as made:
        try:
            found: list[Repository] = []
            problem = _read_one(folder, "", made, found)
            tree = Tree(folder=folder, repositories=tuple(found), problem=problem)
        except MissingProgramError:
            _refuse_pipes(folder)
            tree = None
        yield tree


def anchored(path: str) -> str:
    """The rule of rsync's for this one path of the folder."""
    # Without a wildcard in it rsync compares a pattern as it is, backslashes too.
    return "/" + (literal(path) if re.search(r"[*?\[]", path) else path)


def literal(text: str) -> str:
    """A text as it is in a pattern of rsync's that has a wildcard in it."""
    return re.sub(r"([\\*?\[])", r"\\\1", text)


def _fewer(ignored: Sequence[str], kept: Iterator[str]) -> list[str]:
    """Rules for names and endings that only ignored files have, where a rule for each path would be many."""
    names = {part for path in kept for part in path.split("/")}
    endings = {_ending(name) for name in names}
    shared = Counter(_ending(_name(path)) for path in ignored)
    rules: dict[str, None] = {}
    for path in ignored:
        name = _name(path)
        ending = _ending(name)
        if ending and shared[ending] > 1 and ending not in endings:
            rules["*" + literal(ending)] = None
        # A rule that begins with another character could be more than a name to rsync.
        elif name not in names and name[0].isalnum() | (name[0] in "._"):
            is_folder = path.endswith("/")
            rules[anchored(name).removeprefix("/") + ("/" if is_folder else "")] = None
        else:
            rules[anchored(path)] = None
    return list(rules)


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return dot + ending if stem and ending else ""


def _read_one(folder: Path, prefix: str, made: Path, found: list[Repository]) -> str:
    """Add the repository at `prefix` and those in it to `found`; returns why it is none, if it looks like one."""
    where, problem = folder / prefix, ""
    # The folder of a submodule that was never fetched is no repository, and not the outer one's either.
    top, directory = _around(where) if not prefix else (where, _git_directory(where))
    git = (f"--git-dir={_stand_in(made, directory)}", f"--work-tree={top}")
    ignored, known = _listings(where, git, check=directory is None)
    if ignored.returncode != 0 or "./" in ignored.stdout.splitlines():
        # One that cannot be read, or that is around this folder and ignores all of it: then its own rules count.
        if ignored.returncode != 0:
            problem = next(iter(ignored.stderr.strip().splitlines()), "git failed")
        git = (f"--git-dir={_stand_in(made, None)}", f"--work-tree={where}")
        ignored, known = _listings(where, git, check=True)
    found.append(
        Repository(
            prefix=prefix,
            git=git,
            ignored=tuple(prefix + _unquoted(line) for line in ignored.stdout.splitlines()),
            known=known.stdout,
        )
    )
    for line in _inner(known.stdout):
        name, _ = _known(prefix, line)
        if (folder / name).is_dir():
            _read_one(folder, f"{name}/", made, found)
    return problem


def _around(folder: Path) -> tuple[Path, Path | None]:
    """The top of the working tree that a folder is in, and its git directory; without one the folder, and None."""
    for top in (folder, *folder.parents):
        if directory := _git_directory(top):
            # What somebody else put around a folder is nothing of it.
            if top == folder or directory.stat().st_uid in (0, os.geteuid()):
                return top, directory
            break
    return folder, None


def _git_directory(top: Path) -> Path | None:
    directory = top / ".git"
    with contextlib.suppress(OSError, ValueError):
        if not directory.is_dir():
            word, _, path = files.read_text(directory).rstrip("\n").partition(": ")
            directory = top / (path if word == "gitdir" else "")
        if os.path.lexists(directory / "HEAD"):
            return directory
    return None


def _stand_in(made: Path, directory: Path | None) -> Path:
    """A git directory that has of a repository's what tells which files it knows and ignores."""
    own = Path(tempfile.mkdtemp(dir=made))
    for name in ("objects", "refs", "info"):
        (own / name).mkdir()
    (own / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    if directory is None:
        return own
    for index in (directory / "index", *directory.glob("sharedindex.*")):
        if index.is_file():
            (own / index.name).symlink_to(index.resolve())
    common = directory
    with contextlib.suppress(OSError, ValueError):
        common = directory / files.read_text(directory / "commondir").strip()
    with contextlib.suppress(OSError):
        (own / "info/exclude").write_bytes(files.read_bytes(common / "info/exclude"))
    with contextlib.suppress(OSError, ValueError):
        # What git has written there about the form of the index and about the disk.
        text = files.read_text(common / "config").lower()
        lines = ["[core]", *re.findall(r"^\s*ignorecase\s*=\s*true$", text, re.M), "repositoryformatversion = 1"]
        lines += ["[extensions]", *re.findall(r"^\s*objectformat\s*=\s*sha256$", text, re.M)]
        (own / "config").write_text("\n".join((*lines, "")), encoding="utf-8")
    return own


def _inner(known: str) -> list[str]:
    """The lines of submodules (by their mode) and of repositories that git does not know (by the slash at the end)."""
    # In most folders there is none, which is seen faster than line by line.
    if not any(part in known for part in ("/\n", '/"\n', "160000 ")):
        return []
    return [line for line in known.splitlines() if line.startswith("160000 ") or line.endswith(("/", '/"'))]


def _known(prefix: str, line: str) -> tuple[str, bool]:
    """The path in a line of what git knows or would take, and whether it is known."""
    _, is_staged, path = line.partition("\t")
    return prefix + _unquoted(path if is_staged else line).rstrip("/"), bool(is_staged)


def _among(folder: Path, repository: Repository, names: Sequence[str]) -> set[str]:
    if not names:
        return set()
    # git looks at what a path is, and this one need not be here: something in it tells that it is a folder.
    asked = {name.removeprefix(repository.prefix) + ("kit" if name.endswith("/") else ""): name for name in names}
    done = process.run(
        _command(repository.git, "check-ignore", "-z", "--stdin"),
        input=b"\0".join(os.fsencode(path) for path in asked) + b"\0",
        env=_ENVIRONMENT,
        cwd=folder / repository.prefix,
        timeout_s=TIMEOUT_S,
        check=False,
    )
    # 1: none of them.
    if done.returncode not in (0, 1):
        raise CommandError(done.args, done.returncode, "", done.stderr)
    answered = set(done.stdout.split("\0"))
    return {name for path, name in asked.items() if os.fsencode(path).decode(errors="replace") in answered}


def _listings(where: Path, git: Sequence[str], *, check: bool) -> tuple[process.Completed, process.Completed]:
    """What git prints of what it ignores, and of what it knows or would take."""
    done: dict[bool, process.Completed | BaseException] = {}

    def ask(*options: str, is_ignored: bool) -> None:
        command = _command(git, "ls-files", "--others", "--exclude-standard", *options)
        try:
            try:
                done[is_ignored] = process.run(command, env=_ENVIRONMENT, cwd=where, timeout_s=PATIENCE_S, check=check)
            except CommandError as e:
                if e.returncode != TIMED_OUT:
                    raise
                _refuse_pipes(where)
                done[is_ignored] = process.run(command, env=_ENVIRONMENT, cwd=where, timeout_s=TIMEOUT_S, check=check)
        except Exception as e:
            done[is_ignored] = e

    # Both at a time: each looks at every file, and the files are waiting to be sent.
    beside = threading.Thread(target=ask, args=("--stage",), kwargs={"is_ignored": False})
    beside.start()
    try:
        ask("--ignored", "--directory", is_ignored=True)
    except BaseException:
        process.end_running()
        raise
    finally:
        beside.join()
    ignored, known = done[True], done[False]
    for result in (ignored, known):
        if isinstance(result, BaseException):
            raise result
    assert isinstance(ignored, process.Completed)
    assert isinstance(known, process.Completed)
    return ignored, known


def _refuse_pipes(folder: Path) -> None:
    """Raise BadInputError when something that git would wait for stands where it reads."""
    for inner, _, names in os.walk(folder):
        for name in names:
            path = Path(inner) / name
            if any(part.startswith(".git") for part in path.relative_to(folder).parts) and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    mode = path.stat().st_mode
                    if not stat.S_ISREG(mode):
                        what = "a pipe" if stat.S_ISFIFO(mode) else "no file"
                        raise BadInputError(
                            f"{path.relative_to(folder)} is {what}, and git would wait for it",
                            hint=f"look what it is, and remove it: `ls -l {path}`",
                        )


def _command(git: Sequence[str], *args: str) -> list[str]:
    # Quoted names are plain ASCII, whatever bytes a name has.
    settings = ["-c", "core.quotePath=true", "-c", "core.fsmonitor=false"]
    unset = [word for name in _GIT_VARIABLES if name in os.environ for word in ("-u", name)]
    return [*(["env", *unset] if unset else []), "git", *settings, *git, *args]


def _unquoted(name: str) -> str:
    """A path as git prints it, quoted as in C where it has odd characters."""
    if not name.startswith('"'):
        return name

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1].decode()
        return bytes([_C_ESCAPES[code] if code in _C_ESCAPES else int(code, 8)])

    return os.fsdecode(re.sub(rb'\\([0-7]{3}|[abtnvfr"\\])', byte, name[1:-1].encode()))
