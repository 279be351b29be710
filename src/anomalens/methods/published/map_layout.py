"""Read the linear maps that APRIL-GAN's authors publish, and the maps and prompts that AdaCLIP's do.

APRIL-GAN writes `torch.save({"trainable_linearlayer": state_dict})`: fc.0 … fc.3, each a weight [768, 1024] and a bias
[768], for the patch tokens of each quarter of the tower.

AdaCLIP writes the part of its state dict that was trained, on ViT-L/14:

| key (after "clip_model.") | shape | what becomes of it |
|---|---|---|
| visual_prompter.static_prompts.0 … 3 | [5, 1024] | static prompts before image blocks 1 … 4 |
| text_prompter.static_prompts.0 … 3 | [5, 768] | static prompts before text blocks 2 … 4; nothing reads the first |
| dynamic_visual_prompt_generator.head.0 … 4 | [1024, 768], [1024] | one linear map, the heads' rows in order |
| dynamic_text_prompt_generator.head.0 … 4 | [768, 768], [768] | the same for the text tower |
| patch_token_layer.head.0 … 3 | [768, 1024], [768] | maps of the patch tokens of each quarter |
| cls_token_layer.head.0 | [768, 768], [768] | map of the image embedding |
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anomalens.backbones.checks import check_finite
from anomalens.errors import WeightsError
from anomalens.methods.published.learned_numbers import LearnedNumbers, refuse_rest, take_numbered, tensors_in

APRILGAN_KEY = "trainable_linearlayer"
_PREFIX = "clip_model."
_ADACLIP = (
    "text_prompter.",
    "visual_prompter.",
    "patch_token_layer.",
    "cls_token_layer.",
    "dynamic_visual_prompt_generator.",
    "dynamic_text_prompt_generator.",
)


def read_aprilgan(content: Mapping[str, Any]) -> LearnedNumbers:
    """Return APRIL-GAN's maps in a file's content. Raises WeightsError where anything is not as expected."""
    state = tensors_in(content[APRILGAN_KEY], f'{{"{APRILGAN_KEY}": tensors}}, as APRIL-GAN publishes')
    learned = _maps(state, "fc", "maps", None, None)
    refuse_rest(state)
    check_finite(learned, "the maps")
    return LearnedNumbers(learned, {}, len(learned["maps.0.bias"]))


def is_adaclip(content: Mapping[str, Any]) -> bool:
    """Return whether a file's content has a name that AdaCLIP's files alone have."""
    return any(str(name).removeprefix(_PREFIX).startswith(_ADACLIP) for name in content)


def read_adaclip(content: Mapping[str, Any]) -> LearnedNumbers:
    """Return AdaCLIP's maps and prompts in a file's content. Raises WeightsError where anything is not as expected."""
    tensors = tensors_in(content, "the tensors of AdaCLIP's prompts and maps")
    state = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    visual = torch.stack(take_numbered(state, "visual_prompter.static_prompts.#", None, None))
    (depth, length, width) = visual.shape
    text = torch.stack(take_numbered(state, "text_prompter.static_prompts.#", length, None))
    if len(text) != depth:
        raise WeightsError(
            f"static prompts of {depth} image blocks and of {len(text)} text blocks do not belong together"
        )
    learned = _maps(state, "cls_token_layer.head", "image_map", None, None)
    joint = len(learned["image_map.0.bias"])
    learned = {name.replace(".0.", "."): value for name, value in learned.items()}
    learned |= {"visual_static": visual, "text_static": text[1:]}
    learned |= _maps(state, "patch_token_layer.head", "patch_maps", joint, width)
    for side, rows in (("visual", width), ("text", text.shape[2])):
        heads = _maps(state, f"dynamic_{side}_prompt_generator.head", side, rows, joint)
        if len(heads) != 2 * length:
            raise WeightsError(f"expected {length} heads that make {side} prompts, found {len(heads) // 2}")
        for part in ("weight", "bias"):
            learned[f"{side}_dynamic.{part}"] = torch.cat([heads[f"{side}.{row}.{part}"] for row in range(length)])
    refuse_rest(state)
    check_finite(learned, "the prompts and maps")
    return LearnedNumbers(learned, {"depth": depth, "length": length, "half_prompts": True}, text.shape[2])


def _maps(
    state: dict[str, Tensor], published: str, name: str, outputs: int | None, inputs: int | None
) -> dict[str, Tensor]:
    """Take the linear maps published.0, published.1, … out of a table and return them as name.0, name.1, …

    outputs, inputs: their sizes; None: any, but the same for all.

    Raises WeightsError where weights and biases do not fit each other.
    """
    weights = take_numbered(state, f"{published}.#.weight", outputs, inputs)
    biases = take_numbered(state, f"{published}.#.bias", len(weights[0]))
    if len(weights) != len(biases):
        raise WeightsError(f"{published}: {len(weights)} weights and {len(biases)} biases do not belong together")
    maps = {f"{name}.{number}.weight": value for number, value in enumerate(weights)}
    return maps | {f"{name}.{number}.bias": value for number, value in enumerate(biases)}
