# The server as an image; docs/docker.md explains how to run it and how far the build was tried.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY tornado_backups ./tornado_backups
# A virtual environment is one folder to copy, and its modules are compiled now because the root is read-only later.
RUN python3 -m venv /opt/tornado-backups \
    && /opt/tornado-backups/bin/python -m pip install --no-cache-dir . \
    && /opt/tornado-backups/bin/python -m pip uninstall --yes pip \
    && mkdir -p /image/owned/data /image/config/backup-repository

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="tornado-backups" \
      org.opencontainers.image.description="A small storage server for end-to-end encrypted backups" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.documentation="docs/docker.md"
COPY --from=build /opt/tornado-backups /opt/tornado-backups
# /data belongs to the user below, so that a new volume does too; /config is an empty tree to mount over.
COPY --from=build /image/config /config
COPY --from=build --chown=65532:65532 /image/owned/ /
ENV PATH=/opt/tornado-backups/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    BR_LISTEN=:8080 \
    BR_DATA_DIR=/data \
    BR_CONFIG_LOCAL_PATH=/config
# The id that distroless images call nonroot; it needs no entry in /etc/passwd.
USER 65532:65532
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/tornado-backups/bin/python", "-c", "import os, ssl, urllib.request as r; s = bool(os.environ.get('BR_TLS_CERT')); r.urlopen(('https' if s else 'http') + '://127.0.0.1:' + os.environ['BR_LISTEN'].rpartition(':')[2] + '/health', timeout=4, context=ssl._create_unverified_context() if s else None)"]
ENTRYPOINT ["/opt/tornado-backups/bin/tornado-backups"]
CMD ["serve"]
