"""Posts a picture with requests, raw and as a form with a list, and prints both answers."""

import sys
from pathlib import Path

import requests

url, path = sys.argv[1:]
picture = Path(path)
print(requests.post(f"{url}/v1/detect", data=picture.read_bytes(), timeout=30).text)
with picture.open("rb") as file:
    fields = {"conf": 0.25, "classes": ["bicycle", "car"]}
    print(requests.post(f"{url}/v1/detect", files={"file": file}, data=fields, timeout=30).text)
