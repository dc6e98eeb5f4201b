"""What is written of a training while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ddf_tomo._checks import file_path


class Journal:
    """A line of JSON each validation, and the same for TensorBoard where that is installed."""

    def __init__(self, path: Any, lines: list[dict[str, Any]]) -> None:
        self.path, self.board = None if path is None else file_path(path, "log"), None
        if self.path is None:
            return
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))  # none from after the state
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        folder = self.path.with_name(self.path.stem + ".tensorboard")
        self.board = SummaryWriter(str(folder), purge_step=lines[-1]["step"] + 1 if lines else 0)

    def write(self, line: Mapping[str, float]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in line.items():
                self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
