"""``results/README.md``: the tables of a results folder, from their schemas.

``python -c "from orchestrator.store.readme import readme; print(readme(), end='')"`` makes it anew.
"""

from __future__ import annotations

import pyarrow as pa

from orchestrator.store.tables import EXPERIMENT, SCHEMA_VERSION, TABLES


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {kind.value_type}"
    return "string" if pa.types.is_dictionary(kind) else str(kind)


def readme() -> str:
    """The text of ``results/README.md``."""
    header = ("| column | type | unit | meaning |", "| --- | --- | --- | --- |")
    lines = [
        "# Results",
        "",
        "`<table>/experiment=<name>/<run_id>.parquet`; a file is written under a temporary name",
        "(it begins with a dot) and renamed, so whatever is listed is whole. Read the tables with",
        '`archbench query "SELECT ..."`, with `orchestrator.results(dir)`, or with anything that',
        "reads Parquet. Every field carries its unit and meaning as metadata.",
        f"Schema version: {SCHEMA_VERSION}. This page is generated from the schemas.",
    ]
    for table in TABLES.values():
        lines += ["", f"## {table.name}", "", f"A row is {table.row}.", "", *header]
        lines += [
            f"| `{column.name}` | {_type_name(column.type)} | {column.unit} "
            f"| {column.meaning.replace('|', chr(92) + '|')} |"
            for column in (EXPERIMENT, *table.columns)
        ]
    return "\n".join(lines) + "\n"
