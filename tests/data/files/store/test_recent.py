"""The cache of recently stored pictures."""

from pixyproxy.core.models.image import ImageGuid
from pixyproxy.data.files.store.recent import RecentPictures

ONE, TWO, THREE = (ImageGuid(str(number)) for number in (1, 2, 3))


def test_latest_pictures_that_fit_are_cached() -> None:
    recent = RecentPictures(most_bytes=10)
    recent.keep(ONE, b"12345")
    recent.keep(TWO, b"67890")
    assert [recent.get(guid) for guid in (ONE, TWO)] == [b"12345", b"67890"]
    recent.keep(THREE, b"1")
    assert [recent.get(guid) for guid in (ONE, TWO, THREE)] == [None, b"67890", b"1"]


def test_picture_larger_than_the_cache_is_not_cached() -> None:
    recent = RecentPictures(most_bytes=10)
    recent.keep(ONE, b"12345")
    recent.keep(TWO, bytes(11))
    assert [recent.get(guid) for guid in (ONE, TWO)] == [None, None]
    recent.keep(THREE, bytes(10))
    assert recent.get(THREE) == bytes(10)


def test_picture_stored_again_counts_once() -> None:
    recent = RecentPictures(most_bytes=10)
    for _ in range(3):
        recent.keep(ONE, b"12345")
    recent.keep(TWO, b"67890")
    assert [recent.get(guid) for guid in (ONE, TWO)] == [b"12345", b"67890"]


def test_deleted_picture_is_removed() -> None:
    recent = RecentPictures()
    recent.keep(ONE, b"12345")
    recent.forget(ONE)
    recent.forget(TWO)
    assert recent.get(ONE) is None
