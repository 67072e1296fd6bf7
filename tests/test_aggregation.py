"""PAA and its alternatives against numbers worked out by hand."""

import math

import torch

from piaa_utils import settings
from piaa_utils.aggregation import cls_scores, evidence, paa, patch_scores, posterior
from piaa_utils.settings import Scales


def softmax(values):
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


# Two patches, three classes.
LOGITS = [[50.0, 10.0, -20.0], [0.0, 40.0, 5.0]]
CLS = [0.6, 0.8]
TEXT = [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]


def by_hand(s=80.0, m=200.0, T=500.0, share=0.1):
    g = [softmax([v / T for v in patch]) for patch in LOGITS]
    e = [max(g[0][c], g[1][c]) for c in range(3)]
    s_patch = softmax([m * v for v in e])
    s_cls = softmax([s * sum(a * b for a, b in zip(CLS, t, strict=True)) for t in TEXT])
    return [(1 - share) * p + share * q for p, q in zip(s_patch, s_cls, strict=True)]


def run(**options):
    return paa(torch.tensor([LOGITS]), torch.tensor([CLS]), torch.tensor(TEXT), **options)


def close(ours, expected):
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_paa_by_hand():
    close(run(), [by_hand()])
    close(run(scales=Scales(s=10.0, m=400.0)), [by_hand(s=10.0, m=400.0)])
    close(run(scales=Scales(T=20.0), cls_weight=0.3), [by_hand(T=20.0, share=0.3)])
    torch.testing.assert_close(run().sum(), torch.tensor(1.0))


def test_each_step_by_hand():
    g = posterior(torch.tensor(LOGITS))
    close(g, [softmax([v / 500 for v in patch]) for patch in LOGITS])
    assert evidence(g).tolist() == [g[0, 0].item(), g[1, 1].item(), g[1, 2].item()]
    close(patch_scores(torch.tensor([0.36, 0.35])), softmax([2.0, 0.0]))
    close(patch_scores(torch.tensor([0.36, 0.35]), 400.0), softmax([4.0, 0.0]))
    close(cls_scores(torch.tensor(CLS), torch.tensor(TEXT)), softmax([48.0, 64.0, 76.8]))
    close(cls_scores(torch.tensor(CLS), torch.tensor(TEXT), 10.0), softmax([6.0, 8.0, 9.6]))


def test_each_image_stands_alone_and_patches_have_no_order():
    generator = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(5, 9, 3, generator=generator)
    cls = torch.nn.functional.normalize(torch.randn(5, 2, generator=generator), dim=-1)
    scores = paa(logits, cls, torch.tensor(TEXT))
    torch.testing.assert_close(paa(logits[3:4], cls[3:4], torch.tensor(TEXT)), scores[3:4])
    shuffled = logits[:, torch.randperm(9, generator=generator)]
    torch.testing.assert_close(paa(shuffled, cls, torch.tensor(TEXT)), scores)


def test_the_numbers_of_the_release():
    voc, coco, nus = (80, 200, 500), (80, 400, 500), (10, 400, 500)
    numbers = {name: tuple(scales[:3]) for name, scales in settings.PAPER.items()}
    assert numbers == {"voc07": voc, "voc12": voc, "coco": coco, "nus": nus}
    assert settings.PURIFY_TEMPERATURE == {"voc07": 100, "voc12": 100, "coco": 0.01, "nus": 500}
    constants = settings.BANK_SIZE, settings.SELECTION_SCALE, settings.CLS_WEIGHT
    assert constants == (512, 60, 0.1)
