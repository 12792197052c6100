"""The page on this backend: its cluster files load, and its keys are those that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heliostat.config.checks import BackendKeys
from heliostat.config.cluster_file import load_cluster_file
from heliostat.providers import local
from heliostat.providers.slurm import check_options, check_section
from heliostat.providers.slurm.keys import OPTION_KEYS, SECTION_KEYS
from heliostat.providers.slurm.options import job_options, parse_section

PAGE = (Path(__file__).parents[4] / "docs" / "backends" / "slurm.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```yaml\n(provider:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BACKENDS = {
    "local": BackendKeys(local.check_section, local.check_options),
    "slurm": BackendKeys(check_section, check_options),
}


def documented() -> set[str]:
    begin = PAGE.index("## Every key")
    tables = PAGE[begin : PAGE.index("\n## ", begin + 1)]
    cells = re.findall(r"^\| ([^|]+?) \|", tables, re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`([a-z_]+)`", cell)}


def test_every_key_is_documented_and_no_other() -> None:
    assert documented() == set(SECTION_KEYS) | set(OPTION_KEYS)


@pytest.mark.parametrize("text", FILES)
def test_a_documented_cluster_file_is_right(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"cluster_name: mine\nmax_workers: 8\n{text}", encoding="utf-8")
    spec = load_cluster_file(path, backends=BACKENDS)
    section = parse_section(spec.backends["slurm"])
    for one in (*spec.policy.node_types, spec.head_type):
        if one.backend == "slurm":
            job_options(section, one.options)


def test_there_are_documented_cluster_files() -> None:
    assert len(FILES) == 3
