"""The house: no imports in a circle, also none hidden in functions; no two files of one name in different rooms."""

from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import anomalens

SOURCE = Path(anomalens.__file__).parent
GRAPH = grimp.build_graph("anomalens", exclude_type_checking_imports=True)
SAME_NAME_ALLOWED = {"__init__", "__main__"}


def test_no_file_imports_itself_through_others() -> None:
    needs = {module: GRAPH.find_modules_directly_imported_by(module) for module in GRAPH.modules}
    # Raises graphlib.CycleError, which names the circle.
    assert len(list(TopologicalSorter(needs).static_order())) == len(GRAPH.modules)


def test_no_two_rooms_import_each_other() -> None:
    pairs = set()
    for module in GRAPH.modules:
        for other in GRAPH.find_modules_directly_imported_by(module):
            rooms = [name.split(".")[1] if "." in name else name for name in (module, other)]
            if rooms[0] != rooms[1]:
                pairs.add(tuple(rooms))
    assert {pair for pair in pairs if pair[::-1] in pairs} == set()


def test_no_two_packages_within_a_room_import_each_other() -> None:
    pairs = set()
    for module in GRAPH.modules:
        for other in GRAPH.find_modules_directly_imported_by(module):
            names, others = module.split("."), other.split(".")
            if names[1:2] == others[1:2] and len(names) > 2 < len(others) and names[2] != others[2]:
                pairs.add((".".join(names[:3]), ".".join(others[:3])))
    mutual = {pair for pair in pairs if pair[::-1] in pairs and pair[0] < pair[1]}
    # The base of all methods keeps its random draws in a part; learned parts build on the base.
    assert mutual == {("anomalens.methods.base", "anomalens.methods.parts")}


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.stem for path in SOURCE.rglob("*.py"))
    assert {name for name, count in names.items() if count > 1} - SAME_NAME_ALLOWED == set()
