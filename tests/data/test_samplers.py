import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hrseg.data.dataset import Key
from hrseg.data.samplers import ClassDraw, EvaluationSampler, TrainSampler


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 60), world=st.integers(1, 4), share=st.integers(1, 4),
    epoch=st.integers(0, 9),
)  # fmt: skip
def test_processes_share_each_global_batch_without_overlap(images, world, share, epoch):
    batch = world * share
    alone = TrainSampler(range(images), seed=3, batch_size=batch)
    alone.set_epoch(epoch)
    order = [key.index for key in alone]
    assert len(order) == images // batch * batch == len(set(order))
    shares = []
    for rank in range(world):
        sampler = TrainSampler(range(images), world, rank, seed=3, batch_size=batch)
        sampler.set_epoch(epoch)
        shares.append([key.index for key in sampler])
        assert len(sampler) == len(shares[-1])
        assert all(key.epoch == epoch and not key.repeat for key in sampler)
    for start in range(0, images // batch):
        together = [i for mine in shares for i in mine[start * share : (start + 1) * share]]
        assert sorted(together) == sorted(order[start * batch : (start + 1) * batch])


@given(images=st.integers(1, 30), world=st.integers(1, 5))
def test_evaluation_scores_each_image_once_with_equally_many_per_process(images, world):
    shares = [list(EvaluationSampler(range(images), world, rank)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    scored = [key.index for share in shares for key in share if not key.repeat]
    assert sorted(scored) == list(range(images))


def keys(
    class_draw: ClassDraw | None, world: int = 1, rank: int = 0, images: int = 60
) -> list[Key]:
    sampler = TrainSampler(range(images), world, rank, 3, 12, class_draw)
    sampler.set_epoch(5)
    return list(sampler)


RARE = {0: list(range(60)), 2: [7]}


def test_without_a_class_draw_an_epoch_is_the_permutation_of_its_seed_and_number():
    order = np.random.default_rng((3, 5)).permutation(60)
    assert keys(None) == [Key(index, 5) for index in order] == keys(ClassDraw(0.0, RARE))


def test_drawn_classes_take_places_and_leave_the_others_as_they_are():
    plain, mixed = keys(None, images=600), keys(ClassDraw(0.3, RARE), images=600)
    drawn = [place for place, key in enumerate(mixed) if key.wanted is not None]
    assert len(mixed) == 600 and 135 < len(drawn) < 225  # 180 expected, 4 standard deviations
    for place, (key, before) in enumerate(zip(mixed, plain, strict=True)):
        assert key == before or (key.position == place and key.index in RARE[key.wanted])
    assert all(key.wanted is not None for key in keys(ClassDraw(1.0, RARE)))


@settings(max_examples=20, deadline=None)
@given(world=st.sampled_from([1, 2, 3, 4, 6]), share=st.floats(0, 1))
def test_global_batches_hold_the_same_samples_for_any_number_of_processes(world, share):
    draw, alone = ClassDraw(share, RARE), keys(ClassDraw(share, RARE))
    shares = [keys(draw, world, rank) for rank in range(world)]
    together = [key for step in zip(*shares, strict=True) for key in step]
    assert together == alone


def test_a_resumed_epoch_begins_after_finished_batches_and_later_ones_are_complete():
    whole, resumed = (TrainSampler(range(20), 2, 1, 3, 4) for _ in range(2))
    resumed.resume(6, 4)
    for epoch in (6, 6, 7):
        whole.set_epoch(epoch)
        if epoch > 6:
            resumed.set_epoch(epoch)
        assert list(resumed) == list(whole)[4 if epoch == 6 else 0 :]
    assert len(resumed) == len(whole) == 10
