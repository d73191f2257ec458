# What a project's kit.lock adds to the image tf-cpu: made by `kit build` from templates/environment.Dockerfile.j2.
ARG BASE=kit/tf-cpu:latest

# What is added, each section a file of its own: a step depends on its part alone.
# hadolint ignore=DL3006
FROM ${BASE} AS lock
# hadolint ignore=DL3002
USER 0
WORKDIR /lock
COPY requirements.lock ./
RUN awk '/^# layer: /{ file = $3 ".txt" } file { print > file }' requirements.lock

# hadolint ignore=DL3006
FROM ${BASE}
ARG SOURCE_DATE_EPOCH=1795219200
USER 0

# hadolint ignore=SC1091
RUN --mount=type=bind,from=kit,source=begin.sh,target=/run/kit/begin \
    --mount=type=bind,from=kit,source=end.sh,target=/run/kit/end \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=environment \
    --mount=type=bind,from=kit,source=system.sh,target=/run/kit/system.sh \
    --mount=type=bind,source=system.txt,target=/run/kit/system.txt \
    --mount=type=cache,id=kit-apt-cache,target=/var/cache/apt,sharing=locked \
    . /run/kit/begin \
    && : 0a325ca303eb3014c43ae004970f343634db176fa1697bcc8c9efac94626488d \
    && sh /run/kit/system.sh /run/kit/system.txt \
    && . /run/kit/end

# hadolint ignore=SC1091
RUN --mount=type=bind,from=kit,source=begin.sh,target=/run/kit/begin \
    --mount=type=bind,from=kit,source=end.sh,target=/run/kit/end \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=environment \
    --mount=type=bind,from=kit,source=uv,target=/run/kit/uv \
    --mount=type=cache,id=kit-uv,target=/run/kit/cache \
    --mount=type=bind,from=lock,source=/lock/project.txt,target=/run/kit/wheels.txt \
    --mount=type=bind,from=kit,source=guards.py,target=/run/kit/guards.py \
    --mount=type=secret,id=netrc \
    . /run/kit/begin \
    && unset KIT_FRAMEWORK_INDEX \
    && export NETRC=/run/secrets/netrc \
    && install_layer project /opt/kit/venv https://index.example/simple other \
    && settle /opt/kit/venv "WenQuanYi Micro Hei" \
    && /opt/kit/venv/bin/python -I /run/kit/guards.py einops other > /dev/null \
    && . /run/kit/end

ENV GREETING="a \"b\" \$HOME"
USER 1000:1000
# As a container runs it, and leaving nothing behind.
# hadolint ignore=DL4006
RUN --mount=type=tmpfs,target=/home/kit --mount=type=tmpfs,target=/tmp --mount=type=tmpfs,target=/workspace \
    KIT_CHECK=cHl0aG9uIC1jICdpbXBvcnQgZWlub3BzJw== && bash -euo pipefail -c "$(echo "$KIT_CHECK" | base64 -d)"

LABEL kit.environment="sha256:e29fd410259360064f9fda9398441e74b807f4019c42e7ddf0b326da56a2797a"
