# The server, without torch: `fingers serve`, unprivileged, on a root file system that may be read-only.
#   docker build -f deploy/images/serving.Dockerfile -t localhost/finger-counter/serving . # --build-arg DEVICE=cuda
#   docker build -f deploy/images/serving.Dockerfile --target sbom --output sbom . # sbom/serving.cdx.json
# A tag can be moved, a digest cannot: `docker buildx imagetools inspect python:TAG` prints it. Once it is written
# behind the tag, in all three files (python:TAG@sha256:...), Dependabot moves both together.
FROM python:3.11.15-slim-bookworm AS python

FROM python AS build
WORKDIR /build
ENV VIRTUAL_ENV=/opt/venv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy
COPY pyproject.toml requirements.lock ./
RUN python -m pip install --no-cache-dir --constraint requirements.lock uv && uv venv --no-project /opt/venv
# The packages first, in a layer that stands until the lock changes. pyproject.toml keeps a second OpenCV out.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install -r pyproject.toml --extra serve --constraints requirements.lock
# DEVICE=cuda: with onnxruntime for NVIDIA's GPUs and its CUDA 13, 2.4 GB. The lock has not this one package: beside the
# onnxruntime of the tests, which has the same files, it cannot stand.
ARG DEVICE=cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    [ "$DEVICE" = cpu ] || uv pip install "onnxruntime-gpu[cuda,cudnn]==1.31.1" --constraints requirements.lock
COPY LICENSE README.md ./
COPY ops ops
COPY serve serve
COPY stages stages
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --build-constraints requirements.lock .

FROM build AS inventory
RUN --mount=type=cache,target=/root/.cache/uv \
    mkdir /sbom && uvx --from cyclonedx-bom --constraints requirements.lock cyclonedx-py environment \
    --pyproject pyproject.toml --output-reproducible --output-file /sbom/serving.cdx.json /opt/venv/bin/python

FROM scratch AS sbom
COPY --from=inventory /sbom /

FROM python
# What runs is in /opt/venv. The image's own installers are nobody's then, and age.
RUN python -m pip uninstall --yes --root-user-action=ignore setuptools wheel pip
# The folder of the state belongs to the user, and so does a volume that is first mounted there.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin fingers \
    && install --directory --owner=10001 --group=10001 --mode=700 /var/lib/fingers
# HOME: what libraries keep for themselves is lost with the container. DVC_ROOT: what the server keeps is not.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOGNAME=fingers \
    DVC_ROOT=/var/lib/fingers \
    HOST=0.0.0.0 \
    PORT=8000
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/fingers
COPY deploy/images/healthy.py dvc.yaml params.yaml ./
LABEL org.opencontainers.image.licenses=AGPL-3.0-only
USER 10001:10001
VOLUME /var/lib/fingers
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/fingers/healthy.py", "http://127.0.0.1:$PORT/livez"]
ENTRYPOINT ["python", "-m", "ops.secret_files"]
CMD ["fingers", "serve"]
