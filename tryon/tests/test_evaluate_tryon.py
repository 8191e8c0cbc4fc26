"""The evaluation of the offline provider: real nets, real photos of the openvto package."""

from __future__ import annotations

import csv
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import openvto
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from PIL import Image

from providers.local import tryon as local
from providers.tests.marks import COMPOSITE, said
from providers.tests.models import models
from tryon.management._contact_sheet import BAR, BOX, GAP, LINE, Cell, draw, small
from tryon.management.commands import evaluate_tryon

from .odd_images import chunk

__all__ = ["models"]

ASSETS = Path(openvto.__file__).parent / "assets"
WOMAN, SHIRT, TROUSERS = (
    ASSETS / name for name in ("people/2_posture.jpg", "clothes/shirts/1_front.jpg", "clothes/pants/2_front.jpg")
)
ORIENTATION = 0x0112
"""EXIF's tag."""


def evaluate(*arguments: Any) -> str:
    out = StringIO()
    call_command("evaluate_tryon", *arguments, stdout=out)
    return out.getvalue()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def damaged_png() -> bytes:
    """One whose header and checksums are right, and whose pixels end in the middle of a row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 400, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(400 * (1 + 3 * 300)), 0)[:100_000])
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


@dataclass(frozen=True)
class Evaluated:
    folder: Path
    output: Path
    printed: str
    rows: dict[tuple[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def evaluated(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """A woman, whose photo lies on its side, and a file that is no photo, with a shirt, trousers and a damaged PNG."""
    folder, output = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("results")
    for name in ("person", "garment/tops", "garment/bottoms", "garment/shoes"):
        (folder / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turned by a quarter
    with Image.open(WOMAN) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "person/woman.JPG", "JPEG", exif=exif, quality=95)
    for name in ("person/broken.png", "person/.hidden.jpg", "person/notes.txt", "garment/shoes/shoe.jpg"):
        (folder / name).write_bytes(b"no photo")
    shutil.copy(SHIRT, folder / "garment/shirt.jpg")
    shutil.copy(TROUSERS, folder / "garment/bottoms/trousers.jpg")
    (folder / "garment/tops/damaged.png").write_bytes(damaged_png())
    (output / "broken__shirt.png").write_bytes(b"of an earlier run")
    printed = evaluate(folder, "--output", output)
    return Evaluated(folder, output, printed, {(row["person"], row["garment"]): row for row in table(output)})


def test_every_pair_is_in_the_table_with_the_category_of_its_folder(evaluated: Evaluated) -> None:
    assert {pair: row["category"] for pair, row in evaluated.rows.items()} == {
        (person, garment): category
        for person in ("broken", "woman")
        for garment, category in (("damaged", "tops"), ("shirt", "auto"), ("trousers", "bottoms"))
    }


def test_a_picture_is_told_with_its_confidence_and_its_time_and_lies_beside_the_sheet(evaluated: Evaluated) -> None:
    for garment in ("shirt", "trousers"):
        row = evaluated.rows["woman", garment]
        assert row["outcome"] == ("refused" if row["refusal"] else "shown")
        assert re.fullmatch(r"[01]\.\d\d", row["confidence"])
        assert int(row["cpu_ms"]) > 50
        path = evaluated.output / f"woman__{garment}.png"
        assert pixels(path).size == (765, 1024), "the photo that lies on its side is upright"
        assert said(path.read_bytes()) == COMPOSITE
    assert evaluated.rows["woman", "shirt"]["pixels"] != evaluated.rows["woman", "trousers"]["pixels"]


@pytest.mark.parametrize(("pair", "field"), [(("broken", "shirt"), "Person"), (("woman", "damaged"), "Garment")])
def test_what_is_no_photo_is_a_row(evaluated: Evaluated, pair: tuple[str, str], field: str) -> None:
    row = evaluated.rows[pair]
    assert (row["outcome"], row["confidence"], row["pixels"], row["cpu_ms"]) == ("no picture", "", "", "0")
    assert re.fullmatch(rf"{field} photo: .*(not an image|damaged).*\.", row["refusal"])


def test_no_picture_of_an_earlier_run_stays_where_there_is_none_now(evaluated: Evaluated) -> None:
    assert {path.name for path in evaluated.output.iterdir()} == {
        *("sheet.png", "table.csv", "woman__shirt.png", "woman__trousers.png"),
    }


def test_the_sheet_shows_each_result_in_the_column_of_its_garment(evaluated: Evaluated) -> None:
    sheet = pixels(evaluated.output / "sheet.png")
    assert sheet.width == GAP + 4 * (BOX[0] + GAP)
    for garment, column in (("shirt", 2), ("trousers", 3)):
        result = small(pixels(evaluated.output / f"woman__{garment}.png"))
        wanted = result.crop((20, 160, 220, 161)).tobytes()  # away from a frame
        left = GAP + column * (BOX[0] + GAP) + 20
        assert any(sheet.crop((left, y, left + 200, y + 1)).tobytes() == wanted for y in range(sheet.height))


def test_what_is_printed_counts_the_pairs_and_gives_a_reason_for_each_that_is_not_shown(evaluated: Evaluated) -> None:
    *lines, sheet, file = evaluated.printed.splitlines()
    outcomes = [row["outcome"] for row in evaluated.rows.values()]
    assert lines[0].startswith("6 pair(s): ")
    assert lines[0].endswith(f"{outcomes.count('no picture')} no picture.")
    confidences = [float(evaluated.rows["woman", garment]["confidence"]) for garment in ("shirt", "trousers")]
    assert lines[1] == (
        f"Confidence: {sum(confidences) / 2:.2f} on average of 2, {min(confidences):.2f} to {max(confidences):.2f}."
    )
    assert re.fullmatch(r"CPU: \d+\.\d s a pair, at most \d+\.\d s \(woman, (shirt|trousers)\)\.", lines[2])
    assert f"  broken  shirt  no picture: {evaluated.rows['broken', 'shirt']['refusal']}" in lines[3:]
    assert len(lines[3:]) == 6 - outcomes.count("shown")
    assert (sheet, file) == (str(evaluated.output / "sheet.png"), str(evaluated.output / "table.csv"))


# Which pairs, and what is different now. Those with a photo that is none take no time.


def test_persons_and_garments_are_chosen_by_name(evaluated: Evaluated, tmp_path: Path) -> None:
    chosen = ("--person=broken", "--garment=trousers", "--garment=shirt", "--category=dresses")
    evaluate(evaluated.folder, "--output", tmp_path / "a/b", *chosen)
    assert [(row["person"], row["garment"], row["category"]) for row in table(tmp_path / "a/b")] == [
        ("broken", "shirt", "dresses"),
        ("broken", "trousers", "bottoms"),
    ]


def test_the_results_lie_in_the_current_directory_unless_told_otherwise(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(evaluated.folder, "--person=broken")
    assert {path.name for path in Path("evaluation").iterdir()} == {"sheet.png", "table.csv"}


def test_a_baseline_shows_what_is_different_now(evaluated: Evaluated, tmp_path: Path) -> None:
    baseline = tmp_path / "table.csv"
    earlier = (evaluated.output / "table.csv").read_text("utf-8").splitlines()
    [index] = [index for index, line in enumerate(earlier) if line.startswith("broken,shirt,")]
    earlier[index] = "broken,shirt,auto,shown,0.90,,,1,abc"
    earlier = [line for line in earlier if not line.startswith("broken,damaged,")]
    baseline.write_text("\n".join(earlier), "utf-8")
    arguments = (evaluated.folder, "--person=broken", "--output", tmp_path, "--baseline", baseline)
    printed = evaluate(*arguments)
    assert (
        f"Compared with {baseline}: 2 pair(s) are in both, 1 of them with another picture.\n"
        f"  broken  shirt  shown 0.90 -> no picture\n{tmp_path}"
    ) in printed
    assert f"{baseline}: 3 pair(s) are in both, 0 of them" in evaluate(*arguments), "that table is the new one by now"


def test_an_error_of_the_provider_is_a_row_and_fails_the_command_at_its_end(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_tryon, "_offline", lambda: partial(local.fit, None))  # type: ignore[arg-type]
    with pytest.raises(CommandError, match=r"^2 pair\(s\) ended in an error, .*--traceback") as caught:
        evaluate(evaluated.folder, "--output", tmp_path, "--person=woman")
    assert isinstance(caught.value.__cause__, AttributeError)
    assert [row["outcome"] for row in table(tmp_path)] == ["no picture", "error", "error"]
    assert table(tmp_path)[1]["refusal"].startswith("AttributeError: 'NoneType' object has no attribute ")


# What is refused before any work


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


PAIR = ("person/a.jpg", "garment/b.jpg")


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ((), (), "{folder}/person: No such file or directory. It should be a folder of photos."),
        (("person/a.jpg",), (), "{folder}/garment: No such file or directory. It should be a folder of photos."),
        (("person/a.gif", "garment/b.jpg"), (), "There are no photos of a person: no .jpg, .jpeg, .png, .webp in"),
        (("person/a.jpg", "garment/shoes/b.jpg"), (), "There are no photos of a garment: no .jpg"),
        (PAIR, ("--person=c",), "--person c: there is no such photo. Use one of: a."),
        (PAIR, ("--garment=b", "--garment=c"), "--garment c: there is no such photo. Use one of: b."),
        (
            (*PAIR, "garment/tops/b.png"),
            (),
            "{folder}/garment/b.jpg and {folder}/garment/tops/b.png have the same name. Rename one of them.",
        ),
        (
            [f"{kind}/{index}.jpg" for kind, count in (("person", 21), ("garment", 20)) for index in range(count)],
            (),
            "21 persons with 20 garments are more than 400 pairs. Name those that matter: --person NAME",
        ),
        (PAIR, ("--baseline={folder}/none.csv",), "--baseline {folder}/none.csv: No such file or directory. Give the"),
        (PAIR, ("--output={folder}/person/a.jpg",), "--output {folder}/person/a.jpg: File exists."),
        (PAIR, ("--category=hats",), "argument --category: invalid choice: 'hats'"),
    ],
)
def test_refusals(models: Path, tmp_path: Path, names: tuple[str, ...], arguments: tuple[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        evaluate(folder(tmp_path, *names), *(argument.format(folder=tmp_path) for argument in arguments))
    assert message.format(folder=tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"person\n\xff\n", b"person,garment,category,outcome,confidence\n,,,,x"]
)
def test_a_baseline_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    baseline = tmp_path / "table.csv"
    baseline.write_bytes(content)
    with pytest.raises(CommandError, match=r"table\.csv is no table of this command\. Give the table\.csv"):
        evaluate(folder(tmp_path, *PAIR), "--baseline", baseline)


def test_a_photo_with_too_many_bytes_is_a_row(
    models: Path, evaluated: Evaluated, tmp_path: Path, tryon: Callable[..., None]
) -> None:
    tryon(MAX_IMAGE_BYTES=1000)
    evaluate(evaluated.folder, "--output", tmp_path, "--person=woman", "--garment=shirt")
    assert table(tmp_path)[0]["refusal"] == "Person photo: the image has more than 1,000 bytes. Send a smaller one."


def test_missing_model_files_are_named(tmp_path: Path, tryon: Callable[..., None]) -> None:
    options = {"models_dir": str(tmp_path / "none")}
    tryon(PROVIDERS={"local": {"BACKEND": "providers.local.LocalProvider", "OPTIONS": options}})
    with pytest.raises(
        CommandError, match=r"missing or damaged: .*/none/.*Run `python manage\.py fetch_local_models`"
    ):
        evaluate(folder(tmp_path, *PAIR))


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cv2'] = None;"
        "from django.core.management import execute_from_command_line as run; run(['', *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, "evaluate_tryon", str(folder(tmp_path, *PAIR)), "--settings=settings.test"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert re.fullmatch(
        r"CommandError: The offline provider cannot be loaded: .*cv2.*\. Run `pip install .*` \(the extra local\)\.\n",
        result.stderr,
    )


# How a sheet is drawn


def test_rows_are_as_high_as_their_highest_cell_and_nothing_reaches_into_the_next() -> None:
    red, green = (Cell(Image.new("RGB", BOX, colour)) for colour in ("red", "lime"))
    words = Cell(head="no picture", text=f"{'A long sentence about it. ' * 20}\n{'W' * 400}", frame="blue")
    rows = [[Cell(), red], [green, words], [red]]
    sheet = draw(rows)
    left, right = GAP + BOX[0] // 2, 2 * GAP + BOX[0] + BOX[0] // 2
    second, third = (draw(rows[:count]).height for count in (1, 2))
    places = {(right, GAP): (255, 0, 0), (left, second): (0, 255, 0), (right, second): (0, 0, 255)}
    places |= {(left, third - GAP - 1): (255, 255, 255), (left, third): (255, 0, 0), (right, third): (255, 255, 255)}
    assert {place: sheet.getpixel(place) for place in places} == places
    for gap in (GAP + BOX[0], 2 * (GAP + BOX[0])):
        between = sheet.crop((gap, 0, gap + GAP, sheet.height))
        assert between.getcolors() == [(GAP * sheet.height, (255, 255, 255))]


def test_a_long_text_is_written_in_several_lines() -> None:
    sentence = "The hem is a guess. "
    once, often = (draw([[Cell(text=sentence * times)]]).height - 2 * GAP for times in (1, 20))
    assert often > 5 * once


def test_a_bar_is_as_long_as_the_confidence() -> None:
    sheet = draw([[Cell(Image.new("RGB", BOX, "black"), confidence=0.25)]])
    y = GAP + BOX[1] + LINE + BAR // 2
    bar = [sheet.getpixel((GAP + x, y)) for x in range(BOX[0])]
    assert len(set(bar[:60])) == len(set(bar[60:])) == 1
    assert bar[0] != bar[60]
