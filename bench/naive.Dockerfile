# The rival of `make bench-build`: the same packages as people write them, on the same base. `pins.txt` is the lock's
# names and versions, so that both images carry the same software.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates g++ libc6-dev python3 python3-dev python3-venv tini
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pins.txt /tmp/
RUN --mount=type=secret,id=ca --mount=type=secret,id=environment \
    if [ -f /run/secrets/environment ]; then . /run/secrets/environment; fi; \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    pip install --no-cache-dir -r /tmp/pins.txt
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
