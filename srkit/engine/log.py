"""What a run tells: console and log file, JSON records, TensorBoard, a progress bar on terminals."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

logger = logging.getLogger("srkit")


class _Lasting(logging.Handler):
    """A handler that says once that its lines are lost (a full disk, a closed terminal): a training is not ended by that,
    and logging's own answer is a traceback for every line."""

    place = "the console"
    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ValueError)):  # ValueError: the stream was closed
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True  # before the warning, which comes back here
            logger.warning("%s: cannot be written (%s); the work goes on without it", self.place, error)


class _TqdmHandler(_Lasting, logging.StreamHandler):
    """Console handler that leaves a progress bar in place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except (OSError, ValueError):
            self.handleError(record)


class _LogFile(_Lasting, logging.FileHandler):
    """The log file of one start."""

    def close(self) -> None:
        """What a full disk kept back is lost, which was said before."""
        try:
            super().close()
        except OSError:
            self.handleError(logger.makeRecord("srkit", logging.WARNING, __file__, 0, "", (), None))


def start_console(is_main: bool, verbose: bool = False) -> None:
    """Console output of rank 0; the other ranks only warn."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    console = _TqdmHandler()
    console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    console.setLevel(logger.level if is_main else logging.WARNING)
    logger.addHandler(console)


def start_log_file(path: Path) -> None:
    """Adds a log file that gets every line, also those a terminal's progress bar replaces."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        logger.warning("%s: cannot be written (%s); the work goes on without it", path, error.strerror)
        return
    handler.place = str(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    logger.addHandler(handler)


def start_wandb(project: str, resume_id: str | None, name: str, config: Mapping[str, Any]) -> None:
    """Mirrors the TensorBoard curves to Weights & Biases. Without the package, or when it fails, training goes on."""
    try:
        import wandb
    except ImportError:
        logger.warning("logger.wandb: the package wandb is not installed (pip install wandb); going on without it")
        return
    try:
        wandb.init(project=project, id=resume_id, resume="allow", name=name, config=dict(config), sync_tensorboard=True)
    except wandb.errors.Error as error:
        logger.warning("logger.wandb: %s; going on without it", error)


def timestamp() -> str:
    return time.strftime("%Y%m%d_%H%M%S")


class TrainingLog:
    """Lines, records and curves of one training run. On ranks other than 0 every call does nothing.

    Args:
        name: Experiment name; its first five letters open each line, as in BasicSR.
        records: JSON lines file, one record per log point and per validation.
        tb_folder: TensorBoard folder, or None.
        start_iteration: Records and curves after it are dropped: an interrupted run wrote them, this one writes them again.
    """

    def __init__(
        self, name: str, records: Path, tb_folder: Path | None, *, total_iter: int, start_iteration: int, is_main: bool
    ) -> None:
        self.name = name
        self.records = records
        self.tb_folder = tb_folder
        self.total_iter = total_iter
        self.start_iteration = start_iteration
        self.is_main = is_main
        self._tb: Any = None
        self._records_failed = False
        self._began = time.monotonic()
        if is_main:
            self._cut_records()
        on_terminal = is_main and sys.stdout.isatty()
        self.bar = tqdm(
            total=total_iter, initial=start_iteration, unit="it", dynamic_ncols=True, disable=not on_terminal
        )
        self.shows_bar = on_terminal

    def _cut_records(self) -> None:
        """Drops records after the iteration this start resumes from, and lines that a kill or a full disk left in part."""
        try:
            if not self.records.exists():
                return
            lines = self.records.read_text(errors="replace").splitlines()
            part = self.records.with_suffix(".tmp")
            part.write_text("".join(line + "\n" for line in lines if self._is_earlier(line)))
            part.replace(self.records)
        except OSError as error:
            self._say_lost(error)

    def _is_earlier(self, line: str) -> bool:
        try:
            return bool(json.loads(line)["iteration"] <= self.start_iteration)
        except (ValueError, KeyError, TypeError):
            return False

    def _say_lost(self, error: OSError) -> None:
        if not self._records_failed:
            logger.warning("%s: cannot be written (%s); the work goes on without it", self.records, error.strerror)
        self._records_failed = True

    def _record(self, content: Mapping[str, Any]) -> None:
        try:
            with self.records.open("a") as file:
                file.write(json.dumps(content) + "\n")
        except OSError as error:
            self._say_lost(error)

    def tensorboard(self) -> Any:
        """The SummaryWriter, made when first needed (its import takes a second); None without TensorBoard."""
        if self._tb is None and self.tb_folder is not None and self.is_main:
            from torch.utils.tensorboard import SummaryWriter

            _silence_curve_threads()
            self._tb = SummaryWriter(str(self.tb_folder), purge_step=self.start_iteration + 1)
        return self._tb

    def step(self) -> None:
        self.bar.update()

    def train(
        self,
        *,
        iteration: int,
        epoch: int,
        rates: Mapping[str, float],
        losses: Mapping[str, float],
        iteration_s: float,
        data_s: float,
        skipped: int,
    ) -> None:
        """One log point: a BasicSR-style line, a record, scalars under `losses/` and `lr`."""
        if not self.is_main:
            return
        done = max(1, iteration - self.start_iteration)
        eta = timedelta(seconds=int((time.monotonic() - self._began) / done * (self.total_iter - iteration)))
        rate_text = "".join(f"{v:.3e}," for v in rates.values())
        terms = " ".join(f"{k}: {v:.4e}" for k, v in losses.items())
        line = (
            f"[{self.name[:5]}..][epoch:{epoch:3d}, iter:{iteration:8,d}, lr:({rate_text})] "
            f"[eta: {eta}, time (data): {iteration_s:.3f} ({data_s:.3f})] {terms}"
        )
        if skipped:
            line += f" skipped: {skipped}"
        self._line(line)
        self.bar.set_postfix({k: f"{v:.4f}" for k, v in losses.items()}, refresh=False)
        self._record(
            {"kind": "train", "iteration": iteration, "epoch": epoch, "lr": dict(rates), **_finite(losses), "skipped": skipped,
             "iteration_s": round(iteration_s, 6), "data_s": round(data_s, 6)}
        )  # fmt: skip
        scalars = {f"losses/{key}" if key.startswith("l_") else key: value for key, value in losses.items()}
        scalars |= {"lr" if network == "g" else f"lr_{network}": rate for network, rate in rates.items()}
        self._board("add_scalar", scalars, iteration)

    def _line(self, line: str) -> None:
        """To the log file always; to the console unless a progress bar shows the same."""
        if not self.shows_bar:
            logger.info(line)
            return
        record = logger.makeRecord("srkit", logging.INFO, __file__, 0, line, (), None)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)

    def validation(
        self, iteration: int, set_name: str, weights: str, values: Mapping[str, float], best: Mapping[str, tuple[float, int]],
        bars: Mapping[str, tuple[str, float]],
    ) -> None:  # fmt: skip
        """One set's validation: the block users grep for, with the best interpolation beside it."""
        if not self.is_main:
            return
        lines = [f"Validation {set_name} ({weights})"]
        for key, value in values.items():
            beside = f"\t{bars[key][0]}: {bars[key][1]:.4f}" if key in bars else ""
            lines.append(f"\t # {key}: {value:.4f}\tBest: {best[key][0]:.4f} @ {best[key][1]} iter{beside}")
        logger.info("\n".join(lines))
        self._record(
            {"kind": "validation", "iteration": iteration, "set": set_name, "weights": weights, **_finite(values)}
        )
        self._board("add_scalar", {f"metrics/{set_name}/{key}": value for key, value in values.items()}, iteration)

    def pictures(self, iteration: int, name: str, images: Mapping[str, np.ndarray]) -> None:
        """Pictures (H, W, C) from 0 to 1 under one name."""
        self._board("add_image", {f"{name}/{k}": image for k, image in images.items()}, iteration, dataformats="HWC")

    def _board(self, method: str, values: Mapping[str, Any], iteration: int, **settings: Any) -> None:
        """Writes to TensorBoard. What its writer thread could not write (a full disk) ends the curves, not the run."""
        try:
            board = self.tensorboard()
            for tag, value in values.items() if board is not None else ():
                getattr(board, method)(tag, value, iteration, **settings)
        except OSError as error:
            logger.warning("%s: cannot be written (%s); training goes on without TensorBoard", self.tb_folder, error)
            self._tb, self.tb_folder = None, None

    def close(self) -> None:
        self.bar.close()
        if self._tb is not None:
            try:
                self._tb.close()
            except OSError as error:
                logger.warning("%s: its last curves were not written (%s)", self.tb_folder, error)


def _silence_curve_threads() -> None:
    """No traceback when a thread of TensorBoard cannot write: the next call raises the same error, and one line says so."""
    earlier = threading.excepthook
    if earlier.__module__ == __name__:
        return

    def hook(dead: threading.ExceptHookArgs) -> None:
        writes_curves = type(dead.thread).__module__.startswith("tensorboard.")
        if not (writes_curves and isinstance(dead.exc_value, OSError)):
            earlier(dead)

    threading.excepthook = hook


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has neither infinity nor NaN: null."""
    return {k: v if math.isfinite(v) else None for k, v in values.items()}
