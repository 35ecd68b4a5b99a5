"""`python -m benchmarks.anomalies [BUDGET [repeating]]`: how well bits per character find odd lines in a log.

The program makes the log. Its lines come from five services, each with its own messages, users, addresses, ports and
times. In the training log 1 line in 500 is odd, as in a log that was not cleaned. In the scored log 1 line in 100 is
odd. Each is odd only in light of the beginning of the line: a message of another service, a level that does not fit the
message, an address with parts that are too large, a truncated word, fields in another order, a name that does not match
the first one.

With `repeating`, three of four lines are one of a few that repeat word for word, like health checks. Copies of held-out
lines must then stay in the training part, or the model would find them odd.

It prints areas under the ROC curve, for all odd lines and for each kind, of charloom and of a 6-gram model. Lines are
rated by the mean bits of all characters, and of the three most surprising ones (`score --by peak`).
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np

import charloom
from benchmarks.quality.ngram import NgramModel
from charloom.inference import PEAK

TRAINED_ON, SCORED = 20_000, 20_000
_USERS = ("alice", "bob", "carol", "dmitri", "erin", "farid", "grace", "hiro", "ines", "jonas")
_PATHS = ("/var/lib/data", "/srv/www/html", "/home/shared", "/opt/app/releases", "/mnt/backup/daily")
_TABLES = ("orders", "customers", "invoices", "sessions", "products")

Parts = tuple[str, str, str]
"""The service, level and message of a line."""


def _address(rng: Random, highest: int = 255) -> str:
    return f"10.{rng.randint(0, 3)}.{rng.randint(0, 31)}.{rng.randint(1, highest)}"


def _ssh(rng: Random) -> Parts:
    user, where = rng.choice(_USERS), f"{_address(rng)} port {rng.randint(1024, 65535)}"
    return rng.choice(
        [
            ("sshd", "INFO", f"Accepted publickey for {user} from {where} ssh2"),
            ("sshd", "INFO", f"session opened for user {user} by {user}(uid={rng.randint(1000, 1009)})"),
            ("sshd", "WARN", f"Failed password for {user} from {where} ssh2"),
            ("sshd", "INFO", f"Disconnected from user {user} {where}"),
        ]
    )


def _web(rng: Random) -> Parts:
    status, size = rng.choice([("INFO", 200), ("INFO", 304), ("WARN", 404), ("ERROR", 502)]), rng.randint(200, 90_000)
    what = rng.choice(["GET /index.html", "GET /api/v1/orders", "POST /api/v1/login", "GET /static/app.js"])
    return "nginx", status[0], f'{_address(rng)} "{what} HTTP/1.1" {status[1]} {size}'


def _database(rng: Random) -> Parts:
    table, milliseconds = rng.choice(_TABLES), rng.randint(1, 900)
    return rng.choice(
        [
            ("postgres", "INFO", f"checkpoint complete: wrote {rng.randint(10, 4000)} buffers in {milliseconds} ms"),
            ("postgres", "INFO", f"automatic vacuum of table {table}: {rng.randint(0, 900)} pages removed"),
            ("postgres", "WARN", f"slow query on table {table}: {1000 + milliseconds} ms"),
            (
                "postgres",
                "ERROR",
                f"deadlock detected on table {table}: transaction {rng.randint(10**6, 10**7)} aborted",
            ),
        ]
    )


def _backup(rng: Random) -> Parts:
    path, count = rng.choice(_PATHS), rng.randint(1, 5000)
    return rng.choice(
        [
            ("backup", "INFO", f"copying {path} to store {path.split('/')[-1]}.tar.zst"),
            ("backup", "INFO", f"finished {path}: {count} files, 0 errors"),
            ("backup", "ERROR", f"failed {path}: {count} files, {rng.randint(1, 9)} errors"),
        ]
    )


def _scheduler(rng: Random) -> Parts:
    user = rng.choice(_USERS)
    return rng.choice(
        [
            ("cron", "INFO", f"({user}) CMD (/usr/local/bin/report --user {user})"),
            ("cron", "INFO", f"({user}) RELOAD (crontabs/{user})"),
            ("cron", "WARN", f"({user}) job still running after {rng.randint(2, 50)} minutes"),
        ]
    )


_SERVICES = (_ssh, _web, _database, _backup, _scheduler)


def _of_another_service(rng: Random) -> Parts:
    first, second = rng.sample(_SERVICES, 2)
    service, level, _ = first(rng)
    return service, level, second(rng)[2]


def _of_another_level(rng: Random) -> Parts:
    service, level, message = rng.choice(_SERVICES)(rng)
    return service, rng.choice([one for one in ("INFO", "WARN", "ERROR") if one != level]), message


def _impossible_address(rng: Random) -> Parts:
    right, wrong = _address(rng), f"10.{rng.randint(0, 3)}.{rng.randint(300, 999)}.{rng.randint(300, 999)}"
    return (
        "sshd",
        "INFO",
        f"Accepted publickey for {rng.choice(_USERS)} from {wrong} port {right[3:].replace('.', '')} ssh2",
    )


def _cut_word(rng: Random) -> Parts:
    service, level, message = rng.choice(_SERVICES)(rng)
    words = message.split(" ")
    at = max(range(len(words)), key=lambda at: len(words[at]) + rng.random())
    words[at] = words[at][: len(words[at]) // 2]
    return service, level, " ".join(words)


def _other_order(rng: Random) -> Parts:
    service, level, message = rng.choice(_SERVICES)(rng)
    words = message.split(" ")
    return service, level, " ".join(words[len(words) // 2 :] + words[: len(words) // 2])


def _wrong_name(rng: Random) -> Parts:
    one, other = rng.sample(_USERS, 2)
    return "cron", "INFO", f"({one}) CMD (/usr/local/bin/report --user {other})"


KINDS: dict[str, Callable[[Random], Parts]] = {
    "a message of another service": _of_another_service,
    "a log level that does not fit its message": _of_another_level,
    "an impossible address": _impossible_address,
    "a word cut short": _cut_word,
    "fields in another order": _other_order,
    "a repeated name that differs": _wrong_name,
}


REPEATING = (
    "INFO cron[101]: (root) CMD (run-parts /etc/cron.hourly)",
    "INFO nginx[202]: GET /health 200",
    "INFO postgres[303]: checkpoint starting: time",
    "INFO backup[404]: nothing to do",
    "WARN nginx[202]: upstream slow, retried",
)
"""Lines that repeat word for word."""


def log_lines(rng: Random, count: int, odd: float, repeating: float = 0.0) -> list[tuple[str, str]]:
    """Returns `count` lines, each with its kind: one of KINDS with probability `odd`, else "".

    A line is one of REPEATING with probability `repeating`.
    """
    lines = []
    for _ in range(count):
        if repeating and rng.random() < repeating:
            lines.append((rng.choice(REPEATING), ""))
            continue
        kind = rng.choice(list(KINDS)) if rng.random() < odd else ""
        service, level, message = (KINDS[kind] if kind else rng.choice(_SERVICES))(rng)
        lines.append((f"{level} {service}[{rng.randint(100, 32_000)}]: {message}", kind))
    return lines


def area_under_curve(odd: Sequence[float], ordinary: Sequence[float]) -> float:
    """Returns the probability that an odd line is rated higher than an ordinary one. Ties count half.

    >>> area_under_curve([3, 2], [1, 2])
    0.875
    """
    ordered = np.sort(np.asarray(ordinary))
    below, up_to = (np.searchsorted(ordered, odd, side=side).mean() for side in ("left", "right"))
    return float((below + up_to) / 2 / len(ordered))


def main() -> None:
    """Prints the table."""
    budget = sys.argv[1] if len(sys.argv) > 1 else "2m"
    rng = Random(0)
    repeating = 0.75 if "repeating" in sys.argv[2:] else 0.0
    train = [line for line, _ in log_lines(rng, TRAINED_ON, 1 / 500, repeating)]
    test = log_lines(rng, SCORED, 1 / 100, repeating)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        path.write_text("".join(f"{line}\n" for line in train))
        model = charloom.train(path, records=True, budget=budget)
    lines = [line for line, _ in test]
    ngram = NgramModel("\n".join(["", *train, ""]), 6, "".join(train + lines))
    scores = model.score_many(lines, unknown="replace")
    of_ngram = [ngram.bits(f"{line}\n", before="\n") for line in lines]
    ratings = {
        "charloom, peak": [score.peak_bits for score in scores],
        "charloom, mean": [score.bits_per_char for score in scores],
        "6-gram, peak": [sum(sorted(bits)[-PEAK:]) / PEAK for bits in of_ngram],
        "6-gram, mean": [sum(bits) / len(bits) for bits in of_ngram],
    }
    kinds = np.array([kind for _, kind in test])
    print(f"| | lines | {' | '.join(ratings)} |\n| --- | --- {'| --- ' * len(ratings)}|")
    for name in ("all odd lines", *KINDS):
        is_odd = kinds == name if name in KINDS else kinds != ""
        areas = [
            area_under_curve(np.array(one)[is_odd].tolist(), np.array(one)[kinds == ""].tolist())
            for one in ratings.values()
        ]
        print(f"| {name} | {is_odd.sum()} | {' | '.join(f'{area:.4f}' for area in areas)} |")


if __name__ == "__main__":
    main()
