"""Pictures and settings -> the states of a detector, one an epoch, by Ultralytics' loop with its bounds moved.

Moved are: the processor (all its cores, channels last, pictures kept decoded), resumption (an epoch's random numbers
follow from seed and epoch alone, so that a resumed training ends in the very weights of an uninterrupted one), and
silence (no files, callbacks, plots or output of its own).
"""
# mypy: disable-error-code="no-untyped-call"

import ctypes
import platform
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import SETTINGS
from ultralytics.utils.torch_utils import unwrap_model

from stages.params import StageError
from stages.training.checkpoint import State
from stages.training.settings import Settings

Epoch = dict[str, float]

# By their names in malloc.h. Freed memory stays: every batch asks for the same 2 GB again, and page faults cost as
# much as the convolutions (0.78 s a batch instead of 1.06 at 320 px on 2 cores).
MALLOPT = {-4: 0, -1: -1, -2: 268_435_456}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
DECODED_BYTES = 2 << 30  # up to this much, decoded pictures stay in memory; a fixed number, so that runs are alike
TRACKERS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "sync")


def keep_freed_memory() -> None:
    """Before torch allocates. Elsewhere than with glibc this changes nothing."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in MALLOPT.items():
            libc.mallopt(option, value)


class Fit(DetectionTrainer):
    """One training, going on after state. keep gets the state after each epoch; folder is for Ultralytics' own files.

    workers: processes, joined by torch.distributed, that each take a part of every batch and average their gradients.
    They end in the same weights; the first of them scores and keeps.
    """

    # None in Ultralytics until they are built
    model: Any
    ema: Any
    optimizer: Any
    train_loader: Any
    metrics: Any
    tloss: Any
    loss: Any
    fitness: Any
    best_fitness: Any

    def __init__(
        self,
        settings: Settings,
        threads: int,
        folder: Path,
        state: State | None,
        keep: Callable[[State], None],
        workers: int = 1,
    ) -> None:
        SETTINGS.update(dict.fromkeys(TRACKERS, False))
        on_cuda = settings["device"].startswith("cuda")
        own = {
            "save_dir": str(folder),
            "plots": False,
            "deterministic": True,
            # bf16 on the processor was slower, 0.83 s a batch for 0.66, even where it has the instructions. Half
            # precision other than bf16 would have Ultralytics fetch weights to try it with.
            "amp": "bf16" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else False,
        }
        super().__init__(overrides=settings | own)
        self.state: State = state or {"history": [], "best": {}, "best_epoch": 0}
        self.keep = keep
        self.workers = workers
        torch.set_num_threads(threads)  # the constructor has set one fewer than there are cores

    def run(self) -> State:
        """Epoch by epoch to the end, or to the stop by patience. The state after the last one."""
        self.train()
        return self.state

    def run_callbacks(self, event: str) -> None:
        """Runs none: Ultralytics' own report to trackers and to clouds; what we want at an event overrides a method."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> "Pictures":
        lines = Path(img_path).read_text(encoding="utf-8").split()
        training = mode == "train"
        network: Any = unwrap_model(self.model)
        try:
            dataset = Pictures(
                self.save_dir / f"{mode}.cache",
                img_path=img_path,
                data=self.data,
                imgsz=self.args.imgsz,
                batch_size=batch,
                augment=training,
                hyp=self.args,
                rect=self.args.rect or not training,
                cache="ram" if len(lines) * self.args.imgsz**2 * 3 <= DECODED_BYTES else None,
                stride=max(int(network.stride.max()), 32),
                pad=0.0 if training else 0.5,
            )
        except (RuntimeError, ValueError) as error:
            raise StageError(f"{img_path}: {' '.join(str(error).split())}") from None
        if len(dataset) != len(lines):  # Ultralytics leaves out what it cannot use, and goes on
            lost = sorted({Path(line).name for line in lines} - {Path(file).name for file in dataset.im_files})
            raise StageError(f"{img_path}: {len(lost)} of {len(lines)} pictures unusable: {' '.join(lost[:5])}")
        return dataset

    def _build_train_pipeline(self) -> None:
        """Called when the network is there, and nothing yet that trains it."""
        if self.device.type == "cpu":  # on CUDA Ultralytics does it
            self.model.to(memory_format=torch.channels_last)
        if self.workers > 1:
            self.world_size = self.workers  # only now: earlier, Ultralytics would join processes itself, on GPUs alone
            gpus = [self.device.index] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(
                self.model, device_ids=gpus, find_unused_parameters=True, forward_sync_buffers=False
            )
        super()._build_train_pipeline()
        # The loop now calls optimizer_step after every batch, and that counts: its own counting crosses epochs.
        self.batches_a_step, self.accumulate = self.accumulate, 1

    def resume_training(self, ckpt: Any) -> None:
        """Called when all is built. Takes the place of Ultralytics' own, whose checkpoints are rounded to half."""
        if self.state["history"]:
            self.resume = True
            unwrap_model(self.model).load_state_dict(self.state["model"])
            self.ema.ema.load_state_dict(self.state["ema"])
            super().resume_training({**self.state, "ema": self.ema.ema})
        self.bar = tqdm(total=self.epochs, initial=self.start_epoch, desc="train", unit="epoch", disable=None)
        self.since = time.monotonic()

    def _model_train(self) -> None:
        """Called at the start of each epoch."""
        super()._model_train()
        self.batch_index = self.gathered = 0
        follows_from = [self.args.seed, self.epoch]
        if self.workers > 1:
            follows_from.append(distributed.get_rank())
            self.train_loader.sampler.set_epoch(self.epoch)
        seed = int(np.random.SeedSequence(follows_from).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # what Ultralytics' augmentation draws from
        torch.manual_seed(seed)
        self.train_loader.generator.manual_seed(seed)
        self.train_loader.reset()
        dataset = self.train_loader.dataset
        if dataset.cache != "ram":  # what mosaics are made of must not depend on the epoch before
            dataset.buffer, dataset.ims = [], [None] * dataset.ni

    def optimizer_step(self) -> None:
        """Called after each batch: steps when enough are gathered, and at an epoch's end."""
        batches = len(self.train_loader)
        self.batch_index += 1
        self.gathered += 1
        done, warmup = self.epoch * batches + self.batch_index - 1, self._get_warmup_iterations(batches)
        wanted = round(np.interp(done, [0, warmup], [1, self.batches_a_step])) if warmup else self.batches_a_step
        if self.gathered >= wanted or self.batch_index == batches:
            super().optimizer_step()
            self.gathered = 0

    def _handle_nan_recovery(self, epoch: int) -> bool:
        fitness = 0.0 if self.fitness is None else self.fitness  # another worker has it
        if not self.loss.isfinite() or not np.isfinite(fitness):
            where = f"epoch {epoch + 1}: loss {self.loss.item()}, mAP {self.fitness}"
            raise StageError(f"{where}: the training diverged; lower train.ultralytics.lr0")
        return False

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Nothing: the report is ours."""

    def save_model(self) -> bool:
        """Called at the end of each epoch, when it is scored and it is known whether it was the last."""
        network: Any = unwrap_model(self.model)
        is_best = self.fitness == self.best_fitness
        rounded = {name: value.half() for name, value in self.ema.ema.state_dict().items()} if is_best else {}
        self.state = {
            "epoch": self.epoch,
            "finished": bool(self.stop),
            "history": [*self.state["history"], self._epoch_in_numbers()],
            "architecture": {**network.yaml, "yaml_file": Path(network.yaml.get("yaml_file", "")).name},
            "best": rounded or self.state["best"],
            "best_epoch": self.epoch + 1 if is_best else self.state["best_epoch"],
            "model": network.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_fitness": float(self.best_fitness),
            "stopper": {name: float(value) for name, value in vars(self.stopper).items()},
        }
        self.keep(self.state)
        self.bar.update()
        self.since = time.monotonic()
        return True

    def _epoch_in_numbers(self) -> Epoch:
        losses = dict(zip(("box_loss", "cls_loss", "dfl_loss"), map(float, self.tloss.values()), strict=True))
        val = [value for name, value in self.metrics.items() if name.startswith("val/")]
        scores = {
            "precision": self.metrics["metrics/precision(B)"],
            "recall": self.metrics["metrics/recall(B)"],
            "map50": self.metrics["metrics/mAP50(B)"],
            "map50_95": self.metrics["metrics/mAP50-95(B)"],
        }
        return {
            "epoch": self.epoch + 1,
            "seconds": round(time.monotonic() - self.since, 3),
            **{name: round(value, 5) for name, value in losses.items()},
            **{f"val_{name}": value for name, value in zip(losses, val, strict=True)},
            **scores,
            "lr": self.lr["lr/pg0"],
        }

    def final_eval(self) -> None:
        """Nothing: evaluate scores the exported detector as it will serve."""
        self.bar.close()


class Pictures(YOLODataset):
    """What Ultralytics finds out about pictures and labels is kept in scan: theirs may be read-only, or be shared."""

    def __init__(self, scan: Path, **settings: Any) -> None:
        self.scan = scan
        super().__init__(**settings)

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        found: tuple[dict[str, Any], bool] = super()._load_or_scan_cache(self.scan, cache_hash)
        return found

    def cache_images(self) -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            self.ims, self.im_hw0, self.im_hw = map(list, zip(*pool.map(self.load_image, range(self.ni)), strict=True))
