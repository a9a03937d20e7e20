"""Pretraining of emoji-clip: what it may see, its loss, its picking up again, its export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss

from cocoop_tutorial import load_clip, load_result
from cocoop_tutorial.datasets.emoji import drawings, sources
from cocoop_tutorial.errors import UnknownNameError
from cocoop_tutorial.experiments import reproduce
from cocoop_tutorial.pretraining import corpus as pairs
from cocoop_tutorial.pretraining import run as pretrain

ROUNDS = (
    pretrain.Round(3 * 48, 1e-3, 0.5, muon=False),
    pretrain.Round(3 * 48, 7e-4, 0.75),
    pretrain.Round(2 * 48, 5e-4, 0.6),
)
SHORT = pretrain.Recipe(rounds=ROUNDS, batch=48, warmup=2)


@pytest.fixture(scope="module", autouse=True)
def few_packages() -> None:
    """One set of emoji and one of icons: enough for the machinery, and quick to draw."""
    kept = tuple(p for p in sources.PACKAGES if p.name in ("emojione-v1", "flat-color-icons"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PACKAGES", kept)
        yield


@pytest.fixture(scope="module")
def finished(few_packages: None, tmp_path_factory: pytest.TempPathFactory) -> pretrain.Run:
    run = pretrain.Run(SHORT, tmp_path_factory.mktemp("whole"), "cpu")
    run.train(every=2)
    return run


def test_loss_is_clips_own() -> None:
    f, t = (torch.nn.functional.normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    ours = pretrain.contrastive_loss(f, t, torch.tensor(7.0), t[:0])
    torch.testing.assert_close(ours, ClipLoss()(f, t, torch.tensor(7.0)))


def test_captions_outside_the_batch_count_against_its_images() -> None:
    eye, scale = torch.eye(6), torch.tensor(9.0)
    f = t = eye[:3]
    alone = pretrain.contrastive_loss(f, t, scale, t[:0])
    unlike = pretrain.contrastive_loss(f, t, scale, eye[3:])
    like = pretrain.contrastive_loss(f, t, scale, eye[:2])
    assert alone < unlike < unlike + 0.1 < like


def test_the_bank_holds_every_emoji_outside_the_batch(finished: pretrain.Run) -> None:
    c = finished.corpus
    batch = np.flatnonzero(c.is_emoji)[:40]
    assert len(finished.stale(batch)) == c.is_emoji.sum() - 40
    early = pretrain.Run(SHORT, finished.folder, "cpu")
    assert len(early.stale(batch)) == 0  # features of an untrained tower say nothing


def test_no_concept_comes_twice_in_a_batch(finished: pretrain.Run) -> None:
    c = finished.corpus
    owner = {row: concept for concept, rows in enumerate(c.members) for row in rows}
    rows, concepts, tokens = pairs.draw_batch(c, 64, 0.75, (0, 1))
    assert [owner[row] for row in rows] == concepts.tolist()
    assert len(set(concepts)) == len(tokens) == 64
    assert c.is_emoji[concepts].sum() == 48
    for concept, caption in zip(concepts, tokens, strict=True):
        assert (c.captions[concept] == caption).all(1).any()


def test_an_icon_named_like_an_emoji_joins_it(finished: pretrain.Run) -> None:
    corpus = finished.corpus
    assert len(set(corpus.concept_names)) > 0.99 * len(corpus.concept_names)
    clock = corpus.concept_names.index("alarm clock")
    rows, times = np.unique(corpus.members[clock], return_counts=True)
    assert corpus.is_emoji[clock]
    assert sorted(times) == [1, 2]  # the icon, and the emoji twice as often
    assert bool(corpus.mono[rows].any()) is False  # both of these sets are in colour


def test_a_house_can_be_held_out_to_choose_the_recipe_by() -> None:
    corpus = pairs.load_corpus(16, 0.0, "JoyPixels", seed=0)
    rows, concepts = corpus.held_out
    assert len(rows) > 10  # the concepts that the icons draw as well
    assert not set(rows) & set(np.concatenate(corpus.members))
    assert corpus.is_emoji[concepts].all()
    with pytest.raises(UnknownNameError, match=r"'JoyPixel'.*mean 'JoyPixels'"):
        pairs.load_corpus(16, 0.0, "JoyPixel", seed=0)


def test_captions_of_unlike_length_do_not_disturb_each_other(finished: pretrain.Run) -> None:
    captions = torch.cat([c[:2] for c in finished.corpus.captions[:9]])
    finished.towers.eval()
    with torch.no_grad():
        together = finished.towers.text(captions, finished.end)
        alone = torch.cat([finished.towers.text(c[None], finished.end) for c in captions])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_augmentation_is_seeded_and_grows_with_strength(finished: pretrain.Run) -> None:
    c, rows = finished.corpus, np.arange(32)

    def augment(seed: int, strength: float) -> torch.Tensor:
        picked = c.pixels[rows], c.mono[rows], c.flippable[rows]
        return pairs.augment(*picked, (0, seed), strength)

    assert augment(1, 0.5).shape == (32, 3, 64, 64)
    assert torch.equal(augment(1, 0.5), augment(1, 0.5))
    assert not torch.equal(augment(1, 0.5), augment(2, 0.5))
    plain = pairs.plain(c.pixels[rows])
    change = [(augment(1, s) - plain).abs().mean() for s in (0.1, 1.0)]
    assert change[0] < change[1]


def test_a_margin_makes_a_drawing_smaller_and_moves_nothing(finished: pretrain.Run) -> None:
    pixels = finished.corpus.pixels[:8]
    rgba = pixels.permute(0, 2, 3, 1).numpy()
    framed = drawings.with_margin(rgba, 0.75)
    assert framed.shape == (8, 96, 96, 4)
    assert (framed[:, 12:-12, 12:-12] == rgba).all() and framed.sum() == rgba.sum()
    small = pairs.plain(pixels, 0.75)
    same = pairs.plain(torch.from_numpy(framed).permute(0, 3, 1, 2))
    torch.testing.assert_close(small, same)


def test_the_share_of_the_side_is_the_best_one_on_held_out_drawings() -> None:
    held_out = load_result("pretrain_emoji_clip")["data"]["held_out_by_side"]
    assert {float(side) for side in held_out} == set(pretrain.SIDES)
    assert reproduce.SIDE == float(max(held_out, key=held_out.get))
    assert load_result("zero_shot")["data"]["side"] == reproduce.SIDE


def test_emoji_clip_names_most_drawings_of_houses_that_it_never_saw() -> None:
    data = load_result("zero_shot")["data"]
    assert data["houses"]["noto"]["accuracy"] >= 60
    assert 60 <= data["mean_of_eleven"] <= 90


@pytest.mark.parametrize("stop", [2, 3, 4, 6])  # in rounds and between them
def test_a_stopped_run_goes_on_to_the_same_bits(
    finished: pretrain.Run, stop: int, tmp_path: Path
) -> None:
    first = pretrain.Run(SHORT, tmp_path, "cpu")
    for _ in range(stop):
        first.update()
    first.save()
    second = pretrain.Run(SHORT, tmp_path, "cpu")
    second.resume()
    assert second.step == stop
    second.train(every=2)
    for name, value in finished.towers.state_dict().items():
        assert torch.equal(value, second.towers.state_dict()[name]), name
    assert second.history[-1] == finished.history[-1]
    assert (tmp_path / "history.json").exists()


def test_a_round_begins_anew_and_may_give_inner_matrices_to_muon(tmp_path: Path) -> None:
    run = pretrain.Run(SHORT, tmp_path, "cpu")
    rates, strengths = [], []
    for step in range(SHORT.steps):
        run.step = step
        rates.append(run.rate())
        strengths.append(run.strength())
    first, second, third = (part.lr for part in ROUNDS)
    assert SHORT.begins == [0, 3, 6, 8]
    assert rates[:3] == pytest.approx([first / 2, first, first])
    assert rates[3:6] == pytest.approx([second / 2, second, second])
    assert rates[6:] == pytest.approx([third / 2, third])
    assert strengths[0] < strengths[1] < ROUNDS[0].strength
    assert strengths[3] == strengths[4] == ROUNDS[1].strength
    assert strengths[6] == ROUNDS[2].strength
    run.step = 2
    assert len(run.optimizers) == 1 and not run.matrices
    run.update()
    before = {n: p.detach().clone() for n, p in run.towers.named_parameters()}
    run.update()
    adamw, muon = run.optimizers
    counts = [sum(len(g["params"]) for g in o.param_groups) for o in (adamw, muon)]
    assert sum(counts) == len(before) and counts[1] == len(run.matrices)
    for name, weight in run.towers.named_parameters():  # Muon's matrices are the weights themselves
        if "transformer" in name:
            assert not torch.equal(weight, before[name]), name
        if weight in run.matrices:
            assert weight.data_ptr() == run.matrices[weight].data_ptr()
            assert "attnpool" not in name and "embedding" not in name


def test_a_checkpoint_of_another_recipe_is_refused(finished: pretrain.Run) -> None:
    other = pretrain.Run(replace(SHORT, calm=1.0), finished.folder, "cpu")
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is of another recipe"):
        other.resume()


def test_plain_open_clip_loads_the_export(finished: pretrain.Run, tmp_path: Path) -> None:
    pretrain.export(finished, tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    model.eval(), finished.towers.eval()  # BatchNorm: batch statistics otherwise
    pixels = pairs.plain(finished.corpus.pixels[:4])
    tokens = finished.corpus.captions[0][:3]
    full = torch.from_numpy(finished.corpus.vocabulary)[tokens]
    wide = torch.nn.functional.pad(full, (0, 32 - full.shape[1]))
    with torch.no_grad():
        ours = finished.towers.image(pixels), finished.towers.text(tokens, finished.end)
        theirs = model.encode_image(pixels, normalize=True), model.encode_text(wide, normalize=True)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=5e-3, rtol=0)  # the export is fp16
    assert load_clip(f"local-dir:{tmp_path}").image_size == preprocess.transforms[0].size == 64
