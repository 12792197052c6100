"""The server that keeps a head's state, against a real Valkey: our keys and no others, plain words."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.gcs_storage import GcsStorage, namespace_of
from heliostat.ports.errors import StorageError
from heliostat.raylink.resp import RespLink
from heliostat.raylink.storage import (
    check_storage,
    forget_state,
    has_state,
    password_of,
    pattern_of,
)
from tests.integration.real_head import free_port
from tests.valkey import Valkey, valkey

PASSWORD = "s3cret of the t+st%s"
UID, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey"), password=f'"{PASSWORD}"') as found:
        found.password = PASSWORD
        found.password_file.write_text(f"{PASSWORD}\n")
        yield found


@pytest.fixture(autouse=True)
def empty(server: Valkey) -> None:
    with server.link() as link:
        link.call("FLUSHALL")


def write(server: Valkey, *keys: str) -> None:
    with server.link() as link:
        for key in keys:
            link.call("HSET", key, "field", b"\0\r\n\xff")


def test_only_this_clusters_keys_go(server: Valkey) -> None:
    mine = [f"RAY{namespace_of(UID)}@{table}" for table in ("KV", "NODE", "JobCounter")]
    others = [
        f"RAY{namespace_of(OTHER)}@KV",
        "RAYdefault@KV",
        f"RAY{namespace_of(UID)}",
        f"x{mine[0]}",
        "what a site keeps there",
    ]
    write(server, *mine, *others)
    assert has_state(server.storage, {}, cluster_uid=UID)
    assert forget_state(server.storage, {}, cluster_uid=UID) == 3
    assert server.names() == sorted(others)
    assert not has_state(server.storage, {}, cluster_uid=UID)
    assert forget_state(server.storage, {}, cluster_uid=UID) == 0


def test_more_keys_than_one_look_shows_are_all_found(server: Valkey) -> None:
    write(server, *(f"RAY{namespace_of(OTHER)}@{number}" for number in range(2500)))
    write(server, *(f"RAY{namespace_of(UID)}@{number}" for number in range(1500)))
    assert forget_state(server.storage, {}, cluster_uid=UID) == 1500
    assert len(server.names()) == 2500


def test_the_check_leaves_nothing(server: Valkey) -> None:
    check_storage(server.storage, {}, probe="here-1")
    assert server.names() == []


def test_the_password_may_be_in_a_variable(server: Valkey) -> None:
    storage = replace(server.storage, password_file="", password_env="VALKEY_PASSWORD")
    check_storage(storage, {"VALKEY_PASSWORD": PASSWORD}, probe="x")
    with pytest.raises(StorageError, match="in the variable VALKEY_PASSWORD, which is not set here"):
        check_storage(storage, {}, probe="x")


def test_a_user_of_its_own_is_enough(server: Valkey) -> None:
    with server.link() as link:
        # As docs/head-recovery.md has it.
        rights = ("~RAYheliostat-*", "~DUMMY", "+@all", "-@dangerous", "+info")
        link.call("ACL", "SETUSER", "ray", "reset", "on", f">{PASSWORD}2", *rights)
    storage = replace(server.storage, username="ray", password_file="", password_env="P")
    check_storage(storage, {"P": f"{PASSWORD}2"}, probe="x")
    write(server, f"RAY{namespace_of(UID)}@KV")
    assert forget_state(storage, {"P": f"{PASSWORD}2"}, cluster_uid=UID) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password_file": "", "password_env": "WRONG"}, "WRONGPASS"),
        ({"password_file": ""}, "NOAUTH"),
        ({"username": "nobody"}, "WRONGPASS"),
        ({"host": "host.invalid"}, "redis://host.invalid:"),
    ],
)
def test_what_is_wrong_is_said_in_the_servers_words(
    server: Valkey, change: dict[str, str], said: str
) -> None:
    storage = replace(server.storage, **change)
    with pytest.raises(StorageError, match=said) as caught:
        check_storage(storage, {"WRONG": "not the passw0rd"}, probe="x")
    assert PASSWORD not in str(caught.value)
    assert "passw0rd" not in str(caught.value)


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (("~*", "+@read", "+info"), "says to HSET RAYheliostat-check-x@probe: NOPERM"),
        (("~*", "+@all", "-@dangerous"), "says to INFO CLUSTER: NOPERM"),
        (("~RAYheliostat-*", "+@all"), "says to EXISTS DUMMY: NOPERM"),
    ],
)
def test_what_ray_would_fail_for_is_found_before(server: Valkey, rights: tuple[str, ...], said: str) -> None:
    with server.link() as link:
        link.call("ACL", "SETUSER", "poor", "reset", "on", ">p", *rights)
    storage = replace(server.storage, username="poor", password_file="", password_env="P")
    with pytest.raises(StorageError, match=said):
        check_storage(storage, {"P": "p"}, probe="x")


def test_nothing_listens() -> None:
    port = free_port()
    with pytest.raises(StorageError, match=rf"redis://127\.0\.0\.1:{port}: Connection refused"):
        check_storage(GcsStorage("127.0.0.1", port), {}, probe="x")


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """Take one connection; say `answer` to the first command and hang up, or, for None, say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                if answer is None:
                    over.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join(10)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Redis's protocol"),
        (b"", "closed the connection"),
        (b"$12\r\ncut", "closed the connection"),
        (b":not a number\r\n", "does not speak Redis's protocol"),
        (None, r"no answer within 0\.1 s"),
    ],
)
def test_who_does_not_speak_the_protocol_is_said_to(answer: bytes | None, said: str) -> None:
    with (
        answering(answer) as port,
        pytest.raises(StorageError, match=said),
        RespLink(GcsStorage("127.0.0.1", port), "", deadline_s=0.1) as link,
    ):
        link.call("PING")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o640), "others can read the password file .*: run `chmod 600"),
        (lambda path: path.write_text("\n"), "holds no password"),
        (lambda path: path.write_text("one\ntwo\n"), "holds no password"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "it is not text"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_password_file_is_one_line_for_its_owner(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "password"
    path.touch(0o600)
    path.write_text("open sesame\r\n")
    storage = GcsStorage("h", 1, password_file=str(path))
    assert password_of(storage, {}) == "open sesame"
    spoil(path)
    with pytest.raises(StorageError, match=said):
        password_of(storage, {})


def test_the_pattern_is_what_people_are_told(server: Valkey) -> None:
    assert pattern_of("ab") == "RAYheliostat-ab@*"


# -- TLS: what Valkey itself can do is put in front of it, as a site does with a terminating proxy.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    pair = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *pair]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return folder


@contextmanager
def behind_tls(server: Valkey, certificate: Path) -> Iterator[int]:
    """Forward one connection after another to the server, decrypted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                    with context.wrap_socket(plain, server_side=True) as outside:
                        forward(outside, server.port)
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def forward(outside: ssl.SSLSocket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as inside:
        while question := outside.recv(65536):
            inside.sendall(question)
            outside.sendall(inside.recv(65536))


def test_tls_is_checked_against_the_authority(server: Valkey, certificate: Path) -> None:
    with behind_tls(server, certificate) as port:
        storage = replace(server.storage, host="localhost", port=port, tls=True)
        check_storage(replace(storage, ca_cert=str(certificate / "cert.pem")), {}, probe="x")
        with pytest.raises(StorageError, match="its certificate is not to be trusted: self-signed"):
            # Any other authority: the system's own.
            check_storage(replace(storage, ca_cert=""), {}, probe="x")


def test_a_ca_cert_that_is_not_there_is_said(server: Valkey) -> None:
    storage = replace(server.storage, tls=True, ca_cert="/nonexistent.pem")
    with pytest.raises(StorageError, match="No such file"):
        check_storage(storage, {}, probe="x")
