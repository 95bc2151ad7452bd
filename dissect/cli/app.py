"""The group of commands, and what every command has in common: errors as one line, exit codes, Ctrl-C."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from microtome.dissect.cli.ablate import ablate_command
from microtome.dissect.cli.audit import audit_command
from microtome.dissect.cli.check import check_command
from microtome.dissect.cli.compare import compare_command
from microtome.dissect.cli.data import data_command
from microtome.dissect.cli.defects import defects_command
from microtome.dissect.cli.explain import explain_command
from microtome.dissect.cli.extend import extend_command
from microtome.dissect.cli.generate import generate_command
from microtome.dissect.cli.importance import importance_command
from microtome.dissect.cli.insert import insert_command
from microtome.dissect.cli.inspect import inspect_command
from microtome.dissect.cli.map import map_command
from microtome.dissect.cli.neighbors import neighbors_command
from microtome.dissect.cli.query import query_command
from microtome.dissect.cli.rank import rank_command
from microtome.dissect.cli.report import report_command
from microtome.dissect.cli.serve import serve_command
from microtome.dissect.cli.status import status_command
from microtome.dissect.cli.verify import verify_command
from microtome.dissect.cli.visualize import visualize_command
from microtome.storage.errors import MicrotomeError

INTERRUPTED = 130

_ANEW = ("explain", "visualize", "generate")
"""Commands that begin anew: what they wrote is complete, but nothing notes how far they came."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="microtome", prog_name="microtome")
def app() -> None:
    """Cut a trained vision network into its units and see what each one detects.

    \b
    Start here:
      microtome inspect builtin:scenes-cnn
      microtome audit builtin:scenes-cnn scenes:2000 --layers 'block?' --tau 0.02 --out runs/first
      microtome query runs/first "concept=car iou>0.1"

    \b
    Exit codes: 0 done; 2 bad usage; 3 finished, but some samples could not be read;
    4 the run is damaged or does not match; 5 rules do not hold (check); 130 interrupted.
    """


for _command in (
    inspect_command,
    data_command,
    audit_command,
    extend_command,
    status_command,
    verify_command,
    query_command,
    check_command,
    compare_command,
    neighbors_command,
    importance_command,
    ablate_command,
    rank_command,
    insert_command,
    defects_command,
    map_command,
    explain_command,
    visualize_command,
    generate_command,
    report_command,
    serve_command,
):
    app.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code. User mistakes end in one line on stderr, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app.main(args=given, standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted(given)
    except KeyboardInterrupt:
        code = _interrupted(given)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MicrotomeError as error:
        click.echo(f"microtome: {error}", err=True)
        code = error.exit_code
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        code = _reader_left()
    except Exception as error:
        if not _was_interrupted(error):
            raise
        code = _interrupted(given)
    sys.exit(code if isinstance(code, int) else 0)


def _reader_left() -> int:
    """Whoever read our output has closed the pipe (`| head`): done, and nothing more to say at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C lies behind an exception: Python wraps one that falls into the making of a class."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _interrupted(arguments: Sequence[str]) -> int:
    anew = next(iter(arguments), "") in _ANEW
    after = "what is finished is kept" if anew else "the same command goes on where this one stopped"
    click.echo(f"microtome: interrupted; {after}", err=True)
    return INTERRUPTED
