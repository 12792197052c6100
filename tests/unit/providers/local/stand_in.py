"""A stand-in for the bootstrap: says that it runs, sleeps, and ends on TERM.

The start document's `behaviour` chooses: `deaf` ignores TERM, `child` leaves a child
behind that ignores TERM, `bare` one without any environment besides, as those look that
changed their title, and `other` one with an environment that is not ours; `crash` ends
at once with exit code 7, `dump` writes its environment beside the status file.
"""

import json
import os
import signal
import subprocess
import sys
import time

with open(sys.argv[1], encoding="utf-8") as file:
    start = json.load(file)
behaviour = start.get("behaviour", "")
print("bootstrap: here I am", flush=True)
if behaviour == "crash":
    print("bootstrap: no such cluster", flush=True)
    print("a line of somebody else", flush=True)
    sys.exit(7)
if behaviour == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
if behaviour == "child":
    subprocess.Popen([sys.executable, "-S", "-c", script], start_new_session=True)
if behaviour in {"bare", "other"}:
    environment = {} if behaviour == "bare" else {"PATH": "/usr/bin:/bin"}
    child = subprocess.Popen([sys.executable, "-S", "-c", script], env=environment)
    print(f"child {child.pid}", flush=True)
if behaviour == "dump":
    with open(start["status_file"] + ".environ", "w", encoding="utf-8") as file:
        json.dump(dict(os.environ), file)
with open(start["status_file"] + ".new", "w", encoding="utf-8") as file:
    json.dump({"state": "running"}, file)
os.replace(start["status_file"] + ".new", start["status_file"])
time.sleep(300)
