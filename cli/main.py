"""The group `mobj`: finds commands by file name and turns errors into sentences and exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback

import click

from multiobj_data.errors import MobjError, did_you_mean
from multiobj_data.version import __version__

COMMANDS = (
    "generate",
    "convert",
    "merge",
    "verify",
    "inspect",
    "sheet",
    "export",
    "train",
    "import-weights",
    "evaluate",
    "compare",
    "reproduce",
    "metrics",
    "ls",
    "doctor",
)


class _Commands(click.Group):
    """Loads ``cli/NAME.py`` when NAME is called; a command's heavy imports live inside its function."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            context.fail(f"no command {name!r}.{did_you_mean(name, COMMANDS)}")
        module = name.replace("-", "_")
        return getattr(importlib.import_module(f"cli.{module}"), f"{module}_command")


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="mobj")
def mobj() -> None:
    """Multi-object image data: generate it, train reference models on it, evaluate any model.

    \b
    mobj generate multi-mnist --counts 2,4 --no-overlap --out data/digits
    mobj train air --data data/digits --out runs/air --seeds 3
    mobj evaluate runs/air/seed-0/checkpoint.pt

    Exit codes: 0 done, 1 failure, 2 usage, 3 data missing or damaged, 4 verification mismatch, 5 infeasible
    request, 130 interrupted. MOBJ_DEBUG=1 shows where an error comes from.
    """


def main() -> None:
    """Run `mobj`; every expected error is one sentence on stderr."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = mobj.main(standalone_mode=False, prog_name="mobj")
    except MobjError as error:
        if os.environ.get("MOBJ_DEBUG"):
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted.", err=True)
        return 130
    except OSError as error:
        if error.filename is not None or error.errno not in (
            errno.ENOSPC,
            errno.EIO,
            errno.EPIPE,
            errno.EBADF,
        ):
            raise  # not about standard output: a bug of ours
        click.echo(f"error: cannot write the result to standard output: {error.strerror}.", err=True)
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":  # as launchers of several processes start it
    main()
