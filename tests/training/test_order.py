"""The order of the data: the same global batches on any number of processes, and from any step on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import TrainingError
from polyattn.training import Draw, Order, seed_of
from polyattn.training.loading import training_batches
from polyattn.training.order import Share


@st.composite
def orders(draw) -> Order:
    batch = draw(st.integers(1, 24))
    size = draw(st.integers(batch, 60))
    return Order(size, batch, draw(st.integers(1, batch)), draw(st.integers(0, 3)))


@given(orders(), st.integers(0, 200), st.integers(1, 4))
def test_processes_share_one_global_batch_in_the_same_parts(order, step, count):
    parts = [micro for rank in range(count) for micro in order.share(step, rank, count)]
    assert parts == order.share(step, 0, 1)
    assert [draw.index for micro in parts for draw in micro.draws] == order.samples(step)
    assert [micro.number for micro in parts] == list(range(order.micros))
    assert {len(micro.draws) for micro in parts[:-1]} <= {order.micro}


@given(orders(), st.integers(0, 5))
def test_an_epoch_has_no_sample_twice_and_leaves_out_less_than_a_batch(order, epoch):
    first = epoch * order.steps_per_epoch
    seen = [i for step in range(first, first + order.steps_per_epoch) for i in order.samples(step)]
    assert len(set(seen)) == len(seen) == order.size - order.size % order.batch
    assert set(seen) <= set(range(order.size))


@given(orders(), st.integers(0, 50), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_resumed_sampler_goes_on_with_the_next_batch_on_another_number_of_processes(order, done, more, before, after):
    def steps(numbers: range, count: int) -> list[Draw]:
        ranks = [iter(Share(order, numbers, rank, count)) for rank in range(count)]
        taken = []
        for step in numbers:
            for rank, batches in enumerate(ranks):
                taken += [d for _ in order.share(step, rank, count) for d in next(batches)]
        return taken

    undisturbed = steps(range(done + more), 1)
    assert steps(range(done), before) + steps(range(done, done + more), after) == undisturbed


@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=4), st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_seeds_differ_where_their_numbers_do(one, other):
    assert seed_of(*one) == seed_of(*one)
    assert 0 <= seed_of(*one) < 2**63
    if one != other and len(one) == len(other):
        assert seed_of(*one) != seed_of(*other)


def test_epochs_and_seeds_have_their_own_orders():
    orders = [Order(50, 50, 10, seed).samples(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


class Noise:
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, torch.rand(()).item()


def test_augmentation_belongs_to_seed_epoch_and_sample_not_to_what_came_before():
    def drawn(start: int, stop: int, seed: int = 0) -> list:
        order = Order(9, 3, 2, seed)
        return [s for batch in training_batches(Noise(), order, range(start, stop), 0, 1, list, 0) for s in batch]

    torch.manual_seed(1)
    whole = drawn(0, 6)
    before = torch.get_rng_state()
    assert drawn(4, 6) == whole[12:]  # in the middle of the second epoch
    assert torch.equal(torch.get_rng_state(), before)
    first, second = dict(whole[:9]), dict(whole[9:])
    assert all(first[index] != second[index] for index in range(9))
    assert len({value for _, value in drawn(0, 3, seed=1)} | set(first.values())) == 18


def test_processes_that_load_data_draw_the_same():
    order = Order(9, 3, 2, 0)
    here, there = (list(training_batches(Noise(), order, range(4), 0, 1, list, w)) for w in (0, 1))
    assert here == there


def test_data_that_fill_no_batch_are_refused():
    with pytest.raises(TrainingError, match="3 samples, which do not fill a batch of 4"):
        Order(3, 4, 1, 0)


def test_sharded_parameters_need_as_many_passes_in_each_process():
    Order(12, 12, 4, 0).check_processes(2)
    with pytest.raises(TrainingError, match="is 3 forward passes, but 2 processes need a multiple of 2"):
        Order(12, 12, 4, 0).check_processes(2, even=True)
