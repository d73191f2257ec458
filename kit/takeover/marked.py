"""YAML with the lines of what is in it. Nothing is made of it but texts: no tag
means anything, and an alias is the very node that it names, never a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.errors import BadInputError
from kit.frozen import dataclass

if TYPE_CHECKING:
    import yaml

# More than anybody writes; the reader takes some seconds for a megabyte.
LIMIT_BYTES = 2**18
_MAX_DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class Item:
    """An entry of a list, or a key of a mapping with its value."""

    line: int
    text: str  # of a key the line it stands in
    name: str = ""  # of a key
    value: str = ""  # where it is a text
    is_text: bool = False
    node: Any = None


class Marked:
    """A document of YAML. Raises BadInputError for a text that is none, is too long, or has no mapping at its top."""

    def __init__(self, text: str, name: str) -> None:
        import yaml  # for these files alone

        if len(text) > LIMIT_BYTES:
            raise BadInputError(
                f"{name}: more than {LIMIT_BYTES:,} characters of YAML", hint="is it the file you mean?"
            )
        self._lines = text.splitlines() or [""]
        self._scalar, self._list, self._mapping = yaml.ScalarNode, yaml.SequenceNode, yaml.MappingNode
        try:
            _refuse_depth(text)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            line = mark.line + 1 if mark else 1
            raise BadInputError(
                f"{name}:{line}: not valid YAML: {e.problem or e.context}", hint="correct the line"
            ) from None
        except (yaml.YAMLError, RecursionError, ValueError, IndexError) as e:
            what = "nested too deeply" if isinstance(e, RecursionError) else " ".join(str(e).split())[:200]
            raise BadInputError(f"{name}: not valid YAML: {what}", hint="is it the file you mean?") from None
        if not isinstance(root, self._mapping):
            raise BadInputError(f"{name}: no keys at its top", hint="is it the file you mean?")
        self.root = self._item(root)

    def items(self, item: Item) -> list[Item]:
        """The keys of a mapping; none of anything else."""
        if not isinstance(item.node, self._mapping):
            return []
        return [
            self._item(value, str(key.value), key) for key, value in item.node.value if isinstance(key, self._scalar)
        ]

    def entries(self, item: Item) -> list[Item]:
        """The entries of a list; a text alone is one."""
        if isinstance(item.node, self._list):
            return [self._item(node) for node in item.node.value]
        return [item] if item.is_text and item.value else []

    def _item(self, node: yaml.Node, name: str = "", key: yaml.Node | None = None) -> Item:
        is_text = isinstance(node, self._scalar)
        line = (key or node).start_mark.line
        value = str(node.value) if is_text and node.tag != "tag:yaml.org,2002:null" else ""
        shown = self._lines[min(line, len(self._lines) - 1)].strip()
        return Item(
            line=line + 1,
            text=value if value and not name else shown.removeprefix("- ").strip(),
            name=name,
            value=value,
            is_text=is_text,
            node=node,
        )


def _refuse_depth(text: str) -> None:
    """Raise RecursionError for lists in each other without end, which take time with the square of their number."""
    depth = 0
    for sign in text:
        if sign in "[{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise RecursionError
        elif sign in "]}":
            depth = max(depth - 1, 0)
