"""Compares our description of the provider's API with the provider's own, field by field.

    python .ci/compare_descriptions.py PROVIDERS.yaml

Texts, examples and names of components may differ. Prints each difference and ends with 1 if
there is one, other than those listed here, where we follow the provider's prose:

- A stream can be stopped by its name, so `Sid` in a path is any text.
- Custom parameters go up to 99; the provider's description lists the first two.
- 503 may answer any request; the provider's description leaves it out for conferences.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.starter.openapi import Description, property_of, read_description, types_of

Node = dict[str, Any]


def normal(description: Description, node: Node) -> Node:
    """A schema with its references followed, `allOf` merged, and `anyOf` of types as a list."""
    node = description.follow(node)
    for part in node.get("allOf", []):
        node = {**normal(description, part), **node}
    if "anyOf" in node:
        types = [normal(description, part)["type"] for part in node["anyOf"]]
        node = {**node, "type": types}
    return node


def differences(ours: tuple[Description, Node], theirs: tuple[Description, Node]) -> Iterator[str]:
    """Where two schemas allow different values."""
    our, their = normal(*ours), normal(*theirs)
    if types_of(our) != types_of(their):
        yield f": type {our['type']}, theirs {their['type']}"
    for word in ("enum", "default"):
        if our.get(word) != their.get(word):
            yield f": {word} {our.get(word)}, theirs {their.get(word)}"
    if "uuid" in (our.get("format"), their.get("format")) and our["format"] != their["format"]:
        yield f": format {our.get('format')}, theirs {their.get('format')}"
    if set(our.get("required", [])) != set(their.get("required", [])):
        yield f": required {our.get('required')}, theirs {their.get('required')}"
    if "items" in their:
        yield from (
            f"[]{d}" for d in differences((ours[0], our["items"]), (theirs[0], their["items"]))
        )
    for name in dict.fromkeys([*our.get("properties", {}), *their.get("properties", {})]):
        mine, other = property_of(our, name), property_of(their, name)
        if mine is None or other is None:
            yield f".{name}: only in {'theirs' if mine is None else 'ours'}"
        else:
            yield from (f".{name}{d}" for d in differences((ours[0], mine), (theirs[0], other)))


def operations(description: Description) -> Iterator[tuple[str, Node]]:
    """Every operation by method and path, with the parameters of its path."""
    for path, item in description.document["paths"].items():
        for method in item.keys() - {"parameters"}:
            operation = dict(item[method])
            operation["parameters"] = item.get("parameters", []) + operation.get("parameters", [])
            yield f"{method} {path}", operation


def schemas(description: Description, operation: Node) -> dict[str, Node]:
    """Every schema of an operation, by where it is."""
    found: dict[str, Node] = {}
    for parameter in map(description.follow, operation["parameters"]):
        found[f"path {parameter['name']}"] = parameter["schema"]
    for kind, body in operation["requestBody"]["content"].items():
        found[f"request {kind}"] = body["schema"]
    for status, response in operation["responses"].items():
        for kind, body in description.follow(response)["content"].items():
            found[f"{status} {kind}"] = body["schema"]
    return found


def compare(ours: Description, theirs: Description) -> Iterator[str]:
    """Every difference of two descriptions, but those that are meant."""
    our_operations, their_operations = dict(operations(ours)), dict(operations(theirs))
    for name in sorted(our_operations.keys() ^ their_operations.keys()):
        yield f"{name}: only in {'ours' if name in our_operations else 'theirs'}"
    for name in sorted(our_operations.keys() & their_operations.keys()):
        mine = schemas(ours, our_operations[name])
        other = schemas(theirs, their_operations[name])
        if "/Conferences/" in name:
            mine.pop("503 application/json")
        for place in sorted(mine.keys() ^ other.keys()):
            yield f"{name}, {place}: only in {'ours' if place in mine else 'theirs'}"
        for place in sorted(mine.keys() & other.keys() - {"path Sid"}):
            found = differences((ours, mine[place]), (theirs, other[place]))
            yield from (f"{name}, {place}{difference}" for difference in found)


def main() -> int:
    """Compare with the file that is named on the command line."""
    found = list(compare(read_description(), read_description(Path(sys.argv[1]))))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
