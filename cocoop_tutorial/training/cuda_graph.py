"""One training pass as a CUDA graph: recorded once, then started with a single call (chapter 5)."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.func import functional_call

from cocoop_tutorial import distributed
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.models.replay import can_be_recorded, record
from cocoop_tutorial.training.batches import Batch
from cocoop_tutorial.training.config import TrainConfig


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

        self.inputs = [x.clone() for x in inputs]
        self.graph, self.output = record(run, inputs[0].device)
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
        whole = (config.micro_batch or images) >= images and not distributed.active()
        return config.cuda_graph and whole and can_be_recorded(model, images)
