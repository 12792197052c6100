"""A stand-in for the bootstrap in Slurm jobs without Ray: says that it runs, sleeps, and ends on TERM.

With `claims` in its start document it claims its instance first, as the bootstrap does: of two with one
id the later one ends. The document's `behaviour` chooses: `crash` ends at once with exit code 7, `deaf`
ignores TERM, `die` kills itself, `fill` uses up more memory than the job has, `tell` writes its document
and environment into the folder `told`.
"""

import base64
import json
import os
import signal
import sys
import time

start = json.loads(base64.b64decode(os.environ["HELIOSTAT_START"]))
behaviour = start.get("behaviour", "")
print("bootstrap: here I am", flush=True)
if start.get("claims"):
    try:
        os.mkdir(f"claim-{start['instance_id']}")
    except FileExistsError:
        print("bootstrap: another has this instance", flush=True)
        sys.exit(10)
if behaviour == "crash":
    print("bootstrap: no such cluster", flush=True)
    print("a line of somebody else", flush=True)
    sys.exit(7)
if behaviour == "tell":
    with open(f"{start['told']}/{start['instance_id']}.json", "w", encoding="utf-8") as file:
        json.dump({"start": start, "environment": dict(os.environ)}, file)
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else lambda *_: sys.exit(0))
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
signal.signal(signal.SIGUSR1, lambda *_: print("bootstrap: the lease ends soon", flush=True))
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))
if behaviour == "die":
    os.kill(os.getpid(), signal.SIGKILL)
held = []
while behaviour == "fill":
    held.append(b"x" * 2**25)
    time.sleep(0.1)
until_s = time.monotonic() + 600
while time.monotonic() < until_s:
    time.sleep(1)
