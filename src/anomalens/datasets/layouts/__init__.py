"""Any folder of images as one type: `open_dataset("LAYOUT:PATH")` gives a Dataset of Samples and Faults.

| layout | PATH is |
|---|---|
| mvtec | the folder of class folders, each with `test/<kind>/` and `ground_truth/<kind>/` (or one class folder) |
| visa | the folder that holds `split_csv/1cls.csv` |
| meta | the folder that holds the papers' `meta.json` |
| folders | a folder with `normal/`, `anomalous/` and optionally `masks/` |
| flat | a folder of images without labels |
| manifest | a CSV, JSON-lines or Parquet file with the column `image` |
"""

from anomalens.datasets.layouts.masks import deep_check, read_mask, read_truth
from anomalens.datasets.layouts.model import FAULT_KINDS, ClassCounts, Dataset, Fault, Sample, fault_lines
from anomalens.datasets.layouts.opening import LAYOUTS, detect, open_dataset, parse_spec

__all__ = [
    "FAULT_KINDS",
    "LAYOUTS",
    "ClassCounts",
    "Dataset",
    "Fault",
    "Sample",
    "deep_check",
    "detect",
    "fault_lines",
    "open_dataset",
    "parse_spec",
    "read_mask",
    "read_truth",
]
