"""Where an MLflow store is: the forms of its address that are taken, made absolute."""

import importlib.metadata
from pathlib import Path

from mmnet.errors import UserError, nearest
from mmnet.redact import redact


_SQLITE = "sqlite:///"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks")


def check(uri: str) -> None:
    """Raises UserError if no MLflow store can have this address."""
    shown = redact(uri)
    scheme, separator, rest = uri.partition("://")
    if uri.startswith("file:") or (not separator and uri != "databricks"):
        raise UserError(
            f"tracker.uri={shown}: MLflow no longer writes to plain folders; "
            "sqlite:///mlflow.db keeps the runs in a file"
        )
    if scheme == "sqlite" and (not uri.startswith(_SQLITE) or rest in ("/", "/:memory:")):
        raise UserError(
            f"tracker.uri={shown}: want sqlite:///<file>, with three slashes before a relative "
            "path and four before an absolute one"
        )
    base = scheme.partition("+")[0]
    if base in _DATABASES or base in _SERVERS:
        return
    plugins = importlib.metadata.entry_points(group="mlflow.tracking_store")
    known = [*_DATABASES, *_SERVERS, *(plugin.name for plugin in plugins)]
    if base not in known:
        raise UserError(
            f"tracker.uri={shown}: MLflow has no '{base}' store{nearest(base, known)} "
            f"Known are {', '.join(sorted(known))}"
        )


def resolve(uri: str) -> str:
    """The same store from any working directory: a relative sqlite path becomes absolute."""
    if not uri.startswith(_SQLITE):
        return uri
    path, mark, query = uri.removeprefix(_SQLITE).partition("?")
    return f"{_SQLITE}{Path(path).resolve()}{mark}{query}"


def is_server(uri: str) -> bool:
    """Whether a server answers there, which keeps the files of its runs itself."""
    return uri.partition(":")[0] in _SERVERS


def database(uri: str) -> Path | None:
    """The file of a resolved sqlite address; None for any other store."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])
