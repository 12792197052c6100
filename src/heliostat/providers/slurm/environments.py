"""The part of a job script that makes an environment once for all jobs, and enters it. Pure.

An environment is known by what it is made of: the tool, the head's Python, the text of the file.
It is made in a folder of the job's own and published by one link, which appears whole or not at
all. The lock, a folder, only saves work: if two should make one environment, the first link
counts, and the other job takes that and removes its own. Locks of files are not relied on; shared
file systems differ. A lock that its holder has not touched for `STALE_S` is taken over.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from heliostat.providers.slurm.keys import EnvironmentFile

STALE_S = 180
TOUCH_S = 20
LOOK_S = 3
ENV_FAILED = 22
"""The job script's exit code."""

SCRIPT = r"""
heliostat_step=@step@
heliostat_file=@file@
[ -r "$heliostat_file" ] || heliostat_end @code@ "@key@: $heliostat_file can't be read on this node"
command -v @tool@ >/dev/null \
    || heliostat_end @code@ "@key@: there is no @tool@ on this node; a setup line may load it"
heliostat_key=$({ printf '%s\n' @tool@ @python@; cat "$heliostat_file"; } | sha256sum)
heliostat_env=@root@/@tool@-${heliostat_key:0:16}
heliostat_make() {
    rm -rf "$heliostat_env".made-*
    local made="$heliostat_env.made-$SLURM_JOB_ID"
    @make@ </dev/null || { rm -rf "$made"; return 1; }
    "$made/bin/python" -I -c @check@ || { rm -rf "$made"; return 1; }
    ln -sT "$made" "$heliostat_env" 2>/dev/null || rm -rf "$made"
}
# `read` from a pipe that nobody writes to is a sleep without a process that could be left behind.
heliostat_touch() {
    until read -r -t @touch@; do
        kill -0 $$ && [ -d "$heliostat_lock" ] || return
        touch "$heliostat_lock"
    done <> <(:)
}
heliostat_lock="$heliostat_env.lock"
heliostat_seen='' heliostat_since=$SECONDS
mkdir -p @root@
until [ -e "$heliostat_env/bin/python" ]; do
    if mkdir "$heliostat_lock" 2>/dev/null; then
        heliostat_say "making the environment $heliostat_env"
        heliostat_touch >/dev/null 2>&1 &
        heliostat_toucher=$!
        heliostat_make
        heliostat_code=$?
        kill "$heliostat_toucher"
        rmdir "$heliostat_lock"
        [ $heliostat_code -eq 0 ] \
            || heliostat_end @code@ "@key@: no environment could be made of $heliostat_file"
        continue
    fi
    heliostat_now=$(stat -c %y "$heliostat_lock" 2>/dev/null)
    [ "$heliostat_now" = "$heliostat_seen" ] || { heliostat_seen=$heliostat_now; heliostat_since=$SECONDS; }
    if [ $((SECONDS - heliostat_since)) -gt @stale@ ]; then
        heliostat_say "the lock $heliostat_lock is not held any more"
        mv -T "$heliostat_lock" "$heliostat_lock.$SLURM_JOB_ID" 2>/dev/null \
            && rmdir "$heliostat_lock.$SLURM_JOB_ID"
        heliostat_since=$SECONDS
    fi
    sleep @look@
done
heliostat_env=$(readlink -f "$heliostat_env")
@enter@
heliostat_python="$heliostat_env/bin/python"
"""

MAKE = {
    "uv": 'uv venv --quiet --python @python@ "$made"'
    ' && uv pip install --quiet --python "$made/bin/python" --requirements "$heliostat_file"',
    "conda": 'conda env create --quiet --prefix "$made" --file "$heliostat_file"',
}
ENTER = {
    "uv": '. "$heliostat_env/bin/activate"',
    "conda": 'export CONDA_PREFIX="$heliostat_env" PATH="$heliostat_env/bin:$PATH"\n'
    'for heliostat_file in "$heliostat_env"/etc/conda/activate.d/*.sh; do\n'
    '    [ -r "$heliostat_file" ] && . "$heliostat_file"\ndone',
}

CHECK = """
import importlib.metadata, sys
wanted = {wanted!r}
found = {{"Python": "%d.%d" % sys.version_info[:2]}}
try:
    found["Ray"] = importlib.metadata.version("ray")
except importlib.metadata.PackageNotFoundError:
    found["Ray"] = "missing"
differ = [one for one in wanted if found[one] != wanted[one]]
words = ["its %s is %s, the head has %s" % (one, found[one], wanted[one]) for one in differ]
if words:
    sys.exit("bootstrap: the environment does not fit the head: " + "; ".join(words))
"""


def environment_lines(env: EnvironmentFile, *, root: str, start: Mapping[str, object]) -> str:
    """Return the lines that make `env` below the shared folder `root`, if it is not there, and enter it.

    They set `heliostat_python`. They use `heliostat_say` and `heliostat_end CODE TEXT` of the job script.
    `start` has the head's versions, `python_version` and `ray_version`; one that is missing is not compared.
    """
    versions = {"Python": start.get("python_version"), "Ray": start.get("ray_version")}
    wanted = {name: str(version) for name, version in versions.items() if version}
    python = shlex.quote(wanted.get("Python", "3"))
    values = {
        "make": MAKE[env.tool].replace("@python@", python),
        "enter": ENTER[env.tool],
        "check": shlex.quote(CHECK.format(wanted=wanted)),
        "step": shlex.quote(f"env.{env.tool}"),
        "file": path_word(env.file),
        "root": path_word(root),
        "tool": env.tool,
        "key": f"env.{env.tool}",
        "python": python,
        "code": str(ENV_FAILED),
        "stale": str(STALE_S),
        "touch": str(TOUCH_S),
        "look": str(LOOK_S),
    }
    text = SCRIPT
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text.strip("\n")


def path_word(path: str) -> str:
    """Return a path as one word of the shell; a leading `~/` is the home folder of whoever runs it."""
    if path.startswith("~/"):
        return '"$HOME"/' + shlex.quote(path[2:])
    return shlex.quote(path)
