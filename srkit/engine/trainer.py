"""The training loop: what happens in one iteration, and what is due between two."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from srkit.engine.captured import CapturedUpdate, Outcome
from srkit.engine.distributed import Group
from srkit.engine.ema import EMA
from srkit.engine.faults import fault
from srkit.engine.log import TrainingLog
from srkit.engine.meters import LossMeter
from srkit.engine.optim import OptimizerStep, guarded_step
from srkit.engine.precision import Precision
from srkit.engine.recipes import Recipe, Scene, Turn, in_full_precision
from srkit.engine.saving import Saver
from srkit.engine.stopping import StopRequest
from srkit.engine.transfer import Batch
from srkit.engine.validation import Validation
from srkit.errors import DivergedError, ExitCode, Stopped


@dataclass
class Trainer:
    """Finished parts and the loop over them.

    Args:
        networks: Bare networks by option name; what is saved.
        recipe: The same networks (wrapped when distributed) and the turns they play.
        optimizers: One per network that learns.
        batches: Endless micro-batches on the device.
        samples_per_iteration: Over all ranks and micro-batches.
        epoch_length: Samples in one (enlarged) epoch.
        accum_iter: Micro-batches per iteration.
        max_nonfinite: Consecutive skipped updates after which training is given up.
        captured: Carries out updates as CUDA graphs; None does each as it comes.
    """

    networks: Mapping[str, nn.Module]
    recipe: Recipe
    optimizers: Mapping[str, OptimizerStep]
    precision: Precision
    ema: EMA | None
    batches: Generator[Batch]
    group: Group
    log: TrainingLog
    validation: Validation
    saver: Saver
    stop: StopRequest
    total_iter: int
    samples_per_iteration: int
    epoch_length: int
    accum_iter: int = 1
    print_freq: int = 100
    max_nonfinite: int = 20
    captured: CapturedUpdate | None = None
    iteration: int = 0
    samples_drawn: int = 0
    meter: LossMeter = field(init=False)
    in_update: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.meter = LossMeter(self.group.device)
        self._statistics = [b for net in self.networks.values() for b in net.buffers() if b.is_floating_point()]

    def run(self) -> None:
        """Trains to `total_iter`. Raises Stopped after saving, DivergedError, and what loading or saving raise."""
        self.between_iterations()  # what an interrupted start left due at this very iteration
        while self.iteration < self.total_iter:
            self.train_step()
            self.log.step()
            self.between_iterations()

    def close(self) -> None:
        """Ends the loader's workers, and waits for what is being written; the trainer cannot train afterwards."""
        self.batches.close()
        self.saver.close()

    def is_finished(self) -> bool:
        """Whether an earlier start already did everything, the last validation included."""
        validated = not self.validation.is_due(self.iteration, self.total_iter)
        return self.iteration >= self.total_iter and validated and self.saver.saved_at == self.iteration

    def train_step(self) -> None:
        """One attempted update of every network whose turn it is."""
        with self.meter.waiting_for_data():
            microbatches = [next(self.batches) for _ in range(self.accum_iter)]
        for turn in self.recipe.turns_at(self.iteration):
            self.optimizers[turn.network].set_learning_rate(self.iteration)
        losses, found_inf = self._captured_update(microbatches) if self.captured else self._update(microbatches)
        self.meter.end_of_iteration(losses, found_inf)
        self.iteration += 1
        self.samples_drawn += self.samples_per_iteration
        self.in_update = False

    def _captured_update(self, microbatches: Sequence[Batch]) -> Outcome:
        assert self.captured is not None
        try:
            carry_out = self.captured.prepare(self.recipe.phase_at(self.iteration), microbatches, self._update)
        finally:
            self.in_update = False  # recording runs through `_update` and changes nothing
        self.in_update = True
        return carry_out()

    def _update(self, microbatches: Sequence[Batch]) -> Outcome:
        """All that happens on the device: gradients of all turns, the step of every optimizer, averages.

        It may become a CUDA graph, so it reads nothing back, and keeps no tensor that it makes.
        """
        turns = self.recipe.turns_at(self.iteration)
        statistics = self._flat_statistics()
        losses: dict[str, Tensor] = {}
        for number, batch in enumerate(microbatches, 1):
            with self.group.no_sync(self.recipe.networks.values(), keep_local=number < self.accum_iter):
                with self.precision.autocast():
                    sr = self.recipe.restore(batch)
                scene = Scene(batch, sr.float(), self.iteration)
                for turn in turns:
                    self._backward(turn, scene, losses, is_last=turn is turns[-1])
        self._share_between_ranks(turns)
        fault("train.step")
        self.in_update = True
        found_inf = guarded_step([self.optimizers[turn.network] for turn in turns], self.precision)
        fault("train.update")
        self._put_back(statistics, found_inf)
        if self.ema:
            self.ema.update(found_inf)
        return losses, found_inf

    def _backward(self, turn: Turn, scene: Scene, losses: dict[str, Tensor], is_last: bool) -> None:
        terms = in_full_precision(turn, scene)
        total = torch.stack([term for term in terms.values() if term.requires_grad]).sum() / self.accum_iter
        # The gradient of a loss that is not finite may well be (L1 against NaN has zeros): it is made not to be, on all ranks.
        total = total * (1 + 0 * total.detach())
        parameters = self.optimizers[turn.network].parameters
        self.precision.backward(total, inputs=parameters, retain_graph=not is_last)  # turns share forward passes
        for name, term in terms.items():
            share = term.detach() * (1 / self.accum_iter)
            losses[name] = losses[name] + share if name in losses else share

    def _flat_statistics(self) -> Tensor | None:
        """A copy of what forward passes change in the networks, batch norm's statistics above all; None where nothing is."""
        return torch.cat([b.flatten() for b in self._statistics]) if self._statistics else None

    def _put_back(self, before: Tensor | None, found_inf: Tensor) -> None:
        """Undoes that of a skipped update: one picture that overflowed would stay in running means for ever."""
        after = self._flat_statistics()
        if before is not None and after is not None:
            kept = torch.where(found_inf > 0, before, after).split([b.numel() for b in self._statistics])
            torch._foreach_copy_(self._statistics, [k.view_as(b) for k, b in zip(kept, self._statistics, strict=True)])

    def _share_between_ranks(self, turns: Sequence[Turn]) -> None:
        """Averages the gradients of networks that DDP does not wrap, and gives all ranks rank 0's buffers of all networks.

        Batch norm moves its statistics in every forward pass, with a turn or without: averaged and validated must be what
        rank 0 saves.
        """
        if not self.group.is_distributed:
            return
        for turn in turns:
            if not self.group.is_wrapped(self.recipe.networks[turn.network]):
                self.group.average(self.optimizers[turn.network].gradients())
        self.group.broadcast(buffer for network in self.networks.values() for buffer in network.buffers())

    def between_iterations(self) -> None:
        """Log, validate, save, stop: in this order, each only when due."""
        is_end = self.iteration == self.total_iter
        if self.meter.iterations and (is_end or self.iteration % self.print_freq == 0):
            self._log_line()
        stopping = self._agree_to_stop()
        if not stopping and self.validation.is_due(self.iteration, self.total_iter):
            self._give_up_when_diverged()
            stopping = not self.validation.run(self.iteration)
        if (stopping and self.iteration != self.saver.saved_at) or self.saver.is_due(self.iteration, self.total_iter):
            self._give_up_when_diverged()
            self.saver.save(self, required=stopping or is_end)
        if stopping:
            raise self.stopped()

    def stopped(self) -> Stopped:
        """What ends a run that was asked to stop and is saved."""
        return Stopped(
            f"stopped by {self.stop.reason} at iteration {self.iteration:,} of {self.total_iter:,}; everything is "
            "saved. Run the same command with --auto_resume to go on",
            self.stop.code or ExitCode.INTERRUPTED,
        )

    def _log_line(self) -> None:
        self._give_up_when_diverged()
        losses, iteration_s, data_s = self.meter.read(self.group)
        self.log.train(
            iteration=self.iteration,
            epoch=self.samples_drawn // self.epoch_length,
            rates={name.removeprefix("network_"): step.lr for name, step in self.optimizers.items()},
            losses=losses,
            iteration_s=iteration_s,
            data_s=data_s,
            skipped=self.meter.skipped(),
        )

    def _give_up_when_diverged(self) -> None:
        streak = self.meter.worst_streak()
        if streak >= self.max_nonfinite:
            raise DivergedError(
                f"{streak} updates in a row had a non-finite loss or gradient (until iteration {self.iteration:,}); the last "
                "checkpoint is finite. Lower train.optim_g.lr, set train.grad_clip, or use precision bf16/fp32"
            )

    def _agree_to_stop(self) -> bool:
        """Peers must leave together, and asking them costs a round trip: they are asked every tenth iteration."""
        ahead_s = self.saver.expected_s(self) * 2 + self.meter.iteration_s * (10 if self.group.is_distributed else 1)
        if self.validation.is_due(self.iteration, self.total_iter):
            ahead_s += self.validation.last_duration_s
        wanted = self.stop.is_requested(ahead_s)
        if not self.group.is_distributed:
            return wanted
        if self.iteration % 10:
            return False
        # Only what was gathered counts: a signal that arrives now is known to this rank alone.
        wishes = [(code, reason) for code, reason in self.group.gather((self.stop.code, self.stop.reason)) if code]
        for code, reason in wishes[:1]:
            self.stop.adopt(code, reason)
        return bool(wishes)
