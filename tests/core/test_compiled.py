"""Classes are compiled by one thread at a time: two at once may end the process.

Knows: threads that begin together. Does not know: msgspec.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each child has classes of its own that were never compiled, and three threads that need them at once.
TOGETHER = """
import os, sys, threading, types, typing
import eventfold as ef
import eventfold.store
from eventfold.core.registry import Registry
from eventfold.core.snapshot import unpack

sys.setswitchinterval(1e-6)

def classes(number):
    fields = {f"f{n}": None for n in range(40)}
    hints = {name: typing.Optional[typing.Annotated[str, name]] for name in fields}  # hashed by Python code
    return types.new_class(f"Wide{number}", (ef.Event,), {}, lambda body: body.update(fields, __annotations__=hints))

def together(work):
    start, threads = threading.Barrier(3), []
    def go():
        start.wait()
        work()
    for _ in range(3):
        threads.append(threading.Thread(target=go))
        threads[-1].start()
    for each in threads:
        each.join()

died = 0
for child in range(30):
    pid = os.fork()
    if pid == 0:
        for number in range(15):
            event = classes(number)
            if number % 2:
                together(lambda: Registry().codec(event).decode(b'{"f1":"x","f39":"y"}'))
            else:
                together(lambda: unpack(event, b'{"f1":"x","f39":"y"}'))
        os._exit(0)
    died += os.waitpid(pid, 0)[1] != 0
print(died)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_threads_that_need_a_new_class_at_once_do_not_end_the_process() -> None:
    """Three threads that meet an event class, or a state, for the first time at the same moment all get its values."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    command = [sys.executable, "-W", "ignore", "-c", TOGETHER]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout == "0\n", ran.stdout + ran.stderr[-2000:]
