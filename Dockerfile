# The gateway: no compiler, no torch, no weights, no root.
#
#     docker build -t triton-vision-gateway .                                   # serves through Triton, or on this CPU
#     docker build -t triton-vision-gateway:gpu --build-arg EXTRAS=cuda,redis .  # ONNX Runtime on a GPU in this process
#
# Pinned: Python's packages by version and hash (deploy/docker/locks, written by `make lock`), the base image by its tag.
# A tag can be moved; `make images` asks the registry for the digests of the day and says how to build with them:
#     docker build --build-arg PYTHON_IMAGE=python:3.11.12-slim-bookworm@sha256:… .
#
# deploy/docker/by_hand.py carries these very lines out where there is no Docker; a test runs what comes out.
ARG PYTHON_IMAGE=python:3.11.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=embedded,redis
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Without pip: nothing is installed into what serves. The base image's own pip does it from outside.
RUN python -m venv --without-pip /opt/gateway
# The dependencies are a layer of their own, so that a change of the code doesn't install them again.
COPY deploy/docker/requirements.py ./
COPY deploy/docker/locks locks
RUN python requirements.py "${EXTRAS}" > requirements.txt \
    && pip --python /opt/gateway/bin/python install --only-binary :all: --require-hashes -r requirements.txt \
    && python -m venv tools \
    && tools/bin/pip install --only-binary :all: --require-hashes -r locks/build.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY triton_vision_gateway triton_vision_gateway
COPY app app
COPY routing routing
# Built by the setuptools whose hash is known, not by one that pip would fetch.
RUN tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
    && pip --python /opt/gateway/bin/python install --no-deps dist/*.whl \
    && install -d -o 10001 -g 10001 /state /state/videos /state/spool /state/text

FROM ${PYTHON_IMAGE} AS gateway
LABEL org.opencontainers.image.title="Triton vision gateway" \
      org.opencontainers.image.description="Frames in, results out, with what produced them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/gateway /opt/gateway
# The one folder that is written, owned by the user that serves; a new named volume takes the owner over.
COPY --from=build --chown=10001:10001 /state /var/lib/gateway
WORKDIR /srv/gateway
COPY profiles profiles
# /srv/gateway/triton/models: mount the repository there, read-only. It is empty here: weights have licences of their own.
WORKDIR /srv/gateway/triton/models
WORKDIR /srv/gateway
# LD_LIBRARY_PATH: where the packages of EXTRAS=cuda bring CUDA; folders that aren't there are passed over.
ENV PATH=/opt/gateway/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    LD_LIBRARY_PATH=/opt/gateway/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/gateway/lib/python3.11/site-packages/nvidia/cudnn/lib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8080 \
    GATEWAY_VIDEOS_FOLDER=/var/lib/gateway/videos \
    GATEWAY_SPOOL_FOLDER=/var/lib/gateway/spool \
    GATEWAY_TEXT_CACHE_FOLDER=/var/lib/gateway/text
# A number, so that Kubernetes' runAsNonRoot can see that it isn't root.
USER 10001:10001
VOLUME ["/var/lib/gateway"]
EXPOSE 8080
# With a port for operation (GATEWAY_OPERATE_PORT) or client certificates, give `docker run` a --health-cmd of your own.
# Alive, not ready: an orchestrator that restarts what is unhealthy mustn't do so because Triton is away.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["sh", "-c", "python -m triton_vision_gateway.health ${GATEWAY_TLS_CERT:+--tls} 127.0.0.1:${GATEWAY_PORT} /livez"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
