import json
import threading
import time
from dataclasses import replace

import pytest
import torch

from adapters.errors import (
    AdapterCorrupt,
    AdapterError,
    AmbiguousLanguage,
    ChoiceError,
    LanguageRequired,
    UnknownAdapter,
    UnknownLanguage,
)
from adapters.registry import Registry
from adapters.store import AdapterStore
from tests.adapters.published import CONFIG, FINGERPRINT, SIZE, publish, tensors


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "adapters")


def registry(*stores):
    return Registry(stores, FINGERPRINT, SIZE)


def speaking(store, **languages):
    """A registry of adapters by name and language; a name that ends in ``_default`` is one."""
    for name, language in languages.items():
        publish(store, name, language=language, default=name.endswith("_default"))
    return registry(store)


def test_an_empty_registry_names_nothing(store):
    empty = registry(store)
    assert dict(empty.snapshot.adapters) == {}
    with pytest.raises(LanguageRequired, match="lang=none"):
        empty.resolve()
    with pytest.raises(UnknownLanguage, match="there are: none"):
        empty.resolve(language="de")
    with pytest.raises(UnknownAdapter, match="there are: none"):
        empty.resolve(name="de")


@pytest.mark.parametrize("query", ["de", "deu", "ger", "de-AT", "de_DE", "DE", "German", "Deutsch"])
def test_one_language_has_many_names(store, query):
    assert speaking(store, german="de", french="fr").resolve(language=query).name == "german"


@pytest.mark.parametrize("query", ["lb", "gl", "be", "nds", "gsw", "ca", "xx", "", "auto", "de,fr", "*"])
def test_near_is_not_found(store, query):
    known = speaking(store, de="de-AT", es="es", ru="ru", pt="pt")
    with pytest.raises(UnknownLanguage, match="there are: de, es, pt, ru"):
        known.resolve(language=query)


def test_no_language_is_never_a_guess(store):
    with pytest.raises(LanguageRequired, match="lang=de"):
        speaking(store, de="de").resolve()


def test_by_name(store):
    known = speaking(store, de="de", kunde="de")
    assert known.resolve(name="kunde").name == "kunde"
    assert known.resolve(name="kunde", language="deu").name == "kunde"
    with pytest.raises(UnknownAdapter, match="no adapter 'fr'; there are: de, kunde"):
        known.resolve(name="fr")
    with pytest.raises(UnknownAdapter, match="is for 'de', not for the language 'fr'"):
        known.resolve(name="kunde", language="fr")


@pytest.mark.parametrize("name", ["", "..", "../de", "DE", "de\0"])
def test_names_are_exact(store, name):
    with pytest.raises(UnknownAdapter):
        speaking(store, de="de").resolve(name=name)


def test_several_and_one_default(store):
    known = speaking(store, a="de", b_default="de", c="de")
    assert known.resolve(language="de").name == "b_default"


def test_several_and_no_default(store):
    with pytest.raises(AmbiguousLanguage, match="several adapters for the language de, say which: adapter=a, b"):
        speaking(store, a="de", b="de", c="fr").resolve(language="de")


def test_several_defaults(store):
    with pytest.raises(AmbiguousLanguage, match="adapter=a_default, b_default"):
        speaking(store, a_default="de", b_default="de", c="de").resolve(language="de")


def test_a_default_for_a_region_takes_nothing_from_the_one_for_none(store):
    known = speaking(store, el_default="el", cyprus_default="el-CY")
    assert known.resolve(language="el").name == "el_default"
    assert known.resolve(language="Greek").name == "el_default"
    assert known.resolve(language="el-CY").name == "cyprus_default"


def test_regions_where_several_differ_by_them(store):
    known = speaking(store, brazil="pt-BR", portugal="pt-PT", other_default="pt")
    assert known.resolve(language="pt-BR").name == "brazil"
    assert known.resolve(language="Brazilian Portuguese").name == "brazil"
    assert known.resolve(language="por-PT").name == "portugal"
    assert known.resolve(language="pt").name == "other_default"
    assert known.resolve(language="pt-AO").name == "other_default"


def test_scripts_where_several_differ_by_them(store):
    known = speaking(store, latin="sr-Latn", cyrillic="sr")
    assert known.resolve(language="sr-Latn").name == "latin"
    assert known.resolve(language="sr-Cyrl").name == "cyrillic"
    with pytest.raises(AmbiguousLanguage, match="cyrillic, latin"):
        known.resolve(language="sr")
    publish(store, "cyrillic", language="sr", default=True)
    known.scan()
    assert known.resolve(language="sr").name == "cyrillic"
    publish(store, "cyrillic", language="sr")
    publish(store, "latin", language="sr-Latn", default=True)
    known.scan()
    assert known.resolve(language="sr").name == "latin"


def test_an_adapter_by_its_name_where_that_is_no_language(store):
    known = speaking(store, de="de", **{"uig-script_arabic": "ug"})
    assert known.resolve(language="uig-script_arabic").name == "uig-script_arabic"
    with pytest.raises(UnknownLanguage):
        known.resolve(language="uig-script_latin")


def test_one_script_alone(store):
    assert speaking(store, traditional="zh-Hant").resolve(language="cmn").name == "traditional"
    publish(store, "german", language="de")
    with pytest.raises(UnknownLanguage, match="there are: de, zh-Hant"):
        registry(store).resolve(language="de-Cyrl")


def test_what_was_bound_stays_bound(store):
    known = speaking(store, de="de")
    bound = known.resolve(language="de")
    publish(store, "de", seed=7)
    assert known.resolve(language="de") == bound  # nothing moves before a scan
    before = known.snapshot
    known.scan()
    assert known.resolve(language="de").version != bound.version
    assert before.adapters["de"] == bound
    assert torch.equal(known.load(bound).tensors["head.weight"], tensors(0)["head.weight"])
    assert torch.equal(known.load(known.resolve(name="de")).tensors["head.weight"], tensors(7)["head.weight"])


def test_removed_is_gone_after_a_scan(store):
    known = speaking(store, de="de", fr="fr")
    store.remove("de")
    known.scan()
    with pytest.raises(UnknownLanguage, match="there are: fr"):
        known.resolve(language="de")


def test_one_bad_adapter_hides_no_good_one(store):
    publish(store, "good")
    publish(store, "stranger", fingerprint="0" * 64)
    publish(store, "unverified", fingerprint=None, language="fr")
    tall, high = replace(CONFIG, layers=(7, 8)), replace(SIZE, layers=9)
    publish(store, "taller", config=tall, size=high, tensors=tensors(config=tall, size=high))
    for name, content in (("broken", "{"), ("empty", ""), ("un safe", "{}")):
        (store.folder / name).mkdir()
        (store.folder / name / "adapter.json").write_text(content)
    known = registry(store)
    assert list(known.snapshot.adapters) == ["good", "unverified"]
    reasons = {refused.name: refused.error.reason for refused in known.snapshot.refused}
    assert sorted(reasons) == ["broken", "empty", "stranger", "taller", "un safe"]
    assert "made for the backbone 0000" in reasons["stranger"]
    assert "layer 8 of 4" in reasons["taller"]
    assert "not JSON" in reasons["broken"]
    assert "a name is" in reasons["un safe"]
    assert known.resolve(language="de").name == "good"
    with pytest.raises(UnknownAdapter, match="'stranger'; it was refused: made for the backbone"):
        known.resolve(name="stranger")


def test_weights_are_checked_at_load(store):
    known = speaking(store, de="de", fr="fr")
    record = store.record("de")
    (store.folder / "de" / record.weights.name).write_bytes(b"torn")
    known.scan()
    with pytest.raises(AdapterCorrupt):
        known.load(known.resolve(language="de"))
    assert known.load(known.resolve(language="fr")).record.name == "fr"


def test_the_earlier_store_is_meant(store, tmp_path):
    shipped = AdapterStore(tmp_path / "shipped")
    publish(shipped, "de", seed=1)
    publish(shipped, "fr", language="fr")
    publish(store, "de", seed=2)
    known = registry(store, shipped)
    assert list(known.snapshot.adapters) == ["de", "fr"]
    assert known.resolve(language="de").store is store
    (store.folder / "de" / "adapter.json").write_text("{")
    known.scan()
    assert known.resolve(language="de").store is shipped
    assert [refused.store for refused in known.snapshot.refused] == [store]


def test_a_snapshot_cannot_be_changed(store):
    snapshot = speaking(store, de="de").snapshot
    with pytest.raises(TypeError):
        snapshot.adapters["x"] = snapshot.adapters["de"]
    with pytest.raises(TypeError):
        del snapshot.languages["de"]


def test_resolving_while_scanning(store):
    known = speaking(store, de="de", fr="fr")
    stop, failures = threading.Event(), []

    def resolve():
        while not stop.wait(0.001):
            try:
                assert known.resolve(language="de").name == "de"
            except ChoiceError as error:
                failures.append(error)

    threads = [threading.Thread(target=resolve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for seed in range(20):
        publish(store, "de", seed=seed)
        known.scan()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_thousands_are_registered_without_reading_weights(store):
    record = publish(store, "template")
    data = json.loads(record.to_json())
    store.remove("template")
    for i in range(2000):
        folder = store.folder / f"de-{i}"
        folder.mkdir()
        (folder / "adapter.json").write_text(json.dumps({**data, "name": folder.name}))
    start = time.perf_counter()
    known = registry(store)
    assert time.perf_counter() - start < 10
    assert len(known.snapshot.adapters) == 2000
    with pytest.raises(AmbiguousLanguage, match="and 1800 more"):
        known.resolve(language="de")
    with pytest.raises(AdapterError, match="is missing"):
        known.load(known.resolve(name="de-7"))


def test_a_folder_that_cannot_be_listed_hides_no_other(tmp_path):
    near, other = AdapterStore(tmp_path / "near"), AdapterStore(tmp_path / "other")
    publish(near)
    publish(other, "fr", language="fr")
    known = registry(near, other)
    (tmp_path / "near").rename(tmp_path / "moved")
    (tmp_path / "near").write_text("no folder")
    publish(other, "es", language="es")
    assert sorted(known.look().adapters) == ["de", "es", "fr"], "what was seen there last stands"
    assert "irectory" in known.away[str(near)]
    (tmp_path / "near").unlink()
    assert sorted(known.look().adapters) == ["de", "es", "fr"], "a mount that is gone for a moment"
    assert "No such file" in known.away[str(near)]
    (tmp_path / "moved").rename(tmp_path / "near")
    assert sorted(known.look().adapters) == ["de", "es", "fr"]
    assert known.away == {}
    (tmp_path / "bad").write_text("no folder")
    with pytest.raises(OSError, match="irectory"):
        registry(AdapterStore(tmp_path / "bad"))
