"""Hand-made frames (proto/frame.h), so that broken ones can be sent as well."""

import socket
import struct

MAGIC = b"DSF1"
REQUEST, REPLY, ERROR, ONEWAY = 1, 2, 3, 4
HELLO = 1

P1, P2, P3, P4, P5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
MASK = 0xFFFFFFFF


def rotate(x, r):
    return ((x << r) | (x >> (32 - r))) & MASK


def xxh32(data):
    """XXH32 with seed 0, from its specification."""
    i, n = 0, len(data)
    if n >= 16:
        lanes = [(P1 + P2) & MASK, P2, 0, (-P1) & MASK]
        while i + 16 <= n:
            for k in range(4):
                word = struct.unpack_from("<I", data, i + 4 * k)[0]
                lanes[k] = rotate((lanes[k] + word * P2) & MASK, 13) * P1 & MASK
            i += 16
        h = sum(rotate(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18))) & MASK
    else:
        h = P5
    h = (h + n) & MASK
    while i + 4 <= n:
        h = rotate((h + struct.unpack_from("<I", data, i)[0] * P3) & MASK, 17) * P4 & MASK
        i += 4
    while i < n:
        h = rotate((h + data[i] * P5) & MASK, 11) * P1 & MASK
        i += 1
    h = (h ^ (h >> 15)) * P2 & MASK
    h = (h ^ (h >> 13)) * P3 & MASK
    return h ^ (h >> 16)


def frame(method, payload, kind=REQUEST, request_id=1, magic=MAGIC, length=None, flags=0, checksum=None):
    head = struct.pack("<4sIHBBIQI", magic, len(payload) if length is None else length, method, kind, flags, 0, request_id, 5000)
    return head + struct.pack("<I", xxh32(head + payload) if checksum is None else checksum) + payload


def field(number, value):
    """One protobuf field: an int as a varint, bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def hello(protocol=1):
    return frame(HELLO, field(1, protocol) + field(2, b"test") + field(3, b"0"))


def connect(address):
    """address: a path, or a port on loopback."""
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address), timeout=10)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(address)
    return s


def receive(s):
    """(kind, request id, payload) of the next frame, None at the end of the stream."""
    head = read(s, 32)
    if head is None:
        return None
    _, length, _, kind, _, _, request_id, _ = struct.unpack("<4sIHBBIQI", head[:28])
    return kind, request_id, read(s, length)


def read(s, n):
    data = b""
    while len(data) < n:
        try:
            part = s.recv(n - len(data))
        except ConnectionResetError:
            return None
        if not part:
            return None
        data += part
    return data
