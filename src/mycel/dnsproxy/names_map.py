"""The kernel's map of addresses with names; this process is the only one that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from mycel.abi import IpcacheKey, IpcacheValue
from mycel.datapath import syscall
from mycel.datapath.errors import KernelRefused
from mycel.datapath.maps import RawMap, check_layout
from mycel.model.address import NO_ADDRESS, Address


class NamesMap(Protocol):
    """Addresses → identities."""

    def dump(self) -> Mapping[Address, int]:
        """Everything in it."""
        ...

    def put(self, address: Address, identity: int) -> bool:
        """Write a row; False when the kernel does not take it."""
        ...

    def remove(self, address: Address) -> None:
        """Take a row away."""
        ...


class PinnedNames:
    """`mycel_names`, opened when it is there: until then nothing can be written, so answers are withheld."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw: RawMap | None = None

    def _open(self) -> RawMap | None:
        if self._raw is None and (fd := syscall.get_pinned(self._path)) is not None:
            info = syscall.map_info(fd)
            check_layout("mycel_names", info, key_size=IpcacheKey.SIZE, value_size=IpcacheValue.SIZE)
            self._raw = RawMap(fd, info)
        return self._raw

    def dump(self) -> Mapping[Address, int]:
        """See NamesMap."""
        raw = self._open()
        found: dict[Address, int] = {}
        for keys, values, _ in raw.chunks() if raw else ():
            rows = zip(IpcacheKey.unpack_many(keys), IpcacheValue.unpack_many(values), strict=True)
            found.update((Address(key.addr), value.identity) for key, value in rows)
        return found

    def put(self, address: Address, identity: int) -> bool:
        """See NamesMap."""
        raw = self._open()
        if raw is None:
            return False
        try:
            raw.write([(IpcacheKey(address).pack(), IpcacheValue(NO_ADDRESS, identity, 0).pack())])
        except KernelRefused:
            return False
        return True

    def remove(self, address: Address) -> None:
        """See NamesMap."""
        raw = self._open()
        if raw is not None:
            raw.remove([IpcacheKey(address).pack()])
