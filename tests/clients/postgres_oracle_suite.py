"""Asks PostgreSQL and Glasshouse the same generated questions, and compares the answers.

Both answers must be equal, or both must be errors, or Glasshouse must refuse the question with an error that names the
unsupported construct. The suite asks two servers: one with the default settings, and one whose plans have one partition
(`single` in the facts).

    ORACLE_SEED       the seed of the tables and questions (1)
    ORACLE_QUESTIONS  the number of questions (500)
    ORACLE_ONLY       asks only the questions with these seeds, such as 7-17,7-204, and prints all answers
    ORACLE_AREA       asks only about areas whose names begin with this text, such as times
"""

import collections
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import re
import sys

from oracle import engines, tables
from oracle.compare import difference
from oracle.differences import DIFFERENCES, FAULTS, rule_of
from oracle.questions import AREAS, Question, make_question

import checks
from checks import check, equal, main

ONLY = [seed for seed in os.environ.get("ORACLE_ONLY", "").split(",") if seed]
SEED = ONLY[0].split("-")[0] if ONLY else os.environ.get("ORACLE_SEED", "1")
QUESTIONS = int(os.environ.get("ORACLE_QUESTIONS", "500"))
AREA = os.environ.get("ORACLE_AREA", "")
# The suite checks the shares only if it asks at least 500 questions from all areas.
IS_COMPLETE = QUESTIONS >= 500 and not ONLY and not AREA
REFUSED_MAX = 0.03
# The maximum share of questions that PostgreSQL reports as malformed. They are mistakes of the generator, and test nothing.
MALFORMED_MAX = 0.02
SHOWN_CHARS_MAX = 600
FAILURES_SHOWN_MAX = 40
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs/sql.md"
SECTION = "## Where Glasshouse differs from PostgreSQL"
# Errors of Glasshouse's planner. If PostgreSQL was able to plan the statement, its own error has another reason.
PLANNING_ERRORS = r"cannot parse the statement|unknown column|unknown table|ambiguous|does not accept|match any signature"
# The classes of PostgreSQL's errors for malformed statements and for time limits.
MALFORMED = ("42", "0A", "57")


class Oracle:
    """Both engines with the same tables, all questions, and their outcomes."""

    def __init__(self, facts):
        with contextlib.ExitStack() as stack:
            postgres = engines.Postgres(stack)
            tables.fill_postgres(postgres.connection, SEED)
            tables.fill_glasshouse(facts, SEED)
            token = facts["tokens"][tables.TENANT]
            self.servers = {name: engines.Glasshouse(facts[name], token) for name in ("flight", "single")}
            made = [make_question(seed) for seed in ONLY or (f"{SEED}-{number}" for number in range(QUESTIONS))]
            self.questions = [question for question in made if question.area.startswith(AREA)]
            # The examples of all rules are asked too.
            self.examples = [(rule, Question("", "example", rule.example)) for rule in DIFFERENCES + FAULTS]
            asked = self.questions + [question for _, question in self.examples]
            with concurrent.futures.ThreadPoolExecutor() as pool:
                theirs = pool.submit(lambda: [postgres.ask(question.for_postgres()) for question in asked])
                ours = {
                    name: pool.submit(lambda server=server: [server.ask(question.for_glasshouse()) for question in asked])
                    for name, server in self.servers.items()
                }
                self.theirs = dict(zip(asked, theirs.result()))
                self.ours = {name: dict(zip(asked, answers.result())) for name, answers in ours.items()}

    def outcomes(self, name):
        """Returns each well-formed question with the outcomes of a server and of PostgreSQL."""
        for question in self.questions:
            if not self.is_malformed(question):
                yield question, self.ours[name][question], self.theirs[question]

    def is_malformed(self, question):
        return self.theirs[question].code[:2] in MALFORMED


@functools.cache
def _oracle(address):
    return Oracle(dict(_facts))


_facts = {}


def oracle(facts):
    """Returns the oracle. The questions are asked once for all checks."""
    _facts.update(facts)
    return _oracle(facts["flight"])


def fault(question, ours, theirs):
    """Returns what is wrong with an answer, or None."""
    if ours.status == "broken":
        return "the server reports a bug"
    if ours.status == "refused":
        return None
    if ours.status != theirs.status:
        return "an error on one side only"
    if ours.status == "error":
        return "an error for another reason" if re.search(PLANNING_ERRORS, ours.message) else None
    return difference(ours.rows, theirs.rows, question.is_ordered, question.is_inexact)


def compare(asked, name):
    """Compares all answers of a server. Returns a summary, and fails if there is a difference that no rule covers."""
    counts, failures = collections.Counter(), []
    for question, ours, theirs in asked.outcomes(name):
        what = fault(question, ours, theirs)
        rule = what and rule_of(DIFFERENCES + FAULTS, question, ours, theirs)
        if what is None:
            counts[{"rows": "equal", "error": "errors on both sides"}.get(ours.status, ours.status)] += 1
        elif rule:
            counts["known faults" if rule in FAULTS else "differences by design"] += 1
        else:
            failures.append(describe(question, what, ours, theirs))
        if ONLY:
            print(describe(question, what, ours, theirs), file=sys.stderr)
    shown = "\n".join(failures[:FAILURES_SHOWN_MAX])
    assert not failures, f"{len(failures)} different answers ({dict(counts)})\n{shown}"
    return dict(counts)


def describe(question, what, ours, theirs):
    """Returns the question with both answers."""
    lines = (
        f"{question.seed} {question.area}: {what}",
        question.for_glasshouse(),
        f"Glasshouse: {ours}",
        f"PostgreSQL: {theirs}",
    )
    return "\n    ".join(line if len(line) <= SHOWN_CHARS_MAX else f"{line[:SHOWN_CHARS_MAX]}…" for line in lines)


@check
def answers_equal_those_of_postgresql(facts):
    return compare(oracle(facts), "flight")


@check
def answers_with_one_partition_are_the_same(facts):
    return compare(oracle(facts), "single")


@check
def few_questions_are_refused(facts):
    asked = oracle(facts)
    outcomes = list(asked.outcomes("flight"))
    refused = [(question, ours) for question, ours, _ in outcomes if ours.status == "refused"]
    share = len(refused) / max(len(outcomes), 1)
    reasons = collections.Counter(re.sub(r"`[^`]*`|\d+", "…", ours.message) for _, ours in refused)
    text = "\n".join(f"{count} × {reason}" for reason, count in reasons.most_common())
    print(f"refused: {len(refused)} of {len(outcomes)} questions ({share:.2%})\n{text}", file=sys.stderr)
    assert share < REFUSED_MAX or not IS_COMPLETE, f"{share:.2%} of the questions are refused\n{text}"
    return f"{share:.2%}"


@check
def questions_are_well_formed(facts):
    asked = oracle(facts)
    malformed = [question for question in asked.questions if asked.is_malformed(question)]
    text = "\n".join(f"{question.seed} {question.sql}\n    {asked.theirs[question]}" for question in malformed)
    assert len(malformed) <= MALFORMED_MAX * len(asked.questions), f"{len(malformed)} of {len(asked.questions)}\n{text}"
    if IS_COMPLETE:
        answered = {question.area for question, ours, _ in asked.outcomes("flight") if ours.status == "rows"}
        equal({area.__name__ for area, _ in AREAS} - {area.split(".")[1] for area in answered}, set(), "areas without an answer")


@check
def differences_are_documented(facts):
    text = DOCS.read_text(encoding="utf-8")
    assert SECTION in text, f"{DOCS} has no section {SECTION!r}"
    section = text.split(SECTION)[1].split("\n## ")[0].replace("`", "")
    cells = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")}
    missing = [rule.title for rule in DIFFERENCES if rule.title not in cells]
    assert not missing, f"{DOCS} does not describe {missing}"


@check
def examples_still_differ(facts):
    asked = oracle(facts)
    wrong = []
    for rule, question in asked.examples:
        ours, theirs = asked.ours["flight"][question], asked.theirs[question]
        what = fault(question, ours, theirs)
        if not what:
            wrong.append(f"{rule.title}: both answers are equal. Remove the rule")
        elif not rule.covers(question, ours, theirs):
            wrong.append(f"{rule.title}\n{describe(question, what, ours, theirs)}")
    assert not wrong, "\n".join(wrong)


@check
def rows_of_other_tenants_never_show(facts):
    oracle(facts)
    for name in ("flight", "single"):
        for tenant in (tables.TENANT, tables.OTHER):
            server = engines.Glasshouse(facts[name], facts["tokens"][tenant])
            for table, count in tables.ROWS.items():
                count = count if tenant == tables.TENANT else tables.OTHER_ROWS
                found = server.ask(
                    f"SELECT coalesce(max(tenant), '{tenant}'), count(*), count(DISTINCT tenant) <= 1 FROM {table}"
                )
                expected = tuple(engines.comparable(value) for value in (tenant, count, True))
                equal(found.rows, (expected,), f"{name}, {tenant}, {table}: {found}")


if __name__ == "__main__":
    checks.SUITE_SECONDS_MAX += QUESTIONS
    main()
