"""Class means as a classifier."""

from pathlib import Path

import pytest
import torch

from cocoop_tutorial import ImageFolder, evaluate, load_clip
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.models.prototypes import Prototypes


def test_prototypes_are_class_means(model_dir: Path, image_folder: Path) -> None:
    clip, data = load_clip(f"local-dir:{model_dir}", device="cpu"), ImageFolder(image_folder)
    features, labels = image_features(clip, data.train)
    model = Prototypes(clip, data.classnames, features, labels)
    for y in range(3):
        mean = features[labels == y].mean(dim=0)
        assert torch.allclose(model.weights[y], mean / mean.norm(), atol=1e-6)
    logits = model.logits_from_features(features)
    assert logits.shape == (len(data.train), 3)
    assert torch.allclose(logits, clip.logit_scale * features @ model.weights.T)
    images = torch.stack([clip.preprocess(image) for image, _ in data.test])
    assert torch.equal(model(images).argmax(1), evaluate(model, data).predictions)


def test_a_class_without_shots_has_no_prototype(model_dir: Path, image_folder: Path) -> None:
    clip, data = load_clip(f"local-dir:{model_dir}", device="cpu"), ImageFolder(image_folder)
    features, labels = image_features(clip, data.train)
    some = labels != 1
    with pytest.raises(ValueError, match="'dog' has no training image"):
        Prototypes(clip, data.classnames, features[some], labels[some])
