"""Which column of a table is the picture, the text, the label: by name, by type, by setting."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pyarrow as pa

from mmnet.data.tables import BINARY, columns_of, schema_of


# What columns are called where no setting says, in lower case, letters and digits alone.
ALIASES = {
    "image": ("imagepath", "image", "filename", "filepath", "path", "imagefile", "img", "picture"),
    "caption": ("caption", "captions", "text", "sentence", "sentences", "title", "description"),
    "label": ("label", "class", "category", "target"),
    "labels": ("labels", "tags", "classes", "categories"),
    "value": ("value",),
    "split": ("split", "subset", "partition"),
}


def roles_of(path: Path, asked: Mapping[str, str | None]) -> dict[str, str]:
    """The columns of a table by their role; `asked` names some. Raises UserError."""
    there = columns_of(path)
    plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(there)}
    chosen = {}
    for role, aliases in ALIASES.items():
        if (column := asked.get(role)) is not None:
            if column in there:
                chosen[role] = column
            continue
        named = [plain[alias] for alias in aliases if alias in plain]
        if role == "image":
            named = [*(column for column in there if holds_bytes(path, column)), *named]
        if named:
            chosen[role] = named[0]
    return chosen


def holds_bytes(path: Path, column: str) -> bool:
    """Whether a column is one of pictures themselves."""
    if path.suffix.lower() not in BINARY:
        return False
    schema = schema_of(path)
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        fields = {kind.field(number).name for number in range(kind.num_fields)}
        return "bytes" in fields
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def class_names(path: Path, column: str) -> list[str]:
    """The names of a column of classes, as the library datasets notes them; none elsewhere."""
    if path.suffix.lower() not in BINARY:
        return []
    told = (schema_of(path).metadata or {}).get(b"huggingface", b"{}")
    try:
        feature = msgspec.json.decode(told)["info"]["features"][column]
        names = feature["names"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
