"""What all suites share: a list of named checks, run one after another, each told as one line of JSON.

A suite is a script: `suite.py facts.json`. The facts say where the server is, its lake, and one token per caller.
"""

import faulthandler
import json
import os
import re
import sys
import traceback

# A suite that takes longer hangs: it then says where, and ends.
SUITE_SECONDS_MAX = 900

_checks = []


def check(function):
    """Registers a check; its name is the function's. It fails by raising."""
    _checks.append(function)
    return function


def main():
    """Runs every check with the facts, prints {name, ok, detail} for each."""
    faulthandler.dump_traceback_later(SUITE_SECONDS_MAX, exit=True)
    with open(sys.argv[1], encoding="utf-8") as file:
        facts = json.load(file)
    wanted = sys.argv[2:]
    for function in _checks:
        if wanted and function.__name__ not in wanted:
            continue
        try:
            detail = function(facts)
            print(json.dumps({"name": function.__name__, "ok": True, "detail": str(detail or "")}), flush=True)
        except Exception as error:  # noqa: BLE001: whatever it is, it is this check's failure
            place = traceback.extract_tb(error.__traceback__)[-1]
            own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/clients/" in frame.filename]
            place = own[-1] if own else place
            detail = f"line {place.lineno}: {type(error).__name__}: {error}"
            print(json.dumps({"name": function.__name__, "ok": False, "detail": detail}), flush=True)
    # All is said. At an ordinary end Arrow's C++ threads may abort the process ("terminate called without an active
    # exception"): now and then, and whatever was asked.
    sys.stderr.flush()
    os._exit(0)


def equal(actual, expected, what=""):
    """Fails unless both are equal, and shows both."""
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def refused(action, kinds, text=None):
    """Runs `action`, which must raise one of `kinds`, with `text` (a regular expression) in its message. Returns it."""
    try:
        value = action()
    except kinds as error:
        if text is not None and not re.search(text, str(error), re.IGNORECASE):
            raise AssertionError(f"the message should match {text!r}, is: {error}") from error
        return error
    raise AssertionError(f"should have been refused, gave {value!r}")
