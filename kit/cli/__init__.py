"""The `kit` command: the group, its global options, and the one door every error leaves through."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from itertools import takewhile
from typing import NoReturn

import click

from kit import __version__, redact, signals
from kit.cli.ended import print_cause_of
from kit.cli.options import HERE, Options
from kit.cli.output import print_error, show
from kit.errors import BadInputError, KitError

# Each command, the module that has it, and its help line: held here so that `kit --help` imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("catalog", "List the images, and whether each is locked and built."),
    "show": ("catalog", "Show everything known about one image."),
    "resolve": ("resolve", "Say which image works on a host, and why the others do not."),
    "doctor": ("doctor", "Examine a host: driver, GPUs, Container Toolkit, engine, disk, network."),
    "explain": ("explain", "Recognise GPU and Docker errors in a log; say cause and fix."),
    "gpus": ("gpus", "Show who uses which GPU."),
    "render": ("render", "Write Dockerfiles from the templates and the catalog."),
    "lock": ("lock", "Solve and check the lock of a project, or those of images."),
    "update": ("lock", "Ask registries for the digests of base images."),
    "init": ("environment", "Give this folder an environment of its own: write a kit.toml."),
    "add": ("environment", "Add packages to the project's environment."),
    "remove": ("environment", "Take packages out of the project's environment."),
    "diff": ("environment", "Show what `pip install` added that kit.lock has not."),
    "keep": ("environment", "Make what `pip install` added part of the project."),
    "export": ("export", "Print the project's locked environment for pip, conda or uv."),
    "build": ("build", "Build images."),
    "run": ("run", "Start a notebook, TensorBoard, a shell or a command in an image."),
    "bench": ("bench", "Measure the GPU in an image; compare and plot results."),
    "sync": ("sync", "Send this folder to a host."),
    "fetch": ("sync", "Bring results back from a host."),
    "ps": ("lifecycle", "List the containers kit started."),
    "logs": ("lifecycle", "Print what a container printed."),
    "url": ("lifecycle", "Print the URL of a running service."),
    "exec": ("lifecycle", "Run a command in a running container."),
    "stop": ("lifecycle", "Stop containers."),
    "start": ("lifecycle", "Start stopped containers again."),
    "restart": ("lifecycle", "Stop containers and start them again."),
    "rm": ("lifecycle", "Remove stopped containers."),
    "reset": ("reset", "Take out what `pip install` added to an image in this folder."),
    "clean": ("clean", "Show what takes space, and delete what you choose."),
    "tunnel": ("tunnel", "List, open and close the SSH tunnels to services on hosts."),
    "code": ("code", "Attach VS Code to a container."),
    "compose": ("compose", "Write a compose file that starts what `kit run` starts."),
    "config": ("config", "Show the configuration, and where each value came from."),
    "verify": ("verify", "Prove an image against its lock, and that it works."),
    "matrix": ("matrix", "Print the CI matrix of images to build."),
    "engine": ("engine", "Start or stop kit's private container engine."),
    "base": ("base", "Make registry-free base images."),
    "completion": ("completion", "Print the completion of kit's words for a shell."),
}

# The commands that act on this machine alone.
LOCAL_COMMANDS = ("engine", "base")
# The commands whose options have defaults in the configuration; kit/cli/defaults.py says which options.
CONFIGURED = ("build", "run", "reset", "bench", "sync", "fetch", "compose", "verify", "update", "base")


class LazyGroup(click.Group):
    """A group whose commands are imported only when one of them runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kit.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from kit.cli.near import suggestion

            meant = suggestion(args, COMMANDS)
            ctx.fail(f"no such command '{args[0]}'." + (f" Did you mean `{meant}`?" if meant else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print data as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
@click.option("-v", "--verbose", count=True, help="Say more; twice: every program that is run.")
@click.option("--debug", is_flag=True, envvar="KIT_DEBUG", help="Show tracebacks.  [env: KIT_DEBUG]")
@click.option("-y", "--yes", is_flag=True, help="Answer yes to every question.")
@click.option(
    "--host",
    envvar="KIT_HOST",
    metavar="[USER@]SERVER",
    help="Work on this machine, over SSH; `local` is this one.  [env: KIT_HOST; default: what `kit config show` says]",
)
@click.version_option(__version__, prog_name="kit")
@click.pass_context
def group(
    ctx: click.Context, *, as_json: bool, quiet: bool, verbose: int, debug: bool, yes: bool, host: str | None
) -> None:
    """Reproducible GPU environments: PyTorch and TensorFlow images for each CUDA, built, run and proven.

    \b
    kit run torch jupyter           a notebook on the GPU, in the newest image that works here
    kit init; kit add einops        a project with an environment of its own, the same everywhere
    kit doctor                      what is wrong with this machine, and how to mend it
    """
    if host and host not in HERE and ctx.invoked_subcommand in LOCAL_COMMANDS:
        raise BadInputError(
            f"`kit {ctx.invoked_subcommand}` works on this machine only, not on --host {host}",
            hint="log in there and run it, or leave out --host (and KIT_HOST)",
        )
    ctx.obj = Options(json=as_json, quiet=quiet, verbose=verbose, debug=debug, yes=yes, asked_host=host)
    if ctx.invoked_subcommand in CONFIGURED:
        from kit.cli.defaults import Defaults

        ctx.default_map = {ctx.invoked_subcommand: Defaults()}
    if verbose >= 2 or debug:
        import logging

        class Shown(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                show(redact.text(self.format(record)), err=True)

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", handlers=[Shown()])


def main() -> None:
    """Entry point: run the command, turn every error into its exit code."""
    # Global options come before the command; a `--debug` after it is the command's, or its program's.
    debug = "--debug" in takewhile(lambda word: word.startswith("-"), sys.argv[1:]) or bool(os.environ.get("KIT_DEBUG"))
    try:
        # Without standalone mode click returns what a command exits with instead of exiting.
        code = group.main(prog_name="kit", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()
        sys.exit(2)
    except click.ClickException as e:
        context = getattr(e, "ctx", None)
        command = context.command_path if context else "kit"
        message, hint = " ".join(e.format_message().split()), f"`{command} --help` shows what it takes"
        if context and isinstance(e, click.NoSuchOption):
            from kit.cli import docker_words

            if word := docker_words.of(context.command.name or "", e.option_name):
                message, hint = f"{e.option_name} is docker's: kit has no such option", word
        print_error(BadInputError(message, hint=hint))
        sys.exit(BadInputError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _interrupted()
    except SystemExit:
        # click's own way out when the reader went away (`kit list | head`): nothing is wrong, and it says 1.
        if type(sys.stdout) is click.utils.PacifyFlushWrapper:
            sys.exit(0)
        raise
    except Exception as e:
        if signals.is_interruption(e):
            _interrupted()
        if debug:
            import traceback

            show(redact.text(traceback.format_exc()), err=True, nl=False)
        if isinstance(e, OSError):
            from kit.cli.faults import of_system

            e = of_system(e) or e
        if isinstance(e, KitError):
            print_error(e)
            print_cause_of(e)
            sys.exit(e.exit_code)
        show(f"error: unexpected {type(e).__name__}: {redact.text(str(e))}", err=True)
        show("hint: this is a defect in kit; run the command again with --debug and report what it prints", err=True)
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupted() -> NoReturn:
    show("interrupted", err=True)
    sys.exit(signals.exit_code())


def open_streams() -> None:
    """Have the three streams lead somewhere when the caller closed them: else the next file that is opened takes the
    place of one. What stdout cannot encode is printed as escapes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(handle, handle == number)
            setattr(sys, name, os.fdopen(handle, "w" if number else "r", encoding="utf-8"))
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def run() -> NoReturn:
    """`main` for a process that does nothing else: it ends at once, without taking the interpreter apart, which is a
    tenth of the time of a short command.
    """
    code: object = 0
    open_streams()
    try:
        main()
    except SystemExit as e:
        code = e.code
    if process := sys.modules.get("kit.process"):
        process.end_running()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever read it has gone away, or it was closed
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
