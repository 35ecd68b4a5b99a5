"""`python -m tests.cli.forks SOCKET`: runs commands in forks of one process that has imported what they need.

Importing JAX takes most of a short command's time, and the tests run hundreds of commands. Each command still has a
separate process with its own standard streams and working folder. Tests of imports start new processes instead.
"""

import array
import gc
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

# Passes on its streams, its folder and its arguments, and ends as the command ends.
_CLIENT = """
import array, json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
files = array.array("i", [0, 1, 2, os.open(".", os.O_RDONLY)])
server.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
server.sendall(json.dumps(sys.argv[2:]).encode("ascii") + b"\\n")
status = int(server.recv(16) or b"1")
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def command_through(address: Path) -> list[str]:
    """Returns the command that runs `charloom` in a fork of the process that listens at `address`."""
    return [sys.executable, "-I", "-S", "-c", _CLIENT, str(address)]


def main() -> None:
    """Imports what commands import, and forks for each command, until standard input ends."""
    from charloom.machine import own_process

    own_process()
    import charloom.cli
    import charloom.cli.run
    import charloom.report
    import charloom.runs
    import charloom.server
    import charloom.studies  # noqa: F401  # imported only for the forks

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[1])
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # this process does not wait for the children that serve commands
    gc.freeze()
    print("ready", flush=True)
    while listening in select.select([sys.stdin, listening], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve(connection)
        connection.close()


def _serve(connection: socket.socket) -> None:
    """Runs the command of one connection and sends its status; ends the command if the other side ends."""
    files = array.array("i", [0] * 4)
    _, ((_, _, data),), *_ = connection.recvmsg(1, socket.CMSG_SPACE(4 * files.itemsize))
    files = array.array("i", data)
    with connection.makefile("rb") as lines:
        arguments = json.loads(lines.readline())
    command = os.fork()
    if command == 0:
        connection.close()
        os.fchdir(files[3])
        for number, file in enumerate(files[:3]):
            os.dup2(file, number)
        for file in files:
            os.close(file)
        from charloom.cli import main

        sys.argv = ["charloom", *arguments]
        main()
    for file in files:
        os.close(file)
    process = os.pidfd_open(command)
    if process not in select.select([process, connection], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
