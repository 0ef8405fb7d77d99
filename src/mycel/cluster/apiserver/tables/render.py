"""Tables: columns and rows of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mycel.cluster.apiserver.registry import Kind
from mycel.cluster.apiserver.tables.column import Column, Printer, age_of, columns
from mycel.cluster.apiserver.tables.jsonpath import column_value
from mycel.cluster.apiserver.tables.printers import PRINTERS

Object = dict[str, Any]
_PLAIN = Printer(columns("Name", "Age"), lambda obj: [obj["metadata"]["name"], age_of(obj)])


def printer_of(kind: Kind) -> Printer:
    """The printer of a kind: built-in, from a CRD's columns, or name and age."""
    if kind.custom is None:
        printer = PRINTERS.get(kind.resource, _PLAIN)
        convert = kind.to_storage
        if convert is None:
            return printer
        return Printer(printer.columns, lambda obj: printer.cells(convert(obj)))  # printers know the stored shape
    extra = kind.custom.columns
    if not extra:
        return _PLAIN
    shown = [Column("Name")]
    for column in extra:
        shown.append(
            Column(
                column.get("name", ""),
                wide=column.get("priority", 0) > 0,
                type=column.get("type", "string"),
                format=column.get("format", ""),
            )
        )
    paths = [(column.get("jsonPath", ""), column.get("type", "string")) for column in extra]

    def cells(obj: Object) -> list[Any]:
        return [obj["metadata"]["name"], *(column_value(obj, path, kind=type_) for path, type_ in paths)]

    return Printer(tuple(shown), cells)


def table(
    kind: Kind, objects: Sequence[Object], meta: Object, *, version: str, include: str, columns: bool = True
) -> Object:
    """A Table of `objects`. `include` is None, Metadata or Object: what each row carries besides its cells."""
    printer = printer_of(kind)
    rows = [{"cells": printer.cells(obj), **_row_object(obj, version, include)} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": meta,
        "columnDefinitions": [column.definition() for column in printer.columns] if columns else None,
        "rows": rows,
    }


def _row_object(obj: Object, version: str, include: str) -> Object:
    match include:
        case "Object":
            return {"object": obj}
        case "None":
            return {}
        case _:
            return {
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": f"meta.k8s.io/{version}",
                    "metadata": obj["metadata"],
                }
            }
