"""Arrows go one way: commands -> session -> loop -> contracts <- parts. Read from the imports."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import mmnet
from mmnet.config import CONF, PACKAGES


PACKAGE = Path(mmnet.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LONGEST = 300  # lines; what needs more is two rooms

COMMANDS = ("train", "inspect", "meta_train", "data_commands")
GROUPS = tuple(group for group in PACKAGES if group != "tracker")
CONTRACTS = ("bounds", "errors", "interfaces", "outer")
LOOP = ("average", "checkpoint", "evaluation", "hardware", "job", "loop", "model", "stop")

# What a room may know of mmnet besides itself. A group of parts is one room.
KNOWS = {
    **dict.fromkeys(GROUPS, CONTRACTS),
    "controller": (*CONTRACTS, "config", "encoder", "report"),
    "dataset": (*CONTRACTS, "data"),
    "head": (*CONTRACTS, "data.masking"),
    "data": CONTRACTS,
    "interfaces": (),
    "outer": ("interfaces",),
    "bounds": (),
    "errors": (),
    "config": ("bounds",),
    # They are told things and ask nothing.
    "track": ("", "bounds", "config", "errors", "folder", "redact"),
    "report": ("errors", "folder", "track.recorder"),
}
# What nobody in this room may know.
STRANGERS = {
    **dict.fromkeys(LOOP, (*GROUPS, "session", *COMMANDS, "preflight", "report")),
    "session": (*GROUPS, *COMMANDS, "preflight"),
    "meta_train": ("inspect",),
    "data_commands": ("train", "inspect", "meta_train", "session"),
    "__main__": (),
}
# Loaded by a run, and by no command line that is only read.
HEAVY = {
    *("matplotlib", "mlflow", "msgspec", "mwparserfromhell", "numpy", "PIL", "safetensors"),
    *("schedulefree", "timm"),
    *("tokenizers", "torch", "torchmetrics", "torchvision", "tqdm", "transformers", "wandb"),
    "warcio",
}


@cache
def imports(module: str, at_import: bool = False) -> frozenset[str]:
    """What a module imports, names resolved to modules; `at_import`: not inside functions."""
    found = set()
    for node in nodes(ast.parse(MODULES[module].read_text("utf-8")), at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            base = str(node.module)
            inside = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inside or {base}
    return frozenset(found)


def nodes(tree: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """All of a tree but type checking, and but the bodies of functions if so asked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        yield from nodes(node, at_import)


def room(module: str) -> str:
    """ "loop" of mmnet.loop, "encoder" of mmnet.encoder.image.timm, "" of mmnet itself.

    What starts a command is in no other room, wherever it stands for `python -m` to find it.
    """
    if module.endswith(".__main__"):
        return "__main__"
    return module.split(".")[1] if "." in module else ""


def within(module: str, rooms: tuple[str, ...]) -> bool:
    name = module.partition(".")[2]
    return any(name == known or (known and name.startswith(f"{known}.")) for known in rooms)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_knows_only_what_its_room_may(module: str) -> None:
    here = room(module)
    ours = {name for name in imports(module) if name.partition(".")[0] == "mmnet"}
    others = {name for name in ours if room(name) != here}
    if here in KNOWS:
        beyond = {name for name in others if not within(name, KNOWS[here])}
        assert not beyond, f"{module} may know {KNOWS[here]} alone"
    against = {name for name in others if within(name, STRANGERS.get(here, COMMANDS))}
    assert not against, f"{module}: an arrow that goes back"
    outside = {name for name in imports(module) if name.split(".")[0] in ("experiments", "tests")}
    assert not outside, f"{module}: nothing in mmnet/ knows these"


def test_the_rules_name_rooms_that_are_there() -> None:
    there = {room(module) for module in MODULES}
    named = {*KNOWS, *STRANGERS, *COMMANDS, *LOOP, *GROUPS}
    assert named <= there, f"no such room: {named - there}"


def test_there_are_no_circles() -> None:
    done: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        if module not in done:
            for name in sorted(imports(module, at_import=True) & MODULES.keys() - {module}):
                follow(name, (*way, module))
            done.add(module)

    for module in MODULES:
        follow(module, ())


def loaded(module: str) -> dict[str, str]:
    """Every module outside the package that importing `module` brings in, with who does it."""
    found: dict[str, str] = {}
    seen, todo = set(), [module]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        parents = {here.rpartition(".")[0]} - {""}
        for name in imports(here, at_import=True) | parents:
            if name in MODULES:
                todo.append(name)
            else:
                found.setdefault(name.partition(".")[0], here)
    return found


def test_a_command_line_is_read_without_anything_heavy() -> None:
    brought = loaded("mmnet.train")
    assert "hydra" in brought  # the question is put rightly
    assert not brought.keys() & HEAVY, {name: brought[name] for name in brought.keys() & HEAVY}
    assert "torch" in loaded("mmnet.session")


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "track"])
def test_tracking_needs_no_torch(module: str) -> None:
    assert not {"torch", "timm", "transformers"} & loaded(module).keys()


def test_everything_imported_is_the_standard_library_or_declared() -> None:
    declared = (PACKAGE.parent / "pyproject.toml").read_text("utf-8")
    named = {"PIL": "pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    named["huggingface_hub"] = "huggingface-hub"
    for module in MODULES:
        for name in {name.partition(".")[0] for name in imports(module)}:
            known = name in sys.stdlib_module_names or name == "mmnet"
            listed = re.search(rf'"{named.get(name, name)}\b', declared, re.IGNORECASE)
            assert known or listed, f"{module} imports {name}, which pyproject.toml does not name"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_and_says_in_one_line_what_it_is(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    first, *rest = (ast.get_docstring(ast.parse(text)) or "").splitlines() or [""]
    assert re.search(r"\w.*[.?]$|\w.*>\.?$", first), "its first line is no sentence"
    assert not rest or not rest[0].strip(), "its first sentence goes on"


@pytest.mark.parametrize(
    "file", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF))
)
def test_a_file_in_conf_names_a_part_of_its_own_group(file: Path) -> None:
    group = file.parent.relative_to(CONF).as_posix()
    content = yaml.safe_load(file.read_text("utf-8"))
    if group.partition("/")[0] not in PACKAGES:
        assert "_target_" not in content
        return
    inherited = [content.get("defaults", [None])[0]]
    target = content.get("_target_")
    if target is None:  # from the file it builds on
        target = yaml.safe_load((file.parent / f"{inherited[0]}.yaml").read_text())["_target_"]
    top, *below = group.split("/")
    assert target.rpartition(".")[0].rpartition(".")[0] == ".".join([PACKAGES[top], *below])
