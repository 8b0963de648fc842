"""The composition root: the only place that names concrete engines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from app import __version__, addresses, extras
from app.addresses import host_and_port
from app.api.gateway import Gateway
from app.api.openapi import security
from app.api.response import problems
from app.api.response.ndjson import video_limits
from app.api.routes import docs_page, embeddings, sessions, status, try_page, videos
from app.api.server import operate_port, uvicorn_options
from app.api.server.access import Guard, rules_of
from app.api.server.admission import Admission, AdmissionLimits
from app.api.server.connections import DRAIN
from app.api.server.direct_route import Shortcut
from app.api.server.head import HeadAsGet
from app.api.server.memory_budget import MemoryBudget
from app.api.server.middleware import RequestContext, Templates
from app.api.server.security_headers import cors
from app.api.server.threads import Threads
from app.engine.base import Engine
from app.engine.endpoints.engine import EndpointOptions, TritonEndpoints
from app.engine.endpoints.names import Listed, Place
from app.engine.weights import WeightsBook
from app.families import FAMILIES, Families
from app.installation import INSTALLED, PICTURE, how_to_build, package
from app.keys import signing
from app.keys.access import Access, Buckets
from app.keys.rate_limit import OwnBuckets, SharedBuckets
from app.media.image import ImageLimits
from app.media.resizers.choice import resizer_named
from app.metrics import Metrics
from app.outgoing import UrlGuard
from app.pipelines import inventory
from app.pipelines.base import Router
from app.pipelines.embedding_cache import EmbeddingCache
from app.pipelines.pipeline_set import PipelineParts, PipelineSet, Resizing
from app.pipelines.readiness import ReadyProbe
from app.process import logs, malloc, shutdown
from app.process.catalogue import load_catalogue, rollouts
from app.process.drain import Drain
from app.sessions.session_order import LocalOrder, SessionOrder
from app.sessions.tracking_sessions import Sessions
from app.settings import Settings, graph_cache, metrics_folder
from app.state.base import SessionStore
from app.state.jobs import JobIndex
from app.state.memory import MemoryStore
from app.videos.analysis import Options
from app.videos.gauges import Gauges
from app.videos.job_files import JobFiles
from app.videos.jobs import JobOptions, VideoJobs
from app.videos.profile_documents import ProfileReader
from app.videos.sources.fetcher import FetchOptions
from app.videos.sources.routes import SETTING, Places, Sign
from app.videos.sources.transfer import Limits
from app.videos.stored_jobs.files import StoredJobFiles
from app.videos.stores.base import StoreUnusable
from app.videos.stores.opened import open_store
from app.videos.webhooks import WebhookOptions
from routing import reachable
from routing.catalogue import CATALOGUE_PATH, Branch, Catalogue, CatalogueError
from routing.policy import Readiness
from routing.rollout import base_of
from routing.versions import served_folder

if TYPE_CHECKING:
    from app.engine.triton.client import Tls
    from app.process.tracing import Tracer

_log = logging.getLogger("gateway")
_NO_RUNTIME = (
    f"the embedded engine needs ONNX Runtime: pip install {package('embedded')} (or {package('gpu')})"
)
_NO_URL = "{} is no URL like redis://user:password@host:6379/0; special characters of the password are percent-encoded"
EngineFactory = Callable[[Settings, Catalogue], Engine]


def create_engine(settings: Settings, catalogue: Catalogue) -> Engine:
    """The engine that the settings name; only its packages are imported.

    Raises:
        RuntimeError: the settings can't be carried out on this installation; the message says what to do.
    """
    return ENGINES[settings.engine].create(settings, catalogue)


def _triton_engine(settings: Settings, catalogue: Catalogue) -> Engine:
    from app.engine.triton.engine import TritonEngine, TritonOptions  # noqa: PLC0415  # embedded runs without gRPC

    options = TritonOptions(
        settings.leases,
        settings.max_waiting,
        settings.triton_transport,
        silence_s=settings.triton_silence_s,
        warmup_s=settings.warmup_timeout_s if settings.warmup else 0.0,
        reload_longest_s=settings.reload_longest_s,
        tls=triton_tls(settings),
        order=first_branches(settings, catalogue),
    )
    books = [WeightsBook(repository, settings.manifest) for repository in settings.repositories]
    listed = [Listed(*host_and_port(address.grpc)) for address in settings.tritons]
    if len(listed) == 1 and not listed[0].named:
        return TritonEngine(catalogue, settings.triton.grpc, books[0], options)

    def one(place: Place) -> TritonEngine:
        own = replace(options, endpoint=place.target, authority=place.name)
        return TritonEngine(catalogue, place.target, books[place.entry], own)

    return TritonEndpoints(catalogue, listed, one, EndpointOptions(settings.leases))


def _embedded_engine(settings: Settings, catalogue: Catalogue) -> Engine:
    if settings.repository is None:
        raise RuntimeError("the embedded engine needs GATEWAY_REPOSITORY")
    try:
        from app.engine.embedded.engine import (  # noqa: PLC0415  # an extra: onnxruntime or onnxruntime-gpu
            EmbeddedEngine,
            EmbeddedOptions,
        )
    except ImportError as error:
        raise RuntimeError(_NO_RUNTIME) from error
    embedded = EmbeddedOptions(
        settings.leases,
        settings.max_waiting,
        settings.embedded_threads,
        first_branches(settings, catalogue),
        warmup_s=settings.warmup_timeout_s if settings.warmup else 0.0,
        rescan_s=settings.rescan_s,
        reload_longest_s=settings.reload_longest_s,
        cache=graph_cache(settings),
    )
    book = WeightsBook(settings.repository, settings.manifest)
    return EmbeddedEngine(catalogue, settings.repository, book, embedded)


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine: how it is made from the settings, and where it runs, in words."""

    create: EngineFactory
    describe: Callable[[Settings], str]


# THE table of engines, by the value of GATEWAY_ENGINE.
ENGINES: Mapping[str, EngineRow] = MappingProxyType(
    {
        "triton": EngineRow(
            _triton_engine,
            lambda settings: f"Triton at {', '.join(address.grpc for address in settings.tritons)}",
        ),
        "embedded": EngineRow(_embedded_engine, lambda _: "ONNX Runtime in this process"),
    }
)


def embedded_providers() -> list[str]:
    """Return the devices that ONNX Runtime can use here, the best first.

    Raises:
        ImportError: it isn't installed, or doesn't load.
    """
    from app.engine.embedded.model import providers  # noqa: PLC0415  # an extra: onnxruntime or onnxruntime-gpu

    return providers()


def first_branches(settings: Settings, catalogue: Catalogue) -> tuple[str, ...]:
    """Names of the branches that the embedded engine loads, or that are run first on Triton, in this order."""
    if settings.engine == "embedded" and settings.models != "auto":
        matching = inventory.matching(catalogue, inventory.patterns(settings.models))
        chosen = {branch.name: branch for branch in (*matching, *_rolled_out(settings, matching))}.values()
        return tuple(branch.name for branch in reachable.loading_order(catalogue, chosen, settings.variant))
    service = reachable.Service(
        settings.variant,
        may_be_compact(settings),
        frozenset(inventory.required_branches(catalogue, inventory.patterns(settings.require_ready))),
        _built(settings.repository, catalogue),
    )
    return tuple(branch.name for branch in reachable.of_service(catalogue, service))


def _rolled_out(settings: Settings, branches: Iterable[Branch]) -> Iterator[Branch]:
    """The further versions of these branches that GATEWAY_ROLLOUT names; others are loaded if GATEWAY_MODELS does."""
    rolled = rollouts(settings)
    for branch in branches:
        rollout = rolled.get(base_of(branch))
        yield from (one for one in branch.versions if rollout is not None and one.version == rollout.version)


def may_be_compact(settings: Settings) -> bool:
    """Frames may travel as UINT8."""
    return settings.detect_input == "uint8" or (
        settings.detect_input == "auto" and settings.engine == "triton"
    )


def create_survey(settings: Settings, catalogue: Catalogue) -> Engine:
    """An engine that says what the embedded one would serve, and loads nothing.

    Raises:
        RuntimeError: ONNX Runtime is missing.
    """
    if settings.repository is None:
        raise RuntimeError("the embedded engine needs GATEWAY_REPOSITORY")
    try:
        from app.engine.embedded.survey import SurveyEngine  # noqa: PLC0415  # an extra: onnxruntime or onnxruntime-gpu
    except ImportError as error:
        raise RuntimeError(_NO_RUNTIME) from error
    book = WeightsBook(settings.repository, settings.manifest)
    return SurveyEngine(catalogue, settings.repository, book, first_branches(settings, catalogue))


def _built(repository: Path | None, catalogue: Catalogue) -> frozenset[str]:
    """Names of the branches whose weights are in the repository."""
    if repository is None:
        return frozenset()
    weights = {name: repository / branch.weights_model for name, branch in catalogue.branches.items()}
    return frozenset(
        name for name, folder in weights.items() if (served_folder(folder) / "model.onnx").is_file()
    )


def triton_tls(settings: Settings) -> Tls | None:
    """Return the TLS options for Triton, or None for plain connections."""
    if not settings.triton.tls:
        return None
    from app.engine.triton.client import Tls  # noqa: PLC0415  # embedded runs without gRPC

    return Tls(settings.triton_tls_ca, settings.triton_tls_cert, settings.triton_tls_key)


def create_session_store(settings: Settings, metrics: Metrics) -> SessionStore | None:
    """Create the session store that the settings name; None if every worker would have its own.

    Raises:
        RuntimeError: the settings can't be carried out on this installation; the message says what to do.
    """
    url = settings.session_store
    if url == "memory":
        if settings.workers > 1:
            return None
        store = MemoryStore(
            settings.session_ttl_s,
            settings.max_sessions,
            lambda reason: metrics.session_evictions.labels(reason).inc(),
        )
        metrics.sessions_live.set_function(store.live)
        for reason in ("ttl", "lru"):  # 0 is a number that dashboards can show, nothing is not
            metrics.session_evictions.labels(reason)
        return store
    if url.partition("://")[0] not in ("redis", "rediss"):
        raise RuntimeError("GATEWAY_SESSION_STORE is memory, or begins with redis:// or rediss://")
    try:
        from app.state.redis.store import RedisStore  # noqa: PLC0415  # an extra: redis
    except ImportError as error:
        raise RuntimeError(f"sessions in Redis need its client: pip install {package('redis')}") from error
    try:
        return RedisStore(url, settings.session_ttl_s)
    except ValueError:  # its words may hold a part of the password
        raise RuntimeError(_NO_URL.format("GATEWAY_SESSION_STORE")) from None


def create_session_order(settings: Settings) -> SessionOrder:
    """Create the order of the sessions' requests: over all replicas where they share a store.

    The store must have been created with the same settings, see `create_session_store`.
    """
    most = settings.leases + settings.max_waiting
    if settings.session_store == "memory":
        return LocalOrder(most)
    from app.state.redis.order import RedisOrder  # noqa: PLC0415  # an extra: redis

    return RedisOrder(settings.session_store, most, settings.session_lease_s)


def create_access(settings: Settings, metrics: Metrics) -> Access | None:
    """Create the access rules of the keys that the settings name; None: no key is needed.

    Raises:
        RuntimeError: the settings can't be carried out on this installation; the message says what to do.
    """
    keys = uvicorn_options.keys(settings)
    if keys is None:
        return None
    count = metrics.key_requests
    return Access(
        keys,
        create_buckets(settings, metrics),
        observe=lambda name, judgement: count.labels(name, judgement).inc(),
    )


def create_buckets(settings: Settings, metrics: Metrics) -> Buckets:
    """Create the rate limits of keys: of this process, of all workers, or of all replicas.

    Raises:
        RuntimeError: the settings can't be carried out on this installation; the message says what to do.
    """
    folder = metrics_folder()  # several workers share it
    own = SharedBuckets(folder) if folder else OwnBuckets()
    if settings.rate_limit_redis is None:
        return own
    try:
        from app.state.redis.buckets import RedisBuckets  # noqa: PLC0415  # an extra: redis
    except ImportError as error:
        raise RuntimeError(f"rate limits in Redis need its client: pip install {package('redis')}") from error
    try:
        return RedisBuckets(settings.rate_limit_redis, own, metrics.rate_limit_fallbacks.inc)
    except ValueError:  # its words may hold a part of the password
        raise RuntimeError(_NO_URL.format("GATEWAY_RATE_LIMIT_STORE")) from None


def create_tracer(settings: Settings) -> Tracer | None:
    """Create the tracer that the settings name; None if tracing is off, and then no package is needed.

    Raises:
        RuntimeError: the settings can't be carried out on this installation; the message says what to do.
    """
    if settings.tracing_endpoint is None:
        return None
    try:
        from app.process.tracing import Tracer, otlp  # noqa: PLC0415  # an extra: tracing
    except ImportError as error:
        raise RuntimeError(f"tracing needs OpenTelemetry: pip install {package('tracing')}") from error
    return Tracer(
        otlp(settings.tracing_endpoint), settings.tracing_service_name, settings.tracing_sample_ratio
    )


def create_app(
    settings: Settings | None = None,
    engine_factory: EngineFactory = create_engine,
    families: Families = FAMILIES,
    catalogue_path: Path = CATALOGUE_PATH,
) -> FastAPI:
    """The service; engine and threads live from start-up to shutdown."""
    settings = settings or Settings()
    profiles = ProfileReader(families.components)
    metrics = Metrics(metrics_folder(), triton=settings.engine == "triton")
    tracer = create_tracer(settings)
    access = create_access(settings, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await anyio.sleep(0)  # it imports a part of itself at its first use: now, while there are descriptors
        catalogue = load_catalogue(settings, catalogue_path)
        store = create_session_store(settings, metrics)
        engine = await asyncio.to_thread(engine_factory, settings, catalogue)
        drain = Drain(settings.drain_s)
        shutdown.bound(settings.shutdown_timeout_s, engine.abandon, drain)
        workers = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="worker")
        pipelines = create_pipelines(settings, catalogue, engine, metrics, families)
        jobs = await asyncio.to_thread(create_jobs, settings, pipelines, profiles)
        inference = Threads(_running(settings, engine) * len(catalogue.families), "inference")
        admission = Admission(
            catalogue.families,
            _admission_limits(settings, engine),
            inference,
            MemoryBudget(settings.max_decoded_bytes, malloc.give_back),
        )
        app.state.gateway = _gateway(
            settings, pipelines, profiles, metrics, workers, admission, store, jobs, drain
        )
        announcing = asyncio.create_task(_announce(app.state.gateway))
        updating = asyncio.create_task(_update_gauges(app.state.gateway.gauges)) if metrics_folder() else None
        try:
            async with operate_port.listening(app, _operate_socket(settings)):
                yield {DRAIN: drain}
        finally:
            announcing.cancel()
            if updating is not None:
                updating.cancel()
            if jobs is not None:
                await asyncio.to_thread(jobs.close)
            workers.shutdown(cancel_futures=True)
            await asyncio.to_thread(inference.close)
            await asyncio.to_thread(engine.close)
            await app.state.gateway.session_order.close()
            if access is not None:
                await access.close()
            app.state.gateway.sessions.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="Triton vision gateway",
        version=__version__,
        summary="Frames in, results out, with what produced them.",
        lifespan=lifespan,
        redirect_slashes=False,  # to the Host that the caller names
        docs_url=None,  # see `docs_page`; FastAPI's load their scripts from another host
        redoc_url=None,
        # `app.process.tracing`, `app.metrics` and `app.process.logs` are ours.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routers = _routers(families)
    routes = [route for part in (app.router, *routers) for route in part.routes]
    for router in routers:
        app.include_router(router)
    problems.install(app, routes)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Shortcut, routes=routes)
    _guard(app, settings, access, families)
    app.add_middleware(
        RequestContext,
        metrics=metrics,
        templates=Templates(route.path for route in routes if isinstance(route, Route)),
        traced=None if tracer is None else tracer.request,
    )
    return app


def _routers(families: Families) -> list[APIRouter]:
    """Every route: of the families, and the service's own."""
    of_families = [row.routes.router for row in families]
    own = (room.router for room in (embeddings, sessions, videos, status, docs_page))
    return [*of_families, *own, try_page.routes(PICTURE)]


def _guard(app: FastAPI, settings: Settings, access: Access | None, families: Families) -> None:
    """Keys, CORS and headers, from the inside out: a refusal too is readable to a page, and says what it may do."""
    rules = rules_of(families.paths)
    apart = settings.operate_port is not None
    if access is not None or apart:  # an open service has nothing to guard
        app.add_middleware(Guard, keys=access, rules=rules, apart=apart)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors(settings.cors_origins))
    security.describe(app, rules, families.examples, needed=access is not None)


def _operate_socket(settings: Settings) -> socket.socket | None:
    if settings.operate_port is None:
        return None
    return uvicorn_options.operate_socket(settings, shared=settings.workers > 1)


def serve_app() -> FastAPI:
    """Build the application of one of several workers, with settings from the environment."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    malloc.keep_pages()
    shutdown.with_parent()
    return create_app(settings)


def create_pipelines(
    settings: Settings,
    catalogue: Catalogue,
    engine: Engine,
    metrics: Metrics,
    families: Families = FAMILIES,
) -> PipelineSet:
    """The pipelines over an engine.

    Raises:
        RuntimeError: a setting names what the catalogue doesn't have.
    """
    fault = catalogue.variant_fault(settings.variant)
    if fault is not None:
        raise RuntimeError(f"GATEWAY_VARIANT {fault}")
    try:
        rolled_out = rollouts(settings)
    except CatalogueError as error:
        raise RuntimeError(str(error)) from error
    router = Router(catalogue, engine, settings.variant, settings.detect_input, rolled_out)
    cache = EmbeddingCache(settings.text_cache_bytes, settings.text_cache_folder)
    parts = PipelineParts(router, metrics, ImageLimits(settings.max_pixels), cache, create_resizing(settings))
    return PipelineSet(parts, families.pipelines)


def create_resizing(settings: Settings) -> Resizing:
    """Create what brings frames to a branch's size.

    Raises:
        RuntimeError: the package of the resizer is missing.
    """
    try:
        return Resizing(resizer_named(settings.resizer), settings.scaled_jpeg)
    except ImportError as error:
        raise RuntimeError(
            f"GATEWAY_RESIZER={settings.resizer} needs the package cykooz-resizer, which some platforms lack; "
            "GATEWAY_RESIZER=auto uses Pillow if it is missing"
        ) from error


def _running(settings: Settings, engine: Engine) -> int:
    """Items of a family at once: while all leases of all servers infer, two more are decoded or finished."""
    return settings.leases * max(1, len(engine.endpoints())) + 2


def _admission_limits(settings: Settings, engine: Engine) -> AdmissionLimits:
    return AdmissionLimits(_running(settings, engine), settings.max_waiting, settings.max_waiting_bytes)


def analysis_options(settings: Settings) -> Options:
    """Return the options for whole videos."""
    return Options(
        video_limits(settings), settings.video_window, settings.leases, frame_s=settings.video_frame_timeout_s
    )


def create_jobs(settings: Settings, pipelines: PipelineSet, profiles: ProfileReader) -> VideoJobs | None:
    """The video jobs, running; None where the settings name no folder."""
    if settings.videos_folder is None:
        return None
    options = JobOptions(
        analysis_options(settings),
        settings.video_jobs,
        settings.max_jobs_waiting,
        settings.videos_waiting_bytes,
        settings.videos_keep_s,
        settings.videos_keep_bytes,
        webhook_options(settings),
        fetch_options(settings),
    )
    files, open_index = job_storage(settings, settings.videos_folder)
    jobs = VideoJobs(files, open_index, pipelines, profiles.restored, options)
    jobs.start()
    return jobs


def job_storage(settings: Settings, folder: Path) -> tuple[JobFiles, Callable[[], JobIndex]]:
    """Return the files of video jobs, and what opens their index.

    Raises:
        RuntimeError: an extra is missing, or the settings name no store.
    """
    url, place = settings.job_store, settings.job_artifacts
    if url == "sqlite" and place is None:
        return JobFiles(folder), partial(JobIndex.in_folder, folder)
    try:
        files = StoredJobFiles(folder, open_store(place or str(folder)))
    except StoreUnusable as error:
        raise RuntimeError(f"GATEWAY_JOB_ARTIFACTS: {error.strerror}") from error
    if url == "sqlite":
        return files, partial(JobIndex.in_folder, folder)
    lacking = extras.missing("postgres")
    if lacking is not None:
        raise RuntimeError(f"GATEWAY_JOB_STORE: {lacking}")
    from app.state.postgres.jobs import open_jobs  # noqa: PLC0415  # an extra: postgres

    return files, partial(open_jobs, url, settings.job_lease_s)


def job_store_name(settings: Settings) -> str:
    """Name the store of the jobs for metrics, without secrets; gateways with the same name report the same jobs."""
    if settings.job_store != "sqlite":
        return addresses.masked(settings.job_store)
    return f"{socket.gethostname()}:{settings.videos_folder}"


def webhook_options(settings: Settings) -> WebhookOptions | None:
    """Return how callers hear of the end of jobs; None if the settings list no host."""
    if not settings.webhook_hosts or settings.webhook_secret is None:
        return None
    guard = UrlGuard(
        addresses.hosts(settings.webhook_hosts),
        addresses.networks(settings.allowed_networks),
        setting="GATEWAY_WEBHOOK_HOSTS",
    )
    return WebhookOptions(
        guard,
        signing.secrets(settings.webhook_secret.get_secret_value()),
        settings.webhook_timeout_s,
        settings.webhook_retry_s,
        settings.webhook_give_up_s,
    )


def fetch_options(settings: Settings) -> FetchOptions | None:
    """Return how videos are fetched from URLs; None if the settings list no place.

    Raises:
        RuntimeError: they list a bucket, and the client of S3 isn't installed.
    """
    listed = addresses.sources(settings.video_sources)
    if not listed.hosts and not listed.buckets:
        return None
    guard = UrlGuard(listed.hosts, addresses.networks(settings.allowed_networks), setting=SETTING)
    places = Places(listed, guard, _signed_urls() if listed.buckets else None)
    limits = Limits(settings.video_max_bytes, settings.video_timeout_s, settings.idle_timeout_s)
    return FetchOptions(places, limits)


def _signed_urls() -> Sign:
    try:
        from app.videos.sources.s3 import SignedUrls  # noqa: PLC0415  # an extra: bulk
    except ImportError as error:
        raise RuntimeError(
            f"{SETTING} lists a bucket, which needs S3's client: pip install {package('bulk')}"
        ) from error
    return SignedUrls()


def _gateway(
    settings: Settings,
    pipelines: PipelineSet,
    profiles: ProfileReader,
    metrics: Metrics,
    workers: ThreadPoolExecutor,
    admission: Admission,
    store: SessionStore | None,
    jobs: VideoJobs | None,
    drain: Drain,
) -> Gateway:
    required = inventory.patterns(settings.require_ready)
    probe = ReadyProbe(pipelines.router, required, first_branches(settings, pipelines.router.catalogue))
    return Gateway(
        settings=settings,
        pipelines=pipelines,
        profiles=profiles,
        sessions=Sessions(store, metrics),
        session_order=create_session_order(settings),
        metrics=metrics,
        workers=workers,
        admission=admission,
        decoders=threading.Semaphore(settings.video_decoders),
        jobs=jobs,
        gauges=Gauges(pipelines, required, jobs, admission.occupancy, job_store_name(settings)),
        probe=probe,
        drain=drain,
    )


async def _update_gauges(gauges: Gauges) -> None:
    """Set this worker's gauges every second: any worker answers a scrape for all of them."""
    while True:
        await asyncio.to_thread(gauges.look)
        await asyncio.sleep(1)


async def _announce(gateway: Gateway) -> None:
    """Once loading is over, say what is served, with which weights, and where to post."""
    engine, settings = gateway.router.engine, gateway.settings
    usual = first_branches(settings, gateway.router.catalogue)
    branches = [
        name for name in gateway.router.catalogue.branches
        if name in usual or engine.ready()[name].readiness is not Readiness.UNAVAILABLE
    ]  # fmt: skip
    while any(
        engine.ready()[name].readiness is Readiness.LOADING and engine.ready()[name].settling
        for name in branches
    ):
        await asyncio.sleep(0.1)
    states = [engine.ready()[name] for name in branches]
    where = ENGINES[settings.engine].describe(settings)
    _log.info("engine: %s (%s)", engine.name, where)
    _log.info("sessions: %s", gateway.sessions.where)
    served = [state for state in states if state.ready]
    for state in served:
        _log.info("ready: %s on %s, weights: %s", state.name, state.device, state.weights.kind)
    expected = (Readiness.READY, Readiness.MISSING, Readiness.WEIGHTS_MISSING)
    faults: dict[str, list[str]] = {}
    for state in states:
        if state.readiness not in expected:
            faults.setdefault(state.reason or state.readiness.value, []).append(state.name)
    for reason, names in faults.items():
        _log.warning("not ready: %s: %s", ", ".join(names), reason)
    kinds = Counter(state.weights.kind for state in served)
    if kinds["random"]:
        _log.warning(
            "%d of %d ready branches have RANDOM weights: answers mean nothing", kinds["random"], len(served)
        )
    if not served:
        _log.warning("no branch is ready; `%s` builds some, GET /readyz lists what fails", how_to_build())
        return
    address = f"{'http' if settings.tls_cert is None else 'https'}://{settings.host}:{settings.port}"
    _log.info(
        "try it: curl %s--data-binary @%s '%s/v1/detect'",
        "-H 'X-API-Key: …' " if uvicorn_options.asks_for_keys(settings) else "",
        shlex.quote(str(PICTURE)) if INSTALLED else "docs/astronaut.jpg",
        address,
    )
    _log.info("or open %s/ in a browser", address)
