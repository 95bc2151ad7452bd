"""A command as somebody types it, in this process."""

from __future__ import annotations

import pytest

from microtome.dissect.cli import main


def typed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Its exit code, and what it has printed on stdout and stderr; a traceback fails the test."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out, err
