"""One training pass as a CUDA graph: recorded once, then started with a single call (chapter 5)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cocoop_tutorial import distributed
from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.cost import text_tokens
from cocoop_tutorial.text_encoder.packed.tower import unsupported_reason
from cocoop_tutorial.training.batches import Batch
from cocoop_tutorial.training.config import TrainConfig

WARM_UPS = 2  # libraries choose their kernels and build their workspaces before the recording
# Passes over more tokens are not recorded: their kernels take longer than Python needs to start
# them, and a recording holds its memory for the whole run.
MAX_RECORDED_TOKENS = 2**14


class RecordedPass:
    """A forward and backward pass, replayed.

    Python needs some microseconds to start a kernel, however small its work is. At batch size 1
    this is most of a step's time. A replay starts the same kernels on the same addresses without
    Python, so it gives the same bits.
    """

    def __init__(
        self,
        objective: nn.Module,
        backward: Callable[[Tensor], None],
        inputs: tuple[Tensor, ...],
    ) -> None:
        """Runs the pass a few times, as CUDA requires, then records it.

        Args:
            objective: Takes the inputs and returns the loss and a tensor without gradient. It must
                not wait for the GPU, and its control flow must not depend on the inputs' values.
            backward: Takes the loss.
            inputs: On a GPU, with the shapes of all later inputs.
        """
        trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        # Autograd remembers the stream on which a parameter was first used, for as long as the
        # caller holds any result of it. So the recording has parameters of its own, in the same
        # memory.
        own = {name: p.detach().requires_grad_() for name, p in trained.items()}

        def run() -> Tensor:
            for parameter in own.values():
                parameter.grad = None  # or gradients would add up
            loss, output = functional_call(objective, own, tuple(self.inputs))
            backward(loss)
            return output

        # The first run compares the weights' values, which the recording cannot wait for.
        with torch.cuda.device(inputs[0].device), settled_weights():
            self.inputs = [x.clone() for x in inputs]
            # A stream of its own: recordings on one stream would share cuBLAS's workspace, which
            # some versions of PyTorch free with the first of them (its issue 193402).
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    run()
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=stream):
                self.output = run()
        self.gradients = [(parameter, own[name].grad) for name, parameter in trained.items()]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Replays the pass with new inputs; returns a copy of the objective's tensor.

        The gradients of this pass replace those that the parameters had before.
        """
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.output.clone()


class RecordedSteps:
    """The recorded passes of a run: one for each size of a step, where recording pays."""

    def __init__(
        self,
        model: PromptLearner,
        config: TrainConfig,
        objective: nn.Module,
        backward: Callable[[Tensor, int], None],
    ) -> None:
        """Records nothing yet.

        Args:
            model: What trains.
            config: The settings, resolved.
            objective: As for `RecordedPass`.
            backward: Takes the loss and the number of images in the step.
        """
        self.model, self.config = model, config
        self.objective, self.backward = objective, backward
        self.passes: dict[tuple[int, int], RecordedPass | None] = {}

    def find(self, batch: Batch) -> RecordedPass | None:
        """The recorded pass for such a batch; None where recording does not pay or cannot be."""
        key = len(batch.labels), batch.size
        if key not in self.passes:
            self.passes[key] = None
            if self._can_record(len(batch.labels)):
                backward = partial(self.backward, images=batch.size)
                self.passes[key] = RecordedPass(self.objective, backward, batch.inputs)
        return self.passes[key]

    def _can_record(self, images: int) -> bool:
        model, config = self.model, self.config
        on_gpu = model.clip.device.type == "cuda" and not distributed.active()
        if not (config.cuda_graph and on_gpu) or (config.micro_batch or images) < images:
            return False
        # The other encoders ask the GPU for lengths, which a recording cannot.
        packed = model.encoder == "packed" and unsupported_reason(model.clip) is None
        contexts = images if model.image_conditioned else 1
        tokens, _ = text_tokens(model.prompts, contexts, "packed")
        return packed and model.can_be_recorded and tokens <= MAX_RECORDED_TOKENS
