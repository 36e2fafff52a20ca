"""Completion of commands and options, by a real shell's protocol."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("argcomplete")


@pytest.mark.parametrize(
    ("typed", "found"),
    [("bayesdd rep", ["report "]), ("bayesdd distill clinic:task --tol", ["--tolerance "])],
)
def test_what_is_typed_is_completed_without_torch(typed, found):
    # argcomplete answers on descriptor 8 (here of a file), as it does in bash.
    code = """
import os, sys, tempfile
place = tempfile.TemporaryFile(); os.dup2(place.fileno(), 8)
from bayesdd.cli.main import main
exit, os._exit = os._exit, lambda code: (_ for _ in ()).throw(SystemExit(code))
try:
    main([])
except SystemExit:
    assert "torch" not in sys.modules
place.seek(0); sys.stdout.write(place.read().decode())
"""
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": typed, "COMP_POINT": str(len(typed)), "_ARGCOMPLETE_IFS": "\n"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split("\n") == found, done.stderr
