"""Messages of proto/ds.proto as dictionaries, and the methods of proto/rpc.def: enough of protobuf to play any peer by hand."""

import os
import re
import struct

from cluster import ROOT
from frames import REQUEST, field, frame, varint

FIELD = re.compile(r"(required|optional|repeated)\s+(\w+)\s+(\w+)\s*=\s*(\d+)")
MESSAGE = re.compile(r"^message (\w+) \{([^}]*)\}", re.M)
RPC = re.compile(r"^RPC\((\w+), (\d+), (\w+), (\w+), \d+\)", re.M)


def _read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def _messages():
    text = re.sub(r"//[^\n]*", "", _read("proto/ds.proto"))
    return {name: {f: (label, kind, int(n)) for label, kind, f, n in FIELD.findall(body)} for name, body in MESSAGE.findall(text)}


def _camel(name):
    return "".join(part.capitalize() for part in name.split("_"))


MESSAGES = _messages()
METHODS = {name: (int(number), _camel(request), _camel(reply)) for name, number, request, reply in RPC.findall(_read("proto/rpc.def"))}
NAMES = {number: name for name, (number, _, _) in METHODS.items()}


def encode(name, values):
    out = b""
    for key, value in values.items():
        _, kind, number = MESSAGES[name][key]
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if kind in MESSAGES:
                item = encode(kind, item)
            elif kind == "string":
                item = item.encode()
            elif kind == "sint32":
                item = (item << 1) ^ (item >> 31)
            elif kind == "double":
                out += varint(number << 3 | 1) + struct.pack("<d", item)
                continue
            elif not isinstance(item, bytes):
                item &= 2**64 - 1
            out += field(number, item)
    return out


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _scalar(kind, value):
    if kind == "bool":
        return bool(value)
    if kind == "sint32":
        return (value >> 1) ^ -(value & 1)
    return value - 2**64 if kind.startswith("int") and value >= 2**63 else value


def decode(name, data):
    by_number = {number: (key, label, kind) for key, (label, kind, number) in MESSAGES[name].items()}
    message = {key: [] for key, (label, _, _) in MESSAGES[name].items() if label == "repeated"}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        key, label, kind = by_number[tag >> 3]
        if tag & 7 == 0:
            value, at = _varint(data, at)
            value = _scalar(kind, value)
        elif tag & 7 == 1:
            value = struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            size, at = _varint(data, at)
            raw = data[at : at + size]
            at += size
            value = decode(kind, raw) if kind in MESSAGES else raw.decode() if kind == "string" else raw
        if label == "repeated":
            message[key].append(value)
        else:
            message[key] = value
    return message


def request(method, values, request_id=1):
    number, kind, _ = METHODS[method]
    return frame(number, encode(kind, values), REQUEST, request_id)
