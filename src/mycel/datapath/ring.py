"""One kernel ring buffer, read as a numpy array.

The kernel's layout (kernel/bpf/ringbuf.c): page 0 holds the consumer's position and is ours to write; then
a page with the producer's position and the data, mapped twice in a row so that no record is ever cut in
two. A record is 8 bytes of header (length, with bit 31 while it is being written and bit 30 when it was
discarded) and 120 of payload, so the ring is an array of 128-byte records, as long as nothing else is ever
put in it.

Plain loads and stores are enough on x86-64, whose loads acquire and stores release; elsewhere this module
refuses.
"""

from __future__ import annotations

import mmap
import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from mycel.abi import FlowEvent
from mycel.datapath.errors import DatapathError, NotSupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVENT_DTYPE = np.dtype(FlowEvent.DTYPE)  # type: ignore[call-overload]
RECORD_DTYPE = np.dtype([("length", "<u4"), ("page", "<u4"), ("event", EVENT_DTYPE)])
_BUSY = np.uint32(1 << 31)
_DISCARDED = np.uint32(1 << 30)
_LENGTH = np.uint32(FlowEvent.SIZE)

assert mmap.PAGESIZE % RECORD_DTYPE.itemsize == 0


class Ring:
    """A ring by its map's descriptor, which stays the caller's. One consumer at a time, or records are
    lost.
    """

    def __init__(self, fd: int, size: int) -> None:
        if platform.machine() != "x86_64":
            raise NotSupported("mapped ring buffers read from Python", needs="x86-64 (ordered loads)")
        self.fd = fd
        self.size = size
        page = mmap.PAGESIZE
        self._control = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._shared = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer: NDArray[np.uint64] = np.frombuffer(self._control, "<u8", 1)
        self._producer: NDArray[np.uint64] = np.frombuffer(self._shared, "<u8", 1)
        self._records: NDArray[Any] = np.frombuffer(self._shared, RECORD_DTYPE, 2 * size // 128, offset=page)

    def drain(self) -> NDArray[Any]:
        """Copy out every finished record, then give their room back. An empty array when there is none.

        Raises DatapathError when a record is not a flow event: producer and reader are of different versions.
        """
        position = int(self._consumer[0])
        waiting = (int(self._producer[0]) - position) // 128
        if not waiting:
            return np.empty(0, EVENT_DTYPE)
        start = (position & (self.size - 1)) // 128
        window = self._records[start : start + waiting]
        lengths = window["length"].copy()
        busy = lengths & _BUSY
        if busy.any():
            finished = int(busy.argmax())
            window, lengths = window[:finished], lengths[:finished]
        discarded = lengths & _DISCARDED
        if ((lengths & ~_DISCARDED) != _LENGTH).any():
            raise DatapathError(
                f"a record in the event ring is not of {FlowEvent.SIZE} bytes: "
                f"the programs are of another version; restart the agent to load its own"
            )
        events = window["event"][discarded == 0] if discarded.any() else window["event"].copy()
        self._consumer[0] = position + 128 * len(window)
        return events

    def waiting(self) -> int:
        """How many records stand in the ring, finished or not."""
        return (int(self._producer[0]) - int(self._consumer[0])) // 128

    def close(self) -> None:
        """Unmap it. What was not drained stays for the next consumer."""
        del self._consumer, self._producer, self._records
        self._control.close()
        self._shared.close()
