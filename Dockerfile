# The proxy, or a base for an app with the middleware:
#   docker build -t canary-mw .
#   docker run -p 8080:8080 -v "$PWD/rules:/etc/canary:ro" canary-mw serve --rules /etc/canary --host 0.0.0.0
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY . .
# --copies: the interpreter is found without links out of the folder. Bytecode is written here, because the image runs
# with a read-only file system.
RUN python3 -m venv --copies /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-compile -c constraints.txt ".[all]" \
    && /opt/venv/bin/pip uninstall --yes --quiet setuptools pip \
    && /opt/venv/bin/python -m compileall -q /opt/venv/lib

FROM ${PYTHON}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="canary-mw" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.description="Gray releases by Ambassador Mapping rules, in a Python app or standalone" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 8888:8888
EXPOSE 8080 8877
STOPSIGNAL SIGTERM
ENTRYPOINT ["canary-mw"]
CMD ["serve", "--help"]
