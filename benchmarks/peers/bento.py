"""BentoML: a service with an API an endpoint; pictures come as `PIL.Image.Image`.

bentoml serve bento:Vision --port PORT
"""

import os
from typing import Annotated, Any

import bentoml
import steps
import tritonclient.grpc as grpcclient
from bentoml.validators import ContentType
from PIL.Image import Image


@bentoml.service(resources={"cpu": "2"}, traffic={"timeout": 30})
class Vision:
    def __init__(self) -> None:
        self.client = grpcclient.InferenceServerClient(os.environ["TRITON_GRPC"])

    @bentoml.api
    def detect(self, file: Image) -> dict[str, Any]:
        return steps.detect(self.client, file)

    @bentoml.api
    def depth(self, file: Image) -> Annotated[bytes, ContentType("application/x-npy")]:
        return steps.depth(self.client, file)
