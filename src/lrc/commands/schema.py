"""`lrc schema`: the JSON Schema of recipes, for an editor."""

from __future__ import annotations

from pathlib import Path

from lrc.config.json_schema import schema_line, schema_text
from lrc.runtime.outputs import new_file


def schema(*, output: Path | None = None, force: bool = False) -> None:
    """Print the schema, or write it.

    Args:
        output: the file; None prints.
        force: overwrite a file that exists.

    Raises:
        OutputError: the file exists and `force` is false, or cannot be written.
    """
    if output is None:
        print(schema_text(), end="")
        return
    with new_file(output, force=force) as file:
        file.write_bytes(schema_text().encode())
    print(f"wrote {output}; a recipe names it in its first line: {schema_line(output.name)}", end="")
