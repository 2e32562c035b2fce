# The endpoint picker; the simulated pod is in it too. Build from the repository's root:
#   docker build -f docker/epp.Dockerfile -t multipick/epp .
# For models with tekken.json:  --build-arg EXTRAS=sim,mistral  (110 MB more; without, engines are asked for their ids)
# Without a package index: put wheels into ./wheels and add  --build-arg PIP_OPTIONS="--no-index --find-links wheels"
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG PIP_OPTIONS=""
ARG EXTRAS="sim"
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/multipick \
 && /opt/multipick/bin/pip install --no-cache-dir ${PIP_OPTIONS} ".[${EXTRAS}]" \
 && rm -rf /opt/multipick/bin/pip* /opt/multipick/lib/python3*/site-packages/pip*

FROM ${BASE}
COPY --from=build /opt/multipick /opt/multipick
ENV PATH=/opt/multipick/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["multipick"]
CMD ["epp", "--help"]
