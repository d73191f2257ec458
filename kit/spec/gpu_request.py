"""What `--gpus` asks for. It is parsed once, where it enters kit."""

from __future__ import annotations

import re
from typing import Literal

from kit.errors import BadInputError
from kit.frozen import dataclass

WORDS: tuple[Literal["all", "none", "free"], ...] = ("all", "none", "free")


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    """What `--gpus` asks for: `free` and `count` leave the choice to kit, and lease what it chose."""

    kind: Literal["all", "none", "free", "count", "named"]
    text: str  # as it was written
    count: int = 0
    names: tuple[str, ...] = ()  # indexes (`0`), MIG indexes (`0:1`), UUIDs

    @property
    def is_lease(self) -> bool:
        return self.kind in ("free", "count")

    @property
    def is_none(self) -> bool:
        return self.kind == "none"


NO_GPUS = GpuRequest(kind="none", text="none")


def parse_request(text: str) -> GpuRequest:
    """The value of `--gpus`: all, none, free, a number of GPUs, or indexes and UUIDs. Raises BadInputError."""
    text = text.strip()
    for kind in WORDS:
        if text == kind:
            return GpuRequest(kind=kind, text=text)
    if re.fullmatch(r"[1-9][0-9]{0,3}", text):
        return GpuRequest(kind="count", text=text, count=int(text))
    if re.fullmatch(r"0+", text):
        raise BadInputError(
            f"--gpus {text}: a number alone says how many GPUs to take",
            hint="--gpus device=0 is the first GPU, --gpus none is no GPU",
        )
    names = tuple(name.strip() for name in text.removeprefix("device=").split(","))
    for name in names:
        if name in WORDS:
            raise BadInputError(f"--gpus {text}: '{name}' stands alone")
        if not re.fullmatch(r"[0-9]+(:[0-9]+)?|(GPU|MIG)-[0-9a-zA-Z/-]+", name):
            raise BadInputError(
                f"--gpus {text}: '{name}' is not a GPU",
                hint="give all, none, free, how many (2), indexes such as 0,3 or device=1, or UUIDs such as GPU-5f0e…",
            )
    return GpuRequest(kind="named", text=text, names=tuple(dict.fromkeys(names)))
