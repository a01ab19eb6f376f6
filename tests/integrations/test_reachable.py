"""Whether a server answers: what counts as an answer, and what is left to MLflow."""

import time

import pytest
from servers import Front, free_port

from uniformity_callbacks.integrations import reachable
from uniformity_callbacks.integrations.reachable import ask


@pytest.fixture
def front():
    front = Front(free_port())
    yield front
    front.close()


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 500])
def test_whatever_a_server_says_of_its_own_is_an_answer(front, status):
    front.status = status
    ask(front.uri)
    ask(front.uri + "/")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_said_instead_of_a_server_is_none(front, status):
    front.status = status
    with pytest.raises(ConnectionError, match=f"{front.uri} answers {status}"):
        ask(front.uri)


def test_nobody_there():
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionError, match=rf"no answer from {uri}: \[Errno 111\] Connection refused"):
        ask(uri)
    with pytest.raises(ConnectionError, match=r"no answer from http://mlflow\.invalid: [^:]+$"):
        ask("http://mlflow.invalid")


def test_no_answer_in_time(front, monkeypatch):
    monkeypatch.setattr(reachable, "_PATIENCE_S", 0.2)
    front.status, front.delay = 200, 2.0
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="Read timed out"):
        ask(front.uri)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("uri", ["sqlite:///no/such/file.db", "databricks", "file:./x", "http://[::1"])
def test_what_is_no_address_of_a_server_is_left_to_mlflow(uri):
    ask(uri)


def test_certificates_are_left_to_mlflow(front):
    front.status = 200
    ask(front.uri.replace("http:", "https:"))
