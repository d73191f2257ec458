"""The one Jinja environment: templates hold layout, tables hold values."""

from __future__ import annotations

import jinja2

from kit import paths


def environment() -> jinja2.Environment:
    """An environment for the files under templates/; a name that is not given is an error. Pages are escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.templates_dir()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=jinja2.select_autoescape(("html.j2",), default_for_string=False),
    )
    macros = found.get_template("macros.j2").module
    found.globals |= {name: getattr(macros, name) for name in ("mounts", "system_step")}
    return found
