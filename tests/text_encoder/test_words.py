import torch
from small_clips import small_clip

from cocoop_tutorial.text_encoder import words


def test_nearest_words_of_words_are_themselves() -> None:
    clip = small_clip()
    table = clip.text_tower.token_embedding.weight
    ids = clip.tokenizer.encode("cat piano")
    found = words.nearest_words(clip, table[ids], count=2)
    assert found.query("rank == 1").word.tolist() == ["cat", "piano"]
    assert found.query("rank == 1").distance.max() < 1e-2
    assert set(found.vector) == {1, 2}


def test_random_like_keeps_lengths_only() -> None:
    vectors = torch.randn(4, 32)
    control = words.random_like(vectors, seed=3)
    torch.testing.assert_close(control.norm(dim=1), vectors.norm(dim=1))
    assert torch.nn.functional.cosine_similarity(control, vectors).abs().max() < 0.9
    assert torch.equal(control, words.random_like(vectors, seed=3))
