"""Ray Serve: a FastAPI app as the ingress of one deployment, on a local Ray.

python ray_serve.py PORT
"""

import os
import signal
import sys
import threading

import ray
import steps
import tritonclient.grpc as grpcclient
from fastapi import FastAPI, Response, UploadFile
from ray import serve

app = FastAPI()


@serve.deployment
@serve.ingress(app)
class Vision:
    def __init__(self) -> None:
        self.client = grpcclient.InferenceServerClient(os.environ["TRITON_GRPC"])

    @app.get("/")
    def ready(self) -> str:
        return "ready"

    @app.post("/detect")
    def detect(self, file: UploadFile) -> dict:
        return steps.detect(self.client, file.file.read())

    @app.post("/depth")
    def depth(self, file: UploadFile) -> Response:
        return Response(steps.depth(self.client, file.file.read()), media_type="application/x-npy")


if __name__ == "__main__":
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Vision.bind())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
