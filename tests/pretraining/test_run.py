"""Pretraining of icon-clip: its drawings, its loss, its picking up again, its export."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss

from cocoop_tutorial import load_clip
from cocoop_tutorial.datasets.icons import names
from cocoop_tutorial.errors import UnknownNameError
from cocoop_tutorial.pretraining import corpus as drawn
from cocoop_tutorial.pretraining import run as pretrain
from cocoop_tutorial.pretraining.augment import augment, plain
from cocoop_tutorial.pretraining.model import Muon, contrastive_loss, load_parts, write_folder

SHORT = pretrain.Recipe(pairs=8 * 48, batch=48, warmup=2, held_out_share=0.5)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few drawings of three houses: enough for the machinery, and quick to draw."""
    found = [d for p in ("emojione-v1", "flat-color-icons", "fe") for d in names.read(p)[:150]]
    path = tmp_path_factory.mktemp("packed") / "drawings.xz"
    drawn.pack(found, path)
    return path


@pytest.fixture(scope="module")
def finished(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> pretrain.Run:
    run = pretrain.Run(SHORT, tmp_path_factory.mktemp("whole"), "cpu", packed)
    run.train(every=4)
    return run


def features(n: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 8), dim=1)


def test_loss_is_clips_own_where_each_image_has_one_caption() -> None:
    f, t, scale = features(6), features(6), torch.tensor(7.0)
    ours = contrastive_loss(f, t, scale, 2 * torch.eye(6) - 1)
    torch.testing.assert_close(ours, ClipLoss()(f, t, scale))


def test_a_pair_that_is_left_open_does_not_change_the_loss() -> None:
    f, t, scale = features(6), features(6), torch.tensor(7.0)
    truth = 2 * torch.eye(6) - 1
    truth[5], truth[:, 5], truth[5, 5] = 0, 0, 1
    open_pairs = contrastive_loss(f, t, scale, truth) * 6
    alone = contrastive_loss(f[:5], t[:5], scale, truth[:5, :5]) * 5
    torch.testing.assert_close(open_pairs, alone)


def test_equally_true_captions_share_the_target() -> None:
    f = t = torch.eye(3)
    truth = torch.tensor([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    between = torch.nn.functional.normalize(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))
    scale = torch.tensor(9.0)
    assert contrastive_loss(between, t, scale, truth) < contrastive_loss(f, t, scale, truth)


def test_muon_is_torchs_own() -> None:
    shapes = [(24, 8), (8, 24), (8, 8), (16, 40), (40, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    one = Muon(ours, weight_decay=0.05)
    two = torch.optim.Muon(theirs, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        one.step(), two.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=3e-5, rtol=0)  # Newton-Schulz runs in bfloat16


def test_what_is_packed_comes_back(packed: Path) -> None:
    found, svgs = drawn.unpack(packed)
    assert found[:150] == names.read("emojione-v1")[:150]
    assert all(svg.startswith("<svg") for svg in svgs)


def test_line_art_is_kept_as_alpha_and_colours_as_they_are(finished: pretrain.Run) -> None:
    pixels, found = finished.corpus.pixels, finished.corpus.drawings
    mono = pixels.colour_row < 0
    assert {d.package for d, m in zip(found, mono, strict=True) if m} == {"fe"}
    rgba = pixels.pick(torch.tensor([0, len(found) - 1]))
    assert rgba.shape == (2, 4, drawn.STORED, drawn.STORED)
    assert rgba[0, :3].max() > 0 and rgba[1, :3].max() == 0
    assert (rgba[:, :3] <= rgba[:, 3:] + 1 / 255).all()  # premultiplied


def test_rendered_drawings_are_read_again_unless_they_changed(packed: Path, tmp_path: Path) -> None:
    svgs = drawn.unpack(packed)[1][:5]
    cache = tmp_path / "drawings.pt"
    first = drawn.render(svgs, cache)
    written = cache.stat().st_mtime_ns
    assert torch.equal(drawn.render(svgs, cache).alpha, first.alpha)
    assert cache.stat().st_mtime_ns == written
    assert len(drawn.render(svgs[:3], cache).alpha) == 3


def test_variants_of_one_drawing_are_held_out_together(finished: pretrain.Run) -> None:
    found, held = finished.corpus.drawings, finished.corpus.held_out
    apart = {(found[i].house, found[i].concept) for i in held}
    kept = [d for d, c in zip(found, finished.corpus.chances, strict=True) if c > 0]
    assert len(held) > 3
    assert not apart & {(d.house, d.concept) for d in kept}
    assert {concept for _, concept in apart} <= {d.concept for d in kept}


def test_emoji_and_icons_get_their_shares(finished: pretrain.Run) -> None:
    emoji = np.array(["emoji" in d.medium for d in finished.corpus.drawings])
    assert finished.corpus.chances[emoji].sum() == pytest.approx(SHORT.emoji_share)
    assert finished.corpus.chances.sum() == pytest.approx(1)


def test_a_house_can_be_held_out_to_choose_the_recipe_by(packed: Path) -> None:
    found, _ = drawn.unpack(packed)
    apart = drawn.hold_out(found, 0.0, "JoyPixels", seed=0)
    assert [d.house == "JoyPixels" for d in found] == apart.tolist()
    with pytest.raises(UnknownNameError, match=r"'JoyPixel'.*mean 'JoyPixels'"):
        drawn.hold_out(found, 0.0, "JoyPixel", seed=0)


def test_a_batch_holds_partners_of_the_same_concept(finished: pretrain.Run) -> None:
    rows = finished.draw_rows(torch.Generator().manual_seed(0))
    concept = finished.captions.concept[rows]
    n = SHORT.batch - round(SHORT.batch * SHORT.partners)
    assert len(rows) == SHORT.batch
    assert torch.equal(concept[n:], concept[: SHORT.batch - n])
    assert (finished.chances[rows] > 0).all()


def test_augmentation_is_seeded_and_grows_with_strength(finished: pretrain.Run) -> None:
    pixels, rows = finished.corpus.pixels, torch.arange(0, 450, 10)
    picked = pixels.pick(rows), pixels.colour_row[rows] < 0, finished.flippable[rows]

    def picture(seed: int, strength: float) -> torch.Tensor:
        return augment(*picked, strength, torch.Generator().manual_seed(seed))

    assert picture(1, 0.5).shape == (45, 3, 64, 64)
    assert torch.equal(picture(1, 0.5), picture(1, 0.5))
    assert not torch.equal(picture(1, 0.5), picture(2, 0.5))
    change = [(picture(1, s) - plain(picked[0])).abs().mean() for s in (0.1, 1.0)]
    assert change[0] < change[1]


def test_line_art_can_be_seen_on_whatever_it_is_laid(finished: pretrain.Run) -> None:
    pixels, rows = finished.corpus.pixels, torch.arange(300, 450)
    picked = pixels.pick(rows), torch.ones(150, dtype=bool), finished.flippable[rows]
    pictures = augment(*picked, 0.8, torch.Generator().manual_seed(0))
    assert (pictures.std((1, 2, 3)) > 0.05).all()


def test_captions_of_unlike_length_do_not_disturb_each_other(finished: pretrain.Run) -> None:
    rows = torch.arange(0, 450, 50)
    captions = finished.captions.draw(rows, torch.Generator().manual_seed(0))
    finished.towers.eval()
    with torch.no_grad():
        together = finished.towers.text(captions.tokens, captions.ends)
        alone = [finished.towers.text(captions.tokens[[i]], captions.ends[[i]]) for i in range(9)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stop", [3, 4])  # between two checkpoints and at one
def test_a_stopped_run_goes_on_to_the_same_bits(
    finished: pretrain.Run, packed: Path, stop: int, tmp_path: Path
) -> None:
    first = pretrain.Run(SHORT, tmp_path, "cpu", packed)
    for _ in range(stop):
        first.update()
    first.save()
    second = pretrain.Run(SHORT, tmp_path, "cpu", packed)
    second.resume()
    assert second.step == stop
    second.train(every=4)
    for name, value in finished.towers.state_dict().items():
        assert torch.equal(value, second.towers.state_dict()[name]), name
    scores = ("step", "emoji", "icon")
    assert [second.history[-1][k] for k in scores] == [finished.history[-1][k] for k in scores]


def test_schedules_rise_and_end_low(packed: Path, tmp_path: Path) -> None:
    run = pretrain.Run(replace(SHORT, pairs=100 * 48), tmp_path, "cpu", packed)
    rates, strengths = [], []
    for run.step in range(100):
        rates.append(run.rate())
        strengths.append(run.strength())
    assert rates[:2] == [SHORT.lr / 2, SHORT.lr] and rates[-1] < 0.01 * SHORT.lr
    assert max(strengths) == strengths[60] == SHORT.strength
    assert strengths[0] < strengths[20] and SHORT.calm <= strengths[-1] < SHORT.calm + 0.05


def test_a_run_with_too_little_time_ends_its_schedule_earlier(packed: Path, tmp_path: Path) -> None:
    run = pretrain.Run(replace(SHORT, pairs=10_000 * 48), tmp_path, "cpu", packed)
    run.train(every=2, minutes=0.001)
    assert run.step == run.total == 3
    assert [row["of"] for row in run.history] == [3, 3]


def test_a_checkpoint_of_another_recipe_is_refused(finished: pretrain.Run, packed: Path) -> None:
    other = pretrain.Run(replace(SHORT, calm=1.0), finished.folder, "cpu", packed)
    with pytest.raises(SystemExit, match=r"checkpoint\.pt is of another recipe"):
        other.resume()


def test_plain_open_clip_loads_the_export(finished: pretrain.Run, tmp_path: Path) -> None:
    write_folder(load_parts(finished.folder), tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    model.eval(), finished.towers.eval()  # BatchNorm: batch statistics otherwise
    rows = torch.arange(0, 450, 100)
    pictures = plain(finished.corpus.pixels.pick(rows))
    drawn_captions = finished.captions.draw(rows, torch.Generator().manual_seed(0))
    full = torch.tensor(finished.captions.vocabulary)[drawn_captions.tokens]
    with torch.no_grad():
        ours = (
            finished.towers.image(pictures),
            finished.towers.text(drawn_captions.tokens, drawn_captions.ends),
        )
        theirs = (
            model.encode_image(pictures, normalize=True),
            model.encode_text(full, normalize=True),
        )
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=5e-3, rtol=0)  # the export is fp16
    assert load_clip(f"local-dir:{tmp_path}").image_size == preprocess.transforms[0].size == 64
