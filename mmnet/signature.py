"""What a part's constructor takes, read from its source text.

Nothing is imported: parts bring in torch, and a config is judged before that.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union

from mmnet import bounds
from mmnet.errors import UserError, nearest


NAMES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, int, float, str, list, dict, tuple)},
    "Any": Any,
    "Literal": Literal,
    **{name: kind for name, kind in vars(bounds).items() if hasattr(kind, "__metadata__")},
}


@dataclass(frozen=True)
class Parameter:
    """One parameter. Only a `setting` can be written in a config; the program passes the others."""

    annotation: Any
    required: bool
    setting: bool


@dataclass(frozen=True)
class Signature:
    """A class or function as its source declares it."""

    is_class: bool
    parameters: dict[str, Parameter]
    constants: dict[str, Any]  # class attributes with literal values


class Unreadable(Exception):
    """An annotation that is not made of the types a setting can have."""


def signature(target: str) -> Signature:
    """Of `package.module.Name`. Raises UserError when there is no such module or name in it."""
    module, _, name = target.rpartition(".")
    path = find(module)
    scope = _scope(_parse(path, path.stat().st_mtime_ns))
    if name not in scope.defined or name.startswith("_"):
        public = [known for known in scope.defined if not known.startswith("_")]
        raise UserError(f"{module} defines no public '{name}'{nearest(name, public)}")
    return _signature(scope.defined[name], scope)


def find(module: str) -> Path:
    """The source file of a module. Raises UserError naming the nearest one."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)  # of a top-level name: looks, does not import
    folders = [Path(f) for f in (spec.submodule_search_locations or [])] if spec else []
    if not folders:
        raise UserError(f"there is no package '{top}' to import here")
    for folder in folders:
        base = folder.joinpath(*rest)
        for path in (base / "__init__.py", base.parent / f"{base.name}.py"):
            if path.is_file():
                return path
    near = nearest(module, _modules(top, folders))
    raise UserError(f"there is no module '{module}'{near}")


def _modules(top: str, folders: Iterable[Path]) -> list[str]:
    return [
        ".".join((top, *path.relative_to(folder).with_suffix("").parts))
        for folder in folders
        for path in folder.rglob("*.py")
        if path.name != "__init__.py"
    ]


@functools.lru_cache
def _parse(path: Path, _changed: int) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not valid Python: {error}") from error


class _Scope(NamedTuple):
    """What the names of a file stand for."""

    defined: dict[str, ast.ClassDef | ast.FunctionDef]
    assigned: dict[str, ast.expr]
    imported: dict[str, str]  # name -> package.module.Name


def _scope(tree: ast.Module) -> _Scope:
    definitions = (n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef))
    return _Scope(
        {node.name: node for node in definitions},
        {name: value for item in tree.body for name, value in _assigned(item)},
        {
            alias.asname or alias.name: f"{item.module}.{alias.name}"
            for item in tree.body
            if isinstance(item, ast.ImportFrom) and item.module and not item.level
            for alias in item.names
        },
    )


def _signature(node: ast.ClassDef | ast.FunctionDef, scope: _Scope) -> Signature:
    if isinstance(node, ast.FunctionDef):
        return Signature(False, _parameters(node.args, scope, skip=0), {})
    parameters: dict[str, Parameter] = {}
    constants: dict[str, Any] = {}
    for base in reversed(node.bases):  # as dataclasses gather their fields
        inherited = _base(base, scope)
        if inherited is not None:
            parameters |= inherited.parameters
            constants |= inherited.constants
    if _is_dataclass(node):
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                if "ClassVar" in ast.unparse(item.annotation):
                    continue
                parameters[item.target.id] = _parameter(item.annotation, item.value is None, scope)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            parameters = _parameters(item.args, scope, skip=1)
    return Signature(True, parameters, constants | _constants(node))


def _is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
    )


def _base(base: ast.expr, scope: _Scope) -> Signature | None:
    """The signature of a base class, if it is ours: in the same file or imported by name."""
    if isinstance(base, ast.Name):
        if base.id in scope.defined:
            return _signature(scope.defined[base.id], scope)
        origin = scope.imported.get(base.id, "")
        if origin.startswith(("mmnet.", "experiments.")):
            return signature(origin)
    return None


def _parameters(args: ast.arguments, scope: _Scope, skip: int) -> dict[str, Parameter]:
    positional = (args.posonlyargs + args.args)[skip:]
    first_default = len(positional) - len(args.defaults)
    found = {
        arg.arg: _parameter(arg.annotation, index < first_default, scope)
        for index, arg in enumerate(positional)
    }
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found[arg.arg] = _parameter(arg.annotation, default is None, scope)
    return found


def _parameter(annotation: ast.expr | None, required: bool, scope: _Scope) -> Parameter:
    try:
        if annotation is None:
            raise Unreadable
        section = _section(annotation, scope)
        kind = _evaluate(annotation, scope.assigned) if section is None else section
        return Parameter(kind, required, setting=True)
    except (Unreadable, TypeError, ValueError, SyntaxError):
        return Parameter(None, required, setting=False)


def _section(annotation: ast.expr, scope: _Scope) -> Any:
    """The settings that make up a dataclass of ours; None of any other annotation."""
    if not isinstance(annotation, ast.Name):
        return None
    name, origin = annotation.id, scope.imported.get(annotation.id, "")
    if origin.startswith(("mmnet.", "experiments.")):
        path = find(origin.rpartition(".")[0])
        scope, name = _scope(_parse(path, path.stat().st_mtime_ns)), origin.rpartition(".")[2]
    node = scope.defined.get(name)
    if not isinstance(node, ast.ClassDef) or not _is_dataclass(node):
        return None
    found = _signature(node, scope).parameters
    if not all(one.setting for one in found.values()):
        raise Unreadable
    fields = tuple((key, one.annotation) for key, one in found.items())
    return Annotated[dict, bounds.Section(fields)]


def _evaluate(node: ast.expr, aliases: dict[str, ast.expr]) -> Any:
    """The type an annotation stands for. Raises Unreadable; runs nothing of the file."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str() as text):
            return _evaluate(ast.parse(text, mode="eval").body, aliases)
        case ast.Name(id=name) if name in NAMES:
            return NAMES[name]
        case ast.Name(id=name) if name in aliases:
            outer = {key: value for key, value in aliases.items() if key != name}
            return _evaluate(aliases[name], outer)
        case ast.Attribute(value=ast.Name(id="typing" | "bounds"), attr=name) if name in NAMES:
            return NAMES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_evaluate(left, aliases), _evaluate(right, aliases)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            try:
                return Literal[ast.literal_eval(choices)]
            except ValueError:
                raise Unreadable from None
        case ast.Subscript(
            value=ast.Name(id="Annotated"),
            slice=ast.Tuple(elts=[kind, ast.Call(func=ast.Name(id="Range")) as limits]),
        ):
            return Annotated[_evaluate(kind, aliases), _range(limits, aliases)]
        case ast.Subscript(value=ast.Name(id="list" | "dict" | "tuple" as name), slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return NAMES[name][tuple(_evaluate(item, aliases) for item in items)]
        case ast.Constant(value=value) if value is Ellipsis:
            return Ellipsis
    raise Unreadable


def _range(call: ast.Call, aliases: dict[str, ast.expr]) -> bounds.Range:
    given: dict[str, Any] = {
        **dict(zip(bounds.Range._fields, call.args, strict=False)),
        **{word.arg: word.value for word in call.keywords if word.arg},
    }
    return bounds.Range(**{name: _number(node, aliases) for name, node in given.items()})


def _number(node: ast.expr, aliases: dict[str, ast.expr]) -> Any:
    """A literal, a sum of them, or the length of a collection that the file spells out."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _number(left, aliases) + _number(right, aliases)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, aliases)
        case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=name)]) if name in aliases:
            return len(ast.literal_eval(aliases[name]))
    raise Unreadable


def _assigned(item: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The name and the value of an assignment."""
    if isinstance(item, ast.AnnAssign | ast.Assign) and item.value is not None:
        target = item.target if isinstance(item, ast.AnnAssign) else item.targets[0]
        if isinstance(target, ast.Name):
            yield target.id, item.value


def _constants(node: ast.ClassDef) -> dict[str, Any]:
    found = {}
    for name, value in (pair for item in node.body for pair in _assigned(item)):
        try:
            found[name] = ast.literal_eval(value)
        except ValueError:
            continue  # computed: not a constant that can be read here
    return found
