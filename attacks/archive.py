"""A writer of zip archives (APPNOTE.TXT) that lies where it is told to."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

STORED, DEFLATED = 0, 8


def deflate(data: bytes) -> bytes:
    """Compress without a header."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@dataclass
class Member:
    """A member; `local` and `central` override what its two headers say, by the names of their fields."""

    name: str | bytes
    data: bytes = b""
    method: int = STORED
    flags: int = 0
    packed: bytes | None = None
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)
    before: bytes = b""
    after: bytes = b""

    def fields(self, override: dict) -> dict:
        """Say what a header holds."""
        packed = self.stored()
        return {
            "version": 20, "flags": self.flags, "method": self.method, "time": 0, "date": 0x21,
            "crc": zlib.crc32(self.data), "packed": len(packed), "size": len(self.data), "name": self.name,
            "extra": b"", "comment": b"", "disk": 0, "internal": 0, "external": 0, "made_by": 20,
        } | override

    def stored(self) -> bytes:
        """Say what lies in the archive."""
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == DEFLATED else self.data


def raw(name: str | bytes) -> bytes:
    """Encode a name."""
    return name.encode() if isinstance(name, str) else name


def archive(
    members: list[Member],
    *,
    prefix: bytes = b"",
    gap: bytes = b"",
    between: bytes = b"",
    comment: bytes = b"",
    suffix: bytes = b"",
    order: list[int] | None = None,
    end: dict | None = None,
    zip64: dict | None = None,
    locator: dict | None = None,
) -> bytes:
    """Write an archive; `end`, `zip64` and `locator` override fields of the records at the end."""
    out, central = prefix, []
    for member in members:
        out += member.before
        start = len(out)
        f = member.fields(member.local)
        name = raw(f["name"])
        out += b"PK\3\4" + struct.pack("<5H3I2H", f["version"], f["flags"], f["method"], f["time"], f["date"], f["crc"],
            f["packed"], f["size"], len(name), len(f["extra"]))
        out += name + f["extra"] + member.stored() + member.after
        f = member.fields(member.central)
        name = raw(f["name"])
        central.append(
            b"PK\1\2"
            + struct.pack("<6H3I5H2I", f["made_by"], f["version"], f["flags"], f["method"], f["time"], f["date"],
                f["crc"], f["packed"], f["size"],
                          len(name), len(f["extra"]), len(f["comment"]), f["disk"], f["internal"],
                          f["external"], f.get("offset", start))
            + name + f["extra"] + f["comment"]
        )
    out += gap
    directory = b"".join(central[i] for i in order or range(len(central)))
    e = {"disk": 0, "start_disk": 0, "here": len(members), "count": len(members), "size": len(directory),
        "offset": len(out), "comment": len(comment)} | (end or {})
    at64 = len(out) + len(directory)
    out += directory
    if zip64 is not None:
        z = {"length": 44, "disk": 0, "start_disk": 0, "here": len(members), "count": len(members),
            "size": len(directory), "offset": at64 - len(directory)} | zip64
        out += b"PK\6\6" + struct.pack("<Q2H2I4Q", z["length"], 45, 45, z["disk"], z["start_disk"], z["here"],
            z["count"], z["size"], z["offset"])
        p = {"disk": 0, "offset": at64, "disks": 1} | (locator or {})
        out += b"PK\6\7" + struct.pack("<IQI", p["disk"], p["offset"], p["disks"])
    out += between
    out += b"PK\5\6" + struct.pack("<4H2IH", e["disk"], e["start_disk"], e["here"], e["count"], e["size"], e["offset"],
        e["comment"])
    return out + comment + suffix
