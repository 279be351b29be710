"""Rehearse a researcher's first day at full size, with random numbers in the real formats: `python tests/rehearsal.py`.

Writes ViT-L/14 at 336 pixels in Hugging Face's and in OpenAI's layout, with the rows of Crane's published prompts in
its token table, so that these accept it; serves Crane's own file on this machine as GitHub does; then runs the
commands of docs/checkpoints.md from an empty cache, for Crane, and for random files of APRIL-GAN and AdaCLIP in their
authors' layout. Each must end well, the second run of Crane without any request. AdaCLIP's answer is compared with
the one of adaclip_written_out.py. Then `reproduce crane --on mvtec --limit 2`, from an empty cache through a mirror of
hub and GitHub on this machine, on the part of MVTec AD in ../shared/data, and with OpenAI's layout given as a file: a
table must come of it, and the second run must ask nobody. Takes half an hour on a core, 6 GB of memory and 8 GB of
disk; needs ../shared. `python tests/rehearsal.py reproduce` rehearses that alone.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

import adaclip_written_out as written_out
import published_files
from anomalens.backbones.registry import find
from anomalens.backbones.tokenizer import encode
from anomalens.backbones.weights import load_weights
from anomalens.detection.loading import load_detector
from anomalens.methods.adaclip import k_means
from anomalens.methods.parts import ensembles
from anomalens.methods.published.importing import import_published
from anomalens.methods.published.table import find_published
from loopback import Site, serving

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CRANE = SHARED / "checkpoints" / "crane"
BIG = find("ViT-L-14-336").config


def main() -> None:
    """Rehearse everything in a folder that is removed at the end."""
    work = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        folder = write_weights(work)
        image = work / "image.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)).save(image)
        with serving() as site:
            if sys.argv[1:] != ["reproduce"]:
                crane(site, folder, image, work)
                others(site, folder, image, work)
            reproduction(site, folder, work)
    finally:
        shutil.rmtree(work)


def told(text: str, since: float) -> None:
    print(f"{text}: {time.monotonic() - since:.0f} s", flush=True)


def write_weights(work: Path) -> Path:
    """Write both layouts, read both, and return Hugging Face's folder."""
    began = time.monotonic()
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = CLIPConfig(
        vision_config={**vision, "image_size": 336, "patch_size": 14, "projection_dim": 768},
        text_config={**text, "projection_dim": 768, "bos_token_id": 49406, "eos_token_id": 49407},
        projection_dim=768,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    prompts = import_published(CRANE / "trained_on_visa_crane_epoch_5.pth")
    assert prompts.token_rows is not None
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight[list(prompts.token_ids)] = prompts.token_rows
    folder = work / "hugging_face"
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    del model
    told("Hugging Face's layout written", began)
    began = time.monotonic()
    loaded = load_weights(folder)
    assert loaded.config == BIG, loaded.config
    sizes = {"input_resolution": 336, "context_length": 77, "vocab_size": 49408}
    openai = {name: value.half() for name, value in loaded.state.items()}
    torch.save(openai | {name: torch.tensor(value) for name, value in sizes.items()}, work / "openai.pt")
    half = load_weights(work / "openai.pt")
    assert half.config == BIG, half.config
    worst = max(float((half.state[name] - value).abs().max()) for name, value in loaded.state.items())
    told(f"Hugging Face's and OpenAI's layouts read; half precision moves a weight by {worst:.0e} at most", began)
    return folder


def crane(site: Site, folder: Path, image: Path, work: Path) -> None:
    """Fetch Crane's own prompts by name and use them, twice."""
    row = find_published("crane:visa")
    address = row.file.address.removeprefix("https://raw.githubusercontent.com")
    site.files[address] = (CRANE / "trained_on_visa_crane_epoch_5.pth").read_bytes()
    for number, requests in ((1, 1), (2, 1)):
        detect(site, work, image, f"crane-{number}", "--method", "crane", "--backbone", folder)
        assert len(site.requests) == requests, site.requests
    named = json.loads(run(site, work, "checkpoints", "crane", "--json"))
    assert [entry["here"] for entry in named] == [True, False]


def others(site: Site, folder: Path, image: Path, work: Path) -> None:
    """Import files of APRIL-GAN and AdaCLIP and use them; compare AdaCLIP with the written-out form."""
    table = torch.zeros(0)
    for method in ("aprilgan", "adaclip"):
        path = published_files.saved(work / f"{method}.pth", published_files.of_method(method, BIG, table))
        own = work / f"{method}.safetensors"
        run(site, work, "import-checkpoint", path, "--out", own)
        detect(site, work, image, method, "--checkpoint", own, "--backbone", folder)
        run_file = json.loads((work / method / "run.json").read_text())
        assert run_file["settings"]["backbone"].endswith("-gelu"), run_file["settings"]["backbone"]
    began = time.monotonic()
    detector = load_detector(backbone=str(folder), checkpoint=str(work / "adaclip.safetensors"), object_name="bottle")
    scored = detector.engine.score_batch(prepared(image)[None].numpy(), [0])
    sentences = ensembles.adaclip("bottle")
    with torch.no_grad():
        want = written_out.detect(
            load_weights(folder).state,
            torch.load(work / "adaclip.pth", weights_only=True),
            prepared(image),
            (encode(sentences.normal), encode(sentences.abnormal)),
            lambda points: k_means(points[None], 20, 50)[0].argmax(dim=1),
            patch=14,
            heads=(16, 12),
        )
    score = abs(float(scored.score[0]) - want.score)
    heat = float(np.abs(scored.map[0] - want.map.numpy()).max())
    told(f"AdaCLIP at 518 pixels: score {score:.0e} and map {heat:.0e} from the written-out form", began)
    assert max(score, heat) < 1e-4


def reproduction(site: Site, folder: Path, work: Path) -> None:
    """Print Crane's table on a part of MVTec AD, with weights by name, by name again, and with OpenAI's layout."""
    named = find("ViT-L-14-336")
    shutil.rmtree(work / "cache", ignore_errors=True)
    for file in folder.iterdir():
        site.large[f"/{named.hub}/resolve/main/{file.name}"] = file
    address = find_published("crane:visa").file.address.removeprefix("https://raw.githubusercontent.com")
    site.large[address] = CRANE / "trained_on_visa_crane_epoch_5.pth"
    command = ["reproduce", "crane", "--on", "mvtec", "--data", SHARED / "data" / "mvtec", "--limit", 2]
    tables = []
    for label, out, weights in (
        ("from an empty cache", "named", ()),
        ("again", "named", ()),
        ("with OpenAI's layout", "openai", ("--backbone", work / "openai.pt")),
    ):
        site.requests.clear()
        began = time.monotonic()
        tables.append(run(site, work, *command, *weights, "--out", work / out))
        told(f"reproduce {label}, {len(site.requests)} requests", began)
        assert bool(site.requests) == (label == "from an empty cache"), site.requests
        assert "crane\tMVTec AD\timage AUROC\t93.8" in tables[-1], tables[-1]
    print(tables[0], (work / "named" / "reproduction.md").read_text(), sep="\n", flush=True)
    assert tables[0] == tables[1]


def prepared(image: Path) -> Tensor:
    """Resize and normalise as the public code does: bicubic to 518 x 518, OpenAI's mean and deviation."""
    resized = Image.open(image).convert("RGB").resize((518, 518), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    return ((values - mean) / deviation).permute(2, 0, 1)


def detect(site: Site, work: Path, image: Path, name: str, *arguments: object) -> None:
    began = time.monotonic()
    run(site, work, "detect", image, "--out", work / name, *arguments)
    told(f"detect {name}", began)


# The command line, for weights that are as large as the published ones and have another hash; it says the memory used.
COMMAND = """
import resource, sys
from anomalens.backbones import weights
weights._check_sha256 = lambda path, backbone: None
from anomalens.cli import main
try:
    sys.exit(main())
finally:
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB", file=sys.stderr)
"""


def run(site: Site, work: Path, *arguments: object) -> str:
    """Run a command with an empty cache and mirrors on this machine; it must end well."""
    variables = {
        "ANOMALENS_CACHE": str(work / "cache"),
        "HF_HOME": str(work / "cache" / "hub"),
        "ANOMALENS_GITHUB": site.url,
        "HF_ENDPOINT": site.url,
    }
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    print(ran.stderr.strip().splitlines()[-1], flush=True)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}\n{ran.stderr}")
    return ran.stdout


if __name__ == "__main__":
    main()
