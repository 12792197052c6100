"""One real Slurm of four nodes for the session, and a way to have another of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import slurm_site
from tests.integration.slurm.login import NAME, Login
from tests.slurm_site import SlurmSite


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what is missing before any test's own time begins."""
    here = [
        one
        for one in session.items
        if isinstance(one, pytest.Function) and one.path.parent == Path(__file__).parent
    ]
    if here and not session.config.option.collectonly:
        slurm_site.obstacle(accounting=any("accounting_folder" in one.fixturenames for one in here))


@pytest.fixture(scope="session")
def slurm_folder(private_folder: Path) -> Path:
    """A folder in which sites can be made."""
    give_up_over(slurm_site.obstacle())
    folder = private_folder / "slurm"
    folder.mkdir()
    # Another user's jobs must reach what is in it; what is private has a mode of its own.
    private_folder.chmod(0o711)
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="session")
def accounting_folder(slurm_folder: Path) -> Path:
    """A folder in which sites with accounting can be made."""
    give_up_over(slurm_site.obstacle(accounting=True))
    return slurm_folder


def give_up_over(obstacle: str | None) -> None:
    """Skip the test where no Slurm can run; CI must be able to."""
    if obstacle and os.environ.get("CI") == "true":
        pytest.fail(obstacle)
    if obstacle:
        pytest.skip(obstacle)


@pytest.fixture(scope="session")
def shared_site(slurm_folder: Path) -> Iterator[SlurmSite]:
    with slurm_site.start(slurm_folder / "shared") as site:
        yield site


@pytest.fixture
def slurm(shared_site: SlurmSite) -> Iterator[SlurmSite]:
    """The session's site: n1 to n4, all idle before the test, and no job of the test left after it."""
    shared_site.wait_for(shared_site.all_idle, "all nodes are idle")
    yield shared_site
    shared_site.cancel_all()


@pytest.fixture
def login(slurm: SlurmSite, tmp_path: Path) -> Iterator[Login]:
    made = Login(slurm, tmp_path)
    yield made
    if made.record is not None:
        made.run("down", NAME)
