# docker build -t pulse-audit .                           a GPU where there is one, else the CPU
# docker build -t pulse-audit --build-arg DEVICE=cpu .    a third of the size, for the CPU alone
# docker run --rm -v "$PWD:/work" pulse-audit run         (--gpus all; --user "$(id -u):$(id -g)")
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG DEVICE=cuda

# Every package comes by its hash, in a layer that changes with the lock alone.
WORKDIR /src
COPY requirements.lock .ci/requirements-uv.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-uv.lock
# PyTorch's build for CPUs has the same version and other hashes: it comes by its version, from
# PyTorch's own index, and the lock without torch and CUDA gives the rest.
RUN if [ "$DEVICE" = cpu ]; then \
      awk '/^[a-z]/ {keep = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==/} keep' \
        requirements.lock > wanted.lock; \
      uv pip install --system --no-cache --no-deps --torch-backend cpu \
        $(grep -oE '^(torch|torchvision)==[0-9.]+' requirements.lock); \
    else cp requirements.lock wanted.lock; fi \
 && uv pip install --system --no-cache --no-deps --require-hashes -r wanted.lock

COPY pyproject.toml README.md LICENSE datasets.yaml ./
COPY pulse_audit pulse_audit
RUN uv pip install --system --no-cache --no-deps --no-build-isolation . && rm -rf /src/*

# Runs are written to /work, fetched weights and the like to /cache; any user may be given.
RUN useradd --create-home audit && mkdir -m 1777 /cache && install -d -m 1777 /work
ENV PULSE_AUDIT_HOME=/cache MPLCONFIGDIR=/tmp/matplotlib LOGNAME=audit \
    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER audit
WORKDIR /work
ENTRYPOINT ["pulse-audit"]
CMD ["--help"]
