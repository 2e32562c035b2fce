import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import aiohttp
import msgspec
import pytest
from multipick_epp.admin.explain import command, lines
from multipick_epp.admin.server import Admin
from multipick_epp.admin.status import PickerStatus
from multipick_epp.decision.explained import Considered, Explained
from multipick_epp.pods.registry import Registry
from multipick_epp.state.memory import MemoryState
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import Endpoint, Mode, ReservationId

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
TOLD = Explained(
    request="r1",
    reservation=ReservationId("me-1"),
    at=1.0,
    policy="lmetric",
    mode=Mode.EXACT,
    prompt_tokens=1000,
    endpoint=B,
    why="the best of all endpoints by the policy",
    considered=[Considered(B, 900, 100, 7, 2, 321.0), Considered(A, 0, 1000, 0, 0, None)],
    endpoints=2,
    charged_tokens=100,
    queued_before=7,
    in_flight_before=2,
    first_byte_s=0.25,
    ended="whole",
    ended_s=1.5,
)


@contextmanager
def picker(status: int, body: bytes) -> Iterator[str]:
    """The admin port of a picker that answers so to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_people_read_why_and_among_whom() -> None:
    text = "\n".join(lines(TOLD))
    assert "r1: 1000 prompt tokens, lmetric, exact" in text
    assert f"sent to {B}: the best of all endpoints by the policy" in text
    assert "first byte after 0.250 s, whole after 1.500 s" in text
    assert f"* {B}" in text
    assert f"  {A}" in text


def test_the_picker_that_knows_the_request_is_found_among_several(capsys: pytest.CaptureFixture[str]) -> None:
    with picker(404, b"no such request\n") as other, picker(200, msgspec.json.encode(TOLD)) as knows:
        assert command(["r1", "--picker", other, "--picker", knows]) == 0
        assert "sent to" in capsys.readouterr().out
        assert command(["r1", "--picker", other]) == 1
        assert "no such request" in capsys.readouterr().err


def test_what_answers_but_is_no_picker_is_an_error_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with picker(200, b"<html>") as other:
        assert command(["r1", "--picker", other]) == 1
    assert "multipick explain: http://" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said", [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
)
def test_a_port_of_another_protocol_and_half_an_answer_are_told_in_one_line(
    said: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert command(["r1", "--picker", url]) == 1
        thread.join()
    told = capsys.readouterr().err
    assert told.startswith(f"multipick explain: {url}: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(("id_", "url"), [("r1", "http://a b:1"), ("\udcff", "http://127.0.0.1:1")])
def test_an_address_or_a_name_that_none_can_have_is_told_in_one_line(
    id_: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([id_, "--picker", url]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_without_a_word_is_told_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    with picker(502, b"") as url:
        assert command(["r1", "--picker", url]) == 1
    assert "502" in capsys.readouterr().err


async def test_the_picker_answers_on_its_admin_port() -> None:
    state = MemoryState()
    admin = Admin(Metrics(), Registry(), state, state.index, status, {"r1": TOLD}.get)
    port = await admin.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/explain/r1") as answer:
                assert msgspec.json.decode(await answer.read(), type=Explained) == TOLD
            async with http.get(f"http://127.0.0.1:{port}/explain/r2") as answer:
                assert answer.status == 404
    finally:
        await admin.close()


def status() -> PickerStatus:
    raise AssertionError
