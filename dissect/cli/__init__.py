"""The command line: `microtome COMMAND ...`. Each command is a module of its own and imports torch only when run."""

from microtome.dissect.cli.app import main

__all__ = ["main"]
