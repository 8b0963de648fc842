"""Posts a picture with the client that openapi-python-client made, in every form it has, and prints the answers.

The client lies in a folder on PYTHONPATH.
"""

import base64
import io
import json
import sys
from pathlib import Path

from gateway_client import Client
from gateway_client.api.detection import detect
from gateway_client.models import DetectAnswer, DetectFilesBody, DetectJsonBody, Problem
from gateway_client.types import File

url, path = sys.argv[1:]
client = Client(url)
picture = Path(path).read_bytes()
bodies = [
    File(io.BytesIO(picture)),
    DetectFilesBody(file=[File(io.BytesIO(picture), "a.png", "image/png")]),
    DetectJsonBody(image=base64.b64encode(picture).decode()),
]
for body in bodies:
    answer = detect.sync(client=client, body=body)
    if not isinstance(answer, DetectAnswer):
        raise SystemExit(f"{body}: {answer}")
    print(json.dumps(answer.to_dict()))
refused = detect.sync(client=client, body=File(io.BytesIO(b"nonsense")))
if not isinstance(refused, Problem) or refused.code != "unsupported_media_type":
    raise SystemExit(f"{refused}")
