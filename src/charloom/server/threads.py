"""Runs functions in threads that do not delay the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Returns what `work` returns, or raises what it raises. It runs in a daemon thread.

    `asyncio.to_thread` does the same, but the event loop and the interpreter wait for its threads when they end.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work(*arguments, **named)
        except BaseException as error:  # raised again where the result is awaited
            _resolve(loop, done, done.set_exception, error)
        else:
            _resolve(loop, done, done.set_result, result)

    threading.Thread(target=run, name="charloom work", daemon=True).start()
    return await done


def interruptibly(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Returns what `work` returns, or raises what it raises. Signals are handled meanwhile.

    Python handles signals in the main thread between two bytecode instructions, and a native call may take minutes.
    So the work runs in another thread, and this one only waits.
    """
    found: list[T] = []
    problems: list[BaseException] = []
    is_done = threading.Event()

    def run() -> None:
        try:
            found.append(work(*arguments, **named))
        except BaseException as error:  # raised again in the main thread
            problems.append(error)
        finally:
            is_done.set()

    threading.Thread(target=run, name="charloom work", daemon=True).start()
    while not is_done.wait(0.2):
        pass
    if problems:
        raise problems[0]
    return found[0]


def _resolve(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], set_outcome: Callable[[Any], None], what: Any
) -> None:
    def resolve() -> None:
        if not done.done():
            set_outcome(what)

    try:
        loop.call_soon_threadsafe(resolve)
    except RuntimeError:  # the loop is closed
        return
