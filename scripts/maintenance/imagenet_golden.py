"""Golden logits of timm's HRNet classifiers with random weights: tests/golden/imagenet_logits.npz.

Run it from the root of the repository in a separate environment, because timm needs torchvision:
`pip install timm==1.0.31 torch==2.14.1 torchvision==0.29.1`, then
`PYTHONPATH=. python scripts/maintenance/imagenet_golden.py`.
"""

import numpy as np
import timm
import torch

from tests.golden_weights import draw, image
from tests.paths import GOLDEN

NAMES = (
    "hrnet_w18_small hrnet_w18_small_v2 hrnet_w18 hrnet_w30 hrnet_w32 hrnet_w40 hrnet_w44 "
    "hrnet_w48 hrnet_w64 hrnet_w18_ssld hrnet_w48_ssld"
).split()

logits = {}
for name in NAMES:
    model = timm.create_model(name, pretrained=False).eval()
    state = {key: draw(key, list(tensor.shape)) for key, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    with torch.inference_mode():
        logits[name] = model(image("64x96", 64, 96)).numpy()
    print(name, model.default_cfg["hf_hub_id"], f"largest logit {np.abs(logits[name]).max():.3f}")
np.savez_compressed(GOLDEN / "imagenet_logits.npz", **logits)
