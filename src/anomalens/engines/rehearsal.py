"""Build an engine whose tower has random weights, to learn how long real ones would take before they are fetched."""

import torch

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.registry import canonical_name, find
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.decision.calibration import Calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.engines.contract import Identity
from anomalens.engines.loaded import Loaded, whole_patches
from anomalens.engines.torch_engine import TorchEngine, pick_device
from anomalens.images.preprocessing import Preprocess
from anomalens.methods import base
from anomalens.options import BUNDLED, LoadOptions


def load(options: LoadOptions) -> Loaded:
    """Build the engine that `options` ask for, with random numbers in the place of weights and of what was learned.

    It does the same work as the real one; its scores mean nothing. A network besides the backbone, which an option
    `guide` names, is left out. Nothing is fetched: a backbone without a name must be on this machine. Arguments and
    errors as `load_detector`.
    """
    named = canonical_name(options.backbone) not in (None, BUNDLED)
    backbone = find(options.backbone) if named else load_weights(options.backbone, offline=True)
    own = {name: value for name, value in options.method_options.items() if name != "guide"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = Clip(backbone.config, backbone.pixels).eval().requires_grad_(False)
        method = base.create(options.method, backbone.config, offline=True, **own)
    device = pick_device(options.device)
    clip, method = clip.to(device, getattr(torch, options.dtype)), method.to(device).eval()
    patch = backbone.config.vision.patch
    preprocess = Preprocess(
        size=whole_patches(options.size or method.working_size(backbone.config.vision.image_size), patch, warn=False),
        mean=backbone.pixels.mean,
        std=backbone.pixels.std,
        interpolation=method.interpolation,
        geometry=method.geometry,
        multiple=patch,
    )
    identity = Identity(options.method, backbone.name, object_name=options.object_name, seed=options.seed)
    engine = TorchEngine(clip, method, PromptEncoder(clip), identity)
    return Loaded(engine, preprocess, Calibration.neutral(method.heat_range), ScorePooling(), None, ())
