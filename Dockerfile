# hrseg on a CPU. Build: docker build -t hrseg . Demo: docker run --rm hrseg
# With a GPU, start from an image that has a CUDA build of torch, and install hrseg into it.
FROM python:3.11-slim-bookworm

# rasterio and OpenCV's headless build bring their libraries; libgomp is the only one they expect.
RUN apt-get update \
 && apt-get install --no-install-recommends --yes libgomp1 \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hrseg
COPY . .
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    torch==2.13.0+cpu \
 && pip install --no-cache-dir -c constraints.txt ".[tensorboard]"

RUN useradd --create-home hrseg
USER hrseg
WORKDIR /home/hrseg
# The commands of scripts/demo.
CMD ["sh", "-c", "hrseg fit --config synthetic_tiny && hrseg validate --config synthetic_tiny 'inference.scales=[0.75,1.0,1.25]' inference.flip=true inference.details=true"]
