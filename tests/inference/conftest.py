"""One thread for torch: the models are tiny, and spinning threads would only fight with the other test processes."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
