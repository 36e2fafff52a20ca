"""One thread: tests assert mathematics, not speed, and two cores are shared with other processes."""

import torch

torch.set_num_threads(1)
