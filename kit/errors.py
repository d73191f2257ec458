"""The errors kit raises on purpose: what happened, what to do next, and the exit code each kind has.

Exit codes are an interface: scripts tell kinds of failure apart by them, so a code is never reused.
"""

from __future__ import annotations

from typing import ClassVar


class KitError(Exception):
    """An expected failure, shown to the user as two lines and never as a traceback.

    `message` says what happened with the values; `hint` says what to do next; `details` are further lines
    (the last lines of a build step, each reason of a refusal).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class CheckFailedError(KitError):
    """A check (`--check`) found a difference."""

    exit_code = 1


class BuildFailedError(KitError):
    """A build step failed."""

    exit_code = 1


class BadInputError(KitError):
    """Wrong usage, or an option value that cannot be used."""

    exit_code = 2


class IncompatibleError(KitError):
    """Nothing fits the host or the request; `details` has every reason."""

    exit_code = 3


class NoSuchImageError(KitError):
    """An image name that is not in the catalog."""

    exit_code = 4


class CatalogError(KitError):
    """A table of the catalog does not parse, or has a row that breaks a rule."""

    exit_code = 5


class LockError(KitError):
    """A lock cannot be read, was changed by hand, or does not belong to its inputs."""

    exit_code = 6


class UnlockedError(KitError):
    """The image has no lock yet, so it cannot be built."""

    exit_code = 7


class NoEngineError(KitError):
    """No container engine answers."""

    exit_code = 10


class EngineFeatureError(KitError):
    """The engine answers, but lacks something kit needs (BuildKit, buildx)."""

    exit_code = 11


class EngineError(KitError):
    """The engine refused or failed at what it was asked."""

    exit_code = 12


class NoSuchContainerError(KitError):
    """No container of kit's has that name."""

    exit_code = 13


class DiskFullError(KitError):
    """No space left where the engine or kit writes."""

    exit_code = 14


class BaseNotFoundError(KitError):
    """The base image is not where the catalog says it is."""

    exit_code = 15


class PortTakenError(KitError):
    """The port that was asked for is in use."""

    exit_code = 16


class GpuUnavailableError(KitError):
    """A GPU was asked for, and the engine cannot pass one through."""

    exit_code = 17


class NotReadyError(KitError):
    """A service did not answer in time, its container ended, or another process holds a lock for too long."""

    exit_code = 18


class NetworkError(KitError):
    """A mirror, registry or index does not answer."""

    exit_code = 19


class UnsupportedHostError(KitError):
    """This system cannot do what was asked; the hint says what to install instead."""

    exit_code = 20


class MissingProgramError(KitError):
    """A program kit calls is not installed."""

    exit_code = 21


class FilesError(KitError):
    """A file or folder cannot be read, made or written."""

    exit_code = 22


class EngineDeniedError(NoEngineError):
    """There is a container engine, and this account may not use it."""

    exit_code = 23


class CommandError(KitError):
    """A program kit called failed; carries the command, its exit code and what it printed."""

    exit_code = 1

    def __init__(self, args: tuple[str, ...], returncode: int, stdout: str, stderr: str) -> None:
        last = (stderr.strip() or stdout.strip()).splitlines()[-12:]
        super().__init__(
            f"`{' '.join(args[:4])}{' …' if len(args) > 4 else ''}` failed with exit code {returncode}",
            details=tuple(last),
        )
        self.command = args
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
