"""SPDY, WebSocket, HTTP and CNI: bytes in, meaning out."""

import json
import zlib

import pytest

from mycel.cluster.images import tiny_http
from mycel.cluster.node import cni, http, spdy, websocket
from mycel.cluster.node.names import PodKey


def test_the_dictionary_is_the_specifications() -> None:
    """Length and checksum as everybody has them."""
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_spdy_frames_survive_any_cut() -> None:
    """Byte by byte gives the same frames; headers share one zlib state."""
    encoder = spdy.Encoder()
    wire = encoder.syn_stream(1, {"streamType": "stdin"}) + encoder.syn_stream(3, {"streamtype": "error"}, fin=True)
    wire += (
        encoder.data(1, b"hello", fin=True)
        + encoder.ping(7)
        + encoder.window_update(1, 9)
        + encoder.reset(3)
        + encoder.goaway(3)
    )
    decoder = spdy.Decoder()
    frames = [frame for byte in wire for frame in decoder.feed(bytes([byte]))]
    assert frames == [
        spdy.SynStream(1, {"streamtype": "stdin"}, False),
        spdy.SynStream(3, {"streamtype": "error"}, True),
        spdy.Data(1, b"hello", True),
        spdy.Ping(7),
        spdy.Reset(3, 5),
        spdy.Goaway(3),
    ]


@pytest.mark.parametrize(
    "wire",
    [
        b"\x80\x02\x00\x01\x00\x00\x00\x04abcd",
        b"\x80\x03\x00\x01\x00\x00\x00\x0eabcdefghijabcd",
        b"\x80\x03\x00\x03\x00\x00\x00\x01a",
    ],
)
def test_spdy_refuses_nonsense(wire: bytes) -> None:
    """Wrong version, unpackable headers, short frames."""
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Decoder().feed(wire))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_websocket_frames_of_every_length(size: int) -> None:
    """Masked by the client, cut anywhere."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    wire = websocket.encode(websocket.Op.BINARY, data, mask=b"\x01\x02\x03\x04")
    decoder = websocket.Decoder()
    assert list(decoder.feed(wire[:3])) == []
    assert list(decoder.feed(wire[3:])) == [websocket.Message(websocket.Op.BINARY, data)]


def test_websocket_fragments_are_joined_around_control_frames() -> None:
    """A ping may come in between."""
    first = bytes([websocket.Op.BINARY, 2]) + b"ab"
    ping = websocket.encode(websocket.Op.PING, b"x")
    last = bytes([0x80, 2]) + b"cd"
    found = list(websocket.Decoder().feed(first + ping + last))
    assert found == [websocket.Message(websocket.Op.PING, b"x"), websocket.Message(websocket.Op.BINARY, b"abcd")]


def test_websocket_accept_key_of_the_rfc() -> None:
    """RFC 6455 section 1.3's example."""
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_request_heads() -> None:
    """Repeated parameters and headers keep their order."""
    request = http.parse(b"POST /exec/ns/p%2Fod/c?command=a&command=b+c&tty=1 HTTP/1.1\r\nX-P: v5, v4\r\nx-p: v3")
    assert request.path == ("exec", "ns", "p/od", "c")
    assert request.query["command"] == ["a", "b c"]
    assert request.listed("x-p") == ["v5", "v4", "v3"]
    assert request.flag("tty")
    with pytest.raises(http.BadRequest):
        http.parse(b"garbage")


LIST = {
    "cniVersion": "1.0.0",
    "name": "n",
    "plugins": [{"type": "a"}, {"type": "b", "capabilities": {"portMappings": True}}],
}
ATTACHMENT = cni.Attachment("cid", "/run/netns/x", PodKey("shop", "cart"), "u", ({"hostPort": 1},))


def test_cni_requests_are_completed() -> None:
    """Version and name from the list, runtimeConfig only for who declares the capability, prevResult after the
    first.
    """
    network = cni.parse(json.dumps(LIST).encode(), False)
    assert cni.request(network, network.plugins[0], ATTACHMENT, None) == {
        "type": "a",
        "cniVersion": "1.0.0",
        "name": "n",
    }
    second = cni.request(network, network.plugins[1], ATTACHMENT, {"ips": []})
    assert second == {
        "type": "b",
        "cniVersion": "1.0.0",
        "name": "n",
        "runtimeConfig": {"portMappings": [{"hostPort": 1}]},
        "prevResult": {"ips": []},
    }
    assert "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart" in ATTACHMENT.arguments


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"cniVersion": "9"}, "cniVersion"),
        ({"plugins": []}, "plugins"),
        ({"plugins": [{"type": "../x"}]}, r"plugins\[0\].type"),
    ],
)
def test_wrong_cni_lists_are_named(change: dict[str, object], field: str) -> None:
    """By field."""
    with pytest.raises(ValueError, match=field):
        cni.parse(json.dumps(LIST | change).encode(), False)


def test_tiny_http_reads_pipelined_and_chunked_requests() -> None:
    """One at a time off the front."""
    wire = bytearray(
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /b?x HTTP/1.1\r\nHost: "
        b"h\r\n\r\nGET"
    )
    first = tiny_http.parse(wire, ("p", 1))
    second = tiny_http.parse(wire, ("p", 1))
    assert first is not None
    assert second is not None
    assert (first.method, first.body, second.path, second.headers["host"]) == ("POST", b"abc", "/b", "h")
    assert tiny_http.parse(wire, ("p", 1)) is None
