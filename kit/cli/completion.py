"""`kit completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kit.cli.output import show


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(*, shell: str) -> None:
    """Print what makes a shell complete kit's commands, options, images and containers.

    \b
    bash   echo 'eval "$(kit completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(kit completion zsh)"' >> ~/.zshrc
    fish   kit completion fish > ~/.config/fish/completions/kit.fish

    Open a new shell afterwards. bash must be 4.4 or newer.
    """
    found = get_completion_class(shell)
    assert found is not None  # click has one for each of these
    context = click.get_current_context()
    script = found(context.find_root().command, {}, "kit", "_KIT_COMPLETE")
    show(script.source_template % script.source_vars())
