import inspect
from collections import defaultdict

import pytest

from kit import errors
from kit.errors import CommandError, KitError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, KitError)]


def test_exit_codes_tell_kinds_apart_except_the_two_groups_every_program_has():
    by_code = defaultdict(set)
    for kind in KINDS:
        by_code[kind.exit_code].add(kind.__name__)
    assert by_code.pop(1) == {"KitError", "CheckFailedError", "BuildFailedError", "CommandError"}
    assert by_code.pop(2) == {"BadInputError"}
    assert {code: names for code, names in by_code.items() if len(names) > 1} == {}


def test_exit_codes_are_an_interface_and_stay_as_they_are():
    assert {kind.__name__: kind.exit_code for kind in KINDS if kind.exit_code > 2} == {
        "IncompatibleError": 3,
        "NoSuchImageError": 4,
        "CatalogError": 5,
        "LockError": 6,
        "UnlockedError": 7,
        "NoEngineError": 10,
        "EngineFeatureError": 11,
        "EngineError": 12,
        "NoSuchContainerError": 13,
        "DiskFullError": 14,
        "BaseNotFoundError": 15,
        "PortTakenError": 16,
        "GpuUnavailableError": 17,
        "NotReadyError": 18,
        "NetworkError": 19,
        "UnsupportedHostError": 20,
        "MissingProgramError": 21,
        "FilesError": 22,
        "EngineDeniedError": 23,
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_exit_codes_are_none_that_the_shell_or_docker_use(kind):
    assert 0 < kind.exit_code < 64, "70 is kit's own defects, 124-127 and 130 have meanings of their own"


def test_an_error_keeps_what_it_was_given():
    error = KitError("what", hint="next", details=("a", "b"))
    assert (str(error), error.message, error.hint, error.details) == ("what", "what", "next", ("a", "b"))


def test_command_error_names_the_command_shortly_and_keeps_the_end_of_its_output():
    error = CommandError(
        ("docker", "buildx", "build", "--tag=x", "."), 3, "out", "\n".join(f"line {i}" for i in range(40))
    )
    assert error.message == "`docker buildx build --tag=x …` failed with exit code 3"
    assert error.details == tuple(f"line {i}" for i in range(28, 40))


def test_command_error_falls_back_to_standard_output():
    assert CommandError(("x",), 1, "only here\n", " \n").details == ("only here",)
