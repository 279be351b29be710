"""Name how pixels are prepared for a backbone: the figures travel with its weights."""

from typing import Literal

Triple = tuple[float, float, float]
Interpolation = Literal["bicubic", "bilinear"]

# Of OpenAI's training set, per channel of RGB in [0, 1] (Radford et al. 2021, code at github.com/openai/CLIP).
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
