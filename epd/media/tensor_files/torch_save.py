"""Files of `torch.save`: a zip with a description of the tensor and the values of its storage."""

from __future__ import annotations

from epd.errors import BadRequest
from epd.media.tensor_files.stored import ITEM_BYTES, Stored
from epd.media.tensor_files.stored_zip import read_records
from epd.media.tensor_files.tensor_pickle import read_tensor_pickle

_DESCRIPTION = "/data.pkl"


def read_torch_save(data: bytes) -> Stored:
    """The one tensor that was saved. BadRequest for anything else that torch can save."""
    records = read_records(data)
    described = [name for name in records if name.endswith(_DESCRIPTION)]
    if len(described) != 1:
        raise BadRequest("a zip file, but not one of torch.save")
    folder = described[0].removesuffix(_DESCRIPTION)
    if bytes(records.get(f"{folder}/byteorder", b"little")) != b"little":
        raise BadRequest("its values are not little-endian")
    tensor = read_tensor_pickle(bytes(records[described[0]]))
    content = records.get(f"{folder}/data/{tensor.storage.key}")
    if content is None:
        raise BadRequest("its values are missing")
    if len(content) != tensor.storage.num_values * ITEM_BYTES[tensor.storage.dtype]:
        raise BadRequest("it has more or fewer values than it says")
    return Stored(
        content=content,
        dtype=tensor.storage.dtype,
        offset=tensor.offset,
        shape=tensor.shape,
        strides=tensor.strides,
    )
