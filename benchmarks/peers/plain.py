"""A plain FastAPI service: `UploadFile`, Pillow, numpy, tritonclient over gRPC.

    uvicorn plain:app --port 9000

As FastAPI's documentation has it for blocking work: `def` endpoints, which run in its thread pool.
"""

import os

import steps
import tritonclient.grpc as grpcclient
from fastapi import FastAPI, Response, UploadFile

app = FastAPI()
client = grpcclient.InferenceServerClient(os.environ["TRITON_GRPC"])


@app.get("/")
def ready() -> str:
    return "ready"


@app.post("/detect")
def detect(file: UploadFile) -> dict:
    return steps.detect(client, file.file.read())


@app.post("/depth")
def depth(file: UploadFile) -> Response:
    return Response(steps.depth(client, file.file.read()), media_type="application/x-npy")
