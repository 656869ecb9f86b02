"""Weights that need not be sent, as the server has the model's file."""

from __future__ import annotations

import os

import pytest
from tests.rpc.models import write_model
from tests.rpc.test_weights import read

from hotplug.errors import UsageError
from hotplug.formats.gguf import GGUFFile
from hotplug.testing.fakes import FakeDevice
from hotplug_rpc.contents import digest_of
from hotplug_rpc.server import model_files
from hotplug_rpc.server.offers import Offer
from hotplug_rpc.server.weights import WeightStore


@pytest.fixture
def offer():
    made = Offer(FakeDevice("fake:0", memory_bytes=1 << 20))
    yield made
    made.desk.close()


@pytest.fixture
def model(tmp_path):
    (tmp_path / "models").mkdir()
    return write_model(tmp_path / "models" / "small.gguf")


def test_they_need_not_be_sent(tmp_path, offer, model):
    for _ in range(2):  # the second time the index is there
        store = WeightStore(tmp_path / "cache", models=[model.parent])
        with GGUFFile.open(model) as file:
            for name in file.tensors:
                data = file.tensor(name).data.data
                shared = store.acquire(offer, digest_of(data), data.nbytes)
                assert read(shared) == bytes(data)
                store.release(shared)
    with pytest.raises(UsageError, match="neither"):
        WeightStore(models=[tmp_path / "nothing"])


def test_a_file_that_is_changed_later_is_hashed_again(offer, model):
    store = WeightStore(models=[model])
    with GGUFFile.open(model) as file:
        name = max(file.tensors, key=lambda name: file.tensors[name].nbytes)
        info, digest = file.tensors[name], digest_of(file.tensor(name).data.data)
    store.release(store.acquire(offer, digest, info.nbytes))
    with model.open("r+b") as file:
        file.seek(info.offset)
        file.write(bytes(info.nbytes))
    os.utime(model, (1, 1))
    assert store.acquire(offer, digest, info.nbytes) is None


def test_files_of_one_name_are_hashed_once_each(tmp_path, monkeypatch):
    models, hashed = [], []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        models.append(write_model(tmp_path / str(number) / "model.gguf", seed=number))
    monkeypatch.setattr(model_files, "digest_of", lambda d: hashed.append(d) or digest_of(d))
    for _ in range(2):
        places = model_files.index_models(models, tmp_path / "cache")
        assert {place.path for place in places.values()} == set(models)
    with GGUFFile.open(models[0]) as file:
        assert len(hashed) == 2 * len(file.tensors)


def test_a_broken_file_is_passed_over(tmp_path, offer):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    store = WeightStore(models=[tmp_path])
    assert store.acquire(offer, "a" * 64, 5) is None
