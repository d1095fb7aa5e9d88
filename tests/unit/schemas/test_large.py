"""Dead letters may be over the limit of ordinary records: they hold records that were."""

import pytest

from schemas.codec import MAX_MESSAGE_BYTES, Codec
from schemas.errors import MessageTooLarge, UnexpectedSchema

LETTER = {
    "topic": "requests.text-to-3d",
    "partition": 0,
    "offset": 1,
    "value": b"x" * (MAX_MESSAGE_BYTES + 1),
    "reason": "too_large",
    "detail": "",
    "attempts": 1,
    "role": "admission",
    "at": 5,
}


def test_what_encode_large_wrote_is_read_by_decode_large_alone() -> None:
    codec = Codec()
    data = codec.encode_large("dead_letter", LETTER)
    assert codec.decode_large(data, "dead_letter")["value"] == LETTER["value"]
    with pytest.raises(MessageTooLarge):
        codec.decode(data, "dead_letter")
    with pytest.raises(UnexpectedSchema):
        codec.decode_large(data, "job_event")
