"""KServe's Python transformer: a `Model` whose predictor is Triton over gRPC (v2).

    python kserve_transformer.py --predictor_host HOST:PORT --predictor_protocol grpc-v2 --http_port PORT

Pictures come in base64, as in its documentation; a map goes back so, too: a list would take far longer.
"""

import argparse
import base64

import numpy as np
import steps
from kserve import InferInput, InferRequest, InferResponse, Model, ModelServer, model_server


class Transformer(Model):
    """Transformer that passes context to later steps in headers, since KServe hands none over."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    def picture(self, payload: dict) -> steps.Image.Image:
        return steps.picture(base64.b64decode(payload["instances"][0]["image"]["b64"]))

    def request(self, name: str, datatype: str, array: np.ndarray) -> InferRequest:
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return InferRequest(model_name=self.name, infer_inputs=[tensor])


class Detect(Transformer):
    def preprocess(self, payload: dict, headers: dict) -> InferRequest:
        image = self.picture(payload)
        tensor, placement = steps.letterbox(image)
        headers["x-picture"] = (placement, image.size)
        return self.request("images", "FP32", tensor)

    def postprocess(self, result: InferResponse, headers: dict) -> dict:
        placement, size = headers["x-picture"]
        found = steps.boxes(result.outputs[0].as_numpy(), placement)
        return {"predictions": [steps.answer(found, *size)]}


class Depth(Transformer):
    def preprocess(self, payload: dict, _: dict) -> InferRequest:
        return self.request("INPUT__0", "UINT8", steps.square(self.picture(payload)))

    def postprocess(self, result: InferResponse, _: dict) -> dict:
        npy = steps.npy(result.outputs[0].as_numpy()[0])
        return {"predictions": [{"b64": base64.b64encode(npy).decode()}]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.parse_known_args()
    ModelServer().start([Detect(steps.DETECT), Depth(steps.DEPTH)])
