from hypothesis import given, settings
from hypothesis import strategies as st

from hrseg.data.sampler import EvaluationSampler, TrainSampler


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
