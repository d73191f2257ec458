"""From a name to an image in the engine: check the lock, choose the base, build, label with the inputs; or bring the
image there from elsewhere.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.build.bases import choose_base
    from kit.build.context import STEP_SCRIPTS, kit_context, step_scripts
    from kit.build.failure import build_error
    from kit.build.images import build, build_digest
    from kit.build.inputs import Inputs, current, fingerprint, read_inputs
    from kit.build.model import SILENT, BaseChoice, BuildOptions, Built, ChosenBase, Progress
    from kit.build.moves import pull, push, transfer

# Where each name is. They are looked up when they are used: `kit run` needs to know whether an image is up to date, and
# seldom how one is built.
_MODULES = {
    "bases": ("choose_base",),
    "context": ("STEP_SCRIPTS", "kit_context", "step_scripts"),
    "failure": ("build_error",),
    "images": ("build", "build_digest"),
    "inputs": ("Inputs", "current", "fingerprint", "read_inputs"),
    "model": ("SILENT", "BaseChoice", "BuildOptions", "Built", "ChosenBase", "Progress"),
    "moves": ("pull", "push", "transfer"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


__all__ = [
    "SILENT",
    "STEP_SCRIPTS",
    "BaseChoice",
    "BuildOptions",
    "Built",
    "ChosenBase",
    "Inputs",
    "Progress",
    "build",
    "build_digest",
    "build_error",
    "choose_base",
    "current",
    "fingerprint",
    "kit_context",
    "pull",
    "push",
    "read_inputs",
    "step_scripts",
    "transfer",
]
