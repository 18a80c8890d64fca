"""What a checkpoint says of its files, so that damage is noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any


def sealed(manifest: dict[str, Any]) -> str:
    """The text of manifest.json, which tells of its own damage as well."""
    own = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": own}, indent=1)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
