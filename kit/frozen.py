"""`dataclass(frozen=True, kw_only=True)`, as `dataclasses` has it, without the price of declaring one.

`dataclasses` writes the methods of each class as text and compiles it whenever the class is imported: half a
millisecond a class, a third of all that a short command of kit took. The classes declared here share their methods.
For type checkers they are the standard library's, and `fields`, `replace`, `asdict` and `is_dataclass` take them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any


class _Shared:
    """What every class has; one with methods of its own like these needs `dataclasses`."""

    def __init__(self: Any, /, **values: Any) -> None:
        state = self.__dict__
        for field in dataclasses.fields(self):
            if field.name in values:
                state[field.name] = values.pop(field.name)
            elif field.default is not dataclasses.MISSING:
                state[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                state[field.name] = field.default_factory()
            else:
                raise TypeError(f"{type(self).__name__}() is missing the argument {field.name!r}")
        if values:
            raise TypeError(f"{type(self).__name__}() got an unexpected argument {next(iter(values))!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self: Any) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(_compared(self))


def _compared(it: Any) -> tuple[Any, ...]:
    return tuple([getattr(it, field.name) for field in dataclasses.fields(it) if field.compare])


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen, kw_only):
        assert frozen
        assert kw_only

        def declare(cls):
            methods = {name: method for name, method in vars(_Shared).items() if callable(method)}
            assert not {"__post_init__", *methods} & set(vars(cls)), (
                "a class with methods like these needs `dataclasses`"
            )
            for name, method in methods.items():
                setattr(cls, name, method)
            return dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)

        return declare
