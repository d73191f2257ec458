"""The pytest plug-in that hands the subject to the checks and takes each one's outcome: no text is parsed."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from kit.errors import KitError
from kit.verify.report import Check, Outcome, Subject

FACT = "fact"
CANARY = "canary.fails"
SUBJECT = pytest.StashKey["Subject | None"]()


class Collector:
    """One run of the suite; `checks` has what came of it, in order."""

    def __init__(
        self, subject: Subject | None, only: tuple[str, ...], on_check: Callable[[Check, int], None] = lambda *_: None
    ) -> None:
        self._subject = subject
        self._only = only
        self._on_check = on_check
        self.checks: list[Check] = []
        self.names: list[str] = []
        self.problems: list[str] = []  # of the suite itself
        self._can_fail = False
        self._seconds: dict[str, float] = {}

    def run(self, groups: Iterable[str], *arguments: str) -> None:
        """Run the checks of these groups. Raises KeyboardInterrupt when interrupted, RuntimeError for a broken one."""
        suite = Path(str(resources.files("kit.verify.suite")))
        files = [suite / f"test_{group}.py" for group in groups]
        places = [f"--config-file={suite / 'pytest.ini'}", f"--rootdir={suite}"]
        places += map(str, (suite / "canary.py", *files))
        with pytest.MonkeyPatch.context() as patch:
            # None of pytest's variables from outside; where another pytest runs this one, it finds its own again.
            for name in [name for name in os.environ if name.startswith("PYTEST_")]:
                patch.delenv(name)
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            code = pytest.main([*arguments, *places], plugins=[self])
        is_interrupted = code == pytest.ExitCode.INTERRUPTED
        if is_interrupted and not self.problems:
            raise KeyboardInterrupt
        if self.problems or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            how = "could not be loaded" if is_interrupted else f"ended with {code!r}"
            raise RuntimeError(f"the checks {how}:\n" + "\n".join(self.problems))
        if self._subject:
            self._add_what_is_missing(files)

    def _add_what_is_missing(self, files: Iterable[Path]) -> None:
        """A check that did not run, for whatever reason, has failed; so has everything where nothing can fail."""
        if not self._can_fail:
            self._report(
                Check(name=CANARY, outcome="failed", detail="a check that must fail did not: none can be trusted")
            )
        ran = {check.name for check in self.checks}
        ran |= {name.partition("[")[0] for name in ran}
        chosen = [name for name in written(files) if not self._only or is_chosen(name, self._only)]
        for name in dict.fromkeys(self.names + chosen):
            if name not in ran:
                self._report(Check(name=name, outcome="failed", detail="it did not run"))

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[SUBJECT] = self._subject

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if self._only:
            items[:] = [item for item in items if is_chosen(name_of(item), (*self._only, CANARY))]
        self.names = [name for item in items if (name := name_of(item)) != CANARY]

    @pytest.hookimpl
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
        error = call.excinfo.value if call.excinfo else None
        if name_of(item) == CANARY:
            self._can_fail |= call.when == "call" and isinstance(error, AssertionError)
            return
        self._seconds[item.nodeid] = self._seconds.get(item.nodeid, 0.0) + call.duration
        if call.when == "call" or (error is not None and call.when == "setup"):
            self._add(item, error)
        elif error is not None:
            self.problems.append(f"{name_of(item)}: {error}")

    def _add(self, item: pytest.Item, error: BaseException | None) -> None:
        outcome: Outcome = "failed"
        if error is None:
            outcome, detail = "passed", "; ".join(str(value) for key, value in item.user_properties if key == FACT)
        elif isinstance(error, pytest.skip.Exception):
            outcome, detail = "not_run", str(error)
        else:
            detail = words(error)
        # The seconds are with what it waited for: the first check that needs an answer pays for it.
        self._report(Check(name=name_of(item), outcome=outcome, detail=detail, seconds=self._seconds[item.nodeid]))

    def _report(self, check: Check) -> None:
        self.checks.append(check)
        self._on_check(check, len(self.names))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problems.append(f"{report.nodeid}: {report.longreprtext}")

    def pytest_internalerror(self, excrepr: object) -> bool:
        self.problems.append(str(excrepr))
        return True


def name_of(item: pytest.Item) -> str:
    """`suite/test_packages.py::test_locked` is `packages.locked`."""
    return _name(item.path, item.name)


def _name(file: Path, function: str) -> str:
    function, bracket, parameter = function.removeprefix("test_").partition("[")
    return f"{file.stem.removeprefix('test_')}.{function.replace('_', '-')}{bracket}{parameter}"


def written(files: Iterable[Path]) -> Iterator[str]:
    """The checks that are written in these files, without asking pytest; those with parameters once."""
    for file in files:
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield _name(file, node.name)


def is_chosen(name: str, only: tuple[str, ...]) -> bool:
    """True when a name is one of these, or in a group that is one of these (`packages`, `gpu.kernel`)."""
    return any(name == word or name.startswith((f"{word}.", f"{word}[")) for word in only)


def words(error: BaseException) -> str:
    """What a failed check says: its own words, or the error's kind with the error's."""
    if isinstance(error, (AssertionError, pytest.fail.Exception)) and str(error):
        # Where another pytest runs this one, it has written the expression below.
        return str(error).partition("\nassert ")[0]
    if isinstance(error, KitError):
        return "; ".join((error.message, *error.details[-3:]))
    return f"{type(error).__name__}: {error}".strip()
