# Build and run, on a CPU:  docker compose up
# pip takes torch from wherever PIP_EXTRA_INDEX_URL points; PyTorch's index of CPU builds makes a
# far smaller image than the public default, which brings CUDA.

FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/tongues
WORKDIR /src
# Dependencies first, against empty packages: a change of the code does not install them again.
COPY pyproject.toml constraints.txt LICENSE ./
RUN mkdir app adapters && touch app/__init__.py adapters/__init__.py \
    && /opt/tongues/bin/pip install --no-cache-dir -c constraints.txt ".[beam,remote]" \
    && /opt/tongues/bin/pip uninstall --yes --quiet tongues
COPY app app
COPY adapters adapters
RUN /opt/tongues/bin/pip install --no-cache-dir --no-deps . \
    && /opt/tongues/bin/pip uninstall --yes --quiet pip setuptools

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /srv/tongues --create-home tongues \
    && install -d -o tongues -g tongues /adapters /hub /cache
COPY --from=build /opt/tongues /opt/tongues
WORKDIR /srv/tongues
COPY models models
ENV PATH=/opt/tongues/bin:$PATH PYTHONUNBUFFERED=1 TONGUES_ADAPTERS=/adapters HF_HOME=/hub
USER tongues
VOLUME /adapters /hub /cache
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
CMD ["tongues", "serve", "--host", "0.0.0.0", "--port", "8000"]
