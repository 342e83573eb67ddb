"""The part of the house style that a program can check in Python; CONTRIBUTING.md has the whole.

Every test lists all offenders, so that one run is enough to mend them.
"""

import ast
import re

from support.sources import below, listed, sources, texts

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
# They name no duty, so anything may be put there.
EMPTY_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
UNNUMBERED_TODO = re.compile(r"\b(TO" + r"DO(?!\(#\d+\))|FIX" + r"ME|XX" + r"X)\b")
# What a program that has no screen of its own must not do.
SCREENS = ("services/countersign/cli/", "services/countersign/demo")
STATUS_PLACES = {"services/shared/errors.py", "services/shared/rpc.py"}


def words(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


def test_every_module_says_what_it_is_for() -> None:
    offenders = [one.name for one in sources() if not one.docstring]
    assert not offenders, listed(offenders)


def test_modules_are_read_in_a_sitting() -> None:
    lengths = {source.name: len(source.text.splitlines()) for source in sources()}
    offenders = {name: lines for name, lines in lengths.items() if lines > MODULE_LINES_MAX}
    assert not offenders, listed(offenders)


def test_functions_fit_on_a_screen() -> None:
    offenders = {
        f"{one.place} {one.name}": one.lines
        for source in sources()
        for one in source.definitions
        if one.is_function and one.lines > FUNCTION_LINES_MAX
    }
    assert not offenders, listed(offenders)


def test_names_say_what_a_thing_does() -> None:
    offenders = []
    for source in sources():
        if words(source.name.removesuffix(".py").replace("/", "_")) & EMPTY_WORDS:
            offenders.append(source.name)
        offenders += [
            f"{one.place} {one.name}" for one in source.definitions if words(one.name) & EMPTY_WORDS
        ]
    assert not offenders, listed(offenders)


def test_known_gaps_have_an_issue() -> None:
    offenders = [
        f"{name}:{number}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if UNNUMBERED_TODO.search(line) and not name.startswith("requirements/")
    ]
    assert not offenders, listed(offenders)


def test_grpc_status_codes_stay_in_two_modules() -> None:
    offenders = []
    for source in below("services"):
        if source.name in STATUS_PLACES:
            continue
        for place, node in source.nodes("StatusCode"):
            attribute = isinstance(node, ast.Attribute) and node.attr == "StatusCode"
            imported = isinstance(node, ast.ImportFrom) and (
                node.module == "grpc" and "StatusCode" in {alias.name for alias in node.names}
            )
            if attribute or imported:
                offenders.append(place)
    assert not offenders, listed(offenders)


def test_only_the_command_line_prints() -> None:
    offenders = []
    for source in below("services"):
        if source.name.startswith(SCREENS):
            continue
        for place, node in source.nodes("print"):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                offenders.append(place)
    assert not offenders, listed(offenders)


def test_stand_ins_are_classes_of_ours() -> None:
    """A patched attribute proves nothing about the thing that it replaced."""
    offenders = []
    for source in below("tests"):
        for place, node in source.nodes("unittest"):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if isinstance(node, ast.Import):
                module = node.names[0].name
            if module and module.startswith("unittest"):
                offenders.append(place)
    assert not offenders, listed(offenders)


def test_tests_wait_for_conditions_and_not_for_time() -> None:
    """Waiting with a bound is in tests/support; a sleep in a test is a guess."""
    offenders = []
    for source in below("tests"):
        for place, node in source.nodes("sleep"):
            sleeps = isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "sleep"
            yields = sleeps and ast.unparse(node) == "asyncio.sleep(0)"
            if sleeps and not yields and not source.name.startswith("tests/support/"):
                offenders.append(place)
    assert not offenders, listed(offenders)


def test_no_service_forks() -> None:
    """A fork of a process whose threads are inside gRPC may hang: see `shared.children`."""
    forking = {"create_subprocess_exec", "create_subprocess_shell", "fork", "subprocess_exec"}
    offenders = []
    for source in below("services/"):
        if source.name.startswith("services/countersign/"):
            continue  # it serves no gRPC, and its loop is asyncio's own, which takes `subprocess`
        for place, node in source.nodes(*forking):
            name = getattr(node, "attr", None) or getattr(node, "id", None)
            if name in forking:
                offenders.append(f"{place} {name}")
    assert not offenders, listed(offenders)
