"""Train one network: `python -m mmnet.train model=late_fusion hardware=a100`."""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mmnet import __version__
from mmnet.compose import Composed, Source, origins_of, settle
from mmnet.config import CONF, TRUSTED
from mmnet.errors import ConfigError, UserError, report
from mmnet.folder import clear
from mmnet.overrides import read
from mmnet.preflight import preflight


# Options with which nothing is run.
PRINTING = ("--version", "--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i")


@hydra.main(config_path=str(CONF), config_name="train", execution_whitelist=TRUSTED)
def main(cfg: DictConfig) -> float:
    """One run, in the folder that Hydra made for it. Returns the best value of trainer.monitor."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        composed = job(cfg, folder)
        # Read when torch is loaded: threads that wait for the others sleep instead of spinning.
        # On a machine with anything else to do, spinning made a step several times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # These bring in torch; --help and errors do without.
        if composed.run.task == "meta_train":
            from mmnet.meta.session import run_meta_training

            return run_meta_training(composed.run, folder, composed.text)
        from mmnet.session import run_training

        return run_training(composed.run, folder, composed.text)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("mmnet", "experiments"):
            raise
        problem = UserError(f"{error.name} is not installed: pip install 'mmnet[train]'")
        fail(problem, folder)
    except UserError as error:
        fail(error, folder)


def cli() -> None:
    """The installed command, and `python -m mmnet.train`."""
    if any(word.partition("=")[0] in PRINTING for word in sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it, without a word
    if "--version" in sys.argv[1:]:
        print(f"mmnet {__version__}")
        return
    here = str(Path.cwd())
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.append(here)  # parts of a study, experiments.*, are found from there
    sys.excepthook = quiet
    logging.raiseExceptions = False  # a full disk is told of once, not with every line of the log
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        sys.argv[1:] = preflight(sys.argv[1:])
    except UserError as error:
        print(report(error), file=sys.stderr)
        sys.exit(error.exit_code)
    main()


def job(cfg: DictConfig, folder: Path) -> Composed:
    """The run that Hydra composed, checked again: each job of a sweep is another one.

    Raises ConfigError.
    """
    settings = HydraConfig.get()
    sources = settings.runtime.config_sources
    conf, *more = [Path(source.path) for source in sources if source.schema == "file"]
    asked = read(list(settings.overrides.task), [conf, *more], multirun=False)
    source = Source(conf, tuple(more), str(settings.job.config_name))
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    composed = settle(plain, asked, origins_of(asked, source, asked.files))
    if composed.run.resume is None:
        there = {path.name for path in folder.iterdir()} - {settings.output_subdir}
        if there:
            raise ConfigError([f"{folder} is not empty, and nothing is overwritten here"])
    elif folder != Path(composed.run.resume):
        raise ConfigError([f"resume={composed.run.resume}: start it as python -m mmnet.train"])
    return composed


def fail(error: UserError, folder: Path) -> NoReturn:
    """Say what is wrong and leave."""
    print(report(error), file=sys.stderr)
    clear(folder)
    stopped = error.exit_code > 128  # by a signal: it means the sweep as well
    if HydraConfig.get().mode == RunMode.MULTIRUN and not stopped:
        raise error  # the sweeper decides whether the other jobs go on
    sys.exit(error.exit_code)


def leave(signum: int, frame: FrameType | None) -> NoReturn:
    """A signal before training began, or after it ended: nothing is at stake.

    Leaves at once, for an exception would strike in the middle of somebody's import.
    """
    if HydraConfig.initialized():
        clear(Path(HydraConfig.get().runtime.output_dir))
    os._exit(128 + signum)


def quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """No traceback for what `fail` has told already, when it has gone through a sweeper."""
    if not isinstance(error, UserError):
        sys.__excepthook__(kind, error, trace)


if __name__ == "__main__":
    # Not as __main__: launchers that start processes find `main` by its module's name.
    from mmnet import train

    train.cli()
