"""Keep the lock file free of any registry's address: names, versions and hashes are what it locks.

`uv lock` writes down where it found each file. This project installs from whatever index
the user's own tools are set up for, so those addresses are replaced by one under the
reserved top-level domain `.invalid`. The hashes stay, and the install requires them.

    python tools/neutral_lock.py          rewrite uv.lock
    python tools/neutral_lock.py --check  exit 1 if it names any other address
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "uv.lock"
NEUTRAL = "https://package-index.invalid"
_ADDRESS = re.compile(r'(?P<key>\b(?:registry|url) = ")https?://[^/"]+')


def neutral(text: str) -> str:
    """Return the lock with every registry's and file's host replaced; idempotent."""
    return _ADDRESS.sub(rf"\g<key>{NEUTRAL}", text)


def strangers(text: str) -> list[str]:
    """Return every address in `text` that is not the neutral one, once each."""
    return sorted({found for found in re.findall(r"\w+://[^/\"\s]+", text) if found != NEUTRAL})


def main(arguments: list[str]) -> int:
    """Rewrite the lock, or check it; return the exit code."""
    text = LOCK.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        for address in strangers(text):
            print(f"{LOCK.name}: names {address}; run `make lock`, or `python tools/neutral_lock.py`")
        return 1 if strangers(text) else 0
    if arguments:
        print(__doc__)
        return 2
    LOCK.write_text(neutral(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
