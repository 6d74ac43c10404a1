# RayZero on a CPU.
#
#   docker build --file deploy/container/cpu.Dockerfile --tag rayzero:cpu .
#   docker run --rm --init --shm-size=4g rayzero:cpu rayzero doctor
#
# What a container takes away, and how to give it back: deploy/README.md.
FROM python:3.12-slim-bookworm

# g++: DeepSpeed compiles its optimizer at first use. libnuma: vLLM's engine for CPUs is linked to it. wget: KubeRay's probes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 make wget \
    && rm -rf /var/lib/apt/lists/*

# Versions are those of deploy/constraints-cpu.txt.
WORKDIR /opt/rayzero
COPY . .
RUN make install ENGINE=cpu \
    && rm -rf /root/.cache \
    # Whoever runs it cannot write here, so modules are compiled now. A few of other people's are templates: status 1.
    && { .venv/bin/python -m compileall -q -j 0 .venv/lib rollout rewards learner orchestrator >/dev/null || [ $? -eq 1 ]; }

# The home, for what is compiled and downloaded, may be written by any user of group 0: some clusters give a user id of their own.
RUN useradd --uid 1000 --gid 0 --create-home rayzero && chmod -R g=u /home/rayzero
ENV PATH=/opt/rayzero/.venv/bin:$PATH HOME=/home/rayzero USER=rayzero \
    RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
USER 1000:0
WORKDIR /home/rayzero
CMD ["rayzero", "--help"]
