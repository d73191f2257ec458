"""Makes the project that is mounted at /workspace a package of this Python, as an editable installation of it would,
with none of its own code running: `python -I project.py BASE64`, a JSON object that kit has read from its
pyproject.toml (kit/environment/editable.py).

What it writes: a .pth file that leads to the project, its metadata, and its commands.
"""

import base64
import csv
import hashlib
import io
import json
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

COMMAND = """#!{python}
import sys

from {module} import {first}

if __name__ == "__main__":
    sys.exit({called}())
"""


def main(project):
    name, version = project["name"], project["version"]
    try:
        other = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    else:
        sys.exit(f"kit: the project is named {name}, as a package of the image ({other}) is")
    site, programs = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("scripts"))
    plain = re.sub(r"[-_.]+", "_", name).lower()
    info = f"{plain}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if project["requires_python"]:
        lines.append(f"Requires-Python: {project['requires_python']}")
    lines += [f"Requires-Dist: {text}" for text in project["requires"]]
    files = {
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/INSTALLER": "kit\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/direct_url.json": json.dumps({"dir_info": {"editable": True}, "url": "file:///workspace"}) + "\n",
        f"__editable__.{plain}.pth": project["path"] + "\n",
    }
    if project["entry_points"]:
        groups = []
        for group, entries in project["entry_points"].items():
            groups.append("\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]))
        files[f"{info}/entry_points.txt"] = "\n\n".join(groups) + "\n"
    for relative, text in files.items():
        path = site / relative
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    written = {relative: site / relative for relative in files}
    commands = {**project["entry_points"].get("console_scripts", {}), **project["entry_points"].get("gui_scripts", {})}
    for command, target in commands.items():
        module, _, called = re.sub(r"\s*\[.*", "", target).partition(":")
        path = programs / command
        if path.exists():
            sys.exit(f"kit: the project's command {command} is one of the image's")
        text = COMMAND.format(python=sys.executable, module=module, first=called.partition(".")[0], called=called)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        written[f"../../../bin/{command}"] = path
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for relative, path in sorted(written.items()):
        data = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((relative, f"sha256={digest}", len(data)))
    rows.writerow((f"{info}/RECORD", "", ""))
    (site / info / "RECORD").write_text(record.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(base64.b64decode(sys.argv[1])))
