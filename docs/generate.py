"""Writes the tables of docs/configuration.md from conf/ and the types of what conf/ names, and
that of docs/datasets.md.

    python docs/generate.py            write the pages
    python docs/generate.py --check    exit 1 if a page is not what would be written

What a key means is the comment on its line in conf/, or on its field in mmnet/config.py. A key
without one, and a file that nothing describes, are errors.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from mmnet.bounds import Section
from mmnet.config import CONF, Run
from mmnet.data_commands.facts import facts_of, known
from mmnet.resume import SECTIONS, SETTINGS
from mmnet.signature import find, signature
from mmnet.values import describe


PAGE = Path(__file__).with_name("configuration.md")
DATASETS = Path(__file__).with_name("datasets.md")
BEGIN = "<!-- From here on written by docs/generate.py -->"
GOT = {
    "open": "freely",
    "account": "with an account",
    "addresses": "as addresses of pictures",
    "none": "no longer distributed",
}
PRESETS = ("model", "experiment")  # they choose parts rather than describe one


@dataclass
class Key:
    """One key as a YAML file sets it."""

    value: str  # as it is written there
    comment: str


@dataclass
class Option:
    """One file of conf/."""

    name: str  # fusion/concat
    says: str  # the comment at its top
    keys: dict[str, Key]  # dotted
    chooses: dict[str, str]  # group -> file, of its defaults list

    @property
    def short(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def target(self) -> str:
        return self.keys["_target_"].value if "_target_" in self.keys else ""


def main() -> None:
    for path, text in ((PAGE, page()), (DATASETS, datasets())):
        if "--check" not in sys.argv[1:]:
            path.write_text(text, "utf-8")
        elif path.read_text("utf-8") != text:
            sys.exit(f"{path} is not up to date: python docs/generate.py")


def page() -> str:
    """The whole page on the configuration: its own words, then the tables."""
    return own_words(PAGE) + "\n\n".join(blocks()) + "\n"


def datasets() -> str:
    """The whole page on datasets: its own words, then one row for each."""
    return own_words(DATASETS) + "\n".join(rows_of_datasets()) + "\n"


def own_words(path: Path) -> str:
    own, mark, _ = path.read_text("utf-8").partition(BEGIN)
    if not mark:
        sys.exit(f"{path}: holds no line '{BEGIN}'")
    return own + mark + "\n\n"


def rows_of_datasets() -> Iterator[str]:
    """What each file of conf/dataset reads, what a head can learn from it, how it is got."""
    yield row(["dataset", "what it is", "to be learnt", "how to get it"])
    yield row(["---"] * 4)
    for path in sorted((CONF / "dataset").glob("*.yaml")):
        option = read(path)
        name = option.target.split(".")[-2]
        offers = signature(option.target).constants.get("offers")
        got = ""
        if name in known():
            facts = facts_of(name)
            got = f"[{GOT[facts.access]}]({facts.homepage})"
        learnt = "what its parts offer" if offers is None else ", ".join(offers)
        yield row([f"`{option.short}`", option.says, learnt or "the text itself", got])


def blocks() -> Iterator[str]:
    """Headings, lists and tables."""
    run = read(CONF / "train.yaml")
    types = run_types()
    yield "### The run: `conf/train.yaml`"
    yield table([run], list(run.keys), types)
    for group, usual in run.chooses.items():
        paths = sorted((CONF / group).glob("*.yaml"), key=lambda p: (p.stem != usual, p.stem))
        options = [read(path) for path in paths]
        yield f"### `{group}`"
        if group in PRESETS:
            yield presets(options)
            own = [key for key in types if key.startswith(f"{group}.")]
            if own:
                yield table(options, own, types)
        else:
            for target in dict.fromkeys(option.target for option in options):
                alike = [option for option in options if option.target == target]
                yield from parts(group, target, alike, usual)
    yield "### What a resumed run may be given"
    yield ", ".join(f"`{name}`" for name in (*(f"{section}.*" for section in SECTIONS), *SETTINGS))


def parts(group: str, target: str, options: list[Option], usual: str) -> Iterator[str]:
    """The options that call one constructor, side by side."""
    lines = []
    for option in options:
        says = option.says or (module_says(target) if target else "")
        if not says:
            sys.exit(f"conf/{option.name}.yaml: no comment at its top says what it is")
        mark = " *(default)*" if option.short == usual else ""
        lines.append(f"* `{group}={option.short}`{mark}: {says}")
    yield "\n".join(lines)
    prefix = group.replace("/", ".")
    if target:
        yield f"Built by `{target}`."
        types = types_of(target, prefix)
        for name, key in options[0].keys.items():  # settings that are parts themselves
            if name.endswith("._target_"):
                types |= types_of(key.value, f"{prefix}.{name.removesuffix('._target_')}")
    else:
        types = run_types()
    names = dict.fromkeys(
        name for option in options for name in option.keys if name.rpartition(".")[2] != "_target_"
    )
    if names:
        yield table(options, list(names), types, prefix)


def types_of(target: str, prefix: str) -> dict[str, Any]:
    """Of the settings of one constructor, by dotted key."""
    parameters = signature(target).parameters
    return {f"{prefix}.{name}": one.annotation for name, one in parameters.items()}


def presets(options: list[Option]) -> str:
    """What each file chooses and sets."""
    lines = ["| | what for | chooses | sets |", "| --- | --- | --- | --- |"]
    for option in options:
        group = option.name.partition("/")[0]
        choices = [
            f"`~{key}`" if value == "null" else f"`{key}={value}`"
            for key, value in option.chooses.items()
        ]
        sets = [f"`{key}={one.value}`" for key, one in option.keys.items()]
        cells = [f"`{group}={option.short}`", option.says, ", ".join(choices), ", ".join(sets)]
        lines.append(row(cells))
    return "\n".join(lines)


def table(options: list[Option], names: list[str], types: dict[str, Any], prefix: str = "") -> str:
    """Rows of keys: type, value in each option, meaning."""
    columns = ["value"] if len(options) == 1 else [f"`{option.short}`" for option in options]
    lines = [row(["key", "type", *columns, "meaning"]), row(["---"] * (3 + len(columns)))]
    for name in names:
        key = f"{prefix}.{name}" if prefix else name
        found = [option.keys.get(name) for option in options]
        says = next((one.comment for one in found if one and one.comment), "") or field_says(key)
        if not says:
            sys.exit(f"conf/{options[0].name}.yaml: no comment says what {key} means")
        says = re.sub(r"^\w+( \| \w+)+[:;] ", "", says)  # the choices: the type lists them
        values = [f"`{one.value}`" if one else "" for one in found]
        kind = describe(type_of(key, types))
        lines.append(row([f"`{key}`", kind, *values, says.replace("<", "&lt;")]))
    return "\n".join(lines)


def type_of(key: str, types: dict[str, Any]) -> Any:
    """Of a setting, or of one entry of a setting that is a section or a dict."""
    if key in types:
        return types[key]
    above, _, name = key.rpartition(".")
    _, value = get_args(types[above])
    return dict(value.fields)[name] if isinstance(value, Section) else value


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def run_types(kind: type = Run, above: str = "") -> dict[str, Any]:
    """Dotted key -> type, of all that is no part."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        key = f"{above}{name}"
        if is_dataclass(hint) and isinstance(hint, type):
            found |= run_types(hint, f"{key}.")
        else:
            found[key] = hint
    return found


def field_says(key: str) -> str:
    """The comment on a field in mmnet/config.py."""
    *sections, name = key.split(".")
    kind: Any = Run
    for section in sections:
        kind = get_type_hints(kind).get(section)
        if not is_dataclass(kind):
            return ""
    match = re.search(rf"^    {name}: .*?  # (.+)$", inspect.getsource(kind), re.MULTILINE)
    return match[1] if match else ""


def module_says(target: str) -> str:
    """The first line of the docstring of a constructor's module."""
    text = find(target.rpartition(".")[0]).read_text("utf-8")
    match = re.match(r'"""(.+?)(?:"""|\n)', text)
    return match[1] if match else ""


def read(path: Path) -> Option:
    """A file, with what it takes over from another of its group."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    top = re.match(r"(?:#.*\n)*", text)
    remarks = [line[1:].strip() for line in top[0].splitlines()] if top else []
    says = " ".join(line for line in remarks if not line.startswith(("@", "python -m")))
    option = Option(path.relative_to(CONF).with_suffix("").as_posix(), says, {}, {})
    for item in yaml.safe_load(text).get("defaults", []):
        if isinstance(item, dict):
            [(group, name)] = item.items()
            option.chooses[group.split()[-1].lstrip("/")] = str(name or "null")
        elif item != "_self_":
            option.keys |= read(path.with_name(f"{item}.yaml")).keys
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    for name, value, line in walk(root):
        comment = lines[line].partition(" # ")[2].strip()
        known = option.keys.get(name)
        written = text[value.start_mark.index : value.end_mark.index]
        option.keys[name] = Key(written, comment or (known.comment if known else ""))
    return option


def walk(node: yaml.MappingNode, above: str = "") -> Iterator[tuple[str, yaml.Node, int]]:
    """Dotted key, value and line of all that a mapping sets for a run."""
    for key, value in node.value:
        name = f"{above}{key.value}"
        if isinstance(value, yaml.MappingNode) and name != "hydra":
            yield from walk(value, f"{name}.")
        elif name not in ("defaults", "hydra"):
            yield name, value, key.start_mark.line


if __name__ == "__main__":
    main()
