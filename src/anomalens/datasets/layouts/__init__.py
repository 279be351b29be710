"""Read any folder of images as one type: `open_dataset("LAYOUT:PATH")` gives a Dataset of Samples and Faults.

mvtec: PATH holds class folders, or is one. Masks are found by name; `good`, `ok`, `normal`, `no` and
the like hold normal images.

    PATH/bottle/train/good/000.png
    PATH/bottle/test/good/000.png
    PATH/bottle/test/crack/000.png
    PATH/bottle/ground_truth/crack/000_mask.png

mvtec3d: as mvtec, with the colour images and their masks in folders of their own.

    PATH/bagel/test/crack/rgb/000.png
    PATH/bagel/test/crack/gt/000.png

visa: a table says everything; its paths count from PATH.

    PATH/split_csv/1cls.csv                       object,split,label,image,mask
    PATH/candle/Data/Images/Anomaly/000.JPG
    PATH/candle/Data/Masks/Anomaly/000.png

meta: the papers' own table, {split: {class: [{img_path, mask_path, cls_name, specie_name, anomaly}]}}.

    PATH/meta.json
    PATH/... wherever its paths say

folders: everything is test data. PATH may also hold several such classes. Without `normal/`, or with `images/` and
`masks/`, the set has pixel-level metrics only.

    PATH/normal/000.png
    PATH/anomalous/000.png                        or, by kind of defect, PATH/anomalous/crack/000.png
    PATH/masks/000_mask.png                       or PATH/masks/crack/000_mask.png; may be missing

flat: all images in PATH and below it, without labels.

    PATH/000.png
    PATH/day2/000.png

manifest: a CSV, TSV, JSON-lines or Parquet file with the column `image` and optionally label, mask, class, split
(train or test) and kind; its paths count from its folder. PATH is the file, or a folder with manifest.csv (.jsonl ...).

    PATH/manifest.csv                             image,label,mask,class,split,kind
"""

from anomalens.datasets.layouts.dataset import FAULT_KINDS, ClassCounts, Dataset, Fault, Sample, fault_lines
from anomalens.datasets.layouts.masks import Truth, deep_check, read_mask, read_truth, truth_at
from anomalens.datasets.layouts.opening import LAYOUTS, detect, open_dataset, parse_spec

__all__ = [
    "FAULT_KINDS",
    "LAYOUTS",
    "ClassCounts",
    "Dataset",
    "Fault",
    "Sample",
    "Truth",
    "deep_check",
    "detect",
    "fault_lines",
    "open_dataset",
    "parse_spec",
    "read_mask",
    "read_truth",
    "truth_at",
]
