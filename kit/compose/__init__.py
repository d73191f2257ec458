"""A compose file that starts what `kit run` starts. Decisions are made here; `kit.render` makes the text of them."""

from __future__ import annotations

from kit.compose.file import FOUND_BY_COMPOSE as FOUND_BY_COMPOSE
from kit.compose.file import ComposeFile as ComposeFile
from kit.compose.file import ServiceName as ServiceName
from kit.compose.file import Settings as Settings
from kit.compose.file import compose_file as compose_file
from kit.compose.file import examples as examples
from kit.compose.file import header as header
from kit.compose.file import project_name as project_name
from kit.compose.gpus import Form as Form
from kit.compose.gpus import decide_injection as decide_injection
from kit.compose.gpus import gpu_line as gpu_line
from kit.compose.start import PODMAN_NOTE as PODMAN_NOTE
from kit.compose.start import docker_words as docker_words
from kit.compose.start import make_volumes as make_volumes
from kit.compose.start import version_problem as version_problem
from kit.compose.written import ENVIRONMENT_FILE as ENVIRONMENT_FILE
from kit.compose.written import is_untouched as is_untouched
from kit.compose.written import stamped as stamped
from kit.compose.written import write as write
from kit.compose.written import write_token as write_token
