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


@app.post("/flow")
def flow(frame0: UploadFile, frame1: UploadFile) -> Response:
    content = steps.flow(client, frame0.file.read(), frame1.file.read())
    return Response(content, media_type="application/x-npy")


@app.post("/clip_image")
def clip_image(file: UploadFile) -> dict:
    return steps.embedding(client, file.file.read())


@app.post("/places")
def places(file: UploadFile) -> dict:
    return steps.places(client, file.file.read())
