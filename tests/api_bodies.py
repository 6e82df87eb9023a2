"""For schemathesis: bodies that are pictures, since noise in their place is refused, and rightly."""

import base64

import schemathesis
from hypothesis import strategies as st

from tests.pictures import saved

KINDS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
PICTURES = {media_type: [saved(kind), saved(kind, size=(1, 1))] for media_type, kind in KINDS.items()}

for media_type, pictures in PICTURES.items():
    schemathesis.openapi.media_type(media_type, st.sampled_from(pictures))
schemathesis.openapi.format("binary", st.sampled_from(PICTURES["image/jpeg"]))
schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(one).decode() for one in PICTURES["image/png"]]))
