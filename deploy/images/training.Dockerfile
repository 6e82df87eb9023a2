# The pipeline: `dvc repro` in a checkout mounted at /workspace, as its owner; the root file system may be read-only.
#   docker build -f deploy/images/training.Dockerfile -t localhost/finger-counter/training . # --build-arg TORCH=cpu
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/workspace" localhost/finger-counter/training
#   docker build -f deploy/images/training.Dockerfile --target sbom --output sbom . # sbom/training.cdx.json
# TORCH=cuda: the package index's torch, which brings CUDA along, so that a host needs NVIDIA's driver and container
# toolkit alone; without a GPU it runs on the processor. TORCH=cpu: PyTorch's own build for processors, from PyTorch's
# index, without the 4 GB of CUDA.
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
ARG TORCH=cuda
RUN --mount=type=cache,target=/root/.cache/uv \
    [ "$TORCH" = cuda ] || export UV_TORCH_BACKEND="$TORCH"; \
    uv pip install -r pyproject.toml --extra pipeline --constraints requirements.lock
COPY LICENSE README.md ./
COPY ops ops
COPY serve serve
COPY stages stages
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --build-constraints requirements.lock .

FROM build AS inventory
RUN --mount=type=cache,target=/root/.cache/uv \
    mkdir /sbom && uvx --from cyclonedx-bom --constraints requirements.lock cyclonedx-py environment \
    --pyproject pyproject.toml --output-reproducible --output-file /sbom/training.cdx.json /opt/venv/bin/python

FROM scratch AS sbom
COPY --from=inventory /sbom /

FROM python
# What runs is in /opt/venv. The image's own installers are nobody's then, and age.
RUN python -m pip uninstall --yes --root-user-action=ignore setuptools wheel pip
# Debian keeps no old version of git on its mirrors: one that is pinned stops the build with the next fix.
# The checkout may be another user's: git, and what reads repositories beside it, refuse that unless told otherwise.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /workspace \
    && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin fingers
# PYTHONPATH: what runs is the mounted checkout's code, not the copy that the packages came with.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/workspace \
    HOME=/tmp \
    LOGNAME=fingers \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build /opt/venv /opt/venv
WORKDIR /workspace
LABEL org.opencontainers.image.licenses=AGPL-3.0-only
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "ops.secret_files"]
CMD ["dvc", "repro"]
