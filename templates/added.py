"""Prints what `pip install` has put into the user's layer, as JSON; a Python of the image runs this for `kit diff`.

`added.py LAYER`: the virtual environment of templates/user_layer.py. As old as the oldest image's Python.
"""

import json
import sys
from importlib.metadata import Distribution
from pathlib import Path


def added(site):
    """Each package that is installed there: what it is, whether somebody asked for it, and where it is from."""
    found = []
    for folder in sorted(site.glob("*.dist-info")):
        package = Distribution.at(folder)
        # What pip was about to remove when it was killed begins with another sign; or it had not come far.
        if folder.name.startswith("~") or package.read_text("METADATA") is None:
            continue
        found.append(
            {
                "name": package.metadata["Name"],
                "version": package.version,
                "requested": package.read_text("REQUESTED") is not None,
                "origin": json.loads(package.read_text("direct_url.json") or "{}"),
            }
        )
    return found


if __name__ == "__main__":
    version = "python{}.{}".format(*sys.version_info[:2])
    print(json.dumps(added(Path(sys.argv[1], "lib", version, "site-packages"))))
