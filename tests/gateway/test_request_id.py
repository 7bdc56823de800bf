"""Request ids are UUIDs, and no two are alike."""

import uuid

from serai_gateway.request_id import new_request_id


def test_ids_are_random_version_4_uuids() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for text in ids:
        parsed = uuid.UUID(text.removeprefix("req-"))
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert text == f"req-{parsed}"
