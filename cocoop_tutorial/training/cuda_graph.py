"""One training pass as a CUDA graph: recorded once, then started with a single call (chapter 5)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

WARM_UPS = 2  # libraries choose their kernels and build their workspaces before the recording


class RecordedPass:
    """A forward and backward pass, replayed.

    Python needs some microseconds to start a kernel, however small the work is. At batch size 1
    that is most of a step. A replay starts the same kernels at the same addresses without Python,
    so it gives the same bits.
    """

    def __init__(
        self,
        objective: nn.Module,
        backward: Callable[[Tensor], None],
        inputs: tuple[Tensor, ...],
    ) -> None:
        """Runs the pass a few times, as CUDA asks, then records it.

        Args:
            objective: Inputs to the loss and a tensor without gradient. It must not wait for the
                GPU, nor decide anything by what the inputs hold.
            backward: Takes the loss.
            inputs: On a GPU, of the shapes that all later inputs have.
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

        with torch.cuda.device(inputs[0].device):
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

        The parameters' gradients become this pass's, whatever they were before.
        """
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.output.clone()
