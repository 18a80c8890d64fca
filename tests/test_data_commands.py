"""`python -m mmnet.data`: its words, and verify, describe and probe on real and on made data."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmnet.assembly import assemble
from mmnet.compose import load
from mmnet.data_commands import cli, options
from mmnet.data_commands.chosen import choose
from mmnet.data_commands.describe import describe
from mmnet.data_commands.probe import Rates, compute_faster, probe, read_faster
from mmnet.data_commands.verify import verify
from mmnet.errors import ConfigError, UserError
from tests.command import ROOT
from tests.data_commands import verified, write_facts
from tests.jobs import make_job
from tests.official import official


def run(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmnet.data", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=where)


# Words


def test_it_says_what_it_can_do(tmp_path: Path) -> None:
    helped = run(tmp_path, "--help")
    assert helped.returncode == 0 and "python -m mmnet.data prepare" in helped.stdout
    nothing = run(tmp_path)
    assert nothing.returncode == 2 and "prepare|verify|describe|download|probe" in nothing.stderr
    wrong = run(tmp_path, "descibe", "dataset=coco")
    assert wrong.returncode == 2 and "did you mean 'describe'?" in wrong.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_its_help_and_names_its_options(name: str, tmp_path: Path) -> None:
    text = cli.COMMANDS[name][1]
    kind = getattr(options, name.capitalize())
    assert f"python -m mmnet.data {name}" in text
    assert set(kind.__dataclass_fields__) == set(re.findall(r"^  (\w+)=", text, re.MULTILINE))


def test_its_help_ends_quietly_when_nobody_reads_on() -> None:
    # A shell with pipefail tells of what ended the first of the two: nothing but the signal.
    command = f"set -o pipefail; {sys.executable} -m mmnet.data download dataset=coco | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 128 + signal.SIGPIPE) and not done.stderr
    assert done.stdout.startswith("# MS COCO")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("shord_side=3", "out=x"), "no such option or setting; did you mean 'short_side'?"),
        (("shrd_mb=3", "out=x"), "did you mean 'shard_mb'?"),
        (("datset=coco", "out=x"), "did you mean 'dataset'?"),
        ((), "out: must be set"),
        (("out=x", "short_side=0"), "short_side=0 (command line): expected a whole number of at"),
        (("out=x", "decode=maybe"), "decode=maybe (command line): expected true or false"),
        (("out=x", "dataset=cocoo"), "no such file; did you mean 'coco'?"),
        (("out=x", "dataset.rot=x"), "has no such setting; did you mean 'root'?"),
        (("out=x", "dataset.val_fraction=2"), "expected a number in (0, 1)"),
        (("out=x", "trainer.stepz=2"), "no file sets this"),
        (("out=x", "paths.data="), "paths.data='' (command line): expected a folder"),
    ],
)
def test_a_slip_is_told_with_what_may_have_been_meant(words: Sequence[str], says: str) -> None:
    usual = [] if any(word.startswith("dataset=") for word in words) else ["dataset=sbu"]
    with pytest.raises(ConfigError) as error:
        options.read([*usual, *words], options.Prepare, choose)
    assert says in str(error.value), str(error.value)


def test_all_slips_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        options.read(["dataset=cocoo", "shord_side=1", "decode=2"], options.Prepare, choose)
    assert len(error.value.problems) == 4  # out is missing as well


def test_a_dataset_needs_no_network_that_goes_with_it() -> None:
    chosen, _ = options.read(["dataset=bookcorpus"], options.Verify, choose)
    assert chosen.name == "bookcorpus"  # with the classifier of pictures that is the default


def test_a_dataset_that_is_drawn_is_refused(tmp_path: Path) -> None:
    chosen, asked = options.read(["dataset=shapes"], options.Verify, choose)
    with pytest.raises(UserError, match="dataset=shapes is not read from files"):
        list(verify(chosen, asked))


# Verify


@pytest.fixture
def sbu(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "sbu"
    folder.mkdir()
    official("sbu").make(folder, data)
    return folder


def row(lines: list[str], what: str) -> str:
    return next(line for line in lines if line.startswith(what))


def facts(folder: Path, **more: Any) -> str:
    return f"facts={write_facts(folder, **more)}"


def test_a_subset_is_told_as_such(data: Path) -> None:
    lines, wrong = verified("dataset=coco", f"paths.data={data / 'coco'}")
    assert wrong is None
    assert re.search(r"118,287 +80 +subset \(0\.07%\)$", row(lines, "2017 train pictures"))
    assert re.search(r"25,014 +395 +subset \(1\.58%\)$", row(lines, "2017 val captions"))
    assert row(lines, "pictures decoded").split()[-1] == "ok"
    assert row(lines, "train2017.zip").endswith("missing")
    assert "subset: what is here is part" in lines[-1]


def test_the_whole_is_ok_and_more_than_that_is_wrong(sbu: Path, tmp_path: Path) -> None:
    def number(count: int, **more: Any) -> str:
        return facts(tmp_path, counts=[{"number": count, "source": "me", **more}])

    words = ("dataset=sbu", f"paths.data={sbu}")
    assert verified(*words, number(60))[1] is None
    assert row(verified(*words, number(60))[0], "samples").endswith("ok")
    assert row(verified(*words, number(60, of="captions"))[0], "captions").endswith("ok")
    lines, wrong = verified(*words, number(59, of="pictures"))
    assert row(lines, "pictures ").endswith("differs")
    assert wrong is not None and wrong.exit_code == 1 and "pictures" in str(wrong)


def test_counts_are_those_of_the_edition_that_is_here(sbu: Path, tmp_path: Path) -> None:
    counts = [
        {"number": number, "source": "me", "edition": name}
        for name, number in (("first", 30), ("second", 60), ("third", 90))
    ]
    files = [{"name": "third.zip", "edition": "third", "bytes": 3}]
    named = facts(tmp_path, counts=counts, files=files)
    lines, wrong = verified("dataset=sbu", f"paths.data={sbu}", named)
    assert wrong is None and row(lines, "second samples").endswith("ok")
    assert not any("third" in line for line in lines)


def test_official_files_are_held_against_their_sizes_and_checksums(
    sbu: Path, tmp_path: Path
) -> None:
    path = sbu / "sbu-captions-all.json"
    content = path.read_bytes()
    sha, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    words = ("dataset=sbu", f"paths.data={sbu}")
    for right, wrong in (
        ({"bytes": len(content)}, {"bytes": len(content) + 1}),
        ({"sha256": sha}, {"sha256": "0" * 64}),
        ({"md5": md5}, {"md5": "0" * 32}),
    ):
        lines, error = verified(*words, facts(tmp_path, files=[{"name": path.name, **right}]))
        assert error is None and row(lines, path.name).endswith("ok")
        lines, error = verified(*words, facts(tmp_path, files=[{"name": path.name, **wrong}]))
        assert row(lines, path.name).endswith("differs")
        assert error is not None and error.exit_code == 1


def test_pictures_that_cannot_be_decoded_are_named(sbu: Path) -> None:
    broken = sorted((sbu / "dataset").iterdir())[7]
    broken.write_bytes(broken.read_bytes()[:300])
    words = ("dataset=sbu", f"paths.data={sbu}", "pictures=all")
    lines, wrong = verified(*words)
    assert wrong is not None and wrong.exit_code == 1  # 1 of 60 is more than one in a hundred
    assert re.search(r"60 +59 +differs", row(lines, "pictures decoded"))
    assert any(broken.name in line and "damaged" in line for line in lines)
    lines, wrong = verified(*words, "dataset.max_bad_fraction=0.1")
    assert wrong is None and "within dataset.max_bad_fraction" in row(lines, "pictures decoded")


def test_so_many_pictures_are_decoded_evenly_spread(sbu: Path) -> None:
    lines, _ = verified("dataset=sbu", f"paths.data={sbu}", "pictures=7")
    assert "of 60" in row(lines, "pictures decoded") and " 7 " in row(lines, "pictures decoded")


@pytest.mark.train
def test_the_command_verifies_and_says_so_by_its_exit_code(sbu: Path, tmp_path: Path) -> None:
    good = run(tmp_path, "verify", "dataset=sbu", f"paths.data={sbu}")
    assert good.returncode == 0 and "subset (0.01%)" in good.stdout and not good.stderr
    named = facts(tmp_path, counts=[{"number": 5, "source": "me"}])
    wrong = run(tmp_path, "verify", "dataset=sbu", f"paths.data={sbu}", named)
    assert wrong.returncode == 1 and "differs" in wrong.stdout
    assert wrong.stderr.startswith("mmnet: error:") and "Traceback" not in wrong.stderr
    nowhere = run(tmp_path, "verify", "dataset=sbu", "paths.data=nowhere")
    assert nowhere.returncode == 2 and "no such folder" in nowhere.stderr


# Describe


def described(out: Path, *words: str) -> str:
    chosen, asked = options.read([*words, f"out={out}"], options.Describe, choose)
    list(describe(chosen, asked))
    return (out / "README.md").read_text("utf-8")


def test_the_card_says_what_there_is(data: Path, tmp_path: Path) -> None:
    text = described(tmp_path / "card", "dataset=coco", f"paths.data={data / 'coco'}")
    assert text.startswith("# MS COCO captions\n")
    assert "| train | 80 | 80 | 400 |" in text and "| val | 79 | 79 | 395 |" in text
    assert "Licence: annotations CC BY 4.0" in text and "@inproceedings{lin2014coco" in text
    assert "| person | 75 |" in text and "captions that are there before, to the letter: 0" in text
    shown = re.findall(r"\]\((plots/\w+\.png)\)", text)
    assert sorted(shown) == sorted(
        f"plots/{path.name}" for path in (tmp_path / "card/plots").iterdir()
    )
    for name in shown:
        with Image.open(tmp_path / "card" / name) as picture:
            assert picture.width >= 800 and len(set(picture.convert("L").tobytes())) > 10
    assert str(data) not in text


def test_the_same_data_make_the_same_card(sbu: Path, tmp_path: Path) -> None:
    def digests(name: str) -> dict[str, str]:
        described(tmp_path / name, "dataset=sbu", f"paths.data={sbu}")
        files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = digests("first")
    assert first == digests("second") and {"README.md", "samples.png", "texts.png"} <= first.keys()


def test_the_card_finds_what_is_there_twice_and_what_is_gone(sbu: Path, tmp_path: Path) -> None:
    pictures = sorted((sbu / "dataset").iterdir())
    shutil.copy(pictures[10], pictures[11])
    pictures[20].write_bytes(b"no picture")
    pictures[30].unlink()
    archive = json.loads((sbu / "sbu-captions-all.json").read_text())
    archive["captions"][40] = archive["captions"][41] = archive["captions"][42]
    (sbu / "sbu-captions-all.json").write_text(json.dumps(archive))
    text = described(tmp_path / "card", "dataset=sbu", f"paths.data={sbu}")
    assert "pictures with the same bytes as another: 1 of 58 opened" in text
    assert "captions that are there before, to the letter: 2 of 59" in text
    assert "    * 3 times `picture number 42`" in text
    assert "cannot be read: not a picture: 1" in text
    assert "Dead or not downloaded: 1 of 60 (1.7%)." in text


def test_texts_alone_make_a_card(data: Path, tmp_path: Path) -> None:
    text = described(
        tmp_path / "card", "dataset=bookcorpus", f"paths.data={data / 'books/bookcorpus_layout'}"
    )
    assert "## Texts" in text and "## Pictures" not in text and "samples.png" not in text


# Probe

TINY = ("model=micro", "hardware=cpu", "hardware.precision=fp32", "trainer.batch_size=8")


def test_it_times_both_sides_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    lines = list(probe(load(*TINY, "tracker=none"), options.Probe(steps=3)))
    rates = {
        what: float(row(lines, what).removeprefix(what).split()[0].replace(",", ""))
        for what in ("reading alone", "computing alone", "together")
    }
    assert all(rate > 0 for rate in rates.values())
    assert rates["together"] < 1.3 * min(rates.values())  # they take turns
    assert any("bottleneck" in line for line in lines)
    assert not [path for path in tmp_path.iterdir() if "mmnet" in path.name or path.is_dir()]


class Slow:
    """A split whose samples take their time."""

    def __init__(self, split: Any, pause: Callable[[], None]) -> None:
        self.split, self.pause = split, pause
        self.digest, self.notes = split.digest, split.notes

    def __len__(self) -> int:
        return len(self.split)

    def key(self, index: int) -> str:
        return str(self.split.key(index))

    def sample(self, *arguments: Any) -> Any:
        self.pause()
        return self.split.sample(*arguments)


def test_a_slow_disk_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(run: Any, folder: Path) -> Any:
        job = assemble(run, folder)
        job.train = Slow(job.train, lambda: time.sleep(0.02))
        return job

    monkeypatch.setattr("mmnet.data_commands.probe.assemble", slow)
    lines = list(probe(load(*TINY, "tracker=none"), options.Probe(steps=2)))
    assert any(line.startswith("bottleneck: reading") for line in lines), lines
    assert any("hardware.num_workers=" in line for line in lines)


def test_what_to_change_follows_from_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    run = load(*TINY, "tracker=none", "hardware.num_workers=2")
    said = list(read_faster(run, Rates(reading=100, computing=395, together=100)))
    assert "hardware.num_workers=8: so many would keep up" in said[0]
    said = list(read_faster(run, Rates(reading=100, computing=3950, together=100)))
    assert "hardware.num_workers=16: so many are all cores here, 79 would keep up" in said[0]
    real = load(*TINY, "tracker=none", "dataset=coco", f"paths.data={data / 'coco'}")
    said = list(read_faster(real, Rates(100, 1000, 90)))
    assert "short_side=128" in said[-1] and "the network sees 64" in said[-1]
    busy = ("hardware.micro_batch_size=4", "hardware.num_workers=4")
    job = make_job(tmp_path / "job", *busy, "hardware.activation_checkpointing=true")
    said = list(compute_faster(job.run, job, Rates(1000, 100, 100)))
    assert [re.sub(r"[^\w=].*", "", line.strip().removeprefix("hardware.")) for line in said] == [
        "micro_batch_size=8",
        "activation_checkpointing=false",
        "num_workers=1",
    ]


@pytest.mark.train
def test_the_command_checks_that_the_parts_go_together(tmp_path: Path, sbu: Path) -> None:
    wrong = run(tmp_path, "probe", "dataset=sbu", f"paths.data={sbu}", *TINY)
    assert wrong.returncode == 2 and "learns from label" in wrong.stderr
    words = ("head=contrastive", "fusion=separate", "dataset.val_fraction=0.2", "steps=2")
    good = run(tmp_path, "probe", "dataset=sbu", f"paths.data={sbu}", *TINY, *words)
    assert good.returncode == 0 and "bottleneck" in good.stdout, good.stderr
    assert not (tmp_path / "outputs").exists()
