"""`microtome serve`: the pages of a run in a browser, with explanations on demand."""

from __future__ import annotations

import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import RUN
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.storage.run import Run

KEPT_OPEN = 60
"""Seconds that an idle connection stays open: longer than torch takes to load, in which the server answers nobody, so
that no connection is closed in which a question has just come in."""


@click.command("serve")
@click.argument("run", type=RUN)
@click.option("--port", type=click.IntRange(0, 65535), default=8600, show_default=True, help="0: any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another one needs the token that is printed.")
@click.option("--device", metavar="auto|cpu|cuda:N", help="Where the model runs. [the run's, or cpu]")
@click.option("--open", "opens", is_flag=True, help="Open the pages in a browser.")
def serve_command(run: Path | str, port: int, host: str, device: str | None, opens: bool) -> int:
    """Serve the pages of RUN, and let its model explain units and classes on demand.

    On cards of units and pages of classes a section "Explain" appears, for images of the run and for your own. The page
    "Ask" takes queries, finds the images that a layer takes for similar to one, and measures what classes lose without
    units. The model is opened when it is first asked for, and does one thing at a time. Of a generator, the page "Edit"
    shows its images while units are ablated or inserted, everywhere or where one paints. Nothing is sent anywhere.
    Ctrl-C ends it.

    \b
    Examples:
      microtome serve runs/first
      microtome serve runs/first --port 0 --open
      microtome serve s3://bucket/run --host 0.0.0.0 --port 8600
    """
    from microtome.reports.server.guard import is_loopback
    from microtome.storage.run import Run

    opened = Run.open(run)
    _refuse_unbuilt(opened)
    with _listen(host, port) as listening:
        port = int(listening.getsockname()[1])
        token = None if is_loopback(host) else secrets.token_urlsafe(24)
        address = f"http://{_name(host)}:{port}/" + (f"?token={token}" if token else "")
        _serve(opened, listening, host, port, token, device, address, opens)
    return 0


def _refuse_unbuilt(run: Run) -> None:
    if run.place.size("report/index.html") is None:
        where = run.place.path or run.url
        stages = {name: stage["state"] for name, stage in run.info["stages"].items() if name != "report"}
        if unfinished := [name for name, state in stages.items() if state != "done"]:
            raise UsageError(f"{where} is not finished ({', '.join(unfinished)}); run microtome audit --resume {where}")
        raise UsageError(f"{where} has no pages yet; build them with: microtome report {where}")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at host and port. Raises UsageError where that cannot be."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host}: no address of this machine ({error}); give 127.0.0.1 or 0.0.0.0") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"port {port} of {host} cannot be used ({error}); give another --port, or 0 for any"
        ) from error
    return listening


def _name(host: str) -> str:
    """The host as an address in a browser has it."""
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _serve(
    run: Run,
    listening: socket.socket,
    host: str,
    port: int,
    token: str | None,
    device: str | None,
    address: str,
    opens: bool,
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        """One that has its work stopped before it waits for the answers."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending.set()
            await super().shutdown(sockets)

    from microtome.dissect.live.on_demand import ExplorerOnDemand, GeneratorOnDemand, OnDemand
    from microtome.reports.server.app import create_app

    generator = GeneratorOnDemand(run, device) if "generator" in run.info["model"] else None
    actions, ending = OnDemand(run, device), threading.Event()
    app = create_app(
        run.place,
        actions,
        host=host,
        port=port,
        token=token,
        generator=generator,
        explorer=ExplorerOnDemand(actions),
        ending=ending,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        timeout_keep_alive=KEPT_OPEN,
        lifespan="on",
    )
    click.echo(f"{run.url}: {address}")
    click.echo("Ctrl-C ends the server", err=True)
    if opens:
        click.launch(address)
    with suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])
