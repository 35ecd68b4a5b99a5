"""`charloom serve`."""

import gc
import logging
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from charloom.cli.options import FilePath
from charloom.cli.streams import print_message
from charloom.settings import require_count

# The engine returns to Python every few milliseconds. By default it would wait as long again for the network thread.
SWITCH_SECONDS = 0.0005


@click.command()
@click.argument("models", nargs=-1, required=True, type=FilePath(), metavar="MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 means all.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 picks a free one.",
)
@click.option("--reload", "reloads", is_flag=True, help="Reload a model when its file changes.")
@click.option("--threads", type=int, metavar="N", help="Number of threads.  [default: all cores but one]")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Host name that requests may use.")
@click.option(
    "--cors", "origins", multiple=True, metavar="ORIGIN", help="Site whose pages may send requests; * means any."
)
@click.option(
    "--max-streams", type=int, metavar="N", help="Maximum number of texts generated at the same time.  [default: 1024]"
)
@click.option(
    "--max-queue", type=int, metavar="N", help="Maximum number of texts that wait in the queue.  [default: 1024]"
)
@click.option("--max-tokens", type=int, metavar="N", help="Maximum number of characters per text.  [default: 32768]")
@click.option(
    "--max-prompt",
    type=int,
    metavar="N",
    help="Maximum number of characters of a prompt or of a text to score.  [default: 65536]",
)
@click.option("--timeout", type=float, metavar="SECONDS", help="Time limit of a request.  [default: 300]")
@click.option("--log-prompts", is_flag=True, help="Also log the texts of requests.")
def serve(
    models: tuple[Path, ...],
    host: str,
    port: int,
    reloads: bool,
    threads: int | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    max_streams: int | None,
    max_queue: int | None,
    max_tokens: int | None,
    max_prompt: int | None,
    timeout: float | None,
    log_prompts: bool,
) -> None:
    """Serve models over HTTP, with a page to try them.

    The API is OpenAI's completions API with a few more endpoints. Each model has the name of its file. If
    CHARLOOM_TOKEN is set, requests must carry it as a bearer token. Without --host, the server accepts connections from
    this machine only.

    \b
    charloom serve book.safetensors
    charloom serve book.safetensors names.safetensors --port 9000 --reload
    curl localhost:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "Once ", "max_tokens": 100}'
    """
    for origin in origins:
        if not re.fullmatch(r"\*|https?://[^/\s]+/?", origin):
            raise click.UsageError(f"--cors takes an origin, such as https://example.org, or *; got {origin!r}.")
    for name in hosts:
        if not re.fullmatch(r"[^/:\s]+", name):
            raise click.UsageError(f"--allow-host takes only a host name, such as example.org; got {name!r}.")
    _set_up_log()

    from charloom.machine import available_cores, limited_threads
    from charloom.server import Limits, require_token
    from charloom.server import serve as run

    given: dict[str, Any] = {
        "max_streams": max_streams,
        "max_queue": max_queue,
        "max_tokens": max_tokens,
        "max_prompt": max_prompt,
        "timeout": timeout,
    }
    # Before the server takes its port, because this needs no file.
    threads = max(1, available_cores() - 1) if threads is None else require_count("threads", threads)
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    token = os.environ.get("CHARLOOM_TOKEN")
    if token is not None:
        require_token("CHARLOOM_TOKEN", token)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        run(
            models,
            host=host,
            port=port,
            token=token,
            logs_prompts=log_prompts,
            hosts=hosts,
            origins=origins,
            reloads=reloads,
            limits=limits,
            while_loading=partial(limited_threads, threads),
            ready=_ready,
        )
    finally:
        _flush_log()


def _ready(address: str) -> None:
    gc.freeze()  # otherwise the collector scans JAX and the models again, which stops everything for about 80 ms
    _flush_log()  # print earlier log lines first
    print_message(f"{address}: ready (Ctrl-C stops)")


def _set_up_log() -> None:
    """Sends the server's log to standard error, one line per entry, with the time."""
    from charloom.server.logs import OneLineFormatter, QueuedHandler

    handler = QueuedHandler()
    handler.setFormatter(OneLineFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("charloom.server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _flush_log() -> None:
    for handler in logging.getLogger("charloom.server").handlers:
        handler.flush()
