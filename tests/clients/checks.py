"""Runs the checks of a suite one after another, and reports each result as one line of JSON.

A suite is a script: `suite.py facts.json`. The facts contain the server's addresses, its lake, and one token per caller.
"""

import faulthandler
import json
import os
import re
import sys
import traceback

# If a suite takes longer than this, it prints its stack traces and exits.
SUITE_SECONDS_MAX = 900

_checks = []


def check(function):
    """Registers a check under the name of the function. A check fails by raising an exception."""
    _checks.append(function)
    return function


def main():
    """Runs every check with the facts, and prints {name, ok, detail} for each."""
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
        except Exception as error:  # noqa: BLE001: any exception fails this check
            place = traceback.extract_tb(error.__traceback__)[-1]
            own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/clients/" in frame.filename]
            place = own[-1] if own else place
            detail = f"line {place.lineno}: {type(error).__name__}: {error}"
            print(json.dumps({"name": function.__name__, "ok": False, "detail": detail}), flush=True)
    # Skip the ordinary exit. During an ordinary exit, Arrow's C++ threads sometimes abort the process ("terminate called
    # without an active exception"), regardless of which calls were made.
    sys.stderr.flush()
    os._exit(0)


def equal(actual, expected, what=""):
    """Fails unless both are equal. The message shows both."""
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def refused(action, kinds, text=None):
    """Runs `action`, which must raise one of `kinds` with a message that matches the regular expression `text`. Returns the error."""
    try:
        value = action()
    except kinds as error:
        if text is not None and not re.search(text, str(error), re.IGNORECASE):
            raise AssertionError(f"expected a message that matches {text!r}, got: {error}") from error
        return error
    raise AssertionError(f"expected a refusal, got {value!r}")
