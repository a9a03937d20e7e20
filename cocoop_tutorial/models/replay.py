"""What Python starts kernel by kernel, recorded once as a CUDA graph and replayed (chapter 5)."""

from collections.abc import Callable

import torch
from torch import Tensor

from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.seeds import check_whole
from cocoop_tutorial.text_encoder.cost import text_tokens
from cocoop_tutorial.text_encoder.packed.tower import unsupported_reason

WARM_UPS = 2  # libraries choose their kernels and build their workspaces before the recording
# Passes over more tokens are not recorded: their kernels take longer than Python needs to start
# them, and a recording holds its memory for as long as it is there.
MAX_RECORDED_TOKENS = 2**14


def record(run: Callable[[], Tensor], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Runs a pass a few times, as CUDA requires, then records it.

    Args:
        run: The pass, always on the same tensors. It must not wait for the GPU, and its control
            flow must not depend on the values in them.
        device: Of these tensors.

    Returns:
        The graph, and the tensor in which every replay leaves what `run` returns.
    """
    # The first run compares the weights' values, which the recording cannot wait for.
    with torch.cuda.device(device), settled_weights():
        # A stream of its own: recordings on one stream would share cuBLAS's workspace, which
        # some versions of PyTorch free with the first of them (its issue 193402).
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            output = run()
    return graph, output


def can_be_recorded(model: PromptLearner, images: int) -> bool:
    """Whether a pass over so many images can be recorded, and is short enough for it to pay."""
    if model.clip.device.type != "cuda" or not model.can_be_recorded:
        return False
    # The other encoders ask the GPU for lengths, which a recording cannot.
    packed = model.encoder == "packed" and unsupported_reason(model.clip) is None
    contexts = images if model.image_conditioned else 1
    return packed and text_tokens(model.prompts, contexts, "packed")[0] <= MAX_RECORDED_TOKENS


class RecordedScores:
    """A model's scores for a fixed number of images, for a program that gets one image at a time.

    With one image and few classes, Python needs longer to start the kernels than the GPU needs to
    run them. A replay starts all of them with a single call. Where that cannot be or does not pay,
    for example on a CPU, the model scores the images as usual.

    The replay reads the learned parameters where they are, so it follows when training changes
    them. Make a new one after the backbone or the model's encoder has changed.

    Attributes:
        recorded: Whether calls are replayed.
    """

    def __init__(self, model: PromptLearner, images: int = 1) -> None:
        """Records nothing yet.

        Args:
            model: A trained prompt.
            images: B: how many images each call scores.

        Raises:
            SettingError: Not a whole number from 1.
        """
        self.model, self.images = model, check_whole("images", images)
        self.recorded = can_be_recorded(model, self.images)
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`, without gradient.

        Other numbers of images are scored as well, without a replay.
        """
        if not self.recorded or len(features) != self.images:
            return self.model.logits_from_features(features)
        if self._graph is None:
            self._input = features.clone()
            run = lambda: self.model.logits_from_features(self._input)  # noqa: E731
            self._graph, self._output = record(run, features.device)
        self._input.copy_(features)
        self._graph.replay()
        return self._output.clone()
