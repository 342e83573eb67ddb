"""YAML that means what a person reads: each key once, and everything written out.

The parser lets the last of two equal keys win without a word, and references let a small file become
endless: each of some thirty lines that names the line before it twice doubles what is read.
"""

from typing import Any, Final

import yaml

_MERGE: Final = "tag:yaml.org,2002:merge"
_TEXT: Final = "tag:yaml.org,2002:str"


class _Strict(yaml.SafeLoader):
    """Plain values only."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # its stubs lack types
            raise yaml.MarkedYAMLError(problem="a reference: write it out", problem_mark=mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            mark = key.start_mark
            if key.tag == _MERGE:
                raise yaml.MarkedYAMLError(problem="a merge: write it out", problem_mark=mark)
            if key.tag != _TEXT:
                # 1 and 0x1 would be one key, and yes and on as well.
                raise yaml.MarkedYAMLError(problem="a key that is not text", problem_mark=mark)
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
            seen.add(key.value)
        return node


def load(text: str) -> tuple[object, yaml.Node | None]:
    """The document and its nodes, which know where they stand.

    Raises yaml.YAMLError; the parser lets through ValueError and RecursionError as well.
    """
    loader = _Strict(text)
    try:
        root = loader.get_single_node()
        return (None if root is None else loader.construct_document(root)), root
    finally:
        loader.dispose()
