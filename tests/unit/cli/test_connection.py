"""What the command line makes of a server's answers, and of places that people write."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from multihost.cli.connection import Connection, NotThereError, path_of
from multihost.cli.exits import CommandError, Exit, exit_for
from multihost.cli.options import parse_place, parse_task
from multihost.errors import AuthenticationError, ConfigError, ProtocolError, ServerNotFound
from multihost.runtime.config import Target


class Canned(BaseHTTPRequestHandler):
    """Answers with what its path says: ``/STATUS/BODY``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, status, body = self.path.split("/", 2)
        if status == "hang-up":
            self.close_connection = True
            return
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.server.ports.append(self.client_address[1])
        self.wfile.write(body.encode())

    def log_message(self, *_):
        return


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        server.ports = []
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(server):
    connection = Connection(Target((f"http://127.0.0.1:{server.server_port}",), b"key"))
    yield connection
    connection.close()


def test_the_connection_is_kept(connection, server):
    assert [connection.get("/200/[1]"), connection.get("/200/[2]")] == [[1], [2]]
    assert len(set(server.ports)) == 1


def test_a_kept_connection_that_died_is_opened_again(connection, server):
    connection.get("/200/[1]")
    connection._http.sock.close()
    assert connection.get("/200/[2]") == [2]
    assert len(set(server.ports)) == 2


@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ('/401/{"error":"x"}', AuthenticationError, Exit.KEY),
        ('/404/{"error":"x"}', NotThereError, Exit.USAGE),
        ('/400/{"error":"x"}', CommandError, Exit.USAGE),
        ("/500/oops", CommandError, Exit.FAILED),
        ("/200/<html>", ProtocolError, Exit.FAILED),
    ],
)
def test_each_answer_has_its_error(connection, path, kind, code):
    with pytest.raises(kind) as caught:
        connection.get(path)
    assert exit_for(caught.value) is code


def test_a_peer_that_hangs_up_is_not_found(connection):
    with pytest.raises(ServerNotFound):
        connection.get("/hang-up/")


def test_the_key_never_crosses_a_network_in_clear():
    connection = Connection(Target(("http://192.0.2.1:7077",), b"key"))
    with pytest.raises(ConfigError, match="not encrypted"):
        connection.get("/healthz")


def test_names_are_made_safe_for_addresses():
    assert path_of("run 7/ä", "tasks") == "/api/jobs/run%207%2F%C3%A4/tasks"


@pytest.mark.parametrize(
    ("text", "place"),
    [("42", ("42", None)), ("42/7", ("42", 7)), ("run/x", ("run/x", None)), ("a/b/3", ("a/b", 3))],
)
def test_places_are_read(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["42", "run/x", ""])
def test_what_is_no_task_is_named(text):
    with pytest.raises(ConfigError, match="42/7"):
        parse_task(text)
