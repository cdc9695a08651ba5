"""What commands write to a log."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOGGERS = """
import logging
from app.commands.console import log_to_stderr
log_to_stderr({level!r})
for name in ("tongues.engine", "botocore.parsers", "httpcore2.http11", "httpx2"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).info("info of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
"""


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", {"debug of tongues.engine", "info of tongues.engine", "info of botocore.parsers"}),
        ("info", {"info of tongues.engine", "info of botocore.parsers"}),
        ("warning", set()),
    ],
)
def test_clients_of_buckets_and_hubs_never_tell_all_that_they_send(level, written):
    """AWS's keys among it."""
    command = [sys.executable, "-c", LOGGERS.format(level=level)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    told = {line.split(" ", 4)[-1] for line in lines}
    warnings = {f"warning of {name}" for name in ("tongues.engine", "botocore.parsers", "httpcore2.http11", "httpx2")}
    assert told - {"info of httpcore2.http11"} == written | warnings


QUIET = """
import logging, os, sys
from app.commands.console import only_python_tells
try:
    with only_python_tells():
        os.write(2, b"a bar of KenLM\\n")
        print("told", file=sys.stderr)
        logging.warning("warned")
        raise OSError
except OSError:
    os.write(2, b"after\\n")
    print("the end", file=sys.stderr)
"""


def test_what_libraries_write_is_kept_back_and_what_python_tells_comes():
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["told", "WARNING:root:warned", "after", "the end"]


def test_where_standard_error_is_closed_there_is_nothing_to_keep_back():
    code = "from app.commands.console import only_python_tells\nwith only_python_tells(): print('said')"
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "said\n"
