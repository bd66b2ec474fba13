"""Known answers.

The eight inputs and their roots are those of transparency-dev/merkle. The rest was computed from the text of
the RFC and of C2SP by another program than the one under test.
"""

from __future__ import annotations

from service.tlog.cosignature import CosignatureVerifier, Cosigner
from service.tlog.edge import FullTile, RightEdge
from service.tlog.keys import SignatureType, SignerKey
from service.tlog.merkle import leaf_hashes
from service.tlog.note import Ed25519Signer, Ed25519Verifier
from service.tlog.tiles import TileId

INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
        "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
    )
]

ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]

N01 = ROOTS[2]
N23 = bytes.fromhex("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e")
N45 = bytes.fromhex("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a")
N67 = bytes.fromhex("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0")
N03 = ROOTS[4]
N47 = bytes.fromhex("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4")
N46 = bytes.fromhex("837dbb152e9b079010717e84e865da4ebc0fa198a806d59d31bf15accef22d0e")

INCLUSION = {
    (0, 8): [LEAVES[1], N23, N47],
    (5, 8): [LEAVES[4], N67, N03],
    (2, 3): [N01],
    (1, 5): [LEAVES[0], N23, LEAVES[4]],
    (6, 7): [N45, N03],
}

CONSISTENCY = {
    (1, 8): [LEAVES[1], N23, N47],
    (2, 5): [N23, LEAVES[4]],
    (3, 7): [LEAVES[2], LEAVES[3], N01, N46],
    (4, 8): [N47],
    (6, 7): [N45, LEAVES[6], N03],
    (6, 8): [N45, N67, N03],
}

FORGED_ROOT_8 = bytes.fromhex("e52947d340e1b6ba99572c9c737caf2318d6f92eb912e98f4b2c3ee8a44a9b24")
"""The root of the eight inputs with input 3 replaced by ``forged``."""

LARGE = 70_000
LARGE_ENTRIES = [str(number).encode() for number in range(LARGE)]
LARGE_LEAVES = leaf_hashes(LARGE_ENTRIES)
LARGE_ROOTS = {
    255: "32f85bcaa87d7bcd05728f09e9aeba350ba6a2f733830087f0597682848be5cb",
    256: "828515d033c19d8c901f37eccb8aed919667703486f8d2fff1cf7040321c5db1",
    257: "1eda049a4351d86f76252bd7ec0b7746ad75b7fa0316ad5f541dbda458a312c4",
    1000: "638afa98022925bacfddadb15ef22fd0199c1ac99c2973b6158243d13fce05c2",
    70_000: "1a4cdfcb66374a0c0dcbef49acbd4976d13ee864fb3cb241fc943cad04f02f7e",
}

ORIGIN = "calltrail.example/log"
LOG_VKEY = "calltrail.example/log+385e1b1f+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
LOG_SIGNER_TEXT = "PRIVATE+KEY+calltrail.example/log+385e1b1f+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
WITNESS_VKEY = "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"

LOG_KEY = SignerKey(ORIGIN, SignatureType.ED25519, bytes(range(32)))
LOG_SIGNER = Ed25519Signer(LOG_KEY)
LOG_VERIFIER = Ed25519Verifier(LOG_KEY.verifier_key)
WITNESS_KEY = SignerKey("witness.example/w1", SignatureType.COSIGNATURE, bytes(range(32, 64)))
WITNESS = Cosigner(WITNESS_KEY)
WITNESS_VERIFIER = CosignatureVerifier(WITNESS_KEY.verifier_key)
WITNESS_TIME = 1_679_315_147

CHECKPOINT_8 = (
    b"calltrail.example/log\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n\n"
    b"\xe2\x80\x94 calltrail.example/log "
    b"OF4bH4Vx5m+eVnDffmTMOh3LYh4KJzOm7lLYhGQRu8Ggrbp3KnDbOBuD4ZVLd3kSHSAMfaRYBZGISRZ/nWi84yNOEgQ=\n"
)
COSIGNATURE_LINE = (
    "\N{EM DASH} witness.example/w1 IDJKvgAAAABkGFDLqvBpM/o8PlStFIsIE2v4Xa4YI0JvqeDt8XLuZU/wcqOSw9T/8nfJl0u7"
    "EchO49LAuYzqEssytLvRNe//LnR5Cw=="
)

SALT = bytes(range(16))
PAYLOAD = b'{"a":1}'
COMMITMENT = bytes.fromhex("aed8a0ebb5f60a8aa06554873318b8e888584ebddf7878258719930ae328cbb2")


class TileStore:
    """The tiles of a growing tree in a dictionary, and which of them were read."""

    def __init__(self, leaves: bytes) -> None:
        growth = RightEdge().append(leaves)
        self.edge = growth.edge
        self.full_tiles: list[FullTile] = growth.full_tiles
        self._hashes = {(tile.level, tile.index): tile.hashes for tile in growth.full_tiles}
        for level, hashes in enumerate(self.edge.tiles):
            self._hashes[level, self.edge.size >> (8 * (level + 1))] = hashes
        self.read: list[TileId] = []

    def __call__(self, tile: TileId) -> bytes:
        self.read.append(tile)
        return self._hashes[tile.level, tile.index]
