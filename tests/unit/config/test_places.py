from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from heliostat.config import places
from heliostat.ports.errors import HeliostatError

HOME = Path("/home/ada")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.local/state/heliostat"),
        ({"XDG_STATE_HOME": "/x"}, "/x/heliostat"),
        ({"XDG_STATE_HOME": "relative"}, "/home/ada/.local/state/heliostat"),
        ({"XDG_STATE_HOME": "/x", "HELIOSTAT_STATE_DIR": "/mine"}, "/mine"),
        ({"HELIOSTAT_STATE_DIR": ""}, "/home/ada/.local/state/heliostat"),
    ],
)
def test_where_state_is(environ: dict[str, str], expected: str) -> None:
    assert places.state_root(environ, home=HOME) == Path(expected)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/tmp/heliostat-1000"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/heliostat"),
        ({"XDG_RUNTIME_DIR": "/run/user/1000", "HELIOSTAT_RUNTIME_DIR": "/r"}, "/r"),
    ],
)
def test_where_sockets_are(environ: dict[str, str], expected: str) -> None:
    assert places.runtime_root(environ, uid=1000) == Path(expected)


def test_a_relative_folder_of_ours_is_refused() -> None:
    with pytest.raises(HeliostatError, match="HELIOSTAT_STATE_DIR is here, a relative path"):
        places.state_root({"HELIOSTAT_STATE_DIR": "here"}, home=HOME)


def test_the_sites_file() -> None:
    assert places.site_file({}) == Path("/etc/heliostat/site.yaml")
    assert places.site_file({"HELIOSTAT_SITE_FILE": "/s.yaml"}) == Path("/s.yaml")
    assert places.site_file({"HELIOSTAT_SITE_FILE": ""}) is None


def test_files_of_a_cluster() -> None:
    state = places.state_places(Path("/s"), "demo")
    assert [str(path) for path in (state.record, state.journal, state.config)] == [
        "/s/demo/cluster.json",
        "/s/demo/journal.db",
        "/s/demo/config.yaml",
    ]
    assert [str(path) for path in (state.head_log, state.controller_log)] == [
        "/s/demo/logs/head.log",
        "/s/demo/logs/controller.log",
    ]


def test_files_of_a_gateway() -> None:
    state = places.state_places(Path("/s"), "demo")
    assert (state.gateway, state.gateway_log) == (Path("/s/demo/gateway"), Path("/s/demo/logs/gateway.log"))
    one = places.gateway_socket(Path("/r"), state.folder)
    assert one.parent == Path("/r")
    assert one != places.gateway_socket(Path("/r"), Path("/other/demo"))
    with pytest.raises(HeliostatError, match="HELIOSTAT_RUNTIME_DIR"):
        places.gateway_socket(Path("/" + "r" * 100), state.folder)


def test_runtime_folders_differ_by_owner_and_cluster() -> None:
    def folder(owner: str, uid: str) -> places.RuntimePlaces:
        return places.runtime_places(Path("/r"), owner=owner, cluster_uid=uid)

    assert len({folder("a", "1").folder, folder("b", "1").folder, folder("a", "2").folder}) == 3
    assert folder("a", "1") == folder("a", "1")
    one = folder("a", "1")
    assert len(one.folder.name) == 8
    assert one.control_socket == one.folder / "control.sock"


def test_socket_paths_have_a_limit() -> None:
    at_limit = Path("/" + "a" * 106)
    assert places.checked_socket(at_limit) == at_limit
    with pytest.raises(
        HeliostatError, match="has 108 bytes, and 107 is the system's limit; set HELIOSTAT_RUNTIME"
    ):
        places.checked_socket(Path("/" + "a" * 107))
    with pytest.raises(HeliostatError, match="has 109 bytes"):
        places.checked_socket(Path("/" + "é" * 54))


def test_a_private_folder_is_made_and_accepted_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        assert places.ensure_private_dir(folder, uid=os.getuid()) == folder
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_private_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    folder = places.ensure_private_dir(tmp_path / "a", uid=os.getuid())
    with pytest.raises(HeliostatError, match=f"belongs to user {os.getuid()}, not to you"):
        places.ensure_private_dir(folder, uid=os.getuid() + 1)
    folder.chmod(0o750)
    with pytest.raises(HeliostatError, match=rf"\(mode 0750\); run: chmod 700 {folder}"):
        places.ensure_private_dir(folder, uid=os.getuid())


def test_links_and_files_in_the_way_are_refused(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    (tmp_path / "real").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "real")
    file.write_text("")
    with pytest.raises(HeliostatError, match="is a symbolic link"):
        places.ensure_private_dir(link, uid=os.getuid())
    with pytest.raises(HeliostatError, match="is not a folder"):
        places.ensure_private_dir(file, uid=os.getuid())
    with pytest.raises(HeliostatError, match="can't be made: "):
        places.ensure_private_dir(file / "below", uid=os.getuid())


def test_a_folder_that_can_be_written(tmp_path: Path) -> None:
    places.writable_or_refuse(tmp_path / "new" / "state")
    assert list((tmp_path / "new" / "state").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "it is read-only"),
        (errno.EDQUOT, "quota is used up"),
    ],
)
def test_a_folder_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(places.os, "fsync", fails)
    with pytest.raises(HeliostatError) as caught:
        places.writable_or_refuse(tmp_path)
    assert str(caught.value).startswith(f"state folder {tmp_path} can't be used: ")
    assert words in str(caught.value)
    assert str(caught.value).endswith("set HELIOSTAT_STATE_DIR to another folder")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_really_takes_no_files() -> None:
    # /proc takes no files from anyone, root included.
    with pytest.raises(HeliostatError, match="state folder /proc/heliostat can't be used"):
        places.writable_or_refuse(Path("/proc/heliostat"))
