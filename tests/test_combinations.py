"""Every encoder with every fusion and every head that go together; the rest is refused."""

import os

import pytest
import torch

from mmnet.compose import load
from mmnet.data.loader import train_steps
from mmnet.errors import ConfigError
from mmnet.loop import Parameters, advance
from tests.combinations import everything, pairwise, sensible, words
from tests.jobs import make_job


FULL = bool(os.environ.get("MMNET_FULL"))
SENSIBLE = [one for one in everything() if sensible(one)]
CHOSEN = SENSIBLE if FULL else pairwise(SENSIBLE)
REFUSED = [one for one in everything() if not sensible(one)]


def name(one):
    return "-".join(str(choice) for choice in one.values())


@pytest.fixture(scope="module")
def vocabulary(data):
    return data / "bert_vocab" / "bert-base-uncased" / "vocab.txt"


@(pytest.mark.full if FULL else pytest.mark.train)
@pytest.mark.parametrize("one", CHOSEN, ids=name)
def test_it_trains_and_every_parameter_gets_a_finite_gradient(one, tmp_path, vocabulary):
    job = make_job(
        tmp_path, *words(one, vocabulary), "trainer.batch_size=8", "trainer.grad_clip=null"
    )
    reached = {
        parameter: name
        for name, parameter in job.model.named_parameters()
        if parameter.requires_grad
    }
    found = set()

    def note(parameter):
        def hook(gradient):
            assert gradient.isfinite().all(), reached[parameter]
            found.add(parameter)

        return hook

    for parameter in reached:
        parameter.register_post_accumulate_grad_hook(lambda p: note(p)(p.grad))
    steps = train_steps(
        job.train,
        job.reading,
        batch_size=8,
        micro_batch_size=8,
        seed=0,
        first_step=1,
        last_step=3,
        num_workers=0,
        device=torch.device("cpu"),
    )
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    for data in steps:
        loss, norm, *_ = advance(job, job.model, Parameters(job.model), data)
        job.counters.step += 1
        assert norm > 0 and loss == loss
    missed = [reached[parameter] for parameter in reached.keys() - found]
    assert not missed
    after = job.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_pairs_are_all_there():
    def pairs(among):
        return {(a, b) for one in among for a in one.items() for b in one.items() if a[0] < b[0]}

    assert pairs(pairwise(SENSIBLE)) == pairs(SENSIBLE)
    assert len(pairwise(SENSIBLE)) < 120


@pytest.mark.parametrize("one", pairwise(REFUSED), ids=name)
def test_what_makes_no_sense_is_refused_with_the_reason(one, vocabulary):
    with pytest.raises(ConfigError) as told:
        load("model=micro", *words(one, vocabulary))
    said = str(told.value)
    assert any(
        reason in said
        for reason in ("cannot do without", "keeps the", "would train", "joins", "needs an")
    ), said
