"""Stage I: the streaming bank against a plain sort over all patches."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from piaa_utils.selection import PatchBank

COLUMNS = ("labels", "entropy", "image_id", "patch_index", "features", "probs")


def plain_sort(patches, text, image_ids, k, scale=60.0):
    """Every patch in one list, written out in NumPy; the first k of each class."""
    rows = []
    for image, image_id in zip(patches.double().numpy(), image_ids, strict=True):
        for index, x in enumerate(image):
            cos = text.double().numpy() @ x
            p = np.exp(scale * (cos - cos.max()))
            p /= p.sum()
            h = np.float32(-sum(v * math.log(v) for v in p if v > 0))
            rows.append((int(cos.argmax()), abs(h), image_id, index, x, p))
    rows.sort(key=lambda row: row[:4])
    return [
        row
        for _, of_class in itertools.groupby(rows, key=lambda row: row[0])
        for row in itertools.islice(of_class, k)
    ]


def assert_is(bank, rows):
    assert len(bank) == len(rows)
    for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        ours, expected = getattr(bank, name).numpy(), np.array(column)
        if name in ("labels", "image_id", "patch_index"):
            np.testing.assert_array_equal(ours, expected, err_msg=name)
        else:
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def assert_same(a, b):
    for name in COLUMNS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


# Few different patches, whose cosines are exact in any order of summation: ties everywhere.
PALETTE = torch.tensor(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, 0.5], [0, 0, 0, -1]]
)
TEXT = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]])


@st.composite
def worlds(draw):
    n = draw(st.integers(1, 7))
    colours = draw(st.lists(st.integers(0, 4), min_size=4 * n, max_size=4 * n))
    patches = PALETTE[torch.tensor(colours)].reshape(n, 4, 4)
    ids = draw(st.lists(st.integers(0, 99), min_size=n, max_size=n, unique=True))
    k = draw(st.sampled_from([1, 2, 3, 5, 100]))
    return patches, ids, k, draw(st.sampled_from([1.0, 5.0]))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(worlds(), st.data())
def test_any_batches_in_any_order_give_the_plain_sort(world, data):
    patches, ids, k, scale = world
    order = data.draw(st.permutations(range(len(ids))))
    bank = PatchBank(3, k, scale)
    start = 0
    while start < len(ids):
        size = data.draw(st.integers(1, len(ids)))
        chosen = list(order[start : start + size])
        bank.update(patches[chosen], TEXT, [ids[i] for i in chosen])
        start += size
    assert_is(bank, plain_sort(patches, TEXT, ids, k, scale))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(worlds(), st.data())
def test_any_merge_order_gives_the_plain_sort_and_leaves_both_banks(world, data):
    patches, ids, k, scale = world
    banks = [PatchBank(3, k, scale)]  # one that has seen nothing
    for image, image_id in zip(patches, ids, strict=True):
        banks.append(PatchBank(3, k, scale))
        banks[-1].update(image[None], TEXT, [image_id])
    while len(banks) > 1:  # any tree of merges, operands in any order
        a, b = (banks.pop(data.draw(st.integers(0, len(banks) - 1))) for _ in range(2))
        before = [(bank, {n: x.clone() for n, x in bank.state().items()}) for bank in (a, b)]
        banks.append(a.merge(b))
        for bank, state in before:
            assert all(torch.equal(bank.state()[name], state[name]) for name in COLUMNS)
    assert_is(banks[0], plain_sort(patches, TEXT, ids, k, scale))


def random_world(n_images=24, n_patches=25, n_classes=6, width=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(n_classes, width, generator=generator), dim=-1)
    noise = torch.randn(n_images, n_patches, width, generator=generator)
    pick = torch.randint(n_classes, (n_images, n_patches), generator=generator)
    return normalize(0.15 * noise + text[pick], dim=-1), text


def bank_of(patches, text, ids, k, batch):
    bank = PatchBank(len(text), k)
    for some in torch.tensor(ids, dtype=torch.int64).split(batch):
        bank.update(patches[some], text, some)
    return bank


def test_random_patches_give_the_plain_sort_and_the_same_bits_in_any_batches():
    patches, text = random_world()
    bank = bank_of(patches, text, range(24), k=20, batch=5)
    assert_is(bank, plain_sort(patches, text, range(24), k=20))
    assert bank.counts.tolist() == [20] * 6
    for batch in (1, 7, 24):
        assert_same(bank, bank_of(patches, text, range(24), k=20, batch=batch))
    assert_same(bank, bank_of(patches, text, range(23, -1, -1), k=20, batch=3))


def test_memory_is_bound_by_classes_times_k():
    patches, text = random_world(n_images=40)
    bank = PatchBank(6, k=7)
    for i, image in enumerate(patches):
        bank.update(image[None], text, [i])
        waiting = sum(len(rows.labels) for rows in bank._waiting)
        assert waiting < 6 * 7 and len(bank._kept.labels) <= 6 * 7
        storage = [column.untyped_storage().nbytes() for column in bank._kept]
        assert sum(storage) <= 6 * 7 * (4 * 48 + 4 * 6 + 3 * 8 + 4), "rows hold on to a batch"
        assert len(bank._ids) <= 2 * 6 * 7
    worst = [bank.entropy[bank.labels == c].max().item() for c in range(6)]
    assert bank._limits.tolist() == worst, "what cannot enter a full class is refused"
    assert_is(bank, plain_sort(patches, text, range(40), k=7))


def test_a_bank_begun_in_inference_mode_can_go_on_outside():
    patches, text = random_world(n_images=4)
    bank = PatchBank(6, k=3)
    with torch.inference_mode():
        bank.update(patches[:2] * 1, text * 1, [0, 1])
    bank.update(patches[:0], text, [])  # nothing
    bank.update(patches[2:], text, [2, 3])
    assert_same(bank, bank_of(patches, text, range(4), k=3, batch=4))


def test_a_class_with_room_still_takes_a_worse_patch():
    worse = normalize(torch.tensor([[0.1, 0.0, 0.2, 1.0]]), dim=-1)  # of class 2
    bank = PatchBank(3, k=2, scale=5.0)
    bank.update(PALETTE[None, [0, 0, 0, 1, 1, 1]], TEXT, [0])  # C K rows: they are sorted in
    assert bank.counts.tolist() == [2, 2, 0]
    bank.update(worse[None], TEXT, [1])
    assert bank.counts.tolist() == [2, 2, 1]
    still_worse = normalize(worse + torch.tensor([[0.0, 0.1, 0.0, 1.0]]), dim=-1)
    bank.update(still_worse[None], TEXT, [2])
    assert bank.counts.tolist() == [2, 2, 2]
    assert bank.image_id[4:].tolist() == [1, 2] and bank.entropy[4] < bank.entropy[5]


def test_what_is_refused_leaves_the_bank_as_it_was():
    two, bank, other = PALETTE[None].repeat(2, 1, 1), PatchBank(3), PatchBank(3)
    bank.update(two, TEXT, [3, 4])
    other.update(two, TEXT, [4, 5])
    for call, message in (
        (lambda: bank.update(two, TEXT, [4, 5]), "id 4 is in the bank already"),
        (lambda: bank.merge(other), "id 4 is in the bank already"),
        (lambda: bank.update(two, TEXT, [7, 7]), "id 7 is in the bank already"),
        (lambda: bank.merge(PatchBank(3, k=3)), "same"),
        (lambda: bank.merge(PatchBank(4)), "same"),
        (lambda: bank.merge(PatchBank(3, scale=1.0)), "same"),
        (lambda: PatchBank(0, 1), "got n_classes=0, k=1"),
        (lambda: PatchBank(1, 0), "got n_classes=1, k=0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert len(bank) == 10


@pytest.mark.parametrize("half", [0, 10, 24])  # 0: a bank that has seen nothing
def test_a_bank_goes_on_from_its_saved_rows(half):
    patches, text = random_world()
    saved = bank_of(patches, text, range(half), k=20, batch=5).state()
    assert list(saved) == list(COLUMNS)
    bank = PatchBank(6, k=20).restore(saved)
    for some in torch.arange(half, 24).split(7):
        bank.update(patches[some], text, some)
    assert_same(bank, bank_of(patches, text, range(24), k=20, batch=24))


def test_one_encoder_can_select_and_another_s_features_be_kept():
    rng = torch.Generator().manual_seed(0)
    patches, others = (normalize(torch.randn(4, 9, 6, generator=rng), dim=-1) for _ in range(2))
    text = normalize(torch.randn(3, 6, generator=rng), dim=-1)
    plain, crossed = PatchBank(3, k=4), PatchBank(3, k=4)
    plain.update(patches, text, range(4))
    crossed.update(patches[:2], text, [0, 1], others[:2])
    crossed.update(patches[2:], text, [2, 3], others[2:])
    for name in ("labels", "entropy", "image_id", "patch_index", "probs"):
        assert torch.equal(getattr(crossed, name), getattr(plain, name)), name
    assert torch.equal(crossed.features, others[plain.image_id, plain.patch_index])
