"""Logs: JSON lines, with tracebacks that show code and no values."""

import json
import subprocess
import sys

_PROGRAM = """
from serai_gateway.logs import get_logger

def fail(key):
    raise ValueError("as asked")

try:
    fail("sim" + "SECRET")
except ValueError:
    get_logger("test").exception("failed", action="test")
"""


def test_a_traceback_in_the_log_names_functions_and_holds_no_values() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert (line["action"], line["part"], line["event"]) == ("test", "test", "failed")
    assert "as asked" in done.stderr
    assert '"fail"' in done.stderr
    assert "simSECRET" not in done.stderr


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    program = (
        "from serai_gateway.logs import get_logger\nget_logger('test').info('x' * 100_000, action='test')\nprint(1)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full)
    assert done.stdout == b"1\n"
