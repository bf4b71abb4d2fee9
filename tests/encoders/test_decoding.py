import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.encoders.content_encoder import Catalogue
from stages.encoders.image import tiny_image_encoder
from stages.errors import InputError


def jpeg(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 50, 3), value, dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def catalogue(folder, raw_ids, workers=0):
    items = pl.DataFrame({"raw_id": raw_ids})
    return Catalogue(items, "title_en", folder / "Bili_Food_cover.zip", workers)


@pytest.fixture
def covers(tmp_path):
    with zipfile.ZipFile(tmp_path / "Bili_Food_cover.zip", "w") as file:
        file.writestr("v1.jpg", jpeg(10))
        file.writestr("v2.jpg", b"not a picture")
        file.writestr("v4.jpg", jpeg(200))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_missing_and_unreadable_covers_are_counted_and_named(covers, workers, capsys):
    inputs = tiny_image_encoder("head").read(catalogue(covers, ["v1", "v2", "v3", "v4"], workers))
    assert inputs.usable.tolist() == [True, False, False, True]
    assert inputs.facts == {"missing_covers": 1, "unreadable_covers": 1}
    assert inputs.values["pixels"].shape == (4, 3, 64, 64)
    assert inputs.values["pixels"][3].mean() > inputs.values["pixels"][0].mean()
    assert "covers: missing 1 (v3); unreadable 1 (v2);" in capsys.readouterr().out


def test_of_many_missing_covers_the_first_few_are_named(covers, capsys):
    tiny_image_encoder("head").read(catalogue(covers, ["v1", *(f"w{n}" for n in range(9))]))
    assert "missing 9 (w0, w1, w2, w3, w4, …); unreadable 0;" in capsys.readouterr().out


def test_complete_covers_print_nothing(covers, capsys):
    tiny_image_encoder("head").read(catalogue(covers, ["v1", "v4"]))
    assert capsys.readouterr().out == ""


def test_a_dataset_without_covers_is_refused_with_the_modalities_to_ask_for(tmp_path):
    with pytest.raises(InputError, match=r"Bili_Food has no covers.*modalities=\[id,text\]"):
        tiny_image_encoder("head").read(catalogue(tmp_path, ["v1"]))


def test_covers_of_other_items_only_are_refused_with_the_ids(covers):
    with pytest.raises(
        InputError, match=r"no readable cover .*missing: 2 \(x1, x2\); unreadable: 1 \(v2\).*modalities"
    ):
        tiny_image_encoder("head").read(catalogue(covers, ["x1", "x2", "v2"]))


def test_workers_put_nothing_into_shared_memory(covers, monkeypatch):
    def no_shared_memory(*arguments):
        raise AssertionError("a tensor was moved to shared memory")

    monkeypatch.setattr("torch.UntypedStorage._new_using_fd_cpu", no_shared_memory)
    monkeypatch.setattr("torch.UntypedStorage._share_fd_cpu_", no_shared_memory)
    before = set(Path("/dev/shm").iterdir())
    inputs = tiny_image_encoder("head").read(catalogue(covers, ["v1", "v4"], workers=1))
    assert inputs.usable.all()
    assert set(Path("/dev/shm").iterdir()) == before
