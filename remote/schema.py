"""The protobuf messages of Tinker's API (as of client 0.38), declared in one table and built when imported.

The one idea: a message is a list of fields by number, so the wire is declared here and no generated code is
kept. The pool is our own: the client, which registers the same names in the default one, may share the process.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from vertigym.dialects.chat_call import RefusedError

_PACKAGE = "vertigym.remote"
_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int64": _FIELD.TYPE_INT64,
    "int32": _FIELD.TYPE_INT32,
    "uint32": _FIELD.TYPE_UINT32,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
FLOAT32, INT64, INT32 = 1, 2, 3  # of `dtype`
STOPPED, AT_LENGTH = 0, 1  # of `stop_reason`

# message: its fields from number 1 on, "name type"; `*` repeats, `map` is from text, `|` is one of several,
# `?` says whether it is there, `-` leaves the number out.
_MESSAGES = {
    "SparseCsr": "values bytes, crow_indices bytes, col_indices bytes",
    "Tensor": "dense |bytes, sparse_csr |SparseCsr, dtype int32, shape *int64",
    "BatchedTensor": "data bytes, offsets bytes, dtype int32, trailing_shape *int64",
    "ArrayRecord": "type_tag string, fields map BatchedTensor, num_datums int64",
    "ForwardBackwardOutput": "loss_fn_output_type string, loss_fn_outputs *ArrayRecord, metrics map double",
    "LossConfigValue": "number |double, text |string",
    "EncodedTextChunk": "tokens bytes",
    "OtherChunk": "data bytes",
    "Chunk": "encoded_text |EncodedTextChunk, image |OtherChunk, dmel |OtherChunk",
    "Datum": "model_input *Chunk, loss_fn_inputs map Tensor, model_input_spans *OtherChunk, "
    "loss_fn_input_spans *OtherChunk",
    "ForwardBackwardRequest": "model_id string, seq_id int32, data *Datum, loss_fn string, "
    "loss_fn_config map double, forward_only bool, loss_fn_config_v2 map LossConfigValue",
    "TopkLogprobs": "token_ids bytes, logprobs bytes, k uint32, length uint32",
    "SampledSequence": "stop_reason int32, tokens bytes, logprobs ?bytes, topk_sampled_logprobs ?TopkLogprobs",
    "SampleResponse": "sequences *SampledSequence, prompt_logprobs ?bytes, topk_prompt_logprobs ?TopkLogprobs, "
    "prompt_cache_hit_tokens int32, target_prompt_logprobs ?Tensor",
}


def _declare(file: Any, name: str, fields: str) -> None:
    message = file.message_type.add(name=name)
    for number, declared in enumerate(fields.split(", "), 1):
        field, _, kind = declared.partition(" ")
        one = message.field.add(name=field, number=number, label=_FIELD.LABEL_OPTIONAL)
        if kind.startswith("map "):
            entry = "".join(part.capitalize() for part in field.split("_")) + "Entry"
            nested = message.nested_type.add(name=entry)
            nested.options.map_entry = True
            _type(nested.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL), "string")
            _type(nested.field.add(name="value", number=2, label=_FIELD.LABEL_OPTIONAL), kind[4:])
            one.label = _FIELD.LABEL_REPEATED
            _type(one, f"{name}.{entry}")
            continue
        if kind[0] == "*":
            one.label = _FIELD.LABEL_REPEATED
        elif kind[0] in "|?":
            if kind[0] == "?":
                one.proto3_optional = True
            if kind[0] == "?" or not message.oneof_decl:
                message.oneof_decl.add(name="one_of" if kind[0] == "|" else f"_{field}")
            one.oneof_index = len(message.oneof_decl) - 1
        _type(one, kind.lstrip("*|?"))


def _type(field: Any, kind: str) -> None:
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


def _built() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="vertigym/remote.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        _declare(file, name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _built()


def new(name: str, **values: Any) -> Any:
    """A message of this name."""
    return _CLASSES[name](**values)


def read(name: str, body: bytes) -> Any:
    """A message from its bytes, with whatever fields.

    Raises:
        RefusedError: they are none.
    """
    message = new(name)
    try:
        message.ParseFromString(body)
    except Exception as error:  # protobuf's DecodeError; its class depends on how protobuf was built
        raise RefusedError(400, f"the body is no {name}: {error}"[:200]) from None
    return message


def parsed(name: str, body: bytes) -> Any:
    """The same.

    Raises:
        RefusedError: also where it holds a field that is not known here.
    """
    message = read(name, body)
    _refuse_unknown(message, name)
    return message


def _refuse_unknown(message: ProtoMessage, path: str) -> None:
    """Name what a newer client says and this table does not have."""
    for field in UnknownFieldSet(message):
        raise RefusedError(
            400, f"{path}: field {field.field_number} is not known here: it is of a newer client"
        )
    for declared, value in message.ListFields():
        if declared.message_type is None or declared.message_type.name == "OtherChunk":
            continue
        is_map = declared.message_type.GetOptions().map_entry
        if is_map and declared.message_type.fields_by_name["value"].message_type is None:
            continue
        parts = value.values() if is_map else value if declared.is_repeated else [value]
        for part in parts:
            _refuse_unknown(part, f"{path}.{declared.name}")
