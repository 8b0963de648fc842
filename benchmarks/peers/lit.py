"""LitServe: a `LitAPI` an endpoint, two workers each, its own server.

python lit.py PORT
"""

import os
import sys

import litserve as ls
import steps
import tritonclient.grpc as grpcclient
from fastapi import Response


class Api(ls.LitAPI):
    """`decode_request` takes the form's file, as the documentation's examples with pictures do."""

    def setup(self, _: str) -> None:
        self.client = grpcclient.InferenceServerClient(os.environ["TRITON_GRPC"])

    def decode_request(self, request) -> bytes:  # untyped: a dict would be read as JSON
        return request["file"].file.read()


class Detect(Api):
    def predict(self, data: bytes) -> dict:
        return steps.detect(self.client, data)

    def encode_response(self, output: dict) -> dict:
        return output


class Depth(Api):
    def predict(self, data: bytes) -> bytes:
        return steps.depth(self.client, data)

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/x-npy")


if __name__ == "__main__":
    apis = [Detect(api_path="/detect"), Depth(api_path="/depth")]
    server = ls.LitServer(apis, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
