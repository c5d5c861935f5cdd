"""Bytes of an HTTP/1.1 answer to its body, and a body to its events. Pure: no sockets, no clock."""

from __future__ import annotations

HEAD_END = b"\r\n\r\n"
LINE_END = b"\r\n"
MOST_HEAD = 1 << 16


class BadResponse(ValueError):
    """What came is no HTTP/1.1 answer."""


class Response:
    """One answer, read as it arrives. Bytes after its end are an error: nothing was asked yet."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self._buffer = b""
        self._left = 0
        self._reads = self._read_head

    def feed(self, data: bytes) -> bytes:
        """What of the body has come with these bytes."""
        if self.done:
            raise BadResponse("bytes after the end of an answer")
        self._buffer += data
        found = []
        while not self.done:
            piece = self._reads()
            if piece is None:
                break
            found.append(piece)
        return b"".join(found)

    def end(self) -> bool:
        """The connection was closed: whether that is the answer's proper end."""
        if self._reads == self._read_rest:
            self.done = True
        return self.done

    @property
    def keeps(self) -> bool:
        """The connection may be used again."""
        return self.headers.get("connection", "").lower() != "close"

    def _read_head(self) -> bytes | None:
        """Nothing of a body; None where there is no whole head yet."""
        head, found, rest = self._buffer.partition(HEAD_END)
        if not found:
            if len(self._buffer) > MOST_HEAD or not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadResponse(f"no HTTP/1.1 answer: {self._buffer[:40]!r}")
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise BadResponse(f"no HTTP/1.1 answer: {first[:40]!r}")
        self._buffer = rest
        status = int(words[1])
        if status < 200:  # 100 Continue: the answer is still to come
            return b""
        self.status = status
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._choose_body()
        return b""

    def _choose_body(self) -> None:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._reads = self._read_chunk
        elif self.status in (204, 304):
            self.done = True
        elif "content-length" in self.headers:
            self._left = self._number(self.headers["content-length"], 10)
            self._reads = self._read_length
            self.done = not self._left
        else:
            self.headers["connection"] = "close"
            self._reads = self._read_rest

    def _read_length(self) -> bytes | None:
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        self.done = not self._left
        return piece or None

    def _read_rest(self) -> bytes | None:
        piece, self._buffer = self._buffer, b""
        return piece or None

    def _read_chunk(self) -> bytes | None:
        """One that is whole: events are short."""
        buffer = self._buffer
        begin = buffer.find(LINE_END) + len(LINE_END)
        if begin < len(LINE_END):
            return None
        size = self._number(buffer[:begin].partition(b";")[0].decode("latin-1"), 16)
        if not size:
            self._buffer = buffer[begin:]
            self._reads = self._read_trailer
            return b""
        end = begin + size
        if len(buffer) < end + len(LINE_END):
            return None
        if not buffer.startswith(LINE_END, end):
            raise BadResponse("a chunk that does not end where it says")
        self._buffer = buffer[end + len(LINE_END) :]
        return buffer[begin:end]

    def _read_trailer(self) -> bytes | None:
        line, found, rest = self._buffer.partition(LINE_END)
        if not found:
            return None
        self._buffer = rest
        self.done = not line
        return b""

    @staticmethod
    def _number(text: str, base: int) -> int:
        try:
            number = int(text.strip(), base)
        except ValueError:
            number = -1
        if number < 0:
            raise BadResponse(f"a length of {text[:20]!r}")
        return number


class Events:
    """Server-sent events: the data of each, as soon as its line is whole."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Comments and other fields are passed over."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
