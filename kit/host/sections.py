"""What the probe script prints, taken apart."""

from __future__ import annotations

from dataclasses import dataclass

# What a program is killed with when it takes too long; the shell adds 128 to the number of the signal.
KILLED = (124, 137)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One fact as the machine printed it; `code` is the exit code of what printed it."""

    code: int
    rest: str = ""  # what else the script says of it: a path, a PID, the time it ended
    text: str = ""


@dataclass(frozen=True)
class Sections:
    """All that one run of the script printed, by name; several of one name in their order."""

    found: dict[str, list[Section]]

    @property
    def is_complete(self) -> bool:
        """True when the script came to its end."""
        return "end" in self.found

    def all(self, name: str) -> list[Section]:
        return self.found.get(name, [])

    def get(self, name: str) -> Section | None:
        return next(iter(self.all(name)), None)

    def text(self, name: str) -> str:
        """What was printed under a name; empty when nothing was."""
        section = self.get(name)
        return section.text if section else ""

    def said(self, name: str) -> str:
        """All that a program printed, errors too."""
        return f"{self.text(name)}\n{self.text(name + '.err')}".strip()

    def timed_out(self, name: str) -> bool:
        section = self.get(name)
        return section is not None and section.code in KILLED


def split(output: str, mark: str) -> Sections:
    """The sections of an output; what stands before the first (a login's greeting) is left out."""
    found: dict[str, list[Section]] = {}
    for part in f"\n{output}".split(f"\n{mark} ")[1:]:
        head, _, text = part.partition("\n")
        name, _, after = head.partition(" ")
        code, _, rest = after.partition(" ")
        section = Section(code=int(code) if code.isascii() and code.isdecimal() else 1, rest=rest.strip(), text=text)
        found.setdefault(name, []).append(section)
    return Sections(found)
