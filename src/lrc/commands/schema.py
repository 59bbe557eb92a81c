"""`lrc schema`: prints the JSON Schema of recipes, for editors."""

from __future__ import annotations

from pathlib import Path

from lrc.config.json_schema import json_schema, schema_line, schema_text
from lrc.runtime.findings import print_json
from lrc.runtime.outputs import is_file_of, new_file
from lrc.runtime.translation import _, localized


def schema(*, output: Path | None = None, force: bool = False) -> None:
    """Print the schema, or write it.

    Args:
        output: the file; None prints.
        force: overwrite a file that exists.

    Raises:
        OutputError: the file exists with another content and `force` is false, or cannot be written.
    """
    if output is None:
        print_json(json_schema(), indent=1)
        return
    content = schema_text().encode()
    if force or not is_file_of(output, content):
        with new_file(output, force=force) as file:
            file.write_bytes(content)
    text = _("wrote {output}; a recipe names it in its first line: {line}")
    print(localized(text.format(output=output, line=schema_line(output.name))), end="")
