"""What docs/ says is so: tables, links, examples, and the files of a run."""

import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from mmnet.compose import load
from mmnet.config import Run
from mmnet.data_commands import options
from mmnet.data_commands.chosen import choose
from mmnet.data_commands.cli import COMMANDS
from mmnet.errors import ConfigError, report
from mmnet.preflight import preflight
from mmnet.track.recorder import read
from tests.command import Ended, run, run_folders
from tests.jobs import SMALL
from tests.official import draw


PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def blocks(path: Path) -> list[tuple[str, str]]:
    """(what follows the opening fence, content) of every fenced block of a page."""
    text = path.read_text("utf-8")
    return re.findall(r"^```(.*)\n((?:.*\n)*?)^```$", text, re.MULTILINE)


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    text = path.read_text("utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_conf(generate: ModuleType) -> None:
    for name, text in (("configuration", generate.page()), ("datasets", generate.datasets())):
        written = (DOCS / f"{name}.md").read_text("utf-8")
        assert text == written, "run: python docs/generate.py"


def run_of(words: Sequence[str]) -> Run:
    return load(*words)


def test_commands_on_data_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = set()
    for _, content in (block for path in PAGES for block in blocks(path)):
        for command in re.findall(r"^python -m mmnet\.data (.*)$", content, re.MULTILINE):
            name, *given = shlex.split(command, comments=True)
            kind = getattr(options, name.capitalize())
            options.read(given, kind, run_of if kind is options.Probe else choose)
            seen.add(name)
    assert seen == COMMANDS.keys()


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("fusion/concat.yaml", "dim: 192 ", "dim: 77 ", None),
        ("fusion/concat.yaml", "# of the fused vector", "", "says what fusion.dim means"),
        ("train.yaml", "# of weights", "", "says what seed means"),
        ("hardware/cpu.yaml", "# The CPU", "", "no comment at its top"),
    ],
)
def test_a_table_follows_conf_and_wants_a_word_on_every_key(
    generate: ModuleType, tmp_path: Path, file: str, old: str, new: str, says: str | None
) -> None:
    shutil.copytree(generate.CONF, tmp_path / "conf")
    text = (tmp_path / "conf" / file).read_text("utf-8")
    (tmp_path / "conf" / file).write_text(re.sub(f"{old}.*" if not new else old, new, text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "CONF", tmp_path / "conf")
        if says is None:
            assert "| `fusion.dim` | a whole number of at least 1 | `77` |" in generate.page()
        else:
            with pytest.raises(SystemExit, match=says):
                generate.page()


def anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        found.add(re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()))
    return found


@page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"
        if page.parent == DOCS:
            assert file.resolve().is_relative_to(DOCS), f"{target}: outside what mkdocs publishes"


@page
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths into the project, outside examples of what one could add."""
    for name in re.findall(r"`((?:conf|docs|experiments|mmnet|tests)/[\w./]*)`", prose(page)):
        if "weigh" not in name:  # the part of add_a_part.md
            assert (PROJECT / name).exists(), f"{page.name}: {name}"


def test_every_page_is_in_the_menu() -> None:
    menu = yaml.safe_load((PROJECT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert sorted(name for item in menu for name in item.values()) == [
        path.name for path in PAGES if path.parent == DOCS
    ]


# Examples


@page
def test_errors_read_as_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`$ python -m mmnet.train ...` and what follows, up to the next prompt."""
    study(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for _, content in blocks(page):
        for example in content.split("$ python -m mmnet.train ")[1:]:
            command, _, shown = example.partition("\n")
            with pytest.raises(ConfigError) as error:
                preflight(shlex.split(command))
            said = report(error.value).replace(f"{PROJECT}/", "")
            assert said == shown.rstrip("\n"), command


@page
def test_commands_are_accepted(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for _, content in blocks(page):
        for command in re.findall(
            r"^(?:python -m mmnet\.train|mmnet-train)(.*)$", content, re.MULTILINE
        ):
            words = shlex.split(command, comments=True)
            if not any(word.startswith("resume=") for word in words):
                preflight(words)


def test_python_examples_run() -> None:
    for title, content in blocks(DOCS / "configuration.md"):
        if title == "python":
            exec(compile(content, "configuration.md", "exec"), {})


def study(where: Path) -> None:
    """The files that docs/add_a_part.md shows, where it says."""
    for fence, content in blocks(DOCS / "add_a_part.md"):
        title = re.search(r'title="(.+)"', fence)
        if title:
            (where / title[1]).parent.mkdir(parents=True, exist_ok=True)
            (where / title[1]).write_text(content, "utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run of docs/add_a_part.md, on the smallest model."""
    where = tmp_path_factory.mktemp("docs")
    study(where)
    [command] = [
        line
        for _, content in blocks(DOCS / "add_a_part.md")
        for line in content.splitlines()
        if line.startswith("python -m mmnet.train")
    ]
    words = shlex.split(command)[3:]
    small = [word for word in SMALL if not word.startswith(("trainer.steps", "tracker"))]
    return run(where, *small, *words, "tracker=csv", "trainer.ema_decay=0.9")


@pytest.mark.train
def test_the_part_on_the_page_trains(trained: Ended) -> None:
    assert trained.code == 0, trained.err
    assert [line["step"] for line in read(trained.folder) if "train/loss" in line] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert "experiments.weighing.weighed.Weighed" in (trained.folder / "config.yaml").read_text()


@pytest.mark.train
def test_the_dataset_on_the_page_trains(tmp_path: Path) -> None:
    study(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(40):
        draw(tmp_path / "photos" / f"{number}.png", number)
    told = "\n".join(f"{number}.png\t{number % 6}\tbought {number}" for number in range(40))
    (tmp_path / "photos/reviews.txt").write_text(told, "utf-8")
    small = [word for word in SMALL if not word.startswith(("trainer.steps", "dataset."))]
    words = ("--config-dir", "experiments/reviews", "dataset=reviews", "paths.data=photos")
    ended = run(tmp_path, *small, *words, "trainer.steps=3", "trainer.batch_size=8")
    assert ended.code == 0, ended.err
    assert [line["step"] for line in read(ended.folder) if "train/loss" in line] == [1, 2, 3]
    told = told.replace("7.png", "../7.png")
    (tmp_path / "photos/reviews.txt").write_text(told, "utf-8")
    refused = run(tmp_path, *small, *words)
    assert refused.code == 2 and "sample 7: ../7.png leads out of" in refused.err


@pytest.mark.train
def test_the_run_folder_is_as_described(trained: Ended) -> None:
    text = (DOCS / "run_folder.md").read_text("utf-8")
    told = set(re.findall(r"[\w.]+", text))
    there = {path.name for path in trained.folder.iterdir()}
    there |= {path.name for path in (trained.folder / "plots").iterdir()}
    there |= {path.name for path in (trained.folder / "checkpoints/best").iterdir()}
    assert there <= told, there - told
    names = {name for line in read(trained.folder) for name in line}
    for file in ("summary.json", "record.json"):
        names |= json.loads((trained.folder / file).read_text()).keys()
    untold = {name for name in names if f"`{name}`" not in text} - {"step", "time"}
    assert not untold


@pytest.mark.train
def test_a_run_folder_may_be_moved(trained: Ended, tmp_path: Path) -> None:
    study(tmp_path)
    shutil.copytree(trained.folder, tmp_path / "moved", symlinks=True)
    resumed = run(tmp_path, "resume=moved", "trainer.steps=6")
    assert resumed.code == 0, resumed.err
    lines = read(tmp_path / "moved")
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert not run_folders(tmp_path)
