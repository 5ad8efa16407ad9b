"""Shows a folder on this machine alone, for browsers that refuse files."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from datamodules.files.errors import UserError

HOST = "127.0.0.1"


class _Quiet(SimpleHTTPRequestHandler):
    """Prints no line for each picture."""

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


def open_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder's files that this machine alone can reach.

    Args:
        folder: what it shows.
        port: of the server; 0 takes a free one.

    Raises:
        UserError: if the port is taken or not allowed.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Quiet, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port={port} cannot be used ({error}): choose another one") from None


def serve(folder: Path, port: int) -> None:
    """Shows the page of a folder until the user interrupts it.

    Raises:
        UserError: if the port is taken or not allowed.
    """
    with open_server(folder, port) as server:
        print(f"http://{HOST}:{server.server_port}/  (Ctrl+C ends it)", flush=True)
        server.serve_forever()
