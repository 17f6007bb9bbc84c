# Ptychon on a CPU. Build: docker build -t ptychon .   Run: docker run --rm -v "$PWD:/data" ptychon --help
FROM python:3.12-slim

COPY pyproject.toml hatch_build.py README.md LICENSE /opt/ptychon/
COPY src /opt/ptychon/src
RUN pip install --no-cache-dir "/opt/ptychon[em,detectors]" && rm -rf /opt/ptychon

# Kernels are compiled when they are first used: mount a folder here to keep them.
ENV NUMBA_CACHE_DIR=/cache MPLCONFIGDIR=/cache/matplotlib
RUN mkdir -p /cache /data && chmod 1777 /cache /data
VOLUME ["/cache"]
WORKDIR /data

ENTRYPOINT ["ptychon"]
CMD ["--help"]
