"""The public face of the package."""

from __future__ import annotations

import service.cometd as package


def test_every_public_name_is_exported_and_sorted() -> None:
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("service.cometd")
    }
    assert {name for name in package.__all__ if name != "Item"} == public - {"Item"}
    assert package.__all__ == sorted(package.__all__, key=lambda name: (name[0].islower(), name))
