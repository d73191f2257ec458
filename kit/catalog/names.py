"""What the name of an image says: the only place that reads one."""

from __future__ import annotations

import re
from typing import cast

from kit.catalog.rows import SHORT_NAMES, Flavor, Framework, Image, Release
from kit.frozen import dataclass

# What people call a framework.
WORDS: dict[Framework, tuple[str, ...]] = {"torch": ("torch", "pytorch"), "tensorflow": ("tensorflow", "tf")}


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What the user asked for: a framework, and as much about the image as the name says."""

    framework: Framework
    version: str = ""  # `2.7` or `2.7.1`; empty: any
    tag: str = ""  # `cu126` or `cpu`; empty: any
    flavor: Flavor = ""
    python: str = ""  # `3.12`, which no name says; empty: any
    specifier: str = ""  # `>=2.6,<3`, as a project's file may say after a name; empty: any

    @classmethod
    def parse(cls, name: str) -> ImageRequest | None:
        """What a name says, such as `torch`, `tf2.21-cpu` or `torch2.6.0-cu124-devel`; None when it is not a name."""
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)*)?(?:-(cpu|cu\d+))?(?:-(devel))?", name.lower(), re.ASCII)
        if match is None:
            return None
        word, version, tag, flavor = match.groups("")
        framework = next((long for long, words in WORDS.items() if word in words), None)
        if framework is None:
            return None
        return cls(framework=framework, version=version, tag=tag, flavor=cast("Flavor", flavor))

    def covers(self, other: ImageRequest) -> bool:
        """True when the image that `other` names is one that this name may stand for."""
        asked = self.version.split(".") if self.version else []
        return (
            (other.framework, other.flavor) == (self.framework, self.flavor)
            and other.version.split(".")[: len(asked)] == asked
            and self.tag in ("", other.tag)
        )

    def admits(self, release: Release) -> bool:
        """True when the release is what the name narrows to."""
        asked = self.version.split(".") if self.version else []
        return (
            release.framework == self.framework
            and release.version.split(".")[: len(asked)] == asked
            and self.tag in ("", release.cuda_tag)
            and (not self.specifier or _is_within(release.version, self.specifier))
        )


def _is_within(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet  # which no name on a command line needs

    return SpecifierSet(specifier).contains(version)


def possible_names(image: Image) -> list[str]:
    """Names that narrow as little or as much as a name can; each finds this image or a newer one that fits it too."""
    short, release = SHORT_NAMES[image.framework], image.release
    tag, suffix = release.cuda_tag, f"-{image.flavor}" if image.flavor else ""
    minor, full = f"{short}{'.'.join(release.version.split('.')[:2])}", f"{short}{release.version}"
    names = (short, f"{short}-{tag}", minor, full, f"{minor}-{tag}", f"{full}-{tag}")
    return [name + suffix for name in dict.fromkeys(names)]
