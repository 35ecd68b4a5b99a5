"""Clients that disconnect, readers that do not read, damaged files, and shutdown."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace

import httpx
import jax

import charloom
from tests.server.conftest import eventually, model_of, serving


def request(server, **body):
    data = json.dumps({"prompt": "a", "stream": True, **body}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def storm(server, rng, clients):
    """Sends complete and incomplete requests, reads some responses partly, and resets or closes each connection."""
    connections = []
    for number in range(clients):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        whole = request(server, max_tokens=5_000, seed=number, n=rng.choice([1, 1, 3]), logprobs=rng.choice([None, 2]))
        connection.sendall(whole[: rng.choice([len(whole), len(whole), rng.randrange(len(whole))])])
        connections.append(connection)
        if rng.random() < 0.3:
            time.sleep(rng.random() / 50)
    for connection in connections:
        if rng.random() < 0.5:
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                connection.recv(rng.choice([1, 100, 10_000]))
        if rng.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def is_idle(server):
    return server.metric("charloom_active_texts") == 0 and server.metric("charloom_queued_texts") == 0


def is_at_rest(server):
    """Returns whether nothing is generated for half a second."""
    generated = server.metric("charloom_characters")
    time.sleep(0.5)
    return server.metric("charloom_characters") == generated


def test_clients_that_disconnect_leave_nothing_behind(model_files, tmp_path):
    rng = random.Random(0)
    with serving(tmp_path, model_files["letters"]) as server:
        expected = server.complete("the ", seed=9, max_tokens=2_000)["choices"]
        storm(server, rng, 60)
        assert eventually(lambda: is_idle(server))
        sizes = []
        for _ in range(20):
            others = threading.Thread(target=storm, args=(server, rng, 60))
            others.start()
            # A client that stays gets the same text as without the others.
            assert server.complete("the ", seed=9, max_tokens=2_000)["choices"] == expected
            others.join()
            assert eventually(lambda: is_idle(server))
            sizes.append(server.memory())
        # The first storms make the allocators grow; later ones must not.
        # The minimum of five measurements counts, because memory is returned some seconds after a storm.
        assert min(sizes[15:]) - min(sizes[10:15]) < 4e6
        files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
        assert eventually(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= min(files, 40))


def test_slow_readers_pause_their_texts_and_do_not_affect_others(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], "--max-tokens", 1_000_000) as server:
        before = server.memory()
        lazy = []
        for number in range(5):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request(server, max_tokens=1_000_000, seed=number))
            lazy.append(connection)
        # Their texts are paused until they read.
        assert eventually(lambda: server.metric("charloom_active_texts") == 5)
        assert eventually(lambda: is_at_rest(server))
        assert server.metric("charloom_characters") < 5 * 1_000_000
        assert server.metric("charloom_active_texts") == 5
        assert len(server.complete("b", max_tokens=5_000)["choices"][0]["text"]) == 5_000
        assert server.memory() - before < 40e6
        # One of them begins to read, and gets everything.
        text, held = "", b""
        while b"[DONE]" not in held[-100:] and len(text) < 100_000:
            held += lazy[0].recv(1 << 20)
            *lines, held = held.split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        model = charloom.load(model_files["letters"])
        assert model.generate("a", len(text), temperature=1.0, seed=0)[1:] == text
        for connection in lazy:
            connection.close()
        assert eventually(lambda: is_idle(server))


def test_a_changed_file_is_reloaded_and_a_damaged_one_is_not(model_files, tmp_path):
    path = tmp_path / "model.safetensors"
    old, new = model_files["letters"].read_bytes(), None
    path.write_bytes(old)
    model_of(7).save(tmp_path / "new.safetensors")
    new = (tmp_path / "new.safetensors").read_bytes()
    asked = {"seed": 1, "max_tokens": 60}
    of_old, of_new = (charloom.load(one) for one in (model_files["letters"], tmp_path / "new.safetensors"))
    texts = [model.generate("a", 60, temperature=1.0, seed=1)[1:] for model in (of_old, of_new)]
    assert texts[0] != texts[1]
    with serving(tmp_path, path, "--reload", "--max-tokens", 300_000) as server:
        assert server.complete("a", **asked)["choices"][0]["text"] == texts[0]
        with server.client.stream(
            "POST",
            f"{server.url}/v1/completions",
            json={"prompt": "a", "seed": 1, "max_tokens": 300_000, "stream": True},
        ) as stream:
            lines = stream.iter_lines()
            text = json.loads(next(lines).removeprefix("data: "))["choices"][0]["text"]
            path.write_bytes(new[: len(new) // 2])
            assert eventually(lambda: "model: keeping the loaded model" in server.log)
            assert server.complete("a", **asked)["choices"][0]["text"] == texts[0]
            path.unlink()
            time.sleep(1.5)
            assert server.complete("a", **asked)["choices"][0]["text"] == texts[0]
            path.write_bytes(new)
            assert eventually(lambda: server.metric("charloom_reloads") == 1)
            assert server.complete("a", **asked)["choices"][0]["text"] == texts[1]
            # A text in progress continues with the old model.
            for line in lines:
                if line.startswith("data: {"):
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
        assert text == of_old.generate("a", 300_000, temperature=1.0, seed=1)[1:]
        assert server.log.count("keeping the loaded model") == 1


def takes_no_more(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_running_requests_finish_before_shutdown(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], "--max-tokens", 300_000) as server:
        body = {"prompt": "a", "seed": 1, "max_tokens": 200_000, "stream": True}
        with server.client.stream("POST", f"{server.url}/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: takes_no_more(server))
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.process.wait(60) == 0


def test_requests_that_do_not_finish_are_ended_at_shutdown(model_files, tmp_path):
    limits = {"drain_timeout": 1, "max_tokens": 10**9}
    with serving(tmp_path, model_files["letters"], limits=limits) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(request(server, max_tokens=10**9))
        assert connection.recv(100)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        connection.close()


def test_readers_that_never_read_are_disconnected(model_files, tmp_path):
    limits = {"reader_timeout": 1, "timeout": 4, "max_streams": 3, "max_queue": 1, "max_tokens": 10**7}
    with serving(tmp_path, model_files["letters"], limits=limits) as server:
        lazy = []
        for number in range(3):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request(server, max_tokens=10**7, seed=number))
            lazy.append(connection)
        assert eventually(lambda: server.metric("charloom_active_texts") == 3)
        assert eventually(lambda: server.metric("charloom_active_texts") == 0)
        assert server.complete("a", n=3)
        # A client that reads slowly is also subject to the request timeout.
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(request(server, max_tokens=10**7))
            assert slow.recv(1)
            with contextlib.suppress(ConnectionResetError):
                while slow.recv(20_000):  # the timeout ends it
                    time.sleep(0.2)
            assert eventually(lambda: server.metric("charloom_active_texts") == 0)
        for connection in lazy:
            connection.close()


def test_a_stream_that_shutdown_ends_contains_the_reason(model_files, tmp_path):
    limits = {"drain_timeout": 2, "max_tokens": 10**9}
    with serving(tmp_path, model_files["letters"], limits=limits) as server:
        body = {"prompt": "a", "max_tokens": 10**9, "stream": True}
        with server.client.stream("POST", f"{server.url}/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stopping"
        assert server.process.wait(60) == 0


def test_sigterm_while_a_text_is_scored(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], limits={"drain_timeout": 1}) as server:
        slow = {"input": ["a" * 60] * 1000, "prompt": "a" * 900, "per": "char"}
        thread = threading.Thread(target=post_quietly, args=(server, slow))
        thread.start()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        thread.join()


def test_scores_that_shutdown_ends_get_an_error(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], limits={"drain_timeout": 1}) as server:
        slow = {"input": ["a" * 60] * 1000, "prompt": "a" * 900, "per": "char"}
        answers = []
        threads = [threading.Thread(target=post_and_keep, args=(server, slow, answers)) for _ in range(30)]
        for thread in threads:
            thread.start()
        # All 30 must be queued, because the system refuses connections that the server has not accepted.
        assert eventually(lambda: server.metric("charloom_queued_scores") + len(answers) >= 30, 60)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert server.process.wait(60) == 0
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) == 30
    assert refused
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in refused} == {(503, "stopping")}
    assert server.log.count("POST /v1/score 503") == len(refused)


def post_and_keep(server, body, answers):
    answers.append(server.post("/v1/score", body))


def post_quietly(server, body):
    with contextlib.suppress(httpx.HTTPError):
        server.post("/v1/score", body)


def charloom_serve(*arguments, **environment):
    port = () if "--port" in arguments else ("--port", "0")  # another program may use the default port
    command = [sys.executable, "-m", "charloom", "serve", *map(str, arguments), *port]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_startup_errors_are_one_line(model_files, tmp_path, api):
    model = model_files["letters"]
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(model.read_bytes()[:500])
    broken = tmp_path / "broken.safetensors"
    whole = charloom.load(model)
    replace(whole, network=jax.tree.map(lambda weights: weights * float("nan"), whole.network)).save(broken)
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / model.name
    twin.write_bytes(model.read_bytes())
    for status, words, arguments in [
        (2, "MODEL", ()),
        (2, "--port", (model, "--port", "70000")),
        (2, "--max-streams", (model, "--max-streams", "0")),
        (2, "--timeout", (model, "--timeout", "-1")),
        (2, "--threads", (model, "--threads", "0")),
        (2, "--cors", (model, "--cors", "example.org")),
        (2, "--allow-host", (model, "--allow-host", "http://example.org/")),
        (1, "NaN or infinite", (broken,)),
        (1, "none.safetensors", (tmp_path / "none.safetensors",)),
        (1, "damaged.safetensors", (damaged,)),
        (1, "both named letters", (model, twin)),
        (1, f"port {api.port}", (model, "--port", api.port)),
        (1, "cannot listen on", (model, "--host", "no.such.host.invalid")),
    ]:
        done = charloom_serve(*arguments)
        assert done.returncode == status, (arguments, done.stderr)
        lines = [line for line in done.stderr.splitlines() if line.startswith("charloom: ")]
        assert len(lines) == 1, done.stderr
        assert words in lines[0]
        assert "Traceback" not in done.stderr


def test_ctrl_c_stops_the_server(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"]) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130
        assert "Exception ignored" not in server.log
        assert "Traceback" not in server.log


def test_an_unread_log_does_not_block_the_server(model_files):
    command = [sys.executable, "-m", "charloom", "serve", str(model_files["letters"]), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not (found := re.search(r"(http://\S+): ready", line := process.stderr.readline())):
            assert line
        with httpx.Client(timeout=60) as client:
            for _ in range(2_000):  # a pipe holds about 1,200 lines
                assert client.get(f"{found[1]}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_kept_responses_share_a_memory_budget_and_release_it(model_files, tmp_path):
    limits = {"answer_bytes": 3_000_000, "max_tokens": 10**9}
    with serving(tmp_path, model_files["letters"], limits=limits) as server:
        large = {"prompt": "a", "max_tokens": 40_000, "logprobs": 4}  # 2.4 MB
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as leaving:
            leaving.sendall(request(server, **large, stream=False))
            assert eventually(lambda: server.metric("charloom_answer_bytes") == 2_400_000, 60)
            refused = server.post("/v1/completions", {**large, "max_tokens": 20_000})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "answers_full")
            assert refused.headers["retry-after"] == "1"
            assert server.complete("a", max_tokens=20, logprobs=4)  # fits into the budget
            assert server.complete("a", max_tokens=5_000)  # reserves no memory
        assert eventually(lambda: server.metric("charloom_answer_bytes") == 0, 60)
        assert eventually(lambda: is_idle(server), 60)


def test_a_server_whose_engine_dies_reports_it_and_exits(model_files, tmp_path):
    program = (
        "import charloom.server.batch_scheduler as scheduler\n"
        "scheduler.BatchScheduler.refresh = scheduler.BatchScheduler.abort_all = lambda self: 1 / 0\n"
        "from charloom.cli import main\n"
        "main()\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", program, "serve", str(model_files["letters"]), "--port", "0"]
    with log.open("w") as file, subprocess.Popen(command, stderr=file, stdout=file) as process:
        assert eventually(lambda: ": ready" in log.read_text() or process.poll() is not None, 120)
        url = next(line.partition(": ready")[0] for line in log.read_text().splitlines() if ": ready" in line)
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "a"}, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
        assert process.wait(60) == 1
    assert "the engine has died" in log.read_text()
    assert log.read_text().splitlines()[-1].startswith("charloom: the engine that generates texts has died.")
